"""Data that a run was not trained on, read as the run's own were.

The reader is chosen by what the files hold; classes, channels and size become the run's.
"""

import contextlib
import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medtl import data as datasets
from medtl.core import expressions
from medtl.core.types import Dataset, MedtlError, ShapesDiffer
from medtl.data import class_names
from medtl.data.formats import signature
from medtl.data.listing.labels import UnknownClass
from medtl.data.listing.walk import walk
from medtl.data.sources import dicom, folder, nifti

PICTURES = {'pictures': 'folder.load', 'DICOM files': 'dicom.load'}  # grey or in colour
VOLUMES = 'NIfTI files'
READERS = {**PICTURES, VOLUMES: 'nifti.load'}
TABLE = 'table.load'
LOAD = tuple(inspect.signature(datasets.load).parameters)  # keys of every source: ops, split …
UNSPLIT = {'split': {'by': 'none'}, 'site': ''}  # one side, wherever its examples come from
LOOK = 32  # pictures that are looked at for colour
COLOURED = 0.02  # mean difference of channels; JPEG alone makes less

Keys = dict[str, Any]  # a config's data
# a key of config.data in an error; values=modality is told of the run's own
DATA_KEY = re.compile(
  r'(?:--)?config\.data\b|(?<![\w./-])data\.(?!values=modality)(?=[a-z_.]+[=:])'
)


class Contents(NamedTuple):
  """The files of a folder, or one file, by what they hold."""

  pictures: list[Path]
  dicoms: list[Path]
  volumes: list[Path]  # NIfTI files
  passed_over: str  # what else there is, in words


def load(
  asked: Mapping[str, Any], own: Mapping[str, Any], plan: Mapping[str, Any]
) -> tuple[Dataset, Keys]:
  """Return (the data `asked` for as one side, in the run's shape; the keys that read them).

  See `load_test`.
  """
  return load_test({**asked, **UNSPLIT}, own, plan)


def load_test(
  asked: Mapping[str, Any], own: Mapping[str, Any], plan: Mapping[str, Any]
) -> tuple[Dataset, Keys]:
  """Return (the test side of the data `asked` for, in the run's shape; the keys that read them).

  `asked` is a config's data, `own` the run's, `plan` its plan.json. facts['notes'] also say what
  was done to make the pictures like the run's. A MedtlError says what cannot be made like them:
  kinds of files, numbers of another unit, classes, channels, axes.
  """
  keys, notes = _source(dict(asked), own)
  keys = _like_the_run(keys, own, plan)
  try:
    dataset, keys, resized = _of_size(keys, plan['shape'])
  except UnknownClass as error:
    raise MedtlError(f'{error}. {_rename_advice(error.name)}') from None
  if keys.get('rename'):
    dataset = class_names.in_order(dataset, plan['classes'])
  notes = [*dataset.facts['notes'], *notes, *resized, *_colours(dataset, keys, plan)]
  labelled = dataset.masks or not (np.asarray(dataset.table['y']) == -1).all()
  if labelled:
    notes += _labels(dataset, keys, plan)
  return dataclasses.replace(dataset, facts={**dataset.facts, 'notes': notes}), keys


@contextlib.contextmanager
def read_as(place: str) -> Iterator[None]:
  """While open, errors that name keys of config.data name those of `place`, 'config.tests.b'."""
  try:
    yield
  except MedtlError as error:
    error.args = (DATA_KEY.sub(lambda key: _moved(key[0], place), str(error)), *error.args[1:])
    raise


def _moved(key: str, place: str) -> str:
  """Return 'config.tests.b' for 'config.data', and 'config.tests.b.' for 'data.'."""
  return f'{place}.' if key.endswith('.') else place


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


def _source(keys: Keys, own: Mapping[str, Any]) -> tuple[Keys, list[str]]:
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
  """Raise where volumes meet a net for pictures, or the other way round."""
  trained = reader(own['name'])
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


def _classes(keys: Keys, own: Mapping[str, Any], plan: Mapping[str, Any]) -> tuple[str, ...]:
  """Return the classes that a reader is told: those asked for, else the run's.

  Where data.rename gives them other names, they are those before; () lets the reader find them.
  """
  rename = class_names.by_old_name(keys.get('rename', {}))
  is_own = rename == class_names.by_old_name(own.get('rename', {}))
  asked = tuple(keys.get('classes', ()))
  if asked and (is_own or asked != tuple(own.get('classes', ()))):
    return asked
  if not rename:
    return tuple(plan['classes'])
  return tuple(plan['data']['classes_before']) if is_own else ()


