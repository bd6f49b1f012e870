"""ResNets in one, two and three dimensions: v1, v1.5, and BiT's.

BiT's have the pre-activation form, group norm and standardised kernels.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medtl.core import expressions
from medtl.core.types import MedtlError
from medtl.models import Backbone, child_name
from medtl.models.layers.activation import joined, relu
from medtl.models.layers.spatial import Conv, max_pool, norm
from medtl.models.pretrained.resnet import RENAMES, WEIGHTS  # noqa: F401


@dataclasses.dataclass(frozen=True)
class Style:
  """What all blocks of a ResNet have in common."""

  ndim: int = 2
  version: str = 'v1.5'  # where a bottleneck strides: 'v1' on its first 1×1, 'v1.5' on its 3×3
  bias: bool = False  # of the convolutions (Keras)
  norm: str = 'batch'  # 'batch' | 'group'
  epsilon: float = 1e-5  # of the norms
  dtype: Any = jnp.float32
  standardised: bool = False  # kernels (BiT)

  def conv(self, x: Any, features: int, kernel: int, stride: int, name: str) -> Any:
    """Return x convolved by a child `name` of the module that calls."""
    conv = Conv(
      features=features,
      kernel=(kernel,) * self.ndim,
      stride=stride,
      bias=self.bias,
      standardised=self.standardised,
      dtype=self.dtype,
      name=name,
    )
    return conv(x)

  def normed(self, x: Any, train: bool, name: str) -> Any:
    """Return x normalised by a child `name` of the module that calls."""
    return norm(x, train, name, self.norm, self.epsilon, self.dtype)


class ResNet(Backbone):
  """Pictures [b, *s, c] → maps [b, *s / 32, channels]; a stage is a resolution group."""

  block: Callable[..., Any]  # Basic | Bottleneck | PreActivation
  depths: tuple[int, ...] = (3, 4, 6, 3)
  width: int = 64
  style: Style = Style()

  @property
  def stages(self) -> int:
    return len(self.depths)

  @property
  def channels(self) -> int:
    return self.width * 2 ** (self.stages - 1) * self.block.expansion  # type: ignore[attr-defined]

  def child(self, index: int, value: Any, train: bool) -> Any:
    pre_activation = self.block is PreActivation
    if index == 0:
      stem = Stem(self.width, not pre_activation, self.style, name='stem')
      return stem(value, train)
    stage = Stage(
      block=self.block,
      depth=self.depths[index - 1],
      features=self.width * 2 ** (index - 1),
      stride=1 if index == 1 else 2,
      style=self.style,
      name=child_name(index),
    )
    value = stage(value, train)
    if pre_activation and index == self.stages:
      value = relu(self.style.normed(value, train, 'norm'))
    return value


class Stem(nn.Module):
  """7×7 convolution at stride 2 and 3×3 max-pooling at stride 2.

  Norm and ReLU come before the pooling where `normed` says so: where the blocks do not begin with
  them.
  """

  width: int
  normed: bool
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    x = self.style.conv(x, self.width, 7, 2, 'conv')
    if not self.normed:
      # BiT pads with zeros, which matters where no ReLU has cut off the negative numbers
      return max_pool(x, fill=0.0)
    x = relu(self.style.normed(x, train, 'norm'))
    return max_pool(x)


class Stage(nn.Module):
  """Blocks of one resolution; the first changes resolution and channels."""

  block: Callable[..., Any]
  depth: int
  features: int
  stride: int
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    for index in range(self.depth):
      stride = 1 if index else self.stride
      block = self.block(self.features, stride, self.style, name=f'block{index}')
      x = block(x, train)
    return x


class Basic(nn.Module):
  """Two 3×3 convolutions beside a shortcut (He et al. 2016, arXiv 1512.03385)."""

  features: int
  stride: int
  style: Style
  expansion = 1

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    y = self.style.conv(x, self.features, 3, self.stride, 'conv1')
    y = relu(self.style.normed(y, train, 'norm1'))
    y = self.style.conv(y, self.features, 3, 1, 'conv2')
    y = self.style.normed(y, train, 'norm2')
    return joined(y, _shortcut(x, y, self.stride, train, self.style))


class Bottleneck(nn.Module):
  """1×1, 3×3, 1×1 to four times the channels, beside a shortcut."""

  features: int
  stride: int
  style: Style
  expansion = 4

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    strides = (self.stride, 1) if self.style.version == 'v1' else (1, self.stride)
    y = self.style.conv(x, self.features, 1, strides[0], 'conv1')
    y = relu(self.style.normed(y, train, 'norm1'))
    y = self.style.conv(y, self.features, 3, strides[1], 'conv2')
    y = relu(self.style.normed(y, train, 'norm2'))
    y = self.style.conv(y, self.expansion * self.features, 1, 1, 'conv3')
    y = self.style.normed(y, train, 'norm3')
    return joined(y, _shortcut(x, y, self.stride, train, self.style))


class PreActivation(nn.Module):
  """A bottleneck whose norms and ReLUs come before the convolutions, strided as v1.5.

  He et al. 2016, arXiv 1603.05027.
  """

  features: int
  stride: int
  style: Style
  expansion = 4

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    outputs = self.expansion * self.features
    y = relu(self.style.normed(x, train, 'norm1'))
    if self.stride != 1 or x.shape[-1] != outputs:
      x = self.style.conv(y, outputs, 1, self.stride, 'shortcut_conv')
    y = self.style.conv(y, self.features, 1, 1, 'conv1')
    y = relu(self.style.normed(y, train, 'norm2'))
    y = self.style.conv(y, self.features, 3, self.stride, 'conv2')
    y = relu(self.style.normed(y, train, 'norm3'))
    y = self.style.conv(y, outputs, 1, 1, 'conv3')
    return x + y


def _shortcut(x: Any, y: Any, stride: int, train: bool, style: Style) -> Any:
  """Return x, projected by a 1×1 convolution and a norm where y has another shape.

  Both are children of the block that calls.
  """
  if stride == 1 and x.shape == y.shape:
    return x
  x = style.conv(x, y.shape[-1], 1, stride, 'shortcut_conv')
  return style.normed(x, train, 'shortcut_norm')


def resnet18(
  ndim: int = 2,
  width: int = 64,
  norm: str = 'batch',
  epsilon: float = 1e-5,
  dtype: Any = jnp.float32,
) -> ResNet:
  """Return ResNet-18: two basic blocks a stage."""
  return _resnet(Basic, (2, 2, 2, 2), width, Style(ndim, norm=norm, epsilon=epsilon, dtype=dtype))


def resnet34(
  ndim: int = 2,
  width: int = 64,
  norm: str = 'batch',
  epsilon: float = 1e-5,
  dtype: Any = jnp.float32,
) -> ResNet:
  """Return ResNet-34: basic blocks."""
  return _resnet(Basic, (3, 4, 6, 3), width, Style(ndim, norm=norm, epsilon=epsilon, dtype=dtype))


def resnet50(
  ndim: int = 2,
  version: str = 'v1.5',
  bias: bool = False,
  norm: str = 'batch',
  width: int = 64,
  epsilon: float = 1e-5,
  dtype: Any = jnp.float32,
) -> ResNet:
  """Return ResNet-50, torchvision's by default.

  Keras' are version='v1', bias=True and epsilon=1.001e-5 (1e-3 for the names res2a_…).
  """
  return _resnet(Bottleneck, (3, 4, 6, 3), width, Style(ndim, version, bias, norm, epsilon, dtype))


def resnet101(
  ndim: int = 2,
  version: str = 'v1.5',
  bias: bool = False,
  norm: str = 'batch',
  width: int = 64,
  epsilon: float = 1e-5,
  dtype: Any = jnp.float32,
) -> ResNet:
  """Return ResNet-101; see resnet50."""
  return _resnet(Bottleneck, (3, 4, 23, 3), width, Style(ndim, version, bias, norm, epsilon, dtype))


def resnet152(
  ndim: int = 2,
  version: str = 'v1.5',
  bias: bool = False,
  norm: str = 'batch',
  width: int = 64,
  epsilon: float = 1e-5,
  dtype: Any = jnp.float32,
) -> ResNet:
  """Return ResNet-152; see resnet50."""
  return _resnet(Bottleneck, (3, 8, 36, 3), width, Style(ndim, version, bias, norm, epsilon, dtype))


def bit50(ndim: int = 2, width: int = 64, dtype: Any = jnp.float32) -> ResNet:
  """Return BiT's R50 (Kolesnikov et al. 2020, arXiv 1912.11370); x3 is width=192."""
  return _bit((3, 4, 6, 3), ndim, width, dtype)


