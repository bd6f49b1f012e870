"""ResNets in one, two and three dimensions: v1, v1.5, BiT's, MedicalNet's and Merlin's.

BiT's have the pre-activation form, group norm and standardised kernels. MedicalNet's and Merlin's
are of volumes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError
from medtl.models import Backbone, child_name
from medtl.models.layers.activation import joined, relu
from medtl.models.layers.spatial import max_pool
from medtl.models.layers.style import Style
from medtl.models.pretrained.resnet import RENAMES, WEIGHTS  # noqa: F401

VERSIONS = ('v1', 'v1.5')


class Form(NamedTuple):
  """What a ResNet may differ in from another of the same blocks."""

  version: str = 'v1.5'  # where a bottleneck strides: 'v1' on its first 1×1, 'v1.5' on its 3×3
  # where a block's shape changes, 'B' projects by a 1×1 convolution; 'A' subsamples and adds
  # channels of zeros (He et al. 2016, arXiv 1512.03385, section 3.3)
  shortcut: str = 'B'
  stem_kernel: int | tuple[int, ...] = 7
  stem_stride: int | tuple[int, ...] = 2


class ResNet(Backbone):
  """Pictures [b, *s, c] → maps [b, *s / 32, channels]; a stage is a resolution group.

  A dilated stage keeps the resolution of the stage before it.
  """

  block: Callable[..., Any]  # Basic | Bottleneck | PreActivation
  depths: tuple[int, ...] = (3, 4, 6, 3)
  width: int = 64
  style: Style = Style()
  form: Form = Form()
  dilations: tuple[int, ...] = (1, 1, 1, 1)

  @property
  def stages(self) -> int:
    return len(self.depths)

  @property
  def channels(self) -> int:
    return self.width * 2 ** (self.stages - 1) * self.block.expansion  # type: ignore[attr-defined]

  def child(self, index: int, value: Any, train: bool) -> Any:
    pre_activation = self.block is PreActivation
    if index == 0:
      stem = Stem(self.width, not pre_activation, self.form, self.style, name='stem')
      return stem(value, train)
    stage = Stage(
      block=self.block,
      depth=self.depths[index - 1],
      features=self.width * 2 ** (index - 1),
      stride=1 if index == 1 or self.dilations[index - 1] > 1 else 2,
      dilation=self.dilations[index - 1],
      form=self.form,
      style=self.style,
      name=child_name(index),
    )
    value = stage(value, train)
    if pre_activation and index == self.stages:
      value = relu(self.style.normed(value, train, 'norm'))
    return value


class Stem(nn.Module):
  """7×7 convolution at stride 2, or as the form says, and 3×3 max-pooling at stride 2.

  Norm and ReLU come before the pooling where `normed` says so: where the blocks do not begin with
  them.
  """

  width: int
  normed: bool
  form: Form
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    x = self.style.conv(x, self.width, self.form.stem_kernel, self.form.stem_stride, 'conv')
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
  dilation: int
  form: Form
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    for index in range(self.depth):
      stride = 1 if index else self.stride
      block = self.block(
        self.features, stride, self.dilation, self.form, self.style, name=f'block{index}'
      )
      x = block(x, train)
    return x


class Basic(nn.Module):
  """Two 3×3 convolutions beside a shortcut (He et al. 2016, arXiv 1512.03385)."""

  features: int
  stride: int
  dilation: int
  form: Form
  style: Style
  expansion = 1

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    y = self.style.conv(x, self.features, 3, self.stride, 'conv1', dilation=self.dilation)
    y = relu(self.style.normed(y, train, 'norm1'))
    y = self.style.conv(y, self.features, 3, 1, 'conv2', dilation=self.dilation)
    y = self.style.normed(y, train, 'norm2')
    return joined(y, _shortcut(x, y, self.stride, train, self.form, self.style))


class Bottleneck(nn.Module):
  """1×1, 3×3, 1×1 to four times the channels, beside a shortcut."""

  features: int
  stride: int
  dilation: int
  form: Form
  style: Style
  expansion = 4

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    strides = (self.stride, 1) if self.form.version == 'v1' else (1, self.stride)
    y = self.style.conv(x, self.features, 1, strides[0], 'conv1')
    y = relu(self.style.normed(y, train, 'norm1'))
    y = self.style.conv(y, self.features, 3, strides[1], 'conv2', dilation=self.dilation)
    y = relu(self.style.normed(y, train, 'norm2'))
    y = self.style.conv(y, self.expansion * self.features, 1, 1, 'conv3')
    y = self.style.normed(y, train, 'norm3')
    return joined(y, _shortcut(x, y, self.stride, train, self.form, self.style))


class PreActivation(nn.Module):
  """A bottleneck whose norms and ReLUs come before the convolutions, strided as v1.5.

  He et al. 2016, arXiv 1603.05027.
  """

  features: int
  stride: int
  dilation: int
  form: Form
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
    y = self.style.conv(y, self.features, 3, self.stride, 'conv2', dilation=self.dilation)
    y = relu(self.style.normed(y, train, 'norm3'))
    y = self.style.conv(y, outputs, 1, 1, 'conv3')
    return x + y


def _shortcut(x: Any, y: Any, stride: int, train: bool, form: Form, style: Style) -> Any:
  """Return x, where y has another shape as the form says: see `Form.shortcut`.

  The 1×1 convolution and its norm are children of the block that calls.
  """
  if stride == 1 and x.shape == y.shape:
    return x
  if form.shortcut == 'A':
    steps = [slice(None, None, stride)] * (x.ndim - 2)
    more = y.shape[-1] - x.shape[-1]
    return jnp.pad(x[:, *steps], [(0, 0)] * (x.ndim - 1) + [(0, more)])
  x = style.conv(x, y.shape[-1], 1, stride, 'shortcut_conv')
  return style.normed(x, train, 'shortcut_norm')


def _preset(
  docstring: str, block: Callable[..., Any], depths: tuple[int, ...]
) -> Callable[..., ResNet]:
  """Return a factory of ResNets of these blocks."""

  def factory(
    ndim: int = 2,
    width: int = 64,
    version: str = 'v1.5',
    bias: bool = False,
    norm: str = 'batch',
    epsilon: float = 1e-5,
    acs: bool = False,
    dtype: Any = jnp.float32,
  ) -> ResNet:
    if version not in VERSIONS:
      hint = did_you_mean(version, VERSIONS)
      raise MedtlError(f'unknown version of a ResNet {version!r}; {hint}')
    style = Style(ndim, acs, bias, norm, epsilon, dtype=dtype)
    return ResNet(block, depths, width, style, Form(version))

  factory.__doc__ = docstring
  return factory


_KERAS = "Keras' are version='v1', bias=True and epsilon=1.001e-5 (1e-3 for the names res2a_…)."
resnet10 = _preset('ResNet-10: one basic block a stage.', Basic, (1, 1, 1, 1))
resnet18 = _preset('ResNet-18: two basic blocks a stage.', Basic, (2, 2, 2, 2))
resnet34 = _preset('ResNet-34: basic blocks.', Basic, (3, 4, 6, 3))
resnet50 = _preset(f"ResNet-50, torchvision's by default. {_KERAS}", Bottleneck, (3, 4, 6, 3))
resnet101 = _preset('ResNet-101; see resnet50.', Bottleneck, (3, 4, 23, 3))
resnet152 = _preset('ResNet-152; see resnet50.', Bottleneck, (3, 8, 36, 3))
resnet200 = _preset('ResNet-200; see resnet50.', Bottleneck, (3, 24, 36, 3))


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
  style = Style(ndim, norm='group', standardised=True, dtype=dtype)
  return ResNet(PreActivation, depths, width, style)


class Volumes(NamedTuple):
  """Blocks, depths and shortcuts of a ResNet of MedicalNet."""

  block: Callable[..., Any]
  depths: tuple[int, ...]
  shortcut: str


MEDICALNET = {  # as in the authors' README.md
  10: Volumes(Basic, (1, 1, 1, 1), 'B'),
  18: Volumes(Basic, (2, 2, 2, 2), 'A'),
  34: Volumes(Basic, (3, 4, 6, 3), 'A'),
  50: Volumes(Bottleneck, (3, 4, 6, 3), 'B'),
  101: Volumes(Bottleneck, (3, 4, 23, 3), 'B'),
  152: Volumes(Bottleneck, (3, 8, 36, 3), 'B'),
  200: Volumes(Bottleneck, (3, 24, 36, 3), 'B'),
}


def medicalnet(depth: int = 10, ndim: int = 3, width: int = 64, dtype: Any = jnp.float32) -> ResNet:
  """Return MedicalNet's ResNet of 10, 18, 34, 50, 101, 152 or 200 layers.

  The last two stages are dilated instead of strided (Chen et al. 2019, Med3D, arXiv 1904.00625).
  """
  if depth not in MEDICALNET:
    raise MedtlError(f'depth={depth}; MedicalNet has {", ".join(map(str, MEDICALNET))}')
  block, depths, shortcut = MEDICALNET[depth]
  style = Style(ndim, dtype=dtype)
  return ResNet(block, depths, width, style, Form(shortcut=shortcut), dilations=(1, 1, 2, 4))


def merlin152(ndim: int = 3, width: int = 64, dtype: Any = jnp.float32) -> ResNet:
  """Return Merlin's ResNet-152 of CT volumes [d, h, w], d along the body.

  It is torchvision's, inflated: along d the stem has three taps and no stride (Blankemeier et al.
  2026, Nature, doi 10.1038/s41586-026-10181-8).
  """
  kernel = (3, 7, 7)[-ndim:]
  stride = (1, 2, 2)[-ndim:]
  form = Form(stem_kernel=kernel, stem_stride=stride)
  return ResNet(Bottleneck, (3, 8, 36, 3), width, Style(ndim, dtype=dtype), form)
