"""A pickle read as data: no class is imported, no function of the pickle's choice is called.

`pickle.Unpickler` calls what a file names. This machine follows the same opcodes (they are
documented in `pickletools`) and only writes down what the pickle asks for: a class or function is a
`Name`, what would be made with it is an `Object`. The caller's own few functions, `makers`, are all
that is called.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from medtl.core.types import MedtlError

Makers = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True, eq=False)
class Name:
  """A class or function that a pickle asks for."""

  module: str
  name: str

  def __str__(self) -> str:
    return f'{self.module}.{self.name}'


@dataclass(eq=False)
class Object:
  """What a pickle wants made: by whom, from what, and what was put into it afterwards."""

  maker: Any  # a Name, or what another call would have returned
  args: tuple
  state: Any = None  # what `__setstate__` would have been given
  items: dict[Any, Any] = field(default_factory=dict)
  elements: list[Any] = field(default_factory=list)

  def __str__(self) -> str:
    return str(self.maker) if isinstance(self.maker, Name) else 'object'


def load(file: BinaryIO, makers: Makers, storage: Callable[[Any], Any]) -> Any:
  """Return what the pickle at the file's position describes; the file then stands behind it.

  A call of a function named in `makers` ('module.name') becomes a call of the function that
  `makers` holds; sets become lists. `storage` resolves persistent ids. Raises MedtlError for a
  damaged stream; the caller puts the file's name in front of its message.
  """
  machine = _Machine(makers, storage)
  try:
    return machine.run(file)
  except MedtlError:
    raise
  except Exception:  # whatever the machine stumbles over in a damaged stream
    raise MedtlError(
      'is truncated or damaged: its pickle makes no sense from byte '
      f'{machine.place} on; get it again'
    ) from None


def name_of(value: Any) -> str:
  """Return 'module.name' of a class or function, '' of anything else.

  Only names are printed: tuples that hold one tuple several times never end.
  """
  return str(value) if isinstance(value, Name) else ''


def printable(text: str, most: int = 60) -> str:
  """Return text from a file as it can be printed: at most 60 characters, no control sequences."""
  start = text[: most + 1]
  clean = ''.join(character if character.isprintable() else '?' for character in start)
  return clean if len(clean) <= most else clean[: most - 1] + '…'


def mapping(pairs: Any = ()) -> dict[Any, Any]:
  """Return a dictionary of (key, value) pairs, or of another dictionary."""
  if isinstance(pairs, dict):
    pairs = pairs.items()
  entries: dict[Any, Any] = {}
  for key, value in pairs:
    put(entries, key, value)
  return entries


def put(target: dict[Any, Any], key: Any, value: Any) -> None:
  """Enter a value into a dictionary; a key that is no text and no small number goes by its type.

  Such keys are neither hashed nor printed: deeply nested tuples overflow the C stack at either.
  Raises ValueError for a list or dictionary, which Python takes for no key.
  """
  if isinstance(key, list | dict):
    raise ValueError('a list is no key of a dictionary')
  small_number = isinstance(key, int | float) and abs(key) < _LARGE
  if not (isinstance(key, str) or small_number):
    key = f'({type(key).__name__})'
  target[key] = value


class _Machine:
  """The stack, its marks and the memo of one pickle; `op_…` follows the opcode of that name."""

  def __init__(self, makers: Makers, storage: Callable[[Any], Any]):
    self.makers = makers
    self.storage = storage
    self.stack: list[Any] = []
    self.below: list[list[Any]] = []  # the stacks under each mark
    self.memo: dict[int, Any] = {}
    self.place: int | None = 0  # of the opcode that is followed

  def run(self, file: BinaryIO) -> Any:
    """Follow the opcodes up to STOP."""
    for opcode, argument, place in pickletools.genops(file):
      self.place = place
      if opcode.name in _VALUES:
        self.stack.append(argument)
      elif opcode.name in _CONSTANTS:
        self.stack.append(_CONSTANTS[opcode.name])
      elif opcode.name not in _IGNORED:
        getattr(self, f'op_{opcode.name.lower()}')(argument)
    return self.stack.pop()

  def _since_mark(self) -> list[Any]:
    items = self.stack
    self.stack = self.below.pop()
    return items

  def _make(self, maker: Any, args: Any) -> None:
    if not isinstance(args, tuple):
      raise ValueError('the arguments of a call are no tuple')
    if not isinstance(maker, Name | Object):
      raise ValueError('a call of what is no function')
    known = self.makers.get(name_of(maker))
    self.stack.append(known(*args) if known else Object(maker, args))

  # The stack
  def op_mark(self, _: Any) -> None:
    self.below.append(self.stack)
    self.stack = []

  def op_pop(self, _: Any) -> None:
    if self.stack:
      self.stack.pop()
    else:
      self._since_mark()

  def op_pop_mark(self, _: Any) -> None:
    self._since_mark()

  def op_dup(self, _: Any) -> None:
    self.stack.append(self.stack[-1])

  # The memo
  def op_put(self, index: int) -> None:
    self.memo[index] = self.stack[-1]

  def op_memoize(self, _: Any) -> None:
    self.memo[len(self.memo)] = self.stack[-1]

  def op_get(self, index: int) -> None:
    self.stack.append(self.memo[index])

  op_binput = op_long_binput = op_put
  op_binget = op_long_binget = op_get

  # Containers
  def op_empty_list(self, _: Any) -> None:
    self.stack.append([])

  op_empty_set = op_empty_list

  def op_empty_dict(self, _: Any) -> None:
    self.stack.append({})

  def op_empty_tuple(self, _: Any) -> None:
    self.stack.append(())

  def op_list(self, _: Any) -> None:
    items = self._since_mark()
    self.stack.append(items)

  def op_tuple(self, _: Any) -> None:
    items = self._since_mark()
    self.stack.append((*items,))

  op_frozenset = op_tuple

  def op_tuple1(self, _: Any) -> None:
    self._last(1)

  def op_tuple2(self, _: Any) -> None:
    self._last(2)

  def op_tuple3(self, _: Any) -> None:
    self._last(3)

  def _last(self, count: int) -> None:
    items = (*self.stack[-count:],)
    if len(items) < count:
      raise ValueError('the stack is empty')
    self.stack[-count:] = [items]

  def op_dict(self, _: Any) -> None:
    items = self._since_mark()
    self.stack.append({})
    self._enter(items)

  def op_setitem(self, _: Any) -> None:
    value = self.stack.pop()
    key = self.stack.pop()
    self._enter([key, value])

  def op_setitems(self, _: Any) -> None:
    self._enter(self._since_mark())

  def _enter(self, items: Any) -> None:
    """Put key, value, key, value … into what lies on top."""
    target = self.stack[-1]
    inside = target.items if isinstance(target, Object) else target
    if not isinstance(inside, dict):
      raise _changes(target)
    for key, value in zip(items[::2], items[1::2], strict=True):
      put(inside, key, value)

  def op_append(self, _: Any) -> None:
    value = self.stack.pop()
    self._extend([value])

  def op_appends(self, _: Any) -> None:
    self._extend(self._since_mark())

  op_additems = op_appends

  def _extend(self, items: Any) -> None:
    target = self.stack[-1]
    inside = target.elements if isinstance(target, Object) else target
    if not isinstance(inside, list):
      raise _changes(target)
    inside.extend(items)

  # Names, and what would be made of them
  def op_global(self, words: str) -> None:
    module, _, name = words.partition(' ')
    self.stack.append(Name(module, name))

  def op_stack_global(self, _: Any) -> None:
    name = self.stack.pop()
    module = self.stack.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
      raise ValueError('the name of a class is no text')
    self.stack.append(Name(module, name))

  def op_ext1(self, code: int) -> None:
    self.stack.append(Name('copyreg', f'extension {code}'))

  op_ext2 = op_ext4 = op_ext1

  def op_reduce(self, _: Any) -> None:
    args = self.stack.pop()
    maker = self.stack.pop()
    self._make(maker, args)

  op_newobj = op_reduce

  def op_newobj_ex(self, _: Any) -> None:
    keywords = self.stack.pop()
    args = self.stack.pop()
    maker = self.stack.pop()
    self._make(maker, (*args, keywords))

  def op_inst(self, words: str) -> None:
    args = self._since_mark()
    self.op_global(words)
    self._make(self.stack.pop(), (*args,))

  def op_obj(self, _: Any) -> None:
    maker, *args = self._since_mark()
    self._make(maker, (*args,))

  def op_build(self, _: Any) -> None:
    state = self.stack.pop()
    target = self.stack[-1]
    if isinstance(target, Object):
      target.state = state
    elif not isinstance(target, dict | list):  # the attributes of these do not count
      raise _changes(target)

  # What lies outside of the stream
  def op_persid(self, text: str) -> None:
    self.stack.append(self.storage(text))

  def op_binpersid(self, _: Any) -> None:
    self.stack.append(self.storage(self.stack.pop()))

  def op_next_buffer(self, _: Any) -> None:
    raise MedtlError('keeps its numbers in buffers outside of the file; save it again without them')

  op_readonly_buffer = op_next_buffer


_LARGE = 1 << 63
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_IGNORED = {'PROTO', 'FRAME', 'STOP'}
_VALUES = {  # opcodes whose argument is the value itself
  'INT',
  'BININT',
  'BININT1',
  'BININT2',
  'LONG',
  'LONG1',
  'LONG4',
  'FLOAT',
  'BINFLOAT',
  'STRING',
  'BINSTRING',
  'SHORT_BINSTRING',
  'UNICODE',
  'BINUNICODE',
  'SHORT_BINUNICODE',
  'BINUNICODE8',
  'BINBYTES',
  'SHORT_BINBYTES',
  'BINBYTES8',
  'BYTEARRAY8',
}


def _changes(target: Any) -> MedtlError:
  """Return the error for a pickle that changes what `makers` returned."""
  what = type(target).__name__.lower()
  return MedtlError(f'is refused: its pickle changes a {what} after it was checked')
