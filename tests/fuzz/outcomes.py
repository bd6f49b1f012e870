"""What became of a mutated file: read as before, refused in words, or something that is wrong.

A door reads a file in the way a run does, and gives everything that a run learns from it. Each
passes with a limit on time and memory.
"""

import contextlib
import hashlib
import os
import re
import resource
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import medtl
from medtl import data as room
from medtl.core.types import Dataset, MedtlError
from medtl.data.sources import dicom, folder, medmnist
from medtl.models.pretrained import checkpoint_files
from tests.fuzz import manifests
from tests.fuzz.files import Case, Original, Outputs
from tests.fuzz.manifests import pictures

SAME, ERROR, UNDETECTABLE = 'same', 'error', 'undetectable'
TRACEBACK, SILENT, MESSAGE, SLOW, MEMORY = 'traceback', 'silent', 'message', 'slow', 'memory'
UNREAD = 'original'  # the whole file itself is misread
RIGHT = (SAME, ERROR, UNDETECTABLE)
SECONDS = 2.0  # of computing
ROOM = 6 << 30  # bytes that may be asked for, more than 32 bits can say …
TOUCHED = 300 << 20  # … and bytes that may be used
LONGEST = 500  # characters of a message
PYTHON = re.compile(
  '|'.join(
    (  # what Python says to programmers
      'NoneType',
      'object has no',
      'object is not',
      'unsupported operand',
      '<class',
      'Traceback',
      'index out of range',
      'out of bounds',
      'unpack requires',
      'to unpack',
      'invalid literal',
      'could not convert',
      "codec can't",
      'requires a buffer',
      'buffer size must',
      'broadcast',
      'positional argument',
      r'struct\.error',
      'must be (str|int|real|bytes)',
      'maximum recursion',
      r'Error\(',
      r':\s*$',
      r":\s*'\w+'\s*$",
    )
  )
)
Values = dict[str, np.ndarray]
Keys = dict[str, Any]
MEDTL = Path(medtl.__file__).parent
LOADS = {'folder': folder.load, 'dicom': dicom.load, 'medmnist': medmnist.load}
LOOSE = ('classes', 'age')  # whose number or type another legal value may change
NAMES = {'manifest': 'labels'}  # of the files that are read; their suffix follows


class Verdict(NamedTuple):
  """One outcome, and what was said or seen."""

  outcome: str
  detail: str = ''

  @property
  def right(self) -> bool:
    """Return whether nothing is to be mended."""
    return self.outcome in RIGHT


class Slow(BaseException):
  """The time is over; no reader catches this."""


def judge(case: Case, scratch: Path) -> Verdict:
  """Return what became of a mutated file, which is written below `scratch` and removed again."""
  original = case.original
  expected = _expected(original, scratch)
  if isinstance(expected, Verdict):
    return expected
  found = _attempt(_read, original, case.data, scratch)
  if isinstance(found, Verdict):
    return found
  verdict = compare(expected, found, case.free)
  if verdict.outcome == SILENT and original.door != 'checkpoint':
    return _later(verdict, expected, found, case, scratch)
  return verdict


def _later(verdict: Verdict, expected: Values, found: Values, case: Case, scratch: Path) -> Verdict:
  """Return whether the checks of a run's data stop at what its source lets pass.

  They are not asked about shapes, as an operation such as resize would hide another shape.
  """
  if set(expected['shapes'].tolist()) != set(found['shapes'].tolist()):
    return verdict
  by_column = not _equal(expected.get('split'), found.get('split')) and 'split' in found
  load = _load_by_column if by_column else _load
  checked = _attempt(load, case.original, case.data, scratch, names=False)
  return checked if isinstance(checked, Verdict) else verdict


_known: dict[tuple[str, str], Values | Verdict] = {}


def _expected(original: Original, scratch: Path) -> Values | Verdict:
  """Return what the whole file gives, or a verdict where that is not what was written into it."""
  key = original.kind, original.name
  if key not in _known:
    found = _attempt(_read, original, original.data, scratch)
    if not isinstance(found, Verdict) and original.door != 'checkpoint':
      checked = _attempt(_load, original, original.data, scratch)
      found = checked if isinstance(checked, Verdict) else found
    if isinstance(found, Verdict):
      _known[key] = Verdict(UNREAD, f'{found.outcome}: {found.detail}')
    else:
      misread = _misread(original, found)
      _known[key] = Verdict(UNREAD, misread) if misread else found
  return _known[key]


