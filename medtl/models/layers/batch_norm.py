"""Batch normalisation whose gradient is written out.

Parameters, statistics and names are those of `nn.BatchNorm`. Left to itself XLA keeps the centred
input for the backward pass beside the input, and sums the parts of the gradient one by one.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medtl.models.layers.precision import at_least_float32


class BatchNorm(nn.BatchNorm):
  """Ioffe & Szegedy 2015 (arXiv 1502.03167), algorithm 1, over all axes but the last.

  The statistics are in float32 at least.
  """

  @nn.compact
  def __call__(self, x: Any, use_running_average: bool | None = None, *, mask: Any = None) -> Any:
    average = nn.merge_param('use_running_average', self.use_running_average, use_running_average)
    affine = self.use_scale and self.use_bias
    if average or mask is not None or not affine:
      return super().__call__(x, use_running_average=average, mask=mask)
    width = x.shape[-1:]
    means = self.variable('batch_stats', 'mean', jnp.zeros, width)
    variances = self.variable('batch_stats', 'var', jnp.ones, width)
    scale = self.param('scale', self.scale_init, width)
    bias = self.param('bias', self.bias_init, width)
    y, mean, variance = batch_norm(self.epsilon, x, scale, bias)
    if not self.is_initializing():
      means.value = _running_average(self.momentum, means.value, mean)
      variances.value = _running_average(self.momentum, variances.value, variance)
    return y.astype(self.dtype)


def _running_average(momentum: float, before: Any, now: Any) -> Any:
  """Return the running average of a statistic after one more batch."""
  return momentum * before + (1 - momentum) * now


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm(epsilon: float, x: Any, scale: Any, bias: Any) -> tuple[Any, Any, Any]:
  """Return (y, mean, variance) of x [..., d]; the statistics [d] have no gradient.

  y is (x − mean) / √(variance + epsilon) · scale + bias.
  """
  results, _ = _forward(epsilon, x, scale, bias)
  return results


def _forward(epsilon: float, x: Any, scale: Any, bias: Any) -> tuple[tuple[Any, Any, Any], tuple]:
  axes = tuple(range(x.ndim - 1))
  wide = at_least_float32(x)
  mean = wide.mean(axes)
  mean_square = jnp.square(wide).mean(axes)
  variance = jnp.maximum(0.0, mean_square - jnp.square(mean))
  inverse = jax.lax.rsqrt(variance + epsilon)
  y = (wide - mean) * (inverse * scale) + bias
  return (y, mean, variance), (x, mean, inverse, scale, bias)


def _backward(
  epsilon: float, saved: tuple, gradients: tuple[Any, Any, Any]
) -> tuple[Any, Any, Any]:
  x, mean, inverse, scale, bias = saved
  gradient, _, _ = gradients
  axes = tuple(range(x.ndim - 1))
  count = x.size // x.shape[-1]
  wide = x.astype(gradient.dtype)
  bias_gradient = gradient.sum(axes)
  # made of sums rather than of the centred x, so that no array of the size of x is written out
  scale_gradient = ((gradient * wide).sum(axes) - mean * bias_gradient) * inverse
  by_mean = bias_gradient / count
  by_variance = (wide - mean) * (inverse * scale_gradient / count)
  x_gradient = (gradient - by_mean - by_variance) * (inverse * scale)
  return (
    x_gradient.astype(x.dtype),
    scale_gradient.astype(scale.dtype),
    bias_gradient.astype(bias.dtype),
  )


_batch_norm.defvjp(_forward, _backward)
batch_norm = jax.jit(_batch_norm, static_argnums=0)  # traced once for each shape
