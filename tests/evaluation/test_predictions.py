"""No example lost or counted twice, padding dropped, and a file holds all that a report needs."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import Batch, Dataset, Example, MedtlError
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


def test_missing_predictions_say_what_to_do(tmp_path):
  with pytest.raises(MedtlError, match='run the verb evaluate'):
    predictions.load(tmp_path / 'x.npz')
