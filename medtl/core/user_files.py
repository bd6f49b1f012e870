"""Python files that users write, configs and sweeps: where they lie and what they define."""

import contextlib
import importlib
import runpy
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medtl.core.types import MedtlError

SHIPPED = Path(__file__).resolve().parents[2]  # configs/ and experiments/ lie beside medtl
MOST = 300  # characters of a message that are shown: ml_collections lists all it holds


def locate(words: str) -> Path:
  """Return the path of a file: below the working directory, else below medtl's own folder.

  So 'configs/oct_vit.py' means medtl's in a working directory that has no such file of its own.
  """
  path = Path(words).expanduser()
  ours = SHIPPED / path
  return ours if ours.is_file() and not path.is_file() else path


def configs(folder: Path = Path('configs')) -> list[str]:
  """Return the paths of a folder's configs, or of medtl's where the folder has none."""
  for place in (folder, SHIPPED / 'configs'):
    files = [path for path in place.glob('[!_]*.py') if path.is_file() and path.stem != 'base']
    if files:
      return sorted(map(str, files))
  return []


@contextlib.contextmanager
def defined(path: Path, expected: str) -> Iterator[dict[str, Any]]:
  """Give what the Python file at `path` defines, by name; call its functions while this is open.

  Within, `from configs import base` works wherever the process was started. An exception of the
  file becomes a MedtlError with its line and with what was `expected` of the file.
  """
  with explained(path, expected), _configs_importable(path.absolute().parent):
    yield runpy.run_path(str(path))


@contextlib.contextmanager
def explained(path: Path, expected: str) -> Iterator[None]:
  """While open, what the code of the file raises becomes a MedtlError, if it is not one already."""
  try:
    yield
  except MedtlError:
    raise
  except (Exception, SystemExit) as error:
    line = _line(error, path)
    where = f'{path}, line {line}' if line else str(path)
    why = ': '.join(filter(None, [type(error).__name__, str(error)[:MOST]]))
    raise MedtlError(f'{where}: {why}; expected {expected}') from error


def _line(error: BaseException, path: Path) -> int | None:
  """Return the line of the file at which an exception arose, None where it was not in this file."""
  if isinstance(error, SyntaxError) and error.filename == str(path):
    return error.lineno
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == str(path)]
  return lines[-1] if lines else None


@contextlib.contextmanager
def _configs_importable(folder: Path) -> Iterator[None]:
  """While open, `configs` holds medtl's configs, and those of `folder` if that is its name."""
  before = _loaded()
  for name in before:
    del sys.modules[name]
  try:
    package = _package()
    own = [str(folder)] if folder.name == 'configs' else []
    package.__path__ = [*own, *getattr(package, '__path__', []), str(SHIPPED / 'configs')]
    yield
  finally:
    for name in _loaded():
      del sys.modules[name]
    sys.modules.update(before)


def _loaded() -> dict[str, types.ModuleType]:
  """Return what has been imported of `configs`."""
  own = [name for name in sys.modules if name == 'configs' or name.startswith('configs.')]
  return {name: sys.modules[name] for name in own}


def _package() -> types.ModuleType:
  """Return the package `configs` that Python finds, an empty one where it finds none."""
  try:
    return importlib.import_module('configs')
  except ModuleNotFoundError as error:
    if error.name != 'configs':
      raise
  package = types.ModuleType('configs')
  sys.modules['configs'] = package
  return package
