"""Swin transformers: attention within windows that shift from block to block.

Liu et al. 2021, arXiv 2103.14030. A picture of any size is taken.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from medtl.core.types import MedtlError
from medtl.models import Backbone, child_name
from medtl.models.layers.layer_norm import LayerNorm
from medtl.models.layers.spatial import Conv
from medtl.models.layers.stochastic_depth import linear_rates
from medtl.models.layers.transformer import Mlp, Update
from medtl.models.layers.windows import WindowAttention
from medtl.models.pretrained.swin import ADAPT, RENAMES, WEIGHTS  # noqa: F401

EPSILON = 1e-5  # of the layer norms
RATIO = 4  # hidden units of an MLP ÷ width
NO_UPDATE = Update(0, (), 1.0)


class Swin(Backbone):
  """Pictures [b, *s, c] → maps [b, *s / 32, channels]; a stage is a resolution group.

  Volumes have windows of three axes, as in Video Swin (Liu et al. 2022, arXiv 2106.13230), whose
  patches are not cubes however.
  """

  depths: tuple[int, ...] = (2, 2, 6, 2)
  width: int = 96
  head_width: int = 32  # channels of an attention head
  window: int = 7  # places along each side of a window
  ndim: int = 2
  # stochastic depth of the last block; it grows linearly from 0 at the first
  drop_path: float = 0.0
  dtype: Any = jnp.float32

  @property
  def stages(self) -> int:
    return len(self.depths)

  @property
  def channels(self) -> int:
    return self.width * 2 ** (self.stages - 1)

  def child(self, index: int, value: Any, train: bool) -> Any:
    if index == 0:
      return Stem(self.width, self.ndim, self.dtype, name='stem')(value)
    width = self.width * 2 ** (index - 1)
    rates = linear_rates(self.drop_path, self.depths)
    stage = Stage(
      width=width,
      heads=width // self.head_width,
      window=(self.window,) * self.ndim,
      merges=index > 1,
      drop_path=rates[index - 1],
      dtype=self.dtype,
      name=child_name(index),
    )
    value = stage(value, train)
    if index == self.stages:
      value = LayerNorm(EPSILON, self.dtype, name='norm')(value)
    return value


class Stem(nn.Module):
  """Patches of 4 points a side, embedded and normalised."""

  width: int
  ndim: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    patch = (4,) * self.ndim
    embed = Conv(
      self.width, patch, 4, bias=True, dtype=self.dtype, padding='VALID', name='embedding'
    )
    return LayerNorm(EPSILON, self.dtype, name='norm')(embed(x))


class Stage(nn.Module):
  """A block for each entry of `drop_path`, every second one shifted, after merging patches."""

  width: int
  heads: int
  window: tuple[int, ...]
  merges: bool
  drop_path: tuple[float, ...]
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    if self.merges:
      x = LayerNorm(EPSILON, self.dtype, name='merge_norm')(neighbours(x))
      x = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name='merge')(x)
    for index, rate in enumerate(self.drop_path):
      shift = tuple(size // 2 if index % 2 else 0 for size in self.window)
      block = Block(self.heads, self.window, shift, rate, self.dtype, name=f'block{index}')
      x = block(x, train)
    return x


def neighbours(x: Any) -> Any:
  """Return maps [b, *s, c] as [b, *s / 2, 2ⁿ c]: each 2 × 2 places side by side, columns first.

  An odd side gets zeros at its end.
  """
  axes = range(x.ndim - 2)
  ends = [(0, side % 2) for side in x.shape[1:-1]]
  x = jnp.pad(x, [(0, 0), *ends, (0, 0)])
  sides = ' '.join(f'(s{axis} p{axis})' for axis in axes)
  halved = ' '.join(f's{axis}' for axis in axes)
  places = ' '.join(f'p{axis}' for axis in reversed(axes))
  sizes = {f'p{axis}': 2 for axis in axes}
  return rearrange(x, f'b {sides} c -> b {halved} ({places} c)', **sizes)


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)) (equation 3)."""

  heads: int
  window: tuple[int, ...]
  shift: tuple[int, ...]
  drop_path: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    drop_path = nn.Dropout(self.drop_path, broadcast_dims=range(1, x.ndim))
    y = LayerNorm(EPSILON, self.dtype, name='norm1')(x)
    attention = WindowAttention(self.heads, self.window, self.shift, self.dtype, name='attention')
    x = x + drop_path(attention(y), deterministic=not train)
    y = LayerNorm(EPSILON, self.dtype, name='norm2')(x)
    mlp = Mlp(
      hidden=RATIO * x.shape[-1],
      gated=False,
      activation='gelu',
      dropout=0.0,
      update=NO_UPDATE,
      dtype=self.dtype,
      name='mlp',
    )
    return x + drop_path(mlp(y, train), deterministic=not train)


def _factory(docstring: str, width: int, depths: tuple[int, ...]) -> Callable[..., Swin]:
  """Return a factory of Swin transformers of these depths."""

  def factory(
    ndim: int = 2,
    width: int = width,
    head_width: int = 32,
    window: int = 7,
    drop_path: float = 0.0,
    dtype: Any = jnp.float32,
  ) -> Swin:
    if not 1 <= ndim <= 3:
      raise MedtlError(f'ndim={ndim}; a Swin transformer has 1, 2 or 3 spatial axes')
    if width % head_width:
      raise MedtlError(
        f'width={width}, head_width={head_width}; expected a width that the heads divide'
      )
    return Swin(depths, width, head_width, window, ndim, drop_path, dtype)

  factory.__doc__ = docstring
  return factory


swin_t = _factory('Swin-T, published with drop_path=0.2.', 96, (2, 2, 6, 2))
swin_s = _factory('Swin-S, published with drop_path=0.3.', 96, (2, 2, 18, 2))
swin_b = _factory('Swin-B, published with drop_path=0.5.', 128, (2, 2, 18, 2))
