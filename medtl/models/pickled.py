"""PyTorch's checkpoints and plain pickles read without PyTorch: tensors, and names for all else.

The two formats are those of `torch/serialization.py`: a zip archive of `data.pkl` and one file per
storage (since 1.6; TorchScript writes the same), and the older stream of pickles followed by the
storages. Messages of MedtlErrors are to be read behind the file's name.
"""

import functools
import io
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np

from medtl.models import inert
from medtl.models.inert import Name
from medtl.models.tensors import MAKERS, STORAGES, Storage
from medtl.types import MedtlError

# what `zipfile` raises for damaged archives, encrypted ones and names in no known code
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)
# torch/serialization.py, the legacy stream's first two pickles
MAGIC, PROTOCOL = 0x1950a86a20f9469cfc6c, 1001


def read_zip(archive: zipfile.ZipFile) -> Any:
  """Return what a zip checkpoint holds, see inert.load; its tensors read from the open archive."""
  names = archive.namelist()
  main = min((name for name in names if name.endswith('data.pkl')), key=len)
  folder = main.removesuffix('data.pkl')
  if f'{folder}byteorder' in names and archive.read(f'{folder}byteorder') != b'little':
    raise MedtlError('was written on a big-endian machine; save it again on a little-endian one')
  storages: dict[Any, Storage] = {}
  found = _load(io.BytesIO(archive.read(main)), storages)
  for key, storage in storages.items():
    storage.read = functools.partial(_member, archive, f'{folder}data/{key}', storage.nbytes)
  return found


def _member(archive: zipfile.ZipFile, name: str, nbytes: int) -> bytes:
  key = name.rpartition('/')[2]
  try:
    size = archive.getinfo(name).file_size
    if size != nbytes:                   # asked before anything is unpacked
      raise MedtlError(f'is damaged: the storage {key} has {size} bytes, expected {nbytes}; '
                       'get it again')
    return archive.read(name)
  except KeyError:
    raise MedtlError(f'is damaged: it lacks the storage {key}; get it again') from None
  except ZIP_ERRORS as error:
    raise MedtlError(f'is truncated or damaged: {error}; get it again') from None


def read_stream(file: BinaryIO) -> Any:
  """Return what PyTorch's older stream, or any other pickle, holds; tensors read from the file."""
  first = _load(file, {})
  if first != MAGIC:
    return first
  if _load(file, {}) != PROTOCOL:
    raise MedtlError(f'is in another version of PyTorch\'s format than {PROTOCOL}; save it again')
  _load(file, {})                        # the machine's integer sizes
  storages: dict[Any, Storage] = {}
  found = _load(file, storages)
  keys = _load(file, {})
  if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(map(str, storages)):
    raise MedtlError('is damaged: its list of storages is not that of its tensors; get it again')
  begin = file.tell()
  end = file.seek(0, io.SEEK_END)
  for key in keys:
    storage = storages[key]
    file.seek(begin)
    count = int.from_bytes(file.read(8), 'little')
    after = begin + 8 + storage.nbytes
    if count * storage.dtype.itemsize != storage.nbytes or after > end:
      raise MedtlError(f'is truncated or damaged: a storage has {count} numbers; get it again')
    storage.read = functools.partial(_section, file, begin + 8, storage.nbytes)
    begin = after
  return found


def _section(file: BinaryIO, begin: int, nbytes: int) -> bytes:
  file.seek(begin)
  return file.read(nbytes)


def _load(file: BinaryIO, storages: dict[Any, Storage]) -> Any:
  return inert.load(file, _MAKERS, functools.partial(_persistent, storages))


def _persistent(storages: dict[Any, Storage], pid: Any) -> Any:
  """Return the storage of ('storage', type, key, device, count, …), the class of ('module', class)."""
  kind = pid[0] if isinstance(pid, tuple) and len(pid) >= 4 else None
  if kind == 'module':                   # the older stream has the code of classes beside them
    return pid[1]
  right = kind == 'storage' and isinstance(pid[1], Name) and isinstance(pid[2], str | int)
  if not right or len(pid) < 5:
    raise MedtlError(f'is refused: its pickle asks for {str(pid)[:80]} instead of a storage')
  dtype = STORAGES.get(pid[1].name.removesuffix('Storage'))
  if dtype is None:
    raise MedtlError(f'holds numbers of a type that is not known, {pid[1]}')
  if len(pid) > 5 and pid[5] is not None:
    raise MedtlError('holds views of storages as PyTorch 0.3 wrote them; '
                     'save it again with a newer version')
  return storages.setdefault(pid[2], Storage(np.dtype(dtype), int(pid[4])))


def _stored(data: bytes) -> Any:
  """Return the storage that `torch.storage._load_from_bytes` would: pickled without torch.save."""
  return read_stream(io.BytesIO(data))


_MAKERS = MAKERS | {'torch.storage._load_from_bytes': _stored}
