"""What a nested value of a file holds: arrays by dotted names, and remarks on all else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medtl.core.types import MedtlError
from medtl.models.pretrained import pickle_reader, torch_tensors
from medtl.models.pretrained.pickle_reader import printable

Leaf = torch_tensors.Tensor | torch_tensors.Unreadable | np.ndarray

# no checkpoint comes near these
_DEEP = 100  # containers inside each other
_MANY = 1_000_000  # values


@dataclass
class Contents:
  """What a file holds: its arrays by dotted names, and what all else is."""

  arrays: dict[str, Leaf] = field(default_factory=dict)
  others: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Other:
  """What a reader found in the place of an array."""

  what: str


def of(value: Any) -> Contents:
  """Return what a nested value of dictionaries, lists, pickled modules and other objects holds.

  A module's arrays have the names that its `state_dict()` would give; those of TorchScript and of
  other objects are named by attributes. The state of an optimizer is no array of a network.
  """
  contents = Contents()
  _Walk(contents).visit(value, '')
  return contents


class _Walk:
  """One way through a nested value, which fills `contents`."""

  def __init__(self, contents: Contents):
    self.contents = contents
    self.objects: set[int] = set()  # plain objects are seen once: they refer to each other
    self.count = 0

  def visit(self, value: Any, name: str, path: tuple[int, ...] = ()) -> None:
    """Enter what a value holds below a name.

    `path` are the ids of the containers around it, so that a cycle ends.
    """
    self.count += 1
    if self.count > _MANY or len(path) > _DEEP:
      raise MedtlError('is refused: its dictionaries are nested without end')
    array = torch_tensors.leaf(value)
    if array is not None:
      self._enter(array, name)
      return
    arrays_before = len(self.contents.arrays)
    others_before = len(self.contents.others)
    if id(value) not in path:
      containers = (*path, id(value))
      for key, item in self._items(value):
        below = f'{name}.{key}' if name else str(key)
        self.visit(item, below, containers)
    empty = len(self.contents.arrays) == arrays_before and name != ''
    if empty or isinstance(value, pickle_reader.Object):  # what a module is made of is no remark
      while len(self.contents.others) > others_before:
        self.contents.others.popitem()
    if empty:
      self.contents.others[name] = kind(value)

  def _enter(self, array: Leaf, name: str) -> None:
    if name in self.contents.arrays:
      raise MedtlError(f'holds two arrays called {printable(name)}; save it again with one of them')
    if not name.isprintable():
      raise MedtlError(f'is damaged: it holds an array called {printable(name)!r}; get it again')
    kind = array.dtype.kind if isinstance(array, np.ndarray) else ''
    if kind in ('S', 'U'):
      self.contents.others[name] = 'text'
    elif kind in ('O', 'M', 'm'):
      self.contents.others[name] = 'an array of no numbers'
    else:
      self.contents.arrays[name] = array

  def _items(self, value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (name, value) of what a container holds."""
    state = _attributes(value)
    if isinstance(value, dict) and not _is_optimizer(value):
      yield from value.items()
    elif isinstance(value, list | tuple):
      yield from ((index, item) for index, item in enumerate(value) if _holds(item))
    elif '_modules' in state and '_parameters' in state:
      yield from _module(state)
    elif isinstance(value, pickle_reader.Object) and not (
      id(value) in self.objects or _is_optimizer(state)
    ):
      self.objects.add(id(value))
      yield from value.items.items()
      yield from enumerate(value.elements)
      yield from ((key, item) for key, item in state.items() if _holds(item))


def _module(state: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
  """Yield what `torch.nn.Module.state_dict` would: parameters, persistent buffers, modules."""
  passing = state.get('_non_persistent_buffers_set')
  names = passing if isinstance(passing, list) else ()
  for group in ('_parameters', '_buffers', '_modules'):
    members = state.get(group)
    for key, item in members.items() if isinstance(members, dict) else ():
      if _holds(item) and not (group == '_buffers' and key in names):
        yield key, item


def _attributes(value: Any) -> dict[Any, Any]:
  """Return the attributes of a pickled object."""
  state = value.state if isinstance(value, pickle_reader.Object) else None
  parts = state if isinstance(state, tuple) else (state,)  # (attributes, slots)
  attributes: dict[Any, Any] = {}
  for part in parts:
    if isinstance(part, dict):
      attributes |= part
  return attributes


def _holds(value: Any) -> bool:
  """Return whether a value can hold arrays."""
  if isinstance(value, dict | list | tuple | pickle_reader.Object):
    return True
  return torch_tensors.leaf(value) is not None


def _is_optimizer(state: Mapping[Any, Any]) -> bool:
  return 'param_groups' in state and 'state' in state


def kind(value: Any) -> str:
  """Return in a word what a value is that is no array."""
  if isinstance(value, dict) and _is_optimizer(value):
    return "optimizer's state"
  if isinstance(value, Other):
    return value.what
  if value is None:
    return 'None'
  if isinstance(value, pickle_reader.Object | pickle_reader.Name):
    return str(value)
  return type(value).__name__


def listed(words: Mapping[str, str], most: int = 8) -> str:
  """Return names, what they are, and how many more there are, in a line.

  >>> listed({'epoch': 'int', 'args': 'argparse.Namespace', 'last': ''}, most=2)
  'epoch (int), args (argparse.Namespace), 1 more'
  """
  entries: list[str] = []
  for name, kind in list(words.items())[:most]:
    entries.append(printable(f'{name} ({kind})' if kind else name))
  if len(words) > most:
    entries.append(f'{len(words) - most} more')
  return ', '.join(entries)
