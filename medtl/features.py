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


def digest(variables: Tree, children: Iterable[str]) -> str:
  """Return a hash of the children's leaves in every collection of `variables`: parameters and statistics."""
  found, wanted = hashlib.sha256(), set(children)
  for path, leaf in sorted(tree.flatten(variables).items()):
    where = path.split('/')                              # collection, backbone, child, …
    if where[1] == 'backbone' and where[2] in wanted:
      found.update(path.encode() + np.ascontiguousarray(leaf).tobytes())
  return found.hexdigest()


def fingerprint(digests: Iterable[str], dataset: Dataset, **facts: Any) -> str:
  """Return the name of a cache: a hash of the children's digests, of the data, and of what else `facts` says."""
  told = {**facts, 'children': list(digests), 'data': dataset.facts.get('hash', ''), 'ops': dataset.facts.get('ops', '')}
  whole = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
  whole.update(np.asarray(dataset.table['row']).tobytes())
  return whole.hexdigest()[:32]


def kept(dataset: Dataset, path: Path) -> Dataset:
  """Return the data set whose pictures are the activations in `path`, memory-mapped; rows, labels and table stay what they are."""
  os.utime(path)                                         # the oldest by use goes first when the folder is full
  values, labels, rows = np.load(path, mmap_mode='r'), dataset.table['y'], dataset.table['row']
  return Dataset(lambda i: Example(np.asarray(values[i]), labels[i], int(rows[i])), dataset.size, dataset.classes, dataset.table,
                 dataset.facts)


def compute(apply: Callable[[Any], jax.Array], size: int, batches: Iterable[Batch], path: Path) -> None:
  """Write apply(x) of `size` examples, which `batches` hold in order, to `path`; whole, or not at all."""
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
