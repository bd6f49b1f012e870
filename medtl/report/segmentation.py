"""What the page shows of masks: numbers by class, images with the contours of truth and mask."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from medtl.core.types import Predictions, Table
from medtl.evaluation.segmentation import per_image
from medtl.report import figures

Images = Callable[..., np.ndarray] | None
CASES = ('worst', 'median', 'best')


def content(
  numbers: Mapping[str, Any],
  predictions: Mapping[str, Predictions],
  tables: Mapping[str, Table],
  images: Images = None,
) -> dict[str, Any]:
  """Return the variables of segmentation.html.j2.

  `images(i)` is the picture x [*s, c] of the i-th test prediction, images(i, 'truth') and
  images(i, 'prediction') its masks, None where they were not kept. None: all out of reach.
  """
  test = predictions['test']
  dice = per_image(test).values['dice']
  return {
    'histogram': figures.histogram(dice[np.isfinite(dice)], 'Dice', 'Images'),
    'cases': [] if images is None else cases(dice, tables['test'], images),
  }


def cases(dice: np.ndarray, table: Table, images: Callable[..., np.ndarray]) -> list[dict]:
  """Return the best, the median and the worst image, with contours.

  Where one of them was not kept, the nearest that was takes its place, and its name says so.
  """
  shown_cases = []
  orders = dict(zip(CASES, ordered(dice), strict=True))
  for name in reversed(CASES):
    index = _first_kept(orders[name], images)
    if index is None:
      continue
    columns = [column for column in ('file', 'patient') if column in table]
    where = [f'{column} {table[column][index]}' for column in columns]
    truth = images(index, 'truth')
    prediction = images(index, 'prediction')
    exact = index == orders[name][0]
    case: dict[str, Any] = {'name': name if exact else f'near the {name}'}
    case['dice'] = float(dice[index])
    case['where'] = where or [f'row {table["row"][index]}']
    case['picture'] = figures.contours(images(index), truth, prediction)
    shown_cases.append(case)
  return shown_cases


def ordered(dice: np.ndarray) -> list[list[int]]:
  """Return the images from the worst on, from the median on, and from the best on."""
  known = np.flatnonzero(np.isfinite(dice))
  rising = known[np.argsort(dice[known], kind='stable')]
  middle = (len(rising) - 1) / 2
  from_middle = np.argsort(np.abs(np.arange(len(rising)) - middle), kind='stable')
  return [rising.tolist(), rising[from_middle].tolist(), rising[::-1].tolist()]


def shown(predictions: Predictions) -> list[int]:
  """Return the worst, the median and the best prediction, each once."""
  firsts = [order[0] for order in ordered(per_image(predictions).values['dice']) if order]
  return list(dict.fromkeys(firsts))


def _first_kept(order: Iterable[int], images: Callable[..., np.ndarray]) -> int | None:
  """Return the first image that was kept: of pooled folds, each fold kept its own."""
  for index in order:
    if images(index) is not None:
      return index
  return None
