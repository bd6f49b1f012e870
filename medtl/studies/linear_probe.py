"""Linear heads on features that are computed once: hundreds side by side, chosen on validation, tested beside the exact solutions."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from medtl import data, tasks
from medtl.core.types import MedtlError, Predictions
from medtl.evaluation import metrics
from medtl.features import linear_heads
from medtl.report import comparison
from medtl.run import assemble, frozen_features, run_folder, train, validate
from medtl.run.context import RunContext
from medtl.runtime import files, run_log

SETTINGS = linear_heads.grid(
  lr=(0.003, 0.03), decay=tuple(10.0 ** np.arange(-4.0, 1.1, 0.5)), balance=(0.0, 1.0), seed=(0, 1)
)
SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
STEPS = 300
PLAIN = 'logistic regression'
STRENGTHS = tuple(10.0 ** np.arange(-5.0, 2.1))
# name: (how it is fitted, the values that validation chooses from)
EXACT: dict[str, tuple[Callable[[np.ndarray, np.ndarray, Any], Any], Sequence[Any]]] = {
  PLAIN: (linear_heads.logistic, STRENGTHS),
  'ridge': (linear_heads.ridge, tuple(10.0 ** np.arange(-1.0, 6.1))),
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

  Methods: the best of the heads trained side by side for each share of the training patients' labels, and scikit-learn's exact ones.
  `layers` > 1 joins the pooled features of the last so many children. Every choice is made on the fold's own validation side.
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
  """Return a row for each method, see `probed`."""
  begin, contexts, answers = time.time(), list(_folds(config, workdir, command, every_fold)), []
  if 'val' not in contexts[0].data:
    raise MedtlError('probe chooses on validation patients, and data.split.val is 0: set it to 1')
  for one in contexts:
    x, y = (
      _features(one, layers),
      {side: np.asarray(dataset.table['y']) for side, dataset in one.data.items()},
    )
    answers.append([*_heads(one, x, y), *_exact(x, y)])
  tests = [one.data['test'] for one in contexts]
  table = {
    name: np.concatenate([np.asarray(test.table[name]) for test in tests])
    for name in tests[0].table
  }
  found = {
    several[0].name: Predictions(
      table['row'],
      table['y'],
      {'score': np.concatenate([answer.score for answer in several])},
    )
    for several in zip(*answers, strict=True)
  }
  rows = [
    _row(several, found[several[0].name], table, config, contexts[0])
    for several in zip(*answers, strict=True)
  ]
  best = comparison.extreme(rows, rows[0]['headline'][0])['name']
  for row in rows:
    row['differences'] = {
      what: None
      if row['name'] == other
      else contexts[0].task.summary.difference(
        [(found[row['name']], None)],
        [(found[other], None)],
        table,
        resamples=config.resamples,
      )
      for what, other in ((PLAIN, PLAIN), (comparison.BEST, best))
    }
  comparison.correct_p_values(rows)
  _write(rows, contexts, workdir, command, time.time() - begin)
  return rows


def _folds(
  config: ConfigDict, workdir: Path, command: str, every_fold: bool
) -> Iterator[RunContext]:
  like = None
  for number in range(validate.count_folds(config)) if every_fold else (None,):
    fold = assemble.with_changes(config, () if number is None else (('data.split.fold', number),))
    like = train.prepare(fold, train.resolve_pretrained_run(fold, workdir, command), like)
    yield like


def _features(context: RunContext, layers: int) -> dict[str, np.ndarray]:
  """Return {side: [n, d]}, each feature standardised over the training examples."""
  count = len(context.net.children)
  if not 1 <= layers <= count:
    raise MedtlError(f'--layers={layers}: this backbone has {count} children, so 1 … {count}')
  several = [x for _, x in frozen_features.vectors(context, range(count - layers + 1, count + 1))]
  joined = {side: np.concatenate([x[side] for x in several], 1) for side in several[0]}
  alike = linear_heads.standardise(joined['train'])
  return {side: alike(x) for side, x in joined.items()}


def _heads(
  context: RunContext, x: dict[str, np.ndarray], y: dict[str, np.ndarray]
) -> Iterator[Answer]:
  """Yield the best head for each share of the labels; the heads of a share are trained side by side."""
  rows = context.data['train'].table['row']
  config = context.config.data.to_dict()
  own = config['split'].get('labels', 1.0)
  for share in SHARES:
    fewer = data.load(**{**config, 'split': {**config['split'], 'labels': share * own}})['train']
    used = np.isin(rows, fewer.table['row']).astype(np.float32)
    begin = time.time()
    made = linear_heads.train(
      x['train'],
      y['train'],
      SETTINGS,
      len(context.classes),
      np.tile(used, (len(SETTINGS.lr), 1)),
      STEPS,
    )
    val, test = linear_heads.predict(made, x['val']), linear_heads.predict(made, x['test'])
    best = int(np.argmin([metrics.log_loss(score, y['val']) for score in val]))
    chosen = ', '.join(
      f'{name} {float(values[best]):.3g}'
      for name, values in zip(SETTINGS._fields, SETTINGS, strict=True)
    )
    yield Answer(
      f'best head, {share * own:.0%} of the labels',
      test[best],
      chosen,
      time.time() - begin,
      made.weight[0].size + made.bias[0].size,
    )


def _exact(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> Iterator[Answer]:
  """Yield scikit-learn's solutions on all labels, their strength chosen on validation."""
  for name, (fit, values) in EXACT.items():
    begin = time.time()
    models = [fit(x['train'], y['train'], value) for value in values]
    heat = [linear_heads.temperature(model, x['val'], y['val']) for model in models]
    losses = [
      metrics.log_loss(linear_heads.score(model, x['val'], t), y['val'])
      for model, t in zip(models, heat, strict=True)
    ]
    best = int(np.argmin(losses))
    yield Answer(
      name,
      linear_heads.score(models[best], x['test'], heat[best]),
      f'{values[best]:.3g}',
      time.time() - begin,
      (x['train'].shape[1] + 1) * len(np.unique(y['train'])),
    )


