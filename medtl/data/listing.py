"""The files of a folder, or of a csv manifest: their labels, patients and the publisher's split, without a look into any file."""

import csv
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medtl.spec import nearest
from medtl.types import MedtlError

SIDES = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test',
         'testing': 'test'}
OCT2017 = r'^(?:.*/)?[A-Za-z]+-(\d+)-\d+(?!\d)'      # CLASS-PATIENT-NUMBER, the publisher's file names (Kermany 2018)


class Kind(NamedTuple):
  """The files that a source reads."""
  belongs: Callable[[Path], bool]
  words: str                               # plural, for messages


class Found(NamedTuple):
  """What file names and a manifest say."""
  folder: Path
  classes: tuple[str, ...]
  table: dict[str, np.ndarray]
  facts: dict[str, Any]


def find(root: str, kind: Kind, manifest: str, columns: Mapping[str, Any], classes: Sequence[str], pattern: str) -> Found:
  """Return the files of a kind below `root`, as `folder.load` describes them.

  `columns` has its keys that name a manifest's columns: file, label, patient, partition.
  """
  folder = Path(root).expanduser()
  if not root:
    raise MedtlError('no folder of pictures was named; set data.root=FOLDER (--config.data.root=FOLDER)')
  if not folder.is_dir():
    raise MedtlError(f'no folder {folder}; expected a folder of pictures')
  label = columns['label']
  if manifest:
    table, names = _manifest(folder / manifest, **columns)
  elif columns['patient'] or columns['partition'] or not isinstance(label, str):
    raise MedtlError('patient, partition and several labels are columns of a manifest, which is not given; '
                     'expected manifest="labels.csv" or, for patients, pattern="a regex with (a group)"')
  else:
    table, names = _walk(folder, label, kind)
  table = {'row': np.arange(len(names)), 'file': np.array(names)} | table
  known, table['y'] = _labels(table['y'], label, tuple(classes), names)
  table |= _patients(table, pattern)
  return Found(folder, known, table, dict(name=folder.name) | _hashes(folder, table))


def _walk(folder: Path, label: str, kind: Kind) -> tuple[dict[str, np.ndarray], list[str]]:
  """Return (table with y and perhaps split, names) from the folders' names; hidden files are passed over."""
  paths = sorted(path.relative_to(folder) for path in folder.rglob('*') if kind.belongs(path))
  paths = [path for path in paths if not any(part.startswith('.') for part in path.parts)]
  if not paths:
    raise MedtlError(f'{folder} holds no {kind.words}')
  names = [path.as_posix() for path in paths]
  parents = {parent for path in paths for parent in path.parents}
  empty = [path.relative_to(folder) for path in sorted(folder.rglob('*/')) if path.is_dir()]
  empty = [path for path in empty if label and path not in parents and not any(part.startswith('.') for part in path.parts)]
  if empty:
    raise MedtlError(f'{len(empty)} folders hold no {kind.words}, first {empty[0]}; expected none: fill or remove them')
  if not label:
    return {'y': np.full(len(names), '')}, names
  sided = [len(path.parts) > 2 and path.parts[0].lower() in SIDES for path in paths]
  if any(sided) and not all(sided):
    raise MedtlError(f'{folder} mixes the sides of a split with other folders (first: {names[sided.index(False)]}); '
                     'expected {train,val,test}/CLASS/… for all pictures, or a manifest')
  loose = [name for name, path in zip(names, paths, strict=True) if len(path.parts) < 2]
  if loose:
    raise MedtlError(f"{len(loose)} pictures lie in no class folder (first: {loose[0]}); expected {folder}/CLASS/…, a "
                     "manifest, or label='' for unlabelled pictures")
  table = {'y': np.array([path.parts[side] for path, side in zip(paths, sided, strict=True)])}
  if all(sided):
    table['split'] = np.array([SIDES[path.parts[0].lower()] for path in paths])
  return table, names


