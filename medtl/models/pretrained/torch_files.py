"""PyTorch's checkpoints and plain pickles read without PyTorch: tensors, and names for all else.

The two formats are those of `torch/serialization.py`: a zip archive of `data.pkl` and one file per
storage (since 1.6; TorchScript writes the same), and the older stream of pickles followed by the
storages. The caller puts the file's name in front of the messages of MedtlErrors.
"""

import contextlib
import functools
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from medtl.core.types import MedtlError
from medtl.models.pretrained import pickle_reader
from medtl.models.pretrained.pickle_reader import Name, printable
from medtl.models.pretrained.torch_tensors import MAKERS, STORAGES, Storage

# what `zipfile` raises for damaged archives, names in no known code, and sizes beyond all memory
_ZIP_ERRORS = (
  zipfile.BadZipFile,
  zlib.error,
  lzma.LZMAError,
  struct.error,
  EOFError,
  OSError,
  ValueError,
  RuntimeError,
  OverflowError,
  MemoryError,
)
# the first two pickles of the older stream
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_COUNT_BYTES = 8  # before each storage of the older stream: how many numbers it has


@contextlib.contextmanager
def unpacking(what: str) -> Iterator[None]:
  """Turn the errors of a zip archive into a MedtlError that says what cannot be read."""
  try:
    yield
  except _ZIP_ERRORS:
    raise MedtlError(f'is truncated or damaged: {what} cannot be read; get it again') from None


def read_zip(archive: zipfile.ZipFile) -> Any:
  """Return what a zip checkpoint holds, see pickle_reader.load.

  Its tensors read their numbers from the archive, which must stay open.
  """
  names = archive.namelist()
  main = min((name for name in names if name.endswith('data.pkl')), key=len)
  folder = main.removesuffix('data.pkl')
  if f'{folder}byteorder' in names:
    _check_order(_member(archive, f'{folder}byteorder'))
  storages: dict[Any, Storage] = {}
  value = _load(io.BytesIO(_member(archive, main)), storages)
  for key, storage in storages.items():
    name = f'{folder}data/{key}'
    storage.read = functools.partial(_read_storage, archive, name, storage.nbytes)
  return value


def _check_order(order: bytes) -> None:
  if order == b'big':
    raise MedtlError('was written on a big-endian machine; save it again on a little-endian one')
  if order != b'little':
    raise MedtlError('is damaged: its order of bytes is neither little nor big; get it again')


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
  with unpacking(f'its part {printable(name)}'):
    return archive.read(name)


def _read_storage(archive: zipfile.ZipFile, name: str, nbytes: int) -> bytes:
  """Return the bytes of a storage; a MedtlError where there are not `nbytes` of them."""
  key = printable(name.rpartition('/')[2])
  try:
    size = archive.getinfo(name).file_size
  except KeyError:
    raise MedtlError(f'is damaged: it lacks the storage {key}; get it again') from None
  if size != nbytes:  # asked before anything is unpacked
    raise MedtlError(
      f'is damaged: the storage {key} has {size} bytes, expected {nbytes}; get it again'
    )
  return _member(archive, name)


def read_stream(file: BinaryIO) -> Any:
  """Return what PyTorch's older stream, or any other pickle, holds.

  Its tensors read their numbers from the file, which must stay open.
  """
  first = _load(file, {})
  if first != MAGIC:
    return first
  if _load(file, {}) != PROTOCOL:
    raise MedtlError(f"is in another version of PyTorch's format than {PROTOCOL}; save it again")
  _load(file, {})  # the machine's integer sizes
  storages: dict[Any, Storage] = {}
  value = _load(file, storages)
  keys = _load(file, {})
  are_names = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
  if not are_names or len(keys) != len(storages) or set(keys) != set(storages):
    raise MedtlError('is damaged: its list of storages is not that of its tensors; get it again')
  begin = file.tell()
  end = file.seek(0, io.SEEK_END)
  for key in keys:
    storage = storages[key]
    file.seek(begin)
    count = int.from_bytes(file.read(_COUNT_BYTES), 'little')
    numbers = begin + _COUNT_BYTES
    after = numbers + storage.nbytes
    if count * storage.dtype.itemsize != storage.nbytes or after > end:
      raise MedtlError(f'is truncated or damaged: a storage has {count} numbers; get it again')
    storage.read = functools.partial(_section, file, numbers, storage.nbytes)
    begin = after
  if begin != end:  # a byte more among the numbers would move all behind it
    raise MedtlError(
      f'has {end - begin} bytes behind its last storage: it is damaged, get it '
      'again; or it holds several objects, save them in a file each'
    )
  return value


def _section(file: BinaryIO, begin: int, nbytes: int) -> bytes:
  file.seek(begin)
  return file.read(nbytes)


def _load(file: BinaryIO, storages: dict[Any, Storage]) -> Any:
  return pickle_reader.load(file, _MAKERS, functools.partial(_persistent, storages))


def _persistent(storages: dict[Any, Storage], pid: Any) -> Any:
  """Return what a persistent id stands for.

  It is the storage of ('storage', type, key, device, count, …), or the class of
  ('module', class, …).
  """
  kind = pid[0] if isinstance(pid, tuple) and len(pid) >= 4 else None
  if kind == 'module':  # the older stream has the code of classes beside them
    return pid[1]
  if kind != 'storage' or len(pid) < 5:
    word = pid if isinstance(pid, str) else kind
    words = printable(word) if isinstance(word, str) else 'something else'
    raise MedtlError(f'is refused: its pickle asks for {words} instead of a storage')
  _, written, key, _, count, *views = pid
  whole = isinstance(count, int) and count >= 0
  if not (isinstance(written, Name) and isinstance(key, str) and whole):
    raise MedtlError('is damaged: a storage in it has no type, name or size; get it again')
  dtype = STORAGES.get(written.name.removesuffix('Storage'))
  if dtype is None:
    raise MedtlError(f'holds numbers of a type that is not known, {printable(str(written))}')
  if views and views[0] is not None:
    raise MedtlError(
      'holds views of storages as PyTorch 0.3 wrote them; save it again with a newer version'
    )
  storage = Storage(np.dtype(dtype), count)
  first = storages.setdefault(key, storage)
  if (first.dtype, first.nbytes) != (storage.dtype, storage.nbytes):
    raise MedtlError(
      f'is damaged: the storage {printable(key)} has two sizes or types; get it again'
    )
  return first


def _load_from_bytes(data: bytes) -> Any:
  """Return what `torch.storage._load_from_bytes` would, of a storage pickled without torch.save."""
  return read_stream(io.BytesIO(data))


_MAKERS = MAKERS | {'torch.storage._load_from_bytes': _load_from_bytes}