def _row(
  several: Sequence[Answer],
  found: Predictions,
  table: dict[str, np.ndarray],
  config: ConfigDict,
  context: RunContext,
) -> dict[str, Any]:
  told = context.task.summary.whole(
    {'test': found}, {'test': table}, context.classes, resamples=config.resamples
  )
  seconds = sum(answer.seconds for answer in several)
  return {
    'name': several[0].name,
    'seeds': 1,
    'folds': len(several),
    'seconds': seconds,
    'spans': {'fit': seconds},
    'freeze': 'depth(1.0)',
    'chosen': [answer.chosen for answer in several],
    'live': several[0].size,
    'flops': 0.0,
    **{key: told[key] for key in ('headline', 'images', 'patients', 'metrics', 'warnings')},
  }


def _write(
  rows: list[dict[str, Any]],
  contexts: Sequence[RunContext],
  workdir: Path,
  command: str,
  seconds: float,
) -> None:
  for row in rows:
    run_log.console.print(
      f'{row["name"]}: chosen on validation, fold by fold: {"; ".join(row["chosen"])}'
    )
  facts = {
    'title': 'Linear heads on frozen features',
    'axis': 'head',
    'command': command,
    'hardware': run_folder.hardware(),
    'versions': run_folder.versions(),
    'seconds': seconds,
    'warnings': list(dict.fromkeys(warning for row in rows for warning in row['warnings'])),
    'sentence': f'{assemble.one_line(contexts[0])}. {len(SETTINGS.lr)} heads side by side for each share of the labels.',
  }
  run_folder.write_json(workdir / 'probe.json', {'rows': rows, 'screen': {}})
  files.write(workdir / 'probe.csv', comparison.csv(rows))
  comparison.write(workdir / 'probe.html', rows, facts, {})
  run_log.console.print(comparison.table(rows))
  run_log.console.print(comparison.verdict(rows, rows[0]['headline'][0]))
  run_log.console.print(f'{seconds:.0f} s in all; the page: {workdir / "probe.html"}')
