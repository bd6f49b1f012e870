"""The frozen prefix, computed once and kept: a data set of pictures becomes one of activations at the freeze boundary."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medtl import tree
from medtl.disk import require_space, whole
from medtl.types import Batch, Dataset, Example, Tree


def fingerprint(params: Tree, statistics: Tree, dataset: Dataset, **facts: Any) -> str:
  """Return the name of a cache: a hash of the prefix's parameters and statistics, of the data, and of what else `facts` says."""
  digest = hashlib.sha256(json.dumps({**facts, 'data': dataset.facts.get('hash', ''), 'ops': dataset.facts.get('ops', '')},
                                     sort_keys=True, default=str).encode())
  digest.update(np.asarray(dataset.table['row']).tobytes())
  for path, leaf in sorted(tree.flatten({'params': params, 'statistics': statistics}).items()):
    digest.update(path.encode() + np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()[:32]


def prefix(variables: Tree, children: Iterable[str]) -> Tree:
  """Return the part of a collection that belongs to the given children of the backbone."""
  wanted = set(children)
  return {name: value for name, value in variables.get('backbone', {}).items() if name in wanted}


def cached(apply: Callable[[Any], jax.Array], dataset: Dataset, batches: Iterable[Batch], path: Path) -> tuple[Dataset, bool]:
  """Return the data set whose pictures are `apply(x)`, memory-mapped from `path`, and whether it was there already.

  `batches` are the data set's, in order; rows, labels and table stay what they are.
  """
  found = path.exists()
  if not found:
    _write(apply, dataset.size, batches, path)
  os.utime(path)                                       # the oldest by use goes first when the folder is full
  values = np.load(path, mmap_mode='r')
  labels, rows = dataset.table['y'], dataset.table['row']
  return Dataset(lambda i: Example(np.asarray(values[i]), labels[i], int(rows[i])), dataset.size, dataset.classes,
                 dataset.table, dataset.facts), found


def _write(apply: Callable[[Any], jax.Array], size: int, batches: Iterable[Batch], path: Path) -> None:
  done, values = 0, None
  with whole(path) as aside:
    for batch in batches:
      value = np.asarray(apply(batch.x))[np.asarray(batch.mask)]
      if values is None:
        require_space(path.parent, size * value[0].nbytes, 'the cached activations',
                      "set config.cache='off', or MEDTL_CACHE to a folder on a larger disk")
        values = np.lib.format.open_memmap(aside, 'w+', value.dtype, (size, *value.shape[1:]))
      values[done:done + len(value)] = value
      done += len(value)
    assert values is not None and done == size, f'{done} of {size} examples came out of the batches'
    values.flush()
