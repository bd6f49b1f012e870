"""The layer norm of transformers, whose gradient is written out.

XLA makes the gradient of a norm from its parts, the mean's last. It then adds up the gradient of
the residual stream, of all later blocks, wherever that is read: on a CPU a step of a ViT-S took
twice as long. Written as one expression the gradient is added up once.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medtl.models.layers.matmul import sums
from medtl.models.layers.precision import at_least_float32


class LayerNorm(nn.Module):
  """Ba et al. 2016 (arXiv 1607.06450) over the last axis.

  The variance takes two passes, since the tokens of CLIP and DINO lie far from zero.
  """

  epsilon: float = 1e-6
  dtype: Any = jnp.float32  # of what it returns; it computes in float32 at least

  @nn.compact
  def __call__(self, x: Any) -> Any:
    width = x.shape[-1:]
    scale = self.param('scale', nn.initializers.ones, width)
    bias = self.param('bias', nn.initializers.zeros, width)
    y = layer_norm(self.epsilon, x, scale, bias)
    return y.astype(self.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer_norm(epsilon: float, x: Any, scale: Any, bias: Any) -> Any:
  """Return (x − mean) / √(variance + epsilon) · scale + bias, in float32 at least.

  Mean and variance are those of the last axis of x [..., d].
  """
  unit, _ = _standardised(epsilon, x)
  return unit * scale + bias


def _layer_norm_forward(epsilon: float, x: Any, scale: Any, bias: Any) -> tuple[Any, Any]:
  return _layer_norm(epsilon, x, scale, bias), (x, scale, bias)


def _layer_norm_backward(
  epsilon: float, saved: tuple[Any, Any, Any], gradient: Any
) -> tuple[Any, Any, Any]:
  x, scale, bias = saved
  unit, inverse = _standardised(epsilon, x)
  inner = gradient * scale
  by_mean = _mean(inner)
  by_variance = unit * _mean(inner * unit)
  x_gradient = (inner - by_mean - by_variance) * inverse
  scale_gradient = sums(gradient * unit)
  bias_gradient = sums(gradient)
  return (
    x_gradient.astype(x.dtype),
    scale_gradient.astype(scale.dtype),
    bias_gradient.astype(bias.dtype),
  )


def _standardised(epsilon: float, x: Any) -> tuple[Any, Any]:
  """Return (x with mean 0 and variance 1, 1 / √(variance + epsilon))."""
  wide = at_least_float32(x)
  centred = wide - _mean(wide)
  variance = _mean(jnp.square(centred))
  inverse = jax.lax.rsqrt(variance + epsilon)
  return centred * inverse, inverse


def _mean(x: Any) -> Any:
  """Return the mean [..., 1] of x [..., d]."""
  return x.mean(-1, keepdims=True)


_layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)
layer_norm = jax.jit(_layer_norm, static_argnums=0)  # traced once for each shape
