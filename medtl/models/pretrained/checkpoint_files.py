"""A publisher's file becomes {name: float32 array}; nothing in it is executed.

`file_formats` knows which kinds of files there are, `find_network` what wraps a network in them.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from medtl.core import expressions
from medtl.core.types import MedtlError, Missing, Weights
from medtl.models.pretrained import (
  file_formats,
  find_network,
  nested_contents,
  sharded_files,
  torch_tensors,
)
from medtl.models.pretrained.dialects import Dialect
from medtl.models.pretrained.nested_contents import Contents
from medtl.models.pretrained.pickle_reader import printable
from medtl.runtime import downloads

PART = '::'  # between a file and the part of it that is to be read


class Source(NamedTuple):
  """Where a checkpoint lies, its entry in a table of WEIGHTS, and which part of it is meant."""

  path: Path
  known: Weights | None
  part: str = ''


def locate(weights: str, table: Mapping[str, Weights]) -> Source:
  """Return where a checkpoint lies that is called by a name of a family's WEIGHTS or by a path.

  A known checkpoint is fetched if need be. `FILE::PART` is the part of a file whose names begin
  with PART: 'dino.pth::student'. Raises MedtlError where there is no such file.
  """
  name, _, part = weights.partition(PART)
  if Path(weights).is_file():
    name = weights
    part = ''
  if name in table and not table[name].url:
    return Source(_got_by_hand(name, table[name]), table[name], part)
  if name in table:
    entry = table[name]
    hint = "config.model.weights=PATH reads a file, config.model.weights='' starts from scratch"
    fetched = downloads.fetch(
      entry.url, sha256=entry.sha256, md5=entry.md5, purpose=_purpose(name), hint=hint
    )
    return Source(fetched, entry, part)
  path = Path(name).expanduser()
  if path.is_file():
    return Source(path, None, part)
  if path.is_dir():
    raise MedtlError(_advice_for_folder(path))
  if '/' in name or name.endswith(file_formats.SUFFIXES):
    known = ', '.join(sorted(table)) or 'none'
    raise MedtlError(f'no file {path}; give the path of a checkpoint, or one of: {known}')
  raise MedtlError(
    f'no file and no known checkpoint {name!r}; {expressions.did_you_mean(name, table)}'
  )


def kept_at(name: str, entry: Weights) -> Path | None:
  """Return where the file of an entry is kept once it is here; None if in no package installed."""
  if not entry.url:
    return downloads.cache_folder() / 'by_hand' / name
  if downloads.served(entry.url):
    return downloads.cached_path(entry.url)
  try:
    return downloads.fetch(entry.url)
  except MedtlError:  # the package is not installed, or another version of it
    return None


def _got_by_hand(name: str, entry: Weights) -> Path:
  """Return where a file lies that no program may fetch; a Missing says where people get it."""
  path = downloads.cache_folder() / 'by_hand' / name
  if path.is_file():
    return downloads.fetch(str(path), sha256=entry.sha256, md5=entry.md5, purpose=_purpose(name))
  lines = [
    f'missing: {_purpose(name)}: its publisher gives it out by hand alone',
    f'  get it at {entry.page}',
    f'  put it at {path}',
    '  or        config.model.weights=PATH reads it where it lies',
  ]
  if entry.terms:
    lines.insert(2, f'  terms     {entry.terms}')
  raise Missing('\n'.join(lines))


def remote(weights: str, table: Mapping[str, Weights]) -> downloads.Remote | None:
  """Return the file that `locate` fetches; None where it is the user's or of a Python package."""
  name = weights.partition(PART)[0]
  if Path(weights).is_file() or name not in table or not downloads.served(table[name].url):
    return None
  url = table[name].url
  return downloads.Remote(_purpose(name), url, downloads.cached_path(url))


def _purpose(name: str) -> str:
  return f'the checkpoint {name}'


def _advice_for_folder(path: Path) -> str:
  """Return what to give instead of a folder."""
  if (path / 'plan.json').is_file():
    advice = f'config.model.weights=run:{path}'
    return f'{path} is the folder of a run; {advice} begins with its best checkpoint'
  if (path / 'data.pkl').is_file():
    pack = f'in {path.parent}: zip -0 -r {path.name}.pth {path.name}'
    return f'{path} is a PyTorch file that was unpacked; pack it again ({pack}) and give the file'
  names = sorted(file.name for file in path.iterdir())
  names = [name for name in names if name.endswith(file_formats.SUFFIXES)]
  if not names:
    suffixes = ', '.join(file_formats.SUFFIXES)
    return f'{path} is a folder without a checkpoint; give a file: {suffixes}'
  files = nested_contents.listed(dict.fromkeys(names, ''))
  return f'{path} is a folder; give one of its files: {files}'


