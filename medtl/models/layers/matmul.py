"""x @ kernel and its gradients, in the lowering that is fast where it runs; accelerators take what XLA has."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

LARGE, SMALL = 4096, 64  # rows of a piece that stays in the second cache, and in the first


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(way: str, x: Any, kernel: Any) -> Any:
  """Return x [..., c] @ kernel [c, d], in their dtype; `way` is how a CPU sums the kernel's gradient: 'pieces' or 'whole'."""
  return _narrow(x, kernel)


def _backward(way: str, saved: tuple[Any, Any], gradient: Any) -> tuple[Any, Any]:
  x, kernel = saved
  rows = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
  fast = (
    at_once
    if shared()
    else _turned
    if x.dtype == jnp.bfloat16
    else in_pieces
    if way == 'pieces'
    else at_once
  )
  summed = jax.lax.platform_dependent(*rows, cpu=fast, default=at_once)
  return _narrow(gradient, kernel.T), summed.astype(kernel.dtype)


_product.defvjp(lambda way, x, kernel: (_product(way, x, kernel), (x, kernel)), _backward)
product = jax.jit(
  _product, static_argnums=0
)  # traced once for each shape: a ViT-B has seventy of them


def shared() -> bool:
  """Return whether several devices share a batch: a loop over its rows or examples would then send all of them to all devices."""
  return jax.device_count() > 1


def wide(x: Any) -> Any:
  """Return x in float32 at least."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _narrow(x: Any, kernel: Any) -> Any:
  """Return x @ kernel in their dtype. XLA's CPU backend uses bfloat16 units only where the result is asked for in float32."""
  return jax.lax.platform_dependent(
    x,
    kernel,
    default=jnp.matmul,
    cpu=lambda x, kernel: jnp.matmul(
      x, kernel, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32)
    ).astype(x.dtype),
  )


def at_once(x: Any, gradient: Any) -> Any:
  """Return xᵀ @ gradient of [r, c] and [r, d], in float32 at least."""
  return jnp.einsum(
    'ri,ro->io', x, gradient, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32)
  )


def _pieces(rows: int) -> int:
  """Return in how many pieces of no more than LARGE rows, at least two, so many rows are cut; one where they do not divide."""
  least = max(2, -(-rows // LARGE))
  return next((count for count in range(least, 2 * least + 64) if rows % count == 0), 1)


def in_pieces(x: Any, gradient: Any) -> Any:
  """Return xᵀ @ gradient piece by piece of the rows.

  XLA's CPU backend transposes an operand first: a piece stays in the cache. And what makes the gradient is computed once, before the
  loop; left to itself XLA makes it a second time inside the transposition, with strides that miss the cache.
  """
  rows = len(x) // _pieces(len(x))
  begin = jnp.zeros((x.shape[-1], gradient.shape[-1]), jnp.promote_types(x.dtype, jnp.float32))
  cut = lambda leaf, index: jax.lax.dynamic_slice_in_dim(leaf, index * rows, rows)
  return jax.lax.fori_loop(
    0,
    len(x) // rows,
    lambda index, total: total + at_once(cut(x, index), cut(gradient, index)),
    begin,
  )


def _turned(x: Any, gradient: Any) -> Any:
  """Return xᵀ @ gradient of bfloat16 with x transposed by a loop: left to itself XLA folds it into a product without bfloat16 units.

  The last of the pieces may begin within the one before it. There are two at least: one is no loop, and that product XLA refuses.
  """
  rows = min(SMALL, len(x))
  pieces = max(2, -(-len(x) // rows))

  def turn(x: Any) -> Any:
    def put(index: Any, made: Any) -> Any:
      begin = jnp.minimum(index * rows, len(x) - rows)
      return jax.lax.dynamic_update_slice_in_dim(
        made, jax.lax.dynamic_slice_in_dim(x, begin, rows).T, begin, 1
      )

    return jax.lax.fori_loop(0, pieces, put, jnp.zeros(x.shape[::-1], x.dtype))

  return jnp.matmul(moved(turn, x), gradient, preferred_element_type=jnp.float32)


def moved(move: Callable[[Any], Any], x: Any) -> Any:
  """Return move(x) of bfloat16, where move only copies numbers, done on their bits.

  XLA's CPU backend converts bfloat16 to copy it, and what a loop collects as a whole in each turn.
  """
  return jax.lax.bitcast_convert_type(
    move(jax.lax.bitcast_convert_type(x, jnp.uint16)), jnp.bfloat16
  )


@jax.custom_vjp
def _biased(x: Any, bias: Any) -> Any:
  """Return x [..., d] + bias [d]."""
  return x + bias


_biased.defvjp(
  lambda x, bias: (x + bias, bias),
  lambda bias, gradient: (gradient, sums(gradient).astype(bias.dtype)),
)
biased = jax.jit(_biased)


def sums(x: Any) -> Any:
  """Return the sums over all axes but the last, in float32 at least.

  A CPU takes them as a product with ones: XLA sums what was bfloat16 in a tree of windows, four times as long.
  """
  wide = jnp.promote_types(x.dtype, jnp.float32)
  x = x.reshape(-1, x.shape[-1])
  return jax.lax.platform_dependent(
    x,
    default=lambda x: x.sum(0, dtype=wide),
    cpu=lambda x: jnp.matmul(jnp.ones(len(x), x.dtype), x, preferred_element_type=wide),
  )
