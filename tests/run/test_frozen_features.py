"""Where a phase starts, and why.

Activations are kept where that pays, and what is shared by alike runs is what each would make.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.core.types import MedtlError
from medtl.data import batches
from medtl.run import assemble, frozen_features, run_data
from medtl.runtime import files
from medtl.training import step
from tests import tiny

HEAD_INPUT = 6  # the cut behind the five children and the pooling


@pytest.fixture(scope='module')
def context():
  return assemble.run_context(tiny.get_config())


def with_(context, **changes):
  config = assemble.with_changes(
    context.config, tuple((name.replace('__', '.'), value) for name, value in changes.items())
  )
  return assemble.run_context(config, like=context)


def test_nothing_is_kept_where_nothing_is_frozen_or_each_example_is_used_once(context):
  assert frozen_features.choose(with_(context, phases=(('none', '3 epochs'),)), 0)[:2] == (
    0,
    'no child is frozen whole',
  )
  assert frozen_features.choose(with_(context, phases=(('depth(2)', '1 epochs'),)), 0)[:2] == (
    0,
    'each example is used once',
  )
  assert frozen_features.choose(with_(context, cache='off'), 0)[:2] == (0, "cache='off'")
  assert (
    frozen_features.choose(with_(context, cache='head'), 1)[0] == 0
    and frozen_features.choose(with_(context, cache='head'), 0)[0] == HEAD_INPUT
  )


def test_augmented_pictures_are_computed_each_time_and_it_is_said(context):
  found = frozen_features.choose(
    assemble.run_context(assemble.with_changes(context.config, (('augment', 'flip'),))), 0
  )
  assert found.start_child == 0 and 'pictures are augmented (flip), anew each time' in found.why


def test_a_byte_must_save_enough_work(context, monkeypatch):
  flops, size = context.cost(HEAD_INPUT)
  shape = jax.eval_shape(
    context.features(0, HEAD_INPUT),
    {'params': context.params, **context.extra},
    context.example().x,
  ).shape
  assert size == 4 * np.prod(shape[1:])
  monkeypatch.setitem(frozen_features.BALANCE, 'cpu', 0.99 * flops / size)
  assert frozen_features.choose(with_(context), 0).start_child == HEAD_INPUT
  monkeypatch.setitem(frozen_features.BALANCE, 'cpu', 1.01 * flops / size)
  depth, why, _ = frozen_features.choose(with_(context), 0)
  assert depth == 0 and 'reading costs more than computing' in why


def test_activations_that_do_not_fit_are_computed_each_time_and_it_is_said(
  context, monkeypatch, tmp_path
):
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path))  # where none are kept already
  whole = context.cost(HEAD_INPUT)[1] * sum(side.size for side in context.data.values())
  monkeypatch.setitem(frozen_features.BALANCE, 'cpu', 0.0)
  monkeypatch.setenv('MEDTL_FEATURES_GB', str(1.01 * whole / 1e9))
  made = with_(context)
  assert frozen_features.choose(made, 0).start_child == HEAD_INPUT
  monkeypatch.setattr(files, 'free_bytes', lambda folder: whole - 1)
  assert 'room for' in frozen_features.choose(with_(context), 0).why
  assert frozen_features.choose(made, 0).start_child == HEAD_INPUT, 'decided once'
  monkeypatch.undo()
  monkeypatch.setenv('MEDTL_FEATURES_GB', str(0.99 * whole / 1e9))
  monkeypatch.setitem(frozen_features.BALANCE, 'cpu', 0.0)
  assert 'MEDTL_FEATURES_GB' in frozen_features.choose(with_(context), 0).why
  viewed = assemble.run_context(
    assemble.with_changes(context.config, (('augment', 'flip'), ('views', 3)))
  )
  for share, first in ((4.01, HEAD_INPUT), (3.99, 0)):  # three views, and the pictures as they are
    monkeypatch.setenv('MEDTL_FEATURES_GB', str(share * whole / 1e9))
    assert frozen_features.choose(with_(viewed), 0).start_child == first


def test_what_alike_runs_share_is_what_each_would_make(context):
  """Another fold, rate and depth of a scaled net.

  The same weights and programs as a run of its own has.
  """
  scaled = assemble.run_context(
    assemble.with_changes(context.config, (('mean', (0.5,)), ('std', (0.5,))))
  )
  changes = dict(
    phases=(('depth(4)', '2 epochs'),),
    lr=0.01,
    data__split=dict(by='patient', folds=4, fold=2, seed=0),
  )
  shared, alone = with_(scaled, **changes), assemble.run_context(with_(scaled, **changes).config)
  assert shared.programs is scaled.programs and shared.net is scaled.net
  chex.assert_trees_all_equal(shared.params, alone.params)
  assert (
    shared.data['test'].table['row'].tolist()
    == alone.data['test'].table['row'].tolist()
    != scaled.data['test'].table['row'].tolist()
  )
  batch = shared.example()._replace(
    x=jax.random.uniform(jax.random.key(0), shared.example().x.shape)
  )
  first = scaled.program(1)(scaled.start(1), batch)[
    0
  ]  # fills the shared programs with another rate's
  states = [one.program(0)(one.start(), batch)[0] for one in (shared, alone)]
  chex.assert_trees_all_equal(*(pytrees.flatten(state.params) for state in states))
  assert not np.array_equal(
    first.params['head']['dense']['kernel'], states[0].params['head']['dense']['kernel']
  )


def test_a_norm_of_the_head_does_not_keep_the_backbone_from_being_computed_once(context):
  headed = with_(
    context,
    head=dict(name='linear', norm='batch'),
    norms=(('head/.*', 'train'),),
    phases=(('depth(1.0)', '3 epochs'),),
    cache='on',
  )
  assert headed.phases[0].depth == 5
  assert frozen_features.choose(headed, 0).start_child == HEAD_INPUT
  next(frozen_features.vectors(headed, [5]))


def test_another_seed_shows_other_views(context):
  changes = (
    ('mean', (0.5,)),
    ('std', (0.5,)),
    ('augment', 'noise(0.1)'),
    ('views', 2),
    ('cache', 'on'),
  )
  seen = assemble.run_context(assemble.with_changes(context.config, changes))
  other = with_(seen, seed=3)
  assert other.programs is seen.programs
  whole = frozen_features.joined(seen.data)
  variables = {'batch_stats': {}, 'params': seen.params, **seen.extra}
  paths_of = lambda made, view: frozen_features._paths(made, variables, whole, view)
  assert not set(paths_of(seen, 1)) & set(paths_of(other, 1)), 'they are kept under other names'
  assert paths_of(seen, 0) == paths_of(other, 0)
  batch = next(batches.eval_batches(seen.data['train'], 8))
  assert not np.array_equal(seen.view(batch, 1).x, other.view(batch, 1).x) and np.array_equal(
    seen.view(batch, 1).x, seen.view(batch, 1).x
  )


def test_from_scratch_another_split_is_another_net(context):
  """The pictures are scaled by the training side's own mean."""
  other = with_(context, data__split=dict(by='patient', folds=4, fold=2, seed=0))
  assert other.programs is not context.programs and other.net.mean != context.net.mean


