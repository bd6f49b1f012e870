"""Where a score becomes a decision: thresholds chosen on validation, and the curves of all thresholds.

A rule is text in a config, `youden` or `at_sensitivity(0.95)`; it maps (score [n], has [n] bool) to a threshold.
"""

import math
import sys

import numpy as np

from medtl import metrics, spec
from medtl.types import Predictions


def thresholds(predictions: Predictions, rule: str, kind: str) -> np.ndarray:
  """Return [k] thresholds on the probabilities of `columns`, one versus rest; nan where validation lacks a class."""
  score, y = columns(predictions, kind)
  choose = spec.one(rule, sys.modules[__name__], given=('score', 'has'))
  return np.array([choose(s, has) for s, has in zip(score.T, metrics.truth(score, y).T, strict=True)])


def columns(predictions: Predictions, kind: str) -> tuple[np.ndarray, np.ndarray]:
  """Return the (score, y) that thresholds are for: every class against the rest, of a binary task class 1 alone."""
  score, y = predictions.score, predictions.y
  return (score[:, 1:], y[:, None]) if kind == 'binary' else (score, y)


def youden(score: np.ndarray, has: np.ndarray) -> float:
  """Return the threshold that maximises sensitivity + specificity (Youden 1950), between two observed scores.

  >>> youden(np.array([0.1, 0.2, 0.6, 0.8]), np.array([False, False, True, True]))
  0.4
  """
  wrong, right, cut = roc(score, has)
  if np.isnan(right).any() or np.isnan(wrong).any():
    return math.nan
  return _between(cut, int(np.argmax(right - wrong)))


def at_sensitivity(score: np.ndarray, has: np.ndarray, least: float = 0.95) -> float:
  """Return the highest threshold at which at least the share `least` of those with the class is found."""
  wrong, right, cut = roc(score, has)
  if np.isnan(right).any() or np.isnan(wrong).any():
    return math.nan
  return _between(cut, int(np.argmax(right >= least - 1e-12)))


def _between(cut: np.ndarray, index: int) -> float:
  """Return the middle of this cut and the next lower score: the same decisions here, the fairest guess elsewhere."""
  return float(np.mean(cut[index:index + 2]))


def roc(score: np.ndarray, has: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Return (1 − specificity, sensitivity, threshold), score >= threshold found, from 'nothing' (inf) to 'all'."""
  cut = np.unique(score)[::-1]
  above = lambda values: values.size - np.searchsorted(np.sort(values), cut, 'left')   # noqa: E731
  wrong, right = (np.concatenate([[0], above(score[side])]) for side in (~has, has))
  return metrics.ratio(wrong, (~has).sum()), metrics.ratio(right, has.sum()), np.concatenate([[np.inf], cut])


def precision_recall(score: np.ndarray, has: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return (recall, precision) at each distinct score, highest first."""
  wrong, right, _ = roc(score, has)
  hits, false = right[1:] * has.sum(), wrong[1:] * (~has).sum()
  return right[1:], metrics.ratio(hits, hits + false)
