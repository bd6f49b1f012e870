"""numpy's npz, as MedMNIST publishes its sets and as checkpoints: zip members with a CRC each.

So every changed byte can be noticed. What a program wrote wrongly contradicts the set's own name:
28 pixels a side, 8 bits, a label for each picture.
"""

import io
import random
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tests.fuzz.files import EVERYTHING, Lie, Original, picture

COUNTS = dict(train=5, val=2, test=3)
STORED, DEFLATED, LZMA = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA
Members = dict[str, bytes]


def originals() -> Iterator[Original]:
  """Give small sets in MedMNIST's format: grey, colour, many labels, grades, volumes."""
  yield _set('breastmnist', (28, 28))
  yield _set('pathmnist', (28, 28, 3))
  yield _set('chestmnist', (28, 28), labels=14)
  yield _set('retinamnist', (28, 28, 3))
  yield _set('nodulemnist3d', (28, 28, 28))


def checkpoints() -> list[Original]:
  """Return checkpoints of numpy arrays, packed and not."""
  arrays = tensors()
  members = {f'{name}.npy': npy(values) for name, values in arrays.items()}
  truth = {name: values.astype(np.float32) for name, values in arrays.items()}
  found = []
  for name, method in (('stored', STORED), ('deflated', DEFLATED)):
    found.append(
      Original(
        'npz weights',
        name,
        pack(members, method),
        'checkpoint',
        '.npz',
        {},
        truth,
        lies=_checkpoint_lies(members, method),
      )
    )
  return found


def tensors() -> dict[str, np.ndarray]:
  """Return arrays of several types under names that a checkpoint has."""
  values = np.random.RandomState(3).standard_normal(120).astype(np.float32)
  return {
    'stem/kernel': values[:54].reshape(3, 3, 2, 3),
    'stem/bias': values[54:57],
    'head/kernel': values[60:80].reshape(4, 5).astype(np.float16),
    'head/bias': values[80:85].astype(np.float64),
    'step': np.array(7),
  }


def _set(flag: str, shape: tuple[int, ...], labels: int = 1) -> Original:
  arrays, order = {}, np.random.RandomState(1)
  for number, (side, count) in enumerate(COUNTS.items()):
    pixels = picture((count * shape[0], *shape[1:]), 255, number).astype(np.uint8)
    if len(shape) == 3 and labels == 1:
      pixels &= 0xE0  # larger sets are packed sooner with fewer values
    arrays[f'{side}_images'] = pixels.reshape(count, *shape)
    arrays[f'{side}_labels'] = order.randint(0, 2, (count, labels)).astype(np.uint8)
  members = {f'{name}.npy': npy(values) for name, values in arrays.items()}
  y = np.concatenate([arrays[f'{side}_labels'] for side in COUNTS])
  x = np.concatenate([arrays[f'{side}_images'].ravel() for side in COUNTS])
  split = np.repeat(list(COUNTS), list(COUNTS.values()))
  truth = {'x': x / np.float32(255), 'y': y if labels > 1 else y[:, 0], 'split': split}
  return Original(
    'npz MedMNIST',
    flag,
    pack(members, DEFLATED),
    'medmnist',
    '.npz',
    dict(flag=flag),
    truth,
    lies=_set_lies(members, arrays),
  )


def npy(values: np.ndarray) -> bytes:
  """Return an array as numpy writes it."""
  file = io.BytesIO()
  np.lib.format.write_array(file, values)
  return file.getvalue()


