"""Means over examples, with intervals by patient: what a task reports that measures one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medtl.core.types import Predictions, Table
from medtl.evaluation.intervals import Resampling, bootstrap
from medtl.evaluation.summary import Pair, check_same_rows, patients, plain

Runs = Sequence[Pair]


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
  patient, warnings = patients(tables['test'])
  resampling = Resampling(patient, resamples, seed, level)
  values = {name: test.values[name][None] for name in names}
  val_means: dict[str, float | None] = {}
  if 'val' in predictions:
    for name in names:
      mean = of_known(np.asarray(predictions['val'].values[name], float))
      val_means[name] = None if np.isnan(mean) else float(mean)
  return {
    'classes': list(classes),
    'images': len(test.row),
    'patients': None if patient is None else len(np.unique(patient)),
    'unit': 'image' if patient is None else 'patient',
    'level': level,
    'resamples': resamples,
    'headline': list(names),
    'metrics': of_means(values, resampling),
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
  resampling = Resampling(patients(table)[0], resamples, seed, level)
  return of_means(_stacked(runs, names), resampling)


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
  check_same_rows([test for test, _ in (*first, *second)])
  resampling = Resampling(patients(table)[0], resamples, seed, level)
  values = _stacked(first, names)
  other_values = _stacked(second, names)
  difference = {name: values[name] - other_values[name] for name in names}
  return of_means(difference, resampling, tested=True)


def of_means(
  values: Mapping[str, np.ndarray], resampling: Resampling, tested: bool = False
) -> dict[str, Any]:
  """Return {name: interval} of the mean over examples and runs of values [runs, n].

  Examples without a value, which is nan then, are left out of the mean. `tested` adds p.
  """

  def statistic(rows: np.ndarray, runs: np.ndarray) -> dict[str, np.ndarray]:
    return {name: of_known(value[np.ix_(runs, rows)]) for name, value in values.items()}

  first = next(iter(values.values()))
  has = np.isfinite(first).all(axis=0)
  if not has.any():
    has[:] = True
  runs = len(first)
  return plain(bootstrap(statistic, has[:, None], *resampling, runs=runs, tested=tested))


def of_known(values: np.ndarray, axis: int | None = None) -> np.ndarray:
  """Return the mean of what is not nan, nan where all are.

  >>> float(of_known(np.array([1.0, np.nan, 3.0])))
  2.0
  """
  known = ~np.isnan(values)
  count = known.sum(axis)
  total = np.where(known, values, 0.0).sum(axis)
  return np.where(count > 0, total / np.maximum(1, count), np.nan)


def _stacked(runs: Runs, names: Sequence[str]) -> dict[str, np.ndarray]:
  tests = [test for test, _ in runs]
  check_same_rows(tests)
  return {name: np.stack([test.values[name] for test in tests]) for name in names}
