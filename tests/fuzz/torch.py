"""PyTorch's checkpoints: zip archives with a CRC for each member, and the older stream without any.

Nothing contradicts the names and whole numbers of a pickle, but much its opcodes and lengths.
"""

import io
import pickle
import pickletools
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.archives import STORED, archive_lies, pack
from tests.fuzz.files import EVERYTHING, Edit, Lie, Original, Outputs, Region, apply, free

FIXTURES = Path(__file__).parents[1] / 'fixtures'  # written by PyTorch
# where the argument begins; a text's length is part of it, as it may reach the PUT behind it
VALUES = {
  'BININT': 1,
  'BININT1': 1,
  'BININT2': 1,
  'LONG1': 2,
  'BINUNICODE': 1,
  'BINGET': 1,
  'BINPUT': 1,
  'LONG_BINGET': 1,
  'LONG_BINPUT': 1,
}
WIDTHS = {
  'DoubleStorage': 8,
  'FloatStorage': 4,
  'HalfStorage': 2,
  'BFloat16Storage': 2,
  'LongStorage': 8,
  'CharStorage': 1,
  'BoolStorage': 1,
}
COUNT = 60  # layers, so that the memo passes 255


def originals() -> Iterator[Original]:
  """Give PyTorch's own files in both formats, and one of many layers."""
  archive = (FIXTURES / 'weights_zip.pth').read_bytes()
  legacy = (FIXTURES / 'weights_legacy.pth').read_bytes()
  arrays = {f'layer{number}.weight': np.full((2, 3), number, np.float32) for number in range(COUNT)}
  many = _members(arrays)
  yield Original('pth', 'zip', archive, 'checkpoint', '.pth', lies=_zip_lies(_unpack(archive)))
  yield Original(
    'pth', 'zip of many layers', pack(many), 'checkpoint', '.pth', {}, arrays, lies=_zip_lies(many)
  )
  yield Original(
    'pth',
    'legacy',
    legacy,
    'checkpoint',
    '.pth',
    regions=_legacy_regions(legacy),
    lies=lambda dice: _legacy_lies(legacy, dice),
  )


def _unpack(data: bytes) -> dict[str, bytes]:
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    return {name: archive.read(name) for name in archive.namelist()}


