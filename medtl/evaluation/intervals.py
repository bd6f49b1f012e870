"""95 % intervals: a percentile bootstrap over patients, whose pictures are not independent.

It is over images only where no patient is known; the interval says which. Of several runs that
differ in their seed alone, what chance in training does to their mean is added to each resample:
the standard error over the s runs times a draw of Student's t with s − 1 degrees of freedom
(Student 1908). To draw s runs anew out of s would be too narrow. Resamples that lack a class are
drawn again, and their share is reported. Where a class has fewer than two patients there is no
interval, and the reason stands in its place.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medtl.core.types import MedtlError
from medtl.evaluation.metrics import Metric

FEWEST = 2  # units of each class: one alone would stand for all of its kind in every resample
PATIENCE = 20  # resamples drawn for each one kept, before the bootstrap gives up
UNDEFINED = 'not defined: a class has no example, here or where its threshold was to be chosen'

# (rows, runs) of a resample -> {name: a number, or one for each class}
Statistic = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]


class Interval(NamedTuple):
  """A number and how sure it is; low and high are nan where `reason` says why."""

  value: float
  low: float
  high: float
  unit: str  # what was resampled: patient | image
  n: int  # how many of them
  redrawn: float  # share of the resamples that lacked a class
  reason: str = ''
  p: float | None = None  # of a difference: two-sided, that it is 0


class Resampling(NamedTuple):
  """How a bootstrap draws: the arguments that `intervals`, `difference` and `bootstrap` share."""

  patient: np.ndarray | None  # [n]; None: images are resampled
  resamples: int
  seed: int
  level: float  # share of the resamples inside an interval


def intervals(
  score: np.ndarray,
  y: np.ndarray,
  metrics: Mapping[str, Metric],
  patient: np.ndarray | None = None,
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Interval]:
  """Return {name: Interval} of each metric; one number for each class is 'name/0' … 'name/k-1'.

  `score` [n, k], or [s, n, k] of s runs of one model from several seeds: then the mean of their
  metrics, by patient and by run. `y` [n] or [n, k], `patient` [n] or None for intervals by image.
  """
  scores = score.reshape(-1, *score.shape[-2:])

  def statistic(rows: np.ndarray, runs: np.ndarray) -> dict[str, np.ndarray]:
    values = {}
    for name, metric in metrics.items():
      of_runs = [metric(scores[run][rows], y[rows]) for run in runs]
      values[name] = np.mean(of_runs, 0)
    return values

  has = presence(y, score.shape[-1])
  return bootstrap(statistic, has, patient, resamples, seed, level, runs=len(scores))


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
  """Return {name: Interval} of metric(first) − metric(second), both on the same resamples.

  `first` and `second` are two models' scores of the same rows: [n, k], or [s, n, k] of s runs of
  each, paired by seed; other shapes are a MedtlError. Each interval has a `p`.
  """
  if first.shape != second.shape:
    raise MedtlError(
      f'scores of shapes {first.shape} and {second.shape} are not of the same rows and classes; '
      'compare two models on the same predictions'
    )
  first_scores = first.reshape(-1, *first.shape[-2:])
  second_scores = second.reshape(-1, *second.shape[-2:])

  def statistic(rows: np.ndarray, runs: np.ndarray) -> dict[str, np.ndarray]:
    values = {}
    for name, metric in metrics.items():
      differences = []
      for run in runs:
        first_value = metric(first_scores[run][rows], y[rows])
        second_value = metric(second_scores[run][rows], y[rows])
        differences.append(first_value - second_value)
      values[name] = np.mean(differences, 0)
    return values

  has = presence(y, first.shape[-1])
  runs = len(first_scores)
  return bootstrap(statistic, has, patient, resamples, seed, level, runs=runs, tested=True)


def presence(y: np.ndarray, k: int) -> np.ndarray:
  """Return bool [n, k], which classes an example has; of many labels [n, 2 k], also which not."""
  if y.ndim == 2:
    return np.concatenate([y > 0.5, y <= 0.5], 1)
  return y[:, None] == np.arange(k)


def bootstrap(
  statistic: Statistic,
  has: np.ndarray,
  patient: np.ndarray | None = None,
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
  *,
  runs: int = 1,
  tested: bool = False,
) -> dict[str, Interval]:
  """Return {name: Interval} of any statistic(rows, runs), rows of 0 … n−1 and runs of 0 … runs−1.

  `has` is `presence` of the labels, every class of which a resample must hold. `tested` adds `p`,
  the two-sided p-value that the statistic is 0.
  """
  rows = np.arange(len(has))
  values = statistic(rows, np.arange(runs))
  point = _row(values)
  unit = 'image' if patient is None else 'patient'
  codes = rows if patient is None else np.unique(patient, return_inverse=True)[1]
  units = np.zeros((int(codes.max()) + 1, has.shape[1]), bool)  # which classes a unit has
  np.logical_or.at(units, codes, has)
  reason = _too_few(units, unit)
  redrawn = 0.0
  low, high = np.full((2, len(point)), np.nan)
  p: list[float | None] = [None] * len(point)
  if not reason:
    draws, tried = _draws(statistic, codes, units, resamples, seed, runs)
    redrawn = 1 - len(draws) / tried
    if len(draws) < resamples:
      reason = (
        f'no interval: only {len(draws)} of {tried} resamples of the {unit}s held every class'
      )
    else:
      shares = [0.5 - level / 2, 0.5 + level / 2]  # of the resamples below low and high
      low, high = np.quantile(draws, shares, axis=0)
      if tested:
        p = _two_sided(np.array(draws)).tolist()
  interval_of = {}
  for index, name in enumerate(_names(values)):
    value = float(point[index])
    lowest = float(low[index])
    highest = float(high[index])
    interval = Interval(value, lowest, highest, unit, len(units), redrawn)
    if math.isnan(value):
      interval_of[name] = interval._replace(reason=UNDEFINED)
    else:
      interval_of[name] = interval._replace(reason=reason, p=p[index])
  return interval_of


def _names(values: Mapping[str, np.ndarray]) -> list[str]:
  """Return a name for each number of a statistic, in the order of `_row`."""
  names = []
  for name, value in values.items():
    if np.ndim(value) == 0:
      names.append(name)
    else:
      names += [f'{name}/{label}' for label in range(np.size(value))]
  return names


def _row(values: Mapping[str, np.ndarray]) -> np.ndarray:
  """Return a statistic's numbers one after the other."""
  return np.concatenate([np.atleast_1d(value) for value in values.values()])


