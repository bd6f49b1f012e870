"""Text in configs becomes callables: a name is a Python name, a chain is 'a(1) | b(2)'.

Arguments are literals; nothing is evaluated.
"""

import ast
import difflib
import importlib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from medtl.core import annotation
from medtl.core.types import MedtlError


class Call(NamedTuple):
  """One parsed operation: `resize(224, 224)` is Call('resize', (224, 224), {})."""

  name: str
  args: tuple
  kwargs: dict[str, Any]


def did_you_mean(word: str, words: Iterable[str]) -> str:
  """Return a sentence that names the nearest right word and all of them.

  >>> did_you_mean('resise', ['resize', 'window'])
  "did you mean 'resize'? There are: resize, window"
  >>> did_you_mean('turn', ['resize', 'window'])
  'there are: resize, window'
  """
  words = sorted(words)
  listed = ', '.join(words) or 'none'
  close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
  if close:
    return f'did you mean {close[0]!r}? There are: {listed}'
  return f'there are: {listed}'


def parse_chain(text: str) -> list[Call]:
  """Parse 'a(1, b=2) | c' into calls; arguments are literals, nothing is evaluated.

  >>> parse_chain('window(-1000, 400) | resize(8)')
  [Call(name='window', args=(-1000, 400), kwargs={}), Call(name='resize', args=(8,), kwargs={})]
  """
  if not text.strip():
    return []
  try:
    node: ast.expr = ast.parse(text.strip(), mode='eval').body
  except SyntaxError as error:
    raise MedtlError(
      f'cannot read {text!r}: {error.msg} at column {error.offset}; '
      "expected something like 'window(-1000, 400) | resize(224, 224)'"
    ) from None
  calls: list[Call] = []
  while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
    calls.insert(0, _call(node.right, text))
    node = node.left
  return [_call(node, text), *calls]


def _call(node: ast.expr, text: str) -> Call:
  """Return the operation that a node of the parsed text is: a name, or a name with arguments."""
  if isinstance(node, ast.Name):
    return Call(node.id, (), {})
  if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
    raise MedtlError(
      f'cannot read {ast.unparse(node)!r} in {text!r}: expected name or name(arguments)'
    )
  try:
    args = tuple(ast.literal_eval(value) for value in node.args)
    kwargs = {word.arg or '**': ast.literal_eval(word.value) for word in node.keywords}
  except ValueError:
    raise MedtlError(
      f'{ast.unparse(node)!r} in {text!r}: arguments must be literals (numbers, strings, tuples)'
    ) from None
  return Call(node.func.id, args, kwargs)


def public(module: ModuleType) -> dict[str, Callable]:
  """Return {name: function} of those that a module defines itself and does not hide."""
  functions = {}
  for name, value in vars(module).items():
    is_own = inspect.isfunction(value) and value.__module__ == module.__name__
    if is_own and not name.startswith('_'):
      functions[name] = value
  return functions


def bind(
  function: Callable, call: Call, what: str = '', given: tuple[str, ...] = ()
) -> inspect.BoundArguments:
  """Return a call's arguments as the function takes them, without those that the caller gives.

  An argument that the function lacks, or of another kind than it takes, is a MedtlError; it calls
  the function `what`, or by its name.
  """
  where = what or call.name
  whole = signature(function)
  known = [name for name in whole.parameters if name not in given]
  open_ended = any(entry.kind is entry.VAR_KEYWORD for entry in whole.parameters.values())
  for name in call.kwargs:
    if name not in known and not open_ended:
      raise MedtlError(f'{where} has no key {name!r}; {did_you_mean(name, known)}')
  rest = whole.replace(parameters=[whole.parameters[name] for name in known])
  try:
    bound = rest.bind(*call.args, **call.kwargs)
  except TypeError as error:
    raise MedtlError(f'{where}: {error}; expected {_short(call.name, rest)}') from None
  for name, value in bound.arguments.items():
    bound.arguments[name] = _checked(where, value, rest.parameters[name])
  return bound


def _checked(where: str, value: Any, parameter: inspect.Parameter) -> Any:
  """Return what a parameter holds, checked: `*size` holds several values, `**keys` a mapping."""

  def check(name: str, entry: Any) -> Any:
    return annotation.checked(where, name, entry, parameter)

  if parameter.kind is parameter.VAR_POSITIONAL:
    return tuple(check(parameter.name, entry) for entry in value)
  if parameter.kind is parameter.VAR_KEYWORD:
    return {name: check(name, entry) for name, entry in value.items()}
  return check(parameter.name, value)


