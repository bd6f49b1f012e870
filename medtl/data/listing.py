"""The files of a folder, or of a csv manifest: labels, patients and sides, without any pixel.

What is guessed or passed over on the way is told in `facts['notes']`, a sentence each.
"""

import hashlib
import posixpath
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from medtl.data import labels, manifest, patients, repeated
from medtl.data.walk import walk
from medtl.spec import nearest
from medtl.types import MedtlError

SIDES = {
  'train': 'train',
  'training': 'train',
  'val': 'val',
  'valid': 'val',
  'validation': 'val',
  'test': 'test',
  'testing': 'test',
}
# x_mask.png beside x.png is a drawing of where the lesion lies, no picture of its own (BUSI; ISIC,
# Kvasir-SEG name alike).
MASK = re.compile(
  r'(.+)[_-](mask|segmentation|seg|annotation|groundtruth|gt)([_-]?\d+)?', re.IGNORECASE
)
MASK_FOLDERS = (
  'mask',
  'masks',
  'segmentation',
  'segmentations',
  'annotation',
  'annotations',
  'groundtruth',
  'gt',
)
PICTURE_FOLDERS = ('image', 'images', 'img', 'imgs', 'picture', 'pictures', 'scan', 'scans')
SHOWN = 3  # names in a sentence


class Kind(NamedTuple):
  """The files that a source reads."""

  belongs: Callable[[Path], bool]
  words: str  # plural, for messages


class Keys(NamedTuple):
  """What a config says of the files, as `folder.load` describes it."""

  manifest: str
  file: str
  label: str | Sequence[str]
  patient: str
  partition: str
  pattern: str
  classes: Sequence[str | int | float]
  missing: Sequence[str]
  repeated: str
  masks: str
  suffix: str


class Found(NamedTuple):
  """What file names and a manifest say."""

  folder: Path
  classes: tuple[str, ...]
  table: dict[str, np.ndarray]
  facts: dict[str, Any]  # name, order (of the classes), notes
  fingerprint: str  # tells a changed file, label or key
  boxes: np.ndarray | None  # [n, 4] of left, top, right, bottom, where a row is a box

  def cut(self, x: np.ndarray, index: int) -> np.ndarray:
    """Return the part of a file's picture x [h, w, c] that a row means: all of it, or its box."""
    return (
      x if self.boxes is None else repeated.cut(x, self.boxes[index], self.table['file'][index])
    )


class _Listed(NamedTuple):
  """Files and what is written beside them, still as text."""

  names: list[str]
  raw: np.ndarray  # labels [n] or [n, k]
  table: dict[str, np.ndarray]  # split, patient and all other columns
  notes: list[str]
  boxes: np.ndarray | None = None


def find(root: str, kind: Kind, keys: Keys, guess: bool = True) -> Found:
  """Return the files of a kind below `root`, or `root` itself where no labels are asked for.

  `guess`: patients may be guessed from the files' names where nothing else tells them; not where a
  file's own header does.
  """
  _check_keys(keys)
  folder = Path(root).expanduser()
  if not root:
    raise MedtlError(
      'no folder of pictures was named; set data.root=FOLDER (--config.data.root=FOLDER)'
    )
  if folder.is_file() and not (keys.label or keys.manifest):
    listed = _Listed([folder.name], np.array(['']), {}, [])
    folder = folder.parent
  elif not folder.is_dir():
    raise MedtlError(
      f'no folder {folder}; expected a folder of pictures'
      + (', and this is a file' if folder.is_file() else '')
    )
  elif keys.manifest:
    listed = _from_manifest(folder, keys)
  else:
    listed = _from_folders(folder, kind, keys)
  where = f' (in {keys.manifest})' if keys.manifest else ''
  shown = [f'{name}{where}' for name in listed.names]
  found = labels.find(listed.raw, keys.label, keys.classes, shown, keys.missing)
  table = {
    'row': np.arange(len(listed.names)),
    'file': np.array(listed.names),
    'y': found.y,
    **listed.table,
  }
  notes = list(listed.notes)
  _patients(table, keys, notes, guess, boxes=listed.boxes is not None)
  return Found(
    folder,
    found.classes,
    table,
    dict(name=folder.name, order=found.order, notes=notes),
    fingerprint(folder, table),
    listed.boxes,
  )


