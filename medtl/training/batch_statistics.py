"""Which statistics a BatchNorm uses: a table of (regex on the path of the norm, policy).

'train'   those of the batch, also in frozen children; the running averages move
'source'  the checkpoint's running averages, kept bit for bit, also where its scale is live
'target'  running averages estimated anew on the training pictures before the first step, then kept
          (Li et al. 2016, AdaBN)
Without a rule: 'train' where a leaf of the norm is live, else 'source'. Whether its scale and bias
move is decided by `config.freeze`.

The running averages of a norm that trains lag behind its weights: after t steps with momentum m,
m^t of them is what they began with. config.norm_images has them estimated anew for each evaluation
(Wu & Johnson 2021, arXiv 2105.07576, section 3, "PreciseBN").
"""

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from medtl.core import expressions, pytrees
from medtl.core.types import MedtlError, Tree
from medtl.runtime import multihost

POLICIES = ('train', 'source', 'target')
Rules = Sequence[tuple[str, str]]


def policy(path: str, rules: Rules) -> str:
  """Return the policy of the first rule that matches the whole path of a norm, '' where none does.

  >>> policy('backbone/stage1/block0/norm1', [('.*/stem/.*', 'train'), ('.*', 'source')])
  'source'
  """
  for pattern, name in rules:
    if _regex(pattern).fullmatch(path):
      return name
  return ''


def _regex(pattern: str) -> re.Pattern:
  return expressions.compiled_regex(pattern, 'config.norms')


def check(rules: Rules, statistics: Tree) -> None:
  """Raise a MedtlError for an unknown policy, and for a rule that matches no norm.

  `statistics` is the collection batch_stats: a norm without running averages is not in it.
  """
  paths = sorted({_parent(path) for path in pytrees.flatten(statistics)})
  for pattern, name in rules:
    if name not in POLICIES:
      hint = expressions.did_you_mean(name, POLICIES)
      raise MedtlError(f'config.norms: unknown policy {name!r}; {hint}')
    if not any(_regex(pattern).fullmatch(path) for path in paths):
      known = f'their paths begin {", ".join(paths[:4])}; leave this rule out'
      if not paths:
        known = 'this net has none: set config.norms=()'
      raise MedtlError(f'config.norms: {pattern!r} matches no BatchNorm; {known}')


def _parent(path: str) -> str:
  return path.rpartition('/')[0]


@contextlib.contextmanager
def apply(live: Tree, rules: Rules = ()) -> Iterator[None]:
  """While open, each BatchNorm uses the statistics that the rules and its live leaves call for.

  `live` holds a bool for each parameter.
  """
  live_paths = [path for path, alive in pytrees.flatten(live).items() if alive]

  def intercept(
    call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
  ) -> Any:
    norm = context.module
    if isinstance(norm, nn.BatchNorm) and context.method_name == '__call__':
      bare = not (norm.use_scale or norm.use_bias)
      moves = _moves('/'.join(norm.path), bare, live_paths, rules)
      if moves is not None:
        kwargs = {**kwargs, 'use_running_average': not moves}
    return call(*args, **kwargs)

  with nn.intercept_methods(intercept):
    yield


def _moves(path: str, bare: bool, live_paths: Iterable[str], rules: Rules) -> bool | None:
  """Return whether a norm uses its batch in training; None: whatever its module asks of it.

  None is for a norm without a rule that has a live leaf. A bare norm, without a scale or bias of
  its own, goes with the module that it is in.
  """
  name = policy(path, rules)
  if name:
    return name == 'train'
  owner = _parent(path) if bare else path
  if any(leaf.startswith(f'{owner}/') for leaf in live_paths):
    return None
  return False


def training(variables: Tree, live: Tree, rules: Rules) -> set[str]:
  """Return the paths of the norms whose running averages a step moves."""
  leaves = pytrees.flatten(live)
  live_paths = [path for path, alive in leaves.items() if alive]
  moving = set()
  for path in {_parent(path) for path in pytrees.flatten(variables.get('batch_stats', {}))}:
    bare = not any(leaf.startswith(f'{path}/') for leaf in leaves)
    if _moves(path, bare, live_paths, rules) is not False:
      moving.add(path)
  return moving


Estimator = Callable[[Tree, Any], dict[str, Any]]


def estimator(net: nn.Module, wanted: Collection[str], start_child: int = 0) -> Estimator:
  """Return a jitted (variables, x) → {path: mean or variance of x at the norms on paths `wanted`}.

  These norms normalise x [b, *s, c] by its own statistics, the others by their running averages.
  With start_child > 0, x is what the children below it make of pictures.
  """
  rules = [*((re.escape(path), 'train') for path in sorted(wanted)), ('.*', 'source')]

  @jax.jit
  def estimate(variables: Tree, x: Any) -> dict[str, Any]:
    momentum: dict[str, float] = {}

    def note(
      call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
      if isinstance(context.module, nn.BatchNorm):
        momentum['/'.join(context.module.path)] = context.module.momentum
      return call(*args, **kwargs)

    def emptied(keys: Sequence[Any], leaf: Any) -> Any:
      return jnp.zeros_like(leaf) if pytrees.path_of(keys[:-1]) in wanted else leaf

    empty = jax.tree_util.tree_map_with_path(emptied, variables['batch_stats'])
    nothing_live = jax.tree.map(lambda _: False, variables['params'])
    with nn.intercept_methods(note), apply(nothing_live, rules):
      _, moved = net.apply(
        {**variables, 'batch_stats': empty},
        x,
        train=False,
        start_child=start_child,
        mutable=['batch_stats'],
      )
    estimates = {}
    for path, leaf in pytrees.flatten(moved['batch_stats']).items():
      norm = _parent(path)
      if norm in wanted:  # the running average is now momentum · 0 + (1 − momentum) · estimate
        estimates[path] = leaf / (1 - momentum[norm])
    return estimates

  return estimate


def estimated(
  estimate: Estimator, wanted: Collection[str], variables: Tree, inputs: Iterable[Any]
) -> Tree:
  """Return the collection batch_stats with the norms on paths `wanted` estimated on all inputs.

  `inputs` are arrays [b, *s, c] of one shape, without padding. The variance is the mean of those
  within batches plus the variance of the batches' means.
  """
  batches = [multihost.to_numpy(estimate(variables, x)) for x in inputs]
  leaves = {}
  for path, leaf in pytrees.flatten(variables['batch_stats']).items():
    norm, _, name = path.rpartition('/')
    if norm not in wanted:
      leaves[path] = leaf
      continue
    means = np.stack([batch[f'{norm}/mean'] for batch in batches])
    if name == 'mean':
      leaves[path] = means.mean(0)
    else:
      leaves[path] = np.mean([batch[path] for batch in batches], 0) + means.var(0)
  return pytrees.unflatten(leaves)
