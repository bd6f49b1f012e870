"""Matrix products and their gradients, each in the lowering that is fast where it runs.

Accelerators take what XLA has. A CPU has lowerings of its own for the gradient of a kernel, for
bfloat16 and for sums over rows.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from medtl.models.layers.precision import sum_dtype

LARGE = 4096  # rows of a piece that stays in a CPU's second-level cache
SMALL = 64  # rows of a piece that stays in its first-level cache


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(way: str, x: Any, kernel: Any) -> Any:
  """Return x [..., c] @ kernel [c, d] in their dtype.

  `way` is how a CPU sums the gradient of the kernel: in 'pieces' of the rows, or as a 'whole'.
  """
  return _multiply(x, kernel)


def _product_forward(way: str, x: Any, kernel: Any) -> tuple[Any, tuple[Any, Any]]:
  return _product(way, x, kernel), (x, kernel)


def _product_backward(way: str, saved: tuple[Any, Any], gradient: Any) -> tuple[Any, Any]:
  x, kernel = saved
  x_rows = x.reshape(-1, x.shape[-1])
  gradient_rows = gradient.reshape(-1, gradient.shape[-1])
  on_cpu = _cpu_kernel_gradient(way, x.dtype)
  kernel_gradient = jax.lax.platform_dependent(
    x_rows, gradient_rows, cpu=on_cpu, default=kernel_gradient_at_once
  )
  x_gradient = _multiply(gradient, kernel.T)
  return x_gradient, kernel_gradient.astype(kernel.dtype)


def _cpu_kernel_gradient(way: str, dtype: Any) -> Callable[[Any, Any], Any]:
  """Return the function of (x, gradient) that a CPU sums the gradient of a kernel with."""
  if several_devices():
    return kernel_gradient_at_once
  if dtype == jnp.bfloat16:
    return _kernel_gradient_of_bfloat16
  return _kernel_gradient_in_pieces if way == 'pieces' else kernel_gradient_at_once


_product.defvjp(_product_forward, _product_backward)
# traced once for each shape: a ViT-B has seventy of them
product = jax.jit(_product, static_argnums=0)


def several_devices() -> bool:
  """Return whether several devices share a batch.

  A loop over the rows or examples of the batch would then send all of them to all devices.
  """
  return jax.device_count() > 1


def _multiply(x: Any, kernel: Any) -> Any:
  """Return x @ kernel in their dtype."""
  return jax.lax.platform_dependent(x, kernel, cpu=_multiply_on_cpu, default=jnp.matmul)


def _multiply_on_cpu(x: Any, kernel: Any) -> Any:
  """Return x @ kernel by way of float32: otherwise XLA leaves a CPU's bfloat16 units unused."""
  y = jnp.matmul(x, kernel, preferred_element_type=sum_dtype(x))
  return y.astype(x.dtype)


def kernel_gradient_at_once(x: Any, gradient: Any) -> Any:
  """Return xᵀ @ gradient of [r, c] and [r, d], in float32 at least."""
  return jnp.einsum('rc,rd->cd', x, gradient, preferred_element_type=sum_dtype(x))


def _count_pieces(rows: int) -> int:
  """Return into how many equal pieces the rows are cut.

  There are two pieces or more, each of LARGE rows at most. Where no such number divides the rows
  they remain one piece.
  """
  least = max(2, math.ceil(rows / LARGE))
  for count in range(least, 2 * least + 64):
    if rows % count == 0:
      return count
  return 1


def _kernel_gradient_in_pieces(x: Any, gradient: Any) -> Any:
  """Return xᵀ @ gradient of [r, c] and [r, d], summed over pieces of the rows.

  XLA's CPU backend transposes an operand first: that of a piece stays in the cache. The loop also
  makes XLA compute the gradient once, before the loop. Left to itself XLA computes it a second time
  inside the transposition, with strides that miss the cache.
  """
  pieces = _count_pieces(len(x))
  rows = len(x) // pieces

  def piece(array: Any, index: Any) -> Any:
    return jax.lax.dynamic_slice_in_dim(array, index * rows, rows)

  def add_piece(index: Any, total: Any) -> Any:
    return total + kernel_gradient_at_once(piece(x, index), piece(gradient, index))

  zeros = jnp.zeros((x.shape[-1], gradient.shape[-1]), sum_dtype(x))
  return jax.lax.fori_loop(0, pieces, add_piece, zeros)


def _kernel_gradient_of_bfloat16(x: Any, gradient: Any) -> Any:
  """Return xᵀ @ gradient of bfloat16 [r, c] and [r, d], in float32.

  A loop transposes x: left to itself XLA folds the transposition into a product that does not use
  bfloat16 units. The last piece may overlap the one before it. There are two pieces at least, as a
  loop of one turn would be unrolled, and XLA refuses the product that remains.
  """
  rows = min(SMALL, len(x))
  pieces = max(2, math.ceil(len(x) / rows))

  def transpose(x: Any) -> Any:
    def put_piece(index: Any, transposed: Any) -> Any:
      begin = jnp.minimum(index * rows, len(x) - rows)
      piece = jax.lax.dynamic_slice_in_dim(x, begin, rows)
      return jax.lax.dynamic_update_slice_in_dim(transposed, piece.T, begin, 1)

    zeros = jnp.zeros(x.shape[::-1], x.dtype)
    return jax.lax.fori_loop(0, pieces, put_piece, zeros)

  transposed = copy_bits(transpose, x)
  return jnp.matmul(transposed, gradient, preferred_element_type=jnp.float32)


def copy_bits(copy: Callable[[Any], Any], x: Any) -> Any:
  """Return copy(x) of bfloat16 x, where `copy` only moves numbers, done on their bits.

  XLA's CPU backend converts bfloat16 in order to copy it. In a loop it converts all that the loop
  collects, in every turn.
  """
  return bfloat16_of_bits(copy(bits_of_bfloat16(x)))


def bits_of_bfloat16(x: Any) -> Any:
  """Return the bits of bfloat16 numbers as integers of 16 bits."""
  return jax.lax.bitcast_convert_type(x, jnp.uint16)


def bfloat16_of_bits(bits: Any) -> Any:
  """Return the bfloat16 numbers that have these bits."""
  return jax.lax.bitcast_convert_type(bits, jnp.bfloat16)


@jax.custom_vjp
def _biased(x: Any, bias: Any) -> Any:
  """Return x [..., d] + bias [d]."""
  return x + bias


def _biased_forward(x: Any, bias: Any) -> tuple[Any, Any]:
  return x + bias, bias


def _biased_backward(bias: Any, gradient: Any) -> tuple[Any, Any]:
  bias_gradient = sums(gradient)
  return gradient, bias_gradient.astype(bias.dtype)


_biased.defvjp(_biased_forward, _biased_backward)
biased = jax.jit(_biased)


def sums(x: Any) -> Any:
  """Return the sums [d] of x [..., d] over all axes but the last, in float32 at least.

  A CPU takes them as a product with ones: XLA sums what was bfloat16 in a tree of windows, which
  takes four times as long.
  """
  dtype = sum_dtype(x)

  def multiply_by_ones(rows: Any) -> Any:
    ones = jnp.ones(len(rows), rows.dtype)
    return jnp.matmul(ones, rows, preferred_element_type=dtype)

  def reduce(rows: Any) -> Any:
    return rows.sum(0, dtype=dtype)

  rows = x.reshape(-1, x.shape[-1])
  return jax.lax.platform_dependent(rows, cpu=multiply_by_ones, default=reduce)
