"""Where an array lies: voxel index → space. Every operation on a picture keeps its frame right."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Frame(NamedTuple):
  """The grid of an array [*s] and its place.

  `affine` [n + 1, n + 1] maps a voxel's index to its centre: in millimetres where `millimetres`
  (RAS+ for volumes, as NIfTI has it), else in pixels of the file. Two frames of one case share
  that space, so that a prediction returns to the file's own grid by one resampling.
  """

  shape: tuple[int, ...]
  affine: np.ndarray
  millimetres: bool = False

  @property
  def spacing(self) -> tuple[float, ...]:
    """Return the distance of neighbours along each axis."""
    lengths = np.linalg.norm(self.affine[:-1, :-1], axis=0)
    return tuple(lengths.tolist())

  def moved(self, shape: Sequence[int], index_map: np.ndarray) -> 'Frame':
    """Return the frame of a new grid; `index_map` maps its indices to those of this one."""
    return Frame(tuple(shape), self.affine @ index_map, self.millimetres)


def plain(shape: Sequence[int], spacing: Sequence[float] = ()) -> Frame:
  """Return the frame of a picture that knows no place: its own indices.

  They are in mm where `spacing` is given.

  >>> plain((4, 6), (0.5, 2.0)).spacing
  (0.5, 2.0)
  """
  scale = np.ones(len(shape) + 1)
  if spacing:
    scale[:-1] = spacing
  return Frame(tuple(shape), np.diag(scale), bool(spacing))


def shifted(offset: Sequence[float]) -> np.ndarray:
  """Return the index map of a grid that begins at `offset` of the old one."""
  index_map = np.eye(len(offset) + 1)
  index_map[:-1, -1] = offset
  return index_map


def scaled(old: Sequence[int], new: Sequence[int]) -> np.ndarray:
  """Return the index map of a grid of shape `new` over the same space as one of shape `old`.

  Edges coincide, as in every resize: i_old + ½ = (i_new + ½) · old / new.
  """
  factor = np.asarray(old, float) / np.asarray(new, float)
  index_map = np.diag([*factor, 1.0])
  index_map[:-1, -1] = (factor - 1) / 2
  return index_map


def resampled(
  values: np.ndarray, frame: Frame, target: Frame, order: int, outside: float = 0.0
) -> np.ndarray:
  """Return an array [*s] that lies in `frame` on the grid of `target`.

  `order` 0 is the nearest neighbour (masks), 1 linear. What lies outside the frame is `outside`.
  """
  from scipy import ndimage

  same_grid = frame.shape == target.shape and np.allclose(frame.affine, target.affine, atol=1e-6)
  if same_grid:
    return values
  index_map = np.linalg.inv(frame.affine) @ target.affine
  return ndimage.affine_transform(
    values,
    index_map[:-1, :-1],
    index_map[:-1, -1],
    output_shape=target.shape,
    order=order,
    mode='grid-constant',
    cval=outside,
    prefilter=False,
  )


def to_axes(frame: Frame, axes: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Return (permutation, axes to flip after it) that turn a volume so that its axes run to `axes`.

  'RAS': the first axis runs to the patient's right, the second to the front, the third up.
  """
  directions = {'R': (0, 1), 'L': (0, -1), 'A': (1, 1), 'P': (1, -1), 'S': (2, 1), 'I': (2, -1)}
  cosines = frame.affine[:3, :3] / np.array(frame.spacing)
  left = list(range(3))
  permutation = []
  flipped = []
  for place, letter in enumerate(axes):
    world, sign = directions[letter]
    axis = max(left, key=lambda axis: abs(cosines[world, axis]))
    left.remove(axis)
    permutation.append(axis)
    if cosines[world, axis] * sign < 0:
      flipped.append(place)
  return tuple(permutation), tuple(flipped)
