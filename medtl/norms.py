"""Which statistics a BatchNorm uses: one table of (regex on the path of the norm, policy). Whether its scale moves is the freeze's affair.

'train'   those of the batch, also in frozen children; the running averages move
'source'  the checkpoint's running averages, kept bit for bit, also where its scale is live
'target'  running averages estimated anew on the training pictures before the first step, then kept (Li et al. 2016, AdaBN)
Without a rule: 'train' where a leaf of the norm is live, else 'source'.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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
  """Within, each BatchNorm uses the statistics that the rules and its live leaves (bool for each parameter) say.

  One without leaves of its own goes with the module that it stands in.
  """
  alive = [path for path, value in tree.flatten(live).items() if value]

  def intercept(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    if isinstance(context.module, nn.BatchNorm) and context.method_name == '__call__':
      found = policy('/'.join(context.module.path), rules)
      bare = not (context.module.use_scale or context.module.use_bias)
      where = '/'.join(context.module.path[:-1] if bare else context.module.path) + '/'
      if found in ('source', 'target') or not (found or any(path.startswith(where) for path in alive)):
        kwargs = {**kwargs, 'use_running_average': True}
      elif found == 'train':
        kwargs = {**kwargs, 'use_running_average': False}
    return call(*args, **kwargs)

  with nn.intercept_methods(intercept):
    yield


def adapted(net: nn.Module, variables: Tree, pictures: Iterable[Any], rules: Rules) -> Tree:
  """Return the collection batch_stats with the norms that the rules call 'target' at the mean and variance of what they see.

  `pictures` are arrays [b, *s, c] of one shape, each whole. Flax keeps m · old + (1 − m) · batch, with an m that each norm knows for
  itself: from old = 0 and old = 1 follow m and the batch's own values. The variance is that within batches plus that of their means.
  """
  wanted = [(pattern, 'train' if found == 'target' else 'source') for pattern, found in rules]
  nothing = jax.tree.map(lambda _: False, variables['params'])
  old = variables['batch_stats']

  @jax.jit
  def moved(value: float, x: Any) -> Tree:
    filled = {**variables, 'batch_stats': jax.tree_util.tree_map_with_path(
      lambda keys, leaf: jnp.full_like(leaf, value) if policy(tree.path_of(keys[:-1]), rules) == 'target' else leaf, old)}
    with apply(nothing, [*wanted, ('.*', 'source')]):
      return net.apply(filled, x, train=False, mutable=['batch_stats'])[1]['batch_stats']

  seen, momentum = [], None
  for x in pictures:
    zero = moved(0.0, x)
    momentum = jax.tree.map(jnp.subtract, moved(1.0, x), zero) if momentum is None else momentum
    seen.append(jax.device_get(jax.tree.map(lambda leaf, m: leaf / jnp.maximum(1 - m, 1e-6), zero, momentum)))
  flat, found = [tree.flatten(one) for one in seen], {}
  for path, leaf in tree.flatten(old).items():
    where, _, name = path.rpartition('/')
    if policy(where, rules) != 'target':
      found[path] = leaf
      continue
    mean = sum(one[f'{where}/mean'] for one in flat) / len(flat)
    spread = sum((one[f'{where}/mean'] - mean) ** 2 for one in flat) / len(flat)
    found[path] = mean if name == 'mean' else sum(one[path] for one in flat) / len(flat) + spread
  return tree.unflatten(found)
