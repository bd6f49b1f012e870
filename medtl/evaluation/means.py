"""Means over examples, with intervals by patient: what a task reports that measures one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medtl.core.types import MedtlError, Predictions, Table
from medtl.evaluation import intervals
from medtl.evaluation.summary import patients, plain

Runs = Sequence[tuple[Predictions, Predictions | None]]


def summarise(
  predictions: Mapping[str, Predictions],
  tables: Mapping[str, Table],
  classes: Sequence[str],
  *,
  names: Sequence[str],
  threshold: str = '',
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Any]:
  """Return the numbers of predictions['test']: the means of the values `names` [n].

  The keys are those of evaluation.summary.summarise that do not speak of classes. There are no
  thresholds: `threshold` is not used.
  """
  test = predictions['test']
  val = predictions.get('val')
  patient, warnings = patients(tables['test'])
  draw: dict[str, Any] = dict(patient=patient, resamples=resamples, seed=seed, level=level)
  val_means = {} if val is None else {name: float(np.mean(val.values[name])) for name in names}
  return {
    'classes': list(classes),
    'images': len(test.row),
    'patients': None if patient is None else len(np.unique(patient)),
    'unit': 'image' if patient is None else 'patient',
    'level': level,
    'resamples': resamples,
    'headline': list(names),
    'metrics': of_means({name: test.values[name][None] for name in names}, draw),
    'by_patient': None,
    'by_patient_note': 'Each image counts for itself.',
    'val': val_means,
    'warnings': warnings,
  }


def summarise_seeds(
  runs: Runs,
  table: Table,
  *,
  names: Sequence[str],
  threshold: str = '',
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Any]:
  """Return {name: interval} of the mean over runs from several seeds, tested on the same rows."""
  draw = dict(patient=patients(table)[0], resamples=resamples, seed=seed, level=level)
  return of_means(_stacked(runs, names), draw)


def compare(
  first: Runs,
  second: Runs,
  table: Table,
  *,
  names: Sequence[str],
  threshold: str = '',
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Any]:
  """Return {name: interval} of first − second on the same test rows, paired image by image."""
  _check_rows([test for test, _ in (*first, *second)])
  ours, theirs = _stacked(first, names), _stacked(second, names)
  difference = {name: ours[name] - theirs[name] for name in names}
  draw = dict(patient=patients(table)[0], resamples=resamples, seed=seed, level=level)
  return of_means(difference, draw)


def of_means(values: Mapping[str, np.ndarray], draw: Mapping[str, Any]) -> dict[str, Any]:
  """Return {name: interval} of the mean over examples and runs of values [runs, n]."""

  def statistic(rows: np.ndarray, runs: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.mean(value[np.ix_(runs, rows)]) for name, value in values.items()}

  runs, count = next(iter(values.values())).shape
  has = np.ones((count, 1), bool)
  return plain(intervals.bootstrap(statistic, has, **draw, runs=runs))


def _stacked(runs: Runs, names: Sequence[str]) -> dict[str, np.ndarray]:
  tests = [test for test, _ in runs]
  _check_rows(tests)
  return {name: np.stack([test.values[name] for test in tests]) for name in names}


def _check_rows(tests: Sequence[Predictions]) -> None:
  if not all(np.array_equal(test.row, tests[0].row) for test in tests):
    raise MedtlError(
      'the two runs predicted different rows; a paired comparison needs the same test data and split'
    )
