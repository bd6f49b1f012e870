"""Keras' .h5 files, which are HDF5: Keras 2 weights or models, Keras 3 weights.

The caller puts the file's name in front of the messages of MedtlErrors.
"""

import contextlib
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from medtl.core.types import MedtlError
from medtl.models.pretrained import nested_contents
from medtl.models.pretrained.pickle_reader import printable

# HDF5 File Format Specification 3.0, III.E: a global heap of texts, and an object in it
_HEAP = b'GCOL\1\0\0\0'  # begins a heap
_HEAP_BYTES = 16  # of the header of a heap
_OBJECT_BYTES = 16  # of the header of an object
_ALIGNED = 8  # heaps and objects begin at multiples of it


def read(opened_file: BinaryIO, _: contextlib.ExitStack) -> dict[str, Any]:
  """Return {'layer/variable': array}.

  Keras 3 numbers a layer's variables: their names follow from their shapes.
  """
  import h5py

  datasets: dict[str, h5py.Dataset] = {}
  layers: dict[str, list[Any]] = {}
  arrays: dict[str, Any] = {}

  def note(name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset) and not name.startswith('optimizer'):
      datasets[name] = item

  _check_heaps(opened_file.read())
  try:
    with h5py.File(opened_file) as file:
      file.visititems(note)
      for name in sorted(datasets):
        dataset = datasets[name]
        group = dataset.parent
        if group.name.endswith('/vars') and 'name' in group.attrs:
          layers.setdefault(str(group.attrs['name']), []).append(_values(dataset))
        else:
          arrays[_name(dataset)] = _values(dataset)
  except MedtlError:
    raise
  except Exception:  # h5py raises whatever a damaged file makes it stumble over
    raise MedtlError('is truncated or no Keras file: HDF5 cannot read it; get it again') from None
  for layer, values in layers.items():
    for variable, value in zip(_variable_names(values), values, strict=True):
      arrays[f'{layer}/{variable}'] = value
  return arrays


def _name(dataset: Any) -> str:
  """Return 'layer/variable' of what Keras 2 wrote.

  A layer's name may hold slashes: 'expanded_conv/project/BatchNorm'. The group that lists the
  names of a layer's weights bears it, and so do the weights in there. The weights of a network
  within a network, or within a scope, are named by the last two words.
  """
  path = dataset.name.split(':')[0]
  for group in _groups_around(dataset):
    if 'weight_names' not in group.attrs:
      continue
    layer = group.name.removeprefix('/model_weights').removeprefix('/')
    inside = path.removeprefix(f'{group.name}/')
    if inside.startswith(f'{layer}/'):
      return inside
    break
  return '/'.join(path.split('/')[-2:])


def _groups_around(item: Any) -> Iterator[Any]:
  """Yield the groups that an item lies in, from the innermost on."""
  while item.name != '/':
    item = item.parent
    yield item


def _values(dataset: Any) -> np.ndarray | nested_contents.Other:
  """Return the numbers of an h5py.Dataset, or what it holds instead."""
  if dataset.external or dataset.is_virtual:
    name = printable(dataset.name.removeprefix('/'))
    raise MedtlError(
      f'is refused: the numbers of {name} lie in another file; save it again as one file'
    )
  if dataset.shape is None:
    return nested_contents.Other('nothing')
  return np.asarray(dataset[()])


def _variable_names(values: list[Any]) -> list[str]:
  """Return the names of a Keras 3 layer's numbered variables."""
  vectors = all(np.ndim(value) == 1 for value in values)
  known = ['gamma', 'beta', 'moving_mean', 'moving_variance'] if vectors else ['kernel', 'bias']
  numbers = [str(index) for index in range(len(known), len(values))]
  return known[: len(values)] + numbers


def _check_heaps(data: bytes) -> None:
  """Raise MedtlError for an object of 0 bytes, at which the library would search without end."""
  for heap in _heaps(data):
    (heap_bytes,) = struct.unpack_from('<Q', data, heap + 8)
    end = min(heap + heap_bytes, len(data))
    place = heap + _HEAP_BYTES
    while place + _OBJECT_BYTES <= end:
      index, size = struct.unpack_from('<H6xQ', data, place)
      if index == 0 and size == 0:
        raise MedtlError('is damaged: an object in it has no bytes; get it again')
      padding = -size % _ALIGNED
      place += size if index == 0 else _OBJECT_BYTES + size + padding


def _heaps(data: bytes) -> Iterator[int]:
  """Yield where the heaps of a file begin."""
  place = data.find(_HEAP)
  while place >= 0:
    if place % _ALIGNED == 0 and place + _HEAP_BYTES <= len(data):
      yield place
    place = data.find(_HEAP, place + 1)
