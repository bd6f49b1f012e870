"""AlexNet in one, two and three dimensions, as torchvision has it.

It is the variant for one device of Krizhevsky 2014, arXiv 1404.5997, without local response
normalisation.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from medtl.models import Backbone, child_name
from medtl.models.layers.activation import relu
from medtl.models.layers.dense_maps import DenseMaps
from medtl.models.layers.spatial import max_pool
from medtl.models.layers.style import Style
from medtl.models.pretrained.alexnet import ADAPT, RENAMES, WEIGHTS  # noqa: F401


class Row(NamedTuple):
  """A convolution, and whether a pooling follows it; `widths` are its channels by the first's."""

  widths: int
  kernel: int
  stride: int
  padding: int
  pool: bool


CONVOLUTIONS = (  # the stem and stages 1 … 4
  Row(1, 11, 4, 2, True),
  Row(3, 5, 1, 2, True),
  Row(6, 3, 1, 1, False),
  Row(4, 3, 1, 1, False),
  Row(4, 3, 1, 1, True),
)
SIDE = 6  # of the maps that the first dense layer sees


class AlexNet(Backbone):
  """Pictures [b, *s, c] of 63 pixels a side or more → [b, *1, dense].

  The stem and stages 1 … 4 are a convolution each, its pooling included; stages 5 and 6 are the
  dense layers fc6 and fc7.
  """

  width: int = 64
  dense: int = 4096
  dropout: float = 0.5
  style: Style = Style(bias=True)

  @property
  def stages(self) -> int:
    return len(CONVOLUTIONS) + 1

  @property
  def channels(self) -> int:
    return self.dense

  def child(self, index: int, value: Any, train: bool) -> Any:
    name = child_name(index)
    if index < len(CONVOLUTIONS):
      convolution = Convolution(CONVOLUTIONS[index], self.width, self.style, name=name)
      return convolution(value)
    side = SIDE if index == len(CONVOLUTIONS) else 1
    dense = DenseMaps(self.dense, side, self.dropout, self.style, name=name)
    return dense(value, train)


class Convolution(nn.Module):
  """Convolution and ReLU, and where the row says so max-pooling over three points at stride 2."""

  row: Row
  width: int
  style: Style

  @nn.compact
  def __call__(self, x: Any) -> Any:
    row = self.row
    features = row.widths * self.width
    x = relu(self.style.conv(x, features, row.kernel, row.stride, 'conv', padding=row.padding))
    return max_pool(x, padding='VALID') if row.pool else x


def alexnet(
  ndim: int = 2,
  width: int = 64,
  dense: int = 4096,
  dropout: float = 0.5,
  acs: bool = False,
  dtype: Any = jnp.float32,
) -> AlexNet:
  """Return torchvision's AlexNet; `dropout` is in front of each of its two dense stages.

  config.truncate=5 leaves these out. With acs=True they are those of volumes: a checkpoint of
  pictures fits the convolutions alone.
  """
  return AlexNet(width, dense, dropout, Style(ndim, acs, bias=True, dtype=dtype))
