"""ConvNeXt: a ResNet with the proportions of a Swin transformer.

Liu et al. 2022, arXiv 2201.03545.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medtl.models import Backbone, child_name
from medtl.models.layers.activation import gelu
from medtl.models.layers.layer_norm import LayerNorm
from medtl.models.layers.stochastic_depth import linear_rates
from medtl.models.layers.style import Style
from medtl.models.layers.transformer import Dense
from medtl.models.pretrained.convnext import RENAMES, WEIGHTS  # noqa: F401

EPSILON = 1e-6  # of the layer norms
RATIO = 4  # hidden channels of a block ÷ its channels


class ConvNeXt(Backbone):
  """Pictures [b, *s, c] → maps [b, *s / 32, channels]; a stage is a resolution group.

  The norm that published networks have after the pooling belongs to the head:
  `heads.linear(norm='layer')`.
  """

  depths: tuple[int, ...] = (3, 3, 9, 3)
  width: int = 96
  # stochastic depth of the last block; it grows linearly from 0 at the first
  drop_path: float = 0.0
  style: Style = Style(bias=True)

  @property
  def stages(self) -> int:
    return len(self.depths)

  @property
  def channels(self) -> int:
    return self.width * 2 ** (self.stages - 1)

  def child(self, index: int, value: Any, train: bool) -> Any:
    if index == 0:
      return Stem(self.width, self.style, name='stem')(value)
    rates = linear_rates(self.drop_path, self.depths)
    stage = Stage(
      features=self.width * 2 ** (index - 1),
      halves=index > 1,
      drop_path=rates[index - 1],
      style=self.style,
      name=child_name(index),
    )
    return stage(value, train)


class Stem(nn.Module):
  """A 4×4 convolution at stride 4, and a norm."""

  width: int
  style: Style

  @nn.compact
  def __call__(self, x: Any) -> Any:
    x = self.style.conv(x, self.width, 4, 4, 'conv', padding='VALID')
    return LayerNorm(EPSILON, self.style.dtype, name='norm')(x)


class Stage(nn.Module):
  """A block for each entry of `drop_path`, after a norm and a 2×2 convolution where it `halves`."""

  features: int
  halves: bool
  drop_path: tuple[float, ...]
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    if self.halves:
      x = LayerNorm(EPSILON, self.style.dtype, name='down_norm')(x)
      # a side of one place, which publishers refuse, gets a zero beside it
      ends = [(0, int(side == 1)) for side in x.shape[1:-1]]
      x = jnp.pad(x, [(0, 0), *ends, (0, 0)])
      x = self.style.conv(x, self.features, 2, 2, 'down_conv', padding='VALID')
    for index, rate in enumerate(self.drop_path):
      x = Block(rate, self.style, name=f'block{index}')(x, train)
    return x


class Block(nn.Module):
  """x + scale · (depthwise 7×7, norm, 1×1 to four times the channels, GELU, 1×1 back).

  Section 2.6 and figure 4 of the paper; the scale is LayerScale (Touvron et al. 2021, arXiv
  2103.17239).
  """

  drop_path: float
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    channels = x.shape[-1]
    dtype = self.style.dtype
    y = self.style.depthwise(x, 7, 1, 'depthwise')
    y = LayerNorm(EPSILON, dtype, name='norm')(y)
    y = gelu(Dense(RATIO * channels, dtype, name='expand')(y))
    y = Dense(channels, dtype, name='project')(y)
    scale = self.param('scale', nn.initializers.constant(1e-6), (channels,))
    y = y * scale.astype(dtype)
    drop_path = nn.Dropout(self.drop_path, broadcast_dims=range(1, y.ndim))
    return x + drop_path(y, deterministic=not train)


def _factory(docstring: str, width: int, depths: tuple[int, ...]) -> Callable[..., ConvNeXt]:
  """Return a factory of ConvNeXts of these depths."""

  def factory(
    ndim: int = 2,
    width: int = width,
    drop_path: float = 0.0,
    acs: bool = False,
    dtype: Any = jnp.float32,
  ) -> ConvNeXt:
    return ConvNeXt(depths, width, drop_path, Style(ndim, acs, bias=True, dtype=dtype))

  factory.__doc__ = docstring
  return factory


_HEAD = "config.head.norm='layer' gives it the norm of the published one's head."
convnext_tiny = _factory(f'ConvNeXt-T, published with drop_path=0.1. {_HEAD}', 96, (3, 3, 9, 3))
convnext_small = _factory(f'ConvNeXt-S, published with drop_path=0.4. {_HEAD}', 96, (3, 3, 27, 3))
convnext_base = _factory(f'ConvNeXt-B, published with drop_path=0.5. {_HEAD}', 128, (3, 3, 27, 3))
