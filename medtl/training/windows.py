"""Whole cases through a net of patches: overlapping windows, weighted towards their centres."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medtl.core.types import Tree

OVERLAP = 0.5  # of neighbouring windows, as a share of their size
SHARPNESS = 8  # the weight is a Gaussian of this part of the window's size
TOGETHER = 4  # windows that the net sees at once


def windowed(apply: Callable[[Tree, Tree, Any], Any], size: Sequence[int]) -> Callable[..., Any]:
  """Return (params, extra, x [1, *s, c]) → outputs [1, *s, k] of a net that takes [b, *size, c].

  Windows overlap by half; where several cover a voxel, their outputs are averaged with Gaussian
  weights (Isensee et al. 2021, nnU-Net, supplement 4). `apply` is compiled once, whatever the
  shapes of the cases; a case that is smaller than a window is padded with zeros.
  """
  wanted = np.array(size)
  weight = centre_weight(size)[..., None]

  def whole(params: Tree, extra: Tree, x: Any) -> np.ndarray:
    case = np.asarray(x)[0]
    own = np.array(case.shape[:-1])
    missing = np.maximum(0, wanted - own)
    case = np.pad(case, [*((0, int(more)) for more in missing), (0, 0)])
    starts = list(itertools.product(*map(window_starts, case.shape[:-1], size)))
    total: np.ndarray | None = None
    weights = np.zeros((*case.shape[:-1], 1), np.float32)
    for group in _groups(starts):
      boxes = [_box(start, size) for start in group]
      windows = np.stack([case[box] for box in boxes])
      filled = np.resize(windows, (TOGETHER, *windows.shape[1:]))
      outputs = np.asarray(apply(params, extra, filled))[: len(group)]
      if total is None:
        total = np.zeros((*case.shape[:-1], outputs.shape[-1]), np.float32)
      for box, output in zip(boxes, outputs, strict=True):
        total[box] += output * weight
        weights[box] += weight
    assert total is not None
    inside = _box([0] * len(own), own.tolist())
    return (total / weights)[inside][None]

  return whole


def window_starts(length: int, size: int) -> list[int]:
  """Return where windows begin along one axis: evenly spread, the first and last at the ends.

  >>> window_starts(10, 4), window_starts(4, 4)
  ([0, 2, 4, 6], [0])
  """
  step = max(1, int(size * (1 - OVERLAP)))
  count = 1 + -(-(length - size) // step)
  return np.round(np.linspace(0, length - size, count)).astype(int).tolist()


def count(shape: Sequence[int], size: Sequence[int]) -> int:
  """Return how many windows of `size` [*s] cover a case of `shape` [*s].

  >>> count((10, 4), (4, 4))
  4
  """
  starts = (
    window_starts(max(length, wide), wide) for length, wide in zip(shape, size, strict=True)
  )
  return math.prod(map(len, starts))


def centre_weight(size: Sequence[int]) -> np.ndarray:
  """Return the weight [*size] of each voxel of a window: 1 at the centre, never 0."""
  weight = np.ones(tuple(size), np.float32)
  for axis, length in enumerate(size):
    distance = np.arange(length) - (length - 1) / 2
    bell = np.exp(-0.5 * (distance / (length / SHARPNESS)) ** 2)
    along_axis = [1] * len(size)
    along_axis[axis] = length
    weight = weight * bell.reshape(along_axis).astype(np.float32)
  return np.maximum(weight, 1e-3)


def _groups(starts: Sequence[tuple[int, ...]]) -> list[Sequence[tuple[int, ...]]]:
  return [starts[begin : begin + TOGETHER] for begin in range(0, len(starts), TOGETHER)]


def _box(start: Sequence[int], size: Sequence[int]) -> tuple[Any, ...]:
  return tuple(slice(begin, begin + length) for begin, length in zip(start, size, strict=True))
