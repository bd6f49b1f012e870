"""A publisher's file becomes {name: float32 array}. What it is, is read from its first bytes; nothing in it is executed.

numpy `.npz`, `.safetensors`, PyTorch's zip and legacy pickles (state dicts, whole modules, TorchScript),
plain pickles of numpy arrays, Keras `.h5` (Keras 2 weights or models, Keras 3 weights), and their parts
with an index.json.
"""

import contextlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from medtl import fetch, spec
from medtl.models import pickled, shards, wrapping
from medtl.models.port import Dialect
from medtl.types import MedtlError, Weights

SAFETENSORS = {'F64': 'f8', 'F32': 'f4', 'F16': 'f2', 'BF16': ml_dtypes.bfloat16, 'I64': 'i8', 'I32': 'i4',
               'I16': 'i2', 'I8': 'i1', 'U64': 'u8', 'U32': 'u4', 'U16': 'u2', 'U8': 'u1', 'BOOL': '?'}
SUFFIXES = ('.npz', '.safetensors', '.pth', '.pt', '.bin', '.ckpt', '.pkl', '.tar', '.h5', '.index.json')
_COMPRESSED = {b'\x1f\x8b': 'gzip', b'BZh': 'bzip2', b'\xfd7zXZ': 'xz', b'\x28\xb5\x2f\xfd': 'zstd',
               b'7z\xbc\xaf': '7-Zip', b'Rar!': 'RAR'}
_PART = '::'                             # between a file and the part of it that is to be read


class Source(NamedTuple):
  """Where a checkpoint lies, the entry of the table that it was, and the part of the file that is meant."""
  path: Path
  known: Weights | None
  part: str = ''


def locate(weights: str, table: Mapping[str, Weights]) -> Source:
  """Return what a name of a family's WEIGHTS (fetched if need be) or a path means.

  `FILE::PART` is the part of a file whose names begin with PART: 'dino.pth::student'.
  """
  name, _, part = (weights, '', '') if Path(weights).is_file() else weights.partition(_PART)
  if name in table:
    entry = table[name]
    where = fetch.fetch(entry.url, sha256=entry.sha256, purpose=f'the checkpoint {name}',
                        hint="config.model.weights=PATH reads a file, config.model.weights='' starts from scratch")
    return Source(where, entry, part)
  path = Path(name).expanduser()
  if path.is_file():
    return Source(path, None, part)
  if path.is_dir():
    raise MedtlError(_folder(path))
  if '/' in name or name.endswith(SUFFIXES):
    raise MedtlError(f'no file {path}; give the path of a checkpoint, or one of: {", ".join(sorted(table)) or "none"}')
  raise MedtlError(f'no file and no known checkpoint {name!r}; {spec.nearest(name, table)}')


def _folder(path: Path) -> str:
  """Return what to give instead of a folder."""
  if (path / 'plan.json').is_file():
    return f'{path} is the folder of a run; config.model.weights=run:{path} begins with its best checkpoint'
  if (path / 'data.pkl').is_file():
    return (f'{path} is a PyTorch file that something has unpacked; pack the folder again '
            f'(in {path.parent}: zip -0 -r {path.name}.pth {path.name}) and give the file')
  files = sorted(file.name for file in path.iterdir() if file.name.endswith(SUFFIXES))
  if not files:
    return f'{path} is a folder without a checkpoint; give a file: {", ".join(SUFFIXES)}'
  more = f' and {len(files) - 6} more' if len(files) > 6 else ''
  return f'{path} is a folder; give one of its files: {", ".join(files[:6])}{more}'


def read(path: str | Path, dialects: Mapping[str, Dialect] | None = None, *, part: str = '',
         say: Callable[[str], None] = print) -> dict[str, np.ndarray]:
  """Return the arrays of a checkpoint under the publisher's names, in float32.

  `dialects` are an architecture's RENAMES: what wraps its arrays is taken off their names, and other
  arrays are left out; without them all arrays are returned, named from the file's outermost dictionary
  on. `part` is the beginning of the names that are meant. `say` hears what was taken and left out.
  Raises MedtlError for what is no checkpoint, is truncated, or holds no arrays of numbers.
  """
  path = Path(path)
  files = shards.files(path)
  if len(files) > 1:
    say(f'{path.name}: read as one with the other parts, {len(files)} in all')
  with contextlib.ExitStack() as opened:
    several = [_contents(file, opened) for file in files]
    with _naming(path):
      found = _joined(several, shards.names(path))
      found = wrapping.inside(found, part) if part else found
      choice = wrapping.choose(found.arrays, dialects or {})
      _tell(path, found, choice, say)
      arrays = wrapping.network(found, choice.prefix)
      return {name: _float32(name, array) for name, array in arrays.items()}


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
  """Put the file's name before the message of a MedtlError."""
  try:
    yield
  except MedtlError as error:
    raise MedtlError(f'{path} {error}') from None


