"""Which arrays of a file are the network's: out of dictionaries, pickled modules and prefixes, whatever these are called.

Every array gets a dotted name, so that a dictionary around the network ({'model': …}), a module that
holds it (Lightning's `model.`) and a wrapper (`module.`) are one thing: a prefix. The prefix below which
most names are those of the architecture is taken.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from medtl.models import inert, pickled, port
from medtl.models.port import Dialect
from medtl.types import MedtlError

Leaf = pickled.Tensor | pickled.Unreadable | np.ndarray

# what training leaves beside a network: losses with weights, counts of averages, thop's counts of operations
_BESIDE = re.compile(r'(criterion|loss|\w+_loss|loss_\w+|pos_weight|class_weights?|n_averaged)(\..*)?'
                     r'|(.*\.)?(total_ops|total_params)')
_DEEP, _MANY = 100, 1_000_000            # nested containers, and values: bounds that no checkpoint comes near
_SHARE = 0.25                            # of the names below a prefix must be those of the architecture
_RIVAL = 0.5                             # of the best prefix's names: then another is worth a word


@dataclass
class Contents:
  """What a file holds: its arrays by dotted names, and what all else is."""
  arrays: dict[str, Leaf] = field(default_factory=dict)
  others: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Other:
  """What a reader found in the place of an array."""
  what: str


class Choice(NamedTuple):
  """The prefix below which the network is, and those below which another of the same architecture is."""
  prefix: str
  rivals: tuple[str, ...] = ()


def contents(value: Any) -> Contents:
  """Return what a nested value holds: of dictionaries, lists, pickled modules and other objects.

  A module's arrays have the names that its `state_dict()` would give; those of TorchScript and of
  other objects are named by attributes. The state of an optimizer is no array of a network.
  """
  found = Contents()
  _Walk(found).visit(value, '')
  return found


class _Walk:
  """One way through a nested value; `path` are the ids of the containers above, so that a cycle ends."""

  def __init__(self, found: Contents):
    self.found = found
    self.objects: set[int] = set()       # plain objects are seen once: they refer to each other in all directions
    self.count = 0

  def visit(self, value: Any, name: str, path: tuple[int, ...] = ()) -> None:
    """Enter what a value holds below a name."""
    self.count += 1
    if self.count > _MANY or len(path) > _DEEP:
      raise MedtlError('is refused: its dictionaries are nested without end')
    array = pickled.leaf(value)
    if array is not None:
      self._enter(array, name)
      return
    arrays, remarks = len(self.found.arrays), len(self.found.others)
    if id(value) not in path:
      for key, item in self._items(value):
        self.visit(item, f'{name}.{key}' if name else str(key), (*path, id(value)))
    empty = len(self.found.arrays) == arrays
    if empty or isinstance(value, inert.Object):       # it is one remark; what a module is made of is none
      while len(self.found.others) > remarks:
        self.found.others.popitem()
    if empty and name:
      self.found.others[name] = kind(value)

  def _enter(self, array: Leaf, name: str) -> None:
    if name in self.found.arrays:
      raise MedtlError(f'holds two arrays called {shown(name)}; save it again with one of them')
    if isinstance(array, np.ndarray) and array.dtype.kind in 'OSUMm':
      self.found.others[name] = f'array of {array.dtype.name}'
    else:
      self.found.arrays[name] = array

  def _items(self, value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (name, value) of what a container holds."""
    state = _attributes(value)
    if isinstance(value, dict) and not _optimizer(value):
      yield from value.items()
    elif isinstance(value, list | tuple):
      yield from ((index, item) for index, item in enumerate(value) if _holds(item))
    elif '_modules' in state and '_parameters' in state:
      yield from _module(state)
    elif isinstance(value, inert.Object) and id(value) not in self.objects and not _optimizer(state):
      self.objects.add(id(value))
      yield from value.items.items()
      yield from enumerate(value.elements)
      yield from ((key, item) for key, item in state.items() if _holds(item))


