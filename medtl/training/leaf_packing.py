"""Small leaves of a checkpoint, packed into one array for each dtype.

Writing a leaf of its own takes time from the cores that train.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

SMALL = 2**22  # bytes below which leaves are written together
Packed = dict[str, list[tuple[str, list[int]]]]  # {dtype: [(path, shape), …]}


def pack_small_leaves(leaves: Mapping[str, Any]) -> tuple[dict[str, Any], Packed]:
  """Return ({name: array} to write, what was packed): small leaves of one dtype become one array.

  Large leaves, and those cut over devices, keep an array of their own; its name has | for /, at
  which orbax would split it.
  """
  arrays: dict[str, Any] = {}
  small: dict[str, dict[str, np.ndarray]] = {}  # {dtype: {path: leaf}}
  for path, leaf in leaves.items():
    whole = getattr(leaf, 'is_fully_replicated', True)
    if whole and leaf.nbytes < SMALL:
      small.setdefault(leaf.dtype.name, {})[path] = np.asarray(leaf)
    else:
      arrays[path.replace('/', '|')] = leaf
  packed: Packed = {}
  for dtype, group in small.items():
    arrays[dtype] = np.concatenate([leaf.ravel() for leaf in group.values()])
    packed[dtype] = [(path, list(leaf.shape)) for path, leaf in group.items()]
  return arrays, packed


def unpack_small_leaves(stored: Mapping[str, Any], packed: Mapping[str, Any]) -> dict[str, Any]:
  """Return {path: array} of what `pack_small_leaves` gave; the inverse of it.

  Where `stored` holds orbax's metadata in place of arrays, so does the result. Raises a ValueError
  where an array does not hold as many numbers as were packed.
  """
  leaves = {name.replace('|', '/'): leaf for name, leaf in stored.items() if name not in packed}
  for dtype, group in packed.items():
    array = stored[dtype]
    total = sum(math.prod(shape) for _, shape in group)
    if array.shape != (total,):
      raise ValueError(f'{dtype}: {array.shape} numbers, expected {total}')
    is_array = isinstance(array, np.ndarray | jax.Array)
    begin = 0
    for path, shape in group:
      end = begin + math.prod(shape)
      if is_array:
        leaves[path] = np.asarray(array)[begin:end].reshape(shape)
      else:
        leaves[path] = jax.ShapeDtypeStruct(shape, array.dtype)
      begin = end
  return leaves
