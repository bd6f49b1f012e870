"""Which statistics a BatchNorm uses: one table of (regex on the path of the norm, policy). Whether its scale moves is the freeze's affair.

'train'   those of the batch, also in frozen children; the running averages move
'source'  the checkpoint's running averages, kept bit for bit, also where its scale is live
'target'  running averages estimated anew on the training pictures before the first step, then kept (Li et al. 2016, AdaBN)
Without a rule: 'train' where a leaf of the norm is live, else 'source'.

The running averages of a norm that trains lag behind its weights: after t steps with momentum m, m^t of them is what they began with.
config.norm_images estimates them anew for each evaluation (Wu & Johnson 2021, arXiv 2105.07576, section 3, "PreciseBN").
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
  """Return the policy of the first rule that matches the whole path of a norm ('backbone/stage1/block0/norm1'), '' where none does."""
  return next(
    (
      found
      for pattern, found in rules
      if expressions.compiled_regex(pattern, 'config.norms').fullmatch(path)
    ),
    '',
  )


def check(rules: Rules, statistics: Tree) -> None:
  """Raise a MedtlError for an unknown policy and for a rule that matches no norm with statistics (the collection batch_stats)."""
  paths = sorted({path.rpartition('/')[0] for path in pytrees.flatten(statistics)})
  for pattern, found in rules:
    if found not in POLICIES:
      raise MedtlError(
        f'config.norms: unknown policy {found!r}; {expressions.did_you_mean(found, POLICIES)}'
      )
    if not any(
      expressions.compiled_regex(pattern, 'config.norms').fullmatch(path) for path in paths
    ):
      raise MedtlError(
        f'config.norms: {pattern!r} matches no BatchNorm; '
        + (f'their paths begin {", ".join(paths[:4])}' if paths else 'this net has none')
      )


@contextlib.contextmanager
def apply(live: Tree, rules: Rules = ()) -> Iterator[None]:
  """Within, each BatchNorm uses the statistics that the rules and its live leaves (bool for each parameter) say."""
  alive = [path for path, value in pytrees.flatten(live).items() if value]

  def intercept(
    call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
  ) -> Any:
    if isinstance(context.module, nn.BatchNorm) and context.method_name == '__call__':
      bare = not (context.module.use_scale or context.module.use_bias)
      moves = _moves('/'.join(context.module.path), bare, alive, rules)
      if moves is not None:
        kwargs = {**kwargs, 'use_running_average': not moves}
    return call(*args, **kwargs)

  with nn.intercept_methods(intercept):
    yield


def _moves(path: str, bare: bool, alive: Iterable[str], rules: Rules) -> bool | None:
  """Return whether a norm uses its batch in training; None: as its module asks it to, since a leaf of it is live and no rule is for it.

  A bare one, without leaves of its own, goes with the module that it stands in.
  """
  found = policy(path, rules)
  if found:
    return found == 'train'
  where = (path.rpartition('/')[0] if bare else path) + '/'
  return None if any(leaf.startswith(where) for leaf in alive) else False


def training(variables: Tree, live: Tree, rules: Rules) -> set[str]:
  """Return the paths of the norms whose running averages a step moves."""
  leaves = pytrees.flatten(live)
  alive = [path for path, value in leaves.items() if value]
  paths = {path.rpartition('/')[0] for path in pytrees.flatten(variables.get('batch_stats', {}))}
  return {
    path
    for path in paths
    if _moves(path, not any(leaf.startswith(f'{path}/') for leaf in leaves), alive, rules)
    is not False
  }


Estimator = Callable[[Tree, Any], dict[str, Any]]


def estimator(net: nn.Module, wanted: Collection[str], start_child: int = 0) -> Estimator:
  """Return the jitted (variables, x) → {path: mean or variance} of what the norms on the paths `wanted` see of x.

  They normalise x by itself, the others by what they hold. With start_child > 0, x is what the children below it make of pictures.
  """
  rules = [*((re.escape(path), 'train') for path in sorted(wanted)), ('.*', 'source')]

  @jax.jit
  def seen(variables: Tree, x: Any) -> dict[str, Any]:
    momentum: dict[str, float] = {}

    def note(
      call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
      if isinstance(context.module, nn.BatchNorm):
        momentum['/'.join(context.module.path)] = context.module.momentum
      return call(*args, **kwargs)

    empty = {
      **variables,
      'batch_stats': jax.tree_util.tree_map_with_path(
        lambda keys, leaf: jnp.zeros_like(leaf) if pytrees.path_of(keys[:-1]) in wanted else leaf,
        variables['batch_stats'],
      ),
    }
    with (
      nn.intercept_methods(note),
      apply(jax.tree.map(lambda _: False, variables['params']), rules),
    ):
      moved = pytrees.flatten(
        net.apply(empty, x, train=False, start_child=start_child, mutable=['batch_stats'])[1][
          'batch_stats'
        ]
      )
    where = {path: path.rpartition('/')[0] for path in moved}
    return {
      path: leaf / (1 - momentum[where[path]])
      for path, leaf in moved.items()
      if where[path] in wanted
    }  # m · 0 + (1 − m) · x

  return seen


def estimated(
  seen: Estimator, wanted: Collection[str], variables: Tree, inputs: Iterable[Any]
) -> Tree:
  """Return the collection batch_stats with the norms on the paths `wanted` at the mean and variance of all that they see.

  `inputs` are arrays [b, *s, c] of one shape, each whole. The variance is that within batches plus that of their means.
  """
  each, found = [multihost.to_numpy(seen(variables, x)) for x in inputs], {}
  for path, leaf in pytrees.flatten(variables['batch_stats']).items():
    where, _, name = path.rpartition('/')
    if where not in wanted:
      found[path] = leaf
      continue
    means = np.stack([one[f'{where}/mean'] for one in each])
    found[path] = (
      means.mean(0) if name == 'mean' else np.mean([one[path] for one in each], 0) + means.var(0)
    )
  return pytrees.unflatten(found)
