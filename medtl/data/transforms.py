"""Operations on one case on the host, chained as text: 'window(-1000, 400) | resize(224, 224)'.

Each maps Example → Example: picture, mask and frame move together. Any number of spatial axes; one
size means that size along each of them. Values are float32. A mask takes its nearest neighbour.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from medtl.core import frames
from medtl.core.annotation import together
from medtl.core.types import Example, MedtlError
from medtl.data.geometry import cut, each, frame_of

positive = together('positive whole numbers', lambda size: all(length >= 1 for length in size))
LENGTHS = together('lengths above 0', lambda millimetres: all(length > 0 for length in millimetres))
ORIENTATIONS = ('RAS', 'LPS', 'LAS', 'RPS', 'RAI', 'LPI', 'LAI', 'RPI')


@together('low < high', lambda low, high: low < high)
def window(example: Example, low: float, high: float) -> Example:
  """Return low … high stretched to 0 … 1 and what lies outside clipped, as a CT window does.

  Units are those of x, often HU.
  """
  x = example.x.astype(np.float32)
  share = (x - np.float32(low)) / np.float32(high - low)
  return example._replace(x=np.clip(share, 0, 1))


@together('0 <= low < high <= 100', lambda low, high: 0 <= low < high <= 100)
def percentiles(example: Example, low: float = 1.0, high: float = 99.0) -> Example:
  """Return x clipped to its own percentiles low … high (in %), all channels together.

  Follow it with rescale.
  """
  x = np.clip(example.x, *np.percentile(example.x, [low, high]))
  return example._replace(x=x.astype(np.float32))


def rescale(example: Example, low: float = 0.0, high: float = 1.0) -> Example:
  """Return x with its own minimum … maximum moved to low … high; a constant picture becomes low."""
  x = example.x
  least = np.float32(x.min())
  most = np.float32(x.max())
  share = np.zeros(x.shape, np.float32)
  if most > least:
    share = (x.astype(np.float32) - least) / (most - least)
  return example._replace(x=np.float32(low) + share * np.float32(high - low))


def standardise(example: Example) -> Example:
  """Return x minus its own mean, divided by its own standard deviation: MRI has no unit.

  Voxels that are exactly 0 are background, and stay 0 (Isensee et al. 2021, nnU-Net, supplement 2).
  """
  x = example.x.astype(np.float32)
  tissue = x != 0
  if not tissue.any():
    return example._replace(x=x)
  mean = x[tissue].mean()
  deviation = max(x[tissue].std(), 1e-8)
  return example._replace(x=np.where(tissue, (x - mean) / deviation, 0.0))


@positive
def resize(example: Example, *size: int, method: str = 'linear') -> Example:
  """Return x [*size, c], resampled without aliasing: the filter widens by the factor of shrinking.

  It equals Pillow's. `method` is 'linear' (triangle) or 'cubic' (Keys 1981, a = -1/2). Values stay
  within the range of x: overshoot is clipped.
  """
  if method not in ('linear', 'cubic'):
    raise MedtlError(f"resize has no method {method!r}; expected 'linear' or 'cubic'")
  return _resized(example, _sizes('resize', example.x, size), method)


@LENGTHS
def resample(example: Example, *millimetres: float) -> Example:
  """Return the case with voxels of so many millimetres along each axis.

  The size is rounded to whole voxels, so that the spacing comes out within half a voxel of the
  whole length. A case whose file says no spacing is an error.
  """
  frame = frame_of(example)
  axes = len(frame.shape)
  if not frame.millimetres:
    raise MedtlError(
      f'resample{millimetres} needs the spacing of voxels, which the file does not say; use resize'
    )
  if len(millimetres) not in (1, axes):
    raise MedtlError(
      f'resample{millimetres} does not fit a case of shape {example.x.shape}; expected 1 or {axes} '
      'lengths in mm'
    )
  wanted = millimetres * axes if len(millimetres) == 1 else millimetres
  lengths = np.array(frame.shape) * np.array(frame.spacing)
  size = np.maximum(1, np.round(lengths / np.array(wanted))).astype(int)
  return _resized(example, tuple(size.tolist()), 'linear')


def orient(example: Example, axes: str = 'RAS') -> Example:
  """Return the volume with its axes turned and flipped so that they run to `axes`.

  Nothing is resampled. A case whose file does not say how it lies is a MedtlError.
  """
  frame = frame_of(example)
  if axes not in ORIENTATIONS:
    raise MedtlError(f'orient({axes!r}); expected one of {", ".join(ORIENTATIONS)}')
  if len(frame.shape) != 3 or not frame.millimetres:
    raise MedtlError(
      f'orient({axes!r}) needs a volume whose file says how it lies, found shape '
      f'{example.x.shape}; leave orient out'
    )
  permutation, flipped = frames.to_axes(frame, axes)
  shape = tuple(frame.shape[axis] for axis in permutation)
  index_map = np.zeros((4, 4))
  index_map[3, 3] = 1.0
  for new, old in enumerate(permutation):
    index_map[old, new] = -1.0 if new in flipped else 1.0
    index_map[old, 3] = shape[new] - 1 if new in flipped else 0.0
  moved = example._replace(frame=frame.moved(shape, index_map))
  return each(moved, lambda values, _: np.flip(_permuted(values, permutation), flipped))


@positive
def crop(example: Example, *size: int) -> Example:
  """Return the centre, at most `size` along each axis; an axis that is shorter stays as it is."""
  whole = example.x.shape[:-1]
  kept = np.minimum(_sizes('crop', example.x, size), whole)
  begin = (np.array(whole) - kept) // 2
  return cut(example, begin.tolist(), kept.tolist())


@positive
def pad(example: Example, *size: int, value: float = 0.0) -> Example:
  """Return x in the centre of at least `size` along each axis, surrounded by `value`.

  A longer axis stays as it is; a mask is surrounded by background, 0.
  """
  inner = np.array(example.x.shape[:-1])
  outer = np.maximum(inner, _sizes('pad', example.x, size))
  before = (outer - inner) // 2
  after = outer - inner - before
  around = list(zip(before.tolist(), after.tolist(), strict=True))
  frame = frame_of(example).moved(tuple(outer.tolist()), frames.shifted(-before))

  def padded(values: np.ndarray, mask: bool) -> np.ndarray:
    channels = [(0, 0)] * (values.ndim - len(around))
    return np.pad(values, around + channels, constant_values=0 if mask else value)

  return each(example._replace(frame=frame), padded)


def square(example: Example, value: float = 0.0) -> Example:
  """Return x padded to a square (a cube) of its longest side: a later resize keeps proportions."""
  return pad(example, max(example.x.shape[:-1]), value=value)


def _resized(example: Example, size: tuple[int, ...], method: str) -> Example:
  frame = frame_of(example)

  def resized(values: np.ndarray, mask: bool) -> np.ndarray:
    if mask:
      return _nearest(values, size)
    least = values.min()
    most = values.max()
    for axis, length in enumerate(size):
      if length != values.shape[axis]:
        index, weight = _taps(values.shape[axis], length, method)
        values = _resample(values, axis, index, weight)
    return np.ascontiguousarray(np.clip(values, least, most), np.float32)

  moved = frame.moved(size, frames.scaled(frame.shape, size))
  return each(example._replace(frame=moved), resized)


def _permuted(values: np.ndarray, permutation: tuple[int, ...]) -> np.ndarray:
  """Return the array with its spatial axes in another order; channels stay last."""
  rest = range(len(permutation), values.ndim)
  return values.transpose(*permutation, *rest)


def _nearest(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
  """Return a mask [*s] resized: each place takes the voxel that its centre lies in."""
  for axis, length in enumerate(size):
    whole = mask.shape[axis]
    index = ((np.arange(length) + 0.5) * whole / length).astype(int)
    mask = np.take(mask, np.minimum(index, whole - 1), axis)
  return mask


def _resample(x: np.ndarray, axis: int, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """Return x with one axis resampled by `_taps`, a sum over the taps.

  As a matrix product, its BLAS threads would fight with those of the training.
  """
  along_axis = (-1,) + (1,) * (x.ndim - axis - 1)
  total: Any = 0
  for tap in range(index.shape[1]):
    taken = np.take(x, index[:, tap], axis)
    total = total + taken * weight[:, tap].reshape(along_axis)
  return total


@lru_cache(maxsize=64)
def _taps(length: int, wanted: int, method: str) -> tuple[np.ndarray, np.ndarray]:
  """Return (index, weight), each [wanted, taps]: what a place takes from an axis of `length`.

  Weights sum to 1; a place's centre is half a pixel inside it.
  """
  scale = length / wanted
  centre = (np.arange(wanted)[:, None] + 0.5) * scale
  far = np.abs(np.arange(length) + 0.5 - centre) / max(scale, 1.0)
  if method == 'linear':
    dense = np.maximum(0, 1 - far)
  else:  # Keys 1981, a = -1/2
    inner = 1.5 * far**3 - 2.5 * far**2 + 1
    outer = -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2
    dense = np.where(far < 1, inner, np.where(far < 2, outer, 0))
  used = dense != 0
  first = used.argmax(1)
  last = length - used[:, ::-1].argmax(1)
  taps = (last - first).max()
  index = np.minimum(first, length - taps)[:, None] + np.arange(taps)
  share = dense / dense.sum(axis=1, keepdims=True)
  weight = np.take_along_axis(share, index, 1)
  return index, weight.astype(np.float32)


def _sizes(what: str, x: np.ndarray, size: tuple[int, ...]) -> tuple[int, ...]:
  axes = x.ndim - 1
  if not axes:
    raise MedtlError(
      f'{what} changes the size of pictures, but x is a row of {len(x)} numbers; leave it out of '
      'data.ops'
    )
  if len(size) not in (1, axes) or not all(isinstance(length, int) for length in size):
    raise MedtlError(
      f'{what}{size} does not fit a picture of shape {x.shape}; expected 1 or {axes} whole numbers'
    )
  return size * axes if len(size) == 1 else size
