"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) and V3 (Howard et al. 2019, 1905.02244)."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from medtl.models import Backbone, child_name
from medtl.models.layers.inverted_residual import (
  ACTIVATIONS,
  InvertedResidual,
  Squeeze,
  Unit,
  rounded,
)
from medtl.models.layers.precision import at_least_float32
from medtl.models.layers.style import Style
from medtl.models.pretrained.mobilenet import RENAMES, WEIGHTS  # noqa: F401


class Row(NamedTuple):
  """An inverted residual block of the papers' tables."""

  kernel: int
  expansion: float  # channels of the depthwise convolution for each channel of the input
  channels: int
  activation: str
  stride: int = 1
  squeezed: bool = False  # by squeeze-and-excitation, to a quarter of the channels


Rows = tuple[tuple[Row, ...], ...]  # of each stage


def _v2_stage(expansion: int, channels: int, repeats: int, stride: int) -> tuple[Row, ...]:
  """Return a row (t, c, n, s) of table 2 of arXiv 1801.04381."""
  first = Row(3, expansion, channels, 'relu6', stride)
  return (first, *[first._replace(stride=1)] * (repeats - 1))


V2: Rows = (
  _v2_stage(1, 16, 1, 1),
  _v2_stage(6, 24, 2, 2),
  _v2_stage(6, 32, 3, 2),
  _v2_stage(6, 64, 4, 2),
  _v2_stage(6, 96, 3, 1),
  _v2_stage(6, 160, 3, 2),
  _v2_stage(6, 320, 1, 1),
)
# A stage of V3 is the blocks of one number of channels, tables 1 and 2 of arXiv 1905.02244
V3_LARGE: Rows = (
  (Row(3, 1, 16, 'relu'),),
  (
    Row(3, 64 / 16, 24, 'relu', stride=2),
    Row(3, 72 / 24, 24, 'relu'),
  ),
  (
    Row(5, 72 / 24, 40, 'relu', stride=2, squeezed=True),
    Row(5, 120 / 40, 40, 'relu', squeezed=True),
    Row(5, 120 / 40, 40, 'relu', squeezed=True),
  ),
  (
    Row(3, 240 / 40, 80, 'hard_swish', stride=2),
    Row(3, 200 / 80, 80, 'hard_swish'),
    Row(3, 184 / 80, 80, 'hard_swish'),
    Row(3, 184 / 80, 80, 'hard_swish'),
  ),
  (
    Row(3, 480 / 80, 112, 'hard_swish', squeezed=True),
    Row(3, 672 / 112, 112, 'hard_swish', squeezed=True),
  ),
  (
    Row(5, 672 / 112, 160, 'hard_swish', stride=2, squeezed=True),
    Row(5, 960 / 160, 160, 'hard_swish', squeezed=True),
    Row(5, 960 / 160, 160, 'hard_swish', squeezed=True),
  ),
)
V3_SMALL: Rows = (
  (Row(3, 1, 16, 'relu', stride=2, squeezed=True),),
  (
    Row(3, 72 / 16, 24, 'relu', stride=2),
    Row(3, 88 / 24, 24, 'relu'),
  ),
  (
    Row(5, 96 / 24, 40, 'hard_swish', stride=2, squeezed=True),
    Row(5, 240 / 40, 40, 'hard_swish', squeezed=True),
    Row(5, 240 / 40, 40, 'hard_swish', squeezed=True),
  ),
  (
    Row(5, 120 / 40, 48, 'hard_swish', squeezed=True),
    Row(5, 144 / 48, 48, 'hard_swish', squeezed=True),
  ),
  (
    Row(5, 288 / 48, 96, 'hard_swish', stride=2, squeezed=True),
    Row(5, 576 / 96, 96, 'hard_swish', squeezed=True),
    Row(5, 576 / 96, 96, 'hard_swish', squeezed=True),
  ),
)


class MobileNet(Backbone):
  """Pictures [b, *s, c] → maps [b, *s / 32, top], or [b, 1 …, dense] where there is a dense layer.

  The stages are those of `rows`, the last 1×1 convolution, and V3's dense layer on means over the
  maps. V3's dropout behind that is the head's.
  """

  rows: Rows
  stem: int
  activation: str  # of the stem, the top and the dense layer
  top: int
  style: Style = Style()
  width: float = 1.0  # factor of the rows' channels, rounded to multiples of 8
  dense: int = 0  # channels of V3's dense layer; 0: there is none

  @property
  def stages(self) -> int:
    return len(self.rows) + (2 if self.dense else 1)

  @property
  def channels(self) -> int:
    return self.dense or self.top

  def child(self, index: int, value: Any, train: bool) -> Any:
    name = child_name(index)
    if index == 0:
      return Unit(self.stem, 3, 2, self.activation, self.style, name=name)(value, train)
    if index <= len(self.rows):
      rows = self.rows[index - 1]
      return Stage(rows, self.width, self.style, name=name)(value, train)
    if index == len(self.rows) + 1:
      return Unit(self.top, 1, 1, self.activation, self.style, name=name)(value, train)
    return DenseOnMeans(self.dense, self.activation, self.style.dtype, name=name)(value)


