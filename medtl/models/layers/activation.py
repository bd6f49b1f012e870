"""Activations whose gradients keep one array: the ReLU what it returns, which the next child reads and keeps anyway, the GELU its input."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from medtl.models.layers.matmul import wide


@jax.custom_vjp
def _relu(x: Any) -> Any:
  """Return max(x, 0); the gradient at 0 is 0."""
  return jnp.maximum(x, 0)


def _forward(x: Any) -> tuple[Any, Any]:
  y = jnp.maximum(x, 0)
  return y, y


_relu.defvjp(_forward, lambda y, gradient: (jnp.where(y > 0, gradient, 0),))
relu = jax.jit(_relu)  # traced once for each shape


@jax.custom_vjp
def _joined(x: Any, shortcut: Any) -> Any:
  """Return max(x + shortcut, 0), the end of a residual block, which the next block reads twice.

  XLA's CPU backend would compute it anew for each reader, and within it the ends of all blocks before. It does not look through a
  conditional; both branches return the same.
  """
  branches = (
    lambda x, shortcut: jnp.maximum(x + shortcut, 0),
    lambda x, shortcut: relu(shortcut + x),
  )
  return jax.lax.platform_dependent(
    x,
    shortcut,
    default=branches[0],
    cpu=lambda x, shortcut: jax.lax.cond(shortcut.reshape(-1)[0] >= 0, *branches, x, shortcut),
  )


def _joined_forward(x: Any, shortcut: Any) -> tuple[Any, Any]:
  y = _joined(x, shortcut)
  return y, y


def _joined_backward(y: Any, gradient: Any) -> tuple[Any, Any]:
  gradient = jnp.where(y > 0, gradient, 0)
  return gradient, gradient


_joined.defvjp(_joined_forward, _joined_backward)
joined = jax.jit(_joined)


@jax.custom_vjp
def _gelu(x: Any) -> Any:
  """Return x Φ(x), Φ the normal distribution's (Hendrycks & Gimpel 2016, arXiv 1606.08415), computed in float32 at least."""
  y = wide(x)
  return (y * _normal(y)).astype(x.dtype)


def _gelu_backward(x: Any, gradient: Any) -> tuple[Any]:
  """The derivative Φ(x) + x φ(x): nothing but x is kept."""
  y = wide(x)
  density = jnp.exp(-0.5 * jnp.square(y)) * (2 * math.pi) ** -0.5
  return ((wide(gradient) * (_normal(y) + y * density)).astype(x.dtype),)


_gelu.defvjp(lambda x: (_gelu(x), x), _gelu_backward)
gelu = jax.jit(_gelu)


def _normal(x: Any) -> Any:
  """Return Φ(x) by erf, which XLA's CPU backend computes with half of erfc's branches; what lies below 1e-7 is lost."""
  return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))
