"""No example lost or counted twice, padding dropped, and a file holds all that a report needs."""

import dataclasses

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import Batch, Dataset, Example, MedtlError, Predictions
from medtl.evaluation import predictions


def data(n=10):
  pictures = np.linspace(0, 1, n * 4 * 6).reshape(n, 4, 6, 1).astype('f4')
  table = {
    'row': np.arange(n) + 100,
    'y': np.arange(n) % 2,
    'patient': np.array([f'p{i // 2}' for i in range(n)], object),
  }
  return Dataset(lambda i: Example(pictures[i], i % 2, 100 + i), n, ('a', 'b'), table)


def batches(dataset, size=4):
  for begin in range(0, dataset.size, size):
    index = np.arange(begin, begin + size) % dataset.size
    real = np.arange(begin, begin + size) < dataset.size
    found = [dataset.fetch(int(i)) for i in index]
    yield Batch(
      jnp.stack([e.x for e in found]),
      jnp.asarray([e.y for e in found]),
      jnp.asarray(real),
      jnp.asarray([e.row if ok else -1 for e, ok in zip(found, real, strict=True)]),
    )


def measure(params, extra, batch):
  value = batch.x.mean((1, 2, 3))
  return {
    'score': jnp.stack([1 - value, value], -1),
    'loss': jnp.where(batch.row == 103, 9.0, value),
  }


def predicted(dataset):
  return predictions.predict(measure, {}, {}, batches(dataset), dataset.table)


def test_every_example_once_and_in_order():
  found = predicted(data())
  chex.assert_shape([found.score, found.row], [(10, 2), (10,)])
  assert found.row.tolist() == list(range(100, 110)) and found.y.tolist() == [0, 1] * 5
  assert np.allclose(found.score[:, 1], [data().fetch(i).x.mean() for i in range(10)], atol=1e-6)


def test_scores_that_are_not_finite_are_named():
  bad = lambda params, extra, batch: {
    'score': jnp.where(batch.row[:, None] == 104, jnp.nan, 0.5) * jnp.ones((4, 2))
  }
  with pytest.raises(MedtlError, match='1 of 10 predictions are not finite, first at row 104'):
    predictions.predict(bad, {}, {}, batches(data()), data().table)


def test_nothing_to_predict():
  with pytest.raises(MedtlError, match='empty'):
    predictions.predict(measure, {}, {}, iter(()), {})


def test_a_file_keeps_predictions_table_and_the_pictures_that_are_shown(tmp_path):
  dataset = data()
  found = predicted(dataset)
  predictions.save(tmp_path / 'test.npz', found, dataset, shown=[3, 0])
  again = predictions.load(tmp_path / 'test.npz')
  chex.assert_trees_all_equal(again.predictions.score, found.score)
  assert again.table['patient'].tolist() == dataset.table['patient'].tolist() and again.classes == (
    'a',
    'b',
  )
  assert set(again.pictures) == {103, 100}
  chex.assert_shape(again.pictures[103], (4, 6, 1))


@pytest.mark.parametrize(
  ('shape', 'kept'),
  [
    ((256, 40), np.s_[:, :]),
    ((257, 40), np.s_[::2, ::2]),
    ((40, 600), np.s_[::3, ::3]),
    ((5, 40, 600), np.s_[2, ::3, ::3]),
  ],
)
def test_a_picture_is_kept_small_and_of_a_volume_the_middle_slice(tmp_path, shape, kept):
  x = np.random.RandomState(0).rand(*shape, 2).astype('f4')
  table = {'row': np.array([7]), 'y': np.array([0])}
  dataset = Dataset(lambda i: Example(x, 0, 7), 1, ('a', 'b'), table)
  found = Predictions(table['row'], table['y'], {'score': np.array([[0.6, 0.4]])})
  predictions.save(tmp_path / 'test.npz', found, dataset, shown=[0])
  picture = predictions.load(tmp_path / 'test.npz').pictures[7]
  assert picture.dtype == np.uint8 and max(picture.shape) <= 256
  np.testing.assert_array_equal(picture, (x[kept] * 255).astype(np.uint8))


