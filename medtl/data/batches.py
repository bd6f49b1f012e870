"""Dataset → numpy Batches, through grain: endless and shuffled, or once and in order.

Which examples a shuffled batch holds depends on (seed, step) alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from medtl.core.types import Batch, Dataset, Draw, Example, MedtlError

Rows = tuple[np.ndarray, np.ndarray]  # examples of a step [b], and which of them count: bool [b]


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
  """Return an endless iterator over the batches of steps start, start + 1, …

  The batch of step t depends on (seed, t) alone. An epoch is ceil(size / batch) steps over a fresh
  permutation, each example once. The last step of an epoch is filled up with other pictures of
  that epoch, masked, so that batch statistics see pictures rather than zeros.

  `workers`: so many threads read ahead; with 0 none does.
  `sampling='balanced'`: each example is drawn anew, first a class, then an example of that class.
  `views` > 1: dataset.fetch(i + v · size) is view v of example i. One epoch shows the first view of
  all examples, the next one the second, and so on.
  `share` (i, n): only the i-th of n equal parts of each batch is read and returned; n divides the
  batch.
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
      f"sampling={sampling!r}; expected '' (each example once an epoch) or 'balanced' (classes "
      'alike)'
    )
  steps = Steps(dataset, _part(rows, share), start, 2**31 - 1, dataset.draw, seed)
  return _read(steps, workers)


def eval_batches(
  dataset: Dataset, batch: int, *, workers: int = 2, share: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
  """Return every example once, in order; see `train_batches` for `workers` and `share`.

  The last batch is filled up with pictures of its own, masked.
  """

  def rows(step: int) -> Rows:
    end = min((step + 1) * batch, dataset.size)
    index = np.arange(step * batch, end)
    return np.resize(index, batch), np.arange(batch) < len(index)

  steps = math.ceil(dataset.size / batch)
  return _read(Steps(dataset, _part(rows, share), 0, steps), workers)


def _part(rows: Callable[[int], Rows], share: tuple[int, int]) -> Callable[[int], Rows]:
  index, count = share

  def part(step: int) -> Rows:
    places, real = rows(step)
    size = len(places) // count
    assert size * count == len(places), f'{count} parts of a batch of {len(places)}'
    own = slice(index * size, (index + 1) * size)
    return places[own], real[own]

  return part


@dataclass(frozen=True)
class Steps:
  """What grain reads: element i is the batch of step start + i, made anew from rows(step)."""

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
    group = np.asarray(table['group'])
    return group[index % len(group)].astype(np.int32)


def _read(steps: Steps, workers: int) -> Iterator[Batch]:
  import grain

  options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers)
  return iter(grain.MapDataset.source(steps).to_iter_dataset(options))


def _shuffled(size: int, batch: int, seed: int, views: int) -> Callable[[int], Rows]:
  steps = math.ceil(size / batch)  # of an epoch
  order = lru_cache(maxsize=2)(lambda epoch: _random(seed, epoch).permutation(size))

  def rows(step: int) -> Rows:
    epoch, step_of_epoch = divmod(step, steps)
    place = np.arange(batch) + step_of_epoch * batch
    first_of_view = epoch % views * size
    return order(epoch)[place % size] + first_of_view, place < size

  return rows


def _balanced(
  members: Sequence[np.ndarray], batch: int, seed: int, size: int, views: int
) -> Callable[[int], Rows]:
  def rows(step: int) -> Rows:
    random = _random(seed, step)
    shares = random.random_sample(batch)
    kinds = random.randint(len(members), size=batch)
    index = []
    for kind, share in zip(kinds, shares, strict=True):
      of_class = members[kind]
      index.append(of_class[int(share * len(of_class))])
    first_of_view = step % views * size
    return np.array(index) + first_of_view, np.ones(batch, bool)

  return rows


def _members(dataset: Dataset) -> list[np.ndarray]:
  """Return each class's examples; classes without any are left out."""
  y = np.asarray(dataset.table['y'])
  if y.ndim != 1 or y.dtype.kind not in 'iu':
    raise MedtlError(
      "sampling='balanced' needs one class an example; for several labels use class weights in "
      'the loss'
    )
  return [np.flatnonzero(y == kind) for kind in np.unique(y)]


def _random(seed: int, number: int) -> np.random.RandomState:
  """Return a random stream of its own for (seed, number).

  RandomState's algorithms are frozen across numpy's versions.
  """
  sequence = np.random.SeedSequence([seed, number])
  return np.random.RandomState(np.random.MT19937(sequence))
