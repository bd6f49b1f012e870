"""Trees by paths such as 'backbone/stage1/block0/conv1/kernel': values by regex, differences."""

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
  return '/'.join(map(_key_text, keys))


def _key_text(key: Any) -> str:
  """Return the key of a dict, the name of a field or the index of an entry, as text."""
  for attribute in ('key', 'name', 'idx'):
    if hasattr(key, attribute):
      return str(getattr(key, attribute))
  return str(key)


def flatten(tree: Tree) -> dict[str, Any]:
  """Return {path: leaf} of any pytree, in its own order.

  >>> flatten({'a': {'b': 1, 'c': 2}})
  {'a/b': 1, 'a/c': 2}
  """
  return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def children(paths: Iterable[str]) -> list[str]:
  """Return the parts of a net that parameters belong to: children of the backbone, then the head.

  The stem comes first, then the stages by number, then what has no number.

  >>> children(['head/bias', 'backbone/stage10/kernel', 'backbone/stage2/scale', 'backbone/stem/k'])
  ['backbone/stem', 'backbone/stage2', 'backbone/stage10', 'head']
  """
  names = set()
  for path in paths:
    first, *inner = path.split('/')
    names.add('/'.join([first, *inner[:1]]) if first == 'backbone' else first)
  return sorted(names, key=_place)


def _place(name: str) -> tuple[bool, bool, int, str]:
  """Return what the parts of a net are sorted by."""
  match = re.search(r'\d+$', name)
  number = int(match[0]) if match else 0
  outside = not name.startswith('backbone/')
  unnumbered = not match and not name.endswith('/stem')
  return outside, unnumbered, number, name


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Return nested dicts from {path: leaf}; the inverse of `flatten` for trees of dicts."""
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *parents, last = path.split('/')
    node = tree
    for name in parents:
      node = node.setdefault(name, {})
    node[last] = leaf
  return tree


def label_by_rules(tree: Tree, rules: Rules, what: str = 'rule') -> Tree:
  """Return the tree with each leaf replaced by the value of the first rule that matches its path.

  A rule is (regex, value); the regex must match the whole path. A leaf that no rule matches is a
  MedtlError, and so is a rule that matches no leaf, be it as a later match.

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
  for (pattern, _), is_used in zip(rules, used, strict=True):
    if not is_used:
      raise MedtlError(f'{what} {pattern!r} matches nothing; the paths begin {_sample(tree)}')
  return labels


def _sample(tree: Tree, count: int = 6) -> str:
  paths = list(flatten(tree))
  more = f' … ({len(paths)} in all)' if len(paths) > count else ''
  return ', '.join(paths[:count]) + more


def difference(found: Tree, expected: Tree, count: int = 8) -> str:
  """Return in words how two trees of arrays differ in paths, shapes and dtypes, '' if they do not.

  At most `count` differences are listed, and the number of the others.
  """
  found_kinds = {path: _kind(leaf) for path, leaf in flatten(found).items()}
  expected_kinds = {path: _kind(leaf) for path, leaf in flatten(expected).items()}
  missing = []
  changed = []
  for path, kind in expected_kinds.items():
    if path not in found_kinds:
      missing.append(f'missing: {path} {kind}')
    elif found_kinds[path] != kind:
      changed.append(f'{path}: found {found_kinds[path]}, expected {kind}')
  unexpected = []
  for path, kind in found_kinds.items():
    if path not in expected_kinds:
      unexpected.append(f'unexpected: {path} {kind}')
  lines = [*missing, *unexpected, *changed]
  if len(lines) > count:
    lines[count:] = [f'… and {len(lines) - count} more']
  return '\n'.join(lines)


def _kind(leaf: Any) -> str:
  """Return an array's shape and dtype in words."""
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
