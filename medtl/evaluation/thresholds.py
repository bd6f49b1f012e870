"""The language of `threshold`: (score [n], has [n] bool) → where a score becomes a decision.

Thresholds are chosen on validation, and are nan where a class or its absence has no example there.
"""

import math
from typing import Annotated

import numpy as np

from medtl.core.annotation import ABOVE_0_TO_1
from medtl.evaluation.curves import roc


def youden(score: np.ndarray, has: np.ndarray) -> float:
  """Return the threshold that maximises sensitivity + specificity (Youden 1950).

  It lies in the middle between two observed scores.

  >>> youden(np.array([0.1, 0.2, 0.6, 0.8]), np.array([False, False, True, True]))
  0.4
  """
  false_rate, sensitivity, threshold = roc(score, has)
  if np.isnan(sensitivity).any() or np.isnan(false_rate).any():
    return math.nan
  return _between(threshold, int(np.argmax(sensitivity - false_rate)))


def at_sensitivity(
  score: np.ndarray, has: np.ndarray, least: Annotated[float, ABOVE_0_TO_1] = 0.95
) -> float:
  """Return the highest threshold at which the sensitivity is at least `least`."""
  false_rate, sensitivity, threshold = roc(score, has)
  if np.isnan(sensitivity).any() or np.isnan(false_rate).any():
    return math.nan
  return _between(threshold, int(np.argmax(sensitivity >= least - 1e-12)))


def _between(threshold: np.ndarray, index: int) -> float:
  """Return the middle of this threshold and the next lower score.

  It decides the same on these scores, and is the fairest guess for others.
  """
  return float(np.mean(threshold[index : index + 2]))
