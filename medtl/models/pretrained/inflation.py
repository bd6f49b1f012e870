"""Kernels and position embeddings of pictures as those of volumes."""

import numpy as np

from medtl.models.pretrained.dialects import Shape

WAYS = ('mean', 'centre')


def is_flat(source: Shape, shape: Shape) -> bool:
  """Return whether `source` is a kernel of pictures where ours [d, h, w, c, o] is of volumes.

  The numbers of input channels may differ.
  """
  if len(shape) != len(source) + 1 or len(source) != 4:
    return False
  return source[:2] == shape[1:3] and source[-1] == shape[-1]


def inflated(kernel: np.ndarray, taps: int, way: str) -> np.ndarray:
  """Return a kernel [h, w, c, o] with `taps` taps along a new first axis.

  'mean' repeats it and divides by the taps (I3D: Carreira & Zisserman 2017, arXiv 1705.07750,
  section 2.4): in the inside of a volume that repeats one slice, the features are those of the
  slice. 'centre' fills the middle tap alone (Girdhar et al. 2018, arXiv 1712.09184): they are so
  everywhere, and what lies beyond the slice has to be learned.
  """
  if way == 'mean':
    return np.repeat(kernel[None] / taps, taps, axis=0)
  deep = np.zeros((taps, *kernel.shape), kernel.dtype)
  deep[taps // 2] = kernel
  return deep


def repeated(positions: np.ndarray, depth: int) -> np.ndarray:
  """Return position embeddings [h, w, d] of a slice as those of a volume, [depth, h, w, d].

  All slices have the same ones: where a slice lies in the volume has to be learned.
  """
  return np.repeat(positions[None], depth, axis=0)
