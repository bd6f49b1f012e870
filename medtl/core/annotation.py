"""A value from a config against its parameter's annotation: what it becomes, or what was expected.

numpy's numbers count as Python's, a list counts as a tuple (JSON has lists only), and a whole
number counts as a float. In a sequence of text a number counts as the text that Python prints:
classes=(0, 1, 2) are the labels '0', '1' and '2', and 1.0 is '1.0'. A number where a single text is
expected is refused: label=1 may mean the name of a column or its place. NaN and infinity are no
numbers.

`Annotated[float, FROM_0]` has a range as well, which is checked with the kind. A condition on
several arguments of a function is declared above it, by `together`.
"""

import ast
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter
from typing import Annotated, Any, NamedTuple

import numpy as np

from medtl.core.types import MedtlError

Nothing = type(None)
ONE = {
  bool: 'True or False',
  int: 'a whole number',
  float: 'a number',
  str: 'text',
  Nothing: 'None',
}
MANY = {bool: 'truth values', int: 'whole numbers', float: 'numbers', str: 'text'}
GENERIC = (1, 'text', ('a', 'b'))  # examples where neither the value nor the default gives one
TRUTHS = {'true': True, 'yes': True, '1': True, 'false': False, 'no': False, '0': False}


class Range(NamedTuple):
  """A condition on a number: in words, which follow 'a number', and as a function."""

  words: str
  holds: Callable[[Any], bool]


ABOVE_0 = Range('above 0', lambda value: value > 0)
FROM_0 = Range('0 or more', lambda value: value >= 0)
FROM_1 = Range('at least 1', lambda value: value >= 1)
FROM_0_BELOW_1 = Range('0 or more, below 1', lambda value: 0 <= value < 1)
FROM_0_TO_1 = Range('from 0 to 1', lambda value: 0 <= value <= 1)
ABOVE_0_TO_1 = Range('above 0 and at most 1', lambda value: 0 < value <= 1)


class Misfit(Exception):
  """The value is of another kind, or out of its range."""


def checked(where: str, name: str, value: Any, parameter: Parameter) -> Any:
  """Return the value as the parameter takes it.

  A value of another kind, or out of range, is a MedtlError, which shows a valid one if it can.
  """
  if value is parameter.default:
    return value
  kind = kind_of(parameter)
  try:
    return fitted(value, kind)
  except Misfit:
    shown = _example(value, kind, parameter.default)
    advice = '' if shown is None else f', for instance {shown!r}'
    wanted = words(kind)
    if isinstance(value, float) and not math.isfinite(value):
      wanted = wanted.replace('a number', 'a finite number')
    raise MedtlError(f'{where}: {name} is {value!r}; expected {wanted}{advice}') from None


def read(text: str, parameter: Parameter | None) -> Any:
  """Return what a word of the command line means for a parameter: the first reading that fits.

  The word is read as a Python literal, as a truth value, and as text. Where nothing fits, or no
  parameter is known, the first reading is returned: the check of the keys refuses it.

  >>> flag = Parameter('allow_leak', Parameter.KEYWORD_ONLY, annotation=bool)
  >>> root = Parameter('root', Parameter.KEYWORD_ONLY, annotation=str)
  >>> read('false', flag), read('false', root), read('2017', root)
  (False, 'false', '2017')
  """
  truths = [truth for word, truth in TRUTHS.items() if word == text.lower()]
  readings = [*_literal(text), *truths, text]
  if parameter is None:
    return readings[0]
  for reading in readings:
    try:
      return fitted(reading, kind_of(parameter))
    except Misfit:
      continue
  return readings[0]


def kind_of(parameter: Parameter) -> Any:
  """Return a parameter's annotation, or the type of its default where it has none."""
  if parameter.annotation is not Parameter.empty:
    return parameter.annotation
  kind = type(parameter.default)
  return kind if kind in (bool, int, float, str, tuple) else Any


