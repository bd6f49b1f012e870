"""What is saved comes back bit for bit; what is not of this run is refused.

Latest and best do not disturb each other.
"""

import os
import shutil
import tempfile

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medtl.core.types import MedtlError, State
from medtl.runtime import multihost
from medtl.training import (
  checkpoints,
  leaf_packing,
  losses,
  optimizers,
  parameter_groups,
  step,
)
from medtl.training.checkpoints import Checkpoints, Progress
from tests.conftest import supervised


@pytest.fixture(scope='module')
def made(net, variables, batch):
  params, _ = variables
  parts = [
    parameter_groups.partition(
      params,
      parameter_groups.rule_table(params, f'depth({depth})'),
      direction=optimizers.adamw,
      lr=0.01,
      ema=0.9,
      clip=1.0,
    )
    for depth in (4, 2)
  ]
  moves = [
    step.jit_update(
      **supervised(net, losses.softmax, kind='multiclass', live=part.live).bound,
      tx=part.tx,
      live=part.live,
    )
    for part in parts
  ]

  def start(index=0):
    params, extra = jax.tree.map(jnp.array, variables)
    return State(
      jnp.zeros((), jnp.int32),
      params,
      extra,
      jax.jit(parts[index].tx.init)(params),
      jax.random.key(3),
    )

  return parts, moves, start


def test_ten_steps_are_five_saved_restored_and_five(made, batch, tmp_path):
  _, moves, start = made
  whole = start()
  for _ in range(10):
    whole, _ = moves[0](whole, batch)
  half = start()
  for _ in range(5):
    half, _ = moves[0](half, batch)
  saved = Checkpoints(tmp_path)
  saved.save('latest', half, Progress(waiting=2, best=0.5))
  half, _ = moves[0](
    half, batch
  )  # the donated buffers are written over while the save is under way
  saved.close()
  again = Checkpoints(tmp_path)
  state = again.restore('latest', jax.eval_shape(lambda: start()))
  assert again.progress('latest') == Progress(waiting=2, best=0.5) and int(state.step) == 5
  again.close()
  for _ in range(5):
    state, _ = moves[0](state, batch)
  chex.assert_trees_all_equal(checkpoints.with_raw_key(state), checkpoints.with_raw_key(whole))


def test_frozen_leaves_are_written_once_and_come_back(made, batch, tmp_path):
  _, moves, start = made
  state = start()
  saved = Checkpoints(tmp_path)
  saved.begin(*jax.device_get((state.params, state.extra)))
  state, _ = moves[0](state, batch)  # depth(4): the head alone moves
  saved.save('latest', state, Progress())
  saved.close()
  again = Checkpoints(tmp_path)
  stored = {
    path.split('/')[1]
    for path in again._stored('latest', metadata=True)
    if path.startswith(('params/', 'extra/'))
  }
  assert stored == {'head'}
  chex.assert_trees_all_equal(
    checkpoints.with_raw_key(again.restore('latest', jax.eval_shape(lambda: start()))),
    checkpoints.with_raw_key(state),
  )
  again.close()
  shutil.rmtree(tmp_path / 'origin' / '0')
  alone = Checkpoints(tmp_path)
  with pytest.raises(
    MedtlError, match=r'origin lacks \d+ arrays that latest/1 refers to, first .*copied in part'
  ):
    alone.params('latest')
  alone.close()


def test_what_a_twin_began_with_is_linked_and_what_differs_is_written(made, tmp_path):
  _, _, start = made
  params, extra = jax.device_get((start().params, start().extra))
  other = jax.tree.map(lambda leaf: leaf + 1, params)
  for name, begun, twins in (
    ('one', params, ()),
    ('two', params, ('none', 'one')),
    ('three', other, ('one', 'two')),
  ):
    saved = Checkpoints(tmp_path / name)
    saved.begin(begun, extra, [tmp_path / twin for twin in twins])
    chex.assert_trees_all_equal(saved.params('origin'), (begun, extra))
    saved.close()
  folders = [tmp_path / name / 'origin' / '0' for name in ('one', 'two', 'three')]
  files = [
    {path.relative_to(folder): path.stat().st_ino for path in folder.rglob('*') if path.is_file()}
    for folder in folders
  ]
  assert files[0] == files[1] and not set(files[0].values()) & set(files[2].values())
  shutil.rmtree(tmp_path / 'one')
  again = Checkpoints(tmp_path / 'two')
  chex.assert_trees_all_equal(again.params('origin'), (params, extra))
  again.close()


