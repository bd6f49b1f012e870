"""Heads pool what a backbone returns, with and without a class token."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.models import Backbone, Net, heads
from medtl.training import losses, optimizers, parameter_groups
from tests.conftest import Toy, supervised


class Tokens(Backbone):
  """A value [b, 1 + 6, c] whose first row is the class token."""

  def maps(self, value):
    return value[:, 1:].reshape(value.shape[0], 2, 3, -1)

  def token(self, value):
    return value[:, 0]


X = jnp.asarray(np.random.RandomState(0).randn(4, 7, 5), jnp.float32)


@pytest.mark.parametrize(
  'pool, expected',
  [
    ('auto', X[:, 0]),
    ('token', X[:, 0]),
    ('mean', X[:, 1:].mean(1)),
    ('max', X[:, 1:].max(1)),
    ('token+mean', jnp.concatenate([X[:, 0], X[:, 1:].mean(1)], -1)),
  ],
)
def test_pooling_with_a_class_token(pool, expected):
  np.testing.assert_allclose(heads.pooled(X, Tokens(), pool), expected, atol=1e-6)


def test_pooling_of_maps_in_any_number_of_dimensions():
  for shape in ((6,), (2, 3), (1, 2, 3)):
    value = X[:, :6].reshape(4, *shape, 5)
    np.testing.assert_allclose(heads.pooled(value, Backbone(), 'auto'), X[:, :6].mean(1), atol=1e-6)


def test_a_token_that_is_not_there_is_an_error():
  with pytest.raises(MedtlError, match='no class token'):
    heads.pooled(X, Backbone(), 'token')
  with pytest.raises(MedtlError, match="did you mean 'mean'"):
    heads.linear(3, pool='means')


def test_head_computes_in_float32_starts_small_and_drops_in_training_alone():
  head = heads.linear(3, dropout=0.5)
  half = X.astype(jnp.bfloat16)
  variables = head.init(jax.random.key(0), head.reduce(half, Tokens()), train=False)
  assert (
    set(variables['params']) == {'dense'}
    and float(jnp.abs(variables['params']['dense']['kernel']).max()) < 0.1
  )
  still = head.apply(variables, head.reduce(half, Tokens()), train=False)
  assert still.shape == (4, 3) and still.dtype == jnp.float32
  np.testing.assert_allclose(
    still, half[:, 0].astype('f4') @ variables['params']['dense']['kernel'], atol=1e-5
  )
  many = jnp.ones((1, 64, 64, 1), jnp.bfloat16).at[:, :32].set(1.0078125)
  assert (
    heads.pooled(many, Backbone(), 'mean')[0, 0] == 1 + 0.0078125 / 2
  )  # bfloat16 has no such number
  moved = head.apply(
    variables, head.reduce(half, Tokens()), train=True, rngs={'dropout': jax.random.key(1)}
  )
  assert float(jnp.abs(moved - still).max()) > 0


def test_the_norm_of_the_head_learns_its_statistics_and_standardises(batch):
  """Its BatchNorm has no leaf of its own, so it goes with the head.

  Live while the head is, still while it is not.
  """
  net = Net(Toy(), heads.linear(3, pool='mean', norm='batch'))
  x = 5 + 3 * batch.x
  variables = net.init(jax.random.key(0), x, train=False)
  params, extra = variables['params'], {'batch_stats': variables['batch_stats']}
  for text, moves in (('depth(1.0)', True), ('match("head/.*")', False)):
    live = parameter_groups.partition(
      params, parameter_groups.rule_table(params, text), direction=optimizers.adamw, lr=0.1
    ).live
    task = supervised(net, losses.softmax, kind='multiclass', live=live)
    _, (after, _) = task.mean(params, extra, batch._replace(x=x), jax.random.key(0))
    old, new = (value['batch_stats']['head']['norm']['mean'] for value in (extra, after))
    assert (not np.array_equal(old, new)) == moves, text
  features = net.apply(variables, x, method='features').reshape(8, -1)
  for _ in range(200):
    _, changed = net.apply({'params': params, **extra}, x, train={'head'}, mutable=['batch_stats'])
    extra = {'batch_stats': changed['batch_stats']}
  found = extra['batch_stats']['head']['norm']
  chex.assert_trees_all_close(
    (found['mean'], found['var']), (features.mean(0), features.var(0)), rtol=1e-3, atol=1e-3
  )


def test_a_layer_norm_of_the_head_standardises_each_example_s_features():
  head = heads.linear(3, pool='mean', norm='layer')
  pooled = head.reduce(X, Tokens())
  variables = head.init(jax.random.key(0), pooled, train=False)
  assert set(variables['params']['norm']) == {'scale', 'bias'} and set(variables) == {'params'}
  x = np.asarray(X[:, 1:]).mean(1)
  centred = x - x.mean(-1, keepdims=True)
  unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
  expected = unit @ variables['params']['dense']['kernel']
  np.testing.assert_allclose(head.apply(variables, pooled, train=False), expected, atol=1e-5)


@pytest.mark.parametrize('norm', [True, 'instance'])
def test_a_norm_that_the_head_does_not_know_is_refused(norm):
  with pytest.raises(MedtlError, match=r"expected '', 'batch' .which was True. or 'layer'"):
    heads.linear(3, norm=norm)


def test_an_attentive_head_that_attends_to_nothing_is_a_linear_one_on_the_mean():
  head = heads.attentive(3, heads=5, dropout=0.5)
  variables = head.init(jax.random.key(0), head.reduce(X, Tokens()), train=False)
  params = variables['params']
  chex.assert_shape(params['query'], (5, 1))
  x = np.asarray(X[:, 1:])
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  value = (x @ params['value']['kernel'] + params['value']['bias']).mean(1)
  still = head.apply(
    {'params': {**params, 'query': jnp.zeros((5, 1))}}, head.reduce(X, Tokens()), train=False
  )
  np.testing.assert_allclose(
    still, value @ params['dense']['kernel'] + params['dense']['bias'], atol=1e-5
  )
  looking = head.apply(
    {'params': {**params, 'query': jnp.full((5, 1), 9.0)}}, head.reduce(X, Tokens()), train=False
  )
  assert float(jnp.abs(looking - still).max()) > 1e-4
  with pytest.raises(MedtlError, match='2 heads do not divide 5 channels'):
    heads.attentive(3, heads=2).init(jax.random.key(0), head.reduce(X, Tokens()), train=False)


class Levels(Backbone):
  """The net of a test of heads that read levels."""

  @property
  def stages(self):
    return 2

  def child(self, index, value, train):
    return value[:, ::2, ::2] if index == 2 else value


def test_an_auxiliary_classifier_is_of_earlier_maps_and_for_training_alone():
  net = Net(Levels(), heads.auxiliary(3, level='stage1', widths=(4, 6)))
  x = jnp.asarray(np.random.RandomState(0).randn(2, 17, 20, 5), jnp.float32)
  variables = net.init(jax.random.key(0), x, train=False)
  assert set(variables['params']['head']) == {'dense', 'auxiliary'}
  logits = net.apply(variables, x, train=False)
  features = x[:, ::2, ::2].mean((1, 2))
  kernel = variables['params']['head']['dense']['kernel']
  np.testing.assert_allclose(logits, features @ kernel, atol=1e-6)

  def loss(params, name):
    outputs, changed = net.apply(
      {**variables, 'params': params}, x, train={'head'}, mutable=['batch_stats']
    )
    assert set(changed['batch_stats']['head']['auxiliary']) == {'unit1', 'unit2'}
    return jnp.square(outputs[name] - jnp.arange(3.0)).sum()

  for name in ('logits', 'auxiliary'):
    gradients = jax.jit(jax.grad(loss), static_argnums=1)(variables['params'], name)['head']
    moves = jax.tree.map(lambda leaf: bool(jnp.abs(leaf).max() > 0), gradients)
    assert all(jax.tree.leaves(moves['auxiliary'])) == (name == 'auxiliary')
    assert all(jax.tree.leaves(moves['dense'])) == (name == 'logits')


def test_an_auxiliary_classifier_says_which_maps_it_needs():
  net = Net(Levels(), heads.auxiliary(3))
  with pytest.raises(MedtlError, match=r"'stage8', which this network has not.*stage1"):
    net.init(jax.random.key(0), jnp.zeros((1, 17, 17, 5)), train=False)
  net = Net(Levels(), heads.auxiliary(3, level='stage1'))
  with pytest.raises(MedtlError, match=r'stage1 are 16 × 30.*expects 17'):
    net.init(jax.random.key(0), jnp.zeros((1, 16, 30, 5)), train=False)
