"""Whether pictures that a run is tested on were used before, for training or for a choice.

A run folder keeps what its net has seen (`trained_on.npz`): the training side, the validation side,
and what the runs saw that its weights come from. Pictures are compared by a hash of their pixels,
which finds copies under other names, and by the file that they come from, which finds a file that
is read with other keys. Copies that were compressed anew with a loss are not found.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medtl.core.types import Dataset, MedtlError, Table
from medtl.data.splits import name_of
from medtl.runtime import files

COLUMNS = ('content', 'identity', 'patient', 'file', 'side', 'run')
USED = ('train', 'val')  # sides that train a net, or choose between nets
# keys of a source that say how an example is read, not which one it is
HOW = (
  'ops',
  'split',
  'site',
  'rename',
  'draw',
  'skip_unreadable',
  'allow_leak',
  'keep_gb',
  'size',
  'channels',
  'exif',
  'root',
  'hint',
  'licence',
  'citation',
)
SHOWN = 6  # pictures and patients that are named in a message


class Record(NamedTuple):
  """Every picture that a net was trained or chosen on."""

  table: Table  # COLUMNS, one entry a picture; run: '' is this one
  unknown: tuple[str, ...]  # runs that gave their weights and kept no record


class Overlap(NamedTuple):
  """What tested pictures and a record have in common, ready for JSON."""

  size: int  # tested pictures
  known: int  # different pictures of the record
  equal: dict[str, dict[str, int]]  # run -> {'train': how many, 'val': how many}
  first: list[str]  # the first of these, in words
  patients: list[str]  # names of patients that stand on both sides
  people: bool  # whether both sides name patients
  unknown: list[str]  # as in Record
  by: str = 'pixels'  # what was compared: pixels and files, or a table's 'lines'

  @property
  def pictures(self) -> int:
    """How many tested pictures were used before."""
    return sum(sum(sides.values()) for sides in self.equal.values())


def record(
  sides: Mapping[str, Dataset],
  data: Mapping[str, Any],
  weights: Path | None,
  streams: Sequence[tuple[Dataset, Mapping[str, Any]]] = (),
) -> Record:
  """Return the record of a run on these sides.

  `data` is its config.data, `weights` the run folder that its weights come from, if they do.
  `streams` are further pictures that train it, labelled or not, and the keys that read them.
  """
  parts = [_rows(sides[side], data, side) for side in USED if side in sides]
  parts += [_rows(dataset, keys, 'train') for dataset, keys in streams]
  unknown: tuple[str, ...] = ()
  if weights is not None:
    earlier = inherited(weights)
    parts.append(dict(earlier.table))
    unknown = earlier.unknown
  table = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
  return Record(table, unknown)


def inherited(weights: Path) -> Record:
  """Return what a run has seen that gives its weights, under its name, if it kept a record."""
  seen = read(weights)
  if seen is None:
    empty = {name: np.array([], str) for name in COLUMNS}
    return Record(empty, (str(weights),))
  run = np.where(seen.table['run'] == '', str(weights), seen.table['run'])
  return Record({**seen.table, 'run': run}, seen.unknown)


def _rows(dataset: Dataset, data: Mapping[str, Any], side: str) -> dict[str, np.ndarray]:
  names = [name_of(dataset.table, index) for index in range(dataset.size)]
  return {
    'content': _column(dataset, 'content'),
    'identity': identities(dataset, data),
    'patient': _column(dataset, 'patient'),
    'file': np.array(names, str),
    'side': np.full(dataset.size, side),
    'run': np.full(dataset.size, ''),
  }


def _column(dataset: Dataset, name: str) -> np.ndarray:
  """Return a column of the table as text, '' where it is not known."""
  if name not in dataset.table:
    return np.full(dataset.size, '')
  column = np.asarray(dataset.table[name]).astype(str)
  return np.where(np.isin(column, ['nan', 'None']), '', column)


def identities(dataset: Dataset, data: Mapping[str, Any]) -> np.ndarray:
  """Return 16 hex digits for each example, the same whatever keys it is read with.

  They stand for its file, or where there is none for its source and row.
  """
  if 'file' in dataset.table and 'root' in data:
    root = Path(data['root']).expanduser()
    folder = root.parent if root.is_file() else root
    return np.array([_of_file(folder / name) for name in dataset.table['file']], str)
  name = data['name'] if '.' in data['name'] else f'{data["name"]}.load'
  which = {key: value for key, value in data.items() if key not in (*HOW, 'name')}
  source = json.dumps([name, which], sort_keys=True, default=str)
  return np.array([_digest(f'{source}\t{row}') for row in dataset.table['row']], str)


def _of_file(path: Path) -> str:
  """Return what tells a file from others and from its later versions; '' where there is none.

  'heart.csv:17' is line 17 of a table.
  """
  name, _, line = path.name.rpartition(':')
  if line.isdigit() and name and not path.exists():
    whole = _of_file(path.with_name(name))
    return _digest(f'{whole}\t{line}') if whole else ''
  try:
    status = path.stat()
  except OSError:
    return ''
  return _digest(f'{path.resolve()}\t{status.st_size}\t{status.st_mtime_ns}')


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:16]


def write(workdir: Path, seen: Record) -> None:
  """Keep the record in a run folder."""
  arrays: dict[str, Any] = {f'table/{name}': column for name, column in seen.table.items()}
  with files.atomic_write(workdir / 'trained_on.npz') as aside, aside.open('wb') as file:
    np.savez_compressed(file, unknown=np.array(seen.unknown, str), **arrays)


def read(workdir: Path) -> Record | None:
  """Return the record of a run folder; None where an older version of medtl kept none."""
  path = workdir / 'trained_on.npz'
  if not path.exists():
    return None
  with np.load(path, allow_pickle=False) as file:
    table = {name: file[f'table/{name}'] for name in COLUMNS}
    return Record(table, tuple(file['unknown'].tolist()))


def compare(seen: Record, tested: Dataset, data: Mapping[str, Any]) -> Overlap:
  """Return what tested pictures, read by the config's `data`, have in common with a record."""
  places = _places(seen.table)
  content = _column(tested, 'content').tolist()
  identity = identities(tested, data).tolist()
  equal: dict[str, dict[str, int]] = {}
  first: list[str] = []
  for index in range(tested.size):
    match = places.get(content[index], places.get(identity[index]))
    if match is None:
      continue
    run = str(seen.table['run'][match])
    side = str(seen.table['side'][match])
    other = str(seen.table['file'][match])
    counts = equal.setdefault(run, {})
    counts[side] = counts.get(side, 0) + 1
    name = name_of(tested.table, index)
    first.append(f'{name} ({side})' if name == other else f'{name} = {other} ({side})')
  ours = set(_column(tested, 'patient').tolist()) - {''}
  theirs = set(seen.table['patient'].tolist()) - {''}
  known = len(set(seen.table['identity'].tolist()))  # several runs may have seen the same ones
  return Overlap(
    tested.size,
    known,
    equal,
    first[:SHOWN],
    sorted(ours & theirs),
    bool(ours and theirs),
    list(seen.unknown),
    'pixels' if any(content) else 'lines',
  )


