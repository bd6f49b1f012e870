"""Lists the files of a folder or of a csv manifest: labels, patients and sides, but no pixels.

`facts['notes']` hold a sentence on each thing that was guessed or left out on the way.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError
from medtl.data.listing import (
  class_folders,
  labels,
  manifest_rows,
  mask_files,
  patients,
  repeated_rows,
)
from medtl.data.listing.records import Keys, Kind, Listed
from medtl.data.listing.walk import walk


class Listing(NamedTuple):
  """A list of files and what their names, folders and a manifest say of them."""

  folder: Path
  classes: tuple[str, ...]
  table: dict[str, np.ndarray]
  facts: dict[str, Any]  # name, order (of the classes), notes
  fingerprint: str  # tells a changed file, label or key
  boxes: np.ndarray | None  # [n, 4] of left, top, right, bottom, where a row is a box
  masks: list[tuple[str, ...]] | None  # files of each picture's masks, where they are learned

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
  if keys.only:
    listed = _only(listed, keys.only)
  if keys.masks == mask_files.TARGET:
    everything = walk(folder, kind.belongs).files
    listed = mask_files.matched(listed, everything, keys.unmasked)
  where = f' (in {keys.manifest})' if keys.manifest else ''
  shown = [f'{name}{where}' for name in listed.names]
  notes = list(listed.notes)
  label = keys.label
  if _needs_no_label(listed, keys):
    label = ''
    notes.append('masks alone are learned: no folders tell classes, by which splits are balanced')
  classes, y, order = labels.find(listed.raw, label, keys.classes, shown, keys.missing)
  table = {'row': np.arange(len(y)), 'file': np.array(listed.names), 'y': y, **listed.table}
  _add_patients(table, keys, notes, guess, has_boxes=listed.boxes is not None)
  facts = dict(name=folder.name, order=order, notes=notes)
  masks = [name for names in listed.masks or () for name in names]
  whole = fingerprint(folder, table, masks)
  return Listing(folder, classes, table, facts, whole, listed.boxes, listed.masks)


def _needs_no_label(listed: Listed, keys: Keys) -> bool:
  """Return whether masks are learned of pictures that all lie in one folder, such as images."""
  is_open = keys.label and not keys.manifest and not keys.classes and not keys.only
  return keys.masks == mask_files.TARGET and bool(is_open) and len(set(listed.raw.tolist())) == 1


def _only(listed: Listed, only: Sequence[str]) -> Listed:
  """Return the files with one of these labels; a note counts the others."""
  if listed.raw.ndim > 1:
    raise MedtlError(
      f'data.only={tuple(only)} chooses by one label, and there are several of a picture; expected '
      'the name of one column in data.label'
    )
  keep = np.isin(listed.raw, [str(word) for word in only])
  known = sorted(set(listed.raw.tolist()))
  for word in only:
    if str(word) not in known:
      raise MedtlError(f'data.only: no picture has the label {word!r}; {did_you_mean(word, known)}')
  others = ', '.join(sorted(set(listed.raw[~keep].tolist())))
  note = f'left out by data.only: {int((~keep).sum())} pictures of {others}'
  kept = listed.rows(keep)
  return kept if keep.all() else kept._replace(notes=[*kept.notes, note])


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


def fingerprint(folder: Path, table: dict[str, np.ndarray], masks: Sequence[str] = ()) -> str:
  """Return a sha256 of a folder's place, the table, and each file's size, times and inode.

  Masks are files too.
  """
  digest = hashlib.sha256(str(folder.resolve()).encode('utf-8', 'surrogateescape'))
  for name, column in sorted(table.items()):
    digest.update(f'{name}\t{column.tolist()}\n'.encode('utf-8', 'surrogateescape'))
  for name in (*table['file'], *masks):
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
  if keys.masks not in ('leave_out', 'keep', mask_files.TARGET):
    raise MedtlError(
      f"data.masks={keys.masks!r}; expected 'leave_out' (x_mask.png beside x.png is no picture), "
      "'keep' or 'target' (masks are what is learned)"
    )
  if keys.unmasked not in mask_files.UNMASKED:
    known = map(repr, mask_files.UNMASKED)
    raise MedtlError(f'data.unmasked={keys.unmasked!r}; {did_you_mean(keys.unmasked, known)}')
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
    twins = labels.twins(table['patient'].tolist())
    if twins:
      shown = ', '.join(' and '.join(map(repr, group)) for group in twins[:4])
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
