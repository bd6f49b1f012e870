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

MANY = 25  # taps of a kernel: with more, its gradient and that of its input are written otherwise


def depthwise(
  x: Any, kernel: Any, stride: int, padding: Sequence[tuple[int, int]] | str = 'SAME'
) -> Any:
  """Return x [b, *s, c] convolved with kernel [*k, 1, c], channel by channel.

  `padding` is 'SAME' (TensorFlow's: the odd point after), 'VALID' or (before, after) of each axis.
  """
  pads = explicit_padding(x.shape[1:-1], kernel.shape[:-2], stride, padding)
  return _depthwise(stride, pads, x, kernel)


@partial(jax.jit, static_argnums=(0, 1))  # traced once for each shape
def _depthwise(stride: int, padding: Padding, x: Any, kernel: Any) -> Any:
  by_products = partial(shifted, stride, padding)
  by_xla = partial(grouped, stride, padding)
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
  x_gradient_of = _x_gradient
  if math.prod(kernel.shape[:-2]) > MANY:
    x_gradient_of = _x_gradient_by_flipped_taps
  x_gradient = x_gradient_of(stride, padding, x, kernel, at_least_float32(gradient))
  return x_gradient.astype(x.dtype), kernel_gradient.astype(kernel.dtype)


def _x_gradient(stride: int, padding: Padding, x: Any, kernel: Any, gradient: Any) -> Any:
  """Return the gradient of x as the sum of the taps' products, each put where it was read."""
  sum_products = _sum_of_products(stride, padding, kernel)
  transpose = jax.linear_transpose(sum_products, at_least_float32(x))
  (x_gradient,) = transpose(gradient)
  return x_gradient


def _x_gradient_by_flipped_taps(
  stride: int, padding: Padding, x: Any, kernel: Any, gradient: Any
) -> Any:
  """Return the gradient of x as the gradient, spread by the stride, convolved with flipped taps.

  XLA's CPU backend adds up what is put in place for many taps 4 to 6 times as slowly.
  """
  taps = kernel.shape[:-2]
  edges = [(0, 0, 0)]  # (before, after, between) of each axis
  for axis, (before, _) in enumerate(padding):
    span = (gradient.shape[axis + 1] - 1) * stride + 1
    edges.append((taps[axis] - 1 - before, x.shape[axis + 1] + before - span, stride - 1))
  edges.append((0, 0, 0))
  spread = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), edges)
  none = ((0, 0),) * len(taps)
  flipped = jnp.flip(kernel, range(len(taps)))
  return _sum_of_products(1, none, flipped)(spread)


def _kernel_gradient(stride: int, padding: Padding, x: Any, kernel: Any, gradient: Any) -> Any:
  """Return the gradient of the kernel, in float32 at least.

  Where it has many taps, one row of them is taken after the other: to compile a loop that sums 49
  maps takes four times as long.
  """
  taps = kernel.shape[:-2]
  if math.prod(taps) <= MANY or several_devices():
    return _gradient_of_taps(stride, padding, taps, x, gradient).reshape(kernel.shape)
  nothing = [(0, 0)] * (len(taps) - 1)
  padded = jnp.pad(x, [(0, 0), padding[0], *nothing, (0, 0)])
  span = (gradient.shape[1] - 1) * stride + 1

  def gradient_of_row(first: Any) -> Any:
    seen = jax.lax.dynamic_slice_in_dim(padded, first, span, axis=1)
    row = (1, *taps[1:])
    return _gradient_of_taps(stride, ((0, 0), *padding[1:]), row, seen, gradient)

  rows = jax.lax.map(gradient_of_row, jnp.arange(taps[0]))
  return rows.reshape(kernel.shape)


def _gradient_of_taps(
  stride: int, padding: Padding, taps: tuple[int, ...], x: Any, gradient: Any
) -> Any:
  """Return the gradient of each tap, [taps, c].

  For each tap it is summed map by map over the examples, and then over the map by a product with
  ones. Left to itself XLA reduces each of the products over all axes but the last in one go, which
  takes its CPU backend eight times as long.
  """
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
  return jnp.stack([ones @ total.reshape(points, -1) for total in totals])


shifted.defvjp(_forward, _backward)


def _sum_of_products(stride: int, padding: Padding, kernel: Any) -> Callable[[Any], Any]:
  """Return the convolution as a function of x, which is linear in it."""
  taps = at_least_float32(kernel).reshape(-1, kernel.shape[-1])

  def sum_products(x: Any) -> Any:
    seen = windows(stride, padding, kernel.shape[:-2], x)
    return sum(window * tap for window, tap in zip(seen, taps, strict=True))

  return sum_products