def test_what_a_program_holds_tells_programs_apart(context):
  for changes in (
    dict(class_weights='balanced'),
    dict(clip=0.5),
    dict(lr=0.5),
    dict(batch=8),
    dict(ema=0.5),
    dict(head_lr=3.0),
    dict(accumulate=2),
  ):
    other = with_(context, **changes)
    assert other.programs is context.programs and other.program_cache_key(
      0
    ) != context.program_cache_key(0), changes
  target = with_(context, norms=(('.*', 'target'),))
  reseeded = assemble.run_context(assemble.with_changes(target.config, (('seed', 1),)), like=target)
  fresh = assemble.run_context(assemble.with_changes(target.config, (('seed', 1),)))
  chex.assert_trees_all_equal((reseeded.params, reseeded.extra), (fresh.params, fresh.extra))
  assert reseeded.programs is target.programs
  assert not assemble.shares_weights(
    target.config, assemble.with_changes(target.config, (('batch', 8),))
  ), 'estimated in whole batches'
  for changes in (
    dict(optimizer='sgd'),
    dict(dtype='bfloat16'),
    dict(augment='flip'),
    dict(norms=(('.*', 'source'),)),
    dict(truncate=3, phases=(('none', '1 epochs'),)),
  ):
    assert with_(context, **changes).programs is not context.programs, changes


def test_norms_estimated_on_the_training_side_are_another_fold_s_no_more(context):
  target = dict(norms=(('.*', 'target'),), mean=(0.5,), std=(0.5,))
  one = with_(context, **target)
  two = assemble.run_context(assemble.with_changes(one.config, (('data.split.fold', 1),)), like=one)
  assert two.programs is not one.programs
  assert not np.array_equal(
    *(
      pytrees.flatten(made.extra)['batch_stats/backbone/stage1/block0/norm1/mean']
      for made in (one, two)
    )
  )


def test_a_fold_with_other_steps_runs_the_same_program(context):
  same = with_(context, phases=(('depth(1.0)', '2 epochs'), ('depth(3)', '2 epochs')))
  assert same.program(0) is context.program(0) and same.phases[0].steps < context.phases[0].steps
  assert step.flops(same.lowered(0)) == step.flops(context.lowered(0))