def fingerprint(folder: Path, table: dict[str, np.ndarray]) -> str:
  """Return a sha256 of a folder's place, the table, and each file's size, times and inode."""
  digest = hashlib.sha256(str(folder.resolve()).encode())
  for name, column in sorted(table.items()):
    digest.update(f'{name}\t{column.tolist()}\n'.encode())
  for name in table['file']:
    path = folder / name
    status = path.stat() if path.is_file() else None
    state = (
      (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino) if status else None
    )
    digest.update(f'{name}\t{state}\n'.encode())
  return digest.hexdigest()


def _check_keys(keys: Keys) -> None:
  """Raise where keys contradict each other or are no words that are known."""
  if keys.repeated not in repeated.MEANINGS:
    raise MedtlError(
      f'data.repeated={keys.repeated!r}; {nearest(keys.repeated, map(repr, repeated.MEANINGS))}'
    )
  if keys.masks not in ('leave_out', 'keep'):
    raise MedtlError(
      f"data.masks={keys.masks!r}; expected 'leave_out' (x_mask.png beside x.png is no picture) or "
      "'keep'"
    )
  if keys.manifest:
    return
  given = [name for name in ('patient', 'partition', 'repeated', 'suffix') if getattr(keys, name)]
  if given or not isinstance(keys.label, str):
    raise MedtlError(
      f'{" and ".join(given) or "several labels"} are of a manifest, which is not given; expected '
      'data.manifest="labels.csv" or, for patients, data.pattern="a regex with (a group)"'
    )


def _from_folders(folder: Path, kind: Kind, keys: Keys) -> _Listed:
  """Return the files below a folder; folders name the class and perhaps the publisher's side."""
  walked = walk(folder, kind.belongs)
  notes = [f'passed over: {walked.passed_over}'] if walked.passed_over else []
  if not walked.files:
    raise MedtlError(f'{folder} holds no {kind.words}' + (f'; {notes[0]}' if notes else ''))
  files = walked.files if keys.masks == 'keep' else _without_masks(walked.files, notes)
  names = [path.as_posix() for path in files]
  if not keys.label:
    return _Listed(names, np.full(len(names), ''), {}, notes)
  _stop_empty(walked.files, walked.folders, kind)
  sided = [len(path.parts) > 2 and path.parts[0].lower() in SIDES for path in files]
  if any(sided) and not all(sided):
    raise MedtlError(
      f'{folder} mixes the sides of a split with other folders (first: '
      f'{names[sided.index(False)]}); '
      'expected {train,val,test}/CLASS/… for all pictures, or a manifest'
    )
  loose = [name for name, path in zip(names, files, strict=True) if len(path.parts) < 2]
  if loose:
    raise MedtlError(
      f'{len(loose)} pictures lie in no class folder (first: {loose[0]}); expected '
      f'{folder}/CLASS/…, a '
      "manifest, or label='' for unlabelled pictures"
    )
  raw = np.array([path.parts[1 if all(sided) else 0] for path in files])
  _stop_no_classes(folder, set(raw.tolist()))
  table = (
    {'split': np.array([SIDES[path.parts[0].lower()] for path in files])} if all(sided) else {}
  )
  return _Listed(names, raw, table, notes)


def _without_masks(files: Sequence[PurePosixPath], notes: list[str]) -> list[PurePosixPath]:
  """Return the files without those that are called a mask of another; `notes` gain a sentence."""
  beside = {path.with_suffix('') for path in files}
  masks = []
  for path in files:
    match = MASK.fullmatch(path.stem)
    if match and path.with_name(match[1]) in beside:
      masks.append(path)
  if masks:
    notes.append(
      f'left out: {len(masks)} files that are called a mask of the picture beside them, first '
      f'{masks[0]}; '
      "data.masks='keep' reads them as pictures"
    )
  left_out = set(masks)
  return [path for path in files if path not in left_out]


