"""Freezing costs nothing.

A compiled step does the work of the gradient of its live leaves, and keeps state for no other.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.core.types import Batch, State
from medtl.models import Net, heads
from medtl.models.backbones import resnet, vit
from medtl.training import losses, optimizers, parameter_groups, step
from tests.conftest import supervised

NETS = {
  'resnet': lambda: resnet.ResNet(resnet.Bottleneck, (1, 1), 8),
  'vit': lambda: vit.vit_ti16(
    size=(32, 32),
    patch=4,
    width=32,
    heads=2,
    depth=2,
    lora=2,
    lora_targets=('query', 'value', 'up'),
  ),
}
ALL = [
  'none',
  'depth(1)',
  'depth(2)',
  'depth(1.0)',
  'only(0)',
  'only(1)',
  'all_but_norms',
  'match("backbone/stage2/.*")',
  'match(".*/kernel")',
  'depth(1) | match(".*/bias")',
]
STRATEGIES = [
  *(('resnet', text) for text in ALL),
  *(('vit', text) for text in [*ALL, 'all_but_biases', 'all_but_lora']),
]
EVERYTHING, ACCUMULATED = dict(clip=1.0, ema=0.9, l2_sp=0.01), dict(clip=1.0, accumulate=2)
CASES = [
  *((name, text, EVERYTHING) for name, text in STRATEGIES),
  ('resnet', 'depth(2)', ACCUMULATED),
  ('vit', 'all_but_lora', ACCUMULATED),
]
# A strategy of each kind in `make test`; the slow suite compiles them all, two programs each.
QUICK = {
  ('resnet', 'none'),
  ('resnet', 'depth(1)'),
  ('resnet', 'match("backbone/stage2/.*")'),
  ('vit', 'depth(2)'),
  ('vit', 'all_but_biases'),
}


@pytest.fixture(scope='module')
def made():
  found = {}
  for name, backbone in NETS.items():
    net = Net(backbone(), heads.linear(3))
    x = jnp.asarray(np.random.RandomState(0).rand(8, 32, 32, 3), jnp.float32)
    batch = Batch(x, jnp.arange(8) % 3, jnp.ones(8, bool), jnp.arange(8))
    variables = jax.jit(lambda x, net=net: net.init(jax.random.key(0), x, train=False))(batch.x)
    found[name] = (
      net,
      batch,
      variables['params'],
      {key: value for key, value in variables.items() if key != 'params'},
    )
  return found


def flops(function, *arguments):
  return jax.jit(function).lower(*arguments).compile().cost_analysis()['flops']


@pytest.mark.parametrize(
  ('name', 'text', 'extras'),
  [
    pytest.param(name, text, extras, marks=() if (name, text) in QUICK else pytest.mark.slow)
    for name, text, extras in CASES
  ],
)
def test_a_step_does_the_work_of_the_live_gradient(made, name, text, extras):
  net, batch, params, extra = made[name]
  keys = dict(extras)
  accumulate = keys.pop('accumulate', 1)
  context = parameter_groups.partition(
    params, parameter_groups.rule_table(params, text), direction=optimizers.adamw, lr=0.1, **keys
  )
  task = supervised(net, losses.softmax, kind='multiclass', live=context.live)
  opt = context.tx.init(params)
  state = State(jnp.zeros((), jnp.int32), params, extra, opt, jax.random.key(0))

  def ideal(moving, params, extra, batch):
    loss = lambda moving, part: task.mean(
      step.merge_live(moving, params, context.live), extra, part, jax.random.key(0)
    )[0]
    if accumulate == 1:
      return jax.grad(loss)(moving, batch)
    cut = jax.tree.map(lambda leaf: leaf.reshape(accumulate, -1, *leaf.shape[1:]), batch)
    add = lambda total, part: (jax.tree.map(jnp.add, total, jax.grad(loss)(moving, part)), None)
    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, moving), cut)[0]

  least = flops(ideal, step.select_live(params, context.live), params, extra, batch)
  update = lambda state, batch: step.update(
    state, batch, **task.bound, tx=context.tx, live=context.live, accumulate=accumulate
  )
  assert flops(update, state, batch) <= 1.05 * least
  live = step.select_live(params, context.live)
  came = keys.get('l2_sp', 0) > 0
  copies = 2 + (keys.get('ema', 0) > 0) + came  # Adam's two moments, the average, where it began
  small = pytrees.nbytes(opt) - copies * pytrees.nbytes(live)
  assert 0 <= small < 4096, (
    'the optimizer keeps a frozen leaf'
  )  # counts and the table of the schedule


def test_the_law_notices_a_frozen_gradient(made):
  """The same step, with one glance at what is frozen: the norm of all gradients."""
  net, batch, params, extra = made['resnet']
  context = parameter_groups.partition(
    params, parameter_groups.rule_table(params, 'depth(2)'), direction=optimizers.adamw, lr=0.1
  )
  task = supervised(net, losses.softmax, kind='multiclass', live=context.live)
  loss = lambda params, batch: task.mean(params, extra, batch, jax.random.key(0))[0]
  every = lambda params, batch: jax.grad(loss)(params, batch)
  least = flops(
    lambda params, batch: step.select_live(every(params, batch), context.live), params, batch
  )
  glance = lambda params, batch: jnp.stack(
    [jnp.sum(g**2) for g in jax.tree.leaves(every(params, batch))]
  )
  assert flops(glance, params, batch) > 1.3 * least


def test_low_rank_updates_begin_as_the_checkpoint(made):
  net, batch, params, _ = made['vit']
  plain = Net(vit.vit_ti16(size=(32, 32), patch=4, width=32, heads=2, depth=2), heads.linear(3))
  bare = pytrees.unflatten(
    {path: leaf for path, leaf in pytrees.flatten(params).items() if '/lora_' not in path}
  )
  chex.assert_trees_all_equal(
    net.apply({'params': params}, batch.x, train=False),
    plain.apply({'params': bare}, batch.x, train=False),
  )
  drawn = jax.tree_util.tree_map_with_path(
    lambda keys, leaf: leaf + 0.1 if pytrees.path_of(keys).endswith('lora_b') else leaf, params
  )
  merged = dict(pytrees.flatten(drawn))
  for path in [path for path in merged if path.endswith('lora_a')]:
    where = path.rpartition('/')[0]
    merged[f'{where}/kernel'] = (
      merged[f'{where}/kernel'] + merged[path] @ merged[f'{where}/lora_b']
    )  # W + A B, scale alpha ÷ rank = 1
  merged = pytrees.unflatten({path: leaf for path, leaf in merged.items() if '/lora_' not in path})
  ours, theirs = (
    net.apply({'params': drawn}, batch.x, train=False),
    plain.apply({'params': merged}, batch.x, train=False),
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()) + 1e-6)