def _misread(original: Original, found: Values) -> str:
  """Return in words what differs from the numbers that were written into the file."""
  for name, truth in original.truth.items():
    if truth.ndim == 3 and name == 'x':
      if found['shapes'].tolist() != [str(truth.shape)]:
        return f'a picture of shape {found["shapes"][0]}, expected {truth.shape}'
      truth = truth.ravel()
    if found[name].shape != truth.shape:
      return f'{name} has shape {found[name].shape}, expected {truth.shape}'
    if truth.dtype.kind == 'U' and (found[name] != truth).any():
      return f'{name} is {found[name]}, expected {truth}'
    if truth.dtype.kind != 'U' and np.abs(found[name] - truth).max(initial=0) > original.near:
      return f'{name} is off by up to {np.abs(found[name] - truth).max():g}'
  return ''


def compare(expected: Values, found: Values, free: Outputs) -> Verdict:
  """Return whether two readings are the same, or differ only where nothing could tell."""
  names = sorted({*expected, *found})
  differing = [name for name in names if not _equal(expected.get(name), found.get(name))]
  if not differing:
    return Verdict(SAME)
  impossible = _impossible(expected, found)
  if impossible:
    return Verdict(SILENT, impossible)
  wrong = [name for name in differing if name not in free]
  wrong += [
    name
    for name in differing
    if name not in LOOSE and not _alike(expected.get(name), found.get(name))
  ]
  if wrong and '*' not in free:
    names = list(dict.fromkeys(wrong))[:3]
    words = [_difference(name, expected.get(name), found.get(name)) for name in names]
    return Verdict(SILENT, '; '.join(words))
  return Verdict(UNDETECTABLE, ', '.join(differing))


def _impossible(expected: Values, found: Values) -> str:
  """Return in words what no legal file could give: pixels out of their range, no spacing at all."""
  before, now = expected.get('x', np.zeros(0)), found.get('x', np.zeros(0))
  if _in_range(before) and not _in_range(now):
    return f'pixels of {now.min():g} … {now.max():g}, expected 0 … 1'
  spacing = found.get('spacing', np.zeros(0))
  if not (np.isfinite(spacing).all() and (spacing > 0).all()):
    return f'spacing {spacing.tolist()}'
  return ''


def _in_range(x: np.ndarray) -> bool:
  """Return whether pixels lie in 0 … 1; those that are not finite do not."""
  return bool(((x >= 0) & (x <= 1)).all())


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
  if one is None or other is None or one.shape != other.shape or one.dtype.kind != other.dtype.kind:
    return False
  return np.array_equal(one, other, equal_nan=one.dtype.kind == 'f')


def _alike(one: np.ndarray | None, other: np.ndarray | None) -> bool:
  """Return whether shape and type are the same; an array may also be missing or empty."""
  if one is None or other is None or not one.size or not other.size:
    return True
  return one.shape == other.shape and one.dtype.kind == other.dtype.kind


def _difference(name: str, one: np.ndarray | None, other: np.ndarray | None) -> str:
  if one is None or other is None:
    return f'{name!r} is {"missing" if other is None else "there"}'
  numbers = one.dtype.kind in 'fi' and other.dtype.kind in 'fi'
  if numbers and one.size == other.size > 8:
    share = np.mean(one.ravel() != other.ravel())
    return f'{share:.0%} of {name} differ'
  if max(one.size, other.size) > 8:
    return f'{name} of shape {other.shape}, was {one.shape}'
  return f'{name} {other.tolist()}, was {one.tolist()}'


def _attempt(
  action: Callable[..., Values], original: Original, data: bytes, scratch: Path, names: bool = True
) -> Values | Verdict:
  """Return what a reading gives, or a verdict on how it ended.

  A refusal must name the file, unless `names` is false: a check of labels may name a class.
  """
  path = scratch / 'case' / f'{NAMES.get(original.door, "scan")}{original.suffix}'
  path.parent.mkdir(parents=True)
  path.write_bytes(data)
  os.environ['MEDTL_CACHE'] = str(scratch / 'cache')
  try:
    with _limits():
      return action(path, original)
  except (OSError, MedtlError) as error:
    return _refusal(error, path, names)
  except MemoryError as error:
    return Verdict(MEMORY, _words(error))
  except Slow:
    return Verdict(SLOW, f'more than {SECONDS:.0f} s of computing')
  except Exception as error:
    if not _frames(error):
      raise  # a mistake of this file, not of a reader
    return Verdict(TRACEBACK, _words(error))
  finally:
    for name in ('case', 'cache'):
      shutil.rmtree(scratch / name, ignore_errors=True)


def _read(path: Path, original: Original) -> Values:
  """Return all that a file gives, by the source or reader alone."""
  if original.door == 'checkpoint':
    return {str(name): values for name, values in checkpoint_files.read(path).items()}
  with _door(path, original) as (name, keys):
    return _examples(LOADS[name](**keys))


