"""Whose statistics a BatchNorm uses.

The batch's, the checkpoint's, or those of the new pictures.
"""

import dataclasses

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.core.types import MedtlError
from medtl.data import batches
from medtl.run import assemble, frozen_features, train
from medtl.training import batch_statistics, losses, parameter_groups
from medtl.training.checkpoints import Checkpoints
from tests import tiny
from tests.conftest import supervised


def moved(net, variables, batch, freeze, rules):
  """Return the paths of the norms whose running averages a step moves, and the loss."""
  params, extra = variables
  live = parameter_groups.label(params, parameter_groups.rule_table(params, freeze))
  task = supervised(
    net,
    losses.softmax,
    kind='multiclass',
    live=jax.tree.map(lambda name: name != 'frozen', live),
    rules=rules,
  )
  value, (after, _) = jax.jit(task.mean)(params, extra, batch, jax.random.key(0))
  old, new = pytrees.flatten(extra['batch_stats']), pytrees.flatten(after['batch_stats'])
  found = {path.rpartition('/')[0] for path in old if not np.array_equal(old[path], new[path])}
  assert found == batch_statistics.training(
    {'params': params, **extra}, jax.tree.map(lambda name: name != 'frozen', live), rules
  )
  return found, float(value)


@pytest.mark.parametrize(
  ('freeze', 'rules', 'expected'),
  [
    ('depth(2)', (), {'stage2', 'stage3'}),
    ('depth(2)', (('.*', 'source'),), set()),
    ('depth(2)', (('.*', 'target'),), set()),
    ('depth(2)', (('backbone/stem/.*', 'train'),), {'stem', 'stage2', 'stage3'}),
    (
      'depth(2)',
      (('backbone/stage3/.*', 'source'), ('.*', 'train')),
      {'stem', 'stage1', 'stage2'},
    ),  # the first that matches counts
    ('depth(4)', (('.*', 'train'),), {'stem', 'stage1', 'stage2', 'stage3'}),
  ],
)
def test_the_first_rule_decides_and_without_one_what_is_live(
  net, variables, batch, freeze, rules, expected
):
  found, _ = moved(net, variables, batch, freeze, rules)
  assert found == {f'backbone/{name}/norm1' for name in expected}


def test_a_frozen_norm_in_training_mode_normalises_by_the_batch(net, variables, batch):
  """The published flaw: the probe is trained on features that it never sees again."""
  assert (
    moved(net, variables, batch, 'depth(4)', (('.*', 'train'),))[1]
    != moved(net, variables, batch, 'depth(4)', ())[1]
  )


def test_target_statistics_are_mean_and_variance_of_all_that_the_norm_sees(net, variables, batch):
  params, extra = variables
  pictures = [
    np.random.RandomState(seed).randn(8, 12).astype(np.float32) + seed for seed in range(3)
  ]
  wanted = {'backbone/stem/norm1', 'backbone/stage2/norm1'}
  found = batch_statistics.estimated(
    batch_statistics.estimator(net, wanted), wanted, {'params': params, **extra}, pictures
  )
  seen = (
    np.concatenate(pictures) @ np.asarray(params['backbone']['stem']['dense']['kernel'])
    + params['backbone']['stem']['dense']['bias']
  )
  stem = found['backbone']['stem']['norm1']
  np.testing.assert_allclose(stem['mean'], seen.mean(0), atol=1e-5)
  np.testing.assert_allclose(stem['var'], seen.var(0), rtol=1e-4)
  for name in ('stage1', 'stage3'):
    chex.assert_trees_all_equal(found['backbone'][name], extra['batch_stats']['backbone'][name])
  below = []  # the stem by each batch, stage1 by the checkpoint's statistics
  for x in pictures:
    h = (
      x @ np.asarray(params['backbone']['stem']['dense']['kernel'])
      + params['backbone']['stem']['dense']['bias']
    )
    own = {
      **extra['batch_stats']['backbone'],
      'stem': {'norm1': dict(mean=h.mean(0), var=h.var(0))},
    }
    below.append(
      net.apply(
        {'params': params, 'batch_stats': {**extra['batch_stats'], 'backbone': own}},
        x,
        end_child=2,
        method='features',
      )
    )
  seen = (
    np.concatenate(below) @ np.asarray(params['backbone']['stage2']['dense']['kernel'])
    + params['backbone']['stage2']['dense']['bias']
  )
  np.testing.assert_allclose(found['backbone']['stage2']['norm1']['mean'], seen.mean(0), atol=1e-4)
  np.testing.assert_allclose(found['backbone']['stage2']['norm1']['var'], seen.var(0), rtol=1e-3)


