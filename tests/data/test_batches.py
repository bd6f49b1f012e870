"""Laws of streams: each example once an epoch, step t from (seed, t) alone, padding masked."""

from itertools import islice

import chex
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtl.core.types import Dataset, Example, MedtlError
from medtl.data import batches


def numbered(size: int, y: np.ndarray | None = None) -> Dataset:
  """Picture i is full of i; its row is 100 + i."""
  y = np.arange(size) % 3 if y is None else y

  def fetch(index: int) -> Example:
    return Example(np.full((4, 5, 1), index, np.float32), y[index], 100 + index)

  return Dataset(fetch, size, ('a', 'b', 'c'), {'row': 100 + np.arange(size), 'y': y})


def take(iterator, count: int) -> list:
  return list(islice(iterator, count))


def equal(a: list, b: list) -> None:
  for one, other in zip(a, b, strict=True):
    chex.assert_trees_all_equal(one, other)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 23), part=st.floats(0, 1), seed=st.integers(0, 99))
def test_every_epoch_counts_every_example_once(size, part, seed):
  batch = 1 + int(part * (size - 1))
  epoch = -(-size // batch)
  steps = take(batches.train_batches(numbered(size), batch, seed=seed, workers=0), 3 * epoch)
  for start in (0, epoch, 2 * epoch):
    rows = np.concatenate([step.row[step.mask] for step in steps[start : start + epoch]])
    assert sorted(rows) == list(range(100, 100 + size))
  for step in steps:
    chex.assert_shape(step[:4], [(batch, 4, 5, 1), (batch,), (batch,), (batch,)])
    assert (step.row[~step.mask] == -1).all() and (
      step.row[step.mask] == 100 + step.x[step.mask, 0, 0, 0]
    ).all()
    assert (
      len(set(step.x[:, 0, 0, 0])) == batch
    )  # what fills up are other pictures, not repetitions
  assert steps[0].y.dtype == np.int32 and steps[0].row.dtype == np.int32


@pytest.mark.parametrize('sampling', ['', 'balanced'])
def test_a_stream_resumes_at_any_step_with_any_number_of_workers(sampling):
  whole = take(batches.train_batches(numbered(11), 4, seed=5, sampling=sampling), 9)
  for start, workers in ((0, 0), (4, 0), (7, 3)):
    resumed = batches.train_batches(
      numbered(11), 4, seed=5, start=start, workers=workers, sampling=sampling
    )
    equal(take(resumed, 9 - start), whole[start:])
  other = take(batches.train_batches(numbered(11), 4, seed=6, sampling=sampling), 9)
  assert any((a.row != b.row).any() for a, b in zip(whole, other, strict=True))


def test_epochs_differ():
  steps = take(batches.train_batches(numbered(40), 40, seed=0), 3)
  assert (steps[0].row != steps[1].row).any() and (steps[1].row != steps[2].row).any()


def test_balanced_sampling_shows_rare_classes_as_often():
  y = np.array([0] * 90 + [1] * 9 + [2])
  steps = take(
    batches.train_batches(numbered(100, y), 50, seed=1, sampling='balanced', workers=0), 60
  )
  share = np.bincount(np.concatenate([step.y for step in steps])) / 3000
  np.testing.assert_allclose(share, 1 / 3, atol=4 * np.sqrt(2 / 9 / 3000))
  first = np.concatenate([step.row[step.y == 0] for step in steps])
  assert len(set(first)) == 90 and all(step.mask.all() for step in steps)


@pytest.mark.parametrize('size, batch', [(10, 4), (8, 4), (3, 8)])
def test_once_is_in_order_and_padded(size, batch):
  steps = list(batches.eval_batches(numbered(size), batch))
  assert len(steps) == -(-size // batch) and all(step.x.shape == (batch, 4, 5, 1) for step in steps)
  np.testing.assert_array_equal(
    np.concatenate([step.row[step.mask] for step in steps]), 100 + np.arange(size)
  )
  assert (
    sum(step.mask.sum() for step in steps) == size and (steps[-1].row[~steps[-1].mask] == -1).all()
  )
  equal(list(batches.eval_batches(numbered(size), batch, workers=0)), steps)


def test_many_labels_stay_vectors_of_float():
  y = np.eye(3, dtype=np.float64)[np.arange(6) % 3]
  step = next(batches.train_batches(numbered(6, y), 4, seed=0))
  chex.assert_shape(step.y, (4, 3))
  assert step.y.dtype == np.float32
  with pytest.raises(MedtlError, match='one class an example'):
    batches.train_batches(numbered(6, y), 4, seed=0, sampling='balanced')


@pytest.mark.parametrize(
  'keys, words',
  [
    (dict(batch=12), '12 from 11'),
    (dict(batch=0), '1 <= batch'),
    (dict(batch=4, sampling='fair'), "'balanced'"),
  ],
)
def test_wrong_streams_say_what_is_right(keys, words):
  with pytest.raises(MedtlError, match=words):
    batches.train_batches(numbered(11), seed=0, **keys)


def test_an_error_while_reading_reaches_the_reader():
  def fetch(index: int) -> Example:
    raise MedtlError(f'row {index} is gone')

  broken = Dataset(fetch, 4, ('a',), numbered(4).table)
  with pytest.raises(MedtlError, match='row 0 is gone'):
    next(batches.eval_batches(broken, 2))
