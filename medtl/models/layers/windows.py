"""Attention within windows of maps, which every second block shifts by half a window.

Liu et al. 2021 (Swin), arXiv 2103.14030, section 3.2.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

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

    def project(name: str) -> Any:
      y = Dense(width, self.dtype, name=name)(x)
      return self.windows_of_heads(y)

    bias = self.position_bias() + jnp.asarray(shift_mask(padded, self.window, shift))
    y = attend(project('query'), project('key'), project('value'), bias)
    y = Dense(width, self.dtype, name='out')(self.maps_of(y, padded))
    y = jnp.roll(y, shift, axes)
    return y[:, *(slice(side) for side in sides)]

  def windows_of_heads(self, x: Any) -> Any:
    """Return maps [b, *s, h · d] as [b, n, h, t, d]: n windows of t places."""
    outer, inner, sizes = _letters(self.window)
    sides = ' '.join(f'({o} {i})' for o, i in zip(outer, inner, strict=True))
    pattern = f'b {sides} (h d) -> b ({" ".join(outer)}) h ({" ".join(inner)}) d'
    return rearrange(x, pattern, h=self.heads, **sizes)

  def maps_of(self, x: Any, sides: Sides) -> Any:
    """Return what windows [b, n, h, t, d] hold as maps [b, *sides, h · d]."""
    outer, inner, sizes = _letters(self.window)
    counts = {
      letter: side // size for letter, side, size in zip(outer, sides, self.window, strict=True)
    }
    maps = ' '.join(f'({o} {i})' for o, i in zip(outer, inner, strict=True))
    pattern = f'b ({" ".join(outer)}) h ({" ".join(inner)}) d -> b {maps} (h d)'
    return rearrange(x, pattern, **sizes, **counts)

  def position_bias(self) -> Any:
    """Return the bias [h, t, t] of two places of a window by their relative position."""
    count = math.prod(2 * size - 1 for size in self.window)
    shape = (count, self.heads)
    table = self.param('positions', nn.initializers.truncated_normal(0.02), shape)
    return jnp.moveaxis(table[relative_positions(self.window)], -1, 0)


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
  outer, inner, sizes = _letters(window)
  maps = ' '.join(f'({o} {i})' for o, i in zip(outer, inner, strict=True))
  regions = rearrange(region, f'{maps} -> ({" ".join(outer)}) 1 ({" ".join(inner)})', **sizes)
  apart = regions[..., :, None] != regions[..., None, :]
  return np.where(apart, np.float32(APART), np.float32(0))


def _letters(window: Sides) -> tuple[list[str], list[str], dict[str, int]]:
  """Return einops' names of the axes of windows and of the places in them, and their sizes."""
  outer = [f'n{axis}' for axis in range(len(window))]
  inner = [f't{axis}' for axis in range(len(window))]
  return outer, inner, dict(zip(inner, window, strict=True))
