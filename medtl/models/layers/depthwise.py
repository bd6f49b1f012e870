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

from medtl.models.layers.convolution import Padding, Shape, convolve, explicit_padding, windows
from medtl.models.layers.matmul import several_devices
from medtl.models.layers.precision import at_least_float32, sum_dtype

# taps of a kernel: with more, the sums are taken in loops, and the gradient of x by turned taps
MANY = 25


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
  taps = kernel.shape[:-2]
  kernel_gradient_of = _kernel_gradient_by_rows if _in_loops(kernel) else _kernel_gradient
  kernel_gradient = kernel_gradient_of(stride, padding, taps, x, gradient)
  x_gradient = _x_gradient(stride, padding, x, kernel, at_least_float32(gradient))
  return x_gradient.astype(x.dtype), kernel_gradient.astype(kernel.dtype)


def _x_gradient(stride: int, padding: Padding, x: Any, kernel: Any, gradient: Any) -> Any:
  """Return the gradient of x, in float32 at least.

  Of many taps it is the gradient, spread by the stride, convolved with the kernel turned round. For
  3×3 XLA's transpose of the sum is a third faster than that; a 7×7 takes up to six times as long.
  """
  if not _in_loops(kernel):
    sum_products = _sum_of_products(stride, padding, kernel)
    (x_gradient,) = jax.linear_transpose(sum_products, at_least_float32(x))(gradient)
    return x_gradient
  taps = kernel.shape[:-2]
  edges = [(0, 0, 0)]  # (before, after, between) of each axis
  for axis, (before, _) in enumerate(padding):
    span = (gradient.shape[axis + 1] - 1) * stride + 1
    after = x.shape[axis + 1] + before - span
    edges.append((taps[axis] - 1 - before, after, stride - 1))
  spread = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), [*edges, (0, 0, 0)])
  turned = jnp.flip(kernel, range(len(taps)))
  return _sum_of_products(1, ((0, 0),) * len(taps), turned)(spread)


def _kernel_gradient(stride: int, padding: Padding, taps: Shape, x: Any, gradient: Any) -> Any:
  """Return the gradient of a kernel [*taps, 1, c], in float32 at least.

  Where it has many taps, one row of them is taken after the other: to compile a loop that sums 49
  maps takes four times as long.
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
  sums = [ones @ total.reshape(points, -1) for total in totals]
  return jnp.stack(sums).reshape(*taps, 1, -1)


def _kernel_gradient_by_rows(
  stride: int, padding: Padding, taps: Shape, x: Any, gradient: Any
) -> Any:
  """Return the gradient of a kernel of many taps, as `_kernel_gradient`, one row after the other.

  A row is the taps that share their place along one axis. So there are 7 sums over the examples at
  a time, not 49: they stay in the cache, and take a third of the time to compile.
  """
  axis = next(index for index, count in enumerate(taps) if count > 1)
  row = (*taps[:axis], 1, *taps[axis + 1 :])
  edges = [(0, 0, 0)] * x.ndim
  edges[axis + 1] = (*padding[axis], 0)
  padded = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
  padding = (*padding[:axis], (0, 0), *padding[axis + 1 :])
  length = (gradient.shape[axis + 1] - 1) * stride + 1

  def gradient_of_row(place: Any) -> Any:
    seen = jax.lax.dynamic_slice_in_dim(padded, place, length, axis + 1)
    return _kernel_gradient(stride, padding, row, seen, gradient)

  rows = jax.lax.map(gradient_of_row, jnp.arange(taps[axis]))
  return jnp.moveaxis(rows.squeeze(axis + 1), 0, axis)


shifted.defvjp(_forward, _backward)


def _sum_of_products(stride: int, padding: Padding, kernel: Any) -> Callable[[Any], Any]:
  """Return the convolution as a function of x, which is linear in it.

  One of many taps is taken example by example: without the loop XLA writes down the windows, or
  computes the sum anew for each of its readers.
  """
  taps = at_least_float32(kernel).reshape(-1, kernel.shape[-1])

  def sum_products(x: Any) -> Any:
    seen = windows(stride, padding, kernel.shape[:-2], x)
    return sum(window * tap for window, tap in zip(seen, taps, strict=True))

  def sum_by_examples(x: Any) -> Any:
    return jax.lax.map(lambda example: sum_products(example[None])[0], x)

  return sum_by_examples if _in_loops(kernel) else sum_products


def _in_loops(kernel: Any) -> bool:
  """Return whether a kernel has so many taps that they are better taken in loops."""
  return math.prod(kernel.shape[:-2]) > MANY and not several_devices()
