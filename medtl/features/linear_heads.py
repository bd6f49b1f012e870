"""Heads by the hundred: linear heads on features that are computed once, trained side by side in one program.

All of them see all examples in every step, so that the forward pass of m heads is one matrix product [n, d] × [d, m·k].
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy

from medtl.core.types import MedtlError
from medtl.evaluation import metrics


class Heads(NamedTuple):
  """m linear heads."""

  weight: Any  # [m, d, k]
  bias: Any  # [m, k]


class Settings(NamedTuple):
  """What m heads differ in; arrays [m]."""

  lr: np.ndarray
  decay: np.ndarray  # L2 on the weights: decay / 2 · |W|²
  balance: np.ndarray  # 0 every example alike … 1 every class alike
  seed: np.ndarray  # of the first weights


def grid(
  lr: Sequence[float] = (0.01,),
  decay: Sequence[float] = (1e-4,),
  balance: Sequence[float] = (0.0,),
  seed: Sequence[int] = (0,),
) -> Settings:
  """Return every combination.

  >>> grid(lr=(0.1, 0.01), seed=(0, 1, 2)).lr.round(2).astype(float).round(2).tolist()
  [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]
  """
  lrs, decays, balances, seeds = zip(*itertools.product(lr, decay, balance, seed), strict=True)
  return Settings(
    np.array(lrs, np.float32),
    np.array(decays, np.float32),
    np.array(balances, np.float32),
    np.array(seeds, np.int32),
  )


def standardise(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
  """Return the function that gives each feature of the training examples x [n, d] mean 0 and variance 1; constant ones become 0."""
  mean, spread = x.mean(0), x.std(0)
  factor = np.where(
    spread > 1e-6 * np.abs(mean).clip(1e-30), 1 / np.where(spread > 0, spread, 1), 0.0
  )
  return lambda other: ((other - mean) * factor).astype(np.float32)


def train(
  x: np.ndarray,
  y: np.ndarray,
  settings: Settings,
  classes: int,
  used: np.ndarray | None = None,
  steps: int = 300,
) -> Heads:
  """Return the heads after `steps` steps of Adam, its rate falling along a cosine, on softmax cross-entropy plus L2.

  `x` [n, d], `y` [n] classes; `used` [m, n] weighs examples for each head (0: not seen), for label fractions and folds. The loss of a
  head is Σ w·ce / Σ w + decay / 2 · |W|², whose minimum is logistic regression's with C = 1 / (decay · Σ w).
  """
  count = len(settings.lr)
  used = np.ones((count, len(y)), np.float32) if used is None else np.asarray(used, np.float32)
  if used.shape != (count, len(y)) or x.shape[:1] != y.shape:
    raise MedtlError(
      f'probe: x {x.shape}, y {y.shape}, used {used.shape} for {count} heads; expected [n, d], [n] and [heads, n]'
    )
  seen = np.stack([used @ (y == kind) for kind in range(classes)], 1)  # [m, k] weight of each class
  even = used.sum(1, keepdims=True) / (classes * np.maximum(seen, 1e-9))
  weight = used * (even ** settings.balance[:, None])[:, y]
  return _train(
    jnp.asarray(x, jnp.float32),
    jnp.asarray(y),
    jnp.asarray(weight / weight.sum(1, keepdims=True)),
    jax.tree.map(jnp.asarray, settings),
    classes,
    steps,
  )


@functools.partial(jax.jit, static_argnums=(4, 5))
def _train(
  x: jax.Array, y: jax.Array, weight: jax.Array, settings: Settings, classes: int, steps: int
) -> Heads:
  def first(seed: Any) -> Heads:
    return Heads(
      0.01 * jax.random.normal(jax.random.key(seed), (x.shape[1], classes)), jnp.zeros(classes)
    )

  def loss(heads: Heads) -> jax.Array:
    each = -jnp.take_along_axis(jax.nn.log_softmax(logits(heads, x)), y[None, :, None], 2)[
      ..., 0
    ]  # [m, n]
    return jnp.sum(weight * each) + jnp.sum(
      settings.decay / 2 * jnp.sum(heads.weight**2, (1, 2))
    )  # heads do not meet in it

  adam = optax.scale_by_adam()
  rate = lambda t, leaf: (
    -settings.lr.reshape(-1, *[1] * (leaf.ndim - 1)) * (1 + jnp.cos(jnp.pi * t / steps)) / 2
  )

  def step(t: jax.Array, carry: tuple) -> tuple:
    heads, state = carry
    updates, state = adam.update(jax.grad(loss)(heads), state)
    return jax.tree.map(lambda leaf, u: leaf + rate(t, leaf) * u, heads, updates), state

  begin = jax.vmap(first)(settings.seed)
  return jax.lax.fori_loop(0, steps, step, (begin, adam.init(begin)))[0]


def logits(heads: Heads, x: Any) -> Any:
  """Return [m, n, k], by one matrix product."""
  count, d, k = heads.weight.shape
  joined = x @ jnp.moveaxis(heads.weight, 0, 1).reshape(d, count * k)
  return jnp.moveaxis(joined.reshape(len(x), count, k), 1, 0) + heads.bias[:, None]


def predict(heads: Heads, x: np.ndarray) -> np.ndarray:
  """Return probabilities [m, n, k]."""
  return np.asarray(jax.nn.softmax(logits(heads, jnp.asarray(x, jnp.float32))))


def logistic(x: np.ndarray, y: np.ndarray, c: float = 1.0, balanced: bool = False) -> Any:
  """Return scikit-learn's logistic regression, by L-BFGS to convergence: the exact solution that a trained head comes near to."""
  from sklearn.linear_model import LogisticRegression

  return LogisticRegression(C=c, max_iter=5000, class_weight='balanced' if balanced else None).fit(
    x, y
  )


