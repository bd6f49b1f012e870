"""Half precision is summed in float32: the dtype of sums, and arrays promoted to it."""

from typing import Any

import jax.numpy as jnp


def sum_dtype(x: Any) -> Any:
  """Return the dtype in which numbers like x are summed: their own, but float32 at least."""
  return jnp.promote_types(x.dtype, jnp.float32)


def at_least_float32(x: Any) -> Any:
  """Return x in float32, or in its own dtype where that is wider."""
  return x.astype(sum_dtype(x))