def _contents(path: Path, opened: contextlib.ExitStack) -> wrapping.Contents:
  """Return the arrays of one file and what else it holds; files stay open until `opened` closes."""
  try:
    file = opened.enter_context(path.open('rb'))
    start = file.read(512)
  except OSError as error:
    raise MedtlError(f'cannot read {path}: {error.strerror}') from None
  file.seek(0)
  with _naming(path):
    value = _reader(path, start)(file, opened)
    found = wrapping.contents(value)
    if not found.arrays:
      kind = wrapping.kind(value)
      if kind.startswith('__torch__.'):
        raise MedtlError('is a TorchScript program with its numbers frozen into it; save them before that: '
                         'torch.save(model.state_dict(), FILE)')
      raise MedtlError(f'holds no arrays of a network, only: {listed(found.others or {kind: ""})}')
  return found


def _joined(several: Sequence[wrapping.Contents], expected: Iterable[str]) -> wrapping.Contents:
  """Return the contents of all parts of a checkpoint, which must hold the names that are expected."""
  joined = wrapping.Contents()
  for found in several:
    twice = sorted(found.arrays.keys() & joined.arrays.keys())
    if twice:
      raise MedtlError(f'is no part of one checkpoint: {wrapping.shown(twice[0])} is in several of its files')
    joined.arrays.update(found.arrays)
    joined.others.update(found.others)
  missing = [name for name in expected if name not in joined.arrays]
  if missing:
    raise MedtlError(f'does not belong to the files beside it: {wrapping.shown(missing[0])} is in none of them; get all again')
  return joined


def _tell(path: Path, found: wrapping.Contents, choice: wrapping.Choice, say: Callable[[str], None]) -> None:
  """Say in a line what is taken and left out, and in one more each what else could have been meant."""
  taken = f'reading what lies below {choice.prefix[:-1]!r}; ' if choice.prefix else ''
  others = wrapping.left_out(found, choice.prefix)
  left = f'left out: {listed(others)}' if others else 'nothing is left out'
  if taken or others:
    say(f'{path.name}: {taken}{left}')
  for rival in choice.rivals:
    name = wrapping.shown(rival[:-1])
    say(f"{path.name}: {name!r} is such a network too; config.model.weights='{path}{_PART}{name}' reads that one")


def listed(others: Mapping[str, str], most: int = 8) -> str:
  """Return names and what they are, 'epoch (int), args (argparse.Namespace)', and how many more there are."""
  words = [f'{name} ({kind})' if kind else name for name, kind in others.items()]
  more = [f'{len(words) - most} more'] if len(words) > most else []
  return ', '.join([*map(wrapping.shown, words[:most]), *more])


def _float32(name: str, leaf: wrapping.Leaf) -> np.ndarray:
  """Return an array's numbers in float32; MedtlError says why there are none."""
  what = f'holds {wrapping.shown(name)}, which'
  if isinstance(leaf, pickled.Unreadable):
    raise MedtlError(f'{what} {leaf.why}')
  array = leaf.array() if isinstance(leaf, pickled.Tensor) else leaf
  if array.dtype.kind == 'c':
    raise MedtlError(f'{what} is of complex numbers; these networks are real: is it another architecture?')
  if array.dtype.kind not in 'fiub' and array.dtype != ml_dtypes.bfloat16:
    raise MedtlError(f'{what} is of {array.dtype.name}; multiply it by its scale, convert it by .float() and save again')
  return array.astype(np.float32)


Reader = Callable[[BinaryIO, contextlib.ExitStack], Any]


