"""DenseNet-BC in one, two and three dimensions (Huang et al. 2017, arXiv 1608.06993)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medtl.models import Backbone, child_name
from medtl.models.layers.activation import relu
from medtl.models.layers.spatial import max_pool, mean_pool
from medtl.models.layers.style import Style
from medtl.models.pretrained.densenet import RENAMES, WEIGHTS  # noqa: F401

BOTTLENECK = 4  # channels of a layer's 1×1 convolution, as a multiple of the growth (section 3)


class DenseNet(Backbone):
  """Pictures [b, *s, c] → maps [b, *s / 32, channels]; a stage is a dense block.

  From the second stage on, the transition that halves resolution and channels comes first.
  """

  depths: tuple[int, ...] = (6, 12, 24, 16)
  growth: int = 32  # channels that each layer adds
  width: int = 64  # channels of the stem
  dropout: float = 0.0  # of what each layer adds
  style: Style = Style()

  @property
  def stages(self) -> int:
    return len(self.depths)

  @property
  def channels(self) -> int:
    channels = self.width
    for index, depth in enumerate(self.depths):
      if index:
        channels //= 2
      channels += depth * self.growth
    return channels

  def child(self, index: int, value: Any, train: bool) -> Any:
    if index == 0:
      return Stem(self.width, self.style, name='stem')(value, train)
    stage = Stage(
      depth=self.depths[index - 1],
      growth=self.growth,
      transition=index > 1,
      dropout=self.dropout,
      style=self.style,
      name=child_name(index),
    )
    value = stage(value, train)
    if index == self.stages:
      value = relu(self.style.normed(value, train, 'norm'))
    return value


class Stem(nn.Module):
  """7×7 convolution at stride 2, norm, ReLU and 3×3 max-pooling at stride 2."""

  width: int
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    x = self.style.conv(x, self.width, 7, 2, 'conv')
    x = relu(self.style.normed(x, train, 'norm'))
    return max_pool(x)


class Stage(nn.Module):
  """A transition, where there is one, and a dense block: each layer sees what all before it made.

  Layers are counted from 1, as publishers do.
  """

  depth: int
  growth: int
  transition: bool
  dropout: float
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    if self.transition:
      x = Transition(self.style, name='transition')(x, train)
    for number in range(1, self.depth + 1):
      layer = Layer(self.growth, self.dropout, self.style, name=f'layer{number}')
      x = jnp.concatenate([x, layer(x, train)], axis=-1)
    return x


class Transition(nn.Module):
  """Norm, ReLU, 1×1 convolution to half of the channels, and 2×2 average pooling (section 3)."""

  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    y = relu(self.style.normed(x, train, 'norm'))
    y = self.style.conv(y, x.shape[-1] // 2, 1, 1, 'conv')
    return mean_pool(y, window=2, stride=2, padding='VALID')


class Layer(nn.Module):
  """Maps [b, *s, c] → the maps [b, *s, growth] that are added to them.

  Norm, ReLU and 1×1 convolution, then norm, ReLU and 3×3 convolution (section 3, DenseNet-B).
  """

  growth: int
  dropout: float
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    y = relu(self.style.normed(x, train, 'norm1'))
    y = self.style.conv(y, BOTTLENECK * self.growth, 1, 1, 'conv1')
    y = relu(self.style.normed(y, train, 'norm2'))
    y = self.style.conv(y, self.growth, 3, 1, 'conv2')
    return nn.Dropout(self.dropout)(y, deterministic=not train)


def _factory(
  docstring: str, depths: tuple[int, ...], growth: int = 32, width: int = 64
) -> Callable[..., DenseNet]:
  """Return a factory of DenseNets with these defaults."""

  def factory(
    ndim: int = 2,
    depths: tuple[int, ...] = depths,
    growth: int = growth,
    width: int = width,
    dropout: float = 0.0,
    norm: str = 'batch',
    epsilon: float = 1e-5,
    acs: bool = False,
    dtype: Any = jnp.float32,
  ) -> DenseNet:
    style = Style(ndim, acs, norm=norm, epsilon=epsilon, dtype=dtype)
    return DenseNet(depths, growth, width, dropout, style)

  factory.__doc__ = docstring
  return factory


densenet121 = _factory("DenseNet-121; Keras' has epsilon=1.001e-5.", (6, 12, 24, 16))
densenet161 = _factory('DenseNet-161: 48 channels a layer.', (6, 12, 36, 24), 48, 96)
densenet169 = _factory('DenseNet-169; see densenet121.', (6, 12, 32, 32))
densenet201 = _factory('DenseNet-201; see densenet121.', (6, 12, 48, 32))