def read(
  path: str | Path,
  dialects: Mapping[str, Dialect] | None = None,
  *,
  part: str = '',
  say: Callable[[str], None] = print,
) -> dict[str, np.ndarray]:
  """Return the arrays of a checkpoint under the publisher's names, in float32.

  `dialects` are an architecture's RENAMES: what wraps its arrays is taken off their names, and
  other arrays are left out. Without dialects all arrays are returned, named from the file's
  outermost dictionary on. `part` is the beginning of the names that are meant. `say` hears what
  was taken and what was left out. One of several files of a checkpoint (`sharded_files`) is read
  with the others. Raises MedtlError for what is no checkpoint, is truncated, or holds no arrays of
  numbers.
  """
  path = Path(path)
  files = sharded_files.files(path)
  if len(files) > 1:
    say(f'{path.name}: read as one with the other parts, {len(files)} in all')
  with contextlib.ExitStack() as opened:
    parts = [_contents(file, opened) for file in files]
    with _naming(path):
      contents = _joined(parts, sharded_files.names(path))
      if part:
        contents = find_network.inside(contents, part)
      choice = find_network.choose(contents.arrays, dialects or {})
      _tell(path, contents, choice, say)
      arrays = find_network.network(contents, choice.prefix)
      return {name: _float32(name, array) for name, array in arrays.items()}


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
  """Put the file's name in front of the message of a MedtlError."""
  try:
    yield
  except MedtlError as error:
    raise MedtlError(f'{path} {error}') from None


def _contents(path: Path, opened: contextlib.ExitStack) -> Contents:
  """Return the arrays of one file and what else it holds; files stay open until `opened` closes."""
  try:
    file = opened.enter_context(path.open('rb'))
    start = file.read(file_formats.START)
  except OSError as error:
    raise MedtlError(f'cannot read {path}: {error.strerror}') from None
  file.seek(0)
  with _naming(path):
    value = file_formats.reader(path, start)(file, opened)
    contents = nested_contents.of(value)
    if contents.arrays:
      return contents
    kind = nested_contents.kind(value)
    if kind.startswith('__torch__.'):
      raise MedtlError(
        'is a TorchScript program with its numbers frozen into it; '
        'save them before that: torch.save(model.state_dict(), FILE)'
      )
    there = nested_contents.listed(contents.others or {kind: ''})
    raise MedtlError(f'holds no arrays of a network, only: {there}')


def _joined(parts: Sequence[Contents], expected: Iterable[str]) -> Contents:
  """Return the contents of all parts of a checkpoint, which must hold the names expected."""
  joined = Contents()
  for part in parts:
    for name in part.arrays:
      if name in joined.arrays:
        raise MedtlError(f'is no part of one checkpoint: {printable(name)} is in several files')
    joined.arrays.update(part.arrays)
    joined.others.update(part.others)
  for name in expected:
    if name not in joined.arrays:
      raise MedtlError(
        f'does not belong to the files beside it: {printable(name)} is in none '
        'of them; get all of them again'
      )
  return joined


def _tell(
  path: Path, contents: Contents, choice: find_network.Choice, say: Callable[[str], None]
) -> None:
  """Say in a line what is taken and left out, and in a line each what could have been meant."""
  others = find_network.left_out(contents, choice.prefix)
  left = f'left out: {nested_contents.listed(others)}' if others else 'nothing is left out'
  if choice.prefix:
    say(f'{path.name}: reading what lies below {choice.prefix[:-1]!r}; {left}')
  elif others:
    say(f'{path.name}: {left}')
  for rival in choice.rivals:
    name = rival[:-1]
    advice = f"config.model.weights='{path}{PART}{name}'"
    say(f'{path.name}: {name!r} is such a network too; {advice} reads that one')


def _float32(name: str, leaf: nested_contents.Leaf) -> np.ndarray:
  """Return an array's numbers in float32; MedtlError says why there are none."""
  begin = f'holds {printable(name)}, which'
  if isinstance(leaf, torch_tensors.Unreadable):
    raise MedtlError(f'{begin} {leaf.why}')
  array = leaf.array() if isinstance(leaf, torch_tensors.Tensor) else leaf
  if array.dtype.kind == 'c':
    raise MedtlError(f'{begin} is of complex numbers; these networks are real: is it of another?')
  if array.dtype.kind not in 'fiub' and array.dtype != ml_dtypes.bfloat16:
    raise MedtlError(
      f'{begin} is of {array.dtype.name}; multiply it by its scale, convert it by '
      '.float() and save it again'
    )
  return array.astype(np.float32)
