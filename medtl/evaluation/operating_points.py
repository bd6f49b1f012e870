"""Thresholds of a whole run, one for each class, by a rule of `threshold.py`."""

import numpy as np

from medtl.core import expressions
from medtl.core.types import Predictions
from medtl.evaluation import metrics, thresholds


def class_thresholds(predictions: Predictions, rule: str, kind: str) -> np.ndarray:
  """Return thresholds [k] on the probabilities of `columns`, each class against the rest.

  One is nan where the predictions, those of validation, have no example with or without the class.
  """
  choose = expressions.single_function(rule, thresholds, given=('score', 'has'))
  score, y = columns(predictions, kind)
  of_class = zip(score.T, metrics.truth(score, y).T, strict=True)
  return np.array([choose(column, has) for column, has in of_class])


def columns(predictions: Predictions, kind: str) -> tuple[np.ndarray, np.ndarray]:
  """Return the (score, y) that thresholds are for: every class against the rest.

  A binary task has one threshold: there they are class 1 alone, [n, 1].
  """
  score = predictions.score
  y = predictions.y
  if kind == 'binary':
    return score[:, 1:], y[:, None]
  return score, y