@pytest.mark.parametrize(
  ('rules', 'said'),
  [
    ((('.*', 'trian'),), "unknown policy 'trian'; did you mean 'train'"),
    (
      (('backbone/stage9/.*', 'train'),),
      "'backbone/stage9/.*' matches no BatchNorm; their paths begin backbone/stage1/norm1",
    ),
    ((('no(', 'train'),), 'is not a regex'),
  ],
)
def test_rules_that_cannot_be_meant(variables, rules, said):
  with pytest.raises(MedtlError, match=said.replace('.*', r'\.\*').replace('no(', r'no\(')):
    batch_statistics.check(rules, variables[1]['batch_stats'])
  with pytest.raises(MedtlError, match=r'this net has none: set config.norms=\(\)'):
    batch_statistics.check((('.*', 'train'),), {})


def test_activations_under_batch_statistics_are_never_kept():
  config = assemble.with_changes(
    tiny.get_config(), (('norms', (('backbone/stem/.*', 'train'),)), ('cache', 'on'))
  )
  found = frozen_features.choose(assemble.run_context(config), 0)
  assert found.start_child == 0 and "uses the batch's statistics" in found.why
  with pytest.raises(
    MedtlError, match=r'what the children below 5 make is no function of a picture alone'
  ):
    next(frozen_features.vectors(assemble.run_context(config), [5]))


def test_a_run_begins_with_the_statistics_of_its_own_training_pictures():
  plain = assemble.run_context(tiny.get_config())
  adapted = assemble.run_context(
    assemble.with_changes(plain.config, (('norms', (('.*', 'target'),)),))
  )
  found, before = (pytrees.flatten(context.extra['batch_stats']) for context in (adapted, plain))
  assert all(not np.array_equal(found[path], before[path]) for path in found)
  assert (
    frozen_features.choose(adapted, 0).start_child == frozen_features.choose(plain, 0).start_child
  )


@pytest.fixture(scope='module')
def context():
  """A run whose second phase trains the last two children, from weights of its own."""
  made = assemble.run_context(tiny.get_config())
  random = np.random.RandomState(1)
  return dataclasses.replace(
    made,
    params=jax.tree.map(
      lambda leaf: leaf + 0.1 * random.randn(*leaf.shape).astype(np.float32), made.params
    ),
  )


def test_settled_averages_are_the_same_from_pictures_and_from_activations(context):
  pictures = np.stack([context.data['train'].fetch(i).x for i in range(24)])
  activations = np.asarray(
    context.features(0, 3)({'params': context.params, **context.extra}, pictures)
  )
  direct = context.with_precise_batch_stats(
    1, 0, context.params, context.extra, [pictures[:12], pictures[12:]]
  )
  cached = context.with_precise_batch_stats(
    1, 3, context.params, context.extra, [activations[:12], activations[12:]]
  )
  chex.assert_trees_all_close(direct, cached, rtol=1e-4, atol=1e-5)
  before, after = pytrees.flatten(context.extra), pytrees.flatten(direct)
  moved = {path.split('/')[2] for path in before if not np.array_equal(before[path], after[path])}
  assert moved == {'stage3', 'stage4'}


def test_a_net_evaluated_on_what_its_settled_norms_saw_is_the_net_that_trains(
  net, variables, batch
):
  """The law behind it (Wu & Johnson 2021).

  With one batch, the settled statistics are the batch's own.
  """
  params, extra = variables
  wanted = {f'backbone/{name}/norm1' for name in ('stem', 'stage1', 'stage2', 'stage3')}
  found = {
    **extra,
    'batch_stats': batch_statistics.estimated(
      batch_statistics.estimator(net, wanted), wanted, {'params': params, **extra}, [batch.x]
    ),
  }
  with batch_statistics.apply(
    jax.tree.map(lambda _: False, params), (('.*', 'train'),)
  ):  # without dropout
    trained, _ = net.apply(
      {'params': params, **extra}, batch.x, train=False, mutable=['batch_stats']
    )
  chex.assert_trees_all_close(
    trained, net.apply({'params': params, **found}, batch.x, train=False), atol=1e-4
  )


