"""What all thresholds would give: ROC and precision-recall, from (score [n], has [n] bool)."""

import numpy as np

from medtl.evaluation import metrics


def roc(score: np.ndarray, has: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Return (1 − specificity, sensitivity, threshold), score >= threshold found, from 'nothing' (inf) to 'all'."""
  cut = np.unique(score)[::-1]
  above = lambda values: values.size - np.searchsorted(np.sort(values), cut, 'left')
  wrong, right = (np.concatenate([[0], above(score[side])]) for side in (~has, has))
  return (
    metrics.ratio(wrong, (~has).sum()),
    metrics.ratio(right, has.sum()),
    np.concatenate([[np.inf], cut]),
  )


def precision_recall(score: np.ndarray, has: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return (recall, precision) at each distinct score, highest first."""
  wrong, right, _ = roc(score, has)
  hits, false = right[1:] * has.sum(), wrong[1:] * (~has).sum()
  return right[1:], metrics.ratio(hits, hits + false)
