"""The rule table: what is frozen stands still, what is live moves as computed by hand."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medtl.core import expressions, pytrees
from medtl.core.types import MedtlError, State
from medtl.training import freezing, losses, optimizers, parameter_groups, step
from tests.conftest import supervised

CHILDREN = ['stem', 'stage1', 'stage2', 'stage3']


def build(params, freeze='none', phase=0, before=None, direction=optimizers.adamw, lr=0.1, **keys):
  split = {
    name: keys.pop(name) for name in ('decay', 'head_lr', 'lr_decay', 'rules') if name in keys
  }
  rules = parameter_groups.rule_table(params, freeze, **split)
  return parameter_groups.partition(
    params, rules, direction=direction, lr=lr, phase=phase, before=before, **keys
  )


def start(parts, variables):
  params, extra = jax.tree.map(jnp.array, variables)
  return State(
    jnp.zeros((), jnp.int32), params, extra, jax.jit(parts.tx.init)(params), jax.random.key(0)
  )


def trained(net, parts, variables, batch, steps=3, **keys):
  task = supervised(net, losses.softmax, kind='multiclass', live=parts.live)
  move = step.jit_update(**task.bound, tx=parts.tx, live=parts.live, **keys)
  state = start(parts, variables)
  for _ in range(steps):
    state, logs = move(state, batch)
  return state, logs


STRATEGIES = [
  'none',
  'depth(0)',
  'depth(2)',
  'depth(0.5)',
  'depth(4)',
  'match(".*/stage2/.*")',
  'all_but_norms',
  'all_but_biases',
  'all_but("backbone/stage2/.*")',
  'only(1)',
  'match(".*/norm1/.*")',
  'depth(1) | match("backbone/stage3/.*")',
]


@pytest.mark.parametrize('text', STRATEGIES)
def test_frozen_leaves_and_their_statistics_stay_bit_identical(net, variables, batch, text):
  parts = build(variables[0], text, decay=0.1, clip=1.0)
  state, _ = trained(net, parts, variables, batch)
  before, after, live = (
    pytrees.flatten(value) for value in (variables[0], state.params, parts.live)
  )
  assert all(np.array_equal(before[path], after[path]) != live[path] for path in before), (
    'a frozen leaf moved or a live one did not'
  )
  old, new = (pytrees.flatten(value['batch_stats']) for value in (variables[1], state.extra))
  for path in old:
    norm = path.rpartition('/')[0]
    alive = any(value for other, value in live.items() if other.startswith(norm + '/'))
    assert np.array_equal(old[path], new[path]) != alive, path


@pytest.mark.parametrize(
  ('text', 'frozen'),
  [
    ('none', []),
    ('depth(1)', ['stem']),
    ('depth(0.5)', ['stem', 'stage1']),
    ('depth(3)', CHILDREN[:3]),
    ('depth(1.0)', CHILDREN),
  ],
)
def test_depth_freezes_children_from_the_stem_on(variables, text, frozen):
  parts = build(variables[0], text)
  live = parameter_groups.live_children(parts.live)
  assert [name for name in CHILDREN if name not in live] == frozen and 'head' in live
  assert parameter_groups.frozen_depth(parts.live) == len(frozen)


def test_a_norm_after_the_last_stage_is_frozen_with_it():
  params = {
    'backbone': {name: {'kernel': jnp.ones((2, 2))} for name in ('stem', 'stage1')}
    | {'norm': {'scale': jnp.ones(2)}},
    'head': {'dense': {'kernel': jnp.ones((2, 2))}},
  }
  probe, last = build(params, 'depth(2)'), build(params, 'depth(1)')
  assert not probe.live['backbone']['norm']['scale'] and last.live['backbone']['norm']['scale']
  assert (
    parameter_groups.frozen_depth(probe.live) == 2 and parameter_groups.frozen_depth(last.live) == 1
  )
  only_norm = build(params, 'match("backbone/stem/.*|backbone/stage1/.*")')
  assert parameter_groups.frozen_depth(only_norm.live) == 1, (
    'a live norm needs the last stage recomputed'
  )
  assert (
    build(params, 'only(1)').live['backbone']['norm']['scale']
    and not build(params, 'only(0)').live['backbone']['norm']['scale']
  )


@pytest.mark.parametrize(
  'text',
  ['depth(5)', 'depth(-1)', 'depth(1.5)', 'depht(1)', 'match("backbone/stage9/.*")', 'match(".*")'],
)
def test_freezing_what_is_not_there(variables, text):
  with pytest.raises(MedtlError):
    build(variables[0], text)


def test_one_step_of_adamw_by_hand(net, variables, batch):
  """lr_decay 0.5, head × 2: the rate of stage 3 is 0.1 · 0.5, of the stem 0.1 · 0.5⁴.

  Decay for kernels; Adam's first step is g/|g|.
  """
  parts = build(variables[0], lr_decay=0.5, head_lr=2.0, decay=0.3)
  state, _ = trained(net, parts, variables, batch, steps=1)
  task = supervised(net, losses.softmax, kind='multiclass', live=parts.live)
  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 1)
  grads = jax.grad(lambda p: task.mean(p, variables[1], batch, key)[0])(variables[0])
  rates = {'head': 0.2, 'stage3': 0.05, 'stage2': 0.025, 'stage1': 0.0125, 'stem': 0.00625}
  for path, g in pytrees.flatten(grads).items():
    p = pytrees.flatten(variables[0])[path]
    child = path.removeprefix('backbone/').partition('/')[0]
    decay = 0.3 if path.endswith('kernel') else 0.0
    expected = p - rates[child] * (g / (jnp.abs(g) + 1e-8) + decay * p)
    if path.endswith('dense/bias') and 'backbone' in path:
      continue  # before a BatchNorm its gradient is rounding noise
    chex.assert_trees_all_close(pytrees.flatten(state.params)[path], expected, atol=1e-5)


def test_sgd_by_hand():
  tx = optimizers.sgd(0.1, momentum=0.5)
  p, g = jnp.asarray([2.0]), jnp.asarray([1.0])
  state = tx.init(p)
  first, state = tx.update(g, state, p)
  second, _ = tx.update(g, state, p)
  assert np.allclose([first[0], second[0]], [1.2, 1.8])


def test_the_schedule_reads_the_runs_step(variables):
  parts = build(variables[0], direction=lambda decay: optax.identity(), factors=np.arange(70))
  grads = jax.tree.map(jnp.ones_like, variables[0])
  for now, factor in ((3, 3), (69, 69), (1000, 69)):
    updates, _ = parts.tx.update(
      grads, parts.tx.init(variables[0]), variables[0], step=jnp.asarray(now)
    )
    assert all(np.allclose(leaf, -0.1 * factor) for leaf in jax.tree.leaves(updates))


def test_schedules_of_other_lengths_are_one_program(variables):
  programs = [
    jax.jit(parts.tx.update)
    .lower(variables[0], parts.tx.init(variables[0]), variables[0], step=jnp.asarray(0))
    .as_text()
    for parts in (build(variables[0], factors=np.linspace(1, 0, length)) for length in (90, 97))
  ]
  assert programs[0] == programs[1]


def test_clipping_measures_live_gradients_only(variables):
  parts = build(
    variables[0], 'depth(4)', direction=lambda decay: optax.identity(), lr=1.0, clip=1.0
  )
  grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 100.0), variables[0])
  updates, _ = parts.tx.update(
    grads, parts.tx.init(variables[0]), variables[0], step=jnp.asarray(0)
  )
  assert np.isclose(optax.tree.norm(updates), 1.0, atol=1e-5)


def test_the_users_rules_come_first_and_must_match(variables):
  parts = build(variables[0], 'depth(1)', rules=(('backbone/stage1/dense/.*', 0.25, 0.0),))
  assert parts.labels['backbone']['stage1']['dense']['kernel'].startswith('lr 0.25')
  with pytest.raises(MedtlError, match="rule 'nowhere' matches nothing"):
    build(variables[0], rules=(('nowhere', 1.0, 0.0),))


def test_what_becomes_live_later_moves_like_a_fresh_adam(net, variables, batch):
  """After 50 steps of the head, stage 3's first update is g/|g| · lr.

  It is not scaled by the head's count; the head's moments go on.
  """
  first = build(variables[0], 'depth(4)')
  state, _ = trained(net, first, variables, batch, steps=50)
  second = build(variables[0], 'depth(3)', phase=1, before=first.labels)
  opt = parameter_groups.carry_opt_state(state.opt, second.tx.init(state.params))
  counts = {
    path: int(leaf) for path, leaf in pytrees.flatten(opt).items() if path.endswith('count')
  }
  assert sorted(counts.values()) == [0, 50], counts
  grads = jax.tree.map(jnp.ones_like, state.params)
  updates, _ = second.tx.update(grads, opt, state.params, step=state.step)
  assert np.allclose(updates['backbone']['stage3']['dense']['kernel'], -0.1, atol=1e-6)
  old, new = (
    jax.tree.leaves(
      {path: leaf for path, leaf in pytrees.flatten(value).items() if '/mu/head/' in path}
    )
    for value in (state.opt, opt)
  )
  chex.assert_trees_all_equal(old, new)


def test_two_equal_phases_are_one(net, variables, batch):
  one = build(variables[0], 'depth(2)', ema=0.9)
  two = build(variables[0], 'depth(2)', ema=0.9, phase=1, before=one.labels)
  assert two.labels == one.labels
  state, _ = trained(net, one, variables, batch)
  chex.assert_trees_all_equal(
    parameter_groups.carry_opt_state(state.opt, two.tx.init(state.params)), state.opt
  )


def test_frozen_leaves_have_no_optimizer_state_and_no_average(variables):
  sizes = [
    pytrees.count_parameters(
      jax.eval_shape(build(variables[0], f'depth({d})', ema=0.9).tx.init, variables[0])
    )
    for d in range(5)
  ]
  params = [
    sum(leaf.size for leaf in jax.tree.leaves(variables[0]['backbone'][name])) for name in CHILDREN
  ]
  drops = [a - b for a, b in itertools.pairwise(sizes)]
  assert all(abs(drop - 3 * count) <= 4 for drop, count in zip(drops, params, strict=True)), (
    'two moments and an average a live leaf'
  )


def test_the_average_follows_its_formula(net, variables, batch):
  parts = build(variables[0], 'depth(3)', ema=0.5)
  state, _ = trained(net, parts, variables, batch, steps=1)
  mean = parameter_groups.averaged_params(state.opt, state.params)
  chex.assert_trees_all_close(
    mean['head'],
    jax.tree.map(lambda a, b: (a + b) / 2, variables[0]['head'], state.params['head']),
    atol=1e-6,
  )
  chex.assert_trees_all_equal(mean['backbone']['stem'], state.params['backbone']['stem'])


def test_l2_sp_pulls_what_was_transferred_back_to_where_it_began(variables):
  """Li et al. 2018, equation 2, by hand: −lr · (g + α (w − w₀)).

  The head is fresh; w₀ outlives a phase, and also one in which a leaf was frozen.
  """
  came = jax.tree_util.tree_map_with_path(
    lambda keys, _: pytrees.path_of(keys).startswith('backbone'), variables[0]
  )
  keys = dict(direction=lambda decay: optax.identity(), lr=0.1, l2_sp=0.5, transferred=came)
  one = build(variables[0], 'depth(3)', **keys)
  two = build(variables[0], 'depth(2)', phase=1, before=one.labels, **keys)
  opt = one.tx.init(variables[0])
  moved = jax.tree.map(lambda leaf, live: leaf + 2.0 if live else leaf, variables[0], one.live)
  opt = parameter_groups.anchored(
    parameter_groups.carry_opt_state(opt, two.tx.init(moved)), variables[0]
  )
  updates, _ = two.tx.update(jax.tree.map(jnp.ones_like, moved), opt, moved, step=jnp.asarray(0))
  assert np.allclose(
    updates['backbone']['stage3']['dense']['kernel'], -0.1 * (1 + 0.5 * 2.0), atol=1e-6
  )
  assert np.allclose(updates['backbone']['stage2']['dense']['kernel'], -0.1) and np.allclose(
    updates['head']['dense']['kernel'], -0.1
  )
  probe = build(variables[0], 'depth(4)', phase=2, before=two.labels, **keys)
  again = build(variables[0], 'depth(3)', phase=3, before=probe.labels, **keys)
  opt = parameter_groups.anchored(
    parameter_groups.carry_opt_state(probe.tx.init(moved), again.tx.init(moved)), variables[0]
  )
  updates, _ = again.tx.update(jax.tree.map(jnp.ones_like, moved), opt, moved, step=jnp.asarray(0))
  assert np.allclose(
    updates['backbone']['stage3']['dense']['kernel'], -0.1 * (1 + 0.5 * 2.0), atol=1e-6
  )


@pytest.mark.parametrize('keys', [{}, {'clip': 1.0}, {'ema': 0.9}, {'clip': 1.0, 'accumulate': 2}])
def test_flops_fall_with_depth(net, variables, batch, keys):
  accumulate = keys.pop('accumulate', 1)
  counts = []
  for depth in range(5):
    parts = build(variables[0], f'depth({depth})', **keys)
    task = supervised(net, losses.softmax, kind='multiclass', live=parts.live)
    move = step.jit_update(**task.bound, tx=parts.tx, live=parts.live, accumulate=accumulate)
    counts.append(step.flops(move.lower(start(parts, variables), batch)))
  assert all(a > 1.05 * b for a, b in itertools.pairwise(counts)), counts


def test_freeze_language_is_the_module():
  assert set(expressions.public(freezing)) == {
    'none',
    'depth',
    'match',
    'all_but',
    'all_but_norms',
    'all_but_biases',
    'all_but_lora',
    'only',
  }


@pytest.mark.parametrize(
  'text, said',
  [
    (
      'all_but("nothing")',
      r'all_but matches nothing that could stay live, so the whole backbone would be frozen',
    ),
    (
      'all_but_lora',
      r'all_but_lora matches nothing .* or give the updates a rank: config.model.lora=8',
    ),
    ('only(9)', r'only\(9\): this backbone has 4 children'),
    ('match("no(")', r"freeze 'no\(' is not a regex"),
  ],
)
def test_patterns_that_cannot_be_meant(variables, text, said):
  with pytest.raises(MedtlError, match=said):
    parameter_groups.rule_table(variables[0], text)


VIT = {
  'backbone': {
    'stem': {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)},
    'stage1': {'norm1': {'scale': jnp.ones(3)}, 'dense': {'kernel': jnp.ones((3, 3))}},
    'stage2': {'dense': {'kernel': jnp.ones((3, 4))}},
    'stage10': {'dense': {'kernel': jnp.ones((4, 4))}},
    'norm': {'scale': jnp.ones(4)},
  },
  'head': {'dense': {'kernel': jnp.ones((4, 2)), 'bias': jnp.ones(2)}},
}


def test_children_are_in_the_order_of_their_numbers():
  assert parameter_groups.children(VIT) == ['stem', 'stage1', 'stage2', 'stage10']


def test_the_table_by_hand():
  """Rates fall by lr_decay a child, vectors have no decay, a rule without a leaf is left out."""
  found = parameter_groups.rule_table(
    VIT, 'only(0) | match("backbone/stage1/.*")', decay=0.1, head_lr=3.0, lr_decay=0.5
  )
  assert [rule for _, rule in found[:2]] == [None, None]
  assert found[2:] == [
    ('head/.*/(kernel|embedding)', (3.0, 0.1)),
    ('head/.*', (3.0, 0.0)),
    ('backbone/stem/(.*/)?kernel', (0.0625, 0.1)),
    ('backbone/stem/.*', (0.0625, 0.0)),
  ]
  live = parameter_groups.rule_table(VIT, 'depth(2)', lr_decay=0.5, rules=(('.*/bias', 0.2, 0.3),))
  assert live[1:] == [
    ('.*/bias', (0.2, 0.3)),
    ('head/.*/(kernel|embedding)', (1.0, 0.0)),
    ('backbone/(stage10|norm)/(.*/)?kernel', (0.5, 0.0)),
    ('backbone/(stage10|norm)/.*', (0.5, 0.0)),
    ('backbone/stage2/(.*/)?kernel', (0.25, 0.0)),
  ]
  assert parameter_groups.Rule() == (1.0, 0.0)


def test_a_summary_counts_leaves_and_numbers_of_each_rule():
  parts = build(VIT, 'depth(2)', decay=0.1, head_lr=2.0)
  found = parameter_groups.summary(parts, VIT)
  rows = [tuple(row[name] for name in ('lr', 'decay', 'leaves', 'parameters')) for row in found]
  assert rows == [
    (None, None, 4, 6 + 3 + 3 + 9),
    (2.0, 0.1, 1, 8),
    (2.0, 0.0, 1, 2),
    (1.0, 0.1, 1, 16),
    (1.0, 0.0, 1, 4),
    (1.0, 0.1, 1, 12),
  ]
  assert [row['pattern'] for row in found] == [pattern for pattern, _ in parts.rules]


def test_groups_are_named_by_rule_and_by_the_phase_in_which_they_became_live():
  first = build(VIT, 'depth(3)')
  second = build(VIT, 'depth(2)', phase=1, before=first.labels)
  third = build(VIT, 'depth(3)', phase=2, before=second.labels, head_lr=2.0)
  labels = [pytrees.flatten(parts.labels) for parts in (first, second, third)]
  head = [found['head/dense/kernel'] for found in labels]
  assert head == [
    'lr 1.0 decay 0.0 since phase 0',
    'lr 1.0 decay 0.0 since phase 0',
    'lr 2.0 decay 0.0 since phase 2',
  ]
  stage2 = [found['backbone/stage2/dense/kernel'] for found in labels]
  assert stage2 == ['frozen', 'lr 1.0 decay 0.0 since phase 1', 'frozen']
  with pytest.raises(MedtlError, match='every parameter is frozen; leave the head live'):
    build(VIT, 'match(".*")')


@pytest.mark.parametrize(
  ('count', 'length'), [(1, 64), (64, 64), (65, 128), (128, 128), (129, 256)]
)
def test_a_schedules_table_is_padded_by_its_last_factor_to_a_power_of_two(count, length):
  found = parameter_groups.padded(np.arange(count))
  assert found.shape == (length,) and found.dtype == np.float32
  np.testing.assert_array_equal(found, np.minimum(np.arange(length), count - 1))


def test_the_rate_is_lr_times_the_rules_factor_times_the_schedules(variables):
  parts = build(
    VIT, 'depth(3)', direction=lambda decay: optax.identity(), lr=0.5, head_lr=3.0, factors=[0.25]
  )
  grads = jax.tree.map(jnp.ones_like, VIT)
  updates, _ = parts.tx.update(grads, parts.tx.init(VIT), VIT, step=jnp.asarray(0))
  assert np.allclose(updates['head']['dense']['kernel'], -0.5 * 3 * 0.25)
  assert np.allclose(updates['backbone']['stage10']['dense']['kernel'], -0.5 * 0.25)
  assert not np.any(updates['backbone']['stem']['kernel'])
  plain = parameter_groups.partition(
    VIT, parts.rules, direction=lambda decay: optax.identity(), lr=0.5
  )
  updates, _ = plain.tx.update(grads, plain.tx.init(VIT), VIT, step=jnp.asarray(0))
  assert np.allclose(updates['head']['dense']['kernel'], -0.5 * 3)


def test_equal_keys_are_of_equal_programs(variables):
  keys = dict(direction=optimizers.adamw, factors=np.ones(3))
  base = build(VIT, **keys)
  assert base.key == build(VIT, **keys | dict(factors=np.zeros(60))).key
  others = (
    dict(lr=0.2),
    dict(clip=1.0),
    dict(ema=0.5),
    dict(l2_sp=0.1),
    dict(freeze='depth(1)'),
    dict(phase=1),
    dict(factors=np.ones(65)),
  )
  found = [build(VIT, **keys | other).key for other in others]
  assert len({base.key, *found}) == 1 + len(others)


def test_l2_sp_pulls_every_live_leaf_where_all_were_transferred():
  parts = build(VIT, 'depth(4)', direction=lambda decay: optax.identity(), lr=1.0, l2_sp=0.5)
  moved = jax.tree.map(lambda leaf: leaf + 2.0, VIT)
  still = jax.tree.map(jnp.zeros_like, VIT)
  updates, _ = parts.tx.update(still, parts.tx.init(VIT), moved, step=jnp.asarray(0))
  assert np.allclose(updates['head']['dense']['kernel'], -1.0)
  assert not np.any(updates['backbone']['stem']['kernel'])


def test_an_average_follows_updates_and_its_absence_leaves_the_params():
  parts = build(VIT, 'depth(4)', direction=lambda decay: optax.identity(), lr=1.0, ema=0.75)
  opt = parts.tx.init(VIT)
  grads = jax.tree.map(jnp.ones_like, VIT)
  _, opt = parts.tx.update(grads, opt, VIT, step=jnp.asarray(0))
  mean = parameter_groups.averaged_params(opt, VIT)
  assert np.allclose(mean['head']['dense']['bias'], 0.75 * 1 + 0.25 * (1 - 1))
  plain = build(VIT)
  chex.assert_trees_all_equal(parameter_groups.averaged_params(plain.tx.init(VIT), VIT), VIT)


@pytest.mark.parametrize(
  ('freeze', 'names', 'depth'),
  [
    ('none', ('stem', 'stage1', 'stage2', 'stage10', 'head'), 0),
    ('depth(1)', ('stage1', 'stage2', 'stage10', 'head'), 1),
    ('depth(1.0)', ('head',), 4),
    ('match("backbone/stage.*|backbone/norm.*")', ('stem', 'head'), 0),
    ('match("backbone/s.*")', ('head',), 3),
    ('match("head/.*") | depth(2)', ('stage2', 'stage10'), 2),
  ],
)
def test_which_children_are_live_and_how_many_are_frozen_whole(freeze, names, depth):
  live = build(VIT, freeze).live
  assert set(parameter_groups.live_children(live)) == set(names)
  assert parameter_groups.frozen_depth(live) == depth


def test_a_run_begins_with_phase_0():
  rules = parameter_groups.rule_table(VIT, 'depth(1.0)')
  parts = parameter_groups.partition(VIT, rules, direction=optimizers.adamw, lr=0.1)
  assert parameter_groups.label(VIT, rules) == parts.labels
  assert parts.labels['head']['dense']['bias'] == 'lr 1.0 decay 0.0 since phase 0'
