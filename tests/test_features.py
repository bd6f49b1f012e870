"""A cached prefix gives what the prefix gives, and can not be stale: everything that it depends on is in its name."""

import chex
import jax
import numpy as np
import pytest

from medtl import features, losses, tasks
from medtl.types import Batch, Dataset, Example


@pytest.fixture
def vectors(batch):
  x = np.asarray(batch.x)
  return Dataset(lambda i: Example(x[i], i % 3, i), 8, ('a', 'b', 'c'), {'row': np.arange(8), 'y': np.arange(8) % 3}, {'hash': 'h'})


def once(dataset, size=3):
  for begin in range(0, dataset.size, size):
    index = np.arange(begin, begin + size)
    found = [dataset.fetch(int(i) % dataset.size) for i in index]
    yield Batch(np.stack([e.x for e in found]), np.array([e.y for e in found]), index < dataset.size, index)


@pytest.mark.parametrize('depth', [1, 2, 4])
def test_cached_and_uncached_give_the_same_logits_and_loss(net, variables, batch, vectors, tmp_path, depth):
  params, extra = variables
  apply = jax.jit(lambda x: net.apply({'params': params, **extra}, x, last=depth, method='features'))
  kept, found = features.cached(apply, vectors, once(vectors), tmp_path / 'a.npy')
  assert not found
  x = np.stack([kept.fetch(i).x for i in range(8)])
  task = [tasks.supervised(net, losses.softmax, kind='multiclass', first=first) for first in (0, depth)]
  whole, tail = task[0].measure(params, extra, batch), task[1].measure(params, extra, batch._replace(x=x))
  chex.assert_trees_all_close(whole, tail, atol=1e-5)
  assert kept.fetch(7).row == 7 and kept.table is vectors.table


def test_the_second_time_nothing_is_computed(vectors, tmp_path):
  features.cached(lambda x: x * 2, vectors, once(vectors), tmp_path / 'a.npy')

  def never(x):
    raise AssertionError('computed again')
  kept, found = features.cached(never, vectors, once(vectors), tmp_path / 'a.npy')
  assert found and np.array_equal(kept.fetch(3).x, 2 * vectors.fetch(3).x)


def test_a_broken_computation_leaves_nothing_behind(vectors, tmp_path):
  calls = []

  def fails(x):
    calls.append(1)
    if len(calls) == 2:
      raise RuntimeError('killed')
    return x
  with pytest.raises(RuntimeError):
    features.cached(fails, vectors, once(vectors), tmp_path / 'a.npy')
  assert list(tmp_path.iterdir()) == []


def test_the_name_changes_with_everything_that_the_values_depend_on(variables, vectors):
  params, extra = (features.prefix(tree, ['stem', 'stage1']) for tree in (variables[0], variables[1]['batch_stats']))
  name = features.fingerprint(params, extra, vectors, depth=2)
  assert name == features.fingerprint(params, extra, vectors, depth=2)
  moved = jax.tree.map(lambda leaf: leaf + 1e-6, params)
  other = Dataset(vectors.fetch, 8, vectors.classes, vectors.table, {'hash': 'g'})
  ops = Dataset(vectors.fetch, 8, vectors.classes, vectors.table, {'hash': 'h', 'ops': 'resize(2, 2)'})
  drifted, fewer = jax.tree.map(lambda s: s + 1, extra), vectors.subset(np.arange(7))
  names = {name, features.fingerprint(params, extra, vectors, depth=1)} | {
    features.fingerprint(*changed, depth=2)
    for changed in ((moved, extra, vectors), (params, drifted, vectors), (params, extra, other), (params, extra, ops),
                    (params, extra, fewer))}
  assert len(names) == 7


def test_the_head_is_not_part_of_the_prefix(variables):
  assert set(features.prefix(variables[0], ['stem', 'stage1'])) == {'stem', 'stage1'}
