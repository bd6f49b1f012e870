"""Linear heads by the hundred, on features computed once, trained side by side in one program.

All of them see all examples in every step, so that the forward pass of m heads is one matrix
product [n, d] × [d, m·k].
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
  """Return the settings of a head for every combination of the values.

  >>> grid(lr=(0.5, 0.25), seed=(0, 1, 2)).lr.tolist()
  [0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
  """
  columns = list(zip(*itertools.product(lr, decay, balance, seed), strict=True))
  lrs, decays, balances = (np.array(column, np.float32) for column in columns[:3])
  return Settings(lrs, decays, balances, np.array(columns[3], np.int32))


def standardise(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
  """Return the function that standardises features as those of the training examples x [n, d].

  Each feature of x itself gets mean 0 and variance 1; features that are constant in x become 0.
  """
  mean = x.mean(0)
  spread = x.std(0)
  varies = spread > 1e-6 * np.abs(mean).clip(1e-30)
  factor = np.where(varies, 1 / np.where(spread > 0, spread, 1), 0.0)
  return lambda other: ((other - mean) * factor).astype(np.float32)


def train(
  x: np.ndarray,
  y: np.ndarray,
  settings: Settings,
  classes: int,
  used: np.ndarray | None = None,
  steps: int = 300,
) -> Heads:
  """Return m heads after `steps` steps of Adam, whose learning rate falls along a cosine.

  `x` [n, d] features, `y` [n] classes; `used` [m, n] weighs the examples for each head (0: not
  seen), for label fractions and folds. The loss of a head is Σ w·ce / Σ w + decay / 2 · |W|² with
  the softmax cross-entropy ce: its minimum is logistic regression's with C = 1 / (decay · Σ w).
  Raises a MedtlError for other shapes.
  """
  shape = (len(settings.lr), len(y))
  if used is None:
    used = np.ones(shape)
  used = np.asarray(used, np.float32)
  if used.shape != shape or x.shape[:1] != y.shape:
    raise MedtlError(
      f'probe: x {x.shape}, y {y.shape}, used {used.shape} for {shape[0]} heads; expected '
      '[n, d], [n] and [heads, n]'
    )
  factor = _class_weights(used, y, settings.balance, classes)
  weight = used * factor[:, y]
  weight = weight / weight.sum(1, keepdims=True)
  features = jnp.asarray(x, jnp.float32)
  on_device = jax.tree.map(jnp.asarray, settings)
  return _train(features, jnp.asarray(y), jnp.asarray(weight), on_device, classes, steps)


def _class_weights(
  used: np.ndarray, y: np.ndarray, balance: np.ndarray, classes: int
) -> np.ndarray:
  """Return each head's factor on the examples of each class [m, k]: 1 for balance 0."""
  in_class = np.stack([used @ (y == label) for label in range(classes)], 1)  # [m, k]
  in_all = used.sum(1, keepdims=True)
  even = in_all / (classes * np.maximum(in_class, 1e-9))
  return even ** balance[:, None]


@functools.partial(jax.jit, static_argnums=(4, 5))
def _train(
  x: jax.Array, y: jax.Array, weight: jax.Array, settings: Settings, classes: int, steps: int
) -> Heads:
  def initial(seed: Any) -> Heads:
    weight = 0.01 * jax.random.normal(jax.random.key(seed), (x.shape[1], classes))
    return Heads(weight, jnp.zeros(classes))

  def loss(heads: Heads) -> jax.Array:
    """Return the sum of all heads' losses: each head's gradient is that of its own."""
    log_p = jax.nn.log_softmax(logits(heads, x))
    cross_entropy = -jnp.take_along_axis(log_p, y[None, :, None], 2)[..., 0]  # [m, n]
    fit = jnp.sum(weight * cross_entropy)
    penalty = jnp.sum(settings.decay / 2 * jnp.sum(heads.weight**2, (1, 2)))
    return fit + penalty

  def rate(t: jax.Array, leaf: jax.Array) -> Any:
    lr = settings.lr.reshape(-1, *[1] * (leaf.ndim - 1))
    return -lr * (1 + jnp.cos(jnp.pi * t / steps)) / 2

  adam = optax.scale_by_adam()

  def step(t: jax.Array, carry: tuple) -> tuple:
    heads, state = carry
    updates, state = adam.update(jax.grad(loss)(heads), state)
    move = lambda leaf, update: leaf + rate(t, leaf) * update
    return jax.tree.map(move, heads, updates), state

  begin = jax.vmap(initial)(settings.seed)
  heads, _ = jax.lax.fori_loop(0, steps, step, (begin, adam.init(begin)))
  return heads


def logits(heads: Heads, x: Any) -> Any:
  """Return the logits [m, n, k] of m heads on features x [n, d], by one matrix product."""
  count, d, k = heads.weight.shape
  weight = jnp.moveaxis(heads.weight, 0, 1).reshape(d, count * k)
  joined = (x @ weight).reshape(len(x), count, k)
  return jnp.moveaxis(joined, 1, 0) + heads.bias[:, None]


def predict(heads: Heads, x: np.ndarray) -> np.ndarray:
  """Return the probabilities [m, n, k] of m heads on features x [n, d]."""
  return np.asarray(jax.nn.softmax(logits(heads, jnp.asarray(x, jnp.float32))))


def logistic(x: np.ndarray, y: np.ndarray, c: float = 1.0, balanced: bool = False) -> Any:
  """Return scikit-learn's logistic regression, fitted by L-BFGS to convergence.

  It is the exact solution that a trained head comes near to.
  """
  from sklearn.linear_model import LogisticRegression

  model = LogisticRegression(C=c, max_iter=5000, class_weight=_class_weight(balanced))
  return model.fit(x, y)


def ridge(x: np.ndarray, y: np.ndarray, alpha: float = 1.0, balanced: bool = False) -> Any:
  """Return scikit-learn's ridge classifier, fitted (least squares on one-hot targets)."""
  from sklearn.linear_model import RidgeClassifier

  return RidgeClassifier(alpha=alpha, class_weight=_class_weight(balanced)).fit(x, y)


def neighbours(x: np.ndarray, y: np.ndarray, k: int = 11) -> Any:
  """Return scikit-learn's k nearest neighbours by cosine, fitted; k is at most n."""
  from sklearn.neighbors import KNeighborsClassifier

  return KNeighborsClassifier(min(k, len(x)), metric='cosine').fit(x, y)


def svm(x: np.ndarray, y: np.ndarray, c: float = 1.0, balanced: bool = False) -> Any:
  """Return scikit-learn's linear support vector machine, fitted (one class against the rest)."""
  from sklearn.svm import LinearSVC

  return LinearSVC(C=c, max_iter=20000, class_weight=_class_weight(balanced)).fit(x, y)


def _class_weight(balanced: bool) -> str | None:
  return 'balanced' if balanced else None


def score(model: Any, x: np.ndarray, temperature: float = 1.0) -> np.ndarray:
  """Return the probabilities [n, k] that one of scikit-learn's models gives.

  Of one that has none it is the softmax of its decision function / temperature.
  """
  if hasattr(model, 'predict_proba'):
    return model.predict_proba(x)
  margin = model.decision_function(x)
  if margin.ndim == 1:  # two classes
    margin = np.stack([-margin, margin], 1)
  return scipy.special.softmax(margin / temperature, 1)


def temperature(model: Any, x: np.ndarray, y: np.ndarray) -> float:
  """Return the divisor of a model's decision function that gives the least log-loss on (x, y).

  Guo et al. 2017, section 4.2; it is 1 for a model that has probabilities. Without it, models of
  several penalties could not be compared by their log-loss: a margin is scaled by its penalty.
  """
  if hasattr(model, 'predict_proba'):
    return 1.0
  cost = lambda power: float(metrics.log_loss(score(model, x, 10.0**power), y))
  least = scipy.optimize.minimize_scalar(cost, bounds=(-4, 4), method='bounded')
  return float(10.0**least.x)
