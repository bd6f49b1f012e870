"""Linear heads on features that are computed once, hundreds side by side.

They are chosen on validation, and tested beside scikit-learn's exact solutions.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from medtl import data, tasks
from medtl.core.types import MedtlError, Predictions, Table
from medtl.evaluation import metrics
from medtl.features import linear_heads
from medtl.report import comparison
from medtl.run import assemble, frozen_features, run_folder, validate
from medtl.run.context import RunContext
from medtl.runtime import files, run_log
from medtl.studies import ablation, folds

DECAYS = tuple(10.0 ** np.arange(-4.0, 1.1, 0.5))
SETTINGS = linear_heads.grid(lr=(0.003, 0.03), decay=DECAYS, balance=(0.0, 1.0), seed=(0, 1))
SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
STEPS = 300
PLAIN = 'logistic regression'
STRENGTHS = tuple(10.0 ** np.arange(-5.0, 2.1))
RIDGE_STRENGTHS = tuple(10.0 ** np.arange(-1.0, 6.1))
Fit = Callable[[np.ndarray, np.ndarray, Any], Any]  # x [n, d], y [n], strength -> a model
# name: (how it is fitted, the values that validation chooses from)
EXACT: dict[str, tuple[Fit, Sequence[Any]]] = {
  PLAIN: (linear_heads.logistic, STRENGTHS),
  'ridge': (linear_heads.ridge, RIDGE_STRENGTHS),
  'linear SVM': (linear_heads.svm, STRENGTHS),
  'nearest neighbours': (linear_heads.neighbours, (1, 3, 5, 11, 21)),
}


class Answer(NamedTuple):
  """What one method says of one fold."""

  name: str
  score: np.ndarray  # [n, k] of the test side
  chosen: str  # what validation chose
  seconds: float  # for all its settings
  size: int  # numbers that a head has


def probed(
  config: ConfigDict, workdir: Path, command: str = '', *, every_fold: bool = False, layers: int = 1
) -> list[dict[str, Any]]:
  """Return a row for each method, as a study's, and write probe.json, probe.csv and probe.html.

  The methods are the best of the heads trained side by side, for each share of the training
  patients' labels, and scikit-learn's exact ones. Every choice is made on the fold's own
  validation side. `layers` > 1 joins the pooled features of the last so many children.
  """
  task = tasks.make(config.task.to_dict())
  if not task.one_class or task.outputs(assemble.PAIR) != len(assemble.PAIR):
    keys = ', '.join(f'task.{key}={value!r}' for key, value in task.keys.items() if key != 'loss')
    raise MedtlError(
      f'probe knows one class an example (multiclass, binary), found {keys}; use the verb train'
    )
  with run_folder.occupied(workdir, config):
    return _probed(config, workdir, command, every_fold, layers)


def _probed(
  config: ConfigDict, workdir: Path, command: str, every_fold: bool, layers: int
) -> list[dict[str, Any]]:
  begin = time.time()
  count = validate.count_folds(config) if every_fold else 0
  contexts = folds.contexts(config, count, workdir, command)
  if 'val' not in contexts[0].data:
    raise MedtlError('probe chooses on validation patients, and data.split.val is 0: set it to 1')
  answers: dict[str, list[Answer]] = {}  # of each fold
  for context in contexts:
    x = _features(context, layers)
    y = {side: np.asarray(dataset.table['y']) for side, dataset in context.data.items()}
    for answer in (*_heads(context, x, y), *_exact(x, y)):
      answers.setdefault(answer.name, []).append(answer)
  tables = [context.data['test'].table for context in contexts]
  table = {}
  for column in tables[0]:
    table[column] = np.concatenate([np.asarray(one[column]) for one in tables])
  predicted = {}
  rows = []
  for name, of_folds in answers.items():
    score = np.concatenate([answer.score for answer in of_folds])
    predicted[name] = Predictions(table['row'], table['y'], {'score': score})
    rows.append(_row(of_folds, predicted[name], table, config, contexts[0]))
  _add_differences(rows, predicted, table, config, contexts[0])
  _write(rows, contexts, workdir, command, time.time() - begin)
  return rows


def _add_differences(
  rows: list[dict[str, Any]],
  predicted: Mapping[str, Predictions],
  table: Table,
  config: ConfigDict,
  context: RunContext,
) -> None:
  """Add to each row its paired differences to logistic regression and to the best observed."""
  best = comparison.extreme(rows, rows[0]['headline'][0])['name']
  for row in rows:
    own = [(predicted[row['name']], None)]
    row['differences'] = {PLAIN: None, comparison.BEST: None}
    for reference, name in ((PLAIN, PLAIN), (comparison.BEST, best)):
      if name != row['name']:
        other = [(predicted[name], None)]
        row['differences'][reference] = context.task.summary.difference(
          own, other, table, resamples=config.resamples
        )
  comparison.correct_p_values(rows)


def _features(context: RunContext, layers: int) -> dict[str, np.ndarray]:
  """Return {side: [n, d]}, each feature standardised over the training examples."""
  count = len(context.net.children)
  if not 1 <= layers <= count:
    raise MedtlError(f'--layers={layers}: this backbone has {count} children, so 1 … {count}')
  wanted = range(count - layers + 1, count + 1)
  vectors = [x for _, x in frozen_features.vectors(context, wanted)]
  joined = {}
  for side in vectors[0]:
    joined[side] = np.concatenate([x[side] for x in vectors], 1)
  standardise = linear_heads.standardise(joined['train'])
  return {side: standardise(x) for side, x in joined.items()}


def _heads(
  context: RunContext, x: dict[str, np.ndarray], y: dict[str, np.ndarray]
) -> Iterator[Answer]:
  """Yield the best head for each share of the labels; those of one share train side by side."""
  rows = context.data['train'].table['row']
  keys = context.config.data.to_dict()
  own_share = keys['split'].get('labels', 1.0)
  for part in SHARES:
    share = part * own_share
    split = {**keys['split'], 'labels': share}
    labelled = data.load(**{**keys, 'split': split})['train']
    used = np.isin(rows, labelled.table['row']).astype(np.float32)
    weights = np.tile(used, (len(SETTINGS.lr), 1))
    begin = time.time()
    classes = len(context.classes)
    heads = linear_heads.train(x['train'], y['train'], SETTINGS, classes, weights, STEPS)
    val = linear_heads.predict(heads, x['val'])
    test = linear_heads.predict(heads, x['test'])
    best = int(np.argmin([metrics.log_loss(score, y['val']) for score in val]))
    settings = zip(SETTINGS._fields, SETTINGS, strict=True)
    yield Answer(
      name=f'best head, {share:.0%} of the labels',
      score=test[best],
      chosen=', '.join(f'{name} {float(values[best]):.3g}' for name, values in settings),
      seconds=time.time() - begin,
      size=heads.weight[0].size + heads.bias[0].size,
    )


def _exact(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> Iterator[Answer]:
  """Yield scikit-learn's solutions on all labels, their strength chosen on validation."""
  for name, (fit, values) in EXACT.items():
    begin = time.time()
    models = [fit(x['train'], y['train'], value) for value in values]
    temperatures = []
    losses = []
    for model in models:
      temperature = linear_heads.temperature(model, x['val'], y['val'])
      score = linear_heads.score(model, x['val'], temperature)
      temperatures.append(temperature)
      losses.append(metrics.log_loss(score, y['val']))
    best = int(np.argmin(losses))
    classes = len(np.unique(y['train']))
    yield Answer(
      name=name,
      score=linear_heads.score(models[best], x['test'], temperatures[best]),
      chosen=f'{values[best]:.3g}',
      seconds=time.time() - begin,
      size=(x['train'].shape[1] + 1) * classes,
    )


