"""Volumes in NIfTI files (.nii, .nii.gz) and their masks: x [*s, c] float32 with a place in mm.

Headers are read when the set is loaded: shapes, affines and the masks' grids are compared then.
Voxels are read in `fetch`, which raises OSError for a damaged file.
"""

import collections
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np

from medtl.core.annotation import FROM_1
from medtl.core.types import Dataset, Example, MedtlError
from medtl.data.formats import nifti
from medtl.data.listing import file_listing, patients
from medtl.data.listing.labels import GIVEN
from medtl.data.listing.walk import walk

APART = 1e-3  # mm that corners of a volume and of its mask may lie apart
DOUBTS = {
  'place': 'have neither sform nor qform, so that nobody knows how they lie',
  'forms': 'have a sform and a qform that place them differently; the sform holds',
  'unit': 'say no unit of length, and are taken to be in mm',
}
KIND = file_listing.Kind(nifti.belongs, f'NIfTI files ({", ".join(nifti.SUFFIXES)})')


def load(
  root: str,
  *,
  images: str = '',
  masks: str = '',
  suffix: str = '',
  classes: Sequence[str] = (),
  pattern: str = '',
  channels: Annotated[int, FROM_1] = 1,
  licence: str = '',
  citation: str = '',
) -> Dataset:
  """Return every volume in root/images, or `root` itself if it is a file, with its mask.

  x is [*s, channels] float32, scaled by scl_slope and scl_inter. A file with a fourth axis is read
  where `channels` says its length; any other one may be a time series and is refused. Its frame is
  in mm, RAS+: the sform, else the qform; a file with neither has indices alone.

  `masks`: a folder of `root` with a mask for each volume, under the same name, or x + `suffix` for
  a volume x (masks then may lie in the same folder). y is the mask [*s], numbers of `classes`, the
  background first. '': there are none and y is -1, for `predict`.
  `pattern`: a regex on a file's path whose first group is the patient. Without it patients come
  from names that public data sets use, if all files have them (listing.patients).

  Raises MedtlError for keys that contradict each other or what is there: a volume without a mask,
  a mask on another grid or with values outside the classes, a time series.
  """
  folder, names = _volumes(root, images, masks, suffix)
  if masks and len(classes) < 2:
    raise MedtlError(
      f'data.classes={tuple(classes)} are the classes of masks; expected two or more, the '
      "background first: data.classes=('background', 'lesion')"
    )
  mask_names: list[str] = []
  notes: list[str] = []
  if masks:
    mask_names = _masks(folder, images, masks, suffix, names, notes)
  headers = _headers(folder, names)
  _check_channels(headers, channels)
  for name, mask_name in zip(names, mask_names, strict=False):
    _check_grid(folder, name, mask_name, headers.get(name))
  y = np.full(len(names), 0 if masks else -1, np.int32)
  table = {'row': np.arange(len(names)), 'file': np.array(names), 'y': y}
  _add_patients(table, pattern, notes)
  notes += _notes(headers)
  digest = hashlib.sha256(file_listing.fingerprint(folder, table).encode())
  digest.update(file_listing.fingerprint(folder, {'file': np.array(mask_names)}).encode())

  def fetch(index: int) -> Example:
    x, frame = nifti.read(folder / names[index])
    target: Any = y[index]
    if mask_names:
      target = nifti.read_mask(folder / mask_names[index], len(classes))
    return Example(x, target, index, frame)

  facts: dict[str, Any] = dict(licence=licence, citation=citation)
  facts.update(name=folder.name, order=GIVEN, notes=notes)
  if masks:
    facts.update(target='mask', classes=('volume',))  # all are alike: no label balances a split
  return Dataset(fetch, len(names), tuple(classes), table, facts, digest.hexdigest())


def _volumes(root: str, images: str, masks: str, suffix: str) -> tuple[Path, list[str]]:
  """Return (folder, paths of its volumes, relative to it)."""
  if not root:
    raise MedtlError(
      'no folder of volumes was named; set data.root=FOLDER (--config.data.root=FOLDER)'
    )
  whole = Path(root).expanduser()
  if whole.is_file() and not masks:
    return whole.parent, [whole.name]
  if not (whole / images).is_dir():
    raise MedtlError(f'no folder {whole / images}; expected a folder of {KIND.words}')
  if masks and _same(images, masks) and not suffix:
    raise MedtlError(
      f'data.images and data.masks are both {masks!r}; expected two folders, or in one folder '
      "masks that are named x + data.suffix, such as '_seg'"
    )
  walked = walk(whole / images, KIND.belongs)
  names = []
  for path in walked.files:
    is_mask = _same(images, masks) and bool(suffix) and nifti.stem(path.name).endswith(suffix)
    if not is_mask:
      names.append((PurePosixPath(images) / path).as_posix())
  if not names:
    there = f'it holds {walked.passed_over}' if walked.passed_over else 'it is empty'
    raise MedtlError(f'{whole / images} holds no {KIND.words}; {there}')
  return whole, names


