"""The arrays of an .npz, each checked against the size of its part of the archive.

The format is that of NEP 1 and numpy.lib.format. `numpy.load` takes memory for whatever shape a
header declares, and says nothing about numbers that are left over. The caller puts the file's name
in front of the messages of MedtlErrors.
"""

import math
import zipfile
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from medtl.core.types import MedtlError
from medtl.models.pretrained import nested_contents, torch_files, torch_tensors
from medtl.models.pretrained.pickle_reader import printable

# the third version differs from the second in the encoding of field names, which nobody reads
_HEADERS: dict[int, Any] = {
  1: np.lib.format.read_array_header_1_0,
  2: np.lib.format.read_array_header_2_0,
  3: np.lib.format.read_array_header_2_0,
}
_OTHERS = {
  'O': 'Python objects, refused',
  'U': 'text',
  'S': 'text',
  'T': 'text',
  'M': 'dates',
  'm': 'times',
}


class _Header(NamedTuple):
  """What a file says of its array."""

  shape: tuple[int, ...]
  columns_first: bool  # Fortran's order
  dtype: np.dtype


def read(
  archive: zipfile.ZipFile, name: str
) -> np.ndarray | torch_tensors.Unreadable | nested_contents.Other:
  """Return the array of a member, or what it is where it holds no numbers.

  Raises MedtlError where the member is damaged: its checksum, its header, or how many bytes it has.
  Python objects, which only a pickle can make, are not read.
  """
  what = f'its array {printable(name)}'
  with torch_files.unpacking(what), archive.open(name) as file:
    header = _header(file, what)
    kind = 'O' if header.dtype.hasobject else header.dtype.kind
    if kind in _OTHERS:
      return nested_contents.Other(_OTHERS[kind])
    if kind == 'V':
      return torch_tensors.Unreadable(_untyped(header.dtype))
    expected = math.prod(header.shape) * header.dtype.itemsize
    room = archive.getinfo(name).file_size - file.tell()
    data = file.read() if room == expected else b''  # asked before anything is unpacked
  if room != expected or len(data) != expected:
    raise MedtlError(
      f'is truncated or damaged: {what} has not the {expected} bytes of numbers '
      f'that its shape {printable(str(header.shape))} asks for; get it again'
    )
  numbers = np.frombuffer(data, header.dtype)
  order: Literal['F', 'C'] = 'F' if header.columns_first else 'C'
  return numbers.reshape(header.shape, order=order)


def _header(file: IO[bytes], what: str) -> _Header:
  """Return what the file says of its array."""
  try:
    version, _ = np.lib.format.read_magic(file)
    header = _Header(*_HEADERS[version](file))
  except Exception:  # whatever stands where a Python literal belongs
    raise MedtlError(
      f'is truncated or damaged: {what} has no readable header; get it again'
    ) from None
  if not torch_tensors.is_shape(header.shape):
    raise MedtlError(f'is damaged: {what} has no valid shape; get it again')
  return header


def _untyped(dtype: np.dtype) -> str:
  """Return what is wrong with numbers that have no type, or several at once."""
  if dtype.fields or dtype.subdtype:
    return 'is of records, not of numbers; save each of their fields as an array of its own'
  return (
    f'is of {dtype.itemsize} bytes without a type, as numpy saves bfloat16 and float8; '
    "convert it by .astype('float32') and save it again"
  )
