"""The kinds of checkpoint files, told apart by their first bytes.

They are numpy's `.npz`, `.safetensors`, PyTorch's zip archives and legacy pickles (state dicts,
whole modules, TorchScript), plain pickles and Keras' `.h5` (Keras 2 weights or models, Keras 3
weights). A reader returns nested values with arrays in them. The caller puts the file's name in
front of the messages of MedtlErrors.
"""

import contextlib
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from medtl.core.types import MedtlError
from medtl.models.pretrained import (
  keras_hdf5,
  nested_contents,
  npz_files,
  torch_files,
  torch_tensors,
)
from medtl.models.pretrained.pickle_reader import printable

Reader = Callable[[BinaryIO, contextlib.ExitStack], Any]  # the stack keeps files open

SUFFIXES = (
  '.npz',
  '.safetensors',
  '.pth',
  '.pt',
  '.bin',
  '.ckpt',
  '.pkl',
  '.tar',
  '.h5',
  '.index.json',
)
START = 512  # bytes that `reader` needs
_ENCRYPTED = 1  # a flag of a part of a zip archive
_ENTRY = b'PK\1\2'  # begins a part in an archive's list
_REASON = 120  # characters of a library's own words
SAFETENSORS = {
  'F64': 'f8',
  'F32': 'f4',
  'F16': 'f2',
  'BF16': ml_dtypes.bfloat16,
  'I64': 'i8',
  'I32': 'i4',
  'I16': 'i2',
  'I8': 'i1',
  'U64': 'u8',
  'U32': 'u4',
  'U16': 'u2',
  'U8': 'u1',
  'BOOL': '?',
}
_COMPRESSED = {
  b'\x1f\x8b': 'gzip',
  b'BZh': 'bzip2',
  b'\xfd7zXZ': 'xz',
  b'\x28\xb5\x2f\xfd': 'zstd',
  b'7z\xbc\xaf': '7-Zip',
  b'Rar!': 'RAR',
}
_PICKLES = (b'\x80', b'(dp', b'}q', b'ccollections')  # the last three: Python 2's protocols


def reader(path: Path, start: bytes) -> Reader:
  """Return the function that reads the kind of file that the first bytes announce."""
  if not start:
    raise MedtlError('is empty; get it again')
  text = start.lstrip().lower()
  if text.startswith((b'<!doctype', b'<html', b'<?xml')):
    raise MedtlError(
      'is a web page, not a checkpoint; was it saved from a page that asks for a login?'
    )
  if start.startswith(b'version https://git-lfs'):
    raise MedtlError(
      'is a Git LFS pointer, not the checkpoint itself; get the file that it stands for'
    )
  for magic, name in _COMPRESSED.items():
    if start.startswith(magic):
      raise MedtlError(f'is compressed by {name}; unpack it and give the file that was inside')
  if start[257:262] == b'ustar':
    raise MedtlError(_advice_for_tar(path))
  if start.startswith(b'\x93NUMPY'):
    raise MedtlError(
      'is a .npy file, one array without a name; save arrays by name: numpy.savez(FILE, **arrays)'
    )
  if start.startswith(b'PK'):
    return _zip
  if start.startswith(b'\x89HDF'):
    return keras_hdf5.read
  if start[8:9] == b'{':
    return _safetensors
  if start.startswith(_PICKLES):
    return _pickle
  raise MedtlError(f'begins with {start[:8]!r}; expected .npz, .safetensors, .pth or .h5')


def _advice_for_tar(path: Path) -> str:
  """Return what to do with a tar archive."""
  try:
    with tarfile.open(path) as archive:
      names = archive.getnames()
  except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError):
    return 'is a tar archive, truncated or damaged; get it again'
  if {'pickle', 'storages', 'tensors'} <= set(names):
    return (
      'was written by PyTorch before 0.1.10; load it in PyTorch and save it again: '
      'torch.save(torch.load(FILE), NEW)'
    )
  return _advice_to_unpack('tar', names)


def _advice_to_unpack(kind: str, names: Iterable[str]) -> str:
  inside = nested_contents.listed(dict.fromkeys(names, ''))
  return f'is a {kind} archive; unpack it and give one of its files: {inside}'


def _pickle(file: BinaryIO, _: contextlib.ExitStack) -> Any:
  return torch_files.read_stream(file)


def _zip(file: BinaryIO, opened: contextlib.ExitStack) -> Any:
  with torch_files.unpacking('its list of parts'):
    archive = opened.enter_context(zipfile.ZipFile(file))
  _check_parts(archive.infolist())
  names = archive.namelist()
  if any(name.endswith('data.pkl') for name in names):
    return torch_files.read_zip(archive)
  if all(name.endswith('.npy') for name in names):
    return {name.removesuffix('.npy'): npz_files.read(archive, name) for name in names}
  raise MedtlError(_advice_to_unpack('zip', names))


def _check_parts(parts: Iterable[zipfile.ZipInfo]) -> None:
  """Raise MedtlError where a part of a zip archive hides others or cannot be opened."""
  names: set[str] = set()
  for part in parts:
    name = printable(part.filename)
    if part.flag_bits & _ENCRYPTED:
      raise MedtlError(f'is locked: {name} asks for a password; pack it again without one')
    if part.filename in names:
      raise MedtlError(f'is damaged: it holds {name} twice; get it again')
    if _ENTRY in part.comment + part.extra + part.orig_filename.encode():
      raise MedtlError(f'is damaged: its list of parts ends at {name}; get it again')
    names.add(part.filename)


def _safetensors(file: BinaryIO, _: contextlib.ExitStack) -> dict[str, Any]:
  import safetensors

  data = file.read()
  try:
    entries = dict(safetensors.deserialize(data))
  except safetensors.SafetensorError as error:
    why = printable(str(error), _REASON)
    raise MedtlError(f'is truncated or no safetensors file: {why}; get it again') from None
  length = int.from_bytes(data[:8], 'little')
  header = json.loads(data[8 : 8 + length])

  # safetensors gives the arrays in random order; those without numbers share a place.
  def place(name: str) -> tuple[list[int], str]:
    return header[name]['data_offsets'], name

  return {name: _tensor(entries[name]) for name in sorted(entries, key=place)}


def _tensor(entry: Mapping[str, Any]) -> np.ndarray | torch_tensors.Unreadable:
  """Return the array of an entry of a safetensors file, or why there is none."""
  dtype = SAFETENSORS.get(entry['dtype'])
  if dtype is None:
    known = ', '.join(SAFETENSORS)
    return torch_tensors.Unreadable(f'is of type {entry["dtype"]}; there are: {known}')
  if not torch_tensors.is_shape(entry['shape']):
    return torch_tensors.Unreadable('has no valid shape: the file is damaged; get it again')
  numbers = np.frombuffer(bytes(entry['data']), dtype)
  return numbers.reshape(entry['shape'])
