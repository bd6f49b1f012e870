"""Rows of a csv file → vectors x [c] float32: numbers, and words as columns of 0 and 1.

A missing number is NaN in x, which `models.Net` replaces by the mean of the training side: the
source sees all sides, and a mean taken here would leak from one to another. A column of 0 and 1
beside it says where a number was missing (the missing-indicator method). Imputing the mean is
consistent where missing values are not informative (Josse et al. 2019, arXiv 1902.06931); that
column is for where they are. That a test was not made tells of the patient, but also of the site.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medtl.core.types import Dataset, Example, MedtlError
from medtl.data.listing import labels, manifest
from medtl.data.listing.labels import MISSING
from medtl.data.listing.records import side

ROW = 'row'  # as data.patient: each row is a patient of its own
EXACT_DIGITS = 15  # of a whole number, which float64 holds whatever they are
Columns = Mapping[str, np.ndarray]


class Channel(NamedTuple):
  """One number of x."""

  name: str  # 'age', 'thal=7', 'age missing'
  values: np.ndarray  # [n]
  is_flag: bool  # 0 or 1, for no or yes


def load(
  root: str,
  *,
  label: str | Sequence[str] = 'label',
  features: Sequence[str] = (),
  categories: Sequence[str] = (),
  columns: Sequence[str] = (),
  patient: str = '',
  partition: str = '',
  classes: Sequence[str | int | float] = (),
  above: float | None = None,
  missing: Sequence[str] = MISSING,
  zero_is_missing: Sequence[str] = (),
  licence: str = '',
  citation: str = '',
) -> Dataset:
  """Return the rows of a csv, or of the one csv in a folder.

  `features` are columns of numbers; () takes all that are nothing else. `categories` are columns of
  words or codes, each of which becomes a column of 0 and 1 a value, all 0 where it is missing.
  Codes are compared digit by digit, however long they are; 7 and 7.0 are one value.
  `label`, `classes`, `patient` and `partition` are as in `folder.load`; `patient='row'`: each row
  is a patient. With `above` the label is whether a number is larger than that.
  `missing`: words that stand for no value, as an empty field does; in the columns
  `zero_is_missing` a 0 does, too.
  `columns`: the names of all numbers of x, in order, as facts['columns'] of other data gave them:
  x becomes what a net for those data expects. Values that they lack are unknown to it (all 0).

  All columns of the csv go to the table, those of numbers as float64 unless they hold codes that
  are too long for it. facts['flags'] are the numbers of x that are 0 or 1.

  Raises MedtlError for a column that is not there, holds words, or has two meanings, and for two
  numbers of x with one name.
  """
  path = _path(root)
  csv = manifest.read(path)
  label_columns = _label_columns(label)
  patient_columns = [patient] if patient and not _is_row(patient, csv) else []
  partition_columns = [partition] if partition else []
  csv.require('label', label_columns)
  csv.require('patient', patient_columns)
  csv.require('partition', partition_columns)
  csv.require('features', features)
  csv.require('categories', categories)
  csv.require('zero_is_missing', zero_is_missing)
  other = [*label_columns, *patient_columns, *partition_columns]
  cells = _filled(csv, missing, zero_is_missing)
  numbers = {name: labels.numbers(column, column == '') for name, column in cells.items()}
  names = [f'{path.name}:{line}' for line in csv.lines]
  notes: list[str] = []
  wanted = tuple(features)
  if not wanted and columns:
    wanted = tuple(name for name in columns if name in numbers)
  elif not wanted:
    wanted = _numeric(numbers, [*other, *categories], notes)
  _check_meanings(wanted, categories, other)
  _check_numeric(wanted, numbers, names)
  channels = list(_channels(cells, numbers, wanted, categories))
  _check_names([channel.name for channel in channels], path)
  if columns:
    _check_known(columns)
    channels = _as_known(channels, columns, notes)
  if not channels:
    raise MedtlError(
      f'{path} has no column of numbers for x; set data.categories to columns of words, which then '
      'become numbers'
    )
  x = np.stack([channel.values for channel in channels], axis=1).astype(np.float32)
  class_names, y, order = _labels(csv, numbers, label, classes, above, names, missing)
  table = {'row': np.arange(len(names)), 'file': np.array(names), 'y': y}
  if patient:
    table['patient'] = cells[patient] if patient_columns else _row_names(path, csv)
  if partition:
    table['split'] = np.array([side(name) or name for name in cells[partition].tolist()])
  for name, column in numbers.items():
    if name not in other:
      shown = cells[name] if _is_long_code(cells[name]) else column
      table[f'{name}_' if name in manifest.RESERVED else name] = shown
  channel_names = [channel.name for channel in channels]
  notes += [*_missing_notes(cells, [*wanted, *categories]), *_equal_rows(csv, names)]
  facts: dict[str, Any] = {'name': path.stem, 'order': order, 'notes': notes}
  facts['columns'] = channel_names
  facts['features'] = [*wanted, *categories]
  facts['flags'] = [number for number, channel in enumerate(channels) if channel.is_flag]
  facts |= {'licence': licence, 'citation': citation}

  def fetch(index: int) -> Example:
    return Example(x[index], table['y'][index], int(index))

  fingerprint = _fingerprint(path, channel_names, x, table)
  return Dataset(fetch, len(y), class_names, table, facts, fingerprint)


def _path(root: str) -> Path:
  """Return the csv that `root` is, or the only one in the folder that it is."""
  if not root:
    raise MedtlError('no table was named; set data.root=FILE.csv (--config.data.root=FILE.csv)')
  path = Path(root).expanduser()
  if not path.is_dir():
    return path
  there = sorted(path.glob('*.csv'))
  if len(there) != 1:
    shown = ', '.join(file.name for file in there) or 'none'
    raise MedtlError(f'{path} holds {len(there)} csv files ({shown}); set data.root to one of them')
  return there[0]


def _label_columns(label: str | Sequence[str]) -> list[str]:
  if isinstance(label, str):
    return [label] if label else []
  return list(label)


def _is_row(patient: str, csv: manifest.Manifest) -> bool:
  """Return whether each row is a patient of its own."""
  return patient == ROW and ROW not in csv.columns


def _row_names(path: Path, csv: manifest.Manifest) -> np.ndarray:
  """Return a name for the patient of each row, another one in another folder's file."""
  return np.array([f'{path.resolve().parent.name}/{path.name}:{line}' for line in csv.lines])


