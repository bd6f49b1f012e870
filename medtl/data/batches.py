"""Dataset → numpy Batches, through grain: endless and shuffled by (seed, step) alone, or once and in order."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from medtl.core.types import Batch, Dataset, Draw, Example, MedtlError

Rows = tuple[
  np.ndarray, np.ndarray
]  # which examples a step takes [b], and which of them count: bool [b]


def train_batches(
  dataset: Dataset,
  batch: int,
  *,
  seed: int,
  start: int = 0,
  workers: int = 2,
  sampling: str = '',
  views: int = 1,
  share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
  """Return an endless iterator over the batches of steps start, start + 1, …; step t depends on (seed, t) alone.

  An epoch is ceil(size / batch) steps over a fresh permutation, each example once. The last step of an epoch is filled up
  with other pictures of that epoch, masked, so that batch statistics see pictures rather than zeros. `sampling='balanced'`:
  every example is drawn anew, first a class, then one of that class. `workers` threads read ahead; 0: nothing does.
  `views` > 1: dataset.fetch(i + v · size) is view v of example i; one epoch shows the first view of all, the next one the second …
  `share` (i, n): of each batch, the i-th of n equal parts alone is read, and returned; n divides the batch.
  """
  if not 1 <= batch <= dataset.size:
    raise MedtlError(
      f'a batch of {batch} from {dataset.size} examples; expected 1 <= batch <= {dataset.size}'
    )
  if sampling == 'balanced':
    rows = _balanced(_members(dataset), batch, seed, dataset.size, views)
  elif sampling == '':
    rows = _shuffled(dataset.size, batch, seed, views)
  else:
    raise MedtlError(
      f"sampling={sampling!r}; expected '' (each example once an epoch) or 'balanced' (classes alike)"
    )
  return _read(Steps(dataset, _part(rows, share), start, 2**31 - 1, dataset.draw, seed), workers)


def eval_batches(
  dataset: Dataset, batch: int, *, workers: int = 2, share: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
  """Return every example once, in order; the last batch is filled up with pictures of its own, masked. `share`: see `batches`."""

  def rows(step: int) -> Rows:
    index = np.arange(step * batch, min((step + 1) * batch, dataset.size))
    return np.resize(index, batch), np.arange(batch) < len(index)

  return _read(Steps(dataset, _part(rows, share), 0, math.ceil(dataset.size / batch)), workers)


def _part(rows: Callable[[int], Rows], share: tuple[int, int]) -> Callable[[int], Rows]:
  index, count = share

  def part(step: int) -> Rows:
    which, real = rows(step)
    size = len(which) // count
    assert size * count == len(which), f'{count} parts of a batch of {len(which)}'
    return which[index * size : (index + 1) * size], real[index * size : (index + 1) * size]

  return part


@dataclass(frozen=True)
class Steps:
  """What grain reads: element i is the batch of step start + i, made anew each time from rows(step)."""

  dataset: Dataset
  rows: Callable[[int], Rows]
  start: int
  count: int
  draw: Draw | None = None
  seed: int = 0

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, item: Any) -> Batch:
    step = self.start + int(item)
    index, mask = self.rows(step)
    examples = [self.fetch(int(place), step) for place in index]
    x = np.stack([example.x for example in examples])
    if x.dtype.name != 'bfloat16':  # activations may be kept in it
      x = x.astype(np.float32, copy=False)
    y = np.stack([example.y for example in examples])
    y = y.astype(np.float32 if y.dtype.kind == 'f' else np.int32)
    row = np.where(mask, [example.row for example in examples], -1).astype(np.int32)
    return Batch._make((x, y, mask, row, self.groups(index)))

  def fetch(self, place: int, step: int) -> Example:
    """Return an example; what is drawn of it is a function of (seed, step, row)."""
    example = self.dataset.fetch(place)
    if self.draw is None:
      return example
    return self.draw(example, np.random.default_rng([self.seed, step, example.row]))

  def groups(self, index: np.ndarray) -> np.ndarray | None:
    """Return the group of each example; None where the data set has no groups."""
    table = self.dataset.table
    if 'group' not in table:
      return None
    return np.asarray(table['group'])[index % len(table['group'])].astype(np.int32)


def _read(steps: Steps, workers: int) -> Iterator[Batch]:
  import grain

  options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers)
  return iter(grain.MapDataset.source(steps).to_iter_dataset(options))


def _shuffled(size: int, batch: int, seed: int, views: int) -> Callable[[int], Rows]:
  epoch = math.ceil(size / batch)
  order = lru_cache(maxsize=2)(lambda number: _random(seed, number).permutation(size))

  def rows(step: int) -> Rows:
    shuffled, place = order(step // epoch), np.arange(batch) + step % epoch * batch
    return shuffled[place % size] + step // epoch % views * size, place < size

  return rows


def _balanced(
  members: Sequence[np.ndarray], batch: int, seed: int, size: int, views: int
) -> Callable[[int], Rows]:
  def rows(step: int) -> Rows:
    random = _random(seed, step)
    share, kinds = random.random_sample(batch), random.randint(len(members), size=batch)
    index = [
      members[kind][int(one * len(members[kind]))] for kind, one in zip(kinds, share, strict=True)
    ]
    return np.array(index) + step % views * size, np.ones(batch, bool)

  return rows


def _members(dataset: Dataset) -> list[np.ndarray]:
  """Return each class's examples; classes without any are left out."""
  y = np.asarray(dataset.table['y'])
  if y.ndim != 1 or y.dtype.kind not in 'iu':
    raise MedtlError(
      "sampling='balanced' needs one class an example; for several labels use class weights in the loss"
    )
  return [np.flatnonzero(y == kind) for kind in np.unique(y)]


def _random(seed: int, number: int) -> np.random.RandomState:
  """Return a stream of its own for (seed, number); RandomState's algorithms are frozen across numpy's versions."""
  return np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, number])))