def fitted(value: Any, kind: Any) -> Any:
  """Return the value as a parameter annotated with `kind` takes it; Misfit where it does not."""
  value = _plain(value)
  base, inner = _parts(kind)
  if base is Annotated:
    return _within(fitted(value, inner[0]), inner[1])
  if base in (typing.Union, types.UnionType):
    return _one_of(value, inner)
  if base is typing.Literal:
    return _known(value, inner)
  if base is Any or not isinstance(base, type):  # a type variable, for instance
    return value
  if base is float:
    return _finite(value)
  if base in ONE:
    return _of_type(value, base)
  if issubclass(base, Mapping):
    return _mapping(value, inner)
  if issubclass(base, Iterable):
    return _sequence(value, base, inner)
  if not isinstance(value, base):
    raise Misfit
  return value


def words(kind: Any, many: bool = False) -> str:
  """Return in words what a kind is.

  >>> from collections.abc import Sequence
  >>> words(str | Sequence[str]), words(tuple[int, int]), words(float | None)
  ('text or a sequence of text', 'a sequence of 2 whole numbers', 'a number or None')
  """
  base, inner = _parts(kind)
  if base is Annotated:
    return f'{words(inner[0], many)} {inner[1].words}'
  if base in (typing.Union, types.UnionType):
    kinds = [part for part in inner if not (part is int and float in inner)]
    return ' or '.join(dict.fromkeys(words(part, many) for part in kinds))
  if base is typing.Literal:
    return ' or '.join(map(repr, inner))
  if base is Any or not isinstance(base, type):
    return 'values' if many else 'any value'
  if base in ONE:
    return MANY.get(base, ONE[base]) if many else ONE[base]
  if issubclass(base, Mapping):
    return 'keys with values'
  if issubclass(base, Iterable):
    return f'a sequence{_of(base, inner)}'
  return base.__name__


def _of(base: type, inner: tuple) -> str:
  """Return ' of 2 whole numbers': what a sequence holds."""
  if not inner:
    return ''
  count = f'{len(inner)} ' if _is_exact(base, inner) else ''
  return f' of {count}{words(inner[0], many=True)}'


def _parts(kind: Any) -> tuple[Any, tuple]:
  """Return (tuple, (int, ...)) of tuple[int, ...], (int, ()) of int, (Annotated, (int, Range)) …"""
  if kind is None:
    return Nothing, ()
  return typing.get_origin(kind) or kind, typing.get_args(kind)


def _plain(value: Any) -> Any:
  """Return numpy's numbers and arrays as Python's."""
  return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _of_type(value: Any, kind: type) -> Any:
  """Return the value where it is of the kind; True and False are no whole numbers."""
  if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
    raise Misfit
  return value


def _finite(value: Any) -> float:
  """Return a whole or other number as a float; NaN and infinity are none."""
  if type(value) is int:
    value = float(value) if abs(value) < 2**1000 else math.inf
  if not math.isfinite(_of_type(value, float)):
    raise Misfit
  return value


def _within(value: Any, span: Range) -> Any:
  """Return the value, one number or several, where each is in the range."""
  numbers = value if isinstance(value, tuple | list) else (value,)
  if not all(map(span.holds, numbers)):
    raise Misfit
  return value


def _known(value: Any, known: tuple) -> Any:
  if not any(value == entry and type(value) is type(entry) for entry in known):
    raise Misfit
  return value


def _one_of(value: Any, kinds: tuple) -> Any:
  """Return the value as one of the kinds takes it; its own type comes first: 3 is no float."""
  for kind in sorted(kinds, key=lambda kind: kind is not type(value)):
    try:
      return fitted(value, kind)
    except Misfit:
      continue
  raise Misfit


def _mapping(value: Any, inner: tuple) -> dict:
  if not isinstance(value, Mapping):
    raise Misfit
  key_kind, value_kind = inner or (Any, Any)
  keys = [_entry(key, key_kind) for key in value]
  values = [_entry(entry, value_kind) for entry in value.values()]
  return dict(zip(keys, values, strict=True))