def _filled(
  csv: manifest.Manifest, missing: Sequence[str], zero_is_missing: Sequence[str]
) -> dict[str, np.ndarray]:
  """Return the columns with '' for every missing value."""
  cells = {}
  for name, column in csv.columns.items():
    empty = labels.missing(column, missing)
    if name in zero_is_missing:
      empty |= labels.numbers(column, empty) == 0
    cells[name] = np.where(empty, '', column)
  return cells


def _numeric(numbers: Columns, other: Sequence[str], notes: list[str]) -> tuple[str, ...]:
  """Return all columns of numbers that are nothing else; `notes` tell of columns of words."""
  free = [name for name in numbers if name not in other]
  numeric = tuple(name for name in free if numbers[name].dtype.kind == 'f')
  words = [name for name in free if name not in numeric]
  notes.append(
    f'the net sees every column of numbers ({", ".join(numeric)}); data.features chooses'
  )
  if words:
    notes.append(
      f'columns of words, which the net does not see: {", ".join(words)}; data.categories takes '
      'them'
    )
  return numeric


def _check_meanings(
  features: Sequence[str], categories: Sequence[str], other: Sequence[str]
) -> None:
  """Raise where a column has two meanings."""
  named = [*features, *categories, *other]
  twice = [name for name in named if named.count(name) > 1]
  if twice:
    raise MedtlError(
      f'column {twice[0]!r} is named twice; expected it in one of data.features, data.categories, '
      'data.label, data.patient and data.partition: a label among the features would be the answer'
    )


