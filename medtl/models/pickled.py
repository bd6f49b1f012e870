"""PyTorch's checkpoints and plain pickles read without PyTorch: tensors and numpy arrays, and names for all else.

The two formats are those of `torch/serialization.py`: a zip archive of `data.pkl` and one file per
storage (since 1.6; TorchScript writes the same), and the older stream of pickles followed by the storages.
"""

import functools
import io
import math
import re
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from medtl.models import inert
from medtl.models.inert import Name, Object
from medtl.types import MedtlError

# torch/serialization.py, the legacy stream's first two pickles
MAGIC, PROTOCOL = 0x1950a86a20f9469cfc6c, 1001
# by the names of `torch.<name>Storage`, and of `torch.<name>`; what has no numbers of ours is left void
_STORAGES = {
  'Double': 'f8', 'Float': 'f4', 'Half': 'f2', 'BFloat16': ml_dtypes.bfloat16, 'Long': 'i8', 'Int': 'i4',
  'Short': 'i2', 'Char': 'i1', 'Byte': 'u1', 'Bool': '?', 'Untyped': 'u1', 'ComplexFloat': 'c8',
  'ComplexDouble': 'c16', 'ComplexHalf': 'V4', 'QInt8': 'i1', 'QUInt8': 'u1', 'QInt32': 'i4',
  'QUInt4x2': 'u1', 'QUInt2x4': 'u1',
}
_TYPES = {
  'float64': 'f8', 'float32': 'f4', 'float16': 'f2', 'bfloat16': ml_dtypes.bfloat16, 'int64': 'i8',
  'int32': 'i4', 'int16': 'i2', 'int8': 'i1', 'uint64': 'u8', 'uint32': 'u4', 'uint16': 'u2',
  'uint8': 'u1', 'bool': '?', 'complex64': 'c8', 'complex128': 'c16',
  **{name: getattr(ml_dtypes, name) for name in
     ('float8_e4m3fn', 'float8_e4m3fnuz', 'float8_e5m2', 'float8_e5m2fnuz', 'float8_e8m0fnu')},
}


class Storage:
  """A run of numbers that tensors are views of; `read` gets its little-endian bytes when they are needed."""

  def __init__(self, dtype: np.dtype, count: int):
    self.dtype, self.nbytes = dtype, count * dtype.itemsize
    self.read: Callable[[], bytes] = bytes

  @functools.cached_property
  def data(self) -> bytes:
    """Return the bytes; MedtlError where there are not as many as announced."""
    found = self.read()
    if len(found) != self.nbytes:
      raise MedtlError(f'is truncated: a storage has {len(found)} bytes, expected {self.nbytes}; get it again')
    return found


class Tensor:
  """A view of a storage, checked to lie inside it."""

  def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...],
               dtype: np.dtype | None = None):
    if not isinstance(storage, Storage):
      raise MedtlError(f'is refused: a tensor of shape {shape} has no storage')
    self.dtype = storage.dtype if dtype is None else dtype
    count = math.prod(shape)
    steps = [(size - 1) * step for size, step in zip(shape, stride, strict=True)]
    end = offset + sum(steps) + 1 if count else offset
    room = storage.nbytes // self.dtype.itemsize
    if min((offset, *shape, *stride)) < 0 or max(end, count) > room:
      raise MedtlError(f'is refused: a tensor of shape {shape} does not lie inside its storage')
    self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

  def array(self) -> np.ndarray:
    """Return the numbers as an array of their own."""
    count = self.storage.nbytes // self.dtype.itemsize
    values = np.frombuffer(self.storage.data, self.dtype, count)
    steps = [step * self.dtype.itemsize for step in self.stride]
    return np.lib.stride_tricks.as_strided(values[self.offset:], self.shape, steps).copy()


class Unreadable:
  """An array whose numbers cannot be had; `why` says what it is and what to do."""

  def __init__(self, why: str):
    self.why = why


def leaf(value: Any) -> Tensor | Unreadable | np.ndarray | None:
  """Return the array that a value of a pickle stands for, None where it stands for none."""
  if isinstance(value, Tensor | Unreadable | np.ndarray):
    return value
  name = str(value.maker).replace('numpy._core', 'numpy.core') if isinstance(value, Object) else ''
  try:
    if name == 'numpy.core.multiarray._reconstruct':
      return _numpy(*value.state[-4:])
    if name == 'numpy.core.numeric._frombuffer':
      data, dtype, shape, order = value.args[:4]
      return _numpy(shape, dtype, order == 'F', data)
  except (TypeError, ValueError, IndexError, AttributeError) as error:
    raise MedtlError(f'is damaged: a numpy array in it cannot be made: {error}; get it again') from None
  return None


def _numpy(shape: tuple[int, ...], dtype: Any, turned: bool, data: Any) -> np.ndarray | None:
  """Return the array of numpy's own pickles, None where it holds no numbers (numpy/core/src: array_reduce)."""
  code = dtype.args[0] if isinstance(dtype, Object) and str(dtype.maker) == 'numpy.dtype' else ''
  if not re.fullmatch('[biufc][0-9]{1,2}', str(code)):
    return None
  order: Any = dtype.state[1] if dtype.state else '='
  kind = np.dtype(code).newbyteorder(order)
  raw = data.encode('latin-1') if isinstance(data, str) else bytes(data)
  if len(raw) != math.prod(shape) * kind.itemsize:
    raise MedtlError(f'is damaged: a numpy array of shape {shape} has {len(raw)} bytes; get it again')
  return np.frombuffer(raw, kind).reshape(shape, order='F' if turned else 'C')


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
    if size != nbytes:                                    # asked before anything is unpacked
      raise MedtlError(f'is damaged: the storage {key} has {size} bytes, expected {nbytes}; get it again')
    return archive.read(name)
  except KeyError:
    raise MedtlError(f'is damaged: it lacks the storage {key}; get it again') from None
  except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
    raise MedtlError(f'is truncated or damaged: {error}; get it again') from None


