"""Checks the keys of `config.data`, those of `load` and of its source, before any data are read."""

import functools
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any, TypeVar

from medtl.core import expressions
from medtl.core.types import MedtlError
from medtl.data import class_names, patches, splits, transforms

# keys of `load` that must be 0 or more
LEAST = {
  'skip_unreadable': 'the number of pictures that may be left out',
  'keep_gb': 'the 10⁹ bytes that decoded pictures may take',
}
Load = TypeVar('Load', bound=Callable[..., Any])


def checked(load: Load) -> Load:
  """Return `load` with a check of its keys before it, see `fitted`."""
  names = list(expressions.parameters(load))

  @functools.wraps(load)
  def check_and_load(*values: Any, **keys: Any) -> Any:
    named = dict(zip(names, values, strict=False)) | keys
    return load(**fitted(load, named))

  return check_and_load  # type: ignore[return-value]


def parameters(load: Callable, name: str) -> dict[str, Parameter]:
  """Return the keys that `load` and the source called `name` take together."""
  source = expressions.find(_full(name), 'medtl.data.sources')
  return expressions.parameters(source) | expressions.parameters(load)


def _full(name: str) -> str:
  """Return 'folder.load' for 'folder'."""
  return name if '.' in name else f'{name}.load'


def split_parameters() -> dict[str, Parameter]:
  """Return the keys of `config.data.split`."""
  return expressions.parameters(splits.split, given=('table',))


def fitted(load: Callable, given: Mapping[str, Any]) -> dict[str, Any]:
  """Return the keys as `load` and its source take them.

  Raises MedtlError for a key that is misspelt, lacking or of another kind.
  """
  name = given['name']
  split_keys = given.get('split', {})
  if not isinstance(split_keys, Mapping):
    raise MedtlError(
      f'config.data: split is {split_keys!r}; expected its keys, for instance '
      "dict(by='patient'): on the command line --config.data.split.by=patient"
    )
  keys = expressions.checked_keys(f'config.data ({name})', given, parameters(load, name))
  known = split_parameters()
  keys['split'] = expressions.checked_keys('config.data.split', split_keys, known)
  if 'by' not in split_keys:
    ways = ', '.join(map(repr, splits.WAYS))
    raise MedtlError(f"config.data.split lacks the key 'by'; set it to one of: {ways}")
  if split_keys['by'] != splits.AUTO:
    defaults = {key: parameter.default for key, parameter in known.items()}
    splits.check_keys(**defaults | keys['split'])
  expressions.functions(keys.get('ops', ''), transforms, given=('example',))
  if keys.get('draw'):
    expressions.single_function(keys['draw'], patches, given=('example', 'random'))
  if 'rename' in keys:
    keys['rename'] = class_names.by_old_name(keys['rename'])
  for old, new in keys.get('rename', {}).items():
    if not new:
      raise MedtlError(
        f'config.data: rename gives the class {old!r} no name; expected what it is called from now '
        "on, for instance rename={'AMD': 'abnormal'}"
      )
  for key, words in LEAST.items():
    if key in keys and not keys[key] >= 0:  # also true of NaN
      raise MedtlError(f'config.data: {key} is {keys[key]}; expected 0 or more, {words}')
  return keys | {'name': _full(name)}
