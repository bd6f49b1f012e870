"""What is learned: one file a task, and the door to them.

A file of this room holds `task(…) → Task`, whose keys are those of config.task beside `name`, and,
where keys can be left open, `settle(keys, everything)`.
"""

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from medtl.core import expressions
from medtl.core.types import MedtlError, Task

PACKAGE = 'medtl.tasks'


def module(name: str) -> ModuleType:
  """Return the file of a task; a name that is none is answered with those that are."""
  known = expressions.siblings(PACKAGE)
  if name not in known:
    raise MedtlError(f'no task {name!r}; {expressions.did_you_mean(name, known)}')
  return importlib.import_module(f'{PACKAGE}.{name}')


def factory(name: str) -> Callable[..., Task]:
  """Return the function that makes a task from its keys."""
  return module(name).task


def make(keys: Mapping[str, Any]) -> Task:
  """Return the task of dict(name='classification', …), its keys checked."""
  left = {key: value for key, value in keys.items() if key != 'name'}
  task = factory(keys['name'])
  known = expressions.parameters(task)
  return task(**expressions.checked_keys('config.task', left, known))
