"""Host operations on one picture x [*s, c] → x, chained as text: 'window(-1000, 400) | resize(224, 224)'.

Any number of spatial axes; one size means that size along each of them. Values are float32; the spacing is not followed.
"""

from functools import lru_cache

import numpy as np

from medtl.core.annotation import together
from medtl.core.types import MedtlError

positive = together('positive whole numbers', lambda size: all(length >= 1 for length in size))


@together('low < high', lambda low, high: low < high)
def window(x: np.ndarray, low: float, high: float) -> np.ndarray:
  """Return x with low … high stretched to 0 … 1 and what lies outside clipped, as a CT window does (units of x, often HU).

  >>> window(np.array([[-2000.0], [-300.0], [400.0]], np.float32), -1000, 400).ravel().tolist()
  [0.0, 0.5, 1.0]
  """
  return np.clip((x.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)


@together('0 <= low < high <= 100', lambda low, high: 0 <= low < high <= 100)
def percentiles(x: np.ndarray, low: float = 1.0, high: float = 99.0) -> np.ndarray:
  """Return x clipped to its own percentiles low … high (in %), all channels together; follow it with rescale."""
  return np.clip(x, *np.percentile(x, [low, high])).astype(np.float32)


def rescale(x: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
  """Return x with its own minimum … maximum moved to low … high; a constant picture becomes low."""
  least, most = np.float32(x.min()), np.float32(x.max())
  share = (
    (x.astype(np.float32) - least) / (most - least)
    if most > least
    else np.zeros(x.shape, np.float32)
  )
  return np.float32(low) + share * np.float32(high - low)


@positive
def resize(x: np.ndarray, *size: int, method: str = 'linear') -> np.ndarray:
  """Return x [*size, c], resampled without aliasing: the filter widens by the factor of shrinking, as Pillow's does.

  `method` is 'linear' (triangle) or 'cubic' (Keys 1981, a = -1/2). Values stay within the range of x: overshoot is clipped.
  """
  if method not in ('linear', 'cubic'):
    raise MedtlError(f"resize has no method {method!r}; expected 'linear' or 'cubic'")
  least, most = x.min(), x.max()
  for axis, length in enumerate(_sizes('resize', x, size)):
    if length != x.shape[axis]:
      x = _resample(x, axis, *_taps(x.shape[axis], length, method))
  return np.ascontiguousarray(np.clip(x, least, most), np.float32)


def _resample(x: np.ndarray, axis: int, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """Return x with one axis resampled: a sum over taps, as a matrix product's BLAS threads would fight with training."""
  columns = (-1,) + (1,) * (x.ndim - axis - 1)
  return sum(
    np.take(x, index[:, tap], axis) * weight[:, tap].reshape(columns)
    for tap in range(index.shape[1])
  )


@lru_cache(maxsize=64)
def _taps(found: int, wanted: int, method: str) -> tuple[np.ndarray, np.ndarray]:
  """Return (index, weight), each [wanted, taps]: what a place takes from one axis; weights sum to 1, half-pixel centres."""
  scale = found / wanted
  far = np.abs(np.arange(found) + 0.5 - (np.arange(wanted)[:, None] + 0.5) * scale) / max(
    scale, 1.0
  )
  if method == 'linear':
    dense = np.maximum(0, 1 - far)
  else:
    outer = np.where(far < 2, -0.5 * far**3 + 2.5 * far**2 - 4 * far + 2, 0)
    dense = np.where(far < 1, 1.5 * far**3 - 2.5 * far**2 + 1, outer)
  first, last = (dense != 0).argmax(1), found - (dense[:, ::-1] != 0).argmax(1)
  reach = (last - first).max()
  index = np.minimum(first, found - reach)[:, None] + np.arange(reach)
  weight = np.take_along_axis(dense / dense.sum(axis=1, keepdims=True), index, 1)
  return index, weight.astype(np.float32)


@positive
def crop(x: np.ndarray, *size: int) -> np.ndarray:
  """Return the centre of x, at most `size` along each axis; an axis that is shorter stays as it is."""
  for axis, length in enumerate(_sizes('crop', x, size)):
    start = max(0, (x.shape[axis] - length) // 2)
    x = x[(slice(None),) * axis + (slice(start, start + length),)]
  return x


@positive
def pad(x: np.ndarray, *size: int, value: float = 0.0) -> np.ndarray:
  """Return x in the centre of at least `size` along each axis, surrounded by `value`; a longer axis stays as it is."""
  extra = [
    max(0, length - found)
    for length, found in zip(_sizes('pad', x, size), x.shape[:-1], strict=True)
  ]
  return np.pad(
    x, [(more // 2, more - more // 2) for more in extra] + [(0, 0)], constant_values=value
  )


def square(x: np.ndarray, value: float = 0.0) -> np.ndarray:
  """Return x padded to a square (a cube) of its longest side, so that a later resize keeps proportions."""
  return pad(x, max(x.shape[:-1]), value=value)


def _sizes(what: str, x: np.ndarray, size: tuple[int, ...]) -> tuple[int, ...]:
  axes = x.ndim - 1
  if len(size) not in (1, axes) or not all(isinstance(length, int) for length in size):
    raise MedtlError(
      f'{what}{size} does not fit a picture of shape {x.shape}; expected 1 or {axes} whole numbers'
    )
  return size * axes if len(size) == 1 else size
