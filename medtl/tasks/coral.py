"""Domain adaptation: a classifier whose logits vary in one domain as they do in another.

Two streams: 'train' with labels, 'target' without. Beside the classifier's loss stands the distance
of the covariances of both domains' logits (Deep CORAL: Sun & Saenko 2016, arXiv 1607.01719). The
checkpoint is chosen on labelled validation pictures of the source alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated

import jax
import jax.numpy as jnp

from medtl.core.annotation import FROM_0
from medtl.core.types import Batch, Forward, MedtlError, Task, Term, Terms, Tree
from medtl.tasks import classification
from medtl.tasks.vicreg import covariance_of


def task(
  kind: str = 'multiclass', loss: str = 'softmax', weight: Annotated[float, FROM_0] = 1.0
) -> Task:
  """Return the task of telling classes apart in a domain whose labels are not known.

  `kind` and `loss` are classification's. `weight` is λ of equation 6, which the paper chooses so
  that both terms end about equal. It needs config.streams = dict(target=…), and a head that returns
  logits alone, such as 'linear'.
  """
  base = classification.task(kind, loss)
  each = classification.loss_of(kind, loss)

  def sums(
    forward: Forward,
    params: Tree,
    extra: Tree,
    batch: Mapping[str, Batch],
    key: jax.Array,
    step: jax.Array,
    class_weights: Sequence[float] | None = None,
  ) -> tuple[Terms, Tree]:
    source, target = batch['train'], batch['target']
    pictures = jnp.concatenate([source.x, target.x])
    outputs, extra = forward.train(params, extra, pictures, key)
    if not isinstance(outputs, jax.Array):
      raise MedtlError(
        'the head gives more than logits, whose covariances are compared; set config.head=dict('
        "name='linear')"
      )
    ours, theirs = jnp.split(outputs.astype(jnp.float32), [len(source.x)])
    values = classification.weighted(each(ours, source.y), source.y, class_weights)
    distance = coral(ours, source.mask, theirs, target.mask)
    return {
      'class': Term(jnp.sum(jnp.where(source.mask, values, 0.0))),
      'coral': Term(distance, weight),
    }, extra

  def counts(batch: Mapping[str, Batch]) -> dict[str, jax.Array]:
    return {'class': jnp.sum(batch['train'].mask), 'coral': jnp.ones(())}

  return dataclasses.replace(
    base,
    loss=sums,
    counts=counts,
    streams=('train', 'target'),
    coupled=True,
    keys=dict(base.keys, name='coral', weight=weight),
  )


def coral(
  source: jax.Array, source_real: jax.Array, target: jax.Array, target_real: jax.Array
) -> jax.Array:
  """Return ‖C_source − C_target‖² / 4d², C the covariance of the rows [b, d] that are real [b].

  Frobenius norm; Sun & Saenko 2016, equations 1 to 3.
  """
  difference = covariance_of(source, source_real) - covariance_of(target, target_real)
  return jnp.sum(difference**2) / (4 * source.shape[-1] ** 2)