def _row(
  of_folds: Sequence[Answer],
  predicted: Predictions,
  table: Table,
  config: ConfigDict,
  context: RunContext,
) -> dict[str, Any]:
  """Return the row of a method from what it says of each fold."""
  numbers = context.task.summary.whole(
    {'test': predicted}, {'test': table}, context.classes, resamples=config.resamples
  )
  seconds = sum(answer.seconds for answer in of_folds)
  first = of_folds[0]
  row = {'name': first.name, 'seeds': 1, 'folds': len(of_folds)}
  row |= {'seconds': seconds, 'spans': {'fit': seconds}, 'freeze': 'depth(1.0)'}
  row['chosen'] = [answer.chosen for answer in of_folds]
  row |= {'live': first.size, 'flops': 0.0}
  for key in ('headline', 'images', 'patients', 'metrics', 'warnings'):
    row[key] = numbers[key]
  return row


def _write(
  rows: list[dict[str, Any]],
  contexts: Sequence[RunContext],
  workdir: Path,
  command: str,
  seconds: float,
) -> None:
  """Write probe.json, probe.csv and probe.html, and print what they say."""
  print_line = run_log.console.print
  for row in rows:
    chosen = '; '.join(row['chosen'])
    print_line(f'{row["name"]}: chosen on validation, fold by fold: {chosen}')
  run = assemble.one_line(contexts[0])
  count = len(SETTINGS.lr)
  facts = {
    'title': 'Linear heads on frozen features',
    'axis': 'head',
    'sentence': f'{run}. {count} heads side by side for each share of the labels.',
    **ablation.provenance(rows, command, seconds),
  }
  run_folder.write_json(workdir / 'probe.json', {'rows': rows, 'screen': {}})
  files.write(workdir / 'probe.csv', comparison.csv(rows))
  comparison.write(workdir / 'probe.html', rows, facts, {})
  print_line(comparison.table(rows))
  print_line(comparison.verdict(rows, rows[0]['headline'][0]))
  print_line(f'{seconds:.0f} s in all; the page: {workdir / "probe.html"}')
