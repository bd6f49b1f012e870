"""What is learned, as three pure functions (init, loss, measure) of a net and a loss."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from medtl.core import expressions
from medtl.core.types import Batch, Logs, MedtlError, Task, Tree
from medtl.training import batch_statistics, losses, parameter_groups

Loss = Callable[[jax.Array, jax.Array], jax.Array]
DEFAULT = {
  'multiclass': 'softmax',
  'binary': 'softmax',
  'multilabel': 'sigmoid',
  'ordinal': 'ordinal',
}  # the loss of each kind where none is named
KINDS = tuple(DEFAULT)


def outputs(kind: str, classes: int) -> int:
  """Return how many logits a head needs."""
  if kind not in KINDS:
    raise MedtlError(f'unknown kind of task {kind!r}; there are: {", ".join(KINDS)}')
  if kind == 'binary' and classes != 2:
    raise MedtlError(
      f"kind='binary' expects 2 classes, the data has {classes}; choose kind='multiclass'"
    )
  return classes - 1 if kind == 'ordinal' else classes


def loss_of(kind: str, loss: str) -> Loss:
  """Return the loss that a text such as 'softmax(smoothing=0.1)' names.

  One that cannot learn tasks of the kind, or does not say what it learns, is an error.
  """
  outputs(kind, 2)  # the kind is known
  written = expressions.operations(losses, given=('outputs', 'y'))
  learns = {name: getattr(function, 'learns', ()) for name, function in written.items()}
  for call in expressions.parse_chain(loss):
    if call.name in learns:
      _check_learns(call.name, learns, kind)
  declared = {name: function for name, function in written.items() if learns[name]}
  return expressions.single_function(loss, declared, given=('outputs', 'y'))


def _check_learns(name: str, learns: Mapping[str, Sequence[str]], kind: str) -> None:
  """Raise where a loss does not declare that it can learn tasks of the kind."""
  own = learns[name]
  if not own:
    raise MedtlError(
      f'the loss {name!r} does not say what it learns; write above it in '
      f'medtl/training/losses.py the kinds of task that it can learn: @learns({kind!r})'
    )
  for word in own:
    if word not in KINDS:
      raise MedtlError(
        f'@learns above the loss {name!r} names {word!r}, which is no kind of task; '
        f'{expressions.did_you_mean(str(word), KINDS)}'
      )
  if kind not in own:
    other = f'set task.kind={own[0]!r} or ' if len(own) == 1 else ''
    fit = [repr(loss) for loss, kinds in learns.items() if kind in kinds]
    raise MedtlError(
      f'the loss {name!r} cannot learn a task of kind {kind!r}; {other}choose a '
      f'loss for {kind}, such as {" or ".join(fit)}'
    )


def probabilities(logits: jax.Array, kind: str) -> jax.Array:
  """Return [b, k] probabilities: softmax, sigmoid, or for CORN P(y = j) = P(y ≥ j) − P(y ≥ j+1) (Shi et al. 2023, equation 2)."""
  logits = logits.astype(jnp.float32)
  if kind == 'multilabel':
    return jax.nn.sigmoid(logits)
  if kind == 'ordinal':
    above = jnp.cumprod(jax.nn.sigmoid(logits), -1)
    return -jnp.diff(above, axis=-1, prepend=1.0, append=0.0)
  return jax.nn.softmax(logits)


def supervised(
  net: Any,
  loss: Loss,
  *,
  kind: str,
  live: Tree | None = None,
  start_child: int = 0,
  class_weights: Sequence[float] | None = None,
  rules: batch_statistics.Rules = (),
) -> Task:
  """Return the task of predicting y from x.

  `live` (bool for each parameter) says what moves: a child without a live leaf is applied with train=False, a frozen BatchNorm keeps its
  statistics, unless the `rules` of norms say otherwise. With start_child > 0, x is what the children below it made of the picture.
  `class_weights` [k] multiply an example's loss; the mean is over examples, so weights that average one keep the loss's scale.
  """
  train: Collection[str] = parameter_groups.live_children(live) if live is not None else ()

  def init(key: jax.Array, batch: Batch) -> tuple[Tree, Tree]:
    variables = net.init(key, batch.x, train=False)
    return variables['params'], {
      name: value for name, value in variables.items() if name != 'params'
    }

  def each(logits: jax.Array, y: jax.Array) -> jax.Array:
    values = loss(logits.astype(jnp.float32), y)
    if class_weights is None:
      return values
    weights = jnp.asarray(class_weights, jnp.float32)
    if y.ndim == 1:
      return values * weights[y]
    count = jnp.sum(y, -1)  # an example without any label keeps its own weight
    return values * jnp.where(count > 0, jnp.sum(weights * y, -1) / jnp.maximum(1e-9, count), 1.0)

  def mean_loss(
    params: Tree, extra: Tree, batch: Batch, key: jax.Array
  ) -> tuple[jax.Array, tuple[Tree, Logs]]:
    with batch_statistics.apply(live, rules):
      logits, changed = net.apply(
        {'params': params, **extra},
        batch.x,
        train=train,
        start_child=start_child,
        mutable=list(extra),
        rngs={'dropout': key},
      )
    value = jnp.sum(jnp.where(batch.mask, each(logits, batch.y), 0.0)) / jnp.maximum(
      1, jnp.sum(batch.mask)
    )
    return value, ({**extra, **changed}, {'loss': value})

  def measure(params: Tree, extra: Tree, batch: Batch) -> dict[str, jax.Array]:
    logits = net.apply({'params': params, **extra}, batch.x, train=False, start_child=start_child)
    return {'score': probabilities(logits, kind), 'loss': loss(logits.astype(jnp.float32), batch.y)}

  return Task(init, mean_loss, measure)
