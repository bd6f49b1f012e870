"""Losses: (outputs, y) -> [b]. Logits in, no reduction; y is a class [b] or a target [b, k].

Targets are soft or multi-hot. Above each loss stands what it `learns`: the kinds of task (see
classification.KINDS) whose decisions, as its probabilities read them off the logits, are right
where the loss is least. Those that learn MASKS take outputs [b, *s, k] and classes y [b, *s], and
return [b], or [b, *s] where each pixel is a decision of its own.
"""

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from medtl.core.annotation import FROM_0, FROM_0_BELOW_1
from medtl.core.types import MedtlError

MASKS = 'masks'
Smoothing = Annotated[float, FROM_0_BELOW_1]


def learns(*kinds: str) -> Callable[[Callable], Callable]:
  """Return a decorator that declares the kinds of task that a loss can learn.

  A function without it cannot be used as a loss.

  >>> learns('multiclass', 'binary')(lambda outputs, y: outputs).learns
  ('multiclass', 'binary')
  """
  if any(map(callable, kinds)):
    raise MedtlError(
      '@learns stands above a loss without kinds of task; expected some, such '
      "as @learns('multiclass', 'binary')"
    )

  def declare(loss: Any) -> Any:
    loss.learns = kinds
    return loss

  return declare


def _probabilities(outputs: jax.Array, y: jax.Array) -> jax.Array:
  """Return y as float32 [b, k] beside outputs [b, k]: classes [b] become one-hot."""
  if y.ndim == outputs.ndim - 1:
    return jax.nn.one_hot(y, outputs.shape[-1])
  return y.astype(jnp.float32)


def _target(outputs: jax.Array, y: jax.Array, smoothing: float = 0.0) -> jax.Array:
  """Return y as probabilities [b, k], smoothed towards 1/k (Szegedy et al. 2016, section 7)."""
  return _probabilities(outputs, y) * (1 - smoothing) + smoothing / outputs.shape[-1]


@learns('multiclass', 'binary', MASKS)
def softmax(outputs: jax.Array, y: jax.Array, smoothing: Smoothing = 0.0) -> jax.Array:
  """Return the cross-entropy of softmax(outputs [b, k]) against y [b] or [b, k].

  >>> round(float(softmax(jnp.zeros((1, 4)), jnp.array([2]))[0]), 4)             # log 4
  1.3863
  """
  return -jnp.sum(_target(outputs, y, smoothing) * jax.nn.log_softmax(outputs), -1)


@learns('multilabel')
def sigmoid(outputs: jax.Array, y: jax.Array, smoothing: Smoothing = 0.0) -> jax.Array:
  """Return the mean over k of the binary cross-entropies of sigmoid(outputs [b, k]) against y.

  It is for multi-label targets [b, k]. Smoothing draws each binary target towards one half.
  """
  soft = _probabilities(outputs, y) * (1 - smoothing) + smoothing / 2
  present = -soft * jax.nn.log_sigmoid(outputs)
  absent = (1 - soft) * jax.nn.log_sigmoid(-outputs)
  return jnp.mean(present - absent, -1)


@learns('multiclass', 'binary', MASKS)
def focal(outputs: jax.Array, y: jax.Array, gamma: Annotated[float, FROM_0] = 2.0) -> jax.Array:
  """Return the focal loss −Σ t (1 − p)^γ log p over softmax probabilities p and targets t.

  Lin et al. 2017, equation 4, without α.
  """
  log_p = jax.nn.log_softmax(outputs)
  return -jnp.sum(_target(outputs, y) * (1 - jnp.exp(log_p)) ** gamma * log_p, -1)


@learns(MASKS)
def dice(outputs: jax.Array, y: jax.Array, smooth: Annotated[float, FROM_0] = 1.0) -> jax.Array:
  """Return [b]: one minus the soft Dice of softmax(outputs [b, *s, k]) and y [b, *s].

  D = 2 Σ p g / (Σ p² + Σ g²), sums over pixels (Milletari et al. 2016, arXiv 1606.04797), and its
  mean over the classes but the first, the background. Each example has a Dice of its own: sums over
  a batch would make an example's loss depend on which others it was drawn with. `smooth` is added
  to both parts of the quotient, so that a class that an example does not show costs its p alone.

  >>> certain = 50 * jax.nn.one_hot(jnp.array([[0, 1, 1, 0]]), 2)
  >>> round(float(dice(certain, jnp.array([[0, 0, 1, 0]]), smooth=0.0)[0]), 4)   # 1 − 2 / (2 + 1)
  0.3333
  """
  pixels = tuple(range(1, outputs.ndim - 1))
  p = jax.nn.softmax(outputs)[..., 1:]
  g = jax.nn.one_hot(y, outputs.shape[-1])[..., 1:]
  common = jnp.sum(p * g, pixels)
  total = jnp.sum(p**2 + g, pixels)  # g is 0 or 1, its own square
  return jnp.mean(1 - (2 * common + smooth) / (total + smooth), -1)


@learns('ordinal')
def ordinal(outputs: jax.Array, y: jax.Array) -> jax.Array:
  """Return the CORN loss of the logits of P(y > j | y ≥ j), j = 0 … k−2, against grades y [b].

  Shi et al. 2023, equation 7. Each of the k − 1 binary tasks sees only the examples with y ≥ j;
  their losses are averaged. Soft targets raise a MedtlError.
  """
  if y.ndim != outputs.ndim - 1:
    raise MedtlError(
      'the ordinal loss takes grades, not soft targets; remove mixup or choose another loss'
    )
  j = jnp.arange(outputs.shape[-1])
  reached = y[:, None] >= j
  above = y[:, None] > j
  binary = -jnp.where(above, jax.nn.log_sigmoid(outputs), jax.nn.log_sigmoid(-outputs))
  return jnp.sum(binary * reached, -1) / outputs.shape[-1]


@learns('multiclass', 'binary')
def mse(outputs: jax.Array, y: jax.Array) -> jax.Array:
  """Return the mean squared error of outputs [b, k] against y [b, k], or against one-hot classes.

  Hui and Belkin 2021 use it for classification.
  """
  return jnp.mean((outputs - _target(outputs, y)) ** 2, -1)
