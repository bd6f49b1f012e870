"""Convolution, pooling and norm for any number of spatial axes, channels last."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medtl.models.layers.batch_norm import BatchNorm
from medtl.models.layers.convolution import convolve
from medtl.models.layers.matmul import wide

INIT = nn.initializers.variance_scaling(
  2.0, 'fan_out', 'normal'
)  # He et al. 2015, as ResNets are initialised


class Conv(nn.Module):
  """A convolution padded by k // 2 on each side, as PyTorch does.

  `standardised`: the kernel's mean over each output's inputs becomes 0, its variance 1 (Qiao et al. 2019, arXiv 1903.10520).
  """

  features: int
  kernel: tuple[int, ...]
  stride: int = 1
  bias: bool = False
  standardised: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Any) -> Any:
    kernel = self.param('kernel', INIT, (*self.kernel, x.shape[-1], self.features))
    if self.standardised:
      kernel = standardise(kernel)
    y = convolve(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      self.stride,
      [(k // 2, k // 2) for k in self.kernel],
    )
    return (
      y + self.param('bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
      if self.bias
      else y
    )


def standardise(kernel: Any, epsilon: float = 1e-10) -> Any:
  """Return the kernel with mean 0 and variance 1 over all axes but the last (epsilon as in BiT's own code)."""
  axes = tuple(range(kernel.ndim - 1))
  centred = kernel - kernel.mean(axes, keepdims=True)
  return centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + epsilon)


def max_pool(x: Any, window: int = 3, stride: int = 2, fill: float = -jnp.inf) -> Any:
  """Return the maximum over windows, padded by window // 2 of `fill` on each side.

  One axis after the other, each as the maximum of `window` strided slices: XLA's CPU backend takes five times as long for the
  gradient of `reduce_window`. Where several numbers are the largest, the gradient is shared among them. A CPU does it in float32.
  """
  pooled = partial(_max_pool, window, stride, fill)
  return jax.lax.platform_dependent(
    x, cpu=lambda x: pooled(wide(x)).astype(x.dtype), default=pooled
  )


def _max_pool(window: int, stride: int, fill: float, x: Any) -> Any:
  half = window // 2
  for axis in range(1, x.ndim - 1):
    x = jnp.pad(
      x, [(half, half) if i == axis else (0, 0) for i in range(x.ndim)], constant_values=fill
    )
    last = (x.shape[axis] - window) // stride * stride + 1
    slices = [jax.lax.slice_in_dim(x, start, start + last, stride, axis) for start in range(window)]
    x = slices[0]
    for other in slices[1:]:
      x = jnp.maximum(x, other)
  return x


def norm(
  x: Any,
  train: bool,
  name: str,
  kind: str = 'batch',
  epsilon: float = 1e-5,
  dtype: Any = jnp.float32,
) -> Any:
  """Return x normalised by a child `name` of the module that calls: 'batch', or 'group' with 32 groups (Wu & He 2018)."""
  if kind == 'batch':
    return BatchNorm(momentum=0.9, epsilon=epsilon, dtype=dtype, name=name)(
      x, use_running_average=not train
    )
  return nn.GroupNorm(
    math.gcd(32, x.shape[-1]), epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name
  )(x)