def test_a_run_killed_while_it_links_goes_on(made, tmp_path, monkeypatch):
  _, _, start = made
  params, extra = jax.device_get((start().params, start().extra))
  first = Checkpoints(tmp_path / 'one')
  first.begin(params, extra)
  first.close()

  def half(source, target, **_):
    target.mkdir(parents=True)
    for path in source.iterdir():
      if path.is_file():
        shutil.copy(path, target / path.name)
    raise KeyboardInterrupt

  killed = Checkpoints(tmp_path / 'two')
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(shutil, 'copytree', half)
    killed.begin(params, extra, [tmp_path / 'one'])
  killed.close()
  again = Checkpoints(tmp_path / 'two')
  assert again.step('origin') is None
  again.begin(params, extra, [tmp_path / 'one'])
  chex.assert_trees_all_equal(again.params('origin'), (params, extra))
  again.close()


def test_minus_zero_is_not_zero_and_a_nan_is_itself():
  assert not checkpoints.equal_to_the_bit(
    np.zeros(2), -np.zeros(2)
  ) and checkpoints.equal_to_the_bit(np.full(2, np.nan), np.full(2, np.nan))
  assert not checkpoints.equal_to_the_bit(
    np.zeros(2, np.float32), np.zeros(2)
  ) and not checkpoints.equal_to_the_bit(np.zeros(2), np.zeros((2, 1)))


ARRAYS = hnp.arrays(
  st.sampled_from([np.float32, np.int32, np.uint32]),
  hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@given(st.dictionaries(st.text('ab/', min_size=3), ARRAYS, max_size=6))
def test_leaves_packed_together_come_asunder(leaves):
  leaves = {**leaves, 'half': np.arange(3, dtype=jnp.bfloat16)}
  apart, packed = leaf_packing.pack_small_leaves(leaves)
  found = leaf_packing.unpack_small_leaves(apart, packed)
  assert found.keys() == leaves.keys()
  for path, leaf in leaves.items():
    assert (
      found[path].dtype == leaf.dtype
      and found[path].shape == leaf.shape
      and found[path].tobytes() == leaf.tobytes()
    )


def test_a_large_leaf_stays_apart(monkeypatch):
  monkeypatch.setattr(leaf_packing, 'SMALL', 16)
  large, small = np.arange(8.0), np.arange(1.0)
  apart, packed = leaf_packing.pack_small_leaves({'a/large': large, 'a/small': small})
  assert apart.keys() == {'a|large', 'float64'} and packed == {'float64': [('a/small', [1])]}


def test_a_leaf_that_a_checkpoint_lacks_is_not_filled_in_from_the_origin(made, tmp_path):
  _, _, start = made
  state = start()
  saved = Checkpoints(tmp_path)
  saved.begin(*jax.device_get((state.params, state.extra)))
  poorer = {
    **state.params,
    'backbone': {name: leaf for name, leaf in state.params['backbone'].items() if name != 'stage2'},
  }
  saved.save('latest', state._replace(params=poorer), Progress())
  saved.wait()
  with pytest.raises(MedtlError, match=r'missing: params/backbone/stage2'):
    saved.restore('latest', jax.eval_shape(lambda: start()))
  saved.close()


def test_the_state_of_another_phase_is_refused_in_words(made, tmp_path):
  _, _, start = made
  saved = Checkpoints(tmp_path)
  saved.save('latest', start(0), Progress())
  saved.wait()
  with pytest.raises(MedtlError, match=r'is not of this run:\nmissing: opt/.*stage2'):
    saved.restore('latest', jax.eval_shape(lambda: start(1)))
  saved.close()


def test_best_and_latest_have_rules_apart(made, tmp_path):
  _, _, start = made
  saved = Checkpoints(tmp_path)
  for number in range(4):
    state = start()._replace(step=jnp.asarray(number, jnp.int32))
    if number == 1:
      saved.save('best', state._replace(opt=()), Progress(best_step=1))
    saved.save('latest', state, Progress())
  saved.wait()
  assert saved.step('latest') == 3 and saved.step('best') == 1
  params, extra = saved.params('best')
  chex.assert_trees_all_equal((params, extra), jax.device_get((state.params, state.extra)))
  saved.close()


def test_a_run_without_a_checkpoint_says_so(made, tmp_path):
  saved = Checkpoints(tmp_path)
  with pytest.raises(MedtlError, match='no checkpoint in'):
    saved.params('best')
  saved.close()


def test_a_damaged_checkpoint_is_named(made, tmp_path):
  _, _, start = made
  saved = Checkpoints(tmp_path)
  saved.save('latest', start(), Progress())
  saved.close()
  for path in (tmp_path / 'latest' / '0' / 'state').rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:7])
  again = Checkpoints(tmp_path)
  with pytest.raises(MedtlError, match=r'latest/0 cannot be read'):
    again.restore('latest', jax.eval_shape(lambda: start()))
  again.close()