def _like_the_run(keys: Keys, own: Mapping[str, Any], plan: Mapping[str, Any]) -> Keys:
  """Return the keys with the run's channels, and with its classes where words name the class."""
  name = reader(keys['name'])
  if name == TABLE:
    return _columns_of_the_run(keys, own, plan)
  if name not in READERS.values():
    return keys
  channels = plan['shape'][-1]
  if keys.get('channels', channels) != channels:
    raise MedtlError(
      f'--config.data.channels={keys["channels"]}, and the run was trained on '
      f'{channels}; leave it out: colour then becomes grey, or grey three equal '
      'channels, as the run needs it'
    )
  label = keys.get('label', 'label')
  found = {**keys, 'channels': channels}
  if keys.get('masks', 'leave_out') not in ('leave_out', 'keep'):
    return found  # its own labels only say how pictures are dealt
  if not label:
    return {**found, 'classes': ()}
  many = plan['label_columns']
  if many == isinstance(label, str):
    columns = tuple(plan['classes'])
    raise MedtlError(
      f'the run tells {_labels_of(many)} a picture, found data.label={label!r}; '
      + (
        f'expected a manifest with these columns of 0 and 1: --config.data.label="{columns}"'
        if many
        else 'expected the name of one column, such as '
        '--config.data.label=diagnosis, or folders that name the class '
        '(--config.data.manifest= --config.data.label=label)'
      )
    )
  if many:
    return found
  return {**found, 'classes': _classes(keys, own, plan)}


def _columns_of_the_run(keys: Keys, own: Mapping[str, Any], plan: Mapping[str, Any]) -> Keys:
  """Return the keys of a table with the run's numbers of each row, and with its classes."""
  if 'columns' not in plan['data']:
    raise MedtlError(
      f'the run was trained on pictures ({_size(plan["shape"])}), and {TABLE} reads the rows of a '
      'table; choose a folder of pictures: --config.data.name=folder.load --config.data.root=FOLDER'
    )
  found = {**keys, 'columns': tuple(plan['data']['columns'])}
  if keys.get('label', 'label') and not plan['label_columns']:
    found['classes'] = _classes(keys, own, plan)
  return found


def _labels_of(many: bool) -> str:
  return 'several labels of' if many else 'one class of'


def _of_size(keys: Keys, shape: Sequence[int]) -> tuple[Dataset, Keys, list[str]]:
  """Return (data of the run's shape [*s, c], the keys that made them, words on resizing)."""
  try:
    whole = datasets.load(**keys)['test']
    shapes = {tuple(whole.facts['shape']): whole.size}
  except ShapesDiffer as error:
    whole, shapes = None, error.shapes
  for found in shapes:
    _same_axes(found, shape, keys)
  if whole is not None and keys.get('draw'):
    return whole, keys, []  # cases of any size: the net sees windows of them
  size = tuple(shape[:-1])
  others = {found[:-1]: count for found, count in shapes.items() if found[:-1] != size}
  if whole is not None and not others:
    return whole, keys, []
  resize = f'resize({", ".join(map(str, size))})'
  ops = keys.get('ops', '').strip()
  fitted = {**keys, 'ops': f'{ops} | {resize}' if ops else resize}
  return datasets.load(**fitted)['test'], fitted, [_resized(others, sum(shapes.values()), size)]


def _resized(others: Mapping[tuple[int, ...], int], total: int, size: tuple[int, ...]) -> str:
  """Return in words what was resized."""
  each = [f'{_size(one)} ({count})' for one, count in others.items()]
  shown = ', '.join(each[:6]) + (f' and {len(each) - 6} other sizes' if len(each) > 6 else '')
  ratios = [np.divide(one, size) for one in others]
  stretched = any(not np.allclose(ratio, ratio[0], rtol=0.01) for ratio in ratios)
  proportions = '; their proportions changed' if stretched else ''
  return (
    f'{sum(others.values())} of {total} pictures were resized to {_size(size)}, the size '
    f'that the run was trained on; they were {shown}{proportions}'
  )


def _size(size: Sequence[int]) -> str:
  return ' × '.join(map(str, size))


