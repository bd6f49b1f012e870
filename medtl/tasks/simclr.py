"""SimCLR: features without labels, from two augmented views of each picture (Chen et al. 2020).

What is learned is used as `weights='run:…'` of another task; the projection is left behind.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from medtl.core.annotation import ABOVE_0
from medtl.core.types import (
  Answers,
  Batch,
  Dataset,
  Forward,
  MedtlError,
  Page,
  Predictions,
  Summary,
  Task,
  Term,
  Terms,
  Tree,
)
from medtl.evaluation import means

NAMES = ('loss',)
FAR = -1e9  # a similarity that no exponential sees
# (projections [2, b, d], which rows are real bool [b]) → losses [b]
PairLoss = Callable[[jax.Array, jax.Array], jax.Array]


def task(temperature: Annotated[float, ABOVE_0] = 0.1) -> Task:
  """Return the task of telling two views of one picture from those of all others in the batch.

  It needs config.augment, config.head = dict(name='projections.mlp') and config.monitor = 'loss'.
  Whatever labels the data have are not used.
  """
  keys = {'name': 'simclr', 'temperature': temperature}
  return two_views(partial(nt_xent, temperature=temperature), keys, aim)


def nt_xent(projections: jax.Array, real: jax.Array, temperature: float) -> jax.Array:
  """Return the normalised temperature-scaled cross-entropy of each picture's two views.

  projections [2, b, d], real bool [b] → [b], the mean over both views (Chen et al. 2020, equation
  1). Pictures that are not real are nobody's negatives.
  """
  count = projections.shape[1]
  unit = projections / jnp.maximum(jnp.linalg.norm(projections, axis=-1, keepdims=True), 1e-8)
  views = unit.reshape(2 * count, -1)
  similarity = views @ views.T / temperature
  itself = jnp.eye(2 * count, dtype=bool)
  hidden = itself | ~jnp.tile(real, 2)[None]
  similarity = jnp.where(hidden, FAR, similarity)
  partner = jnp.roll(jnp.arange(2 * count), count)
  losses = -jax.nn.log_softmax(similarity)[jnp.arange(2 * count), partner]
  return losses.reshape(2, count).mean(0)


def two_views(
  pair_loss: PairLoss, keys: Mapping[str, Any], aim: Callable[[Sequence[str]], str]
) -> Task:
  """Return the task that compares two augmented views of each picture by `pair_loss`."""

  def sums(
    forward: Forward,
    params: Tree,
    extra: Tree,
    batch: tuple[Batch, Batch],
    key: jax.Array,
    step: jax.Array,
    class_weights: Sequence[float] | None = None,
  ) -> tuple[Terms, Tree]:
    one, other = batch
    outputs, extra = forward.train(params, extra, jnp.concatenate([one.x, other.x]), key)
    values = pair_loss(of_views(outputs), one.mask)
    return {'loss': Term(jnp.sum(jnp.where(one.mask, values, 0.0)))}, extra

  def counts(batch: tuple[Batch, Batch]) -> dict[str, jax.Array]:
    return {'loss': jnp.sum(batch[0].mask)}

  def measure(forward: Forward, params: Tree, extra: Tree, batch: Batch) -> dict[str, jax.Array]:
    # Evaluations draw nothing at random: the second view is the picture, mirrored.
    views = jnp.concatenate([batch.x, jnp.flip(batch.x, axis=-2)])
    outputs = forward.eval(params, extra, views)
    return {'loss': pair_loss(of_views(outputs), batch.mask)}

  return Task(
    outputs=lambda classes: 0,
    check=partial(check, keys['name']),
    accepts=accepts,
    loss=sums,
    counts=counts,
    measure=measure,
    monitor=monitor,
    summary=Summary(
      partial(means.summarise, names=NAMES),
      partial(means.summarise_seeds, names=NAMES),
      partial(means.compare, names=NAMES),
      lambda test, val, table, threshold: test,
    ),
    page=Page('means.html.j2', lambda *_, **__: {}, lambda predictions: [], aim),
    answers=partial(no_answers, keys['name']),
    copies=2,
    coupled=True,
    keys=keys,
  )


def of_views(outputs: Any) -> jax.Array:
  """Return projections [2, b, d] of a head's outputs [2 b, d]; raise where they are none."""
  if not isinstance(outputs, jax.Array) or not outputs.size:
    raise MedtlError(
      'the head gives no projection of a picture, which is what two views are compared by; set '
      "config.head=dict(name='projections.mlp')"
    )
  return outputs.reshape(2, len(outputs) // 2, -1)


def check(name: str, keys: Mapping[str, Any]) -> None:
  """Raise for a key of the run without which two views teach nothing."""
  if not keys['augment']:
    raise MedtlError(
      f"config.augment is '', but the task {name} learns from two augmented views of each picture; "
      "set for instance augment='flip | shift(0.1) | zoom(0.8, 1.2) | brightness(0.2)'"
    )
  if keys['monitor'] != 'loss':
    raise MedtlError(
      f'config.monitor is {keys["monitor"]!r}, but the task {name} has no labels to measure it by; '
      "set monitor='loss'"
    )
  for key in ('class_weights', 'sampling', 'views'):
    if keys[key]:
      raise MedtlError(
        f'config.{key} is {keys[key]!r}, which the task {name} has no use for; leave it out'
      )


def accepts(sides: Mapping[str, Dataset], keys: Mapping[str, Any]) -> None:
  """Accept any pictures: labels are not used."""


def monitor(predictions: Predictions) -> dict[str, float]:
  """Return {'loss': mean}."""
  return {'loss': float(np.mean(predictions.values['loss']))}


def aim(classes: Sequence[str]) -> str:
  """Return in words what the net learns."""
  return 'to know two views of a picture among all others, without labels'


def no_answers(name: str, *_: Any, **__: Any) -> Answers:
  """Raise: such a run says nothing of a picture."""
  raise MedtlError(
    f'a run of the task {name} predicts nothing; train a classifier on its features, with '
    "model.weights='run:FOLDER'"
  )
