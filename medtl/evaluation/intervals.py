"""95 % intervals: a percentile bootstrap over patients, because pictures of one patient are not independent.

Over images only where no patient is known; the interval says which. Of several runs that differ in their seed alone, what chance in
training does to their mean is added to each resample: the standard error over the s runs times a draw of Student's t with s − 1 degrees
of freedom (Student 1908); drawing s runs anew out of s would be too narrow. Resamples that lack a class are drawn again, and their share
is reported. Where a class has fewer than two patients there is no interval, and the reason stands in its place.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medtl.core.types import MedtlError
from medtl.evaluation.metrics import Metric

FEWEST = (
  2  # units that have each class: one alone would stand for all of its kind in every resample
)
PATIENCE = 20  # resamples drawn for each one kept, before the bootstrap gives up
UNDEFINED = 'not defined: a class has no example, here or where its threshold was to be chosen'


Statistic = Callable[
  [np.ndarray, np.ndarray], dict[str, np.ndarray]
]  # (rows, runs) of a resample -> {name: number, or one a class}


class Interval(NamedTuple):
  """A number and how sure it is; low and high are nan where `reason` says why."""

  value: float
  low: float
  high: float
  unit: str = 'patient'  # what was resampled: patient | image
  n: int = 0  # how many of them
  redrawn: float = 0.0  # share of the resamples that lacked a class
  reason: str = ''
  p: float | None = None  # of a difference: two-sided, that it is 0


def intervals(
  score: np.ndarray,
  y: np.ndarray,
  metrics: Mapping[str, Metric],
  patient: np.ndarray | None = None,
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Interval]:
  """Return {name: Interval}; a metric that gives one number for each class [k] becomes 'name/0' … 'name/k-1'.

  `score` [n, k], or [s, n, k] of s runs of one model from several seeds: then the mean of their metrics, by patient and by run.
  """
  many = score.reshape(-1, *score.shape[-2:])

  def statistic(rows: np.ndarray, runs: np.ndarray) -> dict[str, np.ndarray]:
    return {
      name: np.mean([metric(many[run][rows], y[rows]) for run in runs], 0)
      for name, metric in metrics.items()
    }

  return _bootstrap(
    statistic, presence(y, score.shape[-1]), patient, resamples, seed, level, runs=len(many)
  )


def difference(
  first: np.ndarray,
  second: np.ndarray,
  y: np.ndarray,
  metrics: Mapping[str, Metric],
  patient: np.ndarray | None = None,
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Interval]:
  """Return {name: Interval} of metric(first) − metric(second): two models' scores of the same rows, same resamples.

  Scores [n, k], or [s, n, k] of s runs of each, paired by seed.
  `p` inverts the interval: twice the smaller share of resamples on either side of 0, each counted with one more (Davison and
  Hinkley 1997, equation 4.11), so that it is never 0.
  """
  if first.shape != second.shape:
    raise MedtlError(
      f'scores of shapes {first.shape} and {second.shape} are not of the same rows and classes; '
      'compare two models on the same predictions'
    )
  one, other = (score.reshape(-1, *score.shape[-2:]) for score in (first, second))

  def statistic(rows: np.ndarray, runs: np.ndarray) -> dict[str, np.ndarray]:
    return {
      name: np.mean(
        [metric(one[run][rows], y[rows]) - metric(other[run][rows], y[rows]) for run in runs], 0
      )
      for name, metric in metrics.items()
    }

  return _bootstrap(
    statistic,
    presence(y, first.shape[-1]),
    patient,
    resamples,
    seed,
    level,
    tested=True,
    runs=len(one),
  )


def of(
  statistic: Statistic,
  has: np.ndarray,
  patient: np.ndarray | None = None,
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
  runs: int = 1,
  tested: bool = False,
) -> dict[str, Interval]:
  """Return {name: Interval} of any statistic(rows, runs), `tested` against 0 where it is a difference.

  `has` is `presence` of the labels that each resample must hold.
  """
  return _bootstrap(statistic, has, patient, resamples, seed, level, tested=tested, runs=runs)


def presence(y: np.ndarray, k: int) -> np.ndarray:
  """Return bool [n, k], which classes an example has; with many labels [n, 2 k], also which it has not."""
  return np.concatenate([y > 0.5, y <= 0.5], 1) if y.ndim == 2 else y[:, None] == np.arange(k)


def _bootstrap(
  statistic: Statistic,
  has: np.ndarray,
  patient: np.ndarray | None,
  resamples: int,
  seed: int,
  level: float,
  tested: bool = False,
  runs: int = 1,
) -> dict[str, Interval]:
  found = statistic(np.arange(len(has)), np.arange(runs))
  names = [
    name if np.ndim(value) == 0 else f'{name}/{i}'
    for name, value in found.items()
    for i in range(np.size(value))
  ]
  unit = 'image' if patient is None else 'patient'
  codes = np.arange(len(has)) if patient is None else np.unique(patient, return_inverse=True)[1]
  units = np.zeros((int(codes.max()) + 1, has.shape[1]), bool)
  np.logical_or.at(units, codes, has)
  reason, redrawn = _too_few(units, unit), 0.0
  draws: list[np.ndarray] = []
  if not reason:
    each = np.stack([_row(statistic(np.arange(len(has)), np.array([run]))) for run in range(runs)])
    error = each.std(0, ddof=1) / math.sqrt(runs) if runs > 1 else np.zeros(each.shape[1])
    chance = np.random.default_rng([seed, runs]).standard_t(max(1, runs - 1), resamples)
    for tried, rows in itertools.islice(
      _resamples(codes, units, seed, resamples * PATIENCE), resamples
    ):
      draws.append(_row(statistic(rows, np.arange(runs))) + chance[len(draws)] * error)
      redrawn = 1 - len(draws) / tried
    if len(draws) < resamples:
      redrawn = 1 - len(draws) / (resamples * PATIENCE)
      reason = f'no interval: only {len(draws)} of {resamples * PATIENCE} resamples of the {unit}s held every class'
  point = _row(found)
  low, high = (
    np.full((2, len(point)), np.nan)
    if reason
    else np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=0)
  )
  p = _two_sided(np.array(draws)).tolist() if tested and not reason else [None] * len(point)
  p = [None if math.isnan(value) else one for value, one in zip(point, p, strict=True)]
  return {
    name: Interval(
      float(v),
      float(a),
      float(b),
      unit,
      len(units),
      redrawn,
      UNDEFINED if math.isnan(v) else reason,
      q,
    )
    for name, v, a, b, q in zip(names, point, low, high, p, strict=True)
  }


def _two_sided(draws: np.ndarray) -> np.ndarray:
  sides = np.minimum((draws <= 0).sum(0), (draws >= 0).sum(0))
  return np.minimum(1.0, 2 * (sides + 1) / (len(draws) + 1))


def holm(p: Sequence[float]) -> list[float]:
  """Return p-values corrected for their number (Holm 1979): the k-th smallest of m times m − k + 1, never below the one before; nan stays.

  >>> holm([0.01, 0.04, 0.03])
  [0.03, 0.06, 0.06]
  """
  tested = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
  found, most = [math.nan] * len(p), 0.0
  for rank, (value, place) in enumerate(tested):
    most = max(most, min(1.0, value * (len(tested) - rank)))
    found[place] = most
  return found


def _row(values: dict[str, np.ndarray]) -> np.ndarray:
  return np.concatenate([np.atleast_1d(value) for value in values.values()])


def _too_few(units: np.ndarray, unit: str) -> str:
  count = units.sum(0)
  fewest = count[
    count > 0
  ].min()  # a class without any example: its metrics are nan whatever is drawn
  return (
    ''
    if fewest >= FEWEST
    else f'no interval: a class has {fewest} {unit}, at least {FEWEST} are needed'
  )


def _resamples(
  codes: np.ndarray, units: np.ndarray, seed: int, most: int
) -> Iterator[tuple[int, np.ndarray]]:
  """Yield (how many were drawn so far, the rows of a resample that holds every class)."""
  random = np.random.default_rng(seed)
  order = np.argsort(codes, kind='stable')
  size = np.bincount(codes)
  start = np.cumsum(size) - size
  needed = units[:, units.any(0)]
  for tried in range(1, most + 1):
    pick = random.integers(0, len(size), len(size))
    if needed[pick].any(0).all():
      length = size[pick]
      begin = np.cumsum(length) - length
      yield tried, order[np.repeat(start[pick] - begin, length) + np.arange(length.sum())]
