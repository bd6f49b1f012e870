"""The language of `threshold`: (score [n], has [n] bool) → where a score becomes a decision, chosen on validation."""

import math
from typing import Annotated

import numpy as np

from medtl.core.annotation import ABOVE_0_TO_1
from medtl.evaluation.curves import roc


def youden(score: np.ndarray, has: np.ndarray) -> float:
  """Return the threshold that maximises sensitivity + specificity (Youden 1950), between two observed scores.

  >>> youden(np.array([0.1, 0.2, 0.6, 0.8]), np.array([False, False, True, True]))
  0.4
  """
  wrong, right, cut = roc(score, has)
  if np.isnan(right).any() or np.isnan(wrong).any():
    return math.nan
  return _between(cut, int(np.argmax(right - wrong)))


def at_sensitivity(
  score: np.ndarray, has: np.ndarray, least: Annotated[float, ABOVE_0_TO_1] = 0.95
) -> float:
  """Return the highest threshold at which at least the share `least` of those with the class is found."""
  wrong, right, cut = roc(score, has)
  if np.isnan(right).any() or np.isnan(wrong).any():
    return math.nan
  return _between(cut, int(np.argmax(right >= least - 1e-12)))


def _between(cut: np.ndarray, index: int) -> float:
  """Return the middle of this cut and the next lower score: the same decisions here, the fairest guess elsewhere."""
  return float(np.mean(cut[index : index + 2]))
