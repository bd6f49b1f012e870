"""Activations whose gradients keep one array.

The ReLU keeps what it returns, which the next child reads and keeps anyway; the others their input.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from medtl.models.layers.precision import at_least_float32


@jax.custom_vjp
def _relu(x: Any) -> Any:
  """Return max(x, 0); the gradient at 0 is 0."""
  return jnp.maximum(x, 0)


def _relu_forward(x: Any) -> tuple[Any, Any]:
  y = jnp.maximum(x, 0)
  return y, y


def _relu_backward(y: Any, gradient: Any) -> tuple[Any]:
  return (jnp.where(y > 0, gradient, 0),)


_relu.defvjp(_relu_forward, _relu_backward)
relu = jax.jit(_relu)  # traced once for each shape


@jax.custom_jvp
def relu6(x: Any) -> Any:
  """Return x between 0 and 6; the gradient at both ends is 0, as in PyTorch.

  That of `clip` would be shared out at the ends, by divisions.
  """
  return jnp.clip(x, 0, 6)


@relu6.defjvp
def _relu6_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
  (x,) = primals
  (tangent,) = tangents
  inside = (x > 0) & (x < 6)
  return relu6(x), jnp.where(inside, tangent, jnp.zeros_like(tangent))


@jax.custom_vjp
def _joined(x: Any, shortcut: Any) -> Any:
  """Return max(x + shortcut, 0), the end of a residual block.

  The next block reads it twice. XLA's CPU backend would compute it anew for each reader, and inside
  it the ends of all blocks before. XLA does not look through a conditional, so that a CPU gets one
  whose branches return the same.
  """
  return jax.lax.platform_dependent(x, shortcut, cpu=_joined_by_condition, default=_relu_of_sum)


def _joined_by_condition(x: Any, shortcut: Any) -> Any:
  condition = shortcut.reshape(-1)[0] >= 0
  return jax.lax.cond(condition, _relu_of_sum, _relu_of_reversed_sum, x, shortcut)


def _relu_of_sum(x: Any, shortcut: Any) -> Any:
  return jnp.maximum(x + shortcut, 0)


def _relu_of_reversed_sum(x: Any, shortcut: Any) -> Any:
  return relu(shortcut + x)


def _joined_forward(x: Any, shortcut: Any) -> tuple[Any, Any]:
  y = _joined(x, shortcut)
  return y, y


def _joined_backward(y: Any, gradient: Any) -> tuple[Any, Any]:
  both = jnp.where(y > 0, gradient, 0)
  return both, both


_joined.defvjp(_joined_forward, _joined_backward)
joined = jax.jit(_joined)


@jax.custom_vjp
def _gelu(x: Any) -> Any:
  """Return x Φ(x), computed in float32 at least; Φ is the normal distribution's.

  Hendrycks & Gimpel 2016, arXiv 1606.08415.
  """
  wide = at_least_float32(x)
  y = wide * _normal(wide)
  return y.astype(x.dtype)


def _gelu_forward(x: Any) -> tuple[Any, Any]:
  return _gelu(x), x


def _gelu_backward(x: Any, gradient: Any) -> tuple[Any]:
  """Return the gradient by the derivative Φ(x) + x φ(x), for which nothing but x is kept."""
  wide = at_least_float32(x)
  density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * math.pi) ** -0.5
  slope = _normal(wide) + wide * density
  x_gradient = at_least_float32(gradient) * slope
  return (x_gradient.astype(x.dtype),)


_gelu.defvjp(_gelu_forward, _gelu_backward)
gelu = jax.jit(_gelu)


@jax.custom_vjp
def _gelu_tanh(x: Any) -> Any:
  """Return x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2, computed in float32 at least.

  Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2.
  """
  wide = at_least_float32(x)
  y = 0.5 * wide * (1 + _tanh_of_cubic(wide))
  return y.astype(x.dtype)


def _tanh_of_cubic(x: Any) -> Any:
  return jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))


def _gelu_tanh_forward(x: Any) -> tuple[Any, Any]:
  return _gelu_tanh(x), x


def _gelu_tanh_backward(x: Any, gradient: Any) -> tuple[Any]:
  """Return the gradient by the derivative, for which nothing but x is kept."""
  wide = at_least_float32(x)
  tanh = _tanh_of_cubic(wide)
  inner_slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * wide * wide)
  slope = 0.5 * (1 + tanh) + 0.5 * wide * (1 - tanh * tanh) * inner_slope
  x_gradient = at_least_float32(gradient) * slope
  return (x_gradient.astype(x.dtype),)


_gelu_tanh.defvjp(_gelu_tanh_forward, _gelu_tanh_backward)
gelu_tanh = jax.jit(_gelu_tanh)


@jax.custom_vjp
def _swiglu(gate: Any, x: Any) -> Any:
  """Return gate σ(gate) x, computed in float32 at least (Shazeer 2020, arXiv 2002.05202)."""
  wide = at_least_float32(gate)
  y = wide * jax.nn.sigmoid(wide) * x
  return y.astype(x.dtype)


def _swiglu_forward(gate: Any, x: Any) -> tuple[Any, tuple[Any, Any]]:
  return _swiglu(gate, x), (gate, x)


def _swiglu_backward(saved: tuple[Any, Any], gradient: Any) -> tuple[Any, Any]:
  """Return both gradients, for which nothing but what came in is kept."""
  gate, x = saved
  wide = at_least_float32(gate)
  wide_gradient = at_least_float32(gradient)
  sigmoid = jax.nn.sigmoid(wide)
  slope = sigmoid * (1 + wide * (1 - sigmoid))
  gate_gradient = wide_gradient * x * slope
  x_gradient = wide_gradient * wide * sigmoid
  return gate_gradient.astype(gate.dtype), x_gradient.astype(x.dtype)


_swiglu.defvjp(_swiglu_forward, _swiglu_backward)
swiglu = jax.jit(_swiglu)


def _normal(x: Any) -> Any:
  """Return Φ(x) by erf; what lies below 1e-7 is lost.

  XLA's CPU backend computes erf with half of the branches of erfc.
  """
  return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


@jax.custom_vjp
def _silu(x: Any) -> Any:
  """Return x σ(x), computed in float32 at least (Elfwing et al. 2017, arXiv 1702.03118)."""
  wide = at_least_float32(x)
  return (wide * jax.nn.sigmoid(wide)).astype(x.dtype)


def _silu_forward(x: Any) -> tuple[Any, Any]:
  return _silu(x), x


def _silu_backward(x: Any, gradient: Any) -> tuple[Any]:
  """Return the gradient by the derivative σ(x) (1 + x (1 − σ(x)))."""
  wide = at_least_float32(x)
  gate = jax.nn.sigmoid(wide)
  slope = gate * (1 + wide * (1 - gate))
  x_gradient = at_least_float32(gradient) * slope
  return (x_gradient.astype(x.dtype),)


_silu.defvjp(_silu_forward, _silu_backward)
silu = jax.jit(_silu)


@jax.custom_vjp
def _hard_swish(x: Any) -> Any:
  """Return x · relu6(x + 3) / 6 (Howard et al. 2019, arXiv 1905.02244, section 5.2)."""
  return x * hard_sigmoid(x)


def _hard_swish_forward(x: Any) -> tuple[Any, Any]:
  return _hard_swish(x), x


def _hard_swish_backward(x: Any, gradient: Any) -> tuple[Any]:
  slope = jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, x / 3 + 0.5))
  return (gradient * slope.astype(x.dtype),)


_hard_swish.defvjp(_hard_swish_forward, _hard_swish_backward)
hard_swish = jax.jit(_hard_swish)


def hard_sigmoid(x: Any) -> Any:
  """Return relu6(x + 3) / 6 (arXiv 1905.02244, section 5.2)."""
  return relu6(x + 3) / 6
