"""ResNets in one, two and three dimensions: v1, v1.5, and BiT's pre-activation form with group norm and weight standardisation."""

import dataclasses
from collections.abc import Callable
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
    return Conv(
      features, (kernel,) * self.ndim, stride, self.bias, self.standardised, self.dtype, name=name
    )(x)

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
    if index == 0:
      return Stem(self.width, self.block is not PreActivation, self.style, name='stem')(
        value, train
      )
    value = Stage(
      self.block,
      self.depths[index - 1],
      self.width * 2 ** (index - 1),
      1 if index == 1 else 2,
      self.style,
      name=child_name(index),
    )(value, train)
    if self.block is PreActivation and index == self.stages:
      return relu(self.style.normed(value, train, 'norm'))
    return value


class Stem(nn.Module):
  """7×7 convolution at stride 2 and 3×3 max-pooling at stride 2; before the pooling norm and ReLU, if the blocks do not begin with them."""

  width: int
  normed: bool
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    x = self.style.conv(x, self.width, 7, 2, 'conv')
    if not self.normed:
      return max_pool(
        x, fill=0.0
      )  # BiT pads with zeros, which matters where nothing has cut off the negative numbers
    return max_pool(relu(self.style.normed(x, train, 'norm')))


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
      x = self.block(self.features, 1 if index else self.stride, self.style, name=f'block{index}')(
        x, train
      )
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
    return joined(y, shortcut(x, y, self.stride, train, self.style))


class Bottleneck(nn.Module):
  """1×1, 3×3, 1×1 to four times the channels, beside a shortcut."""

  features: int
  stride: int
  style: Style
  expansion = 4

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    first, second = (self.stride, 1) if self.style.version == 'v1' else (1, self.stride)
    y = self.style.conv(x, self.features, 1, first, 'conv1')
    y = relu(self.style.normed(y, train, 'norm1'))
    y = self.style.conv(y, self.features, 3, second, 'conv2')
    y = relu(self.style.normed(y, train, 'norm2'))
    y = self.style.conv(y, 4 * self.features, 1, 1, 'conv3')
    y = self.style.normed(y, train, 'norm3')
    return joined(y, shortcut(x, y, self.stride, train, self.style))


class PreActivation(nn.Module):
  """A bottleneck whose norms and ReLUs come before the convolutions (He et al. 2016, arXiv 1603.05027), strided as v1.5."""

  features: int
  stride: int
  style: Style
  expansion = 4

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    y = relu(self.style.normed(x, train, 'norm1'))
    if self.stride != 1 or x.shape[-1] != 4 * self.features:
      x = self.style.conv(y, 4 * self.features, 1, self.stride, 'shortcut_conv')
    y = self.style.conv(y, self.features, 1, 1, 'conv1')
    y = self.style.conv(
      relu(self.style.normed(y, train, 'norm2')), self.features, 3, self.stride, 'conv2'
    )
    return x + self.style.conv(
      relu(self.style.normed(y, train, 'norm3')), 4 * self.features, 1, 1, 'conv3'
    )


def shortcut(x: Any, y: Any, stride: int, train: bool, style: Style) -> Any:
  """Return x, projected by a 1×1 convolution and a norm of the calling block where y has another shape."""
  if stride == 1 and x.shape == y.shape:
    return x
  return style.normed(
    style.conv(x, y.shape[-1], 1, stride, 'shortcut_conv'), train, 'shortcut_norm'
  )


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
  """Return ResNet-50: torchvision's by default; Keras' are version='v1', bias=True and epsilon=1.001e-5 (1e-3 for the names res2a_…)."""
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
  return _resnet(
    PreActivation, depths, width, Style(ndim, norm='group', dtype=dtype, standardised=True)
  )


def _resnet(block: Callable[..., Any], depths: tuple[int, ...], width: int, style: Style) -> ResNet:
  for found, known in ((style.version, ('v1', 'v1.5')), (style.norm, ('batch', 'group'))):
    if found not in known:
      raise MedtlError(
        f'unknown kind of ResNet {found!r}; {expressions.did_you_mean(found, known)}'
      )
  if style.ndim not in (1, 2, 3):
    raise MedtlError(f'ndim={style.ndim}; a ResNet has 1, 2 or 3 spatial axes')
  return ResNet(block, depths, width, style)