def _same(images: str, masks: str) -> bool:
  """Return whether masks lie in the images' folder."""
  return bool(masks) and PurePosixPath(images) == PurePosixPath(masks)


def _masks(
  folder: Path, images: str, masks: str, suffix: str, names: Sequence[str], notes: list[str]
) -> list[str]:
  """Return the mask of each volume; a note counts masks without a volume."""
  if not (folder / masks).is_dir():
    raise MedtlError(f'no folder {folder / masks}; expected the masks of {folder / images}')
  path_of: dict[str, str] = {}
  for path in walk(folder / masks, KIND.belongs).files:
    key = nifti.stem(path.as_posix())
    if key in path_of:
      raise MedtlError(
        f'{path_of[key]} and {path} in {folder / masks} may be the same mask; remove one of them'
      )
    path_of[key] = path.as_posix()
  mask_names = []
  lacking = []
  used = set()
  for name in names:
    key = nifti.stem(PurePosixPath(name).relative_to(images).as_posix()) + suffix
    used.add(key)
    if key in path_of:
      mask_names.append((PurePosixPath(masks) / path_of[key]).as_posix())
    else:
      lacking.append(name)
  if lacking:
    added = f' + {suffix!r}' if suffix else ''
    raise MedtlError(
      f'{len(lacking)} of {len(names)} volumes have no mask in {folder / masks}, first '
      f'{lacking[0]}: expected the same name there{added}. Add it, take the volume out, or set '
      "data.suffix where masks are named x_seg.nii.gz (data.suffix='_seg')"
    )
  unused = sorted(set(path_of) - used)
  if unused and not _same(images, masks):
    notes.append(f'{len(unused)} masks have no volume and are not used, first {unused[0]}')
  return mask_names


def _headers(folder: Path, names: Sequence[str]) -> dict[str, nifti.Header]:
  """Return the header of each volume; one that is damaged is left out, and `fetch` says why."""
  headers = {}
  for name in names:
    try:
      headers[name] = nifti.read_header(folder / name)
    except OSError:
      continue
  return headers


def _check_channels(headers: Mapping[str, nifti.Header], channels: int) -> None:
  for name, header in headers.items():
    if header.channels != channels:
      raise MedtlError(
        f'{name} holds {header.channels} volumes, and data.channels is {channels}. Where these are '
        f'channels (T1, T2 …) set data.channels={header.channels}; a time series is not read: '
        'store each time as a file of its own'
      )


def _check_grid(folder: Path, name: str, mask_name: str, header: nifti.Header | None) -> None:
  """Raise unless a mask lies on the grid of its volume, voxel by voxel."""
  if header is None:
    return
  try:
    mask = nifti.read_header(folder / mask_name)
  except OSError:
    return  # fetch says why
  frame = header.frame
  same_shape = mask.frame.shape == frame.shape
  apart = nifti.farthest(frame.affine, mask.frame.affine, frame.shape)
  if same_shape and apart <= APART:
    return
  raise MedtlError(
    f'the mask {mask_name} lies on another grid than {name}: shape {mask.frame.shape} and affine '
    f'{_rows(mask)}, where the volume has {frame.shape} and {_rows(header)} (corners '
    f'{apart:.3g} mm apart). Expected the same grid: resample the mask onto the volume, or mend '
    'its sform'
  )


def _rows(header: nifti.Header) -> list[list[float]]:
  return header.frame.affine[:3].round(4).tolist()


def _add_patients(table: dict[str, np.ndarray], pattern: str, notes: list[str]) -> None:
  files: list[str] = table['file'].tolist()
  if pattern:
    table['patient'] = patients.by_pattern(files, pattern)
    return
  guessed, note = patients.guessed(files)
  if note:
    notes.append(note)
  if guessed is not None:
    table['patient'] = guessed


def _notes(headers: Mapping[str, nifti.Header]) -> list[str]:
  """Return sentences on the shapes of the volumes, and on places that are doubtful."""
  if not headers:
    return []
  shapes = collections.Counter(header.frame.shape for header in headers.values())
  if len(shapes) > 1:
    least = _size(min(shapes, key=lambda shape: np.prod(shape)))
    most = _size(max(shapes, key=lambda shape: np.prod(shape)))
    notes = [f'volumes of {len(shapes)} shapes, from {least} to {most} voxels']
  else:
    notes = [f'volumes of {_size(next(iter(shapes)))} voxels']
  for doubt, sentence in DOUBTS.items():
    names = [name for name, header in headers.items() if doubt in _doubts(header)]
    if names:
      notes.append(f'{len(names)} of {len(headers)} volumes {sentence} (first {names[0]})')
  return notes


def _doubts(header: nifti.Header) -> set[str]:
  """Return which of DOUBTS a header raises."""
  doubts = set()
  if not header.frame.millimetres:
    doubts.add('place')
  if header.forms_differ:
    doubts.add('forms')
  if header.unit not in nifti.MILLIMETRES:
    doubts.add('unit')
  return doubts


def _size(shape: Sequence[int]) -> str:
  return ' × '.join(map(str, shape))
