"""VGG with 11, 13, 16 and 19 layers, in one, two and three dimensions.

Simonyan & Zisserman 2015, arXiv 1409.1556, table 1: columns A, B, D and E. Batch norm is as
torchvision has it.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medtl.models import Backbone, child_name
from medtl.models.layers.activation import relu
from medtl.models.layers.dense_maps import DenseMaps
from medtl.models.layers.spatial import max_pool
from medtl.models.layers.style import Style
from medtl.models.pretrained.vgg import ADAPT, RENAMES, WEIGHTS  # noqa: F401

WIDTHS = (1, 2, 4, 8, 8)  # channels of the blocks, by those of the first
SIDE = 7  # of the maps that the first dense layer sees


class VGG(Backbone):
  """Pictures [b, *s, c] of 32 pixels a side or more → [b, *1, dense].

  The stem and stages 1 … 4 are the blocks of convolutions, each with the pooling at its end; stages
  5 and 6 are the dense layers fc6 and fc7.
  """

  depths: tuple[int, ...] = (2, 2, 3, 3, 3)  # convolutions of each block
  normed: bool = False  # batch norm after each convolution
  width: int = 64
  dense: int = 4096
  dropout: float = 0.5
  style: Style = Style(bias=True)

  @property
  def stages(self) -> int:
    return len(self.depths) + 1

  @property
  def channels(self) -> int:
    return self.dense

  def child(self, index: int, value: Any, train: bool) -> Any:
    name = child_name(index)
    if index < len(self.depths):
      features = WIDTHS[index] * self.width
      block = Block(self.depths[index], features, self.normed, self.style, name=name)
      return block(value, train)
    if index == len(self.depths):
      first = DenseMaps(self.dense, SIDE, 0.0, self.style, name=name)
      return first(value, train)
    second = DenseMaps(self.dense, 1, self.dropout, self.style, name=name)
    return second(value, train)


class Block(nn.Module):
  """3×3 convolutions, each with ReLU, and max-pooling over two points at stride 2."""

  depth: int
  features: int
  normed: bool
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    for index in range(self.depth):
      x = self.style.conv(x, self.features, 3, 1, f'conv{index}')
      if self.normed:
        x = self.style.normed(x, train, f'norm{index}')
      x = relu(x)
    return max_pool(x, 2, 2, padding='VALID')


def _preset(docstring: str, depths: tuple[int, ...], normed: bool = False) -> Callable[..., VGG]:
  """Return a factory of VGGs of these blocks."""

  def factory(
    ndim: int = 2,
    width: int = 64,
    dense: int = 4096,
    dropout: float = 0.5,
    acs: bool = False,
    dtype: Any = jnp.float32,
  ) -> VGG:
    style = Style(ndim, acs, bias=True, dtype=dtype)
    return VGG(depths, normed, width, dense, dropout, style)

  factory.__doc__ = docstring
  return factory


_KEYS = """`dropout` is in front of fc7; the one in front of the last layer is the head's.

  config.truncate=5 leaves out the dense layers. With acs=True they are those of volumes: a
  checkpoint of pictures fits the convolutions alone."""
vgg11 = _preset(f'VGG-11 (column A). {_KEYS}', (1, 1, 2, 2, 2))
vgg13 = _preset('VGG-13 (column B); see vgg11.', (2, 2, 2, 2, 2))
vgg16 = _preset('VGG-16 (column D); see vgg11.', (2, 2, 3, 3, 3))
vgg19 = _preset('VGG-19 (column E); see vgg11.', (2, 2, 4, 4, 4))
vgg11_bn = _preset('VGG-11 with batch norm; see vgg11.', (1, 1, 2, 2, 2), True)
vgg13_bn = _preset('VGG-13 with batch norm; see vgg11.', (2, 2, 2, 2, 2), True)
vgg16_bn = _preset('VGG-16 with batch norm; see vgg11.', (2, 2, 3, 3, 3), True)
vgg19_bn = _preset('VGG-19 with batch norm; see vgg11.', (2, 2, 4, 4, 4), True)
