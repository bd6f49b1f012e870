"""Pictures in a folder: class folders, or a csv manifest; png, jpg, tiff, bmp, 8 and 16 bit → x [h, w, c] float32.

Nothing but file names, sizes and the manifest is read before `fetch`, which raises OSError for a file that cannot be read.
8 and 16 bit become 0 … 1 by their type's largest value; 32-bit TIFFs keep their numbers (then `window` or `rescale` them).
"""

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from medtl.spec import nearest
from medtl.types import Dataset, Example, MedtlError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp')
SIDES = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test',
         'testing': 'test'}
OCT2017 = r'^(?:.*/)?[A-Za-z]+-(\d+)-\d+(?!\d)'      # CLASS-PATIENT-NUMBER, the publisher's file names (Kermany 2018)
GREY = np.array([0.299, 0.587, 0.114], np.float32)   # luma of ITU-R BT.601
UPRIGHT, ORIENTATION = 1, 0x0112                     # EXIF


def load(root: str, *, manifest: str = '', file: str = 'file', label: str | Sequence[str] = 'label', patient: str = '',
         pattern: str = '', partition: str = '', classes: Sequence[str] = (), channels: int = 1, exif: str = 'stop',
         licence: str = '', citation: str = '') -> Dataset:
  """Return every picture below `root`.

  Without `manifest`: root/CLASS/… or root/{train,val,test}/CLASS/…; folders name the class and the publisher's split.
  With `manifest` (a csv; its path and column `file` are relative to root): column `label`, or several columns of 0 and 1
  (many labels, y [k] float); `patient` and `partition` (the publisher's split) are columns; all others go to the table.
  `label=''`: unlabelled pictures, y is -1, for `predict`. `classes` fixes names and order (default: sorted).
  Patients come from column `patient`, or from the first group of the regex `pattern` in the file's path, or from OCT2017's
  names CLASS-PATIENT-NUMBER where all files have them. `channels`: 1 (colour → BT.601 luma) or 3 (grey → three equal).
  A picture whose EXIF asks to be turned is never turned silently: it stops the run, or is turned with `exif='apply'`.
  """
  folder = Path(root).expanduser()
  if not root:
    raise MedtlError('no folder of pictures was named; set data.root=FOLDER (--config.data.root=FOLDER)')
  if not folder.is_dir():
    raise MedtlError(f'no folder {folder}; expected a folder of pictures')
  if channels not in (1, 3) or exif not in ('stop', 'apply'):
    raise MedtlError(f"folder: channels={channels}, exif={exif!r}; expected channels 1 or 3 and exif 'stop' or 'apply'")
  if manifest:
    table, names = _manifest(folder / manifest, file, label, patient, partition)
  elif patient or partition or not isinstance(label, str):
    raise MedtlError('folder: patient, partition and several labels are columns of a manifest, which is not given; '
                     'expected manifest="labels.csv" or, for patients, pattern="a regex with (a group)"')
  else:
    table, names = _walk(folder, label)
  table = {'row': np.arange(len(names)), 'file': np.array(names)} | table
  known, table['y'] = _labels(table['y'], label, tuple(classes), names)
  table |= _patients(table, pattern)
  facts = dict(name=folder.name, licence=licence, citation=citation) | _hashes(folder, table)

  def fetch(index: int) -> Example:
    return Example(read(folder / names[index], channels, exif), table['y'][index], index)

  return Dataset(fetch, len(names), known, table, facts)


def read(path: Path, channels: int, exif: str) -> np.ndarray:
  """Return the picture [h, w, channels] float32; OSError where it cannot be decoded."""
  try:
    with Image.open(path) as image:
      if image.format == 'TIFF' and getattr(image, 'n_frames', 1) > 1:
        raise MedtlError(f'{path} holds {image.n_frames} pages; expected one picture a file')  # type: ignore[attr-defined]
      turn = image.getexif().get(ORIENTATION, UPRIGHT)
      if turn != UPRIGHT and exif == 'stop':
        raise MedtlError(f"{path} is stored turned (EXIF orientation {turn}); set data.exif='apply' to turn such files "
                         'upright, or store them upright: who drew masks or read them elsewhere may have seen either')
      return _channels(_values(ImageOps.exif_transpose(image)), channels)
  except (SyntaxError, TypeError, ValueError, EOFError, Image.DecompressionBombError) as error:   # Pillow, on broken files
    raise OSError(f'cannot decode {path}: {error}') from error


def _values(image: Image.Image) -> np.ndarray:
  """Return [h, w] or [h, w, 3]; transparency is dropped, palettes are looked up."""
  if image.mode in ('I', 'F'):
    return np.asarray(image, np.float32)
  if image.mode.startswith('I;16'):
    return np.asarray(image).astype(np.float32) / np.float32(65535)
  image = image.convert('L' if image.mode in ('1', 'L', 'LA') else 'RGB')
  return np.asarray(image, np.float32) / np.float32(255)


def _channels(x: np.ndarray, channels: int) -> np.ndarray:
  if x.ndim == 3 and channels == 1:
    x = x @ GREY
  return x if x.ndim == 3 else np.repeat(x[..., None], channels, axis=2)


def _walk(folder: Path, label: str) -> tuple[dict[str, np.ndarray], list[str]]:
  """Return (table with y and perhaps split, names) from the folders' names; hidden files are passed over."""
  paths = sorted(path.relative_to(folder) for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
  paths = [path for path in paths if not any(part.startswith('.') for part in path.parts)]
  if not paths:
    raise MedtlError(f'{folder} holds no pictures ({", ".join(SUFFIXES)})')
  names = [path.as_posix() for path in paths]
  parents = {parent for path in paths for parent in path.parents}
  empty = [path.relative_to(folder) for path in sorted(folder.rglob('*/')) if path.is_dir()]
  empty = [path for path in empty if label and path not in parents and not any(part.startswith('.') for part in path.parts)]
  if empty:
    raise MedtlError(f'{len(empty)} folders hold no pictures ({", ".join(SUFFIXES)}), first {empty[0]}; expected none: fill or remove them')
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
