"""Patches are boxes of the case, a function of (seed, step, row), often around the lesion."""

import numpy as np
import pytest

from medtl.core import expressions, frames
from medtl.core.types import Dataset, Example, MedtlError
from medtl.data import batches, patches


def case(shape=(12, 10, 7), row=0):
  random = np.random.RandomState(row)
  mask = np.zeros(shape, np.uint8)
  mask[1, 2, 3] = 1
  x = random.rand(*shape, 1).astype(np.float32)
  return Example(x, mask, row, frames.plain(shape, (1.0, 2.0, 3.0)))


def draw(text):
  return expressions.single_function(text, patches, given=('example', 'random'))


def test_a_patch_is_a_box_of_the_case_and_knows_its_place():
  whole = case()
  cut = draw('patch(4, 5, 3, foreground=0.0)')
  for seed in range(20):
    patch = cut(whole, np.random.default_rng(seed))
    begin = np.round(patch.frame.affine[:3, 3] / [1, 2, 3]).astype(int)
    box = tuple(slice(b, b + length) for b, length in zip(begin, (4, 5, 3), strict=True))
    np.testing.assert_array_equal(patch.x, whole.x[box])
    np.testing.assert_array_equal(patch.y, whole.y[box])


def test_each_place_where_a_box_fits_is_drawn():
  whole = case((6, 5, 4))
  cut = draw('patch(4, 5, 3, foreground=0.0)')
  begins = set()
  for seed in range(60):
    patch = cut(whole, np.random.default_rng(seed))
    begins.add(tuple(np.round(patch.frame.affine[:3, 3] / [1, 2, 3]).astype(int).tolist()))
  assert begins == {(x, 0, z) for x in range(3) for z in range(2)}


@pytest.mark.parametrize(
  'lesion, place',
  [((10, 9, 8), (2, 2, 1)), ((0, 9, 15), (0, 2, 2)), ((1, 15, 8), (1, 4, 1))],
)
def test_a_box_is_centred_on_the_lesion_as_nearly_as_it_fits(lesion, place):
  whole = case((16, 16, 16))
  whole.y[...] = 0
  whole.y[lesion] = 1
  for seed in range(5):
    patch = draw('patch(4, 5, 3, foreground=1.0)')(whole, np.random.default_rng(seed))
    assert np.argwhere(patch.y).tolist() == [list(place)]


def test_so_many_patches_hold_the_lesion():
  whole = case((40, 40, 40))
  share = np.mean(
    [draw('patch(4, foreground=0.5)')(whole, np.random.default_rng(s)).y.any() for s in range(400)]
  )
  assert 0.42 < share < 0.6
  assert draw('patch(4, foreground=1.0)')(whole, np.random.default_rng(0)).y.any()


def test_a_small_case_is_padded():
  patch = draw('patch(16)')(case(), np.random.default_rng(0))
  assert patch.x.shape == (16, 16, 16, 1) and patch.y.sum() == 1


def test_batches_draw_by_seed_step_and_row():
  cases = [case((9 + row, 8, 7), row) for row in range(4)]
  table = {'row': np.arange(4), 'y': np.zeros(4, int)}
  data = Dataset(cases.__getitem__, 4, ('background', 'lesion'), table, draw=draw('patch(5)'))

  def read(start, count, seed=0):
    found = batches.train_batches(data, 2, seed=seed, start=start, workers=0)
    return [next(found) for _ in range(count)]

  first = read(0, 5)
  assert all(batch.x.shape == (2, 5, 5, 5, 1) and batch.y.shape == (2, 5, 5, 5) for batch in first)
  for one, other in zip(first[3:], read(3, 2), strict=True):
    np.testing.assert_array_equal(one.x, other.x)
  assert not np.array_equal(first[0].x, read(0, 1, seed=1)[0].x)
  assert data.sample().x.shape == (5, 5, 5, 1) and data.subset([1]).sample().x.shape == (5, 5, 5, 1)


def test_a_draw_that_is_none_is_refused():
  with pytest.raises(MedtlError, match="did you mean 'patch'"):
    draw('pach(4)')
  with pytest.raises(MedtlError, match='positive whole numbers'):
    draw('patch(0)')(case(), np.random.default_rng(0))