def pack(members: Mapping[str, bytes], method: int = STORED) -> bytes:
  """Return a zip archive of members, the same bytes each time."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', method) as archive:
    for name, data in members.items():
      archive.writestr(zipfile.ZipInfo(name), data, method, compresslevel=1)
  return file.getvalue()


def headed(member: bytes, old: str, new: str) -> bytes:
  """Return an .npy file with a part of its header replaced, its length corrected."""
  (length,) = struct.unpack_from('<H', member, 8)
  header = member[10 : 10 + length].decode('latin-1')
  assert old in header, f'{old} is not in {header}'
  changed = header.replace(old, new).encode('latin-1')
  return member[:8] + struct.pack('<H', len(changed)) + changed + member[10 + length :]


def archive_lies(members: Members, method: int) -> Iterator[Lie]:
  """Give archives whose directory contradicts their members."""
  whole = pack(members, method)
  directory = whole.index(b'PK\x01\x02')
  first = next(iter(members))
  name = first.encode()

  def central(offset: int, value: bytes) -> bytes:
    return whole[: directory + offset] + value + whole[directory + offset + len(value) :]

  yield Lie('compression denied or claimed', central(10, struct.pack('<H', 8 - method)))
  yield Lie('compression 99', central(10, struct.pack('<H', 99)))
  yield Lie('CRC of another member', central(16, b'\1\2\3\4'))
  yield Lie('member of gigabytes packed', central(20, b'\xf0\xff\xff\xff'))
  yield Lie('member of gigabytes unpacked', central(24, b'\xf0\xff\xff\xff'))
  yield Lie('member shorter', central(24, struct.pack('<I', len(members[first]) - 8)))
  yield Lie('member outside the file', central(42, b'\xf0\xff\xff\x7f'))
  yield Lie('encrypted', central(8, b'\1\0'))
  yield Lie(
    'another name in the directory',
    whole[:directory] + whole[directory:].replace(name, b'z' + name[1:], 1),
  )
  yield Lie('packed anew', pack(members, DEFLATED if method == STORED else STORED))
  yield Lie('packed with LZMA', pack(members, LZMA))
  yield Lie('members in another order', pack(dict(reversed(members.items())), method))
  yield Lie('no member', pack({}, method))
  for place, missing in (('first', first), ('last', list(members)[-1])):
    kept = {name: data for name, data in members.items() if name != missing}
    yield Lie(f'{place} member missing', pack(kept, method), _fewer(missing))
  yield Lie('an empty member', pack({**members, first: b''}, method))
  yield Lie(
    'half a member', pack({**members, first: members[first][: len(members[first]) // 2]}, method)
  )
  yield Lie(
    'a member with bytes behind it', pack({**members, first: members[first] + b'12345678'}, method)
  )
  yield Lie('a name twice', pack_twice(members, first, method))
  yield Lie('a member of another folder', pack({**members, f'../{first}': b'12345678'}, method))


def pack_twice(members: Members, name: str, method: int) -> bytes:
  """Return an archive with two members of one name, the second of which is another."""
  stand_in = 'z' * len(name)
  whole = pack({**members, stand_in: members[name][:-8] + bytes(8)}, method)
  return whole.replace(stand_in.encode(), name.encode())


def _fewer(member: str) -> frozenset[str]:
  """Return what may differ without a member: its array is gone from a checkpoint, and no more."""
  return frozenset({member.removesuffix('.npy')})


def header_lies(member: bytes) -> Iterator[tuple[str, bytes]]:
  """Give .npy files with headers that do not fit their data, or are none."""
  shape = np.lib.format.read_magic(io.BytesIO(member)) and np.load(io.BytesIO(member)).shape
  text = str(shape)
  more = str((shape[0] + 1, *shape[1:]))
  less = str((shape[0] - 1, *shape[1:]))
  kind = np.load(io.BytesIO(member)).dtype.str
  yield 'more rows than data', headed(member, text, more)
  yield 'fewer rows than data', headed(member, text, less)
  yield 'gigabytes declared', headed(member, text, str((1 << 40, *shape[1:])))
  yield 'negative rows', headed(member, text, str((-1, *shape[1:])))
  yield 'a shape of text', headed(member, text, "('a',)")
  yield 'no shape', headed(member, f"'shape': {text}", "'size': 3")
  yield 'an unknown type', headed(member, kind, '|Q9')
  yield 'objects', headed(member, kind, '|O')
  yield 'text', headed(member, kind, '|S1' if kind == '|u1' else '<U1')
  yield 'a type of fields', headed(member, f"'{kind}'", "[('a', '|u1')]")
  yield 'numbers twice as wide', headed(member, kind, '<u2' if kind == '|u1' else '<f8')
  yield 'a call in the header', headed(member, text, '__import__("os").getcwd()')
  yield 'a header that never ends', headed(member, '}', ' ')
  yield 'deep brackets', headed(member, text, '(' * 900 + ')' * 900)
  yield 'version 9 of the format', member[:6] + b'\x09\0' + member[8:]
  yield 'header longer than the file', member[:8] + b'\xff\xff' + member[10:]


def _odd_headers(member: bytes) -> Iterator[tuple[str, bytes]]:
  """Give .npy files of a checkpoint with headers that numpy itself stumbles over."""
  shape = str(np.load(io.BytesIO(member)).shape)
  yield 'more axes than numpy has', headed(member, shape, str((1,) * 70))
  yield 'an empty shape that overflows', headed(member, shape, str((0, 1 << 62)))
  yield 'numbers for the words of the header', headed(member, "'shape'", '3')
  yield 'deep minus signs', headed(member, shape, '-' * 9000 + '1')
  yield 'numbers without a type', headed(member, '<f4', '|V4')
  yield 'a type of no bytes', headed(member, '<f4', '|V0')


def _swallowed(members: Members, method: int) -> bytes:
  """Return an archive whose first part has all others as its comment."""
  whole = pack(members, method)
  first = whole.index(b'PK\x01\x02')
  second = whole.index(b'PK\x01\x02', first + 4)
  end = whole.index(b'PK\x05\x06')
  return whole[: first + 32] + struct.pack('<H', end - second) + whole[first + 34 :]


def _set_lies(members: Members, arrays: Mapping[str, np.ndarray]) -> Callable[..., Iterator[Lie]]:
  def lies(dice: random.Random) -> Iterator[Lie]:
    for lie in archive_lies(members, DEFLATED):
      yield Lie(lie.name, lie.data)
    for target in ('train_images.npy', 'val_labels.npy'):
      for name, changed in header_lies(members[target]):
        yield Lie(f'{target[:-4]}: {name}', pack({**members, target: changed}, DEFLATED))
    for name, changed in _other_arrays(arrays, dice):
      files = {f'{key}.npy': npy(values) for key, values in changed.items()}
      yield Lie(name, pack(members | files, DEFLATED))
    sides = {
      'train_labels.npy': members['test_labels.npy'],
      'test_labels.npy': members['train_labels.npy'],
      'train_images.npy': members['test_images.npy'],
      'test_images.npy': members['train_images.npy'],
    }
    yield Lie('train and test swapped', pack(members | sides, DEFLATED), EVERYTHING)
    none = {f'val_{kind}.npy': npy(arrays[f'val_{kind}'][:0]) for kind in ('images', 'labels')}
    yield Lie('no picture in a side', pack(members | none, DEFLATED), EVERYTHING)

  return lies


def _other_arrays(
  arrays: Mapping[str, np.ndarray], dice: random.Random
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
  """Give arrays that the set named so cannot have."""
  images, labels = arrays['train_images'], arrays['train_labels']
  row = dice.randrange(len(labels))
  swapped = dict(train_images=labels, train_labels=images)
  yield 'pictures and labels swapped', swapped
  yield 'fewer labels than pictures', dict(train_labels=labels[:-1])
  yield 'more labels than pictures', dict(train_labels=np.repeat(labels, 2, axis=0))
  yield 'labels in a flat row', dict(train_labels=labels.ravel())
  yield 'labels with a column more', dict(train_labels=np.repeat(labels, 2, axis=1))
  yield 'a label outside the classes', dict(train_labels=_with(labels, row, 200))
  yield 'a negative label', dict(train_labels=_with(labels.astype(np.int8), row, -1))
  yield 'a label of 0.7', dict(train_labels=_with(labels.astype(np.float32), row, 0.7))
  yield 'a label that is NaN', dict(train_labels=_with(labels.astype(np.float32), row, np.nan))
  yield 'labels as text', dict(train_labels=labels.astype('U1'))
  yield 'pictures of 16 bits', dict(train_images=images.astype(np.uint16) * 257)
  yield 'pictures of 0 to 1', dict(train_images=(images / 255).astype(np.float32))
  yield 'signed pictures', dict(train_images=images.view(np.int8))
  yield 'pictures of NaN', dict(train_images=np.full(images.shape, np.nan, np.float32))
  yield 'pictures of another size', dict(train_images=images[:, :20])
  narrow = images.reshape(len(images), 14, 56, *images.shape[3:])
  yield 'pictures reshaped', dict(train_images=narrow)
  yield 'pictures with an axis more', dict(train_images=images[..., None])
  yield 'pictures with an axis less', dict(train_images=images[..., 0])
  yield 'pictures of complex numbers', dict(train_images=images.astype(np.complex64))
  yield 'one number for all pictures', dict(train_images=np.uint8(3))


def _with(values: np.ndarray, row: int, value: float) -> np.ndarray:
  """Return the array with one row replaced."""
  changed = values.copy()
  changed[row] = value
  return changed


def _checkpoint_lies(members: Members, method: int) -> Callable[..., Iterator[Lie]]:
  def lies(dice: random.Random) -> Iterator[Lie]:
    yield from archive_lies(members, method)
    target = 'stem/kernel.npy'
    left_out = dict.fromkeys(('objects', 'text'), _fewer(target))  # and that is said
    for name, changed in (*header_lies(members[target]), *_odd_headers(members[target])):
      free = left_out.get(name, frozenset())
      yield Lie(name, pack({**members, target: changed}, method), free)
    yield Lie('a list that ends early', _swallowed(members, method))
    yield Lie('no array but text', pack({**members, 'note.txt': b'by hand'}, method))

  return lies
