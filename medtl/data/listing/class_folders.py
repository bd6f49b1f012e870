"""Lists pictures in folders that name their class, and perhaps the publisher's side."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from medtl.core.types import MedtlError
from medtl.data.listing import mask_files
from medtl.data.listing.records import Keys, Kind, Listed, side
from medtl.data.listing.walk import walk


def find(folder: Path, kind: Kind, keys: Keys) -> Listed:
  """Return the files below a folder: CLASS/…, SIDE/CLASS/… or CLASS/SIDE/…, or all unlabelled.

  Where masks are learned, the pictures need no folder: the label '' is then that of all.

  Raises MedtlError where the folders leave a label open, or a class would be lost.
  """
  walked = walk(folder, kind.belongs)
  notes = [f'passed over: {walked.passed_over}'] if walked.passed_over else []
  if not walked.files:
    dicom = "; DICOM files are read by data.name='dicom'" if '.dcm' in walked.passed_over else ''
    words = '; '.join([f'{folder} holds no {kind.words}', *notes])
    raise MedtlError(words + dicom)
  files = walked.files
  if keys.masks != 'keep':
    learned = keys.masks == mask_files.TARGET  # then a note says how many there are
    files = mask_files.without(files, [] if learned else notes)
  names = [path.as_posix() for path in files]
  is_loose = all(len(path.parts) < 2 for path in files)
  if not keys.label or (is_loose and keys.masks == mask_files.TARGET):
    return Listed(names, np.full(len(names), ''), {}, notes)
  _check_empty_folders(walked.files, walked.folders, kind)
  _check_loose_files(folder, files)
  if keys.masks == 'leave_out':
    _check_mask_folders(folder, walked.files)
  _check_side_names(folder, files)
  level = _side_level(folder, files)
  if level is None:
    _check_two_levels(folder, files)
    classes = np.array([path.parts[0] for path in files])
    return Listed(names, classes, {}, notes)
  classes = np.array([path.parts[1 - level] for path in files])
  sides = np.array([side(path.parts[level]) for path in files])
  return Listed(names, classes, {'split': sides}, notes)


def _side_level(folder: Path, files: Sequence[PurePosixPath]) -> int | None:
  """Return which folder of the paths names the side: 0, 1, or None where none does."""
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
  """Return whether a path has two folders, and the one at `level` is called like a side."""
  return len(path.parts) > 2 and side(path.parts[level]) != ''


def _check_empty_folders(
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


def _check_loose_files(folder: Path, files: Sequence[PurePosixPath]) -> None:
  """Raise where a picture lies in no class folder."""
  loose = [path for path in files if len(path.parts) < 2]
  if loose:
    raise MedtlError(
      f'{len(loose)} pictures lie in no class folder (first: {loose[0]}); expected '
      f"{folder}/CLASS/…, {_a_manifest(folder)}, or label='' for unlabelled pictures"
    )


def _check_side_names(folder: Path, files: Sequence[PurePosixPath]) -> None:
  """Raise where the only folders of the pictures are called like sides of a split."""
  names = {path.parts[0] for path in files}
  deep = all(len(path.parts) > 2 for path in files)
  if not deep and all(side(name) for name in names):
    raise MedtlError(
      f'the folders in {folder} are called {", ".join(sorted(names))}: sides of a split, no '
      f'classes; expected {{train,val,test}}/CLASS/…, or {_a_manifest(folder)}'
    )


def _check_mask_folders(folder: Path, files: Sequence[PurePosixPath]) -> None:
  """Raise where a class folder is called like a folder of masks."""
  names = sorted({path.parts[0] for path in files})
  of_masks = [name for name in names if mask_files.is_folder(name)]
  if of_masks:
    raise MedtlError(
      f'the folders in {folder} are called {", ".join(names)}, and {of_masks[0]!r} is what a '
      f'folder of masks is called; expected a folder for each class, or {_a_manifest(folder)}. '
      "Where it is a class, set data.masks='keep'"
    )


def _a_manifest(folder: Path) -> str:
  """Return in words how a manifest is named: one that lies there, if any."""
  there = sorted(path.name for path in folder.glob('*.csv'))
  return f'a manifest, data.manifest={there[0] if there else "FILE.csv"}'


def _check_two_levels(folder: Path, files: Sequence[PurePosixPath]) -> None:
  """Raise where all outer folders hold the same inner ones, so that either may be the class."""
  inner_of: dict[str, set[str]] = {}
  for path in files:
    inner = path.parts[1] if len(path.parts) > 2 else ''
    inner_of.setdefault(path.parts[0], set()).add(inner)
  shared, *others = inner_of.values()
  if not others or len(shared) < 2 or '' in shared:
    return
  if all(inner == shared for inner in others):
    raise MedtlError(
      f'each of {", ".join(sorted(inner_of))} in {folder} holds the folders '
      f'{", ".join(sorted(shared))}: which of the two is the class? Expected CLASS/… alone; a '
      'manifest can say it'
    )