def _load(path: Path, original: Original, by: str = 'none') -> Values:
  """Return nothing, after the checks of a run's data."""
  with _door(path, original) as (name, keys):
    room.load(name, split=dict(by=by), keep_gb=0, **keys)
  return {}


def _load_by_column(path: Path, original: Original) -> Values:
  """Return nothing, after the checks of a run that splits as the file says."""
  return _load(path, original, 'publisher')


@contextlib.contextmanager
def _door(path: Path, original: Original) -> Iterator[tuple[str, Keys]]:
  """Give the name of the source that reads a file, and its keys."""
  keys = dict(original.options)
  if original.door == 'medmnist':
    with _published(path, keys['flag']):
      yield 'medmnist', dict(keys, root=str(path))
  elif original.door == 'manifest':
    for name, data in pictures().items():
      (path.parent / name).write_bytes(data)
    yield 'folder', dict(keys, root=str(path.parent), manifest=path.name)
  else:
    source = {'picture': 'folder', 'dicom': 'dicom'}[original.door]
    yield source, dict(keys, root=str(path.parent), label='')


@contextlib.contextmanager
def _published(path: Path, flag: str) -> Iterator[None]:
  """Enter the file's own md5 as if it were the publisher's."""
  source = medmnist.SOURCES[flag]
  md5 = hashlib.md5(path.read_bytes()).hexdigest()
  others = source.md5.split()[1:]
  medmnist.SOURCES[flag] = source._replace(md5=' '.join([md5, *others]))
  try:
    yield
  finally:
    medmnist.SOURCES[flag] = source


def _examples(found: Dataset) -> Values:
  """Return all examples of a data set: pixels in a row, shapes, spacing, and the table."""
  pixels, shapes, spacing, labels = [np.zeros(0, np.float32)], [], [], []
  for index in range(found.size):
    example = found.fetch(index)
    pixels.append(example.x.ravel())
    shapes.append(str(example.x.shape))
    spacing += example.spacing
    labels.append(example.y)
  values = {name: np.asarray(column) for name, column in found.table.items() if name != 'row'}
  values |= {'x': np.concatenate(pixels), 'y': np.array(labels)}
  values |= {'shapes': np.array(shapes), 'spacing': np.array(spacing, float)}
  return {**values, 'classes': np.array(found.classes)}


def _refusal(error: Exception, path: Path, names: bool) -> Verdict:
  """Return whether a refusal is clear: it names the file and speaks of files, not of Python."""
  folder = f'{path.parent}/'
  told = any(name in str(error) for name in (path.name, folder, *manifests.FILES))
  words = str(error).replace(folder, '…/').replace(str(path.parent.parent), '…')
  if names and not told:
    return Verdict(MESSAGE, f'names no file: {words[:200]!r}')
  if PYTHON.search(words) or len(words) > LONGEST:
    return Verdict(MESSAGE, words[:300])
  return Verdict(ERROR, words)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
  """Return the lines of medtl that an exception passed."""
  frames = traceback.extract_tb(error.__traceback__)
  return [frame for frame in frames if Path(frame.filename).is_relative_to(MEDTL)]


def _words(error: BaseException) -> str:
  """Return an exception in words, and the last line of medtl that it passed."""
  frames = _frames(error)
  where = f' ({Path(frames[-1].filename).name}:{frames[-1].lineno})' if frames else ''
  return f'{type(error).__name__}: {str(error)[:200]}{where}'


@contextlib.contextmanager
def _limits() -> Iterator[None]:
  """Stop a reading after some seconds of computing or where it asks for gigabytes."""
  soft, hard = resource.getrlimit(resource.RLIMIT_AS)
  before = _memory('VmRSS')
  if _memory('VmHWM') - before > TOUCHED // 10:  # then the peak begins anew
    Path('/proc/self/clear_refs').write_text('5')
  handler = signal.signal(signal.SIGPROF, _stop)
  resource.setrlimit(resource.RLIMIT_AS, (_memory('VmSize') + ROOM, hard))
  signal.setitimer(signal.ITIMER_PROF, SECONDS)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    signal.setitimer(signal.ITIMER_PROF, 0)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    signal.signal(signal.SIGPROF, handler)
  if _memory('VmHWM') - before > TOUCHED:
    raise MemoryError(f'{(_memory("VmHWM") - before) >> 20} MiB used')


def _stop(*_: Any) -> None:
  raise Slow


def _memory(name: str) -> int:
  """Return one of the numbers that Linux keeps of this process, in bytes."""
  for line in Path('/proc/self/status').read_text().splitlines():
    if line.startswith(f'{name}:'):
      return int(line.split()[1]) << 10
  raise KeyError(name)
