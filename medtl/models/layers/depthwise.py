"""The convolution of each channel by itself, in the lowering that is fast where it runs.

XLA's CPU backend takes a grouped convolution 10 to 50 times as long as a sum of k² shifted products, and counts its gradients as
dense ones. Accelerators have an operation for it.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from medtl.models.layers.convolution import convolve, windows
from medtl.models.layers.matmul import shared, wide

Shape = tuple[int, ...]


def depthwise(x: Any, kernel: Any, stride: int) -> Any:
  """Return x [b, *s, c] convolved with kernel [*k, 1, c], padded as TensorFlow does ('SAME': the odd pixel after)."""
  return jax.lax.platform_dependent(
    x, kernel, cpu=partial(shifted, stride), default=partial(grouped, stride)
  )


def grouped(stride: int, x: Any, kernel: Any) -> Any:
  """Return the convolution as XLA has it."""
  return convolve(x, kernel, stride, 'SAME', groups=x.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def shifted(stride: int, x: Any, kernel: Any) -> Any:
  """Return the convolution as a sum of shifted products, taken in float32 at least."""
  return _products(stride, kernel)(wide(x)).astype(x.dtype)


def _forward(stride: int, x: Any, kernel: Any) -> tuple[Any, tuple[Any, Any]]:
  return shifted(stride, x, kernel), (x, kernel)


def _backward(stride: int, saved: tuple[Any, Any], gradient: Any) -> tuple[Any, Any]:
  """Return the gradients of x and kernel.

  The kernel's is summed map by map over the examples, and then over each map by a product with ones. Left to itself XLA reduces
  each of the k² products over all axes but the last in one go, which takes its CPU backend eight times as long.
  """
  x, kernel = saved
  sums = jnp.promote_types(gradient.dtype, jnp.float32)

  def add(totals: list[Any], example: tuple[Any, Any]) -> tuple[list[Any], None]:
    x, gradient = example
    cut = _windows(stride, x[None], kernel.shape[:-2])
    return [total + window[0] * gradient for total, window in zip(totals, cut, strict=True)], None

  if shared():
    maps = [
      jnp.sum(window * gradient, 0, dtype=sums) for window in _windows(stride, x, kernel.shape[:-2])
    ]
  else:
    maps = [jnp.zeros(gradient.shape[1:], sums)] * math.prod(kernel.shape[:-2])
    maps, _ = jax.lax.scan(add, maps, (x, gradient))
  ones = jnp.ones(math.prod(gradient.shape[1:-1]), sums)
  summed = jnp.stack([ones @ total.reshape(len(ones), -1) for total in maps])
  (back,) = jax.linear_transpose(_products(stride, kernel), wide(x))(wide(gradient))
  return back.astype(x.dtype), summed.reshape(kernel.shape).astype(kernel.dtype)


shifted.defvjp(_forward, _backward)


def _products(stride: int, kernel: Any) -> Callable[[Any], Any]:
  """Return the function of x that is linear in it."""
  taps = wide(kernel).reshape(-1, kernel.shape[-1])
  return lambda x: sum(
    window * tap for window, tap in zip(_windows(stride, x, kernel.shape[:-2]), taps, strict=True)
  )


def _windows(stride: int, x: Any, taps: Shape) -> list[Any]:
  return windows(
    stride,
    tuple(jax.lax.padtype_to_pads(x.shape[1:-1], taps, (stride,) * len(taps), 'SAME')),
    x,
    taps,
  )