def bit101(ndim: int = 2, width: int = 64, dtype: Any = jnp.float32) -> ResNet:
  """Return BiT's R101; x3 is width=192."""
  return _bit((3, 4, 23, 3), ndim, width, dtype)


def bit152(ndim: int = 2, width: int = 64, dtype: Any = jnp.float32) -> ResNet:
  """Return BiT's R152; x2 is width=128, x4 width=256."""
  return _bit((3, 8, 36, 3), ndim, width, dtype)


def _bit(depths: tuple[int, ...], ndim: int, width: int, dtype: Any) -> ResNet:
  style = Style(ndim, norm='group', dtype=dtype, standardised=True)
  return _resnet(PreActivation, depths, width, style)


def _resnet(block: Callable[..., Any], depths: tuple[int, ...], width: int, style: Style) -> ResNet:
  """Return a ResNet; a MedtlError names a version, a norm or a number of axes that there is not."""
  _check_kind(style.version, ('v1', 'v1.5'))
  _check_kind(style.norm, ('batch', 'group'))
  if style.ndim not in (1, 2, 3):
    raise MedtlError(f'ndim={style.ndim}; a ResNet has 1, 2 or 3 spatial axes')
  return ResNet(block, depths, width, style)


def _check_kind(kind: str, known: Sequence[str]) -> None:
  if kind not in known:
    hint = expressions.did_you_mean(kind, known)
    raise MedtlError(f'unknown kind of ResNet {kind!r}; {hint}')