@pytest.mark.parametrize(
  'name', ['run [1]', 'star* why?', 'back\\slash', os.fsdecode(b'M\xfcller %20')]
)
def test_every_path_can_be_a_run_folder(made, tmp_path, monkeypatch, name):
  _, _, start = made
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
  (tmp_path / 'temporary').mkdir()
  params, extra = jax.device_get((start().params, start().extra))
  folder = tmp_path / name / 'checkpoints'
  saved = Checkpoints(folder)
  saved.begin(params, extra)
  saved.save('latest', start(), Progress(best=0.5))
  saved.close()
  assert (
    sorted(path.name for path in folder.iterdir()) == ['best', 'latest', 'origin']
    and (folder / 'latest' / '0').is_dir()
  )
  again = Checkpoints(folder)
  state = again.restore('latest', jax.eval_shape(lambda: start()))
  chex.assert_trees_all_equal(checkpoints.with_raw_key(state), checkpoints.with_raw_key(start()))
  assert again.progress('latest').best == 0.5
  again.close()
  assert not list((tmp_path / 'temporary').iterdir()) and len(list(tmp_path.iterdir())) == 2


def test_where_no_link_can_be_made_it_is_said_before_anything_is_computed(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'none'))
  with pytest.raises(
    MedtlError, match=r'run .* holds one of .* needs a link in a temporary folder: .* set TMPDIR'
  ):
    Checkpoints(tmp_path / 'run [1]' / 'checkpoints')
  (tmp_path / 'temp [2]').mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temp [2]'))
  with pytest.raises(
    MedtlError, match=r'and so does that one.* choose another --workdir, or set TMPDIR'
  ):
    Checkpoints(tmp_path / 'run [1]' / 'checkpoints')
  Checkpoints(tmp_path / 'run' / 'checkpoints').close()
  monkeypatch.setattr(multihost, '_place', [0, 2])
  with pytest.raises(
    MedtlError, match=r'several processes \(--hosts\) cannot share; choose another'
  ):
    Checkpoints(tmp_path / 'run [1]' / 'checkpoints')


