"""Tensors and numpy arrays of pickles: views of storages, checked to lie inside them.

The caller puts the file's name in front of the messages of MedtlErrors.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from medtl.core.types import MedtlError
from medtl.models.pretrained import pickle_reader
from medtl.models.pretrained.pickle_reader import Object, name_of, printable

# by the names of torch.<name>Storage and torch.<name>; void: what numpy has no numbers for
STORAGES = {
  'Double': 'f8',
  'Float': 'f4',
  'Half': 'f2',
  'BFloat16': ml_dtypes.bfloat16,
  'Long': 'i8',
  'Int': 'i4',
  'Short': 'i2',
  'Char': 'i1',
  'Byte': 'u1',
  'Bool': '?',
  'Untyped': 'u1',
  'ComplexFloat': 'c8',
  'ComplexDouble': 'c16',
  'ComplexHalf': 'V4',
  'QInt8': 'i1',
  'QUInt8': 'u1',
  'QInt32': 'i4',
  'QUInt4x2': 'u1',
  'QUInt2x4': 'u1',
}
_TYPES = {
  'float64': 'f8',
  'float32': 'f4',
  'float16': 'f2',
  'bfloat16': ml_dtypes.bfloat16,
  'int64': 'i8',
  'int32': 'i4',
  'int16': 'i2',
  'int8': 'i1',
  'uint64': 'u8',
  'uint32': 'u4',
  'uint16': 'u2',
  'uint8': 'u1',
  'bool': '?',
  'complex64': 'c8',
  'complex128': 'c16',
  'float8_e4m3fn': ml_dtypes.float8_e4m3fn,
  'float8_e4m3fnuz': ml_dtypes.float8_e4m3fnuz,
  'float8_e5m2': ml_dtypes.float8_e5m2,
  'float8_e5m2fnuz': ml_dtypes.float8_e5m2fnuz,
  'float8_e8m0fnu': ml_dtypes.float8_e8m0fnu,
}

_REBUILD = 'torch._utils._rebuild_'  # begins the names of functions, called but never saved
_AXES = 32  # the most that every numpy can have
_LARGE = 1 << 56  # more than any file holds, and numpy can still count bytes

Shape = tuple[int, ...]


class Storage:
  """A run of numbers that tensors are views of; `read` gets its little-endian bytes when needed."""

  def __init__(self, dtype: np.dtype, count: int):
    self.dtype = dtype
    self.nbytes = count * dtype.itemsize
    self.read: Callable[[], bytes] = bytes

  @functools.cached_property
  def data(self) -> bytes:
    """Return the bytes; a MedtlError where there are not as many as announced."""
    data = self.read()
    if len(data) != self.nbytes:
      raise MedtlError(
        f'is truncated: a storage has {len(data)} bytes, expected {self.nbytes}; get it again'
      )
    return data


class Tensor:
  """A view of a storage, checked to lie inside it."""

  def __init__(
    self, storage: Storage, offset: int, shape: Shape, stride: Shape, dtype: np.dtype | None = None
  ):
    if not isinstance(storage, Storage):
      raise MedtlError('is damaged: a tensor in it has no storage; get it again')
    if not (is_shape(shape) and _whole(stride) and len(stride) == len(shape)):
      raise MedtlError('is damaged: a tensor in it has no valid shape; get it again')
    if not _whole((offset,)):
      raise MedtlError('is damaged: a tensor in it begins nowhere in its storage; get it again')
    self.dtype = storage.dtype if dtype is None else dtype
    count = math.prod(shape)
    steps = [(size - 1) * step for size, step in zip(shape, stride, strict=True)]
    end = offset + sum(steps) + 1 if count else offset
    room = storage.nbytes // self.dtype.itemsize
    if min((offset, *shape, *stride)) < 0 or max(end, count) > room:
      raise MedtlError(
        f'is refused: a tensor of shape {printable(str(shape))} does not lie inside its storage'
      )
    self.storage = storage
    self.offset = offset
    self.shape = shape
    self.stride = stride

  def array(self) -> np.ndarray:
    """Return the numbers as an array of their own."""
    count = self.storage.nbytes // self.dtype.itemsize
    values = np.frombuffer(self.storage.data, self.dtype, count)
    strides = [step * self.dtype.itemsize for step in self.stride]
    view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides)
    return view.copy()


def is_shape(value: Any) -> bool:
  """Return whether a value can be the shape of an array, even of one without numbers."""
  if not _whole(value) or len(value) > _AXES or min(value, default=0) < 0:
    return False
  return math.prod(size for size in value if size > 0) < _LARGE


def _whole(value: Any) -> bool:
  """Return whether a value is a sequence of whole numbers that numpy can take."""
  if not isinstance(value, tuple | list):
    return False
  integers = all(isinstance(number, int) for number in value)
  return integers and all(abs(number) < _LARGE for number in value)


class Unreadable:
  """An array whose numbers cannot be had; `why` says what it is and what to do."""

  def __init__(self, why: str):
    self.why = why


def leaf(value: Any) -> Tensor | Unreadable | np.ndarray | None:
  """Return the array that a value of a pickle stands for, None where it stands for none."""
  if isinstance(value, Tensor | Unreadable | np.ndarray):
    return value
  if isinstance(value, Storage):
    return Unreadable('is a storage without the shape of a tensor; save the tensor in its place')
  if name_of(value).startswith(_REBUILD):
    return Unreadable('is a function that makes tensors: the file is damaged; get it again')
  if not isinstance(value, Object):
    return None
  maker = name_of(value.maker)
  name = maker.replace('numpy._core', 'numpy.core')
  try:
    if name == 'numpy.core.multiarray._reconstruct':
      return _numpy(*value.state[-4:])
    if name == 'numpy.core.numeric._frombuffer':
      data, dtype, shape, order = value.args[:4]
      return _numpy(shape, dtype, order == 'F', data)
  except MedtlError:
    raise
  except Exception:  # whatever stands where shape, type and bytes belong
    raise MedtlError('is damaged: a numpy array in it is none; get it again') from None
  if maker and any(isinstance(part, Tensor | Storage) for part in value.args):
    return Unreadable(
      f'is a tensor made by {printable(maker)}, which is not known; make it a plain '
      'tensor in PyTorch and save it again'
    )
  return None


def _numpy(shape: Shape, dtype: Any, columns_first: bool, data: Any) -> np.ndarray | None:
  """Return the array that `ndarray.__reduce__` wrote, None where it holds no numbers."""
  is_dtype = isinstance(dtype, Object) and name_of(dtype.maker) == 'numpy.dtype'
  code = dtype.args[0] if is_dtype else ''
  if not (isinstance(code, str) and re.fullmatch('[biufc][0-9]{1,2}', code)):
    return None
  if not is_shape(shape):
    raise MedtlError('is damaged: a numpy array in it has no valid shape; get it again')
  order: Any = dtype.state[1] if dtype.state else '='
  kind = np.dtype(code).newbyteorder(order)
  raw = data.encode('latin-1') if isinstance(data, str) else data
  if not isinstance(raw, bytes | bytearray) or len(raw) != math.prod(shape) * kind.itemsize:
    raise MedtlError(
      f'is damaged: an array of shape {printable(str(shape))} has other bytes; get it again'
    )
  return np.frombuffer(raw, kind).reshape(shape, order='F' if columns_first else 'C')


def _tensor(storage: Storage, offset: int, shape: Shape, stride: Shape, *_: Any) -> Tensor:
  """Return what `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2` would."""
  return Tensor(storage, offset, shape, stride)


def _typed_tensor(
  storage: Storage,
  offset: int,
  shape: Shape,
  stride: Shape,
  grad: Any,
  hooks: Any,
  dtype: Any,
  *_: Any,
) -> Tensor | Unreadable:
  """Return what `torch._utils._rebuild_tensor_v3` would: the storage does not know its type."""
  name = name_of(dtype)
  kind = _TYPES.get(name.removeprefix('torch.'))
  if kind is None:
    words = printable(name) or 'a type without a name'
    return Unreadable(f'is of {words}, which is not known; convert it by .float() and save again')
  return Tensor(storage, offset, shape, stride, np.dtype(kind))


def _first(data: Any, *_: Any) -> Any:
  """Return what a parameter, or a tensor of another device, is made of."""
  return data


def _subclass(function: Any, kind: Any, args: Any, *_: Any) -> Any:
  """Return what `torch._tensor._rebuild_from_type_v2` would, without the subclass."""
  known = MAKERS.get(name_of(function))
  return known(*args) if known else Object(function, args)


def _refuse(what: str, how: str) -> Callable[..., Unreadable]:
  return lambda *_: Unreadable(f'is {what}; {how} in PyTorch and save it again')


def _encoded(text: str, *_: Any) -> bytes:
  """Return bytes as Python 3 writes them in Python 2's protocols."""
  return text.encode('latin-1')