def test_the_best_checkpoint_holds_the_settled_averages_and_the_latest_those_of_training(tmp_path):
  config = assemble.with_changes(
    tiny.get_config(),
    (('norm_images', 48), ('phases', (('none', '2 epochs'),)), ('every', '2 epochs')),
  )
  train.train(config, tmp_path / 'run')
  saved = Checkpoints(tmp_path / 'run' / 'checkpoints')
  (params, best), (_, latest) = saved.params('best'), saved.params('latest')
  saved.close()
  context = assemble.run_context(config)
  train_batches = batches.train_batches(context.data['train'], config.batch, seed=config.seed)
  chex.assert_trees_all_equal(
    best,
    context.with_precise_batch_stats(
      0, 0, params, latest, [next(train_batches).x for _ in range(3)]
    ),
  )
  assert not np.array_equal(
    *(made['batch_stats']['backbone']['stem']['norm']['mean'] for made in (best, latest))
  )


def test_a_rule_must_match_the_whole_path_and_the_first_wins():
  rules = (('backbone/stage1/.*', 'train'), ('.*norm1', 'source'), ('.*', 'target'))
  assert batch_statistics.policy('backbone/stage1/block0/norm1', rules) == 'train'
  assert batch_statistics.policy('backbone/stage2/norm1', rules) == 'source'
  assert batch_statistics.policy('backbone/stage2/norm12', rules) == 'target'
  assert batch_statistics.policy('backbone/stage2/norm12', rules[:2]) == ''
  assert batch_statistics.policy('backbone/stage1/norm1', (('stage1', 'train'),)) == ''


def test_a_check_accepts_each_policy_and_shows_the_first_four_norms():
  statistics = {f'stage{number}': {'norm': {'mean': 0, 'var': 1}} for number in range(6)}
  for policy in batch_statistics.POLICIES:
    batch_statistics.check((('stage3/.*', policy),), statistics)
  words = "'stage3' matches no BatchNorm; their paths begin stage0/norm, stage1/norm, stage2/norm, "
  with pytest.raises(MedtlError, match=f'{words}stage3/norm; leave this rule out$'):
    batch_statistics.check((('.*', 'train'), ('stage3', 'train')), statistics)


class Norms(nn.Module):
  """Two norms with leaves of their own and one without, which goes with the block around it."""

  @nn.compact
  def __call__(self, x, train):
    x = nn.BatchNorm(momentum=0.5, name='first')(x, use_running_average=not train)
    return Block(name='block')(x, train)


class Block(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    x = nn.Dense(3, name='dense')(x)
    keys = dict(use_bias=False, use_scale=False, momentum=0.5)
    return nn.BatchNorm(name='bare', **keys)(x, use_running_average=not train)


def norms_that_move(live, rules, train=True):
  net, x = Norms(), np.random.RandomState(0).randn(16, 3).astype(np.float32)
  variables = net.init(jax.random.key(0), x, False)
  live = {
    'first': {'scale': live['first'], 'bias': False},
    'block': {'dense': {'kernel': live['block'], 'bias': False}},
  }
  with batch_statistics.apply(live, rules):
    _, after = net.apply(variables, x, train, mutable=['batch_stats'])
  before = pytrees.flatten(variables['batch_stats'])
  after = pytrees.flatten(after['batch_stats'])
  found = {path.rpartition('/')[0] for path in before if (before[path] != after[path]).any()}
  expected = batch_statistics.training(variables, live, rules) if train else set()
  assert found == expected
  return found


@pytest.mark.parametrize(
  ('first', 'block', 'rules', 'expected'),
  [
    (True, True, (), {'first', 'block/bare'}),
    (True, False, (), {'first'}),
    (False, True, (), {'block/bare'}),
    (False, False, (), set()),
    (False, False, (('block/.*', 'train'),), {'block/bare'}),
    (True, True, (('first', 'target'), ('block/bare', 'source')), set()),
  ],
)
def test_a_norm_without_leaves_goes_with_the_block_around_it(first, block, rules, expected):
  assert norms_that_move({'first': first, 'block': block}, rules) == expected


def test_a_live_norm_that_its_module_holds_still_stays_still():
  assert norms_that_move({'first': True, 'block': True}, (), train=False) == set()
