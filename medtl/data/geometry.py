"""How a case's picture, its mask and its frame move together."""

from collections.abc import Callable, Sequence

import numpy as np

from medtl.core import frames
from medtl.core.types import Example, is_mask


def frame_of(example: Example) -> frames.Frame:
  """Return where the case lies; one without a frame lies at its own indices."""
  return example.frame or frames.plain(example.x.shape[:-1])


def each(example: Example, move: Callable[[np.ndarray, bool], np.ndarray]) -> Example:
  """Return the example with the picture moved, and its mask, where it has one, moved likewise."""
  y = np.asarray(example.y)
  moved_y = move(y, True) if is_mask(y) else example.y
  return example._replace(x=move(example.x, False), y=moved_y)


def cut(example: Example, begin: Sequence[int], size: Sequence[int]) -> Example:
  """Return the box of `size` voxels that begins at the index `begin`, and lies inside."""
  box = tuple(slice(start, start + length) for start, length in zip(begin, size, strict=True))
  shape = tuple(int(length) for length in size)
  frame = frame_of(example).moved(shape, frames.shifted(begin))
  return each(example._replace(frame=frame), lambda values, _: values[box])
