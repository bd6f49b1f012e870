"""Linear probes of every depth and pooling on a MedMNIST set, chosen on validation, beside a plain regression and published numbers.

python -m experiments.probe_medmnist --config=configs/breast_clip.py --config.data.root=FOLDER --config.model.weights=FILE [--open]

Without --open the test set stays shut: only validation numbers are printed. The protocol is docs/probe_breastmnist.md.
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
METRICS = {'accuracy': metrics.accuracy, 'auroc': lambda score, y: metrics.class_auroc(score, y)[1]}


def features(context):
  """Return {(depth, pool): {side: [n, d]}} for every child of the backbone, each computed from the one below."""
  return {
    (depth - 1, pool): x
    for pool in POOLS
    for depth, x in frozen_features.vectors(context, range(2, len(context.net.children) + 1), pool)
  }


def probed(found, y):
  """Return a list of (validation log-loss, words, {side: probabilities}) of every depth, pooling, decay and class weight."""
  settings = linear_heads.grid(lr=(0.02,), decay=DECAYS, balance=(0.0, 1.0))
  results = []
  for (depth, pool), x in found.items():
    alike = linear_heads.standardise(x['train'])
    made = linear_heads.train(alike(x['train']), y['train'], settings, 2, steps=500)
    scores = {side: linear_heads.predict(made, alike(x[side])) for side in x}
    for index, (_, decay, balance, _) in enumerate(zip(*settings, strict=True)):
      score = {side: value[index] for side, value in scores.items()}
      words = f'block {depth}, {pool}, decay {decay:.3g}, balance {balance:g}'
      results.append((float(metrics.log_loss(score['val'], y['val'])), words, score))
  return sorted(results, key=lambda result: result[0])


def plain(x, y):
  """Return (words, {side: probabilities}) of scikit-learn's logistic regression on the last class token, C chosen on validation."""
  models = {c: linear_heads.logistic(x['train'], y['train'], c) for c in CS}
  c = max(CS, key=lambda c: METRICS['auroc'](linear_heads.score(models[c], x['val']), y['val']))
  return f'plain logistic regression, C {c:.3g}', {
    side: linear_heads.score(models[c], x[side]) for side in x
  }


def told(name, side, score, y, resamples=2000):
  found = intervals.intervals(score, y, METRICS, resamples=resamples)
  return {
    'name': name,
    'side': side,
    **{metric: console.words(found[metric]._asdict()) for metric in METRICS},
  }


def main(argv):
  """Print the tables; with --open those of the test set as well, once."""
  shut = '--open' not in argv
  config = cli.parse('train', [word for word in argv if word != '--open'])[1]
  context = assemble.run_context(config)
  y = {side: np.asarray(data.table['y']) for side, data in context.data.items()}
  found = features(context)
  results = probed(found, y)
  name, baseline = plain(found[context.net.backbone.stages, 'token'], y)
  chosen = {side: np.mean([score[side] for _, _, score in results[:BEST]], 0) for side in y}
  for loss, words, score in results[:BEST]:
    print(f'{loss:.4f}  {words}  val AUROC {METRICS["auroc"](score["val"], y["val"]):.3f}')
  rows = [
    told(words, side, score[side], y[side])
    for side in (('val',) if shut else ('val', 'test'))
    for words, score in (
      (f'mean of the {BEST} best probes', chosen),
      ('the best probe alone', results[0][2]),
      (name, baseline),
    )
  ]
  if not shut:
    gap = intervals.difference(chosen['test'], baseline['test'], y['test'], METRICS, resamples=2000)
    rows.append(
      {
        'name': f'mean of the {BEST} best minus plain',
        'side': 'test',
        **{metric: console.words(gap[metric]._asdict()) for metric in METRICS},
      }
    )
  for row in rows:
    print('| ' + ' | '.join(row.values()) + ' |')
  out = Path('runs') / 'probe_medmnist.json'
  out.parent.mkdir(exist_ok=True)
  out.write_text(json.dumps({'rows': rows, 'probes': len(results), 'shut': shut}, indent=1))


if __name__ == '__main__':
  main(sys.argv[1:])
