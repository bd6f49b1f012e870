"""A cached prefix gives what the prefix gives, and can not be stale.

Everything that it depends on is in its name.
"""

import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl import main
from medtl.core.types import Batch, Dataset, Example, MedtlError
from medtl.features import packing, storage
from medtl.run import frozen_features
from medtl.runtime import files
from medtl.training import losses
from tests.conftest import supervised


@pytest.fixture
def vectors(batch):
  x = np.asarray(batch.x)
  return Dataset(
    lambda i: Example(x[i], i % 3, i),
    8,
    ('a', 'b', 'c'),
    {'row': np.arange(8), 'y': np.arange(8) % 3},
    {'hash': 'h'},
  )


def once(dataset, size=3):
  for begin in range(0, dataset.size, size):
    index = np.arange(begin, begin + size)
    found = [dataset.fetch(int(i) % dataset.size) for i in index]
    yield Batch(
      np.stack([e.x for e in found]), np.array([e.y for e in found]), index < dataset.size, index
    )


@pytest.mark.parametrize('depth', [1, 2, 4])
def test_cached_and_uncached_give_the_same_logits_and_loss(
  net, variables, batch, vectors, tmp_path, depth
):
  params, extra = variables
  apply = jax.jit(
    lambda batch: net.apply(
      {'params': params, **extra}, batch.x, end_child=depth, method='features'
    )
  )
  storage.compute(apply, 8, once(vectors), tmp_path / 'a.npy')
  kept = storage.stored_features(vectors, tmp_path / 'a.npy')
  x = np.stack([kept.fetch(i).x for i in range(8)])
  task = [
    supervised(net, losses.softmax, kind='multiclass', start_child=first) for first in (0, depth)
  ]
  whole, tail = (
    task[0].measure(params, extra, batch),
    task[1].measure(params, extra, batch._replace(x=x)),
  )
  chex.assert_trees_all_close(whole, tail, atol=1e-5)
  assert kept.fetch(7).row == 7 and kept.table is vectors.table


def test_a_broken_computation_leaves_nothing_behind(vectors, tmp_path):
  calls = []

  def fails(batch):
    calls.append(1)
    if len(calls) == 2:
      raise RuntimeError('killed')
    return batch.x

  with pytest.raises(RuntimeError):
    storage.compute(fails, 8, once(vectors), tmp_path / 'a.npy')
  assert list(tmp_path.iterdir()) == []


def test_bfloat16_comes_back_bit_for_bit(vectors, tmp_path):
  storage.compute(
    lambda batch: jnp.asarray(batch.x, jnp.bfloat16), 8, once(vectors), tmp_path / 'a.npy'
  )
  kept = storage.stored_features(vectors, tmp_path / 'a.npy')
  assert kept.fetch(3).x.dtype == jnp.bfloat16
  assert np.array_equal(
    kept.fetch(3).x.astype(np.float32),
    np.asarray(vectors.fetch(3).x.astype(jnp.bfloat16), np.float32),
  )