def _reader(path: Path, start: bytes) -> Reader:
  """Return the function that reads the kind of file that the first bytes announce."""
  if not start:
    raise MedtlError('is empty; get it again')
  if start.lstrip().lower().startswith((b'<!doctype', b'<html', b'<?xml')):
    raise MedtlError('is a web page, not a checkpoint; was it saved from a page that asks for a login?')
  if start.startswith(b'version https://git-lfs'):
    raise MedtlError('is a Git LFS pointer, not the checkpoint itself; get the file that it stands for')
  for magic, name in _COMPRESSED.items():
    if start.startswith(magic):
      raise MedtlError(f'is compressed by {name}; unpack it and give the file that was inside')
  if start[257:262] == b'ustar':
    raise MedtlError(_tar(path))
  if start.startswith(b'\x93NUMPY'):
    raise MedtlError('is a .npy file, one array without a name; save named ones: numpy.savez(FILE, **arrays)')
  if start.startswith(b'PK'):
    return _zip
  if start.startswith(b'\x89HDF'):
    return _h5
  if start[8:9] == b'{':
    return _safetensors
  if start.startswith((b'\x80', b'(dp', b'}q', b'ccollections')):       # the last three by Python 2
    return _pickle
  raise MedtlError(f'begins with {start[:8]!r}; expected .npz, .safetensors, .pth or .h5')


def _tar(path: Path) -> str:
  """Return what to do with a tar archive."""
  try:
    with tarfile.open(path) as archive:
      names = archive.getnames()
  except (tarfile.TarError, OSError) as error:
    return f'is truncated or damaged: {error}; get it again'
  if {'pickle', 'storages', 'tensors'} <= set(names):
    return ('was written by PyTorch before 0.1.10; load it in PyTorch and save it again: '
            'torch.save(torch.load(FILE), NEW)')
  return f'is a tar archive; unpack it and give one of its files: {listed(dict.fromkeys(names, ""))}'


def _pickle(file: BinaryIO, _: contextlib.ExitStack) -> Any:
  return pickled.read_stream(file)


def _zip(file: BinaryIO, opened: contextlib.ExitStack) -> Any:
  try:
    archive = opened.enter_context(zipfile.ZipFile(file))
    names = archive.namelist()
    if any(name.endswith('data.pkl') for name in names):
      return pickled.read_zip(archive)
    if all(name.endswith('.npy') for name in names):
      return _npz(file)
  except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
    raise MedtlError(f'is truncated or damaged: {error}; get it again') from None
  raise MedtlError(f'is a zip archive; unpack it and give one of its files: {listed(dict.fromkeys(names, ""))}')


def _npz(file: BinaryIO) -> dict[str, Any]:
  """Return the arrays of an .npz; those of Python objects, which only a pickle can make, are refused."""
  file.seek(0)
  found: dict[str, Any] = {}
  with np.load(file, allow_pickle=False) as arrays:
    for name in arrays.files:
      try:
        found[name] = arrays[name]
      except ValueError:
        found[name] = wrapping.Other('Python objects, refused')
  return found


def _safetensors(file: BinaryIO, _: contextlib.ExitStack) -> dict[str, Any]:
  import safetensors
  try:
    entries = safetensors.deserialize(file.read())
  except safetensors.SafetensorError as error:
    raise MedtlError(f'is truncated or no safetensors file: {error}; get it again') from None
  return {name: _tensor(entry) for name, entry in entries}


def _tensor(entry: Mapping[str, Any]) -> np.ndarray | pickled.Unreadable:
  dtype = SAFETENSORS.get(entry['dtype'])
  if dtype is None:
    return pickled.Unreadable(f'is of type {entry["dtype"]}; there are: {", ".join(SAFETENSORS)}')
  return np.frombuffer(bytes(entry['data']), dtype).reshape(entry['shape'])


def _h5(opened_file: BinaryIO, _: contextlib.ExitStack) -> dict[str, np.ndarray]:
  """Return 'layer/variable' arrays; Keras 3 numbers a layer's variables, so their names are told from their shapes."""
  import h5py
  try:
    with h5py.File(opened_file) as file:
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
    raise MedtlError(f'is truncated or no Keras file: {error}; get it again') from None
  for layer, values in layers.items():
    arrays |= {f'{layer}/{variable}': value for variable, value in zip(_variables(values), values, strict=True)}
  return arrays


def _variables(values: list[np.ndarray]) -> list[str]:
  """Return the names of a Keras 3 layer's numbered variables."""
  if all(value.ndim == 1 for value in values):
    return ['gamma', 'beta', 'moving_mean', 'moving_variance'][:len(values)] + [str(i) for i in range(4, len(values))]
  return ['kernel', 'bias'][:len(values)] + [str(i) for i in range(2, len(values))]
