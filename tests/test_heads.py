"""Heads pool what a backbone returns, with and without a class token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.models import Backbone, heads
from medtl.types import MedtlError


class Tokens(Backbone):
  """A value [b, 1 + 6, c] whose first row is the class token."""

  def maps(self, value):
    return value[:, 1:].reshape(value.shape[0], 2, 3, -1)

  def token(self, value):
    return value[:, 0]


X = jnp.asarray(np.random.RandomState(0).randn(4, 7, 5), jnp.float32)


@pytest.mark.parametrize('pool, expected', [
  ('auto', X[:, 0]), ('token', X[:, 0]), ('mean', X[:, 1:].mean(1)), ('max', X[:, 1:].max(1)),
  ('token+mean', jnp.concatenate([X[:, 0], X[:, 1:].mean(1)], -1)),
])
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
  variables = head.init(jax.random.key(0), half, Tokens(), train=False)
  assert set(variables['params']) == {'dense'} and float(jnp.abs(variables['params']['dense']['kernel']).max()) < 0.1
  still = head.apply(variables, half, Tokens(), train=False)
  assert still.shape == (4, 3) and still.dtype == jnp.float32
  np.testing.assert_allclose(still, half[:, 0].astype('f4') @ variables['params']['dense']['kernel'], atol=1e-5)
  many = jnp.ones((1, 64, 64, 1), jnp.bfloat16).at[:, :32].set(1.0078125)
  assert heads.pooled(many, Backbone(), 'mean')[0, 0] == 1 + 0.0078125 / 2                    # bfloat16 has no such number
  moved = head.apply(variables, half, Tokens(), train=True, rngs={'dropout': jax.random.key(1)})
  assert float(jnp.abs(moved - still).max()) > 0