def _stop_empty(
  files: Sequence[PurePosixPath], folders: Sequence[PurePosixPath], kind: Kind
) -> None:
  """Raise where a folder holds none of the files: a class would be lost."""
  full = {parent for path in files for parent in path.parents}
  empty = [path for path in folders if path not in full]
  if empty:
    raise MedtlError(
      f'{len(empty)} folders hold no {kind.words}, first {empty[0]}; expected none: fill or remove '
      'them'
    )


def _stop_no_classes(folder: Path, names: set[str]) -> None:
  """Raise where folders are called so that they can be no classes."""
  lower = {name.lower() for name in names}
  if lower <= set(SIDES):
    raise MedtlError(
      f'the folders in {folder} are called {", ".join(sorted(names))}: sides of a split, no '
      'classes; '
      'expected {train,val,test}/CLASS/…, or a manifest'
    )
  if lower & set(MASK_FOLDERS) and lower <= {*MASK_FOLDERS, *PICTURE_FOLDERS}:
    raise MedtlError(
      f'the folders in {folder} are called {", ".join(sorted(names))}: pictures and their masks, '
      'no classes; '
      'expected a folder for each class, or a manifest'
    )


def _from_manifest(folder: Path, keys: Keys) -> _Listed:
  """Return the files that a csv lists, and what is written beside them."""
  found = manifest.read(folder / keys.manifest)
  label = _label_columns(keys)
  given = [name for name in (keys.patient, keys.partition) if name]
  found.require([keys.file, *label, *given])
  notes: list[str] = []
  columns = _filled(found, keys, label, notes)
  raw = (
    np.stack([found.columns[name] for name in label], 1) if label else np.full(len(found.lines), '')
  )
  raw = raw[:, 0] if isinstance(keys.label, str) and label else raw
  names = _names(folder, found, keys, notes)
  table = _table(found, keys, label, columns)
  groups = repeated.groups(names)
  if keys.repeated == '':
    repeated.ask(groups, raw)
  for column, what in (('patient', 'patients'), ('split', 'sides')):
    if column in table:
      repeated.agree(groups, table[column], what)
  if keys.repeated == 'box':
    found.require(repeated.BOX, " for data.repeated='box'")
    notes.append(f'each of {len(names)} rows is a box, cut out of {len(groups)} files')
    return _Listed(names, raw, table, notes, repeated.boxes(columns, names))
  first = [rows[0] for rows in groups.values()]
  if len(first) < len(names):
    notes.append(
      f'{len(names)} rows name {len(first)} files; each counts once, with '
      + (
        'the label of its first row'
        if keys.repeated == 'first'
        else 'the label of most of its rows'
      )
      + ' and the other columns of its first row'
    )
  raw = repeated.majority(groups, raw) if keys.repeated == 'majority' else raw[first]
  return _Listed(
    [names[row] for row in first],
    raw,
    {name: column[first] for name, column in table.items()},
    notes,
  )


def _label_columns(keys: Keys) -> list[str]:
  """Return the names of the columns that hold labels."""
  if isinstance(keys.label, str):
    return [keys.label] if keys.label else []
  return list(keys.label)


def _filled(
  found: manifest.Manifest, keys: Keys, label: Sequence[str], notes: list[str]
) -> dict[str, np.ndarray]:
  """Return the columns with '' for every word that means 'missing'; `notes` gain a sentence."""
  columns, taken = {}, []
  for name, column in found.columns.items():
    empty = labels.missing(column, keys.missing)
    columns[name] = np.where(empty, '', column)
    written = int((empty & (column != '')).sum())
    if written and name not in label:
      taken.append(f'{written} in {name}')
  if taken:
    notes.append(
      f'words that were taken for a missing value: {", ".join(taken)}; data.missing=() takes none'
    )
  return columns


