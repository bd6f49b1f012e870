"""PyTorch's checkpoints read without PyTorch: an unpickler that knows tensors and refuses everything else.

The two formats are those of `torch/serialization.py`: a zip archive of `data.pkl` and one file per storage (since 1.6), and the older
stream of pickles followed by the storages.
"""

import collections
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from medtl.types import MedtlError

MAGIC, PROTOCOL = 0x1950a86a20f9469cfc6c, 1001        # torch/serialization.py, the legacy stream's first two pickles
DTYPES: dict[str, np.dtype] = {name: np.dtype(kind) for name, kind in {
  'Double': 'f8', 'Float': 'f4', 'Half': 'f2', 'BFloat16': ml_dtypes.bfloat16, 'Long': 'i8', 'Int': 'i4', 'Short': 'i2', 'Char': 'i1',
  'Byte': 'u1', 'Bool': '?'}.items()}
TYPES = {'float64', 'float32', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool', 'float', 'double', 'half',
         'long', 'int'}


class Sealed:
  """What a pickle may make, but not change afterwards: its BUILD opcode calls `__setstate__`."""

  def __setstate__(self, state: Any) -> None:
    raise MedtlError('refused: the pickle changes a tensor after it was checked')


class Storage(Sealed):
  """A run of numbers that tensors are views of; the legacy format fills it after the tensors are made."""

  def __init__(self, dtype: np.dtype, count: int):
    self.dtype, self.count, self.values = dtype, count, np.empty(0, dtype)

  def fill(self, data: bytes, what: str) -> None:
    """Take the storage's little-endian bytes."""
    if len(data) != self.count * self.dtype.itemsize:
      raise MedtlError(f'{what} is truncated: a storage has {len(data)} bytes, expected {self.count * self.dtype.itemsize}; get it again')
    self.values = np.frombuffer(data, self.dtype)


class Tensor(Sealed):
  """A view of a storage, checked to lie inside it."""

  def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]):
    count = math.prod(shape)
    end = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1 if count else offset
    if not isinstance(storage, Storage) or min((offset, *shape, *stride)) < 0 or max(end, count) > storage.count:
      raise MedtlError(f'refused: a tensor of shape {shape} does not lie inside its storage')
    self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

  def array(self) -> np.ndarray:
    """Return the numbers as an array of their own."""
    steps = [step * self.storage.dtype.itemsize for step in self.stride]
    start = self.storage.values[self.offset:]
    return np.lib.stride_tricks.as_strided(start, self.shape, steps).copy()


def tensor(storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
  """Return what `torch._utils._rebuild_tensor_v2` would."""
  return Tensor(storage, offset, shape, stride)


def parameter(data: Tensor, *_: Any) -> Tensor:
  """Return what `torch._utils._rebuild_parameter` would, without its gradient."""
  return data


class Unpickler(pickle.Unpickler):
  """Loads tensors, dictionaries and plain values; every other name that a pickle asks for is refused, unresolved."""

  def __init__(self, file: BinaryIO, what: str):
    super().__init__(file, encoding='utf-8')
    self.storages: dict[str, Storage] = {}
    self.what = what

  def find_class(self, module: str, name: str) -> Any:
    """Return one of the few things that a checkpoint of tensors is made of."""
    if module == 'torch._utils' and name in ('_rebuild_tensor_v2', '_rebuild_parameter'):
      return tensor if name == '_rebuild_tensor_v2' else parameter
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if module == 'torch' and name.removesuffix('Storage') in DTYPES and name.endswith('Storage'):
      return DTYPES[name.removesuffix('Storage')]
    if module == 'torch' and name in TYPES:
      return f'torch.{name}'
    raise MedtlError(f'refused: the pickle in {self.what} asks for {module}.{name}; only tensors, dictionaries and plain values are read')

  def persistent_load(self, pid: Any) -> Storage:
    """Return the storage that ('storage', type, key, device, count, …) names."""
    if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == 'storage' and isinstance(pid[1], np.dtype)):
      raise MedtlError(f'refused: the pickle in {self.what} asks for {str(pid)[:80]} instead of a storage')
    if len(pid) > 5 and pid[5] is not None:
      raise MedtlError(f'{self.what} holds views of storages as PyTorch 0.3 wrote them; save it again with a newer version')
    return self.storages.setdefault(pid[2], Storage(pid[1], int(pid[4])))


def _load(unpickler: Unpickler) -> Any:
  try:
    return unpickler.load()
  except MedtlError:
    raise
  except Exception as error:             # whatever a damaged stream makes the unpickler stumble over
    raise MedtlError(f'{unpickler.what} is truncated or damaged: {error or type(error).__name__}; get it again') from None


def read_zip(archive: zipfile.ZipFile, path: Path) -> Any:
  """Return what a zip checkpoint holds, arrays for tensors."""
  main = next(name for name in archive.namelist() if name.endswith('data.pkl'))
  folder = main.removesuffix('data.pkl')
  if f'{folder}byteorder' in archive.namelist() and archive.read(f'{folder}byteorder') != b'little':
    raise MedtlError(f'{path} was written on a big-endian machine; save it again on a little-endian one')
  unpickler = Unpickler(io.BytesIO(archive.read(main)), str(path))
  found = _load(unpickler)
  for key, storage in unpickler.storages.items():
    try:
      storage.fill(archive.read(f'{folder}data/{key}'), str(path))
    except KeyError:
      raise MedtlError(f'{path} is damaged: it lacks the storage {key}; get it again') from None
  return _arrays(found)


def read_legacy(path: Path) -> Any:
  """Return what a checkpoint of PyTorch before 1.6 holds, arrays for tensors."""
  with path.open('rb') as file:
    start = [_load(Unpickler(file, str(path))) for _ in range(2)]
    if start != [MAGIC, PROTOCOL]:
      raise MedtlError(f'refused: {path} is a pickle, but no PyTorch checkpoint')
    _load(Unpickler(file, str(path)))                     # the machine's integer sizes
    unpickler = Unpickler(file, str(path))
    found, keys = _load(unpickler), _load(Unpickler(file, str(path)))
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(map(str, unpickler.storages)):
      raise MedtlError(f'{path} is damaged: its list of storages is not that of its tensors; get it again')
    for key in keys:
      storage = unpickler.storages[key]
      count, size = int.from_bytes(file.read(8), 'little'), storage.count * storage.dtype.itemsize
      if count != storage.count or size > path.stat().st_size:
        raise MedtlError(f'{path} is truncated or damaged: a storage of {count} numbers, expected {storage.count}; get it again')
      storage.fill(file.read(size), str(path))
  return _arrays(found)


def _arrays(value: Any) -> Any:
  """Return nested dictionaries with arrays in the place of tensors."""
  if isinstance(value, Tensor):
    return value.array()
  return {name: _arrays(item) for name, item in value.items()} if isinstance(value, dict) else value