def _module(state: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
  """Yield what `torch.nn.Module.state_dict` would: parameters, persistent buffers, modules."""
  passing = state.get('_non_persistent_buffers_set') or ()
  for kind in ('_parameters', '_buffers', '_modules'):
    for key, item in (state.get(kind) or {}).items():
      if _holds(item) and not (kind == '_buffers' and key in passing):
        yield key, item


def _attributes(value: Any) -> dict[Any, Any]:
  """Return the attributes of a pickled object."""
  state = value.state if isinstance(value, inert.Object) else None
  parts = state if isinstance(state, tuple) else (state,)       # (attributes, slots) or the attributes
  found: dict[Any, Any] = {}
  for part in parts:
    found |= part if isinstance(part, dict) else {}
  return found


def _holds(value: Any) -> bool:
  """Return whether a value can hold arrays."""
  return isinstance(value, dict | list | tuple | inert.Object) or pickled.leaf(value) is not None


def _optimizer(state: Mapping[Any, Any]) -> bool:
  return 'param_groups' in state and 'state' in state


def kind(value: Any) -> str:
  """Return in a word what a value is that is no array."""
  if isinstance(value, dict) and _optimizer(value):
    return "optimizer's state"
  if isinstance(value, Other):
    return value.what
  return str(value) if isinstance(value, inert.Object | inert.Name) else type(value).__name__


def choose(names: Collection[str], dialects: Mapping[str, Dialect]) -> Choice:
  """Return the prefix ('' or one that ends with a dot or a slash) below which most names are the architecture's.

  Among equals a teacher's come first (students are not what publishers evaluate), then those that come
  first in the file. A prefix is none unless a fair share of the names below it fits.
  """
  below = _below(names)
  scores: dict[str, int] = {}
  best = 0
  for prefix in sorted(below, key=lambda prefix: -len(below[prefix])):
    if len(below[prefix]) < max(1, _RIVAL * best):
      break
    score = _fitting(below[prefix], dialects)
    if prefix == '' or score > _SHARE * len(below[prefix]):
      scores[prefix] = score
      best = max(best, score)
  order = {prefix: place for place, prefix in enumerate(below)}
  ranked = sorted(scores, key=lambda prefix: (-scores[prefix], 'teacher' not in prefix, order[prefix]))
  taken = ranked[0] if best else ''
  rivals = [prefix for prefix in ranked if scores[prefix] >= max(1, _RIVAL * best)]
  return Choice(taken, tuple(_apart(rivals, taken)))


def _below(names: Iterable[str]) -> dict[str, list[str]]:
  """Return {prefix: the names below it, without it}, shorter prefixes before longer ones."""
  found: dict[str, list[str]] = {'': []}
  for name in names:
    for prefix in ('', *_prefixes(name)):
      found.setdefault(prefix, []).append(name.removeprefix(prefix))
  return found


def _prefixes(name: str) -> list[str]:
  """Return what a name can begin with: 'a.', 'a.b.' of 'a.b.c'."""
  return [name[:match.end()] for match in re.finditer('[./]', name) if match.end() < len(name)]


def _fitting(names: Sequence[str], dialects: Mapping[str, Dialect]) -> int:
  """Return how many of the names a dialect calls parts of a backbone, the most of all dialects.

  None, unless a stem and a stage are among them: a block's own conv1 looks like that of a stem.
  """
  best = 0
  for dialect in dialects.values():
    paths = [port.bare(port.rename(name, dialect)) for name in names]
    inside = [path for path in paths if path.startswith('backbone/')]
    children = {path.split('/')[1] for path in inside}
    if 'stem' in children and any(child.startswith('stage') for child in children):
      best = max(best, len(inside))
  return best


def _apart(prefixes: Sequence[str], taken: str) -> Iterator[str]:
  """Yield the prefixes that lie neither above nor below one that is taken or was yielded."""
  known = [taken]
  for prefix in prefixes:
    if not any(prefix.startswith(other) or other.startswith(prefix) for other in known):
      known.append(prefix)
      yield prefix


def inside(found: Contents, part: str) -> Contents:
  """Return what lies below a name that the user gave; MedtlError names what there is where nothing does."""
  starts = tuple(part + mark for mark in './')
  arrays = {name: array for name, array in found.arrays.items() if name.startswith(starts)}
  if not arrays:
    groups = dict.fromkeys(name.replace('/', '.').split('.')[0] for name in found.arrays)
    raise MedtlError(f'holds nothing below {part!r}; its names begin with: {", ".join(map(shown, groups))}')
  return Contents(arrays, {name: kind for name, kind in found.others.items() if name.startswith(starts)})


def left_out(found: Contents, prefix: str) -> dict[str, str]:
  """Return {name: what it is} of all that is not the network's, arrays outside of the prefix by groups."""
  counts: dict[str, int] = {}
  for name in found.arrays:
    if not name.startswith(prefix) or _BESIDE.fullmatch(name.removeprefix(prefix)):
      group = _group(name, prefix)
      counts[group] = counts.get(group, 0) + 1
  words = {group: f'{count} arrays' if count > 1 else 'an array' for group, count in counts.items()}
  return {**{_group(name, prefix): kind for name, kind in found.others.items()}, **words}


def network(found: Contents, prefix: str) -> dict[str, Leaf]:
  """Return the arrays below the prefix under the names that remain."""
  arrays = {name.removeprefix(prefix): array for name, array in found.arrays.items() if name.startswith(prefix)}
  return {name: array for name, array in arrays.items() if not _BESIDE.fullmatch(name)}


def _group(name: str, prefix: str) -> str:
  """Return the shortest beginning of a name that is none of the prefix's."""
  if name.startswith(prefix):
    return name
  outside = [start for start in _prefixes(name) if not prefix.startswith(start)]
  return outside[0][:-1] if outside else name


def shown(text: str) -> str:
  """Return text from a file as it can be printed: 60 characters, no control sequences."""
  printable = ''.join(character if character.isprintable() else '?' for character in text)
  return printable if len(printable) <= 60 else printable[:59] + '…'
