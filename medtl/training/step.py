"""One pure update."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medtl.core.types import Batch, Logs, MedtlError, State, Terms, Tree

Augment = Callable[[jax.Array, Batch], Batch]
# (params, extra, batch, key, step) → (terms, extra): a task's loss, its net and constants bound
Loss = Callable[[Tree, Tree, Any, jax.Array, jax.Array], tuple[Terms, Tree]]
Counts = Callable[[Any], Mapping[str, Any]]  # batch → over how many of what each term is a mean
Pair = tuple[State, Logs]


def update(
  state: State,
  batch: Batch | Mapping[str, Batch],
  *,
  loss: Loss,
  counts: Counts,
  tx: optax.GradientTransformationExtraArgs,
  live: Tree,
  augment: Augment | None = None,
  copies: int = 1,
  accumulate: int = 1,
) -> Pair:
  """Return the state after one step and the step's logs; pure, to be jitted with `state` donated.

  Only live leaves are differentiated, moved and logged: one glance at a frozen gradient would bring
  its backward pass back. With copies > 1 the loss sees a tuple of batches, augmented apart. With
  accumulate > 1 the batch is cut into that many parts and their gradients are summed; each term is
  divided by its count over the whole batch.
  """
  key = jax.random.fold_in(state.key, state.step)
  batch = augmented(jax.random.fold_in(key, 0), batch, augment, copies)
  totals = counts(batch)

  def objective(
    moving: list, extra: Tree, part: Any, key: jax.Array
  ) -> tuple[jax.Array, tuple[Tree, Logs]]:
    params = merge_live(moving, state.params, live)
    terms, extra = loss(params, extra, part, key, state.step)
    value, logs = weighted(terms, totals)
    return value, (extra, logs)

  gradient = jax.value_and_grad(objective, has_aux=True)
  moving = select_live(state.params, live)
  if accumulate == 1:
    (_, (extra, logs)), grads = gradient(moving, state.extra, batch, jax.random.fold_in(key, 1))
  else:

    def add(total: tuple, part: tuple) -> tuple[tuple, Logs]:
      sums, extra = total
      (_, (extra, logs)), grads = gradient(moving, extra, *part)
      return (jax.tree.map(jnp.add, sums, grads), extra), logs

    keys = jax.random.split(jax.random.fold_in(key, 1), accumulate)
    start = (jax.tree.map(jnp.zeros_like, moving), state.extra)
    (grads, extra), logs = jax.lax.scan(add, start, (_microbatches(batch, accumulate), keys))
    logs = jax.tree.map(jnp.sum, logs)

  full = merge_live(grads, jax.tree.map(jnp.zeros_like, state.params), live)
  updates, opt = tx.update(full, state.opt, state.params, step=state.step)
  params = merge_live(optax.apply_updates(moving, select_live(updates, live)), state.params, live)
  logs = {**logs, 'grad_norm': optax.tree.norm(grads)}
  return State(state.step + 1, params, extra, opt, state.key), logs


def augmented(
  key: jax.Array, batch: Batch | Mapping[str, Batch], augment: Augment | None, copies: int
) -> Any:
  """Return the batch, or each stream's, as a step sees it; a tuple where there are copies."""
  if augment is None:
    return (batch,) * copies if copies > 1 else batch
  if isinstance(batch, Mapping):
    names = sorted(batch)
    keys = [jax.random.fold_in(key, place) for place in range(len(names))]
    return {name: augment(own, batch[name]) for name, own in zip(names, keys, strict=True)}
  if copies > 1:
    return tuple(augment(jax.random.fold_in(key, copy), batch) for copy in range(copies))
  return augment(key, batch)


def weighted(terms: Terms, counts: Mapping[str, Any]) -> tuple[jax.Array, Logs]:
  """Return (Σ weight · sum / count over the terms, what is logged of them)."""
  means = {name: term.sum / jnp.maximum(1, counts[name]) for name, term in terms.items()}
  learned = []
  for name, term in terms.items():
    if _is(term.weight, 1.0):
      learned.append(means[name])
    elif not _is(term.weight, 0.0):
      learned.append(term.weight * means[name])
  total = sum(learned[1:], learned[0])
  logs = {} if list(means) == ['loss'] else means
  return total, {'loss': total, **logs}


def _is(weight: Any, number: float) -> bool:
  """Return whether a weight is this constant; one that a schedule gives is traced, and is not."""
  return isinstance(weight, int | float) and weight == number


def _microbatches(batch: Any, parts: int) -> Any:
  """Return the batch with a leading axis of `parts`."""
  rows = jax.tree.leaves(batch)[0].shape[0]
  if rows % parts:
    raise MedtlError(
      f'accumulate={parts} does not divide the batch of {rows}; choose a batch that is a multiple '
      'of it'
    )
  return jax.tree.map(lambda leaf: leaf.reshape(parts, rows // parts, *leaf.shape[1:]), batch)


def select_live(tree: Tree, live: Tree) -> list[Any]:
  """Return the live leaves."""
  leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(live), strict=True)
  return [leaf for leaf, alive in leaves if alive]


def merge_live(moving: list[Any], tree: Tree, live: Tree) -> Tree:
  """Return the tree with its live leaves replaced by `moving`; the inverse of select_live."""
  values = iter(moving)
  return jax.tree.map(lambda leaf, alive: next(values) if alive else leaf, tree, live)


def jit_update(places: Tree = None, **bound: Any) -> Callable[[State, Any], Pair]:
  """Return `update` with its keyword arguments bound, jitted, the state's buffers donated.

  `places` are the shardings that the state's leaves keep.
  """

  def step(state: State, batch: Any) -> Pair:
    return update(state, batch, **bound)

  shardings = None if places is None else (places, None)
  return jax.jit(step, donate_argnums=0, out_shardings=shardings)


def flops(lowered: Any) -> float:
  """Return the floating-point operations of a lowered program, before XLA optimises it."""
  return float((lowered.cost_analysis() or {}).get('flops', float('nan')))