def ridge(x: np.ndarray, y: np.ndarray, alpha: float = 1.0, balanced: bool = False) -> Any:
  """Return scikit-learn's ridge classifier (least squares on one-hot targets)."""
  from sklearn.linear_model import RidgeClassifier

  return RidgeClassifier(alpha=alpha, class_weight='balanced' if balanced else None).fit(x, y)


def neighbours(x: np.ndarray, y: np.ndarray, k: int = 11) -> Any:
  """Return scikit-learn's k nearest neighbours by cosine."""
  from sklearn.neighbors import KNeighborsClassifier

  return KNeighborsClassifier(min(k, len(x)), metric='cosine').fit(x, y)


def svm(x: np.ndarray, y: np.ndarray, c: float = 1.0, balanced: bool = False) -> Any:
  """Return scikit-learn's linear support vector machine (one class against the rest)."""
  from sklearn.svm import LinearSVC

  return LinearSVC(C=c, max_iter=20000, class_weight='balanced' if balanced else None).fit(x, y)


def score(model: Any, x: np.ndarray, temperature: float = 1.0) -> np.ndarray:
  """Return [n, k] of one of these models: probabilities where it has them, else a softmax of its decision function / temperature."""
  if hasattr(model, 'predict_proba'):
    return model.predict_proba(x)
  found = model.decision_function(x)
  found = np.stack([-found, found], 1) if found.ndim == 1 else found
  return scipy.special.softmax(found / temperature, 1)


def temperature(model: Any, x: np.ndarray, y: np.ndarray) -> float:
  """Return what a model's decision function is divided by to have the least log-loss on (x, y) (Guo et al. 2017, section 4.2).

  1 for one that has probabilities. A margin's own scale is that of its penalty, not of a chance: it would choose the penalty.
  """
  if hasattr(model, 'predict_proba'):
    return 1.0
  cost = lambda power: float(metrics.log_loss(score(model, x, 10.0**power), y))
  return float(10.0 ** scipy.optimize.minimize_scalar(cost, bounds=(-4, 4), method='bounded').x)
