"""Which source reads the files of a place: by what they hold, whatever they are called."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medtl import data as datasets
from medtl.core import expressions
from medtl.core.types import MedtlError
from medtl.data.formats import signature
from medtl.data.listing.walk import walk
from medtl.data.sources import dicom, folder, nifti

PICTURES = {'pictures': 'folder.load', 'DICOM files': 'dicom.load'}  # grey or in colour
VOLUMES = 'NIfTI files'
READERS = {**PICTURES, VOLUMES: 'nifti.load'}
TABLE = 'table.load'
LOAD = tuple(inspect.signature(datasets.load).parameters)  # keys of every source: ops, split …

Keys = dict[str, Any]  # a config's data


class Contents(NamedTuple):
  """The files of a folder, or one file, by what they hold."""

  pictures: list[Path]
  dicoms: list[Path]
  volumes: list[Path]  # NIfTI files
  passed_over: str  # what else there is, in words


def contents(root: Path) -> Contents:
  """Return what a folder holds, without hidden files, or what one file holds, whatever its name."""
  if root.is_file():
    return _one_file(root)
  if not root.is_dir():
    raise MedtlError(
      f'no file or folder {root}; expected a picture, a DICOM file or a NIfTI file, or a '
      'folder of one kind'
    )
  walked = walk(root, _is_read)
  held = Contents([], [], [], walked.passed_over)
  for name in walked.files:
    path = root / name
    if nifti.KIND.belongs(path):
      held.volumes.append(path)
    elif folder.KIND.belongs(path) and not signature.is_dicom(_head(path)):
      held.pictures.append(path)
    else:
      held.dicoms.append(path)
  return held


def _is_read(path: Path) -> bool:
  return nifti.KIND.belongs(path) or folder.KIND.belongs(path) or dicom.belongs(path)


def _one_file(path: Path) -> Contents:
  first = _head(path)
  if nifti.KIND.belongs(path):
    return Contents([], [], [path], '')
  if signature.is_dicom(first):
    return Contents([], [path], [], '')
  if signature.picture_format(first) or folder.KIND.belongs(path):
    return Contents([path], [], [], '')
  if dicom.belongs(path):
    return Contents([], [path], [], '')
  return Contents([], [], [], '1 file')


def _head(path: Path) -> bytes:
  try:
    return signature.head(path)
  except OSError:  # the reader says why, or counts it as unreadable
    return b''


def reader(name: str) -> str:
  """Return the full name of a source: 'folder' is 'folder.load'."""
  return name if '.' in name else f'{name}.load'


def choose(keys: Keys, own: Mapping[str, Any]) -> tuple[Keys, list[str]]:
  """Return (the keys with the reader that fits the files, words where it was not asked for)."""
  name, root = reader(keys['name']), keys.get('root', '')
  reads_files = name in READERS.values()
  if keys.get('manifest') or not root or not (reads_files or root != own.get('root')):
    return keys, []  # a manifest names its files, other sources know theirs
  held = contents(Path(root).expanduser())
  files_of = dict(zip(READERS, held[:3], strict=True))
  kinds = [kind for kind, paths in files_of.items() if paths]
  if len(kinds) > 1:
    shown = [f'{len(files_of[kind])} {kind} (first: {files_of[kind][0].name})' for kind in kinds]
    raise MedtlError(
      f'{root} holds {" and ".join(shown)}; expected one kind: move the others to '
      'a folder of their own'
    )
  if not kinds:
    if reads_files:
      raise _nothing(root, held.passed_over)
    return keys, []
  kind = kinds[0]
  _same_dimensions(kind, root, own)
  if kind == VOLUMES and name in PICTURES.values():  # as unlabelled data of other sources are read
    keys = {key: value for key, value in keys.items() if key not in ('label', 'masks')}
  chosen = {**keys, 'name': READERS[kind]}
  if kind == 'DICOM files' and not chosen.get('values'):
    raise MedtlError(
      f'{root} holds {len(held.dicoms)} DICOM files, and the run was trained on '
      'other files; say how their numbers are read: --config.data.values=display '
      '(0 … 1 by the window in each header), or --config.data.values=modality (HU '
      "for CT) with --config.data.ops='window(low, high) | …'"
    )
  chosen = _known(chosen, own, kind)
  _same_unit(chosen, own, kind)
  if chosen['name'] == name:
    return chosen, []
  return chosen, [f'the data are {kind}, so {chosen["name"]} reads them, and not {name}']


def _same_dimensions(kind: str, root: str, own: Mapping[str, Any]) -> None:
  """Raise where volumes meet a net for pictures, pictures one for tables, and so on."""
  trained = reader(own['name'])
  if trained == TABLE:
    raise MedtlError(
      f'{root} holds {kind}, and the run was trained on the rows of a table; choose a csv with the '
      'same columns'
    )
  if trained not in READERS.values() or (trained == READERS[VOLUMES]) == (kind == VOLUMES):
    return
  ours = 'volumes in NIfTI files' if trained == READERS[VOLUMES] else 'pictures'
  raise MedtlError(
    f'{root} holds {kind}, and the run was trained on {ours}; resizing makes no one of the other: '
    'choose data of as many axes'
  )


def _nothing(root: str, passed_over: str) -> MedtlError:
  """Return the error of a place without pictures; it says what else is there."""
  suffixes = ', '.join(folder.SUFFIXES)
  if Path(root).expanduser().is_file():
    return MedtlError(f'{root} is no picture ({suffixes}), no NIfTI file and no DICOM file')
  held = f'it holds {passed_over}' if passed_over else 'it is empty'
  return MedtlError(
    f'{root} holds no pictures ({suffixes}), no NIfTI files and no DICOM files; {held}'
  )


def _known(chosen: Keys, own: Mapping[str, Any], kind: str) -> Keys:
  """Return the keys that the reader knows; another one is an error unless it is the run's own."""
  function = expressions.find(chosen['name'], 'medtl.data.sources')
  known = (*LOAD, *inspect.signature(function).parameters)
  strange = [key for key in chosen if key not in known]
  for key in strange:
    if key not in own or chosen[key] != own[key]:
      raise MedtlError(
        f'--config.data.{key} says nothing of {kind} ({chosen["name"]} has no such '
        'key); leave it out'
      )
  return {key: value for key, value in chosen.items() if key in known}


def _same_unit(chosen: Keys, own: Mapping[str, Any], kind: str) -> None:
  """Raise where numbers of a modality (HU) meet a net for 0 … 1, or the other way round.

  Other data.ops than the run's are trusted to turn one into the other.
  """
  ours, theirs = own.get('values') == 'modality', chosen.get('values') == 'modality'
  if ours == theirs or chosen.get('ops', '') != own.get('ops', ''):
    return
  if theirs:
    raise MedtlError(
      '--config.data.values=modality reads numbers of the modality (HU for CT), and '
      'the run was trained on 0 … 1; set --config.data.values=display, or turn them '
      "into 0 … 1: --config.data.ops='window(low, high) | …'"
    )
  advice = 'leave --config.data.values out' if kind == 'DICOM files' else 'give DICOM files'
  raise MedtlError(
    'the run was trained on numbers of the modality (data.values=modality; HU for '
    f'CT), and {chosen["root"]} would be read as 0 … 1; {advice}, or set '
    '--config.data.ops to what makes such numbers of them: '
    "'rescale(-1000, 400) | …'"
  )
