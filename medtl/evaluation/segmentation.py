"""Masks against masks: Dice and IoU of each image → numbers with intervals.

An image's Dice is the mean over the classes that it, or its prediction, shows; images that show
none in either have none, and are left out of the mean.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medtl.core.types import MedtlError, Predictions, Table
from medtl.evaluation import intervals
from medtl.evaluation.summary import patients, plain

METRICS = ('dice', 'iou')  # values of predictions, [n, classes without the background]
NO_PATIENTS = 'Dice is counted image by image; a patient has no Dice of its own.'


def per_image(predictions: Predictions, name: str) -> np.ndarray:
  """Return [n]: the metric of each image, nan where no class is there to be found."""
  values = np.asarray(predictions.values[name], float)
  return _mean(values, axis=1)


def monitor(predictions: Predictions) -> dict[str, float]:
  """Return {metric: mean over images}; all are nan where the net gives no number for some image."""
  broken = not np.isfinite(predictions.values['loss']).all()
  if broken:
    return dict.fromkeys(METRICS, float('nan'))
  return {name: float(_mean(per_image(predictions, name))) for name in METRICS}


def summarise(
  predictions: Mapping[str, Predictions],
  tables: Mapping[str, Table],
  classes: Sequence[str],
  *,
  threshold: str = '',
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Any]:
  """Return the numbers of predictions['test'], as evaluation.summary does of a classifier.

  Keys: classes, images, patients, unit, level, resamples, headline, metrics {name: interval},
  by_patient (None), by_patient_note, per_class, empty (images without any class in truth and
  prediction), val {name: value}, warnings. Masks are the most probable classes: `threshold`, the
  run's rule for thresholds, decides nothing.
  """
  test = predictions['test']
  patient, warnings = patients(tables['test'])
  draw: dict[str, Any] = dict(patient=patient, resamples=resamples, seed=seed, level=level)
  found = _intervals([test], draw)
  empty = int(np.isnan(per_image(test, 'dice')).sum())
  if empty:
    warnings = [
      *warnings,
      f'{empty} of {len(test.row)} images show no class in truth and prediction: they have no Dice.',
    ]
  val = predictions.get('val')
  return {
    'classes': list(classes),
    'images': len(test.row),
    'patients': None if patient is None else len(np.unique(patient)),
    'unit': 'image' if patient is None else 'patient',
    'level': level,
    'resamples': resamples,
    'headline': list(METRICS),
    'metrics': found,
    'by_patient': None,
    'by_patient_note': NO_PATIENTS,
    'per_class': _per_class(test, classes[1:], draw),
    'empty': empty,
    'val': {} if val is None else _without_nan(monitor(val)),
    'warnings': warnings,
  }


def summarise_seeds(
  runs: Sequence[tuple[Predictions, Predictions | None]],
  table: Table,
  *,
  threshold: str = '',
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Any]:
  """Return {name: interval} of the mean over runs from several seeds, tested on the same rows."""
  tests = [test for test, _ in runs]
  _check_rows(tests)
  draw = dict(patient=patients(table)[0], resamples=resamples, seed=seed, level=level)
  return _intervals(tests, draw)


def compare(
  first: Sequence[tuple[Predictions, Predictions | None]],
  second: Sequence[tuple[Predictions, Predictions | None]],
  table: Table,
  *,
  threshold: str = '',
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Any]:
  """Return {name: interval} of first − second on the same test rows, paired image by image.

  An image that has a value in one alone counts for neither: it would be no pair.
  """
  one = [test for test, _ in first]
  other = [test for test, _ in second]
  _check_rows([*one, *other])
  difference = {}
  for name in METRICS:
    ours = np.stack([per_image(test, name) for test in one])
    theirs = np.stack([per_image(test, name) for test in other])
    difference[name] = ours - theirs
  draw = dict(patient=patients(table)[0], resamples=resamples, seed=seed, level=level)
  return _of(difference, draw, tested=True)


def _intervals(runs: Sequence[Predictions], draw: Mapping[str, Any]) -> dict[str, Any]:
  values = {name: np.stack([per_image(run, name) for run in runs]) for name in METRICS}
  return _of(values, draw)


def _of(
  values: Mapping[str, np.ndarray], draw: Mapping[str, Any], tested: bool = False
) -> dict[str, Any]:
  """Return {name: interval} of the mean over images and runs of values [runs, n]."""

  def statistic(rows: np.ndarray, runs: np.ndarray) -> dict[str, np.ndarray]:
    return {name: _mean(value[np.ix_(runs, rows)]) for name, value in values.items()}

  first = next(iter(values.values()))
  has = np.isfinite(first).all(axis=0)
  if not has.any():
    raise MedtlError(
      'no test image has a Dice: none shows a class in truth or prediction; expected masks that '
      'hold something'
    )
  found = intervals.of(statistic, has[:, None], **draw, runs=len(first), tested=tested)
  return plain(found)


def _per_class(
  test: Predictions, names: Sequence[str], draw: Mapping[str, Any]
) -> list[dict[str, Any]]:
  """Return each class but the background: images that show it, Dice and IoU with intervals."""
  rows = []
  for place, name in enumerate(names):
    values = {metric: test.values[metric][None, :, place].astype(float) for metric in METRICS}
    row: dict[str, Any] = {'class': name, 'images': int(test.values['shows'][:, place].sum())}
    for metric in METRICS:
      row[metric] = None
    if np.isfinite(values['dice']).any():
      row.update(_of(values, draw))
    rows.append(row)
  return rows


def _check_rows(tests: Sequence[Predictions]) -> None:
  if not all(np.array_equal(test.row, tests[0].row) for test in tests):
    raise MedtlError(
      'the two runs predicted different rows; a paired comparison needs the same test data and split'
    )


def _mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
  """Return the mean of what is not nan, nan where all are."""
  known = ~np.isnan(values)
  count = known.sum(axis)
  total = np.where(known, values, 0.0).sum(axis)
  return np.where(count > 0, total / np.maximum(1, count), np.nan)


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
  return {name: None if np.isnan(value) else value for name, value in values.items()}
