"""Kermany's protocol: a softmax on frozen features, 100 epochs of Adam.

The epoch that is chosen on validation stands beside one that is chosen on the test set.

python -m experiments.kermany2018 --config=configs/oct_efficientnet.py --config.data.root=FOLDER

Kermany et al. 2018 (Cell 172): convolutions frozen, features computed once, Adam at 0.001, batches
of 1000. There the best epoch was chosen on the pictures that were reported; the second row does the
same, to show what that is worth, and is no estimate of anything else. Features are standardised on
the training patients. Folds by patient, predictions out of fold.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medtl import cli
from medtl.evaluation import intervals, metrics, summary
from medtl.features import linear_heads
from medtl.report import console
from medtl.run import assemble, frozen_features
from medtl.studies import folds

EPOCHS = 100
RATE = 1e-3
BATCH = 1000
CHOOSERS = ('val', 'test')  # sides on which the best epoch is chosen
METRICS = {'accuracy': metrics.accuracy, 'auroc': metrics.auroc}


def epochs(x, y, classes, seed=0):
  """Yield {side: probabilities} after each epoch; x and y are {side: array}."""
  weight = {'kernel': jnp.zeros((x['train'].shape[1], classes)), 'bias': jnp.zeros(classes)}
  adam = optax.adam(RATE)
  state = adam.init(weight)
  random = np.random.RandomState(seed)
  logits = lambda weight, x: x @ weight['kernel'] + weight['bias']

  def loss(weight, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits(weight, x), y).mean()

  @jax.jit
  def step(weight, state, x, y):
    updates, state = adam.update(jax.grad(loss)(weight, x, y), state)
    return optax.apply_updates(weight, updates), state

  for _ in range(EPOCHS):
    order = random.permutation(len(y['train']))
    for begin in range(0, len(order), BATCH):
      index = order[begin : begin + BATCH]
      weight, state = step(weight, state, x['train'][index], y['train'][index])
    yield {side: np.asarray(jax.nn.softmax(logits(weight, x[side]))) for side in ('val', 'test')}


def of_fold(context):
  """Return the test probabilities of one fold, by the side that chose the epoch."""
  y = {side: np.asarray(data.table['y']) for side, data in context.data.items()}
  ((_, raw),) = frozen_features.vectors(context, (len(context.net.children),))
  standardise = linear_heads.standardise(raw['train'])
  x = {side: standardise(features) for side, features in raw.items()}
  scores = list(epochs(x, y, len(context.classes)))
  best = {}
  for side in CHOOSERS:
    best[side] = int(np.argmax([metrics.accuracy(score[side], y[side]) for score in scores]))
  print(f'best epoch on validation {best["val"] + 1}, on test {best["test"] + 1}')
  return {side: scores[epoch]['test'] for side, epoch in best.items()}


def main(argv):
  """Print both rows and their difference, and write them to runs/kermany2018.json."""
  _, config, _ = cli.parse('train', argv)
  contexts = []
  of_folds = []
  for number in range(config.data.split.folds):
    like = contexts[-1] if contexts else None
    contexts.append(assemble.run_context(folds.of_fold(config, number), like=like))
    print(f'fold {number}: ', end='')
    of_folds.append(of_fold(contexts[-1]))
  tables = [context.data['test'].table for context in contexts]
  table = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]}
  score = {side: np.concatenate([one[side] for one in of_folds]) for side in CHOOSERS}
  y = table['y']
  patient, _ = summary.patients(table)
  resampling = intervals.Resampling(patient, config.resamples, seed=0, level=0.95)
  rows = {
    'epoch chosen on validation': intervals.intervals(score['val'], y, METRICS, *resampling),
    'epoch chosen on test, as published: too good': intervals.intervals(
      score['test'], y, METRICS, *resampling
    ),
    'the second minus the first': intervals.difference(
      score['test'], score['val'], y, METRICS, *resampling
    ),
  }
  print(f'{assemble.one_line(contexts[-1])}; over {len(y)} images out of fold')
  for name, interval_of in rows.items():
    words = [console.words(interval._asdict()) for interval in interval_of.values()]
    print(f'| {name} | {" | ".join(words)} |')
  out = Path('runs') / 'kermany2018.json'
  out.parent.mkdir(exist_ok=True)
  plain = {name: summary.plain(interval_of) for name, interval_of in rows.items()}
  out.write_text(json.dumps(plain, indent=1))


if __name__ == '__main__':
  main(sys.argv[1:])
