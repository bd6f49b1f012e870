"""Scores beside a study: of the very activations, and of the checkpoint's own classifier.

Beside them stands how they ranked what was measured.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.features import transferability
from medtl.report import comparison
from medtl.run import assemble
from medtl.studies import transferability_scores
from tests import tiny
from tests.fixtures import seeded


@pytest.fixture(scope='module')
def context():
  return assemble.run_context(tiny.get_config())


def test_scores_are_those_of_the_pooled_activations_of_the_training_patients(context):
  found = transferability_scores.depths([context], [3, 5])
  train, variables = context.data['train'], {'params': context.params, **context.extra}
  x = np.stack([train.fetch(i).x for i in range(train.size)])
  for depth in (3, 5):
    values = np.asarray(context.net.apply(variables, x, end_child=depth, method='features')).mean(
      (1, 2)
    )
    assert found[depth]['LogME'] == pytest.approx(
      transferability.log_me(values, train.table['y']), abs=1e-4
    )
    assert found[depth]['TransRate'] == pytest.approx(
      transferability.trans_rate(values, train.table['y']), rel=1e-3
    )


def test_several_folds_are_averaged(context):
  other = assemble.run_context(
    assemble.with_changes(context.config, (('data.split.fold', 1),)), like=context
  )
  alone = [transferability_scores.depths([one], [5])[5]['LogME'] for one in (context, other)]
  assert (
    transferability_scores.depths([context, other], [5])[5]['LogME']
    == pytest.approx(np.mean(alone))
    and alone[0] != alone[1]
  )


def test_labels_of_several_classes_have_no_such_score(context):
  several = context.data['train']
  several = type(several)(
    several.fetch,
    several.size,
    several.classes,
    {**several.table, 'y': np.ones((several.size, 2))},
    several.facts,
  )
  with pytest.raises(MedtlError, match='one class an example; these data have several labels'):
    transferability_scores.depths(
      [type(context)(**{**vars(context), 'data': {**context.data, 'train': several}})], [5]
    )


def test_rank_correlations_by_hand():
  scores = {
    depth: {'LogME': value, 'H-score': -value, 'TransRate': 1.0}
    for depth, value in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.3))
  }
  found = transferability_scores.agreement(scores, {1: 0.7, 2: 0.8, 3: 0.85, 4: 0.9, 9: 0.1})
  assert found['LogME'] == dict(
    spearman=pytest.approx(0.8), kendall=pytest.approx(4 / 6), depths=4, chosen=3
  )
  assert found['H-score']['spearman'] == pytest.approx(-0.8) and found['H-score']['chosen'] == 1
  assert found['TransRate']['spearman'] is None
  rows = [dict(depth=depth, name=f'depth{depth}') for depth in scores]
  lines = comparison.screened({'depths': rows, 'agreement': found, 'classifier': {'LEEP': -0.5}})
  assert (
    'would have chosen depth3' in lines[0]
    and '+0.80 (Spearman)' in lines[0]
    and 'no rank correlation' in lines[2]
  )
  assert (
    lines[3] == "the checkpoint's own classifier: LEEP -0.500" and comparison.screened({}) == []
  )


def test_a_checkpoint_answers_with_its_own_classifier(context, tmp_path):
  """Logits of efficientnet-lite-pytorch on seeded weights."""
  with np.load(Path(__file__).parents[1] / 'fixtures' / 'efficientnet.npz') as file:
    reference = dict(file)
  np.savez(tmp_path / 'lite0.npz', **seeded.weights(json.loads(str(reference['shapes']))['lite0']))
  config = assemble.with_changes(
    context.config,
    (
      (
        'model',
        {'name': 'efficientnet.efficientnet_lite0', 'weights': str(tmp_path / 'lite0.npz')},
      ),
      ('truncate', 3),
      ('head', {'name': 'linear', 'norm': 'batch'}),
    ),
  )
  net, variables = assemble.pretrained_classifier(config, (96, 128, 3))
  x = seeded.picture(1, 96, 128, 3) * np.asarray(net.std, np.float32) + np.asarray(
    net.mean, np.float32
  )
  logits = jax.jit(lambda x: net.apply(variables, x, train=False))(x)
  scale = np.abs(reference['logits']).max()
  assert np.abs(logits[0, ::10] - reference['logits']).max() < 1e-4 * scale
  cut = assemble.run_context(config)
  assert sorted(cut.params['backbone']) == ['stage1', 'stage2', 'stem']
  assert (
    transferability_scores.classifier([cut])['LEEP'] < 0
    and transferability_scores.classifier([context]) == {}
  )
