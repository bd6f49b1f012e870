"""(score, y) -> number, in numpy: what every report and the choice of the best checkpoint read.

score [n, k] holds probabilities; y is a class [n], or [n, k] of 0 and 1 for many labels.
One-versus-rest metrics are means over the classes. A metric that needs an example of each class is
nan where one has none: that is no error, and the others are not averaged in its place.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]  # -> a number [], or one for each class [k]
# in logarithms, probabilities are kept this far from 0 and 1
SMALLEST = float(np.finfo(np.float32).eps)
BINS = 15  # of the calibration error (Guo et al. 2017, section 5)


def truth(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return [n, k] bool: which classes each example has."""
  if y.ndim == 2:
    return y > 0.5
  return y[:, None] == np.arange(score.shape[1])


def decided(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return [n, k] bool, the decisions: the largest probability.

  With many labels they are all probabilities of at least one half.
  """
  if y.ndim == 2:
    return score >= 0.5
  return score.argmax(1)[:, None] == np.arange(score.shape[1])


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Return part / whole, nan where the whole is 0."""
  part = np.asarray(part, float)
  whole = np.asarray(whole, float)
  return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _one_versus_rest(measure: Callable[[np.ndarray, np.ndarray], float]) -> Metric:
  """Return the metric [k] of a measure of (sorted scores with the class, sorted scores without)."""

  def metric(score: np.ndarray, y: np.ndarray) -> np.ndarray:
    values = []
    for column, has in zip(score.T, truth(score, y).T, strict=True):
      positive = np.sort(column[has])
      negative = np.sort(column[~has])
      values.append(measure(positive, negative))
    return np.array(values)

  return metric


def _area(positive: np.ndarray, negative: np.ndarray) -> float:
  """Return P(positive > negative) + P(equal) / 2, from ranks (Mann and Whitney 1947)."""
  if not (positive.size and negative.size):
    return math.nan
  smaller = np.searchsorted(negative, positive, 'left')
  smaller_or_equal = np.searchsorted(negative, positive, 'right')
  below = smaller + smaller_or_equal
  return below.mean() / 2 / negative.size


def _average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
  """Return the mean over positives of the precision at their own score.

  It equals Σ (R_i − R_{i−1}) P_i over the distinct thresholds i, of recall R and precision P.
  """
  if not (positive.size and negative.size):
    return math.nan
  true_positive = positive.size - np.searchsorted(positive, positive, 'left')
  false_positive = negative.size - np.searchsorted(negative, positive, 'left')
  return (true_positive / (true_positive + false_positive)).mean()


class_auroc = _one_versus_rest(_area)
class_auprc = _one_versus_rest(_average_precision)


def class_sensitivity(margin: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return [k], the share of each class's examples that are found: those with a margin >= 0.

  The margin [n, k] is score minus a threshold chosen elsewhere (on validation). A class is nan
  where its threshold is, or where it has no example.
  """
  has = truth(margin, y)
  true_positive = has & (margin >= 0)
  rate = ratio(true_positive.sum(0), has.sum(0))
  return np.where(np.isnan(margin).any(0), np.nan, rate)


def class_specificity(margin: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return [k], the share of the examples without a class whose margin is < 0.

  See class_sensitivity for the margin and for nan.
  """
  has = truth(margin, y)
  true_negative = ~has & (margin < 0)
  rate = ratio(true_negative.sum(0), (~has).sum(0))
  return np.where(np.isnan(margin).any(0), np.nan, rate)


def class_f1(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return [k] 2 TP / (2 TP + FP + FN).

  It is nan for a class without an example, and 0 for one that is never predicted.
  """
  has = truth(score, y)
  predicted = decided(score, y)
  true_positive = has & predicted
  values = ratio(2 * true_positive.sum(0), has.sum(0) + predicted.sum(0))
  return np.where(has.any(0), values, np.nan)


def _mean(metric: Metric) -> Metric:
  return lambda score, y: metric(score, y).mean()


auroc = _mean(class_auroc)
auprc = _mean(class_auprc)
f1 = _mean(class_f1)
sensitivity = _mean(class_sensitivity)
specificity = _mean(class_specificity)


def confusion(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return counts [k, k]: rows the truth, columns the largest probability."""
  k = score.shape[1]
  cell = y * k + score.argmax(1)
  return np.bincount(cell, minlength=k * k).reshape(k, k)


def accuracy(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the share of right decisions; with many labels over all n · k (as MedMNIST counts)."""
  if y.ndim == 1:
    return np.mean(score.argmax(1) == y)
  return np.mean(decided(score, y) == truth(score, y))


def balanced_accuracy(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the mean over classes of the sensitivity, each decision the largest probability.

  With many labels it is the mean of (sensitivity + specificity) / 2 at a threshold of one half.
  """
  has = truth(score, y)
  predicted = decided(score, y)
  recall = ratio((has & predicted).sum(0), has.sum(0))
  if y.ndim == 1:
    return recall.mean()
  true_negative_rate = ratio((~has & ~predicted).sum(0), (~has).sum(0))
  return ((recall + true_negative_rate) / 2).mean()


def quadratic_kappa(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return Cohen's kappa with weights (i − j)² (Cohen 1968).

  It is nan where truth and prediction are all one class.
  """
  table = confusion(score, y)
  grades = np.arange(len(table))
  cost = np.subtract.outer(grades, grades) ** 2
  observed = (cost * table).sum()
  by_chance = (cost * np.outer(table.sum(1), table.sum(0))).sum() / table.sum()
  return 1 - ratio(observed, by_chance)


def brier(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the mean over examples of Σ (p − truth)² over the classes, 0 to 2 (Brier 1950).

  With many labels it is the mean over the classes too, 0 to 1.
  """
  square = (score - truth(score, y)) ** 2
  return square.mean() * (score.shape[1] if y.ndim == 1 else 1)


def log_loss(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the mean of −log p(truth); with many labels of the binary cross-entropies."""
  if y.ndim == 1:
    p = score[np.arange(len(y)), y]
  else:
    p = np.where(truth(score, y), score, 1 - score)
  return -np.log(np.clip(p, SMALLEST, 1 - SMALLEST)).mean()


def reliability(score: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Return (count, mean probability, share that came true) of each of BINS bins ]low, high].

  The bins are equal in width; empty ones are nan. A probability is the predicted class's, and
  comes true where that class is right; with many labels each of the n · k probabilities counts.
  """
  if y.ndim == 1:
    p = score.max(1)
    came_true = score.argmax(1) == y
  else:
    p = score.ravel()
    came_true = truth(score, y).ravel()
  bins = np.clip(np.ceil(p * BINS).astype(int) - 1, 0, BINS - 1)
  count = np.bincount(bins, minlength=BINS)
  mean = ratio(np.bincount(bins, p, BINS), count)
  share = ratio(np.bincount(bins, came_true, BINS), count)
  return count, mean, share


def ece(score: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the expected calibration error: Σ count / n · |share − probability| over the bins.

  Guo et al. 2017, equation 3; see `reliability` for the bins.
  """
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
  # kappa needs an order of the classes, which 'multiclass' has not
  'ordinal': _MANY | {'quadratic_kappa': quadratic_kappa},
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
  """Return the value of the metric `name`, by which a run chooses its best checkpoint.

  One that is not measured, or is nan and so could choose nothing, is a MedtlError.
  """
  if name not in values:
    raise MedtlError(
      f'config.monitor is {name!r}, which this task does not measure; {did_you_mean(name, values)}'
    )
  if math.isnan(values[name]):
    raise MedtlError(f'config.monitor is {name!r}, and on validation it is nan: {_cause(values)}')
  return values[name]


def _cause(values: Mapping[str, float]) -> str:
  """Return in words why a metric may be nan, judged by which others are not."""
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

  >>> better('auroc', 0.9, 0.8), better('log_loss', 0.9, 0.8)
  (True, False)
  >>> better('auroc', 0.5, math.nan), better('auroc', math.nan, 0.5)
  (True, False)
  """
  if math.isnan(best):
    return not math.isnan(value)
  return value < best if name in LOWER else value > best
