"""How alike two representations of the same examples are."""

import numpy as np

from medtl.core.types import MedtlError


def cka(x: np.ndarray, y: np.ndarray) -> float:
  """Return the linear centred kernel alignment of features x [n, d] and y [n, e], 0 … 1.

  1 where one is the other but for rotation and one common scale. Kornblith et al. 2019 (arXiv
  1905.00414), equation 4 with linear kernels: ‖yᵀx‖² / (‖xᵀx‖ ‖yᵀy‖) of centred columns. With few
  examples of many features it is biased upwards. Raises MedtlError where the numbers of examples
  differ, or where features are the same for all of them.
  """
  if len(x) != len(y) or len(x) < 2:
    raise MedtlError(
      f'cka compares features of the same examples, two at least; found {len(x)} and {len(y)}'
    )
  centred_x = _centred(x)
  centred_y = _centred(y)
  # Gram matrices [n, n]: of maps there are more features than examples
  gram_x = centred_x @ centred_x.T
  gram_y = centred_y @ centred_y.T
  scale = np.linalg.norm(gram_x) * np.linalg.norm(gram_y)
  if scale == 0:
    raise MedtlError('cka: features are the same for all examples')
  return float((gram_x * gram_y).sum() / scale)


def _centred(x: np.ndarray) -> np.ndarray:
  flat = np.asarray(x, np.float64).reshape(len(x), -1)
  return flat - flat.mean(0)
