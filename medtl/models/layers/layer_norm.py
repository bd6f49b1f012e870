"""The layer norm of transformers, with a gradient written out.

XLA makes the gradient of a norm from its parts, the mean's last, and then adds up the residual stream's gradient of all later blocks anew
wherever it is read: on a CPU a ViT-S took twice as long for a step. Written as one expression it is added up once.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medtl.models.layers.matmul import sums


class LayerNorm(nn.Module):
  """Ba et al. 2016 (arXiv 1607.06450) over the last axis; the two-pass variance, since tokens of CLIP and DINO lie far from zero."""

  epsilon: float = 1e-6
  dtype: Any = jnp.float32  # of what it returns; it computes in float32 at least

  @nn.compact
  def __call__(self, x: Any) -> Any:
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
    return layer_norm(self.epsilon, x, scale, bias).astype(self.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer_norm(epsilon: float, x: Any, scale: Any, bias: Any) -> Any:
  """Return (x − mean) / √(variance + epsilon) · scale + bias over the last axis of x [..., d], in float32 at least."""
  unit, _ = _standardised(epsilon, x)
  return unit * scale + bias


def _standardised(epsilon: float, x: Any) -> tuple[Any, Any]:
  """Return x with mean 0 and variance 1, and what its distances from the mean were multiplied with."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  centred = wide - wide.mean(-1, keepdims=True)
  inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
  return centred * inverse, inverse


def _backward(epsilon: float, saved: tuple[Any, Any, Any], gradient: Any) -> tuple[Any, Any, Any]:
  x, scale, bias = saved
  unit, inverse = _standardised(epsilon, x)
  inside = gradient * scale
  back = (
    inside - inside.mean(-1, keepdims=True) - unit * (inside * unit).mean(-1, keepdims=True)
  ) * inverse
  return (
    back.astype(x.dtype),
    sums(gradient * unit).astype(scale.dtype),
    sums(gradient).astype(bias.dtype),
  )


_layer_norm.defvjp(
  lambda epsilon, x, scale, bias: (_layer_norm(epsilon, x, scale, bias), (x, scale, bias)),
  _backward,
)
layer_norm = jax.jit(_layer_norm, static_argnums=0)  # traced once for each shape