class Stage(nn.Module):
  """A block for each row; the first changes resolution and channels."""

  rows: tuple[Row, ...]
  width: float
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    for index, row in enumerate(self.rows):
      hidden = rounded(row.expansion * x.shape[-1])
      block = InvertedResidual(
        hidden=hidden,
        channels=rounded(row.channels * self.width),
        kernel=row.kernel,
        stride=row.stride,
        activation=row.activation,
        style=self.style,
        squeeze=Squeeze(rounded(hidden / 4), 'relu', 'hard_sigmoid') if row.squeezed else None,
        name=f'block{index}',
      )
      x = block(x, train)
    return x


class DenseOnMeans(nn.Module):
  """The means of maps [b, *s, c] over all places through a dense layer: [b, 1 …, d].

  The section 'Redesigning expensive layers' of arXiv 1905.02244, 5.1.
  """

  channels: int
  activation: str
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    axes = tuple(range(1, x.ndim - 1))
    means = at_least_float32(x).mean(axes, keepdims=True)
    y = nn.Dense(self.channels, dtype=self.dtype, name='dense')(means)
    return ACTIVATIONS[self.activation](y)


def mobilenet_v2(
  ndim: int = 2,
  width: float = 1.0,
  padding: str | None = None,
  epsilon: float = 1e-5,
  momentum: float = 0.9,
  acs: bool = False,
  dtype: Any = jnp.float32,
) -> MobileNet:
  """Return a MobileNetV2, torchvision's by default.

  Keras' are padding='SAME', epsilon=1e-3. A step keeps `momentum` of the norms' statistics.
  """
  style = Style(ndim, acs, epsilon=epsilon, momentum=momentum, padding=padding, dtype=dtype)
  stem = rounded(32 * width)
  top = rounded(1280 * max(1.0, width))
  return MobileNet(V2, stem, 'relu6', top, style, width)


def mobilenet_v3_small(
  ndim: int = 2,
  width: float = 1.0,
  minimalistic: bool = False,
  dense: bool = True,
  padding: str | None = None,
  epsilon: float = 1e-3,
  momentum: float = 0.99,
  acs: bool = False,
  dtype: Any = jnp.float32,
) -> MobileNet:
  """Return a MobileNetV3-Small, torchvision's by default; Keras' are padding='SAME'.

  `minimalistic` leaves out squeeze-and-excitation, hard swish and 5×5 kernels; dense=False the
  dense layer before the classifier, which Keras' files without top do not have.
  """
  style = Style(ndim, acs, epsilon=epsilon, momentum=momentum, padding=padding, dtype=dtype)
  return _v3(V3_SMALL, 1024 if dense else 0, style, width, minimalistic)


def mobilenet_v3_large(
  ndim: int = 2,
  width: float = 1.0,
  minimalistic: bool = False,
  dense: bool = True,
  padding: str | None = None,
  epsilon: float = 1e-3,
  momentum: float = 0.99,
  acs: bool = False,
  dtype: Any = jnp.float32,
) -> MobileNet:
  """Return a MobileNetV3-Large; see mobilenet_v3_small."""
  style = Style(ndim, acs, epsilon=epsilon, momentum=momentum, padding=padding, dtype=dtype)
  return _v3(V3_LARGE, 1280 if dense else 0, style, width, minimalistic)


def _v3(rows: Rows, dense: int, style: Style, width: float, minimalistic: bool) -> MobileNet:
  """Return a MobileNetV3; the stem has 16 channels at any width, as in Keras and timm."""
  activation = 'hard_swish'
  if minimalistic:
    activation = 'relu'
    rows = tuple(tuple(map(_minimalistic, stage)) for stage in rows)
  top = rounded(6 * rounded(rows[-1][-1].channels * width))
  dense = rounded(dense * max(1.0, width)) if dense else 0
  return MobileNet(rows, 16, activation, top, style, width, dense)


def _minimalistic(row: Row) -> Row:
  return row._replace(kernel=3, activation='relu', squeezed=False)
