"""Folders that name the class, and perhaps the publisher's side, of the pictures in them."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from medtl.core.types import MedtlError
from medtl.data.listing import mask_files
from medtl.data.listing.records import Keys, Kind, Listed, side
from medtl.data.listing.walk import walk


def find(folder: Path, kind: Kind, keys: Keys) -> Listed:
  """Return the files below a folder: CLASS/…, SIDE/CLASS/… or CLASS/SIDE/…, or all unlabelled."""
  walked = walk(folder, kind.belongs)
  notes = [f'passed over: {walked.passed_over}'] if walked.passed_over else []
  if not walked.files:
    dicom = "; DICOM files are read by data.name='dicom'" if '.dcm' in walked.passed_over else ''
    raise MedtlError('; '.join([f'{folder} holds no {kind.words}', *notes]) + dicom)
  files = walked.files if keys.masks == 'keep' else mask_files.without(walked.files, notes)
  names = [path.as_posix() for path in files]
  if not keys.label:
    return Listed(names, np.full(len(names), ''), {}, notes)
  _stop_empty(walked.files, walked.folders, kind)
  _stop_loose(folder, files)
  if keys.masks != 'keep':
    _stop_masks(folder, walked.files)
  _stop_sides(folder, files)
  level = _side_level(folder, files)
  if level is None:
    _stop_two_levels(folder, files)
    return Listed(names, np.array([path.parts[0] for path in files]), {}, notes)
  raw = np.array([path.parts[1 - level] for path in files])
  sides = np.array([side(path.parts[level]) for path in files])
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
  return len(path.parts) > 2 and side(path.parts[level]) != ''


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


def _stop_sides(folder: Path, files: Sequence[PurePosixPath]) -> None:
  """Raise where the folders of the pictures are called like sides of a split."""
  names = {path.parts[0] for path in files}
  deep = all(len(path.parts) > 2 for path in files)
  if not deep and all(side(name) for name in names):
    raise MedtlError(
      f'the folders in {folder} are called {", ".join(sorted(names))}: sides of a split, no '
      'classes; expected {train,val,test}/CLASS/…, or a manifest'
    )


def _stop_masks(folder: Path, files: Sequence[PurePosixPath]) -> None:
  """Raise where a class folder is called so that it holds masks."""
  names = sorted({path.parts[0] for path in files})
  found = [name for name in names if mask_files.is_folder(name)]
  if found:
    raise MedtlError(
      f'the folders in {folder} are called {", ".join(names)}, and {found[0]!r} is what a folder '
      'of masks is called; expected a folder for each class, or a manifest. Where it is a class, '
      "set data.masks='keep'"
    )


def _stop_two_levels(folder: Path, files: Sequence[PurePosixPath]) -> None:
  """Raise where all first folders hold the same second ones: either may be the class."""
  below: dict[str, set[str]] = {}
  for path in files:
    below.setdefault(path.parts[0], set()).add(path.parts[1] if len(path.parts) > 2 else '')
  inner = list(below.values())
  if (
    len(below) > 1
    and len(inner[0]) > 1
    and '' not in inner[0]
    and all(one == inner[0] for one in inner)
  ):
    raise MedtlError(
      f'each of {", ".join(sorted(below))} in {folder} holds the folders {", ".join(sorted(inner[0]))}: '
      'which of the two is the class? Expected CLASS/… alone; a manifest can say it'
    )