@pytest.mark.parametrize(
  'damage',
  [
    lambda file: file.write_bytes(file.read_bytes()[:200]),
    lambda file: file.write_bytes(b''),
    lambda file: file.write_bytes(b'no array'),
    lambda file: np.save(file, np.zeros((7, 12), np.float32)),
  ],
)
def test_a_damaged_file_is_computed_again_and_that_is_said(vectors, tmp_path, capsys, damage):
  storage.compute(lambda batch: jnp.asarray(batch.x), 8, once(vectors), tmp_path / 'a.npy')
  damage(tmp_path / 'a.npy')
  assert (
    storage.stored_features(vectors, tmp_path / 'a.npy') is None
    and not (tmp_path / 'a.npy').exists()
  )
  assert 'are damaged' in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_to_is_named(vectors, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(
    MedtlError, match=r'cannot write the cached activations to .*file: .*; set MEDTL_CACHE'
  ):
    storage.compute(
      lambda batch: jnp.asarray(batch.x), 8, once(vectors), tmp_path / 'file' / 'a.npy'
    )


def test_two_that_write_the_same_file_end_with_one_whole_file(vectors, tmp_path):
  """One begins, the other begins and ends, the first ends: each reads whole activations."""

  def interrupted(batch):
    if not (tmp_path / 'a.npy').exists():
      storage.compute(lambda batch: jnp.asarray(batch.x), 8, once(vectors), tmp_path / 'a.npy')
    assert np.array_equal(
      storage.stored_features(vectors, tmp_path / 'a.npy').fetch(7).x, vectors.fetch(7).x
    )
    return jnp.asarray(batch.x)

  storage.compute(interrupted, 8, once(vectors), tmp_path / 'a.npy')
  assert [path.name for path in tmp_path.iterdir()] == ['a.npy']
  assert np.array_equal(
    storage.stored_features(vectors, tmp_path / 'a.npy').fetch(7).x, vectors.fetch(7).x
  )


def test_the_name_changes_with_everything_that_the_values_depend_on(variables, vectors):
  both = {'params': variables[0], 'batch_stats': variables[1]['batch_stats']}
  digests = lambda tree: [storage.digest(tree, [name]) for name in ('stem', 'stage1')]
  name = storage.fingerprint(digests(both), vectors, dtype='float32')
  assert name == storage.fingerprint(digests(both), vectors, dtype='float32')
  moved = {**both, 'params': jax.tree.map(lambda leaf: leaf + 1e-6, both['params'])}
  drifted = {**both, 'batch_stats': jax.tree.map(lambda leaf: leaf + 1, both['batch_stats'])}
  other = Dataset(vectors.fetch, 8, vectors.classes, vectors.table, {'hash': 'g'})
  ops = Dataset(
    vectors.fetch, 8, vectors.classes, vectors.table, {'hash': 'h', 'ops': 'resize(2, 2)'}
  )
  names = {
    name,
    storage.fingerprint(digests(both), vectors, dtype='bfloat16'),
    storage.fingerprint(digests(both)[:1], vectors, dtype='float32'),
  }
  names |= {
    storage.fingerprint(digests(tree), data, dtype='float32')
    for tree, data in (
      (moved, vectors),
      (drifted, vectors),
      (both, other),
      (both, ops),
      (both, vectors.subset(np.arange(7))),
    )
  }
  assert len(names) == 8


def test_the_head_and_other_children_are_not_part_of_a_digest(variables):
  both = {'params': variables[0]}
  changed = {
    'params': {**variables[0], 'head': jax.tree.map(lambda leaf: leaf + 1, variables[0]['head'])}
  }
  assert (
    storage.digest(both, ['stem'])
    == storage.digest(changed, ['stem'])
    != storage.digest(both, ['stage1'])
  )


def test_all_sides_are_one_data_set_in_the_order_of_rows(vectors):
  sides = {'train': vectors.subset(np.array([6, 1, 3])), 'test': vectors.subset(np.array([0, 5]))}
  whole = frozen_features.joined(sides)
  assert whole.table['row'].tolist() == [0, 1, 3, 5, 6] == [whole.fetch(i).row for i in range(5)]
  assert np.array_equal(whole.fetch(2).x, vectors.fetch(3).x)


def test_the_oldest_activations_go_first_and_those_in_use_stay(tmp_path):
  for age, name in enumerate('abcd'):
    (tmp_path / name).write_bytes(b'0' * 100)
    os.utime(tmp_path / name, (1000 + age, 1000 + age))
  assert files.prune(tmp_path, 400) == []
  assert files.prune(tmp_path, 250, keep=[tmp_path / 'a']) == [tmp_path / 'b', tmp_path / 'c']
  assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'd']


def test_the_cache_is_listed_and_cleared_but_for_downloads(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path))
  for name in ('features', 'downloads'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'x').write_bytes(b'0' * 2_000_000)
  assert main.main(['cache']) == 0
  assert 'features           1 files         2.0 MB' in capsys.readouterr().out
  assert main.main(['cache', '--clear']) == 0
  assert 'features' not in (said := capsys.readouterr().out) and 'downloads' in said
  assert main.main(['cache', '--cleer']) == 1


def test_a_tree_that_crosses_a_cut_is_one_array_and_comes_back():
  random = np.random.RandomState(0)
  tree = (
    jnp.asarray(random.randn(3, 4, 5), jnp.float32),
    {'stem': jnp.asarray(random.randn(3, 2), jnp.bfloat16)},
  )
  packed = packing.pack(tree)
  assert packed.shape == (3, 22) and packed.dtype == jnp.float32
  like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), tree)
  chex.assert_trees_all_equal(packing.unpack(packed, like), tree)
  alone = tree[0]
  assert packing.pack(alone) is alone and packing.unpack(alone, like[0]) is alone