def test_a_truncated_net_is_the_first_children_of_the_whole_one(context):
  scaled = assemble.with_changes(context.config, (('mean', (0.5,)), ('std', (0.5,))))
  whole = assemble.run_context(scaled)
  cut = assemble.run_context(
    assemble.with_changes(scaled, (('truncate', 3), ('phases', (('depth(1.0)', '2 epochs'),))))
  )
  assert cut.net.children == ('stem', 'stage1', 'stage2') and cut.phases[0].depth == 3
  x = jax.random.uniform(jax.random.key(0), cut.example().x.shape)
  apply = lambda context, **slice: context.net.apply(
    {'params': whole.params, **whole.extra}, x, method='features', **slice
  )
  chex.assert_trees_all_equal(apply(cut), apply(whole, end_child=3))
  assert 'stage3' not in cut.params['backbone']
  with pytest.raises(
    MedtlError, match=r'config.truncate is 9; this backbone has 5 children .stem and 4 stages.'
  ):
    assemble.run_context(assemble.with_changes(scaled, (('truncate', 9),)))


def test_views_cached_and_computed_in_the_step_agree_over_ten_steps(context):
  """f32, the same views: loss and logits to 1e-5 (issue: the frozen prefix, computed once)."""
  config = assemble.with_changes(
    context.config,
    (
      ('augment', 'flip | rotate(20) | gamma(0.8, 1.2)'),
      ('views', 3),
      ('mean', (0.5,)),
      ('std', (0.5,)),
      ('phases', (('depth(3)', '10 epochs'),)),
      ('cache', 'on'),
      ('batch', 10),
    ),
  )
  made = assemble.run_context(config)
  assert made.data['train'].size % 10 == 0, (
    'no padding: a padded row has no number to draw a view from'
  )
  assert frozen_features.choose(made, 0) == (3, "cache='on'", 3)
  train = frozen_features.boundary(made, 0, made.params, made.extra)['train']
  plain = run_data.train_batches(made.data['train'], made.config)
  kept = run_data.train_batches(train, made.config, views=3)
  cached, whole = made.start(), made.start()
  uncached = step.jit_update(
    loss=made.loss(0),
    counts=made.task.counts,
    tx=made.phases[0].partition.tx,
    live=made.phases[0].partition.live,
  )
  seen = set()
  for number in range(10):
    view = 1 + number // made.epoch % 3
    seen.add(view)
    small, large = next(kept), next(plain)
    assert small.row.tolist() == large.row.tolist()
    large = made.view(large, view)
    logits = [
      made.measure(first)(state.params, state.extra, batch)['score']
      for first, state, batch in ((3, cached, small), (0, whole, large))
    ]
    chex.assert_trees_all_close(*logits, atol=1e-5)
    (cached, logs), (whole, others) = made.program(0, 3)(cached, small), uncached(whole, large)
    assert float(logs['loss']) == pytest.approx(float(others['loss']), abs=1e-5)
  assert seen == {1, 2, 3}


def test_a_view_belongs_to_the_picture_and_not_to_its_batch(context):
  made = assemble.run_context(
    assemble.with_changes(context.config, (('augment', 'rotate(20) | noise(0.1)'), ('views', 2)))
  )
  batch = made.example()._replace(
    x=jax.random.uniform(jax.random.key(0), made.example().x.shape), row=jnp.arange(16)
  )
  backwards = jax.tree.map(lambda leaf: leaf[::-1], batch)
  chex.assert_trees_all_close(made.view(batch, 1).x, made.view(backwards, 1).x[::-1], atol=1e-6)
  assert not np.allclose(made.view(batch, 1).x, made.view(batch, 2).x)


def test_views_need_an_augmentation_that_leaves_examples_apart(context):
  mixed = assemble.run_context(
    assemble.with_changes(context.config, (('augment', 'mixup(0.2)'), ('views', 2)))
  )
  assert (
    'mixes examples' in frozen_features.choose(mixed, 0).why
    and frozen_features.choose(mixed, 0).start_child == 0
  )
  for cache, index in (('off', 0), ('head', 1)):
    found = frozen_features.choose(
      assemble.run_context(
        assemble.with_changes(context.config, (('augment', 'flip'), ('views', 2), ('cache', cache)))
      ),
      index,
    )
    assert (found.start_child, found.views) == (0, 0) and 'views are not used' in found.why
  with pytest.raises(MedtlError, match=r'config.views is 2, but nothing is augmented'):
    assemble.run_context(assemble.with_changes(context.config, (('views', 2),)))


def test_a_cached_phase_runs_in_bfloat16(context):
  made = assemble.run_context(
    assemble.with_changes(context.config, (('dtype', 'bfloat16'), ('cache', 'on')))
  )
  batch = next(
    run_data.train_batches(
      frozen_features.boundary(made, 0, made.params, made.extra)['train'], made.config
    )
  )
  assert batch.x.shape == (16, 32) and batch.x.dtype == jnp.float32  # pooled, as the head reads it
  state, logs = made.program(0, HEAD_INPUT)(made.start(), batch)
  assert np.isfinite(logs['loss']) and int(state.step) == 1