def _check_numeric(features: Sequence[str], numbers: Columns, names: Sequence[str]) -> None:
  """Raise for a feature that holds words."""
  for name in features:
    column = numbers[name]
    if column.dtype.kind == 'f' or (column == '').all():
      continue
    is_word = [bool(value) and not labels.NUMBER.fullmatch(value) for value in column.tolist()]
    first = is_word.index(True)
    raise MedtlError(
      f'column {name!r} holds {str(column[first])!r} ({names[first]}), which is no number; '
      'expected numbers, or its name in data.categories, or the word in data.missing'
    )


def _channels(
  cells: Columns, numbers: Columns, features: Sequence[str], categories: Sequence[str]
) -> Iterator[Channel]:
  """Yield the numbers of x: features, then values of categories, then what is missing of both."""
  for name in features:
    column = numbers[name]
    if column.dtype.kind != 'f':  # every value is missing
      column = np.full(len(column), np.nan)
    yield Channel(name, column, False)
  for name in categories:
    is_numeric = numbers[name].dtype.kind == 'f'
    values = _exact(cells[name]) if is_numeric else cells[name]
    levels = sorted(set(values.tolist()) - {''}, key=Decimal if is_numeric else None)
    for level in levels:
      yield Channel(f'{name}={level}', values == level, True)
  for name in (*features, *categories):
    is_missing = _is_missing(numbers[name])
    if is_missing.any():
      yield Channel(f'{name} missing', is_missing, True)


def _exact(column: np.ndarray) -> np.ndarray:
  """Return numbers, '' for none, as text with all their digits: '7.0' and '+7' become '7'.

  A float would not do: it holds EXACT_DIGITS, and codes of SNOMED CT have up to 18.
  """
  text_of = {value: _digits(value) if value else '' for value in set(column.tolist())}
  return np.array([text_of[value] for value in column.tolist()])


def _is_long_code(column: np.ndarray) -> bool:
  """Return whether a column holds whole numbers that float64 may take for one another."""
  return any(value.isdigit() and len(value) > EXACT_DIGITS for value in column.tolist())


def _digits(number: str) -> str:
  """Return a number as text with all its digits, without an exponent and without needless 0."""
  if not Decimal(number):
    return '0'
  whole, _, decimals = f'{Decimal(number):f}'.partition('.')
  decimals = decimals.rstrip('0')
  return f'{whole}.{decimals}' if decimals else whole


def _check_names(names: Sequence[str], path: Path) -> None:
  """Raise where two numbers of x have one name."""
  twice = [name for name in names if names.count(name) > 1]
  if twice:
    raise MedtlError(
      f'{path}: two numbers of x would be called {twice[0]!r}, so that one would be taken for the '
      'other; rename a column'
    )


def _check_known(columns: Sequence[str]) -> None:
  """Raise where the columns of a net have one name twice."""
  twice = [name for name in columns if columns.count(name) > 1]
  if twice:
    raise MedtlError(
      f'the net was trained with two columns called {twice[0]!r}: an older version of medtl '
      'shortened long codes to six digits, and which column is which cannot be told; train again'
    )


def _is_missing(column: np.ndarray) -> np.ndarray:
  return np.isnan(column) if column.dtype.kind == 'f' else column == ''


def _as_known(
  channels: Sequence[Channel], columns: Sequence[str], notes: list[str]
) -> list[Channel]:
  """Return the channels that `columns` names, in that order; `notes` tell of the others."""
  channel_of: dict[str, Channel] = {}
  for channel in channels:
    name = _known_name(channel.name, columns)
    if name in channel_of:
      raise MedtlError(
        f'the net knows a column {name!r}, which may be {channel_of[name].name!r} or '
        f'{channel.name!r}: an older version of medtl shortened long codes to six digits; train '
        'again'
      )
    if name != channel.name:
      notes.append(f'the column {name} of an older run is taken for {channel.name}')
    channel_of[name] = channel
  unknown = []
  for name, channel in channel_of.items():
    if name not in columns:
      rows = f' ({int(channel.values.sum())} rows)' if channel.is_flag else ''
      unknown.append(f'{name}{rows}')
  if unknown:
    notes.append(f'values that the net was not trained with: {", ".join(unknown)}')
  none = np.zeros(len(channels[0].values), bool)
  known = []
  for name in columns:
    is_value = '=' in name or name.endswith(' missing')
    if name not in channel_of and not is_value:
      raise MedtlError(
        f'the net expects the number {name!r} of each row; name a column so, and list it in '
        'data.features'
      )
    known.append(channel_of.get(name, Channel(name, none, True)))
  return known