def test_a_standardised_volume_is_shown_from_its_least_to_its_most(tmp_path):
  volume = np.linspace(-9, 9, 3 * 4 * 6).reshape(3, 4, 6, 1).astype('f4')
  table = {'row': np.array([100]), 'y': np.zeros(1, int)}
  dataset = Dataset(lambda i: Example(volume, 0, 100), 1, ('a', 'b'), table)
  predictions.save(tmp_path / 'x.npz', predicted(data(1)), dataset, [0])
  picture = predictions.load(tmp_path / 'x.npz').pictures[100]
  chex.assert_shape(picture, (4, 6, 1))
  assert len(np.unique(picture)) == 4 * 6 and picture.max() == 255


def test_folds_are_pooled_by_row_and_may_not_overlap(tmp_path):
  dataset = data()
  paths = []
  for number, index in enumerate(([5, 6, 7, 8, 9], [0, 1, 2, 3, 4])):
    part = dataset.subset(np.array(index))
    paths.append(tmp_path / f'{number}.npz')
    predictions.save(paths[-1], predicted(part), part, shown=[1])
  predictions.pooled([predictions.load(path) for path in paths], tmp_path / 'all.npz')
  found = predictions.load(tmp_path / 'all.npz')
  assert found.predictions.row.tolist() == list(range(100, 110))
  chex.assert_trees_all_close(found.predictions.score, predicted(dataset).score, atol=1e-6)
  assert set(found.pictures) == {101, 106}
  with pytest.raises(MedtlError, match='5 rows are in more than one fold'):
    predictions.pooled([predictions.load(paths[0])] * 2, tmp_path / 'bad.npz')


def test_a_row_that_may_repeat_stands_as_the_first_fold_has_it(tmp_path):
  saved = []
  for number, index in enumerate(([3, 5, 6], [1, 2, 3])):
    part = data().subset(np.array(index))
    path = tmp_path / f'{number}.npz'
    predictions.save(path, predicted(part), part, shown=[0, 1, 2])
    one = predictions.load(path)
    values = {name: np.full_like(value, number) for name, value in one.predictions.values.items()}
    pictures = {row: np.full_like(picture, number) for row, picture in one.pictures.items()}
    own = dataclasses.replace(one.predictions, values=values)
    saved.append(one._replace(predictions=own, pictures=pictures))
  predictions.pooled(saved, tmp_path / 'all.npz', may_repeat=True)
  found = predictions.load(tmp_path / 'all.npz')
  assert found.predictions.row.tolist() == [101, 102, 103, 105, 106]
  assert found.table['row'].tolist() == [101, 102, 103, 105, 106]
  for value in found.predictions.values.values():
    assert value.reshape(5, -1)[:, 0].tolist() == [1, 1, 0, 0, 0]
  assert found.pictures[103].max() == 0 and found.pictures[102].max() == 1


def test_missing_predictions_say_what_to_do(tmp_path):
  with pytest.raises(MedtlError, match='run the verb evaluate'):
    predictions.load(tmp_path / 'x.npz')


def test_damaged_predictions_are_named_with_the_command_that_writes_them_anew(tmp_path):
  dataset = data()
  found = predicted(dataset)
  for name, words in (
    ('test', r'delete numbers.json, if it is there, and start the training command again'),
    ('hospital_b', r'start evaluate with --name=hospital_b again'),
  ):
    path = tmp_path / f'{name}.npz'
    predictions.save(path, found, dataset)
    assert predictions.load(path).pictures == {}
    np.savez(tmp_path / 'other.npz', row=np.arange(3))
    other = (tmp_path / 'other.npz').read_bytes()
    for damage in (path.read_bytes()[:300], b'', b'nothing', other):
      path.write_bytes(damage)
      with pytest.raises(
        MedtlError, match=rf'the predictions .*{name}.npz are damaged .*; {words}'
      ):
        predictions.load(path)


