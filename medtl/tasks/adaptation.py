"""Domain adaptation: a classifier learns from labelled pictures, and to serve another domain's.

Two streams: 'train' with labels, 'target' without. A domain classifier tries to tell them apart by
their features, which learn, through a reversed gradient, to leave it in the dark (DANN: Ganin et
al. 2016, JMLR 17). The checkpoint is chosen on labelled validation pictures of the source alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from medtl.core.annotation import ABOVE_0, FROM_0
from medtl.core.types import Batch, Forward, MedtlError, Task, Term, Terms, Tree
from medtl.tasks import classification

STEEPNESS = 10.0  # of the adversary's ramp (Ganin et al. 2016, section 5.2.2)


def task(
  kind: str = 'multiclass',
  loss: str = 'softmax',
  strength: Annotated[float, FROM_0] = 1.0,
  ramp: Annotated[int, ABOVE_0] = 1000,
) -> Task:
  """Return the task of telling classes apart in a domain whose labels are not known.

  `kind` and `loss` are classification's. The reversed gradient is multiplied by `strength` times
  2 / (1 + exp(−10 step / ramp)) − 1, so that early features are not led by an untaught adversary.
  It needs config.head = dict(name='branches.domain') and config.streams = dict(target=…).
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
    if 'adversary' not in extra:
      raise MedtlError(
        'the head has no domain classifier, which is what adaptation learns against; set '
        "config.head=dict(name='branches.domain')"
      )
    progress = 2 / (1 + jnp.exp(-STEEPNESS * step / ramp)) - 1
    extra = {**extra, 'adversary': _filled(extra['adversary'], strength * progress)}
    source, target = batch['train'], batch['target']
    pictures = jnp.concatenate([source.x, target.x])
    outputs, extra = forward.train(params, extra, pictures, key)
    count = len(source.x)
    logits = outputs['logits'][:count].astype(jnp.float32)
    values = classification.weighted(each(logits, source.y), source.y, class_weights)
    is_target = jnp.arange(len(pictures)) >= count
    domain = -jax.nn.log_softmax(outputs['domain'])[jnp.arange(len(pictures)), is_target * 1]
    real = jnp.concatenate([source.mask, target.mask])
    return {
      'class': Term(jnp.sum(jnp.where(source.mask, values, 0.0))),
      'domain': Term(jnp.sum(jnp.where(real, domain, 0.0))),
    }, extra

  def counts(batch: Mapping[str, Batch]) -> dict[str, jax.Array]:
    source, target = (jnp.sum(batch[name].mask) for name in ('train', 'target'))
    return {'class': source, 'domain': source + target}

  def measure(forward: Forward, params: Tree, extra: Tree, batch: Batch) -> dict[str, jax.Array]:
    return base.measure(logits_alone(forward), params, extra, batch)

  keys = dict(base.keys, name='adaptation', strength=strength, ramp=ramp)
  return dataclasses.replace(
    base, loss=sums, counts=counts, measure=measure, streams=('train', 'target'), keys=keys
  )


def logits_alone(forward: Forward) -> Forward:
  """Return the forward pass of the classifier, without what stands beside it."""

  def evaluate(params: Tree, extra: Tree, x: Any) -> Any:
    return forward.eval(params, extra, x)['logits']

  return forward._replace(eval=evaluate)


def _filled(tree: Tree, value: Any) -> Tree:
  return jax.tree.map(lambda leaf: jnp.asarray(value, leaf.dtype), tree)
