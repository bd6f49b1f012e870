"""Attention within windows of maps, which every second block shifts by half a window.

Liu et al. 2021 (Swin), arXiv 2103.14030, section 3.2.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from medtl.models.layers.transformer import Dense, attend

APART = -100.0  # added to the logits of two places that are not neighbours, as publishers have it

Sides = tuple[int, ...]


class WindowAttention(nn.Module):
  """Softmax attention among the places of each window of maps [b, *s, c].

  Maps that windows do not divide are padded with zeros at their ends, then rolled by `shift`: so
  torchvision has it (timm rolls first). A side that is no longer than a window is not rolled. Each
  head learns a bias for each relative position of two places (equation 4).
  """

  heads: int
  window: Sides
  shift: Sides
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    sides = x.shape[1:-1]
    width = x.shape[-1]
    padded = padded_sides(sides, self.window)
    shift = tuple(
      0 if side <= size else by
      for side, size, by in zip(padded, self.window, self.shift, strict=True)
    )
    axes = tuple(range(1, x.ndim - 1))
    ends = [(0, more - side) for more, side in zip(padded, sides, strict=True)]
    x = jnp.pad(x, [(0, 0), *ends, (0, 0)])
    x = jnp.roll(x, [-by for by in shift], axes)

    names = axis_names(padded, self.window)
    maps = f'b {names.sides} (h d)'
    windows = f'b ({names.windows}) h ({names.places}) d'

    def project(name: str) -> Any:
      y = Dense(width, self.dtype, name=name)(x)
      return rearrange(y, f'{maps} -> {windows}', h=self.heads, **names.sizes)

    bias = self.position_bias() + jnp.asarray(shift_mask(padded, self.window, shift))
    y = attend(project('query'), project('key'), project('value'), bias)
    y = rearrange(y, f'{windows} -> {maps}', **names.sizes)
    y = Dense(width, self.dtype, name='out')(y)
    y = jnp.roll(y, shift, axes)
    return y[:, *(slice(side) for side in sides)]

  def position_bias(self) -> Any:
    """Return the bias [h, t, t] of two places of a window by their relative position."""
    count = math.prod(2 * size - 1 for size in self.window)
    shape = (count, self.heads)
    table = self.param('positions', nn.initializers.truncated_normal(0.02), shape)
    return jnp.moveaxis(table[relative_positions(self.window)], -1, 0)


class AxisNames(NamedTuple):
  """What einops calls the axes of maps: sides, windows along them, places in the windows."""

  sides: str
  windows: str
  places: str
  sizes: dict[str, int]  # of windows and places, by name


def axis_names(sides: Sides, window: Sides) -> AxisNames:
  """Return the names of the axes of maps that windows divide.

  >>> axis_names((8, 12), (4, 4))[:3]
  ('(n0 p0) (n1 p1)', 'n0 n1', 'p0 p1')
  """
  axes = range(len(sides))
  sizes: dict[str, int] = {}
  for axis, side, size in zip(axes, sides, window, strict=True):
    sizes |= {f'n{axis}': side // size, f'p{axis}': size}
  return AxisNames(
    sides=' '.join(f'(n{axis} p{axis})' for axis in axes),
    windows=' '.join(f'n{axis}' for axis in axes),
    places=' '.join(f'p{axis}' for axis in axes),
    sizes=sizes,
  )


def padded_sides(sides: Sequence[int], window: Sides) -> Sides:
  """Return the sides of maps that windows divide.

  >>> padded_sides((14, 15), (7, 7))
  (14, 21)
  """
  return tuple(math.ceil(side / size) * size for side, size in zip(sides, window, strict=True))


def relative_positions(window: Sides) -> np.ndarray:
  """Return the row [t, t] of the table of positions that two places of a window read.

  Rows count the differences of coordinates from -(side - 1) on, the last axis fastest.

  >>> relative_positions((2,))
  array([[1, 0],
         [2, 1]])
  """
  places = np.array(list(itertools.product(*map(range, window))))
  differences = places[:, None] - places[None]
  rows = np.zeros(differences.shape[:2], int)
  for axis, size in enumerate(window):
    rows = rows * (2 * size - 1) + differences[..., axis] + size - 1
  return rows


def shift_mask(sides: Sides, window: Sides, shift: Sides) -> np.ndarray:
  """Return what is added to the logits of each window, [n, 1, t, t], or [1, 1, 1] for no shift.

  A rolled window holds places of both ends of the maps, which do not see each other.
  """
  if not any(shift):
    return np.zeros((1, 1, 1), np.float32)
  region = np.zeros(sides, int)
  for axis, (side, size, by) in enumerate(zip(sides, window, shift, strict=True)):
    place = np.arange(side)
    part = (place >= side - size).astype(int) + (place >= side - by) if by else 0 * place
    region = 3 * region + part.reshape(-1, *[1] * (len(sides) - axis - 1))
  names = axis_names(sides, window)
  pattern = f'{names.sides} -> ({names.windows}) 1 ({names.places})'
  regions = rearrange(region, pattern, **names.sizes)
  apart = regions[..., :, None] != regions[..., None, :]
  return np.where(apart, np.float32(APART), np.float32(0))
