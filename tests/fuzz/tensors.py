"""safetensors: a header in JSON says types, shapes and places; names and data have no checksum."""

import json
import random
import struct
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from tests.fuzz.archives import tensors
from tests.fuzz.files import EVERYTHING, Lie, Original, Region


def originals() -> Iterator[Original]:
  """Give files as the safetensors package writes them, with and without notes."""
  few = {'head.bias': np.arange(4, dtype=np.float32), 'head.weight': np.eye(4, 3, dtype=np.float32)}
  brain = {'w': np.linspace(-2, 2, 30).astype(ml_dtypes.bfloat16).reshape(5, 6)}
  yield _original('several types', tensors(), {'format': 'np'})
  yield _original('two arrays', few, None)
  yield _original('bfloat16', brain, {'note': 'brain'})


def _original(name: str, arrays: dict[str, np.ndarray], notes: dict[str, str] | None) -> Original:
  data = safetensors.numpy.save(arrays, notes)
  truth = {key: values.astype(np.float32) for key, values in arrays.items()}
  return Original(
    'safetensors',
    name,
    data,
    'checkpoint',
    '.safetensors',
    {},
    truth,
    regions=_regions(data),
    lies=lambda dice: _lies(data, dice),
  )


def header(data: bytes) -> tuple[dict[str, Any], int]:
  """Return the header and where the data begin."""
  (length,) = struct.unpack_from('<Q', data)
  return json.loads(data[8 : 8 + length]), 8 + length


def _regions(data: bytes) -> list[Region]:
  said, begin = header(data)
  found = []
  for name, entry in said.items():
    quoted = json.dumps(name).encode()
    place = data.index(quoted)
    found.append(Region(place + 1, place + len(quoted) - 1, EVERYTHING))
    if name != '__metadata__':
      start, stop = entry['data_offsets']
      found.append(Region(begin + start, begin + stop, frozenset({name})))
  return found


def join(said: Any, body: bytes) -> bytes:
  """Return a file of a header and data."""
  text = said if isinstance(said, bytes) else json.dumps(said).encode()
  return struct.pack('<Q', len(text)) + text + body


def _lies(data: bytes, dice: random.Random) -> Iterator[Lie]:
  said, begin = header(data)
  body = data[begin:]
  text = data[8:begin]
  name = next(key for key in said if key != '__metadata__')
  for title, change, legal in _entries(said[name]):
    yield Lie(title, join({**said, name: change}, body), EVERYTHING if legal else frozenset())
  for title, length in (
    ('header of 2 ** 63 bytes', 1 << 63),
    ('header of gigabytes', 6 << 30),
    ('header of no bytes', 0),
    ('header longer', begin),
    ('header shorter', begin - 16),
  ):
    yield Lie(title, struct.pack('<Q', length) + data[8:])
  yield Lie('data short', data[:-4])
  yield Lie('data long', data + bytes(4))
  yield Lie('a name twice', join(text.rstrip()[:-1] + b',' + text.lstrip()[1:], body))
  yield Lie('header of a list', join([said], body))
  yield Lie('header of deep brackets', join(b'{"a":' + b'[' * 5000 + b']' * 5000 + b'}', body))
  torn = text.replace(name.encode(), b'\xff' + name.encode()[1:])
  yield Lie('header not UTF-8', join(torn, body))
  yield Lie('notes of numbers', join({**said, '__metadata__': {'epoch': 3}}, body))
  yield Lie('no array', join({'__metadata__': {'format': 'np'}}, b''))
  yield Lie(
    'an entry missing', join({key: entry for key, entry in said.items() if key != name}, body)
  )
  yield Lie(
    'an array of no numbers',
    join({'z': dict(dtype='F32', shape=[0], data_offsets=[0, 0]), **said}, body),
    frozenset({'z'}),
  )
  for title, shape in (
    ('of an empty shape that overflows', [0, 1 << 62]),
    ('of more axes than numpy has', [0] * 70),
  ):
    odd = dict(dtype='F32', shape=shape, data_offsets=[0, 0])
    yield Lie(f'an array {title}', join({'z': odd, **said}, body))


def _entries(entry: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
  """Give one array's entry changed, and whether nothing else in the file contradicts it."""
  shape, (start, stop) = entry['shape'], entry['data_offsets']
  yield 'more numbers than data', {**entry, 'shape': [*shape, 2]}, False
  yield 'fewer numbers than data', {**entry, 'shape': shape[:-1]}, len(shape) == 0
  yield 'shape reversed', {**entry, 'shape': shape[::-1]}, True
  yield 'negative shape', {**entry, 'shape': [-1]}, False
  yield 'shape of text', {**entry, 'shape': ['4']}, False
  yield 'shape that overflows', {**entry, 'shape': [1 << 62, 1 << 62]}, False
  yield 'more axes than numpy has', {**entry, 'shape': [*shape, *[1] * 70]}, False
  yield 'empty shape that overflows', {**entry, 'shape': [0, 1 << 62]}, False
  yield 'other type', {**entry, 'dtype': 'F32' if entry['dtype'] == 'BF16' else 'U8'}, False
  yield 'same width, other type', {**entry, 'dtype': _sibling(entry['dtype'])}, True
  yield 'unknown type', {**entry, 'dtype': 'Q7'}, False
  yield 'type of 8-bit floats', {**entry, 'dtype': 'F8_E4M3'}, False
  yield 'places reversed', {**entry, 'data_offsets': [stop, start]}, False
  yield 'places outside', {**entry, 'data_offsets': [start + (1 << 40), stop + (1 << 40)]}, False
  yield 'places overlap', {**entry, 'data_offsets': [start + 4, stop + 4]}, False
  yield 'no places', {key: entry[key] for key in ('dtype', 'shape')}, False
  yield 'nothing', None, False


def _sibling(kind: str) -> str:
  """Return another type with as many bytes a number."""
  return {'F64': 'I64', 'I64': 'F64', 'F32': 'I32', 'F16': 'BF16', 'BF16': 'F16'}[kind]