def _table(
  found: manifest.Manifest, keys: Keys, label: Sequence[str], columns: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Return the columns that go into a data set's table, under the names that it has for them."""
  table: dict[str, np.ndarray] = {}
  if keys.patient:
    table['patient'] = columns[keys.patient]
  if keys.partition:
    table['split'] = np.array([SIDES.get(side.lower(), side) for side in columns[keys.partition]])
  boxed = all(name in columns for name in repeated.BOX)
  for name, column in columns.items():
    if name in (keys.file, *label, keys.patient, keys.partition):
      continue
    if boxed and name in repeated.BOX:  # 'y' is a label elsewhere
      name = f'box_{name}'
    if name in manifest.RESERVED:
      raise MedtlError(
        f'{found.path}: the column name {name!r} is reserved; rename it, or say what it is '
        '(data.file, data.label, data.patient, data.partition)'
      )
    table[name] = labels.numbers(column, column == '')
  return table


def _names(folder: Path, found: manifest.Manifest, keys: Keys, notes: list[str]) -> list[str]:
  """Return each row's file, as a path relative to the folder, in one spelling."""
  cells = found.columns[keys.file]
  empty = np.flatnonzero(labels.missing(cells, ()))
  if len(empty):
    raise MedtlError(
      f'{found.path}, line {found.lines[empty[0]]}: column {keys.file!r} names no file '
      f'({len(empty)} such rows); fill them in, or leave these rows out'
    )
  torn = [int(line) for line, cell in zip(found.lines, cells, strict=True) if '\n' in cell]
  if torn:
    raise MedtlError(
      f'{found.path}, line {torn[0]}: the file name spans lines; a quote that was not closed '
      'before?'
    )
  names = [cell + keys.suffix for cell in cells.tolist()]
  if any('\\' in name and not (folder / name).exists() for name in names):
    names = [name.replace('\\', '/') for name in names]
    notes.append(f'backslashes in {keys.manifest} were read as slashes')
  names = [posixpath.normpath(name) for name in names]
  folders = [row for row, name in enumerate(names) if (folder / name).is_dir()]
  if folders:
    raise MedtlError(
      f'{found.path}, line {found.lines[folders[0]]}: {names[folders[0]]} is a folder; expected '
      'a file'
    )
  if not any((folder / name).is_file() for name in names):
    raise MedtlError(
      f'none of the {len(set(names))} files that {keys.manifest} names is in {folder}, first '
      f'{names[0]}; '
      + _advice(folder, names[0])
    )
  return names


def _advice(folder: Path, name: str) -> str:
  """Return what to do about a file that is not there, but with a suffix or in another folder."""
  path = folder / name
  longer = sorted(path.parent.glob(f'{_literal(path.name)}.*'))
  if longer:
    suffix = longer[0].name.removeprefix(path.name)
    found = longer[0].relative_to(folder)
    return f"there is {found}: set data.suffix='{suffix}', or write it into the column"
  elsewhere = next(folder.rglob(_literal(path.name)), None)
  if elsewhere:
    found = elsewhere.relative_to(folder)
    return (
      f'there is {found}: write names relative to {folder}, '
      f'or set data.root to {elsewhere.parent}'
    )
  return 'paths are relative to data.root'


def _literal(name: str) -> str:
  """Return a name as a pattern of pathlib that means that name alone."""
  return re.sub(r'([*?[])', r'[\1]', name)


def _patients(
  table: dict[str, np.ndarray], keys: Keys, notes: list[str], guess: bool, boxes: bool
) -> None:
  """Give the table its column `patient`, where a key, the file names or boxes tell it."""
  files: list[str] = table['file'].tolist()
  if keys.pattern:
    if 'patient' in table:
      raise MedtlError(
        'both data.patient and data.pattern say who the patient is; expected one of them'
      )
    table['patient'] = patients.by_pattern(files, keys.pattern)
  if 'patient' in table or not guess:
    return
  found = patients.guessed(files)
  if found:
    table['patient'], words = found
    notes.append(words)
  elif boxes:  # cuts of one picture are no independent cases
    table['patient'] = np.array(files)
    notes.append('patients are not known: the boxes of one file count as one patient')
