"""EfficientNet B0 … B4 and EfficientNet-Lite 0 … 4 (Tan & Le 2019, arXiv 1905.11946).

Lite has no squeeze-and-excitation, ReLU6, and neither stem nor top are scaled.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from medtl.models import Backbone, child_name
from medtl.models.layers.inverted_residual import InvertedResidual, Squeeze, Unit, rounded
from medtl.models.layers.style import Style
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


class Form(NamedTuple):
  """What an EfficientNet may differ in from another beside its size."""

  activation: str = 'relu6'
  squeezed: bool = False  # by squeeze-and-excitation, to a quarter of a block's input channels
  ends_repeated: bool = False  # the factor of repeats holds for the first and the last stage too
  acs: bool = False
  padding: str | None = 'SAME'
  epsilon: float = 1e-3
  momentum: float = 0.99


class EfficientNet(Backbone):
  """Pictures [b, *s, c] → maps [b, *s / 32, top].

  The last stage, stage8, is the last 1×1 convolution, so that depth 9 leaves the head alone.
  """

  width: float = 1.0  # factor of channels, rounded to multiples of 8
  depth: float = 1.0  # factor of repeats, rounded up
  stem: int = 32
  top: int = 1280
  ndim: int = 2
  # stochastic depth of the last block; it grows linearly from 0 at the first (published: 0.2)
  drop_path: float = 0.0
  dtype: Any = jnp.float32
  form: Form = Form()

  @property
  def stages(self) -> int:
    return len(STAGES) + 1

  @property
  def channels(self) -> int:
    return self.top

  @property
  def style(self) -> Style:
    """Return what all layers have in common."""
    form = self.form
    return Style(
      ndim=self.ndim,
      acs=form.acs,
      epsilon=form.epsilon,
      momentum=form.momentum,
      padding=form.padding,
      dtype=self.dtype,
    )

  def repeats(self, index: int) -> int:
    """Return how many blocks stage `index` has, 1 … 7."""
    repeats = STAGES[index - 1].repeats
    if index in (1, len(STAGES)) and not self.form.ends_repeated:
      return repeats
    return math.ceil(repeats * self.depth)

  def drop_path_rates(self, index: int) -> tuple[float, ...]:
    """Return the rate of stochastic depth of each block of stage `index`, 1 … 7."""
    repeats = [self.repeats(stage) for stage in range(1, self.stages)]
    first = sum(repeats[: index - 1])
    blocks = range(first, first + repeats[index - 1])
    return tuple(self.drop_path * block / sum(repeats) for block in blocks)

  def child(self, index: int, value: Any, train: bool) -> Any:
    name = child_name(index)
    if index == 0:
      stem = Unit(self.stem, 3, 2, self.form.activation, self.style, name=name)
      return stem(value, train)
    if index == self.stages:
      top = Unit(self.top, 1, 1, self.form.activation, self.style, name=name)
      return top(value, train)
    row = STAGES[index - 1]
    stage = Stage(
      row=row._replace(channels=rounded(row.channels * self.width)),
      drop_path=self.drop_path_rates(index),
      form=self.form,
      style=self.style,
      name=name,
    )
    return stage(value, train)


class Stage(nn.Module):
  """A block for each entry of `drop_path`; the first changes resolution and channels."""

  row: Row
  drop_path: tuple[float, ...]
  form: Form
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    activation = self.form.activation
    for index, rate in enumerate(self.drop_path):
      inputs = x.shape[-1]
      squeeze = Squeeze(max(1, inputs // 4), activation, 'sigmoid')
      block = InvertedResidual(
        hidden=self.row.expansion * inputs,
        channels=self.row.channels,
        kernel=self.row.kernel,
        stride=1 if index else self.row.stride,
        activation=activation,
        style=self.style,
        squeeze=squeeze if self.form.squeezed else None,
        drop_path=rate,
        name=f'block{index}',
      )
      x = block(x, train)
    return x


def _lite(docstring: str, width: float, depth: float) -> Callable[..., EfficientNet]:
  """Return a factory of EfficientNet-Lites with these defaults."""

  def factory(
    ndim: int = 2,
    width: float = width,
    depth: float = depth,
    drop_path: float = 0.0,
    acs: bool = False,
    dtype: Any = jnp.float32,
  ) -> EfficientNet:
    form = Form(acs=acs)
    return EfficientNet(
      width=width, depth=depth, ndim=ndim, drop_path=drop_path, dtype=dtype, form=form
    )

  factory.__doc__ = docstring
  return factory


def _scaled(docstring: str, width: float, depth: float) -> Callable[..., EfficientNet]:
  """Return a factory of EfficientNets with these defaults."""

  def factory(
    ndim: int = 2,
    width: float = width,
    depth: float = depth,
    drop_path: float = 0.0,
    padding: str | None = None,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    acs: bool = False,
    dtype: Any = jnp.float32,
  ) -> EfficientNet:
    form = Form('silu', True, True, acs, padding, epsilon, momentum)
    stem = rounded(32 * width)
    top = rounded(1280 * width)
    return EfficientNet(width, depth, stem, top, ndim, drop_path, dtype, form)

  factory.__doc__ = docstring
  return factory


_PADDING = "torchvision's by default; Google's own, and so Keras', are padding='SAME', epsilon=1e-3"
efficientnet_b0 = _scaled(f'EfficientNet-B0, for pictures of 224 pixels. {_PADDING}', 1.0, 1.0)
efficientnet_b1 = _scaled(
  'EfficientNet-B1, for pictures of 240 pixels; see efficientnet_b0.', 1.0, 1.1
)
efficientnet_b2 = _scaled(
  'EfficientNet-B2, for pictures of 260 pixels; see efficientnet_b0.', 1.1, 1.2
)
efficientnet_b3 = _scaled(
  'EfficientNet-B3, for pictures of 300 pixels; see efficientnet_b0.', 1.2, 1.4
)
efficientnet_b4 = _scaled(
  'EfficientNet-B4, for pictures of 380 pixels; see efficientnet_b0.', 1.4, 1.8
)

efficientnet_lite0 = _lite('EfficientNet-Lite0, for pictures of 224 pixels.', 1.0, 1.0)
efficientnet_lite1 = _lite('EfficientNet-Lite1, for pictures of 240 pixels.', 1.0, 1.1)
efficientnet_lite2 = _lite('EfficientNet-Lite2, for pictures of 260 pixels.', 1.1, 1.2)
efficientnet_lite3 = _lite('EfficientNet-Lite3, for pictures of 280 pixels.', 1.2, 1.4)
efficientnet_lite4 = _lite('EfficientNet-Lite4, for pictures of 300 pixels.', 1.4, 1.8)
