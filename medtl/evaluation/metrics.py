"""(score, y) -> number, numpy on whole arrays: what every report and the choice of the best checkpoint read.

score [n, k] holds probabilities; y is a class [n], or [n, k] of 0 and 1 for many labels. One-versus-rest metrics are means
over the classes. A metric that needs an example of each class is nan where one has none: no error, no mean over the others.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]  # -> a number [], or one for each class [k]
SMALLEST = float(
  np.finfo(np.float32).eps
)  # probabilities are kept this far from 0 and 1 in logarithms
BINS = 15  # of the calibration error (Guo et al. 2017, section 5)


def truth(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return [n, k] bool: which classes each example has."""
  return y > 0.5 if y.ndim == 2 else y[:, None] == np.arange(score.shape[1])


def decided(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return [n, k] bool: the largest probability, or with many labels every probability of at least one half."""
  return score >= 0.5 if y.ndim == 2 else score.argmax(1)[:, None] == np.arange(score.shape[1])


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Return part / whole, nan where the whole is 0."""
  part, whole = np.asarray(part, float), np.asarray(whole, float)
  return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _each(measure: Callable[[np.ndarray, np.ndarray], float]) -> Metric:
  """Return the metric [k] of a measure of (sorted scores with the class, sorted scores without)."""

  def metric(score: np.ndarray, y: np.ndarray) -> np.ndarray:
    pairs = zip(score.T, truth(score, y).T, strict=True)
    return np.array([measure(np.sort(column[has]), np.sort(column[~has])) for column, has in pairs])

  return metric


def _area(positive: np.ndarray, negative: np.ndarray) -> float:
  """P(positive > negative) + P(equal) / 2, from ranks (Mann and Whitney 1947)."""
  if not (positive.size and negative.size):
    return math.nan
  below = np.searchsorted(negative, positive, 'left') + np.searchsorted(negative, positive, 'right')
  return below.mean() / 2 / negative.size


def _average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
  """The mean over positives of the precision at their own score; equals Σ (R_i − R_{i−1}) P_i over distinct thresholds."""
  if not (positive.size and negative.size):
    return math.nan
  hits = positive.size - np.searchsorted(positive, positive, 'left')
  return (hits / (hits + negative.size - np.searchsorted(negative, positive, 'left'))).mean()


class_auroc = _each(_area)
class_auprc = _each(_average_precision)


def class_sensitivity(margin: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return [k]; the margin is score minus a threshold chosen elsewhere (validation): found where >= 0, nan where unknown."""
  has = truth(margin, y)
  return np.where(np.isnan(margin).any(0), np.nan, ratio((has & (margin >= 0)).sum(0), has.sum(0)))


def class_specificity(margin: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return [k]; see class_sensitivity."""
  has = truth(margin, y)
  return np.where(
    np.isnan(margin).any(0), np.nan, ratio((~has & (margin < 0)).sum(0), (~has).sum(0))
  )


def class_f1(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return [k] 2 TP / (2 TP + FP + FN); nan for a class without an example, 0 for one never predicted."""
  has, said = truth(score, y), decided(score, y)
  f1 = ratio(2 * (has & said).sum(0), has.sum(0) + said.sum(0))
  return np.where(has.any(0), f1, np.nan)


def _mean(metric: Metric) -> Metric:
  return lambda score, y: metric(score, y).mean()


auroc, auprc, f1 = _mean(class_auroc), _mean(class_auprc), _mean(class_f1)
sensitivity, specificity = _mean(class_sensitivity), _mean(class_specificity)


def confusion(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return counts [k, k]: rows the truth, columns the largest probability."""
  k = score.shape[1]
  return np.bincount(y * k + score.argmax(1), minlength=k * k).reshape(k, k)


def accuracy(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the share of right decisions; with many labels over all n · k of them (as MedMNIST counts)."""
  return (
    np.mean(score.argmax(1) == y) if y.ndim == 1 else np.mean(decided(score, y) == truth(score, y))
  )


def balanced_accuracy(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the mean over classes of the share found; with many labels of (sensitivity + specificity) / 2 at one half."""
  has, said = truth(score, y), decided(score, y)
  found = ratio((has & said).sum(0), has.sum(0))
  return (
    found.mean()
    if y.ndim == 1
    else ((found + ratio((~has & ~said).sum(0), (~has).sum(0))) / 2).mean()
  )


def quadratic_kappa(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return Cohen's kappa with weights (i − j)² (Cohen 1968); nan where truth and prediction are all one class."""
  table = confusion(score, y)
  cost = np.subtract.outer(np.arange(len(table)), np.arange(len(table))) ** 2
  return 1 - ratio(
    (cost * table).sum(), (cost * np.outer(table.sum(1), table.sum(0))).sum() / table.sum()
  )


def brier(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the mean over examples of Σ (p − truth)² over classes, 0 to 2 (Brier 1950); with many labels the mean, 0 to 1."""
  return ((score - truth(score, y)) ** 2).mean() * (score.shape[1] if y.ndim == 1 else 1)


def log_loss(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the mean of −log p(truth); with many labels of the binary cross-entropies."""
  p = score[np.arange(len(y)), y] if y.ndim == 1 else np.where(truth(score, y), score, 1 - score)
  return -np.log(np.clip(p, SMALLEST, 1 - SMALLEST)).mean()


def reliability(score: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Return (count, mean probability, share that came true) of BINS equal bins ]low, high]; nan in empty ones.

  The probability is the predicted class's and comes true when that is right; with many labels each of the n · k counts.
  """
  p, came_true = (
    (score.max(1), score.argmax(1) == y)
    if y.ndim == 1
    else (score.ravel(), truth(score, y).ravel())
  )
  bins = np.clip(np.ceil(p * BINS).astype(int) - 1, 0, BINS - 1)
  count = np.bincount(bins, minlength=BINS)
  mean, share = (ratio(np.bincount(bins, value, BINS), count) for value in (p, came_true))
  return count, mean, share


def ece(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the expected calibration error: Σ count / n · |share − probability| over bins (Guo et al. 2017, equation 3)."""
  count, p, share = reliability(score, y)
  return np.nansum(count * np.abs(share - p)) / count.sum()


def positive(metric: Metric) -> Metric:
  """Return the metric of class 1 alone, as of one label: what binary tasks report."""
  return lambda score, y: metric(score[:, 1:], y[:, None])


_MANY: dict[str, Metric] = dict(
  auroc=auroc,
  auprc=auprc,
  accuracy=accuracy,
  balanced_accuracy=balanced_accuracy,
  f1=f1,
  brier=brier,
  log_loss=log_loss,
  ece=ece,
)
_BINARY = _MANY | {name: positive(_MANY[name]) for name in ('auroc', 'auprc', 'brier')}
KINDS: dict[str, dict[str, Metric]] = {
  'multiclass': _MANY,
  'binary': _BINARY | {'quadratic_kappa': quadratic_kappa},  # of two classes: Cohen's kappa
  'multilabel': _MANY,
  'ordinal': _MANY
  | {'quadratic_kappa': quadratic_kappa},  # needs an order, so not for 'multiclass'
}
LOWER = {'loss', 'brier', 'log_loss', 'ece'}  # better when lower


def of(kind: str) -> dict[str, Metric]:
  """Return {name: metric} of a kind of task, those that need no threshold."""
  if kind not in KINDS:
    raise MedtlError(f'no metrics for tasks of kind {kind!r}; {did_you_mean(kind, KINDS)}')
  return KINDS[kind]


def names(kind: str) -> tuple[str, ...]:
  """Return the names of a kind's metrics."""
  return tuple(of(kind))


def monitor(score: np.ndarray, y: np.ndarray, kind: str) -> dict[str, float]:
  """Return {name: value} of the kind's metrics; all are nan where a score is nan."""
  if np.isnan(score).any():
    return dict.fromkeys(names(kind), math.nan)
  return {name: float(metric(score, y)) for name, metric in of(kind).items()}


def undefined(name: str, y: np.ndarray, classes: int, kind: str) -> list[int]:
  """Return the classes that leave a metric without a value on the labels y; none where it has one.

  The scores tried are the truth: what is nan for them is nan, or always the same, for all others.

  >>> y = np.array([[0, 1], [1, 1]])
  >>> undefined('auroc', y, 2, 'multilabel'), undefined('f1', y, 2, 'multilabel')
  ([1], [])
  """
  metric = of(kind)[name]
  perfect = truth(np.empty((len(y), classes)), y).astype(float)
  if not np.isnan(metric(perfect, y)):
    return []
  if y.ndim == 2:
    alone = [metric(perfect[:, [label]], y[:, [label]]) for label in range(classes)]
    return np.flatnonzero(np.isnan(alone)).tolist()
  return np.flatnonzero(~perfect.any(axis=0)).tolist()


def chosen(values: Mapping[str, float], name: str) -> float:
  """Return the value of the metric that a run is steered by; nan would steer it anywhere."""
  if name not in values:
    raise MedtlError(
      f'config.monitor is {name!r}, which this task does not measure; {did_you_mean(name, values)}'
    )
  if math.isnan(values[name]):
    raise MedtlError(f'config.monitor is {name!r}, and on validation it is nan: {_cause(values)}')
  return values[name]


def _cause(values: Mapping[str, float]) -> str:
  """Return why a measure is nan, by the others that are not."""
  known = [name for name, value in values.items() if not math.isnan(value)]
  if not known:
    return (
      'the net gives no number for some picture; train anew with a lower lr or clip=1.0, or '
      'look for extreme values in the pictures'
    )
  return (
    'a class is missing there, or holds every example; set config.monitor to one that has a '
    f'value: {", ".join(known)}'
  )


def better(name: str, value: float, best: float) -> bool:
  """Return whether the value is better than the best so far; nan is better than nothing.

  >>> better('auroc', 0.9, 0.8), better('log_loss', 0.9, 0.8), better('auroc', 0.5, math.nan), better('auroc', math.nan, 0.5)
  (True, False, True, False)
  """
  if math.isnan(best):
    return not math.isnan(value)
  return value < best if name in LOWER else value > best