def _is_exact(base: type, inner: tuple) -> bool:
  """Return whether a tuple's length is part of its type."""
  return base is tuple and bool(inner) and inner[-1] is not Ellipsis


def _sequence(value: Any, base: type, inner: tuple) -> Any:
  if not isinstance(value, tuple | list):
    raise Misfit
  exact = _is_exact(base, inner)
  if exact and len(value) != len(inner):
    raise Misfit
  each = inner if exact else (inner[:1] or (Any,)) * len(value)
  entries = [_entry(entry, kind) for entry, kind in zip(value, each, strict=True)]
  return entries if base is list else tuple(entries)


def _entry(value: Any, kind: Any) -> Any:
  """Return an entry of a sequence or mapping; among texts a number counts as text."""
  value = _plain(value)
  return str(value) if kind is str and type(value) in (int, float) else fitted(value, kind)


def _example(value: Any, kind: Any, default: Any) -> Any:
  """Return a value of the kind: one like the value, or the default; None where words suffice."""
  if kind is bool or typing.get_origin(kind) is typing.Literal:
    return None
  empty = default is Parameter.empty or (not default and type(default) is not float)
  candidates = [*_alike(value, default), *([] if empty else [default]), *GENERIC]
  for candidate in candidates:
    try:
      if fitted(candidate, kind) == candidate:
        return candidate
    except Misfit:
      continue
  return None


def _alike(value: Any, default: Any) -> Iterable[Any]:
  """Return what may have been meant: 5 by '5', 0.1 by '0,1', ('a', 'b') by 'a,b', (8, 8) by 8."""
  value = _plain(value)
  if isinstance(value, str):
    parts = [part.strip() for part in value.split(',')]
    return [*_literal(value), *_literal(value.replace(',', '.')), tuple(parts)]
  if isinstance(value, tuple | list):
    return value[:1]
  if type(value) not in (int, float):
    return []
  length = len(default) if isinstance(default, tuple) else 0
  texts = [str(value)] if isinstance(value, int) else []
  whole = [int(value)] if value == value // 1 else []
  return [*whole, *texts, (value,) * max(1, length)]


def _literal(text: str) -> list[Any]:
  """Return [value] of a Python literal, [] where the text is none."""
  try:
    return [ast.literal_eval(text)]
  except (ValueError, SyntaxError):
    return []


class Law(NamedTuple):
  """A condition on several arguments of a function."""

  words: str
  holds: Callable[..., bool]
  names: tuple[str, ...]  # of the arguments that it is about


def together(words: str, holds: Callable[..., bool]) -> Callable[[Callable], Callable]:
  """Return a decorator that declares a condition on several arguments: `holds` takes them by name.

  The function refuses arguments that break it; so does `agree`, before the function is called.

  >>> @together('low < high', lambda low, high: low < high)
  ... def window(x, low, high=1.0): return (x - low) / (high - low)
  >>> window(0.75, 0.5)
  0.5
  """
  law = Law(words, holds, tuple(inspect.signature(holds).parameters))

  def declare(function: Any) -> Any:
    form = inspect.signature(function)

    @functools.wraps(function)
    def lawful(*args: Any, **keys: Any) -> Any:
      agree(lawful, form.bind(*args, **keys))
      return function(*args, **keys)

    lawful.law = law  # type: ignore[attr-defined]
    return lawful

  return declare


def agree(function: Callable, bound: inspect.BoundArguments) -> None:
  """Raise a MedtlError where arguments break the condition declared above their function."""
  law: Law | None = getattr(function, 'law', None)
  if law is None:
    return
  whole = inspect.BoundArguments(bound.signature, bound.arguments.copy())
  whole.apply_defaults()
  arguments = {name: whole.arguments[name] for name in law.names}
  if not law.holds(**arguments):
    shown = ', '.join(f'{name}={value}' for name, value in arguments.items())
    raise MedtlError(f'{function.__name__}: {shown}; expected {law.words}')