def test_a_checkpoint_that_is_lost_in_part_is_said_with_what_to_do(made, tmp_path):
  _, _, start = made
  saved = Checkpoints(tmp_path)
  saved.save('latest', start(), Progress())
  saved.save('best', start(), Progress())
  saved.close()
  anew = (
    rf'; to train anew, delete {tmp_path} \(and numbers.json beside it, if it is there\) and start'
  )
  (tmp_path / 'latest' / '0' / 'progress' / 'metadata').write_text('{')
  again = Checkpoints(tmp_path)
  with pytest.raises(
    MedtlError, match=f'the checkpoint {tmp_path}/latest/0 cannot be read: .*{anew}'
  ):
    again.progress('latest')
  shutil.rmtree(
    tmp_path / 'latest' / '0'
  )  # as another process does with a checkpoint that is no longer the latest
  with pytest.raises(
    MedtlError, match=f'the checkpoint {tmp_path}/latest/0 cannot be read: .*{anew}'
  ):
    again.progress('latest')
  again.close()
  shutil.rmtree(tmp_path / 'best')
  (tmp_path / 'latest' / '0').mkdir()
  lost = Checkpoints(tmp_path)
  lost.save('latest', start()._replace(step=jnp.ones((), jnp.int32)), Progress())
  lost.wait()
  with pytest.raises(MedtlError, match=f'no checkpoint in {tmp_path}/best{anew}'):
    lost.params('best')
  lost.close()
  shutil.rmtree(tmp_path)
  fresh = Checkpoints(tmp_path)
  assert fresh.step('latest') is None
  fresh.close()


def test_a_full_disk_is_said_before_anything_is_written(made, tmp_path, monkeypatch):
  _, _, start = made
  saved = Checkpoints(tmp_path)
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(10, 9, 1))
  with pytest.raises(
    MedtlError,
    match=r'no space for the checkpoint latest of step 0: \d\.\d MB needed, 0\.0 MB free .*; '
    r'make room and start',
  ):
    saved.save('latest', start(), Progress())
  saved.close()
  assert saved.step('latest') is None


def test_a_disk_that_fills_up_while_writing_is_said_in_words(made, tmp_path, monkeypatch):
  _, _, start = made
  saved = Checkpoints(tmp_path)

  def fails(*_, **__):
    raise ValueError('RESOURCE_EXHAUSTED: … No space left on device')  # tensorstore's words

  monkeypatch.setattr(saved.managers['best'], 'save', fails)
  with pytest.raises(
    MedtlError,
    match=r'cannot write the checkpoint best of step 0 to .*: no space left on the disk; make room',
  ):
    saved.save('best', start(), Progress())
  saved.close()


def test_a_run_begins_without_a_best_value_and_all_of_its_progress_comes_back(made, tmp_path):
  assert Progress() == Progress(0, 0, False, None, -1, 0, 0, {})
  _, _, start = made
  saved = Checkpoints(tmp_path)
  whole = Progress(2, 30, True, 0.25, 28, 1, 3, {'train': 1.5})
  state = start()
  saved.save('latest', state, whole)
  later = state._replace(params=jax.tree.map(lambda leaf: leaf + 1, state.params))
  saved.save('latest', later, Progress())
  saved.wait()
  assert saved.progress('latest') == whole, 'a step that is there already is left alone'
  expected = jax.device_get((state.params, state.extra))
  chex.assert_trees_all_equal(saved.params('latest'), expected)
  saved.close()


def test_only_the_first_to_begin_writes_and_may_be_linked(made, tmp_path):
  _, _, start = made
  params, extra = jax.device_get((start().params, start().extra))
  first = Checkpoints(tmp_path / 'one')
  assert first.begin(params, extra)
  other = jax.tree.map(lambda leaf: leaf + 1, params)
  assert first.begin(other, extra), 'what a run began with is never written again'
  chex.assert_trees_all_equal(first.params('origin')[0], params)
  second = Checkpoints(tmp_path / 'two')
  assert not second.begin(params, extra, [tmp_path / 'one'])
  for saved in (first, second):
    saved.close()


