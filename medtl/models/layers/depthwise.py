"""The convolution of each channel by itself, in the lowering that is fast where it runs.

XLA's CPU backend takes a grouped convolution 10 to 50 times as long as a sum of k² shifted
products, and counts its gradients as dense ones. Accelerators have an operation for it.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from medtl.models.layers.convolution import Padding, convolve, explicit_padding, windows
from medtl.models.layers.matmul import several_devices
from medtl.models.layers.precision import at_least_float32, sum_dtype


def depthwise(
  x: Any, kernel: Any, stride: int, padding: Sequence[tuple[int, int]] | str = 'SAME'
) -> Any:
  """Return x [b, *s, c] convolved with kernel [*k, 1, c], channel by channel.

  `padding` is 'SAME' (TensorFlow's: the odd point after), 'VALID' or (before, after) of each axis.
  """
  pads = explicit_padding(x.shape[1:-1], kernel.shape[:-2], stride, padding)
  by_products = partial(shifted, stride, pads)
  by_xla = partial(grouped, stride, pads)
  return jax.lax.platform_dependent(x, kernel, cpu=by_products, default=by_xla)


def grouped(stride: int, padding: Padding, x: Any, kernel: Any) -> Any:
  """Return the convolution as XLA has it."""
  return convolve(x, kernel, stride, padding, groups=x.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def shifted(stride: int, padding: Padding, x: Any, kernel: Any) -> Any:
  """Return the convolution as a sum of shifted products, taken in float32 at least."""
  sum_products = _sum_of_products(stride, padding, kernel)
  return sum_products(at_least_float32(x)).astype(x.dtype)


def _forward(stride: int, padding: Padding, x: Any, kernel: Any) -> tuple[Any, tuple[Any, Any]]:
  return shifted(stride, padding, x, kernel), (x, kernel)


def _backward(
  stride: int, padding: Padding, saved: tuple[Any, Any], gradient: Any
) -> tuple[Any, Any]:
  x, kernel = saved
  kernel_gradient = _kernel_gradient(stride, padding, x, kernel, gradient)
  sum_products = _sum_of_products(stride, padding, kernel)
  transpose = jax.linear_transpose(sum_products, at_least_float32(x))
  (x_gradient,) = transpose(at_least_float32(gradient))
  return x_gradient.astype(x.dtype), kernel_gradient.astype(kernel.dtype)


def _kernel_gradient(stride: int, padding: Padding, x: Any, kernel: Any, gradient: Any) -> Any:
  """Return the gradient of the kernel, in float32 at least.

  For each tap it is summed map by map over the examples, and then over the map by a product with
  ones. Left to itself XLA reduces each of the k² products over all axes but the last in one go,
  which takes its CPU backend eight times as long.
  """
  taps = kernel.shape[:-2]
  dtype = sum_dtype(gradient)

  def add_example(totals: list[Any], example: tuple[Any, Any]) -> tuple[list[Any], None]:
    x, gradient = example
    seen = windows(stride, padding, taps, x[None])
    added = []
    for total, window in zip(totals, seen, strict=True):
      added.append(total + window[0] * gradient)
    return added, None

  if several_devices():
    seen = windows(stride, padding, taps, x)
    totals = [jnp.sum(window * gradient, 0, dtype=dtype) for window in seen]
  else:
    zeros = jnp.zeros(gradient.shape[1:], dtype)
    totals = [zeros] * math.prod(taps)
    totals, _ = jax.lax.scan(add_example, totals, (x, gradient))
  points = math.prod(gradient.shape[1:-1])
  ones = jnp.ones(points, dtype)
  sums = [ones @ total.reshape(points, -1) for total in totals]
  return jnp.stack(sums).reshape(kernel.shape)


shifted.defvjp(_forward, _backward)


def _sum_of_products(stride: int, padding: Padding, kernel: Any) -> Callable[[Any], Any]:
  """Return the convolution as a function of x, which is linear in it."""
  taps = at_least_float32(kernel).reshape(-1, kernel.shape[-1])

  def sum_products(x: Any) -> Any:
    seen = windows(stride, padding, kernel.shape[:-2], x)
    return sum(window * tap for window, tap in zip(seen, taps, strict=True))

  return sum_products
