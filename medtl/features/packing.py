"""What crosses a cut of a net as one array, so that it can be kept and batched like a picture."""

import math

import jax
import jax.numpy as jnp

from medtl.core.types import Tree


def pack(value: Tree) -> jax.Array:
  """Return a tree of arrays [b, …] as one array; a lone array stays what it is.

  Several become [b, n], one after the other, in the widest of their dtypes.
  """
  leaves = jax.tree.leaves(value)
  if len(leaves) == 1:
    return leaves[0]
  widest = jnp.result_type(*leaves)
  return jnp.concatenate([leaf.reshape(len(leaf), -1).astype(widest) for leaf in leaves], axis=1)


def unpack(packed: jax.Array, like: Tree) -> Tree:
  """Return the tree that `pack` made an array of; `like` holds shapes [1, …] and dtypes."""
  leaves, structure = jax.tree.flatten(like)
  if len(leaves) == 1:
    return jax.tree.unflatten(structure, [packed])
  parts = []
  begin = 0
  for leaf in leaves:
    end = begin + math.prod(leaf.shape[1:])
    values = packed[:, begin:end].reshape(len(packed), *leaf.shape[1:])
    parts.append(values.astype(leaf.dtype))
    begin = end
  return jax.tree.unflatten(structure, parts)
