"""Lists the files of a manifest with their labels; what repeated rows mean, a key must say."""

import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medtl.core.types import MedtlError
from medtl.data.listing import labels, manifest, repeated_rows
from medtl.data.listing.records import Keys, Listed, side

Columns = dict[str, np.ndarray]
DECISIVE = {'patient': 'patient', 'split': 'partition'}  # column that decides the split: its key


def find(folder: Path, keys: Keys) -> Listed:
  """Return the files that a csv lists, and what is written beside them.

  Raises MedtlError where a column or file is missing, or where rows contradict each other.
  """
  csv = manifest.read(folder / keys.manifest)
  label = _label_columns(keys)
  patient = [keys.patient] if keys.patient else []
  partition = [keys.partition] if keys.partition else []
  csv.require('file', [keys.file])
  csv.require('label', label)
  csv.require('patient', patient)
  csv.require('partition', partition)
  _check_unnamed_columns(csv, [keys.file, *label, *patient, *partition])
  notes: list[str] = []
  columns = _filled(csv, keys, label, notes)
  names = _names(folder, csv, keys, notes)
  _check_swallowed_rows(folder, csv, keys)
  raw = _raw(csv, keys, label)
  table = _table(keys, label, columns)
  groups = repeated_rows.rows_by_file(names)
  for column, what in (('patient', 'patients'), ('split', 'sides')):
    if column in table:
      repeated_rows.check_equal(groups, table[column], what)
  if keys.repeated == 'box':
    if not repeated_rows.box_columns(columns):
      raise MedtlError(
        f"{csv.path} has no columns for data.repeated='box'; expected x, y, w, h (or width, "
        f'height), found {", ".join(columns)}'
      )
    notes.append(f'each of {len(names)} rows is a box, cut out of {len(groups)} files')
    boxes = repeated_rows.boxes(columns, names)
    return Listed(names, raw, table, notes, boxes)
  if keys.repeated == '':
    repeated_rows.check_meaning(groups, raw)
  return _once(Listed(names, raw, table, notes), groups, keys)


def _check_unnamed_columns(csv: manifest.Manifest, named: Sequence[str]) -> None:
  """Raise where a column is called like one that decides the split, and no key names it."""
  for name, key in DECISIVE.items():
    if name in csv.columns and name not in named:
      raise MedtlError(
        f'{csv.path} has a column {name!r}: is it what it is called? Then set '
        f"data.{key}='{name}'; else rename it"
      )


def _once(listed: Listed, groups: repeated_rows.Groups, keys: Keys) -> Listed:
  """Return each file once, with its first row's columns and the label that was asked for."""
  first = [rows[0] for rows in groups.values()]
  if len(first) == len(listed.names):
    return listed
  if keys.repeated == 'majority':
    raw = repeated_rows.majority(groups, listed.raw)
    chosen = 'the label of most of its rows'
  else:
    raw = listed.raw[first]
    chosen = 'the label of its first row'
  contradicting = len(repeated_rows.contradicting(groups, listed.raw))
  note = (
    f'{len(listed.names)} rows name {len(first)} files, {contradicting} with more than one label; '
    f'each counts once, with {chosen} and the other columns of its first row'
  )
  table = {name: column[first] for name, column in listed.table.items()}
  return Listed(list(groups), raw, table, [*listed.notes, note])


def _label_columns(keys: Keys) -> list[str]:
  """Return the names of the columns that hold labels."""
  if isinstance(keys.label, str):
    return [keys.label] if keys.label else []
  return list(keys.label)


def _raw(csv: manifest.Manifest, keys: Keys, label: Sequence[str]) -> np.ndarray:
  """Return the labels as text, [n], or [n, k] of several columns."""
  if not label:
    return np.full(len(csv.lines), '')
  if isinstance(keys.label, str):
    return csv.columns[keys.label]
  return np.stack([csv.columns[name] for name in label], axis=1)


def _filled(csv: manifest.Manifest, keys: Keys, label: Sequence[str], notes: list[str]) -> Columns:
  """Return the columns with '' for every word that means 'missing'; `notes` gain a sentence."""
  columns = {}
  taken = []
  for name, column in csv.columns.items():
    empty = labels.missing(column, keys.missing)
    columns[name] = np.where(empty, '', column)
    count = int((empty & (column != '')).sum())
    if count and name not in label:
      taken.append(f'{count} in {name}')
  if taken:
    notes.append(
      f'words that were taken for a missing value: {", ".join(taken)}; data.missing=() takes none'
    )
  return columns