def test_measures_and_the_table_go_with_their_rows_through_a_file_and_a_pool(tmp_path):
  dataset = data()
  shuffled = dataset.subset(np.array([4, 1, 7]))
  found = predicted(shuffled)
  predictions.save(tmp_path / 'a.npz', found, dataset)
  again = predictions.load(tmp_path / 'a.npz')
  assert again.predictions.row.tolist() == again.table['row'].tolist() == [104, 101, 107]
  assert again.table['patient'].tolist() == ['p2', 'p0', 'p3']
  chex.assert_trees_all_equal(again.predictions.values, found.values)
  other = dataset.subset(np.array([3, 0]))
  predictions.save(tmp_path / 'b.npz', predicted(other), other)
  parts = [again, predictions.load(tmp_path / 'b.npz')]
  predictions.pooled(parts, tmp_path / 'both.npz')
  both = predictions.load(tmp_path / 'both.npz')
  assert both.predictions.row.tolist() == both.table['row'].tolist() == [100, 101, 103, 104, 107]
  assert both.predictions.y.tolist() == [0, 1, 1, 0, 1] and both.classes == ('a', 'b')
  loss = both.predictions.values['loss']
  assert loss[2] == 9 and loss[[0, 1, 3, 4]] == pytest.approx(
    both.predictions.score[[0, 1, 3, 4], 1]
  )


def test_a_measure_beside_the_score_need_not_be_finite():
  strange = lambda params, extra, batch: {
    'score': jnp.full((4, 2), 0.5),
    'loss': jnp.full(4, jnp.inf),
  }
  found = predictions.predict(strange, {}, {}, batches(data()), data().table)
  assert np.isinf(found.values['loss']).all() and len(found.row) == 10


def test_maps_of_the_shown_examples_come_back_by_row(tmp_path):
  dataset = data()
  predicted = Predictions(np.array([100, 101]), np.array([0, 1]), {'score': np.zeros((2, 2))})
  maps = {101: {'prediction': np.arange(24).reshape(4, 6)}}
  predictions.save(tmp_path / 'test.npz', predicted, dataset, [1], maps)
  saved = predictions.load(tmp_path / 'test.npz')
  assert list(saved.maps) == ['prediction'] and list(saved.maps['prediction']) == [101]
  np.testing.assert_array_equal(saved.maps['prediction'][101], maps[101]['prediction'])


def kept_picture(folder, low, high):
  """What is kept of a picture whose 24 numbers rise from low to high."""
  picture = np.linspace(low, high, 24).reshape(4, 6, 1).astype('f4')
  table = {'row': np.arange(1), 'y': np.zeros(1, int)}
  dataset = Dataset(lambda i: Example(picture, 0, 0), 1, ('a', 'b'), table)
  predicted = Predictions(np.arange(1), np.zeros(1, int), {'score': np.zeros((1, 2))})
  predictions.save(folder / 'test.npz', predicted, dataset, [0])
  return predictions.load(folder / 'test.npz').pictures[0]


@pytest.mark.parametrize('low, high', [(0, 4), (0, 1.5), (-1, 0.5)])
def test_a_picture_that_leaves_0_to_1_on_one_side_is_shown_whole(tmp_path, low, high):
  shown = kept_picture(tmp_path, low, high)
  assert (shown.min(), shown.max()) == (0, 255) and len(np.unique(shown)) == 24


@pytest.mark.parametrize('low, high', [(0.0, 0.5), (0.25, 1.0)])
def test_a_picture_within_0_to_1_is_shown_as_dark_or_as_pale_as_it_is(tmp_path, low, high):
  shown = kept_picture(tmp_path, low, high)
  assert (shown.min(), shown.max()) == (int(low * 255), int(high * 255))
