"""Convolution, pooling and norm for any number of spatial axes, channels last."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medtl.models.layers.batch_norm import BatchNorm
from medtl.models.layers.convolution import convolve
from medtl.models.layers.precision import at_least_float32

# He et al. 2015, as ResNets are initialised
INIT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class Conv(nn.Module):
  """A convolution padded by k // 2 on each side as in PyTorch, or 'SAME' as in TensorFlow.

  `standardised`: over each output's inputs the kernel has mean 0 and variance 1 (Qiao et al. 2019,
  arXiv 1903.10520).
  """

  features: int
  kernel: tuple[int, ...]
  stride: int = 1
  bias: bool = False
  standardised: bool = False
  dtype: Any = jnp.float32
  padding: str | None = None  # 'SAME': the odd pixel after; None: k // 2 on each side

  @nn.compact
  def __call__(self, x: Any) -> Any:
    shape = (*self.kernel, x.shape[-1], self.features)
    kernel = self.param('kernel', INIT, shape)
    if self.standardised:
      kernel = standardise(kernel)
    kernel = kernel.astype(self.dtype)
    padding = self.padding or [(size // 2, size // 2) for size in self.kernel]
    y = convolve(x.astype(self.dtype), kernel, self.stride, padding)
    if not self.bias:
      return y
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    return y + bias.astype(self.dtype)


def standardise(kernel: Any, epsilon: float = 1e-10) -> Any:
  """Return the kernel with mean 0 and variance 1 over all axes but the last.

  The default of epsilon is that of BiT's own code.
  """
  axes = tuple(range(kernel.ndim - 1))
  centred = kernel - kernel.mean(axes, keepdims=True)
  variance = jnp.square(centred).mean(axes, keepdims=True)
  return centred * jax.lax.rsqrt(variance + epsilon)


def max_pool(x: Any, window: int = 3, stride: int = 2, fill: float = -jnp.inf) -> Any:
  """Return the maximum over windows of x [b, *s, c], padded by window // 2 of `fill` on each side.

  It takes one axis after the other, each as the maximum of `window` strided slices: XLA's CPU
  backend takes five times as long for the gradient of `reduce_window`. Where several numbers are
  the largest, they share the gradient. A CPU computes in float32.
  """
  pool = functools.partial(_max_pool, window, stride, fill)

  def pool_in_float32(x: Any) -> Any:
    return pool(at_least_float32(x)).astype(x.dtype)

  return jax.lax.platform_dependent(x, cpu=pool_in_float32, default=pool)


def _max_pool(window: int, stride: int, fill: float, x: Any) -> Any:
  half = window // 2
  for axis in range(1, x.ndim - 1):
    padding = [(0, 0)] * x.ndim
    padding[axis] = (half, half)
    x = jnp.pad(x, padding, constant_values=fill)
    length = (x.shape[axis] - window) // stride * stride + 1
    slices = []
    for start in range(window):
      slices.append(jax.lax.slice_in_dim(x, start, start + length, stride, axis))
    x = functools.reduce(jnp.maximum, slices)
  return x


def norm(
  x: Any,
  train: bool,
  name: str,
  kind: str = 'batch',
  epsilon: float = 1e-5,
  dtype: Any = jnp.float32,
) -> Any:
  """Return x normalised by a child `name` of the module that calls.

  `kind` is 'batch', or 'group' with 32 groups (Wu & He 2018, arXiv 1803.08494).
  """
  if kind == 'batch':
    batch_norm = BatchNorm(momentum=0.9, epsilon=epsilon, dtype=dtype, name=name)
    return batch_norm(x, use_running_average=not train)
  groups = math.gcd(32, x.shape[-1])
  group_norm = nn.GroupNorm(
    groups, epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name
  )
  return group_norm(x)
