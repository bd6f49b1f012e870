"""Checkpoints in several files, as Hugging Face writes them.

model-00001-of-00002.safetensors, model-00002-of-00002.safetensors, model.safetensors.index.json
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from medtl.core.types import MedtlError

_PART = re.compile(r'(?P<stem>.+)-(?P<number>\d{1,5})-of-(?P<total>\d{1,5})(?P<suffix>\.\w+)')
_INDEX = '.index.json'
_NO_INDEX = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_LONGEST = 255  # bytes of a file's name
_NAMED = 4  # of the files that are not there, so many are named


def files(path: Path) -> list[Path]:
  """Return the files of one checkpoint: the parts that an index or a part's name announces.

  Any other file is a checkpoint by itself. Raises a MedtlError that names the parts which are not
  beside it.
  """
  if path.name.endswith(_INDEX):
    parts = sorted(set(index(path).values()))
    return _beside(path, parts, f'{path.name} is the index of {len(parts)} parts')
  match = _PART.fullmatch(path.name)
  if not match or not 1 <= int(match['number']) <= int(match['total']):
    return [path]
  stem, number, total, suffix = match.groups()
  parts = []
  for place in range(1, int(total) + 1):
    digits = str(place).zfill(len(number))
    parts.append(f'{stem}-{digits}-of-{total}{suffix}')
  what = f'{path.name} is part {int(number)} of {int(total)} of a checkpoint'
  return _beside(path, parts, what)


def names(path: Path) -> list[str]:
  """Return the names of the arrays that an index announces; no names for another file."""
  return list(index(path)) if path.name.endswith(_INDEX) else []


def index(path: Path) -> dict[str, str]:
  """Return {name of an array: its file} of an index.json; a MedtlError where it is none.

  The files lie beside the index: their names have no folder.
  """
  try:
    table = json.loads(path.read_bytes())['weight_map']
    plain = all(_is_file_name(name) for name in table.values())
  except OSError as error:
    raise MedtlError(f'cannot read {path}: {error.strerror}') from None
  except _NO_INDEX:
    raise MedtlError(
      f'{path} is no index of a checkpoint; expected {{"weight_map": {{name: file}}}}; get it again'
    ) from None
  if not plain or not table:
    raise MedtlError(f'{path} is no index of a checkpoint: its weight_map names no files beside it')
  return table


def _is_file_name(name: str) -> bool:
  """Return whether a text can be the name of a file, without a folder."""
  if not name or not name.isprintable() or len(name.encode()) > _LONGEST:
    return False
  return Path(name).name == name


def _beside(path: Path, names: Sequence[str], what: str) -> list[Path]:
  """Return the files of these names beside a path; a MedtlError where one is missing.

  `what` is what the path is, in words that begin the message.
  """
  files = [path.with_name(name) for name in names]
  missing = [file.name for file in files if not file.is_file()]
  if missing:
    some = ', '.join(missing[:_NAMED])
    if len(missing) > _NAMED:
      some += f' and {len(missing) - _NAMED} more'
    raise MedtlError(
      f'{what}, and {some} is not beside it; '
      f'put all parts into {path.parent}, from where this one came'
    )
  return files
