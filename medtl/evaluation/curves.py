"""What all thresholds would give: ROC and precision-recall, from (score [n], has [n] bool)."""

import numpy as np

from medtl.evaluation import metrics


def roc(score: np.ndarray, has: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Return (1 − specificity, sensitivity, threshold): score >= threshold counts as positive.

  The thresholds are inf, where nothing is positive, and each distinct score, the highest first.
  """
  threshold = np.unique(score)[::-1]
  false_positive = _count_above(score[~has], threshold)
  true_positive = _count_above(score[has], threshold)
  false_rate = metrics.ratio(false_positive, (~has).sum())
  sensitivity = metrics.ratio(true_positive, has.sum())
  return false_rate, sensitivity, np.concatenate([[np.inf], threshold])


def _count_above(score: np.ndarray, threshold: np.ndarray) -> np.ndarray:
  """Return how many scores are at or above each threshold, after a 0 for a threshold of inf."""
  below = np.searchsorted(np.sort(score), threshold, 'left')
  return np.concatenate([[0], score.size - below])


def precision_recall(score: np.ndarray, has: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return (recall, precision) at each distinct score, the highest first."""
  false_rate, recall, _ = roc(score, has)
  true_positive = recall[1:] * has.sum()
  false_positive = false_rate[1:] * (~has).sum()
  return recall[1:], metrics.ratio(true_positive, true_positive + false_positive)
