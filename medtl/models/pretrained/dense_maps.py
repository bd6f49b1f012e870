"""Checkpoints of dense layers on whole maps, which networks of pictures alone can take."""

import numpy as np

from medtl.core.types import MedtlError
from medtl.models.pretrained.dialects import Shape


def _refuse_volumes(array: np.ndarray, shape: Shape) -> np.ndarray:
  """Return the array; a MedtlError where `shape` [d, h, w, c, o] is of a network of volumes."""
  if len(shape) == 5:
    raise MedtlError(
      f'a dense layer {array.shape} on maps of pictures has no form for volumes, where it is '
      f'{shape}: config.truncate=5 leaves it out and keeps the convolutions'
    )
  return array


ADAPT = {r'backbone/stage5/dense/kernel': _refuse_volumes}