def _draws(
  statistic: Statistic,
  codes: np.ndarray,
  units: np.ndarray,
  resamples: int,
  seed: int,
  runs: int,
) -> tuple[list[np.ndarray], int]:
  """Return (the statistic's row of each resample that holds every class, how many were tried).

  They are fewer than `resamples` where PATIENCE times as many tries did not suffice.
  """
  error = _standard_error(statistic, len(codes), runs)
  chance = np.random.default_rng([seed, runs]).standard_t(max(1, runs - 1), resamples)
  most = resamples * PATIENCE
  draws: list[np.ndarray] = []
  for tried, rows in _resamples(codes, units, seed, most):
    values = _row(statistic(rows, np.arange(runs)))
    draws.append(values + chance[len(draws)] * error)
    if len(draws) == resamples:
      return draws, tried
  return draws, most


def _standard_error(statistic: Statistic, n: int, runs: int) -> np.ndarray | float:
  """Return the standard error over the runs of each number's mean, 0 where there is one run."""
  if runs == 1:
    return 0.0
  rows = np.arange(n)
  of_runs = []
  for run in range(runs):
    values = statistic(rows, np.array([run]))
    of_runs.append(_row(values))
  return np.stack(of_runs).std(0, ddof=1) / math.sqrt(runs)


def _two_sided(draws: np.ndarray) -> np.ndarray:
  """Return the p-values that the statistics are 0, by inverting the percentile interval.

  Each is twice the smaller share of resamples on either side of 0, counted with one more, so that
  it is never 0 (Davison and Hinkley 1997, equation 4.11).
  """
  sides = np.minimum((draws <= 0).sum(0), (draws >= 0).sum(0))
  return np.minimum(1.0, 2 * (sides + 1) / (len(draws) + 1))


def holm(p: Sequence[float]) -> list[float]:
  """Return the p-values corrected for their number (Holm 1979); nan stays, and is not counted.

  The k-th smallest of m is multiplied by m − k + 1, and is never below the one before it.

  >>> holm([0.01, 0.04, 0.03])
  [0.03, 0.06, 0.06]
  """
  tested = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
  corrected = [math.nan] * len(p)
  largest = 0.0
  for rank, (value, place) in enumerate(tested):
    largest = max(largest, min(1.0, value * (len(tested) - rank)))
    corrected[place] = largest
  return corrected


def _too_few(units: np.ndarray, unit: str) -> str:
  """Return why there is no interval where a class has fewer than FEWEST units, else ''.

  A class without any example does not count: its metrics are nan whatever is drawn.
  """
  count = units.sum(0)
  fewest = count[count > 0].min()
  if fewest >= FEWEST:
    return ''
  return f'no interval: a class has {fewest} {unit}, at least {FEWEST} are needed'


def _resamples(
  codes: np.ndarray, units: np.ndarray, seed: int, most: int
) -> Iterator[tuple[int, np.ndarray]]:
  """Yield (how many were drawn so far, the rows of a resample that holds every class).

  A resample draws as many units as there are, with replacement; each brings all of its rows.
  `codes` [n] is each row's unit.
  """
  random = np.random.default_rng(seed)
  order = np.argsort(codes, kind='stable')  # the rows of unit u: order[start[u] :][: size[u]]
  size = np.bincount(codes)
  start = np.cumsum(size) - size
  needed = units[:, units.any(0)]
  for tried in range(1, most + 1):
    drawn = random.integers(0, len(size), len(size))
    if not needed[drawn].any(0).all():
      continue
    length = size[drawn]
    begin = np.cumsum(length) - length
    place = np.repeat(start[drawn] - begin, length) + np.arange(length.sum())
    yield tried, order[place]