def _bytes(data: Any = b'', *_: Any) -> Any:
  return data


def _list(items: Any = ()) -> list[Any]:
  return list(items)


def _tuple(items: Any = ()) -> tuple[Any, ...]:
  return tuple(items)


_SPARSE = _refuse('a sparse tensor', 'make it dense by .to_dense()')
_BUILTINS = ('builtins.', '__builtin__.')
_FACTORY = 1  # arguments of a defaultdict before those of a dict
MAKERS: dict[str, Callable[..., Any]] = {
  'torch._utils._rebuild_tensor': _tensor,
  'torch._utils._rebuild_tensor_v2': _tensor,
  'torch._utils._rebuild_tensor_v3': _typed_tensor,
  'torch._utils._rebuild_parameter': _first,
  'torch._utils._rebuild_parameter_with_state': _first,
  'torch._utils._rebuild_device_tensor_from_numpy': _first,
  'torch._utils._rebuild_device_tensor_from_cpu_tensor': _first,
  'torch._utils._rebuild_xla_tensor': _first,
  'torch._utils._rebuild_sparse_tensor': _SPARSE,
  'torch._utils._rebuild_sparse_csr_tensor': _SPARSE,
  'torch._utils._rebuild_nested_tensor': _refuse('nested', 'pad it by .to_padded_tensor(0)'),
  'torch._utils._rebuild_qtensor': _refuse('quantised', 'make it float by .dequantize()'),
  'torch._utils._rebuild_meta_tensor_no_storage': _refuse('without numbers', 'load its weights'),
  'torch._utils._rebuild_wrapper_subclass': _refuse('without a storage', 'make it a plain tensor'),
  'torch._tensor._rebuild_from_type_v2': _subclass,
  'torch.Size': _tuple,
  'collections.OrderedDict': pickle_reader.mapping,
  'collections.defaultdict': lambda *args: pickle_reader.mapping(*args[_FACTORY:]),
  'collections.Counter': pickle_reader.mapping,
  **{module + name: _list for module in _BUILTINS for name in ('set', 'list')},
  **{module + 'frozenset': _tuple for module in _BUILTINS},
  **{module + name: _bytes for module in _BUILTINS for name in ('bytes', 'bytearray')},
  '_codecs.encode': _encoded,
}
