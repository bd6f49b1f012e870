"""Losses against scikit-learn and torch-independent arithmetic by hand."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from medtl import losses, tasks
from medtl.types import MedtlError

logits = np.random.RandomState(0).randn(6, 4).astype('f4')
y = np.array([0, 1, 2, 3, 1, 2])


def test_softmax_is_the_log_loss():
  found = losses.softmax(jnp.asarray(logits), jnp.asarray(y))
  chex.assert_shape(found, (6,))
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  assert np.isclose(found.mean(), log_loss(y, p, labels=range(4)), atol=1e-6)


@pytest.mark.parametrize('loss', [losses.softmax, losses.focal, losses.mse])
def test_hard_and_one_hot_targets_agree(loss):
  chex.assert_trees_all_close(loss(jnp.asarray(logits), jnp.asarray(y)), loss(jnp.asarray(logits), jnp.asarray(np.eye(4)[y])), atol=1e-6)


def test_smoothing_mixes_with_the_uniform_loss():
  plain, uniform = (losses.softmax(jnp.asarray(logits), target) for target in (jnp.asarray(y), jnp.full((6, 4), 0.25)))
  chex.assert_trees_all_close(losses.softmax(jnp.asarray(logits), jnp.asarray(y), smoothing=0.2), 0.8 * plain + 0.2 * uniform, atol=1e-6)


def test_focal_without_focus_is_softmax_and_focus_forgives_the_easy():
  x = jnp.asarray(logits)
  chex.assert_trees_all_close(losses.focal(x, jnp.asarray(y), gamma=0.0), losses.softmax(x, jnp.asarray(y)), atol=1e-6)
  easy, hard = losses.focal(jnp.asarray([[4.0, 0.0], [0.0, 4.0]]), jnp.array([0, 0]))
  plain = losses.softmax(jnp.asarray([[4.0, 0.0], [0.0, 4.0]]), jnp.array([0, 0]))
  assert easy / plain[0] < 1e-3 < 0.9 < hard / plain[1]


def test_sigmoid_is_the_mean_binary_log_loss():
  targets = np.array([[1, 0, 0, 1]] * 6)
  p = 1 / (1 + np.exp(-logits))
  by_hand = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(1)
  chex.assert_trees_all_close(losses.sigmoid(jnp.asarray(logits), jnp.asarray(targets)), jnp.asarray(by_hand, jnp.float32), atol=1e-5)


def test_ordinal_by_hand():
  """Grade 1 of 3: task 'above 0' is yes, task 'above 1' (reached) is no."""
  x = np.array([[0.3, -0.7]], 'f4')
  s = 1 / (1 + np.exp(-x))
  assert np.isclose(losses.ordinal(jnp.asarray(x), jnp.array([1]))[0], -(np.log(s[0, 0]) + np.log(1 - s[0, 1])) / 2, atol=1e-6)
  assert np.isclose(losses.ordinal(jnp.asarray(x), jnp.array([0]))[0], -np.log(1 - s[0, 0]) / 2, atol=1e-6)
  with pytest.raises(MedtlError, match='soft targets'):
    losses.ordinal(jnp.asarray(x), jnp.ones((1, 3)))


@pytest.mark.parametrize('kind', tasks.KINDS)
def test_probabilities_are_probabilities(kind):
  classes = 2 if kind == 'binary' else 4
  x = jnp.asarray(np.random.RandomState(1).randn(5, tasks.outputs(kind, classes)) * 5, jnp.float32)
  p = np.asarray(tasks.probabilities(x, kind))
  chex.assert_shape(p, (5, classes))
  assert (p >= 0).all() and (p <= 1).all()
  if kind != 'multilabel':
    assert np.allclose(p.sum(1), 1, atol=1e-6)


def test_ordinal_probabilities_by_hand():
  x = jnp.asarray([[1.0, -1.0]])
  a, b = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))
  assert np.allclose(tasks.probabilities(x, 'ordinal')[0], [1 - a, a - a * b, a * b], atol=1e-6)