def _same_axes(found: Sequence[int], expected: Sequence[int], keys: Keys) -> None:
  """Raise where no resizing makes pictures those of the run: other channels, or other axes."""
  if len(found) != len(expected):
    kinds = {1: 'vectors', 3: 'pictures', 4: 'volumes'}
    ours, theirs = (kinds.get(len(shape), 'arrays') for shape in (expected, found))
    raise MedtlError(
      f'the run was trained on {ours} of {_size(expected)}, found {theirs} of '
      f'{_size(found)}: resizing makes no one of the other; choose data of as many '
      'axes'
    )
  if found[-1] != expected[-1]:
    raise MedtlError(
      f'the run was trained on pictures of {expected[-1]} channels, found '
      f'{found[-1]}, and {reader(keys["name"])} makes no one of the other; store '
      'the pictures in a folder, whose reader does: --config.data.name=folder.load '
      '--config.data.root=FOLDER'
    )


def colour(dataset: Dataset) -> tuple[int, int]:
  """Return (how many pictures are in colour, how many were looked at); LOOK are, evenly spread."""
  count = min(LOOK, dataset.size)
  rows = np.unique(np.linspace(0, dataset.size - 1, count).astype(int))
  coloured = 0
  for row in rows.tolist():
    differences = np.ptp(dataset.fetch(row).x, axis=-1)
    coloured += int(differences.mean() > COLOURED)
  return coloured, len(rows)


def _colours(dataset: Dataset, keys: Keys, plan: Mapping[str, Any]) -> list[str]:
  """Return in words how the pictures' colour differs from what the run was trained on."""
  if reader(keys['name']) not in PICTURES.values():
    return []
  if plan['shape'][-1] == 1:
    return [f'{words}, as the run needs it' for words in made_grey(dataset, keys)]
  coloured, looked = colour(dataset)
  trained = plan.get('colour')  # runs of older versions do not tell
  if trained and not coloured:
    return [
      f'of {looked} pictures that were looked at none is in colour, and the run was trained '
      'on pictures in colour'
    ]
  if trained is False and coloured:
    return [
      f'of {looked} pictures that were looked at {coloured} are in colour, and the run was '
      'trained on grey ones'
    ]
  return []


def made_grey(dataset: Dataset, keys: Keys) -> list[str]:
  """Return in words how many pictures of a source lose their colour where it is read as grey."""
  name = reader(keys['name'])
  if name not in PICTURES.values() or keys.get('channels', 1) != 1:
    return []
  read = expressions.find(name, 'medtl.data.sources')
  asked = {key: value for key, value in keys.items() if key not in LOAD}
  stored = read(**{**asked, 'channels': 3})
  coloured, looked = colour(stored.subset(dataset.table['row']))
  if not coloured:
    return []
  return [
    f'of {looked} pictures that were looked at {coloured} are in colour: they are read as grey'
  ]


def _labels(dataset: Dataset, keys: Keys, plan: Mapping[str, Any]) -> list[str]:
  """Return in words which classes have no example; classes that are not the run's are an error."""
  y = np.asarray(dataset.table['y'])
  many = plan['label_columns']
  if (y.ndim == 2) != many:
    raise MedtlError(
      f'the run tells {_labels_of(many)} a picture, and the other data hold '
      f'{_labels_of(not many)} each; choose data with {_labels_of(many)} each'
    )
  if dataset.classes != tuple(plan['classes']):
    raise MedtlError(
      f'the run knows the classes {", ".join(plan["classes"])}, in this order; the '
      f'other data has {", ".join(dataset.classes)}. {_class_advice(dataset, keys, plan)}'
    )
  if dataset.masks:
    return []
  present = (y > 0).any(axis=0) if many else np.isin(np.arange(len(dataset.classes)), y)
  there = dict(zip(dataset.classes, np.atleast_1d(present).tolist(), strict=True))
  absent = [name for name in there if not there[name]]
  return [f'no picture has the class {name!r}' for name in absent]


def _rename_advice(name: str) -> str:
  """Return how a class of other data is told to be one of the run's."""
  names = f'{{{name!r}: CLASS, …}}'
  if '.' in name:  # no key of a config may hold one
    names = f'(({name!r}, CLASS), …)'
  return f'Say which class of the run each of the others is: --config.data.rename="{names}"'


def _class_advice(dataset: Dataset, keys: Keys, plan: Mapping[str, Any]) -> str:
  others = [name for name in dataset.classes if name not in plan['classes']]
  if others and keys.get('rename'):
    return _rename_advice(others[0])
  if plan['label_columns']:
    return f'Expected these columns: --config.data.label="{tuple(plan["classes"])}"'
  if reader(keys['name']) in READERS.values():
    return 'Leave --config.data.classes out'
  return (
    'Expected the same names: give a folder for each class, --config.data.name=folder.load '
    f'--config.data.root=FOLDER. {_rename_advice(dataset.classes[0])}'
  )