def _known_name(name: str, columns: Sequence[str]) -> str:
  """Return the name of a channel as `columns` has it, `name` where they do not.

  Older runs wrote codes with six digits: 'sex=3.86661e+08' for 386661006.
  """
  column, _, value = name.rpartition('=')
  if name in columns or not column or not labels.NUMBER.fullmatch(value):
    return name
  short = f'{float(value):g}'
  older = f'{column}={short}'
  return older if 'e' in short and older in columns else name


def _labels(
  csv: manifest.Manifest,
  numbers: Columns,
  label: str | Sequence[str],
  classes: Sequence[str | int | float],
  above: float | None,
  names: Sequence[str],
  missing: Sequence[str],
) -> labels.Labels:
  """Return classes, their number for each row, and how their order was found."""
  if not label:
    raw = np.full(len(names), '')
  elif isinstance(label, str):
    raw = csv.columns[label]
  else:
    raw = np.stack([csv.columns[name] for name in label], axis=1)
  if above is not None:
    classes = tuple(classes) or (f'{label} up to {above:g}', f'{label} above {above:g}')
    raw = _above(raw, numbers, label, above, classes)
  return labels.find(raw, label, classes, names, missing)


def _above(
  raw: np.ndarray,
  numbers: Columns,
  label: str | Sequence[str],
  above: float,
  classes: Sequence[str | int | float],
) -> np.ndarray:
  """Return the name of a class for each number, '' where it is missing."""
  if not isinstance(label, str) or not label or numbers[label].dtype.kind != 'f':
    raise MedtlError(
      f'data.above={above:g} compares the label with a number, but data.label={label!r} is no '
      'column of numbers; leave data.above out'
    )
  if len(classes) != 2:
    raise MedtlError(
      f'data.above={above:g} makes two classes, found data.classes={tuple(classes)}; expected the '
      'name of the lower one, then of the upper one'
    )
  lower, upper = map(str, classes)
  value = numbers[label]
  return np.where(np.isnan(value), '', np.where(value > above, upper, lower))


def _missing_notes(cells: Columns, names: Sequence[str]) -> list[str]:
  """Return a sentence on the missing values of features, '' counts as one."""
  counts = {name: int((cells[name] == '').sum()) for name in names}
  each = [f'{count} in {name}' for name, count in counts.items() if count]
  if not each:
    return []
  return [
    f'missing values: {", ".join(each)}; in the place of a missing number the net sees the mean of '
    'the training side, and beside it that it is missing'
  ]


def _equal_rows(csv: manifest.Manifest, names: Sequence[str]) -> list[str]:
  """Return a sentence on rows that are equal in every column, labels included."""
  first: dict[tuple[str, ...], int] = {}
  twice = []
  for row, values in enumerate(zip(*csv.columns.values(), strict=True)):
    before = first.setdefault(values, row)
    if before != row:
      twice.append(f'{names[before]} = {names[row]}')
  if not twice:
    return []
  return [
    f'{len(twice)} rows are equal to another one in every column, first {twice[0]}: the same '
    'patient twice? Then give them one name (data.patient), or remove one'
  ]


def _fingerprint(path: Path, columns: Sequence[str], x: np.ndarray, table: Columns) -> str:
  """Return a sha256 of the file's place, x and the table."""
  digest = hashlib.sha256(f'{path.resolve()}\t{columns}\n'.encode('utf-8', 'surrogateescape'))
  digest.update(np.ascontiguousarray(x).tobytes())
  for name, column in sorted(table.items()):
    digest.update(f'{name}\t{column.tolist()}\n'.encode('utf-8', 'surrogateescape'))
  return digest.hexdigest()
