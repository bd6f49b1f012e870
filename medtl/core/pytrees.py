"""Trees and paths: 'backbone/stage1/block0/conv1/kernel' -> leaf, values by regex, differences in words."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from medtl.core import expressions
from medtl.core.types import MedtlError, Tree

Rules = Sequence[tuple[str, Any]]


def path_of(keys: Sequence[Any]) -> str:
  """Return a jax key path as text with slashes."""
  return '/'.join(
    str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))) for key in keys
  )


def flatten(tree: Tree) -> dict[str, Any]:
  """Return {path: leaf} of any pytree, in its own order.

  >>> flatten({'a': {'b': 1, 'c': 2}})
  {'a/b': 1, 'a/c': 2}
  """
  return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def children(paths: Iterable[str]) -> list[str]:
  """Return the parts of a net that parameters belong to, in order: children of the backbone, and the head.

  >>> children(['head/dense/bias', 'backbone/stage10/conv/kernel', 'backbone/stage2/scale', 'backbone/stem/conv/kernel'])
  ['backbone/stem', 'backbone/stage2', 'backbone/stage10', 'head']
  """
  parts = [path.split('/') for path in paths]
  names = {'/'.join(part[:2]) if part[0] == 'backbone' else part[0] for part in parts}

  def place(name: str) -> tuple[bool, bool, int, str]:
    number = re.search(r'\d+$', name)
    return (
      not name.startswith('backbone/'),
      not name.endswith('/stem') and not number,
      int(number[0]) if number else 0,
      name,
    )

  return sorted(names, key=place)


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Return nested dicts from {path: leaf}; the inverse of flatten for trees of dicts."""
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *parents, last = path.split('/')
    node = tree
    for name in parents:
      node = node.setdefault(name, {})
    node[last] = leaf
  return tree


def label_by_rules(tree: Tree, rules: Rules, what: str = 'rule') -> Tree:
  """Return the tree with each leaf replaced by the value of the first rule whose regex matches its whole path.

  Every leaf must be covered and every rule must match some leaf (not necessarily first): both are MedtlErrors.

  >>> label_by_rules({'a': {'kernel': 0, 'bias': 0}}, [('.*/bias', 'no decay'), ('.*', 'decay')])
  {'a': {'bias': 'no decay', 'kernel': 'decay'}}
  """
  compiled = [(expressions.compiled_regex(pattern, what), value) for pattern, value in rules]
  used = [False] * len(compiled)

  def value_of(keys: Sequence[Any], _: Any) -> Any:
    path = path_of(keys)
    hits = [index for index, (pattern, _) in enumerate(compiled) if pattern.fullmatch(path)]
    if not hits:
      raise MedtlError(f'no {what} matches {path}; add a last rule such as (".*", …) to cover it')
    for index in hits:
      used[index] = True
    return compiled[hits[0]][1]

  labels = jax.tree_util.tree_map_with_path(value_of, tree)
  for (pattern, _), seen in zip(rules, used, strict=True):
    if not seen:
      raise MedtlError(f'{what} {pattern!r} matches nothing; the paths begin {_sample(tree)}')
  return labels


def _sample(tree: Tree, count: int = 6) -> str:
  paths = list(flatten(tree))
  return ', '.join(paths[:count]) + (f' … ({len(paths)} in all)' if len(paths) > count else '')


def difference(found: Tree, expected: Tree, count: int = 8) -> str:
  """Return in words how two trees of arrays differ in paths, shapes and dtypes; '' when they do not."""
  a, b = flatten(found), flatten(expected)
  lines = [f'missing: {path} {_kind(b[path])}' for path in b if path not in a]
  lines += [f'unexpected: {path} {_kind(a[path])}' for path in a if path not in b]
  lines += [
    f'{path}: found {_kind(a[path])}, expected {_kind(b[path])}'
    for path in b
    if path in a and _kind(a[path]) != _kind(b[path])
  ]
  more = [f'… and {len(lines) - count} more'] if len(lines) > count else []
  return '\n'.join(lines[:count] + more)


def _kind(leaf: Any) -> str:
  if not hasattr(leaf, 'shape'):
    leaf = np.asarray(leaf)
  return f'{tuple(leaf.shape)} {leaf.dtype}'


def count_parameters(tree: Tree) -> int:
  """Return how many numbers the tree holds."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def nbytes(tree: Tree) -> int:
  """Return how many bytes the tree's arrays take."""
  return sum(
    int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize
    for leaf in jax.tree.leaves(tree)
    if hasattr(leaf, 'shape')
  )
