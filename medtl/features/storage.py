"""The frozen children, computed once and kept: pictures become activations at the boundary."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medtl.core import pytrees
from medtl.core.types import Batch, Dataset, Example, MedtlError, Tree
from medtl.runtime import multihost
from medtl.runtime.files import atomic_write, require_space
from medtl.runtime.run_log import console

BFLOAT16 = np.uint16


def digest(variables: Tree, children: Iterable[str]) -> str:
  """Return a hash of the children's parameters and statistics, in every collection."""
  hashed = hashlib.sha256()
  wanted = set(children)
  for path, leaf in sorted(pytrees.flatten(variables).items()):
    where = path.split('/')  # collection, backbone, child, …
    if where[1] == 'backbone' and where[2] in wanted:
      hashed.update(path.encode() + np.ascontiguousarray(leaf).tobytes())
  return hashed.hexdigest()


def fingerprint(digests: Iterable[str], dataset: Dataset, **facts: Any) -> str:
  """Return the name of a cache: a hash of the children's digests, of the data, and of `facts`."""
  hashed = {
    **facts,
    'children': list(digests),
    'data': dataset.facts.get('hash', ''),
    'ops': dataset.facts.get('ops', ''),
  }
  whole = hashlib.sha256(json.dumps(hashed, sort_keys=True, default=str).encode())
  whole.update(np.asarray(dataset.table['row']).tobytes())
  return whole.hexdigest()[:32]


def stored_features(dataset: Dataset, path: Path) -> Dataset | None:
  """Return the data set whose pictures are the activations in `path`, memory-mapped.

  Rows, labels and table stay what they are. It is None where there is no such file. A file that is
  cut short or damaged is removed with a message, and counts as none.
  """
  if not path.exists():
    return None
  try:
    values = np.load(path, mmap_mode='r')
    if len(values) != dataset.size:
      raise ValueError(f'{len(values)} examples, expected {dataset.size}')
  except (ValueError, EOFError, OSError) as error:
    console.print(
      f'the cached activations in {path} are damaged ({error}): they are computed again'
    )
    path.unlink(missing_ok=True)
    return None
  # When the folder is full, the file that was used longest ago goes first.
  with contextlib.suppress(OSError):  # it may be read-only
    os.utime(path)
  if values.dtype == BFLOAT16:
    values = values.view(jnp.bfloat16)
  labels = dataset.table['y']
  rows = dataset.table['row']

  def fetch(index: int) -> Example:
    y = dataset.fetch(index).y if dataset.masks else labels[index]
    return Example(np.asarray(values[index]), y, int(rows[index]))

  return Dataset(fetch, dataset.size, dataset.classes, dataset.table, dataset.facts)


def stack_views(views: Sequence[Dataset]) -> Dataset:
  """Return a data set of one size with them all: example i + v · size is the i-th of view v."""
  size = views[0].size
  return dataclasses.replace(views[0], fetch=lambda i: views[i // size].fetch(i % size))


def compute(
  apply: Callable[[Batch], jax.Array], size: int, batches: Iterable[Batch], path: Path
) -> None:
  """Write apply(batch) of the `size` examples of `batches` to `path`, whole or not at all.

  numpy's format has no bfloat16: such values are written bit for bit as uint16.
  """
  done = 0
  values = None
  with _writable(path), atomic_write(path, own=True) as aside:
    for batch in batches:
      value, mask = multihost.to_numpy((apply(batch), batch.mask))
      value = value[mask]
      if value.dtype == jnp.bfloat16:
        value = value.view(BFLOAT16)
      if values is None:
        require_space(
          path.parent,
          size * value[0].nbytes,
          'the cached activations',
          "set config.cache='off', or MEDTL_CACHE to a folder on a larger disk",
        )
        values = np.lib.format.open_memmap(aside, 'w+', value.dtype, (size, *value.shape[1:]))
      values[done : done + len(value)] = value
      done += len(value)
    assert values is not None and done == size, f'{done} of {size} examples came out of the batches'
    values.flush()


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
  """Say what to do where the folder cannot be written to; others say it of a full disk."""
  try:
    yield
  except OSError as error:
    if error.errno == errno.ENOSPC:
      raise
    raise MedtlError(
      f'cannot write the cached activations to {path.parent}: {error.strerror}; set MEDTL_CACHE '
      "to a folder that can be written to, or config.cache='off'"
    ) from None
