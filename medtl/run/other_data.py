"""Data that a run was not trained on, read as the run's own were.

The reader is chosen by what the files hold; classes, channels and size become the run's.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medtl import data as datasets
from medtl.core.types import Dataset, MedtlError, ShapesDiffer
from medtl.data import class_names
from medtl.data.listing.labels import UnknownClass
from medtl.run import colours, readers
from medtl.run.readers import READERS, TABLE, Keys, reader

UNSPLIT = {'split': {'by': 'none'}, 'site': ''}  # one side, wherever its examples come from
# a key of config.data in an error; values=modality is told of the run's own
DATA_KEY = re.compile(
  r'(?:--)?config\.data\b|(?<![\w./-])data\.(?!values=modality)(?=[a-z_.]+[=:])'
)


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
  keys, notes = readers.choose(dict(asked), own)
  keys = _like_the_run(keys, own, plan)
  try:
    dataset, keys, resized = _of_size(keys, plan['shape'])
  except UnknownClass as error:
    raise MedtlError(f'{error}. {_rename_advice(error.name)}') from None
  if keys.get('rename'):
    dataset = class_names.in_order(dataset, plan['classes'])
  notes = [*dataset.facts['notes'], *notes, *resized, *colours.differences(dataset, keys, plan)]
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
