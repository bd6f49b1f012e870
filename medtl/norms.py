"""Which statistics a BatchNorm uses: one table of (regex on the path of the norm, policy). Whether its scale moves is the freeze's affair.

'train'   those of the batch, also in frozen children; the running averages move
'source'  the checkpoint's running averages, kept bit for bit, also where its scale is live
'target'  running averages estimated anew on the training pictures before the first step, then kept (Li et al. 2016, AdaBN)
Without a rule: 'train' where a leaf of the norm is live, else 'source'.

The running averages of a norm that trains lag behind its weights: after t steps with momentum m, m^t of them is what they began with.
config.norm_batches estimates them anew for each evaluation (Wu & Johnson 2021, arXiv 2105.07576, section 3, "PreciseBN").
"""

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medtl import spec, tree
from medtl.types import MedtlError, Tree

POLICIES = ('train', 'source', 'target')
Rules = Sequence[tuple[str, str]]


def policy(path: str, rules: Rules) -> str:
  """Return the policy of the first rule that matches the whole path of a norm ('backbone/stage1/block0/norm1'), '' where none does."""
  return next((found for pattern, found in rules if spec.regex(pattern, 'config.norms').fullmatch(path)), '')


def check(rules: Rules, statistics: Tree) -> None:
  """Raise a MedtlError for an unknown policy and for a rule that matches no norm with statistics (the collection batch_stats)."""
  paths = sorted({path.rpartition('/')[0] for path in tree.flatten(statistics)})
  for pattern, found in rules:
    if found not in POLICIES:
      raise MedtlError(f'config.norms: unknown policy {found!r}; {spec.nearest(found, POLICIES)}')
    if not any(spec.regex(pattern, 'config.norms').fullmatch(path) for path in paths):
      raise MedtlError(f'config.norms: {pattern!r} matches no BatchNorm; '
                       + (f'their paths begin {", ".join(paths[:4])}' if paths else 'this net has none'))


@contextlib.contextmanager
def apply(live: Tree, rules: Rules = ()) -> Iterator[None]:
  """Within, each BatchNorm uses the statistics that the rules and its live leaves (bool for each parameter) say."""
  alive = [path for path, value in tree.flatten(live).items() if value]

  def intercept(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
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
  leaves = tree.flatten(live)
  alive = [path for path, value in leaves.items() if value]
  paths = {path.rpartition('/')[0] for path in tree.flatten(variables.get('batch_stats', {}))}
  return {path for path in paths
          if _moves(path, not any(leaf.startswith(f'{path}/') for leaf in leaves), alive, rules) is not False}


Estimator = Callable[[float, Tree, Any], Tree]


def estimator(net: nn.Module, wanted: Collection[str], first: int = 0) -> Estimator:
  """Return the jitted (old, variables, x) → batch_stats after x has been seen, by the norms on the paths `wanted`, which held `old`.

  They normalise x by itself, the others by what they hold. With first > 0, x is what the children below `first` make of pictures.
  """
  rules = [*((re.escape(path), 'train') for path in sorted(wanted)), ('.*', 'source')]

  @jax.jit
  def moved(old: float, variables: Tree, x: Any) -> Tree:
    filled = {**variables, 'batch_stats': jax.tree_util.tree_map_with_path(
      lambda keys, leaf: jnp.full_like(leaf, old) if tree.path_of(keys[:-1]) in wanted else leaf, variables['batch_stats'])}
    with apply(jax.tree.map(lambda _: False, variables['params']), rules):
      return net.apply(filled, x, train=False, first=first, mutable=['batch_stats'])[1]['batch_stats']

  return moved


def estimated(moved: Estimator, wanted: Collection[str], variables: Tree, inputs: Iterable[Any]) -> Tree:
  """Return the collection batch_stats with the norms on the paths `wanted` at the mean and variance of what they see.

  `inputs` are arrays [b, *s, c] of one shape, each whole. Flax keeps m · old + (1 − m) · batch, with an m that each norm knows for
  itself: from old = 0 and old = 1 follow m and the batch's own values. The variance is that within batches plus that of their means.
  """
  seen, momentum = [], None
  for x in inputs:
    zero = moved(0.0, variables, x)
    momentum = jax.tree.map(jnp.subtract, moved(1.0, variables, x), zero) if momentum is None else momentum
    seen.append(jax.device_get(jax.tree.map(lambda leaf, m: leaf / jnp.maximum(1 - m, 1e-6), zero, momentum)))
  flat, found = [tree.flatten(one) for one in seen], {}
  for path, leaf in tree.flatten(variables['batch_stats']).items():
    where, _, name = path.rpartition('/')
    if where not in wanted:
      found[path] = leaf
      continue
    mean = sum(one[f'{where}/mean'] for one in flat) / len(flat)
    spread = sum((one[f'{where}/mean'] - mean) ** 2 for one in flat) / len(flat)
    found[path] = mean if name == 'mean' else sum(one[path] for one in flat) / len(flat) + spread
  return tree.unflatten(found)