def _manifest(path: Path, file: str, label: str | Sequence[str], patient: str,
              partition: str) -> tuple[dict[str, np.ndarray], list[str]]:
  """Return (table with y and all other columns, names)."""
  if not path.is_file():
    raise MedtlError(f'no manifest {path}; expected a csv with a header line')
  try:
    with open(path, newline='', encoding='utf-8-sig') as lines:
      rows = list(csv.DictReader(lines))
  except UnicodeDecodeError as error:
    raise MedtlError(f'{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8') from None
  if not rows:
    raise MedtlError(f'{path} has no rows; expected a header line and a line for each picture')
  known = list(rows[0])
  labels = ([label] if label else []) if isinstance(label, str) else list(label)
  for name in (file, *labels, *filter(None, (patient, partition))):
    if name not in known:
      raise MedtlError(f'{path} has no column {name!r}; {nearest(name, known)}')
  cut = [number for number, row in enumerate(rows, 2) if None in row or None in row.values()]
  if cut:
    raise MedtlError(f'{path}, line {cut[0]}: another number of fields than the header has ({len(known)})')
  text = {name: np.array([row[name].strip() for row in rows]) for name in known}
  table = {'y': text[label] if isinstance(label, str) and label else np.stack([text[name] for name in labels], 1)
           if labels else np.full(len(rows), '')}
  if patient:
    table['patient'] = text[patient]
  if partition:
    table['split'] = np.array([SIDES.get(side.lower(), side) for side in text[partition]])
  for name in known:
    if name not in (file, *labels, patient, partition):
      if name in ('row', 'y', 'file', 'patient', 'split', 'content'):
        raise MedtlError(f'{path}: the column name {name!r} is reserved; rename it, or say what it is '
                         '(data.file, data.label, data.patient, data.partition)')
      table[name] = _numbers(text[name])
  return table, text[file].tolist()


def _numbers(column: np.ndarray) -> np.ndarray:
  """Return the column as float64 where every field is a number or empty (NaN), else the text."""
  try:
    return np.array([float(value) if value else np.nan for value in column]) if column.any() else column
  except ValueError:
    return column


def _labels(raw: np.ndarray, label: str | Sequence[str], classes: tuple[str, ...],
            names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
  """Return (class names, y): int32 [n], -1 where pictures are unlabelled, or float32 [n, k] for k label columns."""
  if not label:
    return classes, np.full(len(raw), -1, np.int32)
  if raw.ndim == 2:
    return _many(raw, tuple(label), classes, names)
  blank = [name for name, word in zip(names, raw, strict=True) if not word]
  if blank:
    raise MedtlError(f"{len(blank)} pictures have no label, first {blank[0]}; fill them in, or set data.label='' to predict")
  known = classes or tuple(sorted(set(raw.tolist()), key=lambda name: (int(name) if name.isdigit() else -1, name)))
  if len(known) < 2:
    raise MedtlError(f'found one class only ({known[0]!r}); expected a folder or label for each of two or more, '
                     'or data.classes=(…) where a class has no picture here')
  number = {name: index for index, name in enumerate(known)}
  strange = [index for index, name in enumerate(raw) if name not in number or not name]
  if strange:
    raise MedtlError(f'{len(strange)} labels outside the classes, first {str(raw[strange[0]])!r} of {names[strange[0]]}; '
                     f'{nearest(str(raw[strange[0]]), known)}')
  return known, np.array([number[name] for name in raw], np.int32)


def _many(raw: np.ndarray, labels: tuple[str, ...], classes: tuple[str, ...],
          names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
  if classes not in ((), labels):
    raise MedtlError(f'classes={classes} beside the label columns {labels}; expected none, the columns are the names')
  wrong = np.argwhere(~np.isin(raw, ['0', '1', '0.0', '1.0']))
  if len(wrong):
    row, column = wrong[0]
    raise MedtlError(f'{len(wrong)} labels are neither 0 nor 1, first {str(raw[row, column])!r} of {names[row]} '
                     f'in column {labels[column]!r}')
  return labels, raw.astype(np.float32)


def _patients(table: Mapping[str, np.ndarray], pattern: str) -> dict[str, np.ndarray]:
  """Return the patient column where file names tell it."""
  if pattern and 'patient' in table:
    raise MedtlError('both data.patient and data.pattern say who the patient is; expected one of them')
  try:
    group = re.compile(pattern or OCT2017)
  except re.error as error:
    raise MedtlError(f'data.pattern={pattern!r} is not a regex: {error}') from None
  if group.groups < 1:
    raise MedtlError(f"data.pattern={pattern!r} has no group; expected one around the patient, such as 'patient_([0-9]+)'")
  found = [group.search(name) for name in table['file']]
  if all(found):
    return {} if 'patient' in table else {'patient': np.array([match[1] for match in found if match])}
  if pattern:
    raise MedtlError(f'data.pattern={pattern!r} matches {sum(map(bool, found))} of {len(found)} files; '
                     f'the first without: {table["file"][found.index(None)]}')
  return {}


def _hashes(folder: Path, table: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Return {'hash': sha256 of names, labels and sizes; 'stamp': also of place and times, it tells a changed file}."""
  whole, stamp = hashlib.sha256(), hashlib.sha256(str(folder.resolve()).encode())
  for name, y in zip(table['file'], table['y'], strict=True):
    path = folder / name
    status = path.stat() if path.is_file() else None
    whole.update(f'{name}\t{y}\t{status.st_size if status else -1}\n'.encode())
    stamp.update(f'{name}\t{status.st_size if status else -1}\t{status.st_mtime_ns if status else -1}\n'.encode())
  return dict(hash=whole.hexdigest(), stamp=stamp.hexdigest())
