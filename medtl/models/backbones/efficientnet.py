"""EfficientNet-Lite 0 … 4: no squeeze-and-excitation, ReLU6, stem and top not scaled.

EfficientNet is of Tan & Le 2019, arXiv 1905.11946.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from medtl.core.types import MedtlError
from medtl.models import Backbone, child_name
from medtl.models.layers.activation import relu6
from medtl.models.layers.spatial import Conv, Depthwise
from medtl.models.pretrained.efficientnet import RENAMES, WEIGHTS  # noqa: F401


class Row(NamedTuple):
  """A stage of MBConv blocks in table 1 of arXiv 1905.11946."""

  repeats: int
  kernel: int
  stride: int
  expansion: int
  channels: int


STAGES = (
  Row(1, 3, 1, 1, 16),
  Row(2, 3, 2, 6, 24),
  Row(2, 5, 2, 6, 40),
  Row(3, 3, 2, 6, 80),
  Row(3, 5, 1, 6, 112),
  Row(4, 5, 2, 6, 192),
  Row(1, 3, 1, 6, 320),
)


class EfficientNet(Backbone):
  """Pictures [b, *s, c] → maps [b, *s / 32, top].

  The last stage, stage8, is the last 1×1 convolution, so that depth 9 leaves the head alone.
  """

  width: float = 1.0  # factor of channels, rounded to multiples of 8
  depth: float = 1.0  # factor of repeats, rounded up; the first and the last stage are not repeated
  stem: int = 32
  top: int = 1280
  ndim: int = 2
  # stochastic depth of the last block; it grows linearly from 0 at the first (published: 0.2)
  drop_path: float = 0.0
  dtype: Any = jnp.float32

  @property
  def stages(self) -> int:
    return len(STAGES) + 1

  @property
  def channels(self) -> int:
    return self.top

  def repeats(self, index: int) -> int:
    """Return how many blocks stage `index` has, 1 … 7."""
    repeats = STAGES[index - 1].repeats
    if index in (1, len(STAGES)):
      return repeats
    return math.ceil(repeats * self.depth)

  def drop_path_rates(self, index: int) -> tuple[float, ...]:
    """Return the rate of stochastic depth of each block of stage `index`, 1 … 7."""
    repeats = [self.repeats(stage) for stage in range(1, self.stages)]
    first = sum(repeats[: index - 1])
    blocks = range(first, first + repeats[index - 1])
    return tuple(self.drop_path * block / sum(repeats) for block in blocks)

  def child(self, index: int, value: Any, train: bool) -> Any:
    if index == 0:
      stem = Unit(self.stem, (3,) * self.ndim, 2, self.dtype, name='stem')
      return stem(value, train)
    name = child_name(index)
    if index == self.stages:
      top = Unit(self.top, (1,) * self.ndim, 1, self.dtype, name=name)
      return top(value, train)
    row = STAGES[index - 1]
    stage = Stage(
      kernel=(row.kernel,) * self.ndim,
      stride=row.stride,
      expansion=row.expansion,
      channels=_scaled(row.channels, self.width),
      drop_path=self.drop_path_rates(index),
      dtype=self.dtype,
      name=name,
    )
    return stage(value, train)


class Unit(nn.Module):
  """Convolution, norm, ReLU6: the stem and the top."""

  channels: int
  kernel: tuple[int, ...]
  stride: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    x = _conv(x, self.channels, self.kernel, self.stride, self.dtype, 'conv')
    return relu6(_norm(x, train, self.dtype, 'norm'))


class Stage(nn.Module):
  """A block for each entry of `drop_path`; the first changes resolution and channels."""

  kernel: tuple[int, ...]
  stride: int
  expansion: int
  channels: int
  drop_path: tuple[float, ...]
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    for index, rate in enumerate(self.drop_path):
      block = Block(
        kernel=self.kernel,
        stride=1 if index else self.stride,
        expansion=self.expansion,
        channels=self.channels,
        drop_path=rate,
        dtype=self.dtype,
        name=f'block{index}',
      )
      x = block(x, train)
    return x


class Block(nn.Module):
  """Inverted bottleneck: 1×1 to more channels, depthwise k×k, 1×1 back.

  Where the shape stays there is a shortcut.
  """

  kernel: tuple[int, ...]
  stride: int
  expansion: int
  channels: int
  drop_path: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    point = (1,) * len(self.kernel)
    y = x
    if self.expansion != 1:
      y = _conv(y, self.expansion * x.shape[-1], point, 1, self.dtype, 'expand')
      y = relu6(_norm(y, train, self.dtype, 'norm1'))
    depthwise = Depthwise(
      self.kernel, self.stride, dtype=self.dtype, padding='SAME', name='depthwise'
    )
    y = depthwise(y)
    y = relu6(_norm(y, train, self.dtype, 'norm2'))
    y = _conv(y, self.channels, point, 1, self.dtype, 'project')
    y = _norm(y, train, self.dtype, 'norm3')
    if x.shape != y.shape:
      return y
    drop_path = nn.Dropout(self.drop_path, broadcast_dims=range(1, y.ndim))
    return x + drop_path(y, deterministic=not train)


def _conv(
  x: Any, channels: int, kernel: tuple[int, ...], stride: int, dtype: Any, name: str
) -> Any:
  """Return x convolved by a child `name` of the module that calls, padded as TensorFlow does."""
  conv = Conv(channels, kernel, stride, dtype=dtype, padding='SAME', name=name)
  return conv(x)


def _norm(x: Any, train: bool, dtype: Any, name: str) -> Any:
  """Return x normalised by a child `name` of the module that calls."""
  norm = nn.BatchNorm(momentum=0.99, epsilon=1e-3, dtype=dtype, name=name)
  return norm(x, use_running_average=not train)


def _scaled(channels: int, width: float) -> int:
  """Return channels × width as the nearest multiple of 8 that takes away no more than a tenth."""
  wanted = channels * width
  rounded = max(8, int(wanted + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * wanted else rounded


def _factory(docstring: str, width: float, depth: float) -> Callable[..., EfficientNet]:
  """Return a factory of EfficientNets with these defaults."""

  def factory(
    ndim: int = 2,
    width: float = width,
    depth: float = depth,
    drop_path: float = 0.0,
    dtype: Any = jnp.float32,
  ) -> EfficientNet:
    if not 1 <= ndim <= 3:
      raise MedtlError(f'ndim={ndim}; an EfficientNet has 1, 2 or 3 spatial axes')
    return EfficientNet(width, depth, ndim=ndim, drop_path=drop_path, dtype=dtype)

  factory.__doc__ = docstring
  return factory


efficientnet_lite0 = _factory('EfficientNet-Lite0, for pictures of 224 pixels.', 1.0, 1.0)
efficientnet_lite1 = _factory('EfficientNet-Lite1, for pictures of 240 pixels.', 1.0, 1.1)
efficientnet_lite2 = _factory('EfficientNet-Lite2, for pictures of 260 pixels.', 1.1, 1.2)
efficientnet_lite3 = _factory('EfficientNet-Lite3, for pictures of 280 pixels.', 1.2, 1.4)
efficientnet_lite4 = _factory('EfficientNet-Lite4, for pictures of 300 pixels.', 1.4, 1.8)