def signature(function: Callable) -> inspect.Signature:
  """Return a function's signature; annotations that its module holds as text become types."""
  try:
    return inspect.signature(function, eval_str=True)
  except NameError as error:
    name = f'{function.__module__}.{function.__name__}'
    raise MedtlError(
      f'the annotations of {name} cannot be read: {error}; expected types that its module imports'
    ) from None


def _short(name: str, whole: inspect.Signature) -> str:
  """Return 'resize(size, order=1)': a signature without its types."""
  words = []
  for parameter in whole.parameters.values():
    has_default = parameter.default is not parameter.empty
    words.append(f'{parameter.name}={parameter.default!r}' if has_default else parameter.name)
  return f'{name}({", ".join(words)})'


def parameters(function: Callable, given: tuple[str, ...] = ()) -> dict[str, inspect.Parameter]:
  """Return a function's parameters by name, without those that the caller gives."""
  kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
  named = {}
  for name, parameter in signature(function).parameters.items():
    if parameter.kind in kinds and name not in given:
      named[name] = parameter
  return named


def checked_keys(
  where: str, keys: Mapping[str, Any], known: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
  """Return the keys with their values as the `known` parameters take them.

  An unknown key, a missing one and a value of another kind are MedtlErrors.
  """
  for name in keys:
    if name not in known:
      raise MedtlError(f'{where} has no key {name!r}; {did_you_mean(name, known)}')
  for name, parameter in known.items():
    if parameter.default is parameter.empty and name not in keys:
      wanted = annotation.words(annotation.kind_of(parameter))
      raise MedtlError(f'{where} lacks the key {name!r}; set it to {wanted}')
  checked = {}
  for name, value in keys.items():
    checked[name] = annotation.checked(where, name, value, known[name])
  return checked


def operations(module: ModuleType, given: tuple[str, ...] = ()) -> dict[str, Callable]:
  """Return a module's public functions that take `given` first: its helpers are no operations."""
  functions = {}
  for name, function in public(module).items():
    names = tuple(inspect.signature(function).parameters)
    if names[: len(given)] == given:
      functions[name] = function
  return functions


def functions(
  text: str, known: ModuleType | Mapping[str, Callable], given: tuple[str, ...] = ()
) -> list[Callable]:
  """Return the chain's operations with their arguments bound.

  Each still takes `given`, by position or by name. An operation that is not known, or arguments
  that it does not take, are a MedtlError.
  """
  words = operations(known, given) if isinstance(known, ModuleType) else known
  partial = []
  for call in parse_chain(text):
    if call.name not in words:
      hint = did_you_mean(call.name, words)
      raise MedtlError(f'unknown operation {call.name!r} in {text!r}; {hint}')
    function = words[call.name]
    bound = bind(function, call, given=given)
    partial.append(_fill(function, bound, given))
  return partial


def _fill(function: Callable, bound: inspect.BoundArguments, given: tuple[str, ...]) -> Callable:
  """Return the function with its arguments bound; it still takes those that the caller gives."""
  parameters = inspect.signature(function).parameters
  star = ()
  named = {}
  for name, value in bound.arguments.items():
    kind = parameters[name].kind
    if kind is inspect.Parameter.VAR_POSITIONAL:
      star = value
    elif kind is inspect.Parameter.VAR_KEYWORD:
      named.update(value)
    else:
      named[name] = value
  if star:  # f(x, *size): what is given comes first, by position
    return lambda *args: function(*args, *star, **named)

  def filled(*args: Any, **kwargs: Any) -> Any:
    positional = dict(zip(given, args, strict=False))
    return function(**positional, **named, **kwargs)

  return filled


def single_function(
  text: str, known: ModuleType | Mapping[str, Callable], given: tuple[str, ...] = ()
) -> Callable:
  """Return the single operation that the text names."""
  bound = functions(text, known, given)
  if len(bound) != 1:
    raise MedtlError(f'expected one operation, found {len(bound)} in {text!r}')
  return bound[0]


def compiled_regex(pattern: str, what: str) -> re.Pattern:
  """Return the compiled pattern; one that is no regex is an error that names it."""
  try:
    return re.compile(pattern)
  except re.error as error:
    raise MedtlError(f'{what} {pattern!r} is not a regex: {error}') from None


def find(name: str, package: str) -> Callable:
  """Return the function that 'module.function' (or 'function') names inside a package.

  There is no registry: a name is a Python name. One that names nothing is a MedtlError.
  """
  *path, last = name.split('.')
  if not all(part.isidentifier() for part in (*path, last)):
    raise MedtlError(f'{name!r} is not a name: expected module.function inside {package}')
  target = '.'.join([package, *path])
  try:
    module = importlib.import_module(target)
  except ModuleNotFoundError as error:
    if not target.startswith(str(error.name)):
      raise
    if not hasattr(importlib.import_module(package), '__path__'):
      raise MedtlError(f'{name!r}: {package} is one file; write {last!r} alone') from None
    word = '.'.join(path)
    hint = did_you_mean(word, siblings(package))
    raise MedtlError(f'no module {word!r} in {package}; {hint}') from None
  known = public(module)
  if last not in known:
    raise MedtlError(f'no function {last!r} in {target}; {did_you_mean(last, known)}')
  return known[last]


def siblings(package: str) -> list[str]:
  """Return the modules that a package holds, by listing its folder."""
  import pkgutil

  return [item.name for item in pkgutil.iter_modules(importlib.import_module(package).__path__)]


def component(
  config: Mapping[str, Any], package: str, what: str, given: tuple[str, ...] = ()
) -> tuple[Callable, dict[str, Any]]:
  """Return (function, keyword arguments) of dict(name='module.function', …).

  The keys are checked against the function's signature, without what the caller gives.
  """
  keys = dict(config)
  name = keys.pop('name', None)
  if not isinstance(name, str):
    raise MedtlError(f'config.{what}: name is {name!r}; expected a function of {package}, as text')
  function = find(name, package)
  return function, checked_keys(f'config.{what} ({name})', keys, parameters(function, given))


def duration_in_steps(
  text: str | int, examples: int, batch: int, total: int = 0, least: int = 1
) -> int:
  """Return a duration in steps, at least `least`; an epoch is ceil(examples / batch) steps.

  >>> duration_in_steps('2 epochs', examples=100, batch=32), duration_in_steps(7, 100, 32)
  (8, 7)
  >>> duration_in_steps('64 examples', 100, 32), duration_in_steps('5%', 100, 32, total=200)
  (2, 10)
  """
  match = re.fullmatch(r'(\d+\.?\d*|\.\d+)\s*(%|steps?|epochs?|examples?|)', str(text).strip())
  if not match or (not match[2] and not match[1].isdigit()):
    raise _unreadable_duration(text)
  number = float(match[1])
  unit = match[2].rstrip('s') or 'step'
  if unit == '%' and not total:
    raise MedtlError(
      f'{text!r} is a share of a total that is not known here; expected steps, epochs or examples'
    )
  steps = {
    'step': 1.0,
    'epoch': math.ceil(examples / batch),
    'example': 1 / batch,
    '%': total / 100,
  }
  count = math.ceil(number * steps[unit] - 1e-9)
  if count < least:
    raise MedtlError(f'a duration of {text!r}; expected at least {least} step')
  return count


def _unreadable_duration(text: str | int) -> MedtlError:
  return MedtlError(
    f"cannot read the duration {text!r}: expected '100 steps', '3 epochs', '5000 examples' or '5%'"
  )


def scaled_duration(text: str | int, factor: float) -> str:
  """Return a duration times a factor; steps stay whole, and at least one.

  >>> scaled_duration('6 epochs', 0.5), scaled_duration('50%', 0.4)
  ('3 epochs', '20%')
  >>> scaled_duration(7, 0.5), scaled_duration('100 steps', 0.001)
  ('4 steps', '1 steps')
  """
  match = re.fullmatch(r'(\d+\.?\d*|\.\d+)\s*(%|[a-z]*)', str(text).strip())
  if not match or match[2].rstrip('s') not in ('', '%', 'step', 'epoch', 'example'):
    raise _unreadable_duration(text)
  number = float(match[1]) * factor
  unit = match[2]
  if unit in ('', 'step', 'steps'):
    return f'{max(1, round(number + 1e-9))} steps'
  blank = '' if unit == '%' else ' '
  return f'{number:.6g}{blank}{unit}'