def _table(keys: Keys, label: Sequence[str], columns: Columns) -> Columns:
  """Return the columns of a data set's table, under the names that it has for them."""
  table: Columns = {}
  if keys.patient:
    table['patient'] = columns[keys.patient]
  if keys.partition:
    table['split'] = np.array([side(name) or name for name in columns[keys.partition].tolist()])
  boxed = repeated_rows.box_columns(columns)
  for name, column in columns.items():
    if name in (keys.file, *label, keys.patient, keys.partition):
      continue
    if name in boxed:  # 'y' is a label elsewhere
      name = f'box_{name}'
    if name in manifest.RESERVED:  # a data set's own table has such a column
      name = f'{name}_'
    table[name] = labels.numbers(column, column == '')
  return table


def _names(folder: Path, csv: manifest.Manifest, keys: Keys, notes: list[str]) -> list[str]:
  """Return each row's file, as a path relative to the folder, in one spelling."""
  cells = csv.columns[keys.file]
  empty = np.flatnonzero(labels.missing(cells, ()))
  if len(empty):
    raise MedtlError(
      f'{csv.path}, line {csv.lines[empty[0]]}: column {keys.file!r} names no file '
      f'({len(empty)} such rows); fill them in, or leave these rows out'
    )
  for line, cell in zip(csv.lines, cells, strict=True):
    if '\n' in cell:
      raise MedtlError(
        f'{csv.path}, line {line}: the file name spans lines; was a quote not closed before?'
      )
  names = [cell + keys.suffix for cell in cells.tolist()]
  if any('\\' in name and not (folder / name).exists() for name in names):
    names = [name.replace('\\', '/') for name in names]
    notes.append(f'backslashes in {keys.manifest} were read as slashes')
  names = [_relative(folder, name) for name in names]
  folders = [row for row, name in enumerate(names) if (folder / name).is_dir()]
  if folders:
    raise MedtlError(
      f'{csv.path}, line {csv.lines[folders[0]]}: {names[folders[0]]} is a folder; expected a file'
    )
  if not any((folder / name).is_file() for name in names):
    raise MedtlError(
      f'none of the {len(set(names))} files that {keys.manifest} names is in {folder}, first '
      f'{names[0]}; {_advice(folder, names[0], keys.manifest)}'
    )
  return names


def _relative(folder: Path, name: str) -> str:
  """Return a path in one spelling: relative to the folder, if it lies in it."""
  path = posixpath.normpath(name)
  whole = folder.absolute().as_posix()
  return posixpath.relpath(path, whole) if path.startswith(f'{whole}/') else path


def _check_swallowed_rows(folder: Path, csv: manifest.Manifest, keys: Keys) -> None:
  """Raise where a text of several lines holds rows, because two quotes were forgotten."""
  place = list(csv.columns).index(keys.file)
  for name, column in csv.columns.items():
    for line, cell in zip(csv.lines, column.tolist(), strict=True):
      for inner in cell.split('\n')[1:]:
        fields = inner.split(',')
        if len(fields) <= place:
          continue
        file = fields[place].strip(' "') + keys.suffix
        if (folder / file).is_file():
          raise MedtlError(
            f'{csv.path}, line {line}: the text in column {name!r} goes on over the next lines '
            f'and holds what looks like a row ({inner[:60]}); close its quote'
          )


def _advice(folder: Path, name: str, manifest_name: str) -> str:
  """Return what to do about a missing file: it may have a suffix or lie in another folder."""
  path = folder / name
  longer = sorted(path.parent.glob(f'{_literal(path.name)}.*'))
  if longer:
    suffix = longer[0].name.removeprefix(path.name)
    relative = longer[0].relative_to(folder)
    return f"there is {relative}: set data.suffix='{suffix}', or write it into the column"
  elsewhere = sorted(folder.rglob(f'{_literal(path.name)}*'))
  if not elsewhere:
    return 'paths are relative to data.root'
  first = elsewhere[0]
  suffix = first.name.removeprefix(path.name)
  also = f" data.suffix='{suffix}'" if suffix else ''
  manifest_there = os.path.relpath(folder / manifest_name, first.parent)
  return (
    f'there is {first.relative_to(folder)}: write names relative to {folder}, or set '
    f"data.root='{first.parent}' data.manifest='{manifest_there}'{also}"
  )


def _literal(name: str) -> str:
  """Return a name as a pattern of pathlib's glob that matches that name alone."""
  return re.sub(r'([*?[])', r'[\1]', name)
