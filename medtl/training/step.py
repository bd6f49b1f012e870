"""One pure update, one pure measure."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medtl.core.types import Batch, Logs, MedtlError, State, Task, Tree

Augment = Callable[[jax.Array, Batch], Batch]
Pair = tuple[State, Logs]


def update(
  state: State,
  batch: Batch,
  *,
  task: Task,
  tx: optax.GradientTransformationExtraArgs,
  live: Tree,
  augment: Augment | None = None,
  accumulate: int = 1,
) -> Pair:
  """Return the state after one step and the step's logs; pure, to be jitted with `state` donated.

  Only live leaves are differentiated, moved and logged: one glance at a frozen gradient would bring its backward pass back.
  With `accumulate` > 1 the batch is cut into that many parts, and their gradients summed, each weighted by its real rows.
  """
  key = jax.random.fold_in(state.key, state.step)
  if augment is not None:
    batch = augment(jax.random.fold_in(key, 0), batch)

  def loss(
    moving: list, extra: Tree, part: Batch, key: jax.Array
  ) -> tuple[jax.Array, tuple[Tree, Logs]]:
    value, (extra, logs) = task.loss(merge_live(moving, state.params, live), extra, part, key)
    share = jnp.sum(part.mask) / jnp.maximum(1, jnp.sum(batch.mask))
    return value * share, (extra, jax.tree.map(lambda log: log * share, logs))

  gradient = jax.value_and_grad(loss, has_aux=True)
  moving = select_live(state.params, live)
  if accumulate == 1:
    (_, (extra, logs)), grads = gradient(moving, state.extra, batch, jax.random.fold_in(key, 1))
  else:

    def add(total: tuple, part: tuple) -> tuple[tuple, Logs]:
      (_, (extra, logs)), grads = gradient(moving, total[1], *part)
      return (jax.tree.map(jnp.add, total[0], grads), extra), logs

    keys = jax.random.split(jax.random.fold_in(key, 1), accumulate)
    start = (jax.tree.map(jnp.zeros_like, moving), state.extra)
    (grads, extra), logs = jax.lax.scan(add, start, (_microbatches(batch, accumulate), keys))
    logs = jax.tree.map(jnp.sum, logs)

  full = merge_live(grads, jax.tree.map(jnp.zeros_like, state.params), live)
  updates, opt = tx.update(full, state.opt, state.params, step=state.step)
  params = merge_live(optax.apply_updates(moving, select_live(updates, live)), state.params, live)
  logs = {**logs, 'grad_norm': optax.tree.norm(grads)}
  return State(state.step + 1, params, extra, opt, state.key), logs


def _microbatches(batch: Batch, parts: int) -> Batch:
  rows = batch.mask.shape[0]
  if rows % parts:
    raise MedtlError(
      f'accumulate={parts} does not divide the batch of {rows}; choose a batch that is a multiple of it'
    )
  return jax.tree.map(lambda leaf: leaf.reshape(parts, rows // parts, *leaf.shape[1:]), batch)


def select_live(tree: Tree, live: Tree) -> list[Any]:
  """Return the live leaves."""
  return [
    leaf for leaf, alive in zip(jax.tree.leaves(tree), jax.tree.leaves(live), strict=True) if alive
  ]


def merge_live(moving: list[Any], tree: Tree, live: Tree) -> Tree:
  """Return the tree with its live leaves replaced by `moving`; the inverse of select_live."""
  values = iter(moving)
  return jax.tree.map(lambda leaf, alive: next(values) if alive else leaf, tree, live)


def jit_update(places: Tree = None, **parts: Any) -> Callable[[State, Batch], Pair]:
  """Return `update` with its parts bound, jitted, the state's buffers donated; `places` are where the state's leaves stay."""

  def step(state: State, batch: Batch) -> Pair:
    return update(state, batch, **parts)

  return jax.jit(step, donate_argnums=0, out_shardings=None if places is None else (places, None))


def flops(lowered: Any) -> float:
  """Return the floating-point operations of a lowered program, as XLA counts them before it optimises."""
  return float((lowered.cost_analysis() or {}).get('flops', float('nan')))
