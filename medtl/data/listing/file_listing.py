"""Lists the files of a folder or of a csv manifest: labels, patients and sides, but no pixels.

`facts['notes']` hold a sentence on each thing that was guessed or left out on the way.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError
from medtl.data.listing import class_folders, labels, manifest_rows, patients, repeated_rows
from medtl.data.listing.records import Keys, Kind, Listed


class Listing(NamedTuple):
  """A list of files and what their names, folders and a manifest say of them."""

  folder: Path
  classes: tuple[str, ...]
  table: dict[str, np.ndarray]
  facts: dict[str, Any]  # name, order (of the classes), notes
  fingerprint: str  # tells a changed file, label or key
  boxes: np.ndarray | None  # [n, 4] of left, top, right, bottom, where a row is a box

  def cut(self, x: np.ndarray, index: int) -> np.ndarray:
    """Return the part of a file's picture x [h, w, c] that a row means: all of it, or its box."""
    if self.boxes is None:
      return x
    return repeated_rows.cut(x, self.boxes[index], self.table['file'][index])


def find(root: str, kind: Kind, keys: Keys, guess: bool = True) -> Listing:
  """Return the files of a kind below `root`, or `root` itself where no labels are asked for.

  `guess`: patients may be guessed from the files' names where nothing else says them. It is false
  where the files' own headers say them.

  Raises MedtlError where keys contradict each other or what is there.
  """
  _check_keys(keys)
  folder, listed = _listed(root, kind, keys)
  where = f' (in {keys.manifest})' if keys.manifest else ''
  shown = [f'{name}{where}' for name in listed.names]
  classes, y, order = labels.find(listed.raw, keys.label, keys.classes, shown, keys.missing)
  table = {'row': np.arange(len(y)), 'file': np.array(listed.names), 'y': y, **listed.table}
  notes = list(listed.notes)
  _add_patients(table, keys, notes, guess, has_boxes=listed.boxes is not None)
  facts = dict(name=folder.name, order=order, notes=notes)
  return Listing(folder, classes, table, facts, fingerprint(folder, table), listed.boxes)


def _listed(root: str, kind: Kind, keys: Keys) -> tuple[Path, Listed]:
  """Return (folder, its listed files): one file, those of a manifest, or of class folders."""
  folder = Path(root).expanduser()
  if not root:
    raise MedtlError(
      'no folder of pictures was named; set data.root=FOLDER (--config.data.root=FOLDER)'
    )
  if folder.is_file() and not (keys.label or keys.manifest):
    return folder.parent, Listed([folder.name], np.array(['']), {}, [])
  if not folder.is_dir():
    is_file = ', and this is a file' if folder.is_file() else ''
    raise MedtlError(f'no folder {folder}; expected a folder of pictures{is_file}')
  if keys.manifest:
    return folder, manifest_rows.find(folder, keys)
  return folder, class_folders.find(folder, kind, keys)


def fingerprint(folder: Path, table: dict[str, np.ndarray]) -> str:
  """Return a sha256 of a folder's place, the table, and each file's size, times and inode."""
  digest = hashlib.sha256(str(folder.resolve()).encode('utf-8', 'surrogateescape'))
  for name, column in sorted(table.items()):
    digest.update(f'{name}\t{column.tolist()}\n'.encode('utf-8', 'surrogateescape'))
  for name in table['file']:
    path = folder / name
    state = None
    if path.is_file():
      status = path.stat()
      state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    digest.update(f'{name}\t{state}\n'.encode('utf-8', 'surrogateescape'))
  return digest.hexdigest()


def _check_keys(keys: Keys) -> None:
  """Raise where keys contradict each other, or a key is no known word."""
  if keys.repeated not in repeated_rows.MEANINGS:
    known = map(repr, repeated_rows.MEANINGS)
    raise MedtlError(f'data.repeated={keys.repeated!r}; {did_you_mean(keys.repeated, known)}')
  if keys.masks not in ('leave_out', 'keep'):
    raise MedtlError(
      f"data.masks={keys.masks!r}; expected 'leave_out' (x_mask.png beside x.png is no picture) or "
      "'keep'"
    )
  if keys.manifest:
    return
  set_keys = []
  for name in ('patient', 'partition', 'repeated', 'suffix'):
    if getattr(keys, name):
      set_keys.append(f'data.{name}')
  if set_keys or not isinstance(keys.label, str):
    raise MedtlError(
      f'{" and ".join(set_keys) or "several labels"} need a manifest, and none is given; expected '
      'data.manifest="labels.csv" or, for patients, data.pattern="a regex with (a group)"'
    )


def _add_patients(
  table: dict[str, np.ndarray], keys: Keys, notes: list[str], guess: bool, has_boxes: bool
) -> None:
  """Give the table its column `patient`, where a key, the file names or boxes say it."""
  files: list[str] = table['file'].tolist()
  if keys.pattern:
    if 'patient' in table:
      raise MedtlError(
        'both data.patient and data.pattern say who the patient is; expected one of them'
      )
    table['patient'] = patients.by_pattern(files, keys.pattern)
  if 'patient' in table:
    alike = labels.twins(table['patient'].tolist())
    if alike:
      shown = ', '.join(' and '.join(map(repr, group)) for group in alike[:4])
      notes.append(f'patients that are told apart by spelling alone: {shown}; are they the same?')
  if 'patient' in table or not guess:
    return
  guessed, note = patients.guessed(files)
  if note:
    notes.append(note)
  if guessed is not None:
    table['patient'] = guessed
  elif has_boxes:  # cuts of one picture are no independent cases
    table['patient'] = np.array(files)
    notes.append('patients are not known: the boxes of one file count as one patient')
