"""The verb probe: choices on validation, numbers out of fold, scikit-learn's exact solutions."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from medtl import main
from medtl.core.types import MedtlError
from medtl.evaluation import metrics
from medtl.features import linear_heads
from medtl.run import assemble, frozen_features
from medtl.studies import linear_probe
from tests import tiny

ROOT = Path(__file__).parents[2]
WORDS = ['probe', f'--config={ROOT}/tests/tiny.py', '--config.mean=(0.5,)', '--config.std=(0.5,)']


@pytest.fixture(scope='module')
def context():
  return assemble.run_context(tiny.get_config())


def test_features_are_the_last_children_s_standardised_on_training_alone(context):
  one, two = linear_probe._features(context, 1), linear_probe._features(context, 2)
  assert two['train'].shape[1] > one['train'].shape[1] and np.allclose(
    two['test'][:, -one['test'].shape[1] :], one['test']
  )
  spread = one['train'].std(0)
  assert np.allclose(one['train'].mean(0), 0, atol=1e-4) and np.allclose(
    spread[spread > 0], 1, atol=1e-3
  )
  assert not np.allclose(one['test'].mean(0), 0, atol=1e-3)
  with pytest.raises(MedtlError, match=r'--layers=9: this backbone has 5 children'):
    linear_probe._features(context, 9)


def test_the_exact_answer_is_scikit_learns_with_validation_s_choice(context):
  x, y = (
    linear_probe._features(context, 1),
    {side: np.asarray(data.table['y']) for side, data in context.data.items()},
  )
  found = next(answer for answer in linear_probe._exact(x, y) if answer.name == linear_probe.PLAIN)
  models = [
    LogisticRegression(C=c, max_iter=5000).fit(x['train'], y['train'])
    for c in linear_probe.STRENGTHS
  ]
  best = int(
    np.argmin([metrics.log_loss(model.predict_proba(x['val']), y['val']) for model in models])
  )
  assert found.chosen == f'{linear_probe.STRENGTHS[best]:.3g}' and np.allclose(
    found.score, models[best].predict_proba(x['test'])
  )


def test_a_machine_s_margins_are_divided_by_what_validation_says(context):
  x, y = (
    linear_probe._features(context, 1),
    {side: np.asarray(data.table['y']) for side, data in context.data.items()},
  )
  found = next(answer for answer in linear_probe._exact(x, y) if answer.name == 'ridge')
  models = [
    linear_heads.ridge(x['train'], y['train'], alpha) for alpha in linear_probe.EXACT['ridge'][1]
  ]
  heat = [linear_heads.temperature(model, x['val'], y['val']) for model in models]
  best = int(
    np.argmin(
      [
        metrics.log_loss(linear_heads.score(model, x['val'], t), y['val'])
        for model, t in zip(models, heat, strict=True)
      ]
    )
  )
  assert (
    np.allclose(found.score, softmax(models[best].decision_function(x['test']) / heat[best], 1))
    and abs(heat[best] - 1) > 0.05
  )


def test_the_best_head_is_validation_s(context, monkeypatch):
  x, y = (
    linear_probe._features(context, 1),
    {side: np.asarray(data.table['y']) for side, data in context.data.items()},
  )
  score = np.full((len(linear_probe.SETTINGS.lr), len(y['val']), 4), 0.25)
  score[5] = np.eye(4)[y['val']]  # setting 5 alone is right on validation
  marks = np.arange(len(score))[:, None, None] * np.ones((1, len(y['test']), 4))
  monkeypatch.setattr(
    linear_heads, 'predict', lambda made, given: score if given is x['val'] else marks
  )
  monkeypatch.setattr(
    linear_heads, 'train', lambda *_: linear_heads.Heads(np.zeros((1, 2, 4)), np.zeros((1, 4)))
  )
  for answer in linear_probe._heads(context, x, y):
    assert (answer.score == 5).all()
    assert (
      answer.chosen.startswith(f'lr {linear_probe.SETTINGS.lr[5]:.3g}')
      and f'seed {linear_probe.SETTINGS.seed[5]}' in answer.chosen
    )


def test_several_labels_are_sent_elsewhere(tmp_path):
  config = assemble.with_changes(
    tiny.get_config(),
    (('task', {'name': 'classification', 'kind': 'multilabel', 'loss': 'sigmoid'}),),
  )
  with pytest.raises(MedtlError, match='use the verb train'):
    linear_probe.probed(config, tmp_path)


@pytest.mark.slow
def test_the_verb_ends_in_a_table_over_all_folds(tmp_path, capsys):
  assert main.main([*WORDS, f'--workdir={tmp_path}', '--folds', '--layers=2']) == 0
  rows = json.loads((tmp_path / 'probe.json').read_text())['rows']
  names = [row['name'] for row in rows]
  assert names[:5] == [
    f'best head, {share:.0%} of the labels' for share in linear_probe.SHARES
  ] and set(linear_probe.EXACT) <= set(names)
  assert all(
    row['images'] == 80 and row['patients'] == 40 and len(row['chosen']) == 4 for row in rows
  )
  assert (
    rows[names.index(linear_probe.PLAIN)]['differences'][linear_probe.PLAIN] is None
    and rows[0]['differences'][linear_probe.PLAIN]['auroc']['p_holm']
  )
  assert len(list(csv.DictReader((tmp_path / 'probe.csv').read_text().splitlines()))) == len(rows)
  assert (
    'chosen on validation, fold by fold' in capsys.readouterr().out
    and frozen_features.cache_limit() == 20e9
  )