def _places(table: Table) -> dict[str, int]:
  """Return {content or identity: index}; a run's own pictures go before those of other runs."""
  places: dict[str, int] = {}
  for column in ('content', 'identity'):
    for index, value in enumerate(table[column].tolist()):
      if value:  # flat pictures, which are equal anyhow, have no content
        places.setdefault(value, index)
  return places


def pooled(parts: Sequence[Overlap]) -> Overlap:
  """Return the overlap of all folds; each was compared with what its own net has seen."""
  equal: dict[str, dict[str, int]] = {}
  for run in sorted({run for part in parts for run in part.equal}):
    sides = Counter[str]()
    for part in parts:
      sides.update(part.equal.get(run, {}))
    equal[run] = dict(sides)
  first = [words for part in parts for words in part.first]
  patients = sorted({name for part in parts for name in part.patients})
  unknown = sorted({run for part in parts for run in part.unknown})
  people = all(part.people for part in parts)
  size, known = sum(part.size for part in parts), max(part.known for part in parts)
  return Overlap(size, known, equal, first[:SHOWN], patients, people, unknown, parts[0].by)


def keep(workdir: Path, name: str, overlap: Overlap | None) -> None:
  """Keep what was found of the predictions `name`; None, nothing known, removes what was kept."""
  path = _file(workdir, name)
  if overlap is None:
    path.unlink(missing_ok=True)
  else:
    files.write(path, json.dumps(overlap._asdict(), indent=1))


def kept(workdir: Path, name: str) -> Overlap | None:
  """Return what was found of the predictions `name`; None where nothing was compared."""
  path = _file(workdir, name)
  return Overlap(**json.loads(path.read_text(encoding='utf-8'))) if path.exists() else None


def _file(workdir: Path, name: str) -> Path:
  return workdir / 'overlap' / f'{name}.json'


