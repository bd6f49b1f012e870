"""Folders that name the class, and perhaps the publisher's side, of the pictures in them."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from medtl.data import masks
from medtl.data.listed import SIDES, Keys, Kind, Listed
from medtl.data.walk import walk
from medtl.types import MedtlError


def find(folder: Path, kind: Kind, keys: Keys) -> Listed:
  """Return the files below a folder: CLASS/…, SIDE/CLASS/… or CLASS/SIDE/…, or all unlabelled."""
  walked = walk(folder, kind.belongs)
  notes = [f'passed over: {walked.passed_over}'] if walked.passed_over else []
  if not walked.files:
    raise MedtlError(f'{folder} holds no {kind.words}' + (f'; {notes[0]}' if notes else ''))
  files = walked.files if keys.masks == 'keep' else masks.without(walked.files, notes)
  names = [path.as_posix() for path in files]
  if not keys.label:
    return Listed(names, np.full(len(names), ''), {}, notes)
  _stop_empty(walked.files, walked.folders, kind)
  _stop_loose(folder, files)
  _stop_no_classes(folder, walked.files)
  level = _side_level(folder, files)
  if level is None:
    return Listed(names, np.array([path.parts[0] for path in files]), {}, notes)
  raw = np.array([path.parts[1 - level] for path in files])
  sides = np.array([SIDES[path.parts[level].lower()] for path in files])
  return Listed(names, raw, {'split': sides}, notes)


def _side_level(folder: Path, files: Sequence[PurePosixPath]) -> int | None:
  """Return which folder of a path names the side: 0, 1, or None where none does."""
  for level in (0, 1):
    is_side = [_is_side(path, level) for path in files]
    if all(is_side):
      return level
    if any(is_side):
      first = files[is_side.index(False)]
      raise MedtlError(
        f'{folder} mixes the sides of a split with other folders (first: {first}); expected '
        '{train,val,test}/CLASS/… for all pictures, or a manifest'
      )
  return None


def _is_side(path: PurePosixPath, level: int) -> bool:
  return len(path.parts) > 2 and path.parts[level].lower() in SIDES


def _stop_empty(
  files: Sequence[PurePosixPath], folders: Sequence[PurePosixPath], kind: Kind
) -> None:
  """Raise where a folder holds none of the files: a class would be lost."""
  full = {parent for path in files for parent in path.parents}
  empty = [path for path in folders if path not in full]
  if empty:
    raise MedtlError(
      f'{len(empty)} folders hold no {kind.words}, first {empty[0]}; expected none: fill or '
      'remove them'
    )


def _stop_loose(folder: Path, files: Sequence[PurePosixPath]) -> None:
  """Raise where a picture lies in no class folder."""
  loose = [path for path in files if len(path.parts) < 2]
  if loose:
    raise MedtlError(
      f'{len(loose)} pictures lie in no class folder (first: {loose[0]}); expected '
      f"{folder}/CLASS/…, a manifest, or label='' for unlabelled pictures"
    )


def _stop_no_classes(folder: Path, files: Sequence[PurePosixPath]) -> None:
  """Raise where the first folders are called so that they can be no classes."""
  names = {path.parts[0] for path in files}
  deep = all(len(path.parts) > 2 for path in files)
  lower = {name.lower() for name in names}
  shown = ', '.join(sorted(names))
  if lower <= set(SIDES) and not deep:
    raise MedtlError(
      f'the folders in {folder} are called {shown}: sides of a split, no classes; expected '
      '{train,val,test}/CLASS/…, or a manifest'
    )
  if lower & masks.FOLDERS and lower <= masks.FOLDERS | masks.PICTURE_FOLDERS:
    raise MedtlError(
      f'the folders in {folder} are called {shown}: pictures and their masks, no classes; '
      'expected a folder for each class, or a manifest'
    )
