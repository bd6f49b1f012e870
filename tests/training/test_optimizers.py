"""Directions by hand, over two gradients, with the defaults that papers name."""

import jax.numpy as jnp
import numpy as np
import pytest

from medtl.training import optimizers


def directions(tx, gradients, param=2.0):
  """Return the direction after each gradient; the parameter itself stands still."""
  p = jnp.asarray([param])
  state = tx.init(p)
  found = []
  for gradient in gradients:
    update, state = tx.update(jnp.asarray([gradient]), state, p)
    found.append(float(update[0]))
  return found


def adam(gradients, b1, b2, eps):
  """Kingma and Ba 2015, algorithm 1."""
  m = v = 0.0
  found = []
  for t, g in enumerate(gradients, 1):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    found.append(m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps))
  return found


def test_adamw_is_adam_with_decay_apart_from_the_moments():
  gradients = [1.0, -0.5, 0.25]
  expected = np.array(adam(gradients, 0.9, 0.999, 1e-8))
  assert directions(optimizers.adamw(0.1), gradients) == pytest.approx(expected + 0.2, rel=1e-4)
  own = np.array(adam(gradients, 0.5, 0.75, 0.1))
  found = directions(optimizers.adamw(0.0, b1=0.5, b2=0.75, eps=0.1), gradients)
  assert found == pytest.approx(own, rel=1e-5)
  tiny = [1e-8, 1e-8]
  expected = adam(tiny, 0.9, 0.999, 1e-8)
  assert directions(optimizers.adamw(0.0), tiny) == pytest.approx(expected, rel=1e-3)


def test_sgd_has_momentum_of_the_gradient_with_the_l2_term():
  assert directions(optimizers.sgd(0.0), [1.0, 1.0]) == pytest.approx([1, 1.9])
  assert directions(optimizers.sgd(0.1), [1.0, 1.0]) == pytest.approx([1.2, 1.2 * 1.9])
  assert directions(optimizers.sgd(0.1, momentum=0.0), [1.0, 1.0]) == pytest.approx([1.2, 1.2])
  nesterov = directions(optimizers.sgd(0.0, momentum=0.5, nesterov=True), [1.0, 1.0])
  assert nesterov == pytest.approx([1.5, 1.75])