def _members(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
  """Return the members of a zip checkpoint of float32 tensors, pickled as PyTorch does."""
  stream = Stream()
  stream.add(b'\x80\x02}').put().add(b'(')
  found = {}
  for number, (name, values) in enumerate(arrays.items()):
    stream.text(name).tensor(str(number), values.shape)
    found[f'archive/data/{number}'] = values.astype('<f4').tobytes()
  return {'archive/data.pkl': stream.add(b'u.').data, 'archive/byteorder': b'little', **found}


class Stream:
  """A pickle that grows, with a number in the memo for each text, as PyTorch writes it."""

  def __init__(self) -> None:
    self.data = b''
    self.known = 0

  def add(self, opcodes: bytes) -> 'Stream':
    """Append opcodes."""
    self.data += opcodes
    return self

  def put(self) -> 'Stream':
    """Number what lies on the stack."""
    number = struct.pack('<I', self.known)
    self.known += 1
    return self.add(b'q' + number[:1] if self.known <= 256 else b'r' + number)

  def text(self, words: str) -> 'Stream':
    """Append a text."""
    encoded = words.encode()
    return self.add(b'X' + struct.pack('<I', len(encoded)) + encoded).put()

  def tensor(self, key: str, shape: tuple[int, ...]) -> 'Stream':
    """Append a contiguous tensor that is the whole of storage `key`."""
    count = int(np.prod(shape))
    self.add(b'ctorch._utils\n_rebuild_tensor_v2\n((').text('storage')
    self.add(b'ctorch\nFloatStorage\n').text(key).text('cpu').add(b'K' + bytes([count]) + b'tQK\0')
    steps = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    for numbers in (shape, steps):
      self.add(b'(' + b''.join(b'K' + bytes([number]) for number in numbers) + b't').put()
    return self.add(b'\x89ccollections\nOrderedDict\n)RtR').put()


def _pickle_regions(data: bytes, base: int = 0) -> list[Region]:
  """Return the arguments of a pickle's opcodes that any other value could stand for."""
  operations = [(opcode.name, place) for opcode, _, place in pickletools.genops(data)]
  ends = [place for _, place in operations[1:]] + [len(data)]
  found = []
  for (name, place), end in zip(operations, ends, strict=True):
    if name in VALUES:
      shrinks = name == 'BINUNICODE'
      found.append(Region(base + place + VALUES[name], base + end, EVERYTHING, shrinks=shrinks))
  return found


class _Storages(pickle.Unpickler):
  """Notes which storages one of the fixtures asks for, in bytes; makes nothing."""

  def __init__(self, file: io.BytesIO):
    super().__init__(file)
    self.sizes: dict[str, int] = {}

  def find_class(self, module: str, name: str) -> Any:
    """Return the name of a type, or a function that makes nothing."""
    if name == 'OrderedDict':
      return OrderedDict
    return name if module == 'torch' else lambda *_: None

  def persistent_load(self, pid: Any) -> None:
    """Note a storage: ('storage', type, key, device, count, …)."""
    self.sizes[pid[2]] = WIDTHS[pid[1]] * pid[4]


def _legacy_regions(data: bytes) -> list[Region]:
  """Return what nothing contradicts in a stream of five pickles followed by storages."""
  found = []
  file = io.BytesIO(data)
  ends = []
  for _ in range(5):
    start = file.tell()
    list(pickletools.genops(file))
    ends.append(file.tell())
    found += _pickle_regions(data[start : file.tell()], start)
  tensors = _Storages(io.BytesIO(data[ends[2] :]))
  tensors.load()
  place = file.tell()
  for key in pickle.loads(data[ends[3] : ends[4]]):
    stop = place + 8 + tensors.sizes[key]
    found.append(Region(place + 8, stop, EVERYTHING))
    place = stop
  assert place == len(data), f'{len(data) - place} bytes are no storage'
  return found


def _zip_lies(members: dict[str, bytes]) -> Callable[[random.Random], Iterator[Lie]]:
  main = next(name for name in members if name.endswith('data.pkl'))
  folder = main.removesuffix('data.pkl')

  def lies(dice: random.Random) -> Iterator[Lie]:
    yield from archive_lies(members, STORED)
    for name, changed in _pickles(members[main], dice):
      yield Lie(name, pack({**members, main: changed}))
    for name, changed in _other_names(members[main][:2]):
      yield Lie(name, pack({**members, main: changed}), EVERYTHING)
    for name, changed in _storages(members, f'{folder}data/0'):
      yield Lie(name, pack(changed))
    big = {**members, f'{folder}byteorder': b'big'}
    yield Lie('big-endian claimed', pack(big))
    yield Lie('byte order of nonsense', pack({**members, f'{folder}byteorder': b'\xff'}))
    second = {**members, 'other/data.pkl': pickle.dumps({}, 2)}
    yield Lie('two checkpoints in one archive', pack(second))
    edit = _in_pickle(members[main], dice)
    yield Lie(
      'a bit of the pickle, CRC right',
      pack({**members, main: apply(members[main], edit)}),
      _allowed(members[main], edit),
    )

  return lies


def _in_pickle(data: bytes, dice: random.Random) -> list[Edit]:
  place = dice.randrange(len(data))
  return [Edit(place, place + 1, bytes([data[place] ^ 1 << dice.randrange(8)]))]


def _allowed(data: bytes, edits: list[Edit]) -> Outputs:
  """Return what may differ after edits of a pickle."""
  alone = Original('', '', data, '', '', regions=_pickle_regions(data))
  return free(alone, edits)


def _storages(members: dict[str, bytes], key: str) -> Iterator[tuple[str, dict[str, bytes]]]:
  """Give storages that are not what the tensors ask for."""
  data = members[key]
  yield 'storage short', {**members, key: data[:-4]}
  yield 'storage long', {**members, key: data + bytes(4)}
  yield 'storage empty', {**members, key: b''}
  yield 'storage missing', {name: body for name, body in members.items() if name != key}


def _pickles(data: bytes, dice: random.Random) -> Iterator[tuple[str, bytes]]:
  """Give pickles that ask for too much, or for what makes no sense."""
  start = data[:2]
  body = data[2:]
  gigabytes = struct.pack('<I', 0x7FFFFFF0)
  yield 'pickle cut', data[: dice.randrange(2, len(data))]
  yield 'pickle empty', b''
  yield 'memo of half a gigabyte', start + b'Nr\0\0\0\x020' + body  # pickle takes 16 bytes each
  yield 'text of gigabytes', start + b'X' + gigabytes + body
  yield 'number of gigabytes', start + b'\x8b' + gigabytes + body
  yield 'bytes of 2 ** 62', start + b'\x8e' + struct.pack('<Q', 1 << 62) + body
  yield 'frame of 2 ** 62', b'\x80\x04\x95' + struct.pack('<Q', 1 << 62) + body
  yield 'protocol 9', b'\x80\x09' + body
  yield 'brackets without end', start + b'(' * 100000 + b't' * 100000 + b'.'
  yield 'deep dictionaries', start + _nested(3000)
  yield 'a dictionary inside itself', start + b'}q\0' + _text('state_dict') + b'h\0s.'
  yield 'a list', start + b']K\x01a.'
  yield 'nothing', start + b'N.'
  yield 'a tuple in itself 2 ** 40 times', start + _doubled(40) + b'Q.'
  yield 'a class named by such a tuple', start + b'}' + _text('w') + _doubled(40) + b'N\x93s.'
  yield 'such a tuple for a call', start + b'}' + _text('w') + _doubled(40) + b')\x81s.'
  for name, keys in (
    ('shape of text', dict(shape=b'(' + _text('4') + b't')),
    ('shape of fractions', dict(shape=b'(G?\xf0\0\0\0\0\0\0t')),
    ('shape of nothing', dict(shape=b'N')),
    (
      'more axes than numpy has',
      dict(shape=b'(' + b'K\x01' * 70 + b't', stride=b'(' + b'K\x01' * 70 + b't'),
    ),
    ('stride that overflows', dict(stride=b'(\x8a\x09' + bytes(8) + b'\x01t')),
    (
      'empty shape that overflows',
      dict(shape=b'(K\0\x8a\x08' + bytes(7) + b'\x40t', stride=b'(K\0K\0t'),
    ),
    ('shape that overflows', dict(shape=b'(\x8a\x09' + bytes(8) + b'\x01t')),
    ('negative shape', dict(shape=b'(J\xff\xff\xff\xfft')),
    ('shape of gigabytes, stride 0', dict(shape=b'(J\0\0\0\x40t', stride=b'(K\0t')),
    ('more strides than axes', dict(stride=b'(K\x01K\x01t')),
    ('offset of text', dict(offset=_text('0'))),
    ('offset outside', dict(offset=b'J\0\0\0\x40')),
    ('no storage but text', dict(storage=_text('0'))),
    ('storage of no type', dict(kind=_text('Float'))),
    ('storage of -1 numbers', dict(count=b'J\xff\xff\xff\xff')),
    ('storage of text numbers', dict(count=_text('many'))),
    ('storage of 2 ** 40 numbers', dict(count=b'\x8a\x06\0\0\0\0\0\x01')),
    ('storage of nothing', dict(count=b'N')),
    ('storage key of nothing', dict(key=b'N')),
    ('storage key of a list', dict(key=b']')),
  ):
    yield name, start + b'}' + _text('w') + _tensor(**keys) + b's.'


def _other_names(start: bytes) -> Iterator[tuple[str, bytes]]:
  """Give pickles whose only tensor has an odd name, but truly has it: another legal file."""
  yield 'numbers for names', start + b'}' + b'K\x01' + _tensor() + b's.'
  yield 'bytes for names', start + b'}' + b'U\x01\xff' + _tensor() + b's.'


def _doubled(times: int) -> bytes:
  """Return the opcodes of a tuple of two equal tuples of two equal tuples …"""
  return b')' + b'2\x86' * times


def _text(words: str) -> bytes:
  return b'X' + struct.pack('<I', len(words)) + words.encode()


def _tensor(
  shape: bytes = b'(K\x01t',
  stride: bytes = b'(K\x01t',
  offset: bytes = b'K\0',
  kind: bytes = b'ctorch\nFloatStorage\n',
  key: bytes | None = None,
  count: bytes = b'K\x06',
  storage: bytes | None = None,
) -> bytes:
  """Return the opcodes of one tensor, parts of it replaced."""
  key = _text('0') if key is None else key
  if storage is None:
    storage = b'(' + _text('storage') + kind + key + _text('cpu') + count + b'tQ'
  return b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + offset + shape + stride + b'tR'


def _nested(depth: int) -> bytes:
  """Return dictionaries inside dictionaries."""
  return (b'}' + _text('model')) * depth + b'N' + b's' * depth + b'.'


def _legacy_lies(data: bytes, dice: random.Random) -> Iterator[Lie]:
  """Give streams whose pickles and storages do not fit each other."""
  file = io.BytesIO(data)
  ends = []
  for _ in range(5):
    list(pickletools.genops(file))
    ends.append(file.tell())
  before, main, keys, storages = (
    data[: ends[2]],
    data[ends[2] : ends[3]],
    data[ends[3] : ends[4]],
    data[ends[4] :],
  )
  for name, changed in _pickles(main, dice):
    yield Lie(name, before + changed + keys + storages)
  listed = pickle.loads(keys)
  for name, other in (
    ('keys reversed', listed[::-1]),
    ('keys without the last', listed[:-1]),
    ('a key twice', listed + listed[:1]),
    ('keys of numbers', [1, 2]),
    ('no list of keys', {'a': 1}),
    ('keys of nothing', None),
  ):
    yield Lie(name, before + main + pickle.dumps(other, 2) + storages)
  deep = b'\x80\x02' + b']' * 3001 + b'a' * 3000 + b'.'
  yield Lie('keys of deep lists', before + main + deep + storages)
  yield Lie('no keys', before + main + storages)
  yield Lie('no storages', before + main + keys)
  yield Lie(
    'first storage of 2 ** 40 numbers', data[: ends[4]] + struct.pack('<q', 1 << 40) + storages[8:]
  )
  yield Lie('first storage of -1 numbers', data[: ends[4]] + struct.pack('<q', -1) + storages[8:])
  yield Lie('last storage short', data[:-1])
  yield Lie('bytes behind the last storage', data + bytes(8))
