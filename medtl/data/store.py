"""Every picture is read once, before training: checked, hashed, and kept where it fits.

What was found is remembered in the cache folder under a hash of the source's fingerprint, facts and
keys, the operations and this folder's code, so that a second start reads nothing. `x.bin` holds
float32 pictures after the operations, `y.bin` what is learned, one case after the other, both
memory-mapped: cases may differ in shape where batches cut patches out of them.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medtl.core.frames import Frame
from medtl.core.types import Dataset, Example, MedtlError, ShapesDiffer, is_mask
from medtl.data.geometry import frame_of
from medtl.data.splits import name_of
from medtl.runtime import files
from medtl.runtime.downloads import cache_folder

Operations = Sequence[Callable[[Example], Example]]
PATIENCE = 2000  # examples from which on a progress bar is shown


class Seen(NamedTuple):
  """One example as it was met."""

  example: Example | None  # after the operations; None once written, or where it is unreadable
  unreadable: str = ''
  content: str = ''  # a hash of the pixels before the operations
  flat: bool = False  # all pixels equal
  finite: bool = True
  shape: tuple[int, ...] = ()
  y_shape: tuple[int, ...] = ()
  frame: Frame = Frame((), np.eye(1))  # after the operations
  file_frame: Frame = Frame((), np.eye(1))
  target: str = ''  # a hash of the mask
  range: tuple[float, float] = (0.0, 0.0)  # after the operations


def prepare(
  dataset: Dataset,
  operations: Operations,
  key: Mapping[str, Any],
  *,
  skip_unreadable: int,
  keep_gb: float,
  many_shapes: bool = False,
) -> Dataset:
  """Return the data set after the operations, without its unreadable examples.

  Its table has a column `content`. `facts` gain `hash` (of pixels and labels), `unreadable` (what
  was dropped, in words), `shape`, `range` and `kept`. MedtlErrors name what cannot be read (more
  than `skip_unreadable`), holds NaN or infinity, or differs in shape (unless `many_shapes` are
  allowed).
  """
  folder = cache_folder() / 'decoded' / _name(dataset, key, keep_gb)
  try:
    if not (folder / 'index.npz').exists():
      _write(dataset, operations, folder, skip_unreadable, keep_gb * 1e9, many_shapes)
    os.utime(folder)  # what was used longest ago makes room first
  except OSError as error:
    raise MedtlError(
      f'cannot keep decoded pictures in {folder}: {error}; free some space, or name '
      'a folder that can be written to in MEDTL_CACHE'
    ) from error
  with np.load(folder / 'index.npz') as file:
    index = dict(file)
  good = index['good']
  unreadable = index['unreadable'].tolist()
  _stop_unreadable(unreadable, dataset.size, skip_unreadable)
  table = {name: column[good] for name, column in dataset.table.items()}
  table['content'] = np.where(index['flat'], '', index['content'])  # empty pictures are no leak
  facts = dict(dataset.facts)
  facts['hash'] = _hash(index['content'], table['y'], index['targets'])
  facts['unreadable'] = unreadable
  facts['shape'] = index['shapes'][0].tolist()
  facts['range'] = index['range'].tolist()
  facts['kept'] = bool(index['kept'])
  fetch = _mapped(folder, index, table) if index['kept'] else _streamed(dataset, operations, good)
  return Dataset(fetch, len(good), dataset.classes, table, facts, dataset.fingerprint)


def _name(dataset: Dataset, key: Mapping[str, Any], keep_gb: float) -> str:
  told = json.dumps(
    [dataset.fingerprint, dict(key), dict(dataset.facts), keep_gb, dataset.size],
    sort_keys=True,
    default=str,
  )
  digest = hashlib.sha256(told.encode())
  for path in sorted(Path(__file__).parent.rglob('*.py')):
    digest.update(path.read_bytes())
  return digest.hexdigest()[:32]


def _hash(content: np.ndarray, y: np.ndarray, targets: np.ndarray) -> str:
  if (targets != '').any():
    content = np.char.add(content, targets)
  examples = '\n'.join(content.tolist()).encode()
  return hashlib.sha256(examples + np.ascontiguousarray(y).tobytes()).hexdigest()


def _mapped(
  folder: Path, index: Mapping[str, np.ndarray], table: Mapping[str, np.ndarray]
) -> Callable[[int], Example]:
  shapes = index['shapes']
  y_shapes = index['y_shapes']
  x = np.memmap(folder / 'x.bin', np.float32, 'r').view(np.ndarray)
  y = np.memmap(folder / 'y.bin', str(index['y_dtype']), 'r').view(np.ndarray)
  x_ends = np.cumsum(shapes.prod(axis=1))
  y_ends = np.cumsum(y_shapes.prod(axis=1))

  def fetch(i: int) -> Example:
    shape = shapes[i]
    y_shape = y_shapes[i]
    picture = x[x_ends[i] - shape.prod() : x_ends[i]].reshape(shape)
    label = y[y_ends[i] - y_shape.prod() : y_ends[i]].reshape(y_shape)
    millimetres = bool(index['mm'][i])
    frame = Frame(tuple(shape[:-1].tolist()), index['affines'][i], millimetres)
    file_shape = tuple(index['file_shapes'][i].tolist())
    file_frame = Frame(file_shape, index['file_affines'][i], millimetres)
    return Example(picture, label, int(table['row'][i]), frame, file_frame)

  return fetch


def _streamed(
  dataset: Dataset, operations: Operations, good: np.ndarray
) -> Callable[[int], Example]:
  def fetch(i: int) -> Example:
    try:
      example, _, _ = _apply(dataset.fetch(int(good[i])), operations)
      return example
    except OSError as error:
      raise MedtlError(
        f'{name_of(dataset.table, int(good[i]))} could be read when the run began, not now: {error}'
      ) from error

  return fetch


def _apply(example: Example, operations: Operations) -> tuple[Example, Frame, Frame]:
  """Return (the case after the operations, its frame, the frame of the file)."""
  file_frame = frame_of(example)
  moved = example._replace(y=np.asarray(example.y), frame=file_frame, file_frame=file_frame)
  for operation in operations:
    moved = operation(moved)
  moved = moved._replace(x=np.ascontiguousarray(moved.x, np.float32))
  return moved, frame_of(moved), file_frame


def _see(dataset: Dataset, operations: Operations, index: int) -> Seen:
  try:
    raw = dataset.fetch(index)
  except OSError as error:
    return Seen(None, unreadable=str(error) or type(error).__name__)
  before = _numbers(raw.x)
  low = float(before.min())
  high = float(before.max())
  described = f'{raw.x.shape} {raw.x.dtype} '.encode()
  y = np.asarray(raw.y)
  example, frame, file_frame = _apply(raw, operations)
  after = _numbers(example.x)
  return Seen(
    example,
    content=_digest(described + np.ascontiguousarray(raw.x).tobytes()),
    flat=low == high,
    finite=bool(np.isfinite([low, high]).all() and np.isfinite(after).all()),
    shape=example.x.shape,
    y_shape=example.y.shape,
    frame=frame,
    file_frame=file_frame,
    target=_digest(y.tobytes()) if is_mask(y) else '',
    range=(float(after.min()), float(after.max())),
  )


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]


def _numbers(x: np.ndarray) -> np.ndarray:
  """Return the numbers of x; of a vector those alone that are not missing (NaN)."""
  if x.ndim > 1 or np.isnan(x).all():
    return x
  return x[~np.isnan(x)]


def _all(dataset: Dataset, operations: Operations) -> Iterator[Seen]:
  """Look at every example in order, a few ahead in threads: volumes are large."""
  from rich.console import Console
  from rich.progress import track

  workers = os.cpu_count() or 1
  pending: deque[Future[Seen]] = deque()
  with ThreadPoolExecutor(workers) as pool:
    for number in track(
      range(dataset.size),
      'reading every picture once',
      transient=True,
      console=Console(stderr=True),
      disable=dataset.size < PATIENCE,
    ):
      pending.append(pool.submit(_see, dataset, operations, number))
      if len(pending) > 2 * workers:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()


def _write(
  dataset: Dataset, operations: Operations, folder: Path, skip: int, most: float, many_shapes: bool
) -> None:
  """Read everything once and write index.npz, x.bin and y.bin; the folder is whole or not there."""
  with files.atomic_write(folder, own=True) as aside:
    aside.mkdir()
    index = _pass(dataset, operations, aside, skip, most, many_shapes)
    np.savez_compressed(aside / 'index.npz', **index)


def _pass(
  dataset: Dataset, operations: Operations, aside: Path, skip: int, most: float, many_shapes: bool
) -> dict[str, Any]:
  """Write the pictures as they come and return what index.npz holds."""
  met: list[Seen] = []
  first: Example | None = None
  is_kept = False
  with open(aside / 'x.bin', 'wb') as xs, open(aside / 'y.bin', 'wb') as ys:
    for seen in _all(dataset, operations):
      if seen.example is not None:
        if first is None:
          first = seen.example
          needed = dataset.size * (first.x.nbytes + first.y.nbytes)
          is_kept = _make_room(aside.parent, needed, most)
        if is_kept:
          xs.write(seen.example.x.tobytes())
          ys.write(np.ascontiguousarray(seen.example.y, first.y.dtype).tobytes())
      met.append(seen._replace(example=None))
  names = [name_of(dataset.table, number) for number in range(dataset.size)]
  unreadable = []
  readable: dict[int, Seen] = {}
  for number, seen in enumerate(met):
    if seen.unreadable:
      unreadable.append(f'{names[number]}: {seen.unreadable}')
    else:
      readable[number] = seen
  _stop_unreadable(unreadable, dataset.size, skip)
  assert first is not None
  _stop_infinite([names[number] for number, seen in readable.items() if not seen.finite])
  if not many_shapes:
    _stop_shapes({names[number]: seen.shape for number, seen in readable.items()})
  index = _columns(list(readable.values()))
  index['good'] = np.array(list(readable))
  index['unreadable'] = np.array(unreadable, str)
  index['kept'] = is_kept
  index['y_dtype'] = str(first.y.dtype)
  return index


def _columns(readable: Sequence[Seen]) -> dict[str, Any]:
  """Return what index.npz holds of each readable example, and the range of all."""
  ranges = np.array([seen.range for seen in readable])
  return {
    'range': np.array([ranges[:, 0].min(), ranges[:, 1].max()]),
    'content': np.array([seen.content for seen in readable]),
    'targets': np.array([seen.target for seen in readable]),
    'flat': np.array([seen.flat for seen in readable]),
    'shapes': np.array([seen.shape for seen in readable]),
    'y_shapes': np.array([seen.y_shape for seen in readable], int),
    'affines': np.array([seen.frame.affine for seen in readable]),
    'mm': np.array([seen.frame.millimetres for seen in readable]),
    'file_affines': np.array([seen.file_frame.affine for seen in readable]),
    'file_shapes': np.array([seen.file_frame.shape for seen in readable], int),
  }


def _make_room(parent: Path, needed: int, most: float) -> bool:
  """Return whether `needed` bytes may be kept: within `most` and half the free disk.

  What was used longest ago makes room for them.
  """
  if needed > min(most, files.free_bytes(parent) / 2):
    return False
  files.prune(parent, most - needed)
  return True


def _some(names: Sequence[str], count: int = 10) -> str:
  shown = '; '.join(names[:count])
  return f'{shown}; … and {len(names) - count} more' if len(names) > count else shown


def _stop_unreadable(unreadable: Sequence[str], size: int, skip: int) -> None:
  if len(unreadable) == size:
    raise MedtlError(f'none of {size} pictures can be read, first {unreadable[0]}')
  if len(unreadable) > skip:
    raise MedtlError(
      f'{len(unreadable)} of {size} pictures are missing, unreadable or truncated: '
      f'{_some(unreadable)}. Mend or remove them, or set data.skip_unreadable={len(unreadable)}: '
      'the report then lists them'
    )


def _stop_infinite(names: Sequence[str]) -> None:
  if names:
    raise MedtlError(
      f'{len(names)} pictures hold NaN or infinity: {_some(names)}. Mend or remove them'
    )


def _stop_shapes(shapes: Mapping[str, tuple[int, ...]]) -> None:
  groups: dict[tuple[int, ...], list[str]] = {}
  for name, shape in shapes.items():
    groups.setdefault(shape, []).append(name)
  if len(groups) > 1:
    shown = _some(
      [f'{shape} ({len(names)}, first {names[0]})' for shape, names in groups.items()], 4
    )
    axes = len(next(iter(groups))) - 1
    words = (
      f'pictures of {len(groups)} shapes: {shown}. Expected one shape after data.ops; '
      f"add 'resize({', '.join(['224'] * axes)})', or 'square | resize(224)' to keep proportions"
    )
    raise ShapesDiffer(words, {shape: len(names) for shape, names in groups.items()})