def stop(
  overlap: Overlap,
  allowed: bool,
  advice: str,
  permission: str = '--config.data.allow_leak=True',
) -> None:
  """Raise a MedtlError that names pictures which were used before, unless that is allowed.

  `advice` says how to take them out, `permission` what is set to allow them.
  """
  if allowed or not overlap.pictures:
    return
  seen = '; '.join(_seen(overlap, run) for run in overlap.equal)
  raise MedtlError(
    f'{seen}: {_named(overlap.first, overlap.pictures)}. The numbers would be too good. '
    f'{advice}, or set {permission} to go on: console and page then say so'
  )


def _seen(overlap: Overlap, run: str) -> str:
  """Return in words how many tested pictures one run has seen."""
  sides = overlap.equal[run]
  each = ', '.join(f'{sides[side]} {side}' for side in USED if side in sides)
  who = f'{run}, where the weights come from,' if run else 'this run'
  return (
    f'{sum(sides.values())} of {overlap.size} pictures are among those that {who} was trained '
    f'or chosen on ({each})'
  )


def _named(names: Sequence[str], count: int) -> str:
  shown = ', '.join(names[:SHOWN])
  more = count - min(len(names), SHOWN)
  return files.printable(shown + (f' … and {more} more' if more else ''))


def warnings(overlap: Overlap | None, told: bool = False) -> list[str]:
  """Return what a reader of numbers must know.

  `told`: another warning tells already what two sides of the run's own split have in common.
  """
  if overlap is None:
    return []
  runs = [run for run in overlap.equal if run or not told]
  lines = [f'{_seen(overlap, run)}, which was allowed: the numbers are too good.' for run in runs]
  if overlap.patients and (runs or not told):
    names = _named(overlap.patients, len(overlap.patients))
    lines.append(
      f'{len(overlap.patients)} patients have the names of patients that the net was '
      f'trained or chosen on ({names}): if they are the same people, the numbers are '
      'too good.'
    )
  return lines


def in_training(overlap: Overlap | None) -> list[str]:
  """Return in words how many pictures that are only predicted trained the net; [] if none did."""
  if overlap is None:
    return [
      'whether pictures were in the training data could not be checked: the run folder, of '
      'an older version, keeps no record of these'
    ]
  lines = []
  if overlap.pictures:
    lines.append(
      f'{overlap.pictures} of {overlap.size} pictures were used in training or for choices: '
      f'{_named(overlap.first, overlap.pictures)}'
    )
  if overlap.unknown:
    lines.append(
      f'whether pictures were in the training data of {", ".join(overlap.unknown)}, where '
      'the weights come from, could not be checked: it keeps no record of these'
    )
  return lines


def claim(overlap: Overlap | None, folds: int = 0, published: bool = False) -> str:
  """Return how a page goes on after 'Test set: 24 images'.

  It says that they were never used where that was checked and is true, otherwise what is known.
  `folds`: of pooled predictions of so many nets, each compared with the pictures of its own fold.
  `published`: the net began from a publisher's checkpoint, whose training pictures are not known.
  """
  if overlap is None:
    return (
      'of which it could not be checked whether they were used for training or for a choice: '
      'the run folder keeps no record of what was'
    )
  if overlap.pictures:
    return f'{overlap.pictures} of which were used for training or for a choice'
  if overlap.unknown:
    return (
      f'not used by this run itself; whether {", ".join(overlap.unknown)}, where its weights '
      'come from, was trained or chosen on them could not be checked: it keeps no record'
    )
  those = 'those of its own fold' if folds else f'the {overlap.known:,} that were'
  if overlap.by == 'lines':
    return _claim_of_lines(overlap, those, folds)
  if overlap.patients:
    return (
      f'compared pixel by pixel with {those}: no image is among them, but patients of the '
      'same names are'
    )
  limits = [
    '; copies that were resized, mirrored or compressed anew would not be noticed',
    '' if overlap.people else '; patients could not be compared',
    '; what the published weights were trained on is not known here' if published else '',
  ]
  never = 'each tested by a net for which it was never used' if folds else 'never used'
  return (
    f'{never} for training or for any choice, as far as pixels tell (compared pixel by pixel with '
    f'{those}{"".join(limits)})'
  )


def _claim_of_lines(overlap: Overlap, those: str, folds: int) -> str:
  """Return the claim for the rows of tables, which are told apart by file and line."""
  never = 'each tested by a net for which it was never used' if folds else 'never used'
  names = '; no patient has the name of one of those' if overlap.people else ''
  if overlap.patients:
    names = '; but patients of the same names are'
  return (
    f'{never} for training or for any choice (compared by file and line with {those}'
    f'{names}; the same row in another file would not be noticed)'
  )
