"""Thresholds of a whole run, one for each class, by a rule of `threshold.py`."""

import numpy as np

from medtl.core import expressions
from medtl.core.types import Predictions
from medtl.evaluation import metrics, thresholds


def class_thresholds(predictions: Predictions, rule: str, kind: str) -> np.ndarray:
  """Return [k] thresholds on the probabilities of `columns`, one versus rest; nan where validation lacks a class."""
  score, y = columns(predictions, kind)
  choose = expressions.single_function(rule, thresholds, given=('score', 'has'))
  return np.array(
    [choose(s, has) for s, has in zip(score.T, metrics.truth(score, y).T, strict=True)]
  )


def columns(predictions: Predictions, kind: str) -> tuple[np.ndarray, np.ndarray]:
  """Return the (score, y) that thresholds are for: every class against the rest, of a binary task class 1 alone."""
  score, y = predictions.score, predictions.y
  return (score[:, 1:], y[:, None]) if kind == 'binary' else (score, y)