def test_leaves_below_the_limit_are_packed_and_a_megabyte_is_below_it(monkeypatch):
  large = np.zeros(2**18 + 1, np.float32)
  _, packed = leaf_packing.pack_small_leaves({'a': large})
  assert packed == {'float32': [('a', [2**18 + 1])]}
  monkeypatch.setattr(leaf_packing, 'SMALL', 16)
  leaves = {'a/x': np.arange(4, dtype=np.float32), 'a/y': np.arange(3, dtype=np.float32)}
  apart, packed = leaf_packing.pack_small_leaves(leaves)
  assert packed == {'float32': [('a/y', [3])]} and set(apart) == {'a|x', 'float32'}


def test_packed_leaves_of_another_size_are_refused_and_shapes_are_known_without_numbers():
  packed = {'float32': [('a', [2, 2]), ('b', [])]}
  with pytest.raises(ValueError, match=r'float32: \(4,\) numbers, expected 5'):
    leaf_packing.unpack_small_leaves({'float32': np.zeros(4, np.float32)}, packed)
  described = jax.ShapeDtypeStruct((5,), np.float32)
  found = leaf_packing.unpack_small_leaves({'float32': described, 'c|d': described}, packed)
  assert {path: (leaf.shape, leaf.dtype) for path, leaf in found.items()} == {
    'a': ((2, 2), np.float32),
    'b': ((), np.float32),
    'c/d': ((5,), np.float32),
  }


def test_arrays_differ_by_shape_by_dtype_and_by_any_bit():
  x = np.arange(4, dtype=np.float32)
  assert checkpoints.equal_to_the_bit(x, jnp.arange(4, dtype=jnp.float32))
  assert not checkpoints.equal_to_the_bit(x, x.astype(np.float64))
  assert not checkpoints.equal_to_the_bit(x, x.view(np.int32))
  assert not checkpoints.equal_to_the_bit(x, x.reshape(2, 2))
  assert not checkpoints.equal_to_the_bit(x, np.nextafter(x, 9))


def test_a_key_is_saved_as_numbers_also_where_it_is_only_described():
  key = jax.random.key(3)
  state = State(jnp.zeros(()), {}, {}, (), key)
  np.testing.assert_array_equal(checkpoints.with_raw_key(state).key, jax.random.key_data(key))
  described = checkpoints.with_raw_key(jax.eval_shape(lambda: state)).key
  assert (described.shape, described.dtype) == ((2,), np.uint32)


def test_a_twin_that_is_damaged_is_not_linked(made, tmp_path):
  _, _, start = made
  params, extra = jax.device_get((start().params, start().extra))
  twin = Checkpoints(tmp_path / 'one')
  twin.begin(params, extra)
  twin.close()
  for path in (tmp_path / 'one' / 'origin').rglob('*'):
    if path.is_file() and path.parent.name != '0':
      path.write_bytes(b'')
  saved = Checkpoints(tmp_path / 'two')
  assert saved.begin(params, extra, [tmp_path / 'one'])
  chex.assert_trees_all_equal(saved.params('origin'), (params, extra))
  saved.close()


def test_closing_ends_every_writer(tmp_path):
  folder = Checkpoints(tmp_path)
  closed = []
  for kind, manager in folder.managers.items():
    end = manager.close
    manager.close = lambda kind=kind, end=end: (closed.append(kind), end())
  folder.close()
  assert closed == list(folder.managers)


def test_progress_begins_in_the_first_phase():
  assert (Progress().phase, Progress().phase_start, Progress().best_phase) == (0, 0, 0)


@pytest.mark.parametrize('processes, waits', [(1, 0), (2, 1)])
def test_a_process_alone_goes_on_while_its_checkpoint_is_written(
  made, tmp_path, monkeypatch, processes, waits
):
  _, _, start = made
  saved = Checkpoints(tmp_path)
  monkeypatch.setattr(checkpoints.multihost, 'host_share', lambda: (0, processes))
  waited = []
  monkeypatch.setattr(saved, 'wait', lambda: waited.append(1))
  saved.save('latest', start(), Progress())
  assert len(waited) == waits
  saved.close()