def read_stream(file: BinaryIO) -> Any:
  """Return what a checkpoint of PyTorch before 1.6 holds, or any other pickle; tensors read from the open file."""
  first = _load(file, {})
  if first != MAGIC:
    return first
  if _load(file, {}) != PROTOCOL:
    raise MedtlError(f'is of another version of PyTorch\'s old format than {PROTOCOL}; save it again')
  _load(file, {})                                   # the machine's integer sizes
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
      raise MedtlError(f'is truncated or damaged: a storage of {count} numbers does not fit; get it again')
    storage.read = functools.partial(_section, file, begin + 8, storage.nbytes)
    begin = after
  return found


def _section(file: BinaryIO, begin: int, nbytes: int) -> bytes:
  file.seek(begin)
  return file.read(nbytes)


def _load(file: BinaryIO, storages: dict[Any, Storage]) -> Any:
  return inert.load(file, MAKERS, functools.partial(_persistent, storages))


def _persistent(storages: dict[Any, Storage], pid: Any) -> Any:
  """Return the storage that ('storage', type, key, device, count, …) names, the class of ('module', class, …)."""
  kind = pid[0] if isinstance(pid, tuple) and len(pid) >= 4 else None
  if kind == 'module':                                    # the old stream keeps the source code of classes beside them
    return pid[1]
  if kind != 'storage' or len(pid) < 5 or not isinstance(pid[1], Name) or not isinstance(pid[2], str | int):
    raise MedtlError(f'is refused: its pickle asks for {str(pid)[:80]} instead of a storage')
  dtype = _STORAGES.get(pid[1].name.removesuffix('Storage'))
  if dtype is None:
    raise MedtlError(f'holds numbers of a type that is not known, {pid[1]}')
  if len(pid) > 5 and pid[5] is not None:
    raise MedtlError('holds views of storages as PyTorch 0.3 wrote them; save it again with a newer version')
  return storages.setdefault(pid[2], Storage(np.dtype(dtype), int(pid[4])))


def _tensor(storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
  """Return what `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2` would."""
  return Tensor(storage, offset, shape, stride)


def _typed_tensor(storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], grad: Any,
                  hooks: Any, dtype: Any, *_: Any) -> Tensor | Unreadable:
  """Return what `torch._utils._rebuild_tensor_v3` would: the storage does not know its type."""
  kind = _TYPES.get(str(dtype).removeprefix('torch.'))
  if kind is None:
    return Unreadable(f'is of {dtype}, which is not known here; convert it by .float() and save again')
  return Tensor(storage, offset, shape, stride, np.dtype(kind))


def _first(data: Any, *_: Any) -> Any:
  """Return what a parameter, or a tensor of another device, is made of."""
  return data


def _subclass(function: Any, kind: Any, args: Any, *_: Any) -> Any:
  """Return what `torch._tensor._rebuild_from_type_v2` would, without the subclass."""
  known = MAKERS.get(str(function)) if isinstance(function, Name) else None
  return known(*args) if known else Object(function, args)


def _stored(data: bytes) -> Any:
  """Return the storage in the bytes that `torch.storage._load_from_bytes` would read (pickled without torch.save)."""
  return read_stream(io.BytesIO(data))


def _refuse(what: str, how: str) -> Callable[..., Unreadable]:
  return lambda *_: Unreadable(f'is {what}; {how} in PyTorch and save it again')


def _encoded(text: str, *_: Any) -> bytes:
  """Return bytes as Python 3 writes them in Python 2's protocols."""
  return text.encode('latin-1')


def _list(items: Any = ()) -> list[Any]:
  return list(items)


_FACTORY = 1                                              # arguments of a defaultdict before those of a dict
MAKERS: dict[str, Callable[..., Any]] = {
  'torch._utils._rebuild_tensor': _tensor,
  'torch._utils._rebuild_tensor_v2': _tensor,
  'torch._utils._rebuild_tensor_v3': _typed_tensor,
  'torch._utils._rebuild_parameter': _first,
  'torch._utils._rebuild_parameter_with_state': _first,
  'torch._utils._rebuild_device_tensor_from_numpy': _first,
  'torch._utils._rebuild_device_tensor_from_cpu_tensor': _first,
  'torch._utils._rebuild_xla_tensor': _first,
  'torch._utils._rebuild_sparse_tensor': _refuse('a sparse tensor', 'make it dense by .to_dense()'),
  'torch._utils._rebuild_sparse_csr_tensor': _refuse('a sparse tensor', 'make it dense by .to_dense()'),
  'torch._utils._rebuild_nested_tensor': _refuse('a nested tensor', 'pad it by .to_padded_tensor(0)'),
  'torch._utils._rebuild_qtensor': _refuse('quantised', 'make it float by .dequantize()'),
  'torch._utils._rebuild_meta_tensor_no_storage': _refuse('without numbers (device meta)', 'load the weights'),
  'torch._utils._rebuild_wrapper_subclass': _refuse('a tensor without a storage of its own', 'make it plain'),
  'torch._tensor._rebuild_from_type_v2': _subclass,
  'torch.storage._load_from_bytes': _stored,
  'torch.Size': tuple,
  'collections.OrderedDict': inert.mapping,
  'collections.defaultdict': lambda *args: inert.mapping(*args[_FACTORY:]),
  'collections.Counter': inert.mapping,
  **{f'{module}.{name}': _list for module in ('builtins', '__builtin__') for name in ('set', 'frozenset', 'list')},
  '_codecs.encode': _encoded,
}
