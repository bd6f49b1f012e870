"""Masks against masks: Dice and IoU of each image → numbers with intervals.

An image's Dice is the mean over the classes that it, or its prediction, shows. An image that shows
none in either has none, and is left out of means; in a pair, an image without one in either is.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medtl.core.types import Predictions, Table
from medtl.evaluation import means
from medtl.evaluation.intervals import Resampling
from medtl.evaluation.summary import patients

METRICS = ('dice', 'iou')  # values of predictions, [n, classes without the background]


def per_image(predictions: Predictions) -> Predictions:
  """Return the predictions with the metrics of each image, [n], for those of its classes."""
  values = dict(predictions.values)
  for name in METRICS:
    values[name] = means.of_known(np.asarray(values[name], float), axis=1)
  return dataclasses.replace(predictions, values=values)


def monitor(predictions: Predictions) -> dict[str, float]:
  """Return {metric: mean over images}; all are nan where the net gives no number for some image."""
  if not np.isfinite(predictions.values['loss']).all():
    return dict.fromkeys(METRICS, float('nan'))
  values = per_image(predictions).values
  return {name: float(means.of_known(values[name])) for name in METRICS}


def summarise(
  predictions: Mapping[str, Predictions],
  tables: Mapping[str, Table],
  classes: Sequence[str],
  *,
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
  threshold: str = '',
) -> dict[str, Any]:
  """Return the numbers of predictions['test'], those of means.summarise, and per_class and empty.

  `empty` counts images without any class in truth and prediction. Masks are the most probable
  classes: `threshold`, the run's rule for thresholds, decides nothing.
  """
  test = predictions['test']
  of_images = {side: per_image(part) for side, part in predictions.items()}
  numbers = means.summarise(
    of_images, tables, classes, names=METRICS, resamples=resamples, seed=seed, level=level
  )
  empty = int(np.isnan(of_images['test'].values['dice']).sum())
  warnings = list(numbers['warnings'])
  if empty:
    warnings.append(
      f'{empty} of {len(test.row)} images show no class in truth and prediction: they have no Dice.'
    )
  patient, _ = patients(tables['test'])
  per_class = _per_class(test, classes[1:], Resampling(patient, resamples, seed, level))
  absent = [row['class'] for row in per_class if not row['images']]
  if absent:
    warnings.append(
      f'No image shows {", ".join(absent)}: Dice is 0 where the net outlines it, and says nothing '
      'of how well it is found.'
    )
  return {**numbers, 'per_class': per_class, 'empty': empty, 'warnings': warnings}


def summarise_seeds(runs: means.Runs, table: Table, **draw: Any) -> dict[str, Any]:
  """Return {name: interval} of the mean over runs from several seeds, tested on the same rows."""
  return means.summarise_seeds(_of_images(runs), table, names=METRICS, **draw)


def compare(first: means.Runs, second: means.Runs, table: Table, **draw: Any) -> dict[str, Any]:
  """Return {name: interval} of first − second on the same test rows, paired image by image."""
  return means.compare(_of_images(first), _of_images(second), table, names=METRICS, **draw)


def _of_images(runs: means.Runs) -> means.Runs:
  return [(per_image(test), val) for test, val in runs]


def _per_class(
  test: Predictions, names: Sequence[str], resampling: Resampling
) -> list[dict[str, Any]]:
  """Return each class but the background: images that show it, Dice and IoU with intervals."""
  rows = []
  for place, name in enumerate(names):
    values = {metric: test.values[metric][None, :, place].astype(float) for metric in METRICS}
    images = int(test.values['shows'][:, place].sum())
    rows.append({'class': name, 'images': images, **means.of_means(values, resampling)})
  return rows
