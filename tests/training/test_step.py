"""One update: padding changes nothing, accumulation is the large batch, it compiles once.

It gives its state's buffers away.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medtl.core import pytrees
from medtl.core.types import Batch, MedtlError, State, Term
from medtl.models import Net
from medtl.run import assemble, run_data
from medtl.training import losses, optimizers, parameter_groups, step
from tests import tiny
from tests.conftest import Toy, ToyHead, supervised


class Plain(Toy):
  """Without batch statistics and dropout, so that rows do not see each other."""

  def child(self, index, value, train):
    return nn.tanh(nn.Dense(12, name=f'stage{index}' if index else 'stem')(value))


@pytest.fixture(scope='module')
def plain(batch):
  net = Net(Plain(), ToyHead())
  return net, net.init(jax.random.key(0), batch.x, train=False)['params']


def run(net, params, batch, steps=1, freeze='depth(1)', **keys):
  rules = parameter_groups.rule_table(params, freeze)
  parts = parameter_groups.partition(
    params, rules, direction=lambda decay: optimizers.sgd(decay, momentum=0.9), lr=0.1
  )
  task = supervised(
    net,
    losses.softmax,
    kind='multiclass',
    live=parts.live,
    class_weights=keys.pop('class_weights', None),
  )
  move = step.jit_update(**task.bound, tx=parts.tx, live=parts.live, **keys)
  params = jax.tree.map(jnp.array, params)
  state = State(jnp.zeros((), jnp.int32), params, {}, parts.tx.init(params), jax.random.key(0))
  for _ in range(steps):
    state, logs = move(state, batch)
  return state, logs


def test_padded_rows_change_nothing(plain, batch):
  five = jax.tree.map(lambda leaf: leaf[:5], batch)
  padded = batch._replace(
    mask=jnp.arange(8) < 5, x=batch.x.at[5:].set(1e3), y=batch.y.at[5:].set(0)
  )
  (a, logs_a), (b, logs_b) = run(*plain, five), run(*plain, padded)
  chex.assert_trees_all_close(a.params, b.params, atol=1e-6)
  chex.assert_trees_all_close(logs_a, logs_b, atol=1e-6)


def test_accumulation_is_the_large_batch_also_with_padding(plain, batch):
  padded = batch._replace(mask=jnp.arange(8) != 6)
  (a, logs_a), (b, logs_b) = (
    run(*plain, padded, steps=3),
    run(*plain, padded, steps=3, accumulate=4),
  )
  chex.assert_trees_all_close(a.params, b.params, atol=1e-6)
  chex.assert_trees_all_close(logs_a, logs_b, atol=1e-5)


def test_accumulation_must_divide_the_batch(plain, batch):
  with pytest.raises(MedtlError, match='accumulate=3 does not divide the batch of 8'):
    run(*plain, batch, accumulate=3)


def test_class_weights_weigh(plain, batch):
  only = batch._replace(mask=batch.y == 1)
  (_, plainly), (_, doubled) = run(*plain, only), run(*plain, only, class_weights=(1.0, 2.0, 1.0))
  assert np.isclose(doubled['loss'], 2 * plainly['loss'], rtol=1e-6)


def test_an_example_without_any_label_keeps_its_weight():
  class Outputs:
    apply = staticmethod(lambda variables, x, **_: (x, {}))

  x, y = jnp.array([[3.0, -1.0], [0.5, 2.0]]), jnp.array([[0.0, 0.0], [1.0, 0.0]])
  task = supervised(
    Outputs, losses.sigmoid, kind='multilabel', live={'head': {'a': True}}, class_weights=(0.5, 1.5)
  )
  batch = Batch(x, y, jnp.ones(2, bool), jnp.arange(2))
  value, _ = task.mean({'head': {'a': x}}, {}, batch, jax.random.key(0))
  each = losses.sigmoid(x, y)
  assert float(value) == pytest.approx(float(each[0] + 0.5 * each[1]) / 2)


def test_augmentation_sees_another_key_each_step(plain, batch):
  seen = []

  def augment(key, batch):
    jax.debug.callback(lambda data: seen.append(tuple(np.asarray(data))), jax.random.key_data(key))
    return batch

  run(*plain, batch, steps=3, augment=augment)
  jax.effects_barrier()
  assert len(set(seen)) == 3


@pytest.mark.parametrize('accumulate', [1, 2])
def test_augmentation_dropout_and_every_microbatch_draw_from_keys_of_their_own(batch, accumulate):
  """A key that serves twice ties what should be independent, such as a flip and a dropout mask."""
  keys = []

  def note(key):
    data = jax.random.key_data(key)
    jax.debug.callback(lambda numbers: keys.append(tuple(np.asarray(numbers).tolist())), data)

  def augment(key, batch):
    note(key)
    return batch

  def loss(params, extra, batch, key, step):
    note(key)
    return {'loss': Term(params['w'])}, extra

  tx = optax.with_extra_args_support(optax.identity())
  params = {'w': jnp.zeros(())}
  state = State(jnp.zeros((), jnp.int32), params, {}, tx.init(params), jax.random.key(0))
  for _ in range(3):
    state, _ = step.update(
      state,
      batch,
      loss=loss,
      counts=lambda batch: {'loss': 1},
      tx=tx,
      live={'w': True},
      augment=augment,
      accumulate=accumulate,
    )
  jax.effects_barrier()
  assert len(set(keys)) == len(keys) == 3 * (1 + accumulate)


def test_it_compiles_once_and_donates_its_state(plain, batch):
  net, params = plain
  parts = parameter_groups.partition(
    params, parameter_groups.rule_table(params, 'none'), direction=optimizers.adamw, lr=0.1
  )
  task = supervised(net, losses.softmax, kind='multiclass', live=parts.live)
  move = jax.jit(
    chex.assert_max_traces(
      lambda state, batch: step.update(state, batch, **task.bound, tx=parts.tx, live=parts.live), 1
    ),
    donate_argnums=0,
  )
  params = jax.tree.map(jnp.array, params)
  first = State(jnp.zeros((), jnp.int32), params, {}, parts.tx.init(params), jax.random.key(0))
  second, _ = move(first, batch)
  move(second, batch)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first.params))
  chex.assert_shape(second.params['head']['dense']['kernel'], (12, 3))


def test_pick_and_join_are_inverse(plain):
  params = plain[1]
  live = jax.tree.map(lambda leaf: leaf.ndim == 2, params)
  chex.assert_trees_all_equal(step.merge_live(step.select_live(params, live), params, live), params)


def test_measure_counts_each_row_by_itself(plain, batch):
  net, params = plain
  task = supervised(net, losses.softmax, kind='multiclass')
  whole = task.measure(params, {}, batch)
  chex.assert_shape(whole['score'], (8, 3))
  half = task.measure(params, {}, jax.tree.map(lambda leaf: leaf[:4], batch))
  chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[:4], whole), half, atol=1e-6)


@pytest.mark.parametrize(
  'model',
  [
    dict(name='resnet.resnet18', width=8, weights=''),
    pytest.param(
      dict(name='vit.vit_ti16', width=32, depth=4, heads=2, weights=''), marks=pytest.mark.slow
    ),
  ],
)
def test_what_is_computed_again_gives_the_same_step_and_is_not_held(model):
  """`config.remat`: the bytes that the forward pass hands to the backward one, and the numbers."""
  changes = (('model', model), ('optimizer', 'sgd'), ('phases', (('none', '2 epochs'),)))
  plain = assemble.run_context(assemble.with_changes(tiny.get_config(), changes))
  again = assemble.run_context(assemble.with_changes(plain.config, (('remat', ('.*',)),)))
  assert again.net.remat == again.net.children
  batch = next(run_data.train_batches(plain.data['train'], plain.config))
  (first, logs), (second, others) = (
    parts.program(0)(parts.start(), batch) for parts in (plain, again)
  )
  np.testing.assert_allclose(others['loss'], logs['loss'], rtol=1e-6)
  for path, leaf in pytrees.flatten((first.params, first.extra)).items():
    np.testing.assert_allclose(
      pytrees.flatten((second.params, second.extra))[path], leaf, rtol=1e-4, atol=1e-5, err_msg=path
    )

  def mean_loss(parts, params, batch):
    terms, _ = parts.loss(0)(params, parts.extra, batch, jax.random.key(0), 0)
    return step.weighted(terms, parts.task.counts(batch))[0]

  def held(parts):
    loss = lambda params: mean_loss(parts, params, batch)
    kept = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], parts.params)
    return sum(
      leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)
    ) - 4 * pytrees.count_parameters(parts.params)

  assert held(again) < 0.6 * held(plain)
  with pytest.raises(
    MedtlError, match=r"config.remat: 'stage99' matches no child; there are: stem, stage1"
  ):
    assemble.run_context(assemble.with_changes(plain.config, (('remat', ('stage99',)),)))


def test_a_step_by_hand(plain, batch):
  """The live leaves go to w − lr · g; the logs are the loss and the norm of their gradient."""
  net, params = plain
  parts = parameter_groups.partition(
    params,
    parameter_groups.rule_table(params, 'depth(1.0)'),
    direction=lambda decay: optax.identity(),
    lr=0.5,
  )
  task = supervised(net, losses.softmax, kind='multiclass', live=parts.live)
  key = jax.random.key(4)
  state = State(jnp.asarray(7, jnp.int32), params, {}, parts.tx.init(params), key)
  after, logs = step.update(state, batch, **task.bound, tx=parts.tx, live=parts.live)
  value, grads = jax.value_and_grad(lambda params: task.mean(params, {}, batch, key)[0])(params)
  expected = jax.tree.map(lambda w, g: w - 0.5 * g, params['head'], grads['head'])
  chex.assert_trees_all_close(after.params['head'], expected, atol=1e-6)
  chex.assert_trees_all_equal(after.params['backbone'], params['backbone'])
  assert int(after.step) == 8 and after.key is key
  assert float(logs['loss']) == pytest.approx(float(value))
  assert float(logs['grad_norm']) == pytest.approx(float(optax.tree.norm(grads['head'])), rel=1e-5)
  assert set(logs) == {'loss', 'grad_norm'}


def test_a_batch_of_padding_alone_moves_nothing(plain, batch):
  net, params = plain
  for accumulate in (1, 2):
    state, logs = run(net, params, batch._replace(mask=jnp.zeros(8, bool)), accumulate=accumulate)
    chex.assert_trees_all_equal(state.params, params)
    assert float(logs['loss']) == 0


def test_microbatches_share_what_is_no_parameter_one_after_the_other(batch):
  """Running averages see each part in turn: a counter goes up by one a part."""

  def loss(params, extra, batch, key, step):
    return {'loss': Term(params['w'] * jnp.sum(batch.mask))}, {'seen': extra['seen'] + 1}

  counts = lambda batch: {'loss': jnp.sum(batch.mask)}

  tx = optax.with_extra_args_support(optax.identity())
  params = {'w': jnp.ones(())}
  extra = {'seen': jnp.zeros(())}
  state = State(jnp.zeros((), jnp.int32), params, extra, tx.init(params), jax.random.key(0))
  keys = dict(loss=loss, counts=counts, tx=tx, live={'w': True})
  for accumulate in (1, 4):
    after, logs = step.update(state, batch, accumulate=accumulate, **keys)
    assert float(after.extra['seen']) == accumulate and float(logs['loss']) == pytest.approx(1)


def test_flops_are_xlas_count():
  x = jnp.ones((3, 5))
  count = step.flops(jax.jit(lambda a, b: a @ b).lower(x, x.T))
  assert count == 2 * 3 * 5 * 3


@pytest.mark.parametrize('accumulate', [1, 2])
def test_only_parts_of_a_batch_are_looped_over(plain, batch, accumulate):
  net, params = plain
  parts = parameter_groups.partition(
    params, parameter_groups.rule_table(params, 'none'), direction=optimizers.sgd, lr=0.1
  )
  task = supervised(net, losses.softmax, kind='multiclass', live=parts.live)
  keys = dict(task.bound, tx=parts.tx, live=parts.live)
  state = State(jnp.zeros((), jnp.int32), params, {}, parts.tx.init(params), jax.random.key(0))
  program = jax.make_jaxpr(lambda: step.update(state, batch, accumulate=accumulate, **keys))()
  assert (' scan[' in str(program)) == (accumulate > 1)


def test_a_steps_state_stays_where_it_is_placed(plain, batch):
  net, params = plain
  parts = parameter_groups.partition(
    params, parameter_groups.rule_table(params, 'none'), direction=optimizers.sgd, lr=0.1
  )
  task = supervised(net, losses.softmax, kind='multiclass', live=parts.live)
  params = jax.tree.map(jnp.array, params)
  state = State(jnp.zeros((), jnp.int32), params, {}, parts.tx.init(params), jax.random.key(0))
  mesh = jax.make_mesh((1,), ('batch',), devices=jax.devices()[:1])
  place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  places = jax.tree.map(lambda leaf: place, state)
  move = step.jit_update(places, **task.bound, tx=parts.tx, live=parts.live)
  after, _ = move(state, batch)
  assert {leaf.sharding for leaf in jax.tree.leaves(after)} == {place}


def test_a_term_of_weight_0_is_told_and_not_learned_and_one_example_is_a_mean_over_one():
  terms = {'own': Term(jnp.array(3.0)), 'told': Term(jnp.array(jnp.nan), 0.0)}
  total, logs = step.weighted(terms, {'own': 1, 'told': 1})
  assert float(total) == 3 and float(logs['own']) == 3 and np.isnan(logs['told'])


def test_without_augmentation_every_copy_is_the_batch_itself(batch):
  assert step.augmented(jax.random.key(0), batch, None, 1) is batch
  copies = step.augmented(jax.random.key(0), batch, None, 3)
  assert len(copies) == 3 and all(copy is batch for copy in copies)


def test_each_stream_is_augmented_by_a_key_of_its_own(batch):
  key = jax.random.key(0)
  streams = {'train': batch, 'target': batch}
  drawn = step.augmented(key, streams, lambda own, _: jax.random.uniform(own), 1)
  # in the order of the names, whatever that of the dictionary
  expected = [jax.random.uniform(jax.random.fold_in(key, place)) for place in (0, 1)]
  assert drawn == {'target': expected[0], 'train': expected[1]}
