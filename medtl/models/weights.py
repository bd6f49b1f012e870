"""A publisher's file becomes {name: float32 array}. What it is, is read from its first bytes; nothing in it is executed.

numpy `.npz`, `.safetensors`, PyTorch's zip and legacy pickles, Keras `.h5` (Keras 2 weights or models, Keras 3 weights).
"""

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from medtl import fetch, spec
from medtl.models import pickled
from medtl.types import MedtlError, Weights

SAFETENSORS = {'F64': 'f8', 'F32': 'f4', 'F16': 'f2', 'BF16': ml_dtypes.bfloat16, 'I64': 'i8', 'I32': 'i4', 'I16': 'i2', 'I8': 'i1',
               'U8': 'u1', 'BOOL': '?'}


def locate(weights: str, table: Mapping[str, Weights]) -> tuple[Path, Weights | None]:
  """Return the file that a name of a family's WEIGHTS (fetched if need be) or a path means, and the table's entry."""
  if weights in table:
    entry = table[weights]
    where = fetch.fetch(entry.url, sha256=entry.sha256, purpose=f'the checkpoint {weights}',
                        hint="config.model.weights=PATH reads a file, config.model.weights='' starts from scratch")
    return where, entry
  path = Path(weights).expanduser()
  if path.is_file():
    return path, None
  if '/' in weights or path.suffix in ('.npz', '.safetensors', '.pth', '.pt', '.bin', '.h5'):
    raise MedtlError(f'no file {path}; give the path of a checkpoint, or one of: {", ".join(sorted(table)) or "none"}')
  raise MedtlError(f'no file and no known checkpoint {weights!r}; {spec.nearest(weights, table)}')


def read(path: str | Path, say: Callable[[str], None] = print) -> dict[str, np.ndarray]:
  """Return the arrays of a checkpoint under the publisher's names; `say` hears what was unwrapped.

  Raises MedtlError for what is no checkpoint, is truncated, or holds a pickle that asks for more than tensors.
  """
  path = Path(path)
  arrays = _reader(path)(path)
  flat = _unwrap(arrays, path, say)
  if not flat:
    raise MedtlError(f'{path} holds no arrays')
  return {name: np.asarray(array).astype(np.float32) for name, array in flat.items()}


def _reader(path: Path) -> Callable[[Path], Mapping[str, Any]]:
  """Return the function that reads the kind of file that the first bytes announce."""
  try:
    with path.open('rb') as file:
      start = file.read(512)
  except OSError as error:
    raise MedtlError(f'cannot read {path}: {error.strerror}') from None
  if not start:
    raise MedtlError(f'{path} is empty; get it again')
  if start.lstrip().lower().startswith((b'<!doctype', b'<html', b'<?xml')):
    raise MedtlError(f'{path} is a web page, not a checkpoint; was it saved from a page that asks for a login?')
  if start.startswith(b'version https://git-lfs'):
    raise MedtlError(f'{path} is a Git LFS pointer, not the checkpoint itself; get the file that it stands for')
  if start.startswith(b'PK'):
    return _zip
  if start.startswith(b'\x89HDF'):
    return _h5
  if start.startswith(b'\x80'):
    return pickled.read_legacy
  if start[8:9] == b'{':
    return _safetensors
  raise MedtlError(f'{path} begins with {start[:8]!r}; expected .npz, .safetensors, .pth or .h5')


def _zip(path: Path) -> Mapping[str, Any]:
  try:
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
      if any(name.endswith('data.pkl') for name in names):
        return pickled.read_zip(archive, path)
    with np.load(path, allow_pickle=False) as arrays:
      return {name: arrays[name] for name in arrays.files}
  except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
    raise MedtlError(f'{path} is truncated or damaged: {error}; get it again') from None
  except ValueError as error:
    raise MedtlError(f'refused: {path} is no archive of plain arrays: {error}') from None


def _safetensors(path: Path) -> dict[str, np.ndarray]:
  import safetensors
  try:
    entries = safetensors.deserialize(path.read_bytes())
  except safetensors.SafetensorError as error:
    raise MedtlError(f'{path} is truncated or no safetensors file: {error}; get it again') from None
  unknown = sorted({entry['dtype'] for _, entry in entries} - set(SAFETENSORS))
  if unknown:
    raise MedtlError(f'{path} holds arrays of type {", ".join(unknown)}; there are: {", ".join(SAFETENSORS)}')
  return {name: np.frombuffer(bytes(entry['data']), SAFETENSORS[entry['dtype']]).reshape(entry['shape']) for name, entry in entries}


def _h5(path: Path) -> dict[str, np.ndarray]:
  """Return 'layer/variable' arrays; Keras 3 numbers a layer's variables, so their names are told from their shapes."""
  import h5py
  try:
    with h5py.File(path) as file:
      found: dict[str, h5py.Dataset] = {}
      file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
      layers: dict[str, list[np.ndarray]] = {}
      arrays: dict[str, np.ndarray] = {}
      for name in sorted(name for name in found if not name.startswith('optimizer')):
        group = found[name].parent
        if group.name.endswith('/vars') and 'name' in group.attrs:
          layers.setdefault(str(group.attrs['name']), []).append(found[name][()])
        else:
          arrays['/'.join(name.split(':')[0].split('/')[-2:])] = found[name][()]
  except (OSError, RuntimeError) as error:
    raise MedtlError(f'{path} is truncated or no Keras file: {error}; get it again') from None
  for layer, values in layers.items():
    arrays |= {f'{layer}/{variable}': value for variable, value in zip(_variables(values), values, strict=True)}
  return arrays


def _variables(values: list[np.ndarray]) -> list[str]:
  """Return the names of a Keras 3 layer's numbered variables."""
  if all(value.ndim == 1 for value in values):
    return ['gamma', 'beta', 'moving_mean', 'moving_variance'][:len(values)] + [str(i) for i in range(4, len(values))]
  return ['kernel', 'bias'][:len(values)] + [str(i) for i in range(2, len(values))]


def _unwrap(arrays: Mapping[str, Any], path: Path, say: Callable[[str], None]) -> dict[str, np.ndarray]:
  """Return the mapping that holds the arrays themselves: out of {'state_dict': …}, without a 'module.' before each name."""
  if not isinstance(arrays, Mapping):
    raise MedtlError(f'{path} holds a {type(arrays).__name__}; expected a dictionary of arrays, a state_dict')
  for wrapper in ('state_dict', 'model_state_dict', 'model', 'teacher'):
    if isinstance(arrays.get(wrapper), Mapping):
      others = sorted(map(str, set(arrays) - {wrapper}))
      say(f'{path.name}: reading {wrapper!r}' + (f', ignoring {", ".join(others)}' if others else ''))
      return _unwrap(arrays[wrapper], path, say)
  for prefix in ('module.', '_orig_mod.'):
    if arrays and all(str(name).startswith(prefix) for name in arrays):
      say(f'{path.name}: every name begins with {prefix!r}, which is taken off')
      return _unwrap({name.removeprefix(prefix): value for name, value in arrays.items()}, path, say)
  strange = [str(name) for name, value in arrays.items() if not isinstance(value, np.ndarray)]
  if strange:
    raise MedtlError(f'{path}: {", ".join(strange[:8])} are no arrays; expected a dictionary of arrays, a state_dict')
  return dict(arrays)
