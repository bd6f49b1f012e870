"""Batch normalisation with a gradient written out; parameters, statistics and names are those of `nn.BatchNorm`.

XLA keeps the centred input for the backward pass beside the input itself, and sums the parts of the gradient one by one.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.BatchNorm):
  """Ioffe & Szegedy 2015 (arXiv 1502.03167), algorithm 1, over all axes but the last; statistics in float32 at least."""

  @nn.compact
  def __call__(self, x: Any, use_running_average: bool | None = None, *, mask: Any = None) -> Any:
    average = nn.merge_param('use_running_average', self.use_running_average, use_running_average)
    if average or mask is not None or not (self.use_scale and self.use_bias):
      return super().__call__(x, use_running_average=average, mask=mask)
    width = x.shape[-1:]
    means = self.variable('batch_stats', 'mean', jnp.zeros, width)
    variances = self.variable('batch_stats', 'var', jnp.ones, width)
    scale, bias = (
      self.param('scale', self.scale_init, width),
      self.param('bias', self.bias_init, width),
    )
    y, mean, variance = batch_norm(self.epsilon, x, scale, bias)
    if not self.is_initializing():
      means.value = self.momentum * means.value + (1 - self.momentum) * mean
      variances.value = self.momentum * variances.value + (1 - self.momentum) * variance
    return y.astype(self.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm(epsilon: float, x: Any, scale: Any, bias: Any) -> tuple[Any, Any, Any]:
  """Return ((x − mean) / √(variance + epsilon) · scale + bias, mean, variance) of x [..., d]; statistics [d] have no gradient."""
  return _forward(epsilon, x, scale, bias)[0]


def _forward(epsilon: float, x: Any, scale: Any, bias: Any) -> tuple[tuple[Any, Any, Any], tuple]:
  axes, wide = tuple(range(x.ndim - 1)), x.astype(jnp.promote_types(x.dtype, jnp.float32))
  mean = wide.mean(axes)
  variance = jnp.maximum(0.0, jnp.square(wide).mean(axes) - jnp.square(mean))
  inverse = jax.lax.rsqrt(variance + epsilon)
  return ((wide - mean) * (inverse * scale) + bias, mean, variance), (x, mean, inverse, scale, bias)


def _backward(
  epsilon: float, saved: tuple, gradients: tuple[Any, Any, Any]
) -> tuple[Any, Any, Any]:
  x, mean, inverse, scale, bias = saved
  axes, count, gradient = tuple(range(x.ndim - 1)), x.size // x.shape[-1], gradients[0]
  wide = x.astype(gradient.dtype)
  whole = gradient.sum(axes)
  along = (
    (gradient * wide).sum(axes) - mean * whole
  ) * inverse  # of the sums rather than the centred x: nothing is written out
  back = (gradient - whole / count - (wide - mean) * (inverse * along / count)) * (inverse * scale)
  return back.astype(x.dtype), along.astype(scale.dtype), whole.astype(bias.dtype)


_batch_norm.defvjp(_forward, _backward)
batch_norm = jax.jit(_batch_norm, static_argnums=0)  # traced once for each shape
