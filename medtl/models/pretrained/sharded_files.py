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


def files(path: Path) -> list[Path]:
  """Return the files that are one checkpoint: the parts that an index or a part's name announces.

  For any other file: the file. Raises MedtlError that names the parts which are not beside it.
  """
  if path.name.endswith(_INDEX):
    parts = sorted(set(index(path).values()))
    return _beside(path, parts, f'{path.name} is the index of {len(parts)} parts')
  match = _PART.fullmatch(path.name)
  if not match or not 1 <= int(match['number']) <= int(match['total']):
    return [path]
  stem, number, total, suffix = match.groups()
  width = len(number)
  parts = [f'{stem}-{place:0{width}d}-of-{total}{suffix}' for place in range(1, int(total) + 1)]
  return _beside(path, parts, f'{path.name} is part {int(number)} of {int(total)} of a checkpoint')


def names(path: Path) -> list[str]:
  """Return the names of the arrays that an index announces, none for another file."""
  return list(index(path)) if path.name.endswith(_INDEX) else []


def index(path: Path) -> dict[str, str]:
  """Return {name of an array: its file} of an index.json; a file's name has no folder."""
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
  found = [path.with_name(name) for name in names]
  missing = [file.name for file in found if not file.is_file()]
  if missing:
    more = f' and {len(missing) - 4} more' if len(missing) > 4 else ''
    some = ', '.join(missing[:4]) + more
    raise MedtlError(
      f'{what}, and {some} is not beside it; '
      f'put all parts into {path.parent}, from where this one came'
    )
  return found
