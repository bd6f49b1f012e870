"""Linear probes of every depth and pooling on a MedMNIST set, beside a plain regression.

python -m experiments.probe_medmnist --config=configs/breast_clip.py --config.data.root=FOLDER \
  --config.model.weights=FILE [--open]

The probes are chosen on validation. Without --open the test set stays shut: only validation numbers
are printed. The protocol, and published numbers, are in docs/probe_breastmnist.md.
"""

import json
import sys
from pathlib import Path

import numpy as np

from medtl import cli
from medtl.evaluation import intervals, metrics
from medtl.features import linear_heads
from medtl.report import console
from medtl.run import assemble, frozen_features

POOLS = ('token', 'mean', 'token+mean')
DECAYS = tuple(10.0 ** np.arange(-3.0, 0.6, 0.5))
CS = tuple(10.0 ** np.arange(-5.0, 2.1, 0.5))
BEST = 10  # settings averaged: one alone owes too much to 78 validation images
RESAMPLES = 2000
METRICS = {'accuracy': metrics.accuracy, 'auroc': lambda score, y: metrics.class_auroc(score, y)[1]}


def features(context):
  """Return {(depth, pool): {side: [n, d]}} of every child, each computed from the one below."""
  depths = range(2, len(context.net.children) + 1)
  features_of = {}
  for pool in POOLS:
    for depth, x in frozen_features.vectors(context, depths, pool):
      features_of[depth - 1, pool] = x
  return features_of


def probed(features_of, y):
  """Return (validation log-loss, words, {side: probabilities}) of every setting, best first.

  A setting is a depth, a pooling, a weight decay and a class weight.
  """
  settings = linear_heads.grid(lr=(0.02,), decay=DECAYS, balance=(0.0, 1.0))
  results = []
  for (depth, pool), x in features_of.items():
    standardise = linear_heads.standardise(x['train'])
    heads = linear_heads.train(standardise(x['train']), y['train'], settings, 2, steps=500)
    scores = {side: linear_heads.predict(heads, standardise(x[side])) for side in x}
    for index in range(len(settings.decay)):
      decay = settings.decay[index]
      balance = settings.balance[index]
      score = {side: value[index] for side, value in scores.items()}
      loss = float(metrics.log_loss(score['val'], y['val']))
      words = f'block {depth}, {pool}, decay {decay:.3g}, balance {balance:g}'
      results.append((loss, words, score))
  return sorted(results, key=lambda result: result[0])


def plain(x, y):
  """Return (words, {side: probabilities}) of scikit-learn's logistic regression.

  It is fitted on the last class token, its C chosen on validation.
  """
  models = {c: linear_heads.logistic(x['train'], y['train'], c) for c in CS}

  def auroc(c):
    return METRICS['auroc'](linear_heads.score(models[c], x['val']), y['val'])

  best = max(CS, key=auroc)
  score = {side: linear_heads.score(models[best], x[side]) for side in x}
  return f'plain logistic regression, C {best:.3g}', score


def row_of(name, side, interval_of):
  """Return a row of the table: what was tested, and each metric in words."""
  words = {metric: console.words(interval_of[metric]._asdict()) for metric in METRICS}
  return {'name': name, 'side': side, **words}


def main(argv):
  """Print the tables; with --open those of the test set as well, once."""
  shut = '--open' not in argv
  _, config, _ = cli.parse('train', [word for word in argv if word != '--open'])
  context = assemble.run_context(config)
  y = {side: np.asarray(data.table['y']) for side, data in context.data.items()}
  features_of = features(context)
  results = probed(features_of, y)
  best = results[:BEST]
  name, baseline = plain(features_of[context.net.backbone.stages, 'token'], y)
  mean = {side: np.mean([score[side] for _, _, score in best], 0) for side in y}
  for loss, words, score in best:
    auroc = METRICS['auroc'](score['val'], y['val'])
    print(f'{loss:.4f}  {words}  val AUROC {auroc:.3f}')
  methods = {f'mean of the {BEST} best probes': mean, 'the best probe alone': best[0][2]}
  methods[name] = baseline
  rows = []
  for side in ('val',) if shut else ('val', 'test'):
    for method, score in methods.items():
      interval_of = intervals.intervals(score[side], y[side], METRICS, resamples=RESAMPLES)
      rows.append(row_of(method, side, interval_of))
  if not shut:
    gap = intervals.difference(
      mean['test'], baseline['test'], y['test'], METRICS, resamples=RESAMPLES
    )
    rows.append(row_of(f'mean of the {BEST} best minus plain', 'test', gap))
  for row in rows:
    print(f'| {" | ".join(row.values())} |')
  out = Path('runs') / 'probe_medmnist.json'
  out.parent.mkdir(exist_ok=True)
  out.write_text(json.dumps({'rows': rows, 'probes': len(results), 'shut': shut}, indent=1))


if __name__ == '__main__':
  main(sys.argv[1:])
