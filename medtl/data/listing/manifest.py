"""Reads a csv manifest as columns of text; a row that cannot be trusted is an error."""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError

RESERVED = ('row', 'y', 'file', 'patient', 'split', 'content')  # columns of a Dataset's own table
OTHER_DELIMITERS = {';': 'semicolons', '\t': 'tabs', '|': 'bars'}


class Manifest(NamedTuple):
  """The rows of a csv file."""

  path: Path
  columns: dict[str, np.ndarray]  # name → text [n], without blanks around it
  lines: np.ndarray  # [n], the line on which each row begins

  def require(self, key: str, names: Sequence[str]) -> None:
    """Raise a MedtlError unless there are columns of these names; data.`key` asks for them."""
    for name in names:
      if name not in self.columns:
        parts = tuple(part.strip() for part in name.split(','))
        several = f'; several are written as a tuple: data.{key}={parts}' if len(parts) > 1 else ''
        raise MedtlError(
          f'{self.path} has no column {name!r}, which is what data.{key} says; set it to the right '
          f'one: {did_you_mean(name, self.columns)}{several}'
        )


def read(path: Path) -> Manifest:
  """Return the rows of a csv in UTF-8 with a header line; blank lines are ignored.

  Raises MedtlError, with the line, for a quote that does not end where its field does, a row of
  another length than the header, and two columns of one name.
  """
  if not path.is_file():
    raise MedtlError(
      f'no manifest {path}; expected a csv with a header line, or none where folders name the '
      "classes: data.manifest='' (--config.data.manifest=)"
    )
  csv.field_size_limit(sys.maxsize)  # a run-length mask is longer than csv's 128 KB
  numbered = [(line, fields) for line, fields in _rows(path) if fields]
  if len(numbered) < 2:
    raise MedtlError(f'{path} has no rows; expected a header line and a line for each picture')
  _, names = numbered[0]
  header = _header(path, names)
  lines = []
  rows = []
  for line, fields in numbered[1:]:
    if len(fields) != len(header):
      raise MedtlError(
        f'{path}, line {line}: {len(fields)} fields, where the header has {len(header)}; '
        'mend the line (a text with commas needs quotes around it)'
      )
    lines.append(line)
    rows.append(fields)
  columns = {}
  for place, name in enumerate(header):
    columns[name] = np.array([fields[place].strip() for fields in rows])
  return Manifest(path, columns, np.array(lines))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
  """Yield (the line on which a row begins, its fields)."""
  begin = 1
  try:
    with open(path, newline='', encoding='utf-8-sig') as file:
      reader = csv.reader(file, strict=True)
      for row in reader:
        if any('\0' in field for field in row):
          raise MedtlError(
            f'{path}, line {begin}: a field holds a zero byte; was the file damaged, or is it no '
            'csv?'
          )
        yield begin, row
        begin = reader.line_num + 1
  except UnicodeDecodeError as error:
    raise MedtlError(
      f'{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8'
    ) from None
  except csv.Error as error:
    raise MedtlError(
      f'{path}, line {begin}: {error}. A quote opens a field that it does not close there; '
      'close it, or write a quote within a field twice'
    ) from None
  except OSError as error:
    raise MedtlError(f'cannot read {path}: {error.strerror}') from None


def _header(path: Path, fields: Sequence[str]) -> list[str]:
  """Return the columns' names; a nameless first one, the index of pandas, is called 'index'."""
  if fields[0].startswith('sep='):
    raise MedtlError(f'{path}: the first line, {fields[0]}, is an instruction for Excel; remove it')
  names = [field.strip() for field in fields]
  names[0] = names[0] or 'index'
  for sign, words in OTHER_DELIMITERS.items():
    if len(names) == 1 and sign in names[0]:
      raise MedtlError(
        f'{path} separates its columns by {words}; expected commas: save it again as csv (comma '
        'delimited)'
      )
  if '' in names:
    raise MedtlError(
      f'{path}: column {names.index("") + 1} has no name; write one into the first line, or remove '
      'the column'
    )
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise MedtlError(
      f'{path} has {names.count(twice[0])} columns called {twice[0]!r}; which one is meant? '
      'Rename or remove the others'
    )
  return names
