"""Kermany's protocol: a softmax on frozen features, 100 epochs of Adam; the epoch chosen on validation beside one chosen on the test set.

python -m experiments.kermany2018 --config=configs/oct_efficientnet.py --config.data.root=FOLDER

Kermany et al. 2018 (Cell 172): convolutions frozen, features computed once, Adam at 0.001, batches of 1000. There the best epoch was chosen
on the pictures that were reported; the second row does the same, to show what that is worth, and is no estimate of anything else.
Features are standardised on the training patients. Folds by patient, predictions out of fold.
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

EPOCHS, RATE, BATCH = 100, 1e-3, 1000
METRICS = {'accuracy': metrics.accuracy, 'auroc': metrics.auroc}


def epochs(x, y, classes, seed=0):
  """Yield {side: probabilities} after each epoch; x and y are {side: array}."""
  weight = {'kernel': jnp.zeros((x['train'].shape[1], classes)), 'bias': jnp.zeros(classes)}
  adam = optax.adam(RATE)
  state, random = adam.init(weight), np.random.RandomState(seed)
  score = lambda weight, x: x @ weight['kernel'] + weight['bias']

  @jax.jit
  def step(weight, state, x, y):
    loss = lambda weight: optax.softmax_cross_entropy_with_integer_labels(
      score(weight, x), y
    ).mean()
    updates, state = adam.update(jax.grad(loss)(weight), state)
    return optax.apply_updates(weight, updates), state

  for _ in range(EPOCHS):
    order = random.permutation(len(y['train']))
    for begin in range(0, len(order), BATCH):
      index = order[begin : begin + BATCH]
      weight, state = step(weight, state, x['train'][index], y['train'][index])
    yield {side: np.asarray(jax.nn.softmax(score(weight, x[side]))) for side in ('val', 'test')}


def main(argv):
  """Print both rows and their difference, and write them to runs/kermany2018.json."""
  config = cli.parse('train', argv)[1]
  like, found = None, []
  for number in range(config.data.split.folds):
    like = parts = assemble.run_context(
      assemble.with_changes(config, (('data.split.fold', number),)), like=like
    )
    y = {side: np.asarray(data.table['y']) for side, data in parts.data.items()}
    ((_, raw),) = frozen_features.vectors(parts, (len(parts.net.children),))
    alike = linear_heads.standardise(raw['train'])
    made = list(epochs({side: alike(x) for side, x in raw.items()}, y, len(parts.classes)))
    chosen = {
      side: int(np.argmax([metrics.accuracy(score[side], y[side]) for score in made]))
      for side in ('val', 'test')
    }
    print(
      f'fold {number}: best epoch on validation {chosen["val"] + 1}, on test {chosen["test"] + 1}'
    )
    found.append(
      (parts.data['test'].table, {side: made[epoch]['test'] for side, epoch in chosen.items()})
    )
  table = {name: np.concatenate([one[name] for one, _ in found]) for name in found[0][0]}
  score = {side: np.concatenate([scores[side] for _, scores in found]) for side in ('val', 'test')}
  draw = dict(patient=summary.patients(table)[0], resamples=config.resamples)
  rows = {
    'epoch chosen on validation': intervals.intervals(score['val'], table['y'], METRICS, **draw),
    'epoch chosen on test, as published: too good': intervals.intervals(
      score['test'], table['y'], METRICS, **draw
    ),
    'the second minus the first': intervals.difference(
      score['test'], score['val'], table['y'], METRICS, **draw
    ),
  }
  print(f'{assemble.one_line(parts)}; over {len(table["y"])} images out of fold')
  for name, values in rows.items():
    print(
      f'| {name} | '
      + ' | '.join(console.words(value._asdict()) for value in values.values())
      + ' |'
    )
  out = Path('runs') / 'kermany2018.json'
  out.parent.mkdir(exist_ok=True)
  out.write_text(
    json.dumps({name: summary.plain(values) for name, values in rows.items()}, indent=1)
  )


if __name__ == '__main__':
  main(sys.argv[1:])
