"""What MobileNets and EfficientNets are made of.

Inverted residual blocks (Sandler et al. 2018, arXiv 1801.04381, section 3.3), which EfficientNet
calls MBConv, with squeeze-and-excitation inside (Hu et al. 2017, arXiv 1709.01507).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from medtl.models.layers.activation import hard_sigmoid, hard_swish, relu, relu6, silu
from medtl.models.layers.precision import at_least_float32
from medtl.models.layers.style import Style

# named by words, since a backbone's text is a key under which activations are kept
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
  'relu': relu,
  'relu6': relu6,
  'hard_swish': hard_swish,
  'silu': silu,
}
GATES: dict[str, Callable[[Any], Any]] = {
  'sigmoid': jax.nn.sigmoid,
  'hard_sigmoid': hard_sigmoid,
}


def rounded(channels: float) -> int:
  """Return the nearest multiple of 8 that takes away no more than a tenth.

  >>> rounded(16.8), rounded(11)
  (16, 16)
  """
  nearest = max(8, int(channels + 4) // 8 * 8)
  return nearest + 8 if nearest < 0.9 * channels else nearest


def normed(x: Any, train: bool, name: str, style: Style) -> Any:
  """Return x normalised by a child `name` of the module that calls.

  Beside depthwise convolutions the gradient that XLA finds takes a tenth less time than the one
  that is written out for other networks (docs/benchmarks.md), and more memory.
  """
  norm = nn.BatchNorm(momentum=style.momentum, epsilon=style.epsilon, dtype=style.dtype, name=name)
  return norm(x, use_running_average=not train)


class Unit(nn.Module):
  """Convolution, norm, activation: the stem and the top."""

  channels: int
  kernel: int
  stride: int
  activation: str
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    x = self.style.conv(x, self.channels, self.kernel, self.stride, 'conv')
    x = normed(x, train, 'norm', self.style)
    return ACTIVATIONS[self.activation](x)


class Squeeze(NamedTuple):
  """How a squeeze-and-excitation differs from one network to another."""

  channels: int  # between its two dense layers
  activation: str  # after the first
  gate: str  # after the second


class SqueezeExcite(nn.Module):
  """Each channel of x [b, *s, c] times a number in 0 … 1 that depends on the means of all."""

  squeeze: Squeeze
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    axes = tuple(range(1, x.ndim - 1))
    y = at_least_float32(x).mean(axes, keepdims=True)
    y = nn.Dense(self.squeeze.channels, dtype=self.dtype, name='reduce')(y)
    y = ACTIVATIONS[self.squeeze.activation](y)
    y = nn.Dense(x.shape[-1], dtype=self.dtype, name='expand')(y)
    return x * GATES[self.squeeze.gate](y)


class InvertedResidual(nn.Module):
  """1×1 to `hidden` channels, depthwise k×k, squeeze-and-excitation, 1×1 to `channels`.

  Where x has `hidden` channels already, the first is left out. Where the shape stays there is a
  shortcut, beside which an example's block is dropped in training at the rate `drop_path`.
  """

  hidden: int
  channels: int
  kernel: int
  stride: int
  activation: str
  style: Style
  squeeze: Squeeze | None = None
  drop_path: float = 0.0

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    act = ACTIVATIONS[self.activation]
    y = x
    if self.hidden != x.shape[-1]:
      y = self.style.conv(y, self.hidden, 1, 1, 'expand')
      y = act(normed(y, train, 'norm1', self.style))
    y = self.style.depthwise(y, self.kernel, self.stride, 'depthwise')
    y = act(normed(y, train, 'norm2', self.style))
    if self.squeeze:
      y = SqueezeExcite(self.squeeze, self.style.dtype, name='squeeze_excite')(y)
    y = self.style.conv(y, self.channels, 1, 1, 'project')
    y = normed(y, train, 'norm3', self.style)
    if self.stride > 1 or x.shape != y.shape:
      return y
    drop_path = nn.Dropout(self.drop_path, broadcast_dims=range(1, y.ndim))
    return x + drop_path(y, deterministic=not train)
