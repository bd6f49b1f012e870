"""Which examples train, which validate, which test: by patient and stratified, or the publisher's, checked for leakage."""

import hashlib
from collections.abc import Mapping

import numpy as np

from medtl.core.types import MedtlError, Table

Index = dict[str, np.ndarray]
SIDES = ('train', 'val', 'test')
WAYS = ('patient', 'image', 'publisher', 'none')
AUTO = 'auto'  # one of them, which automatic.py settles before a run


def split(
  table: Table,
  *,
  by: str = 'patient',
  folds: int = 5,
  fold: int = 0,
  seed: int = 0,
  val: int = 1,
  labels: float = 1.0,
) -> Index:
  """Return {'train': index, 'val': index, 'test': index}, each ascending; together they cover every example once.

  `by='patient'`: fold `fold` of `folds` tests, the `val` folds after it validate (0: no 'val'). Patients, and pictures equal
  in every pixel, stay together; each class is spread evenly. `by='image'`: the same, every picture for itself.
  `by='publisher'`: column `split`; where it has no 'val', folds of its 'train' (by patient where known) become it.
  `by='none'`: {'test': everything}, for external validation and for prediction.
  `labels`: the share of the training patients whose examples are used, of each class alike; a smaller share is part of a larger one.
  """
  check_keys(by, folds, fold, seed, val, labels)
  if by == 'none':
    return {'test': np.arange(len(table['row']))}
  if by == 'publisher':
    return _few(
      table,
      _publisher(table, folds, fold, seed, val),
      'patient' if 'patient' in table else 'image',
      labels,
      seed,
    )
  if by == 'patient':
    _known_patients(table)
  number = deal(table, by, folds, seed)
  turn = (number - fold) % folds
  index = {'train': turn > val, 'val': (turn > 0) & (turn <= val), 'test': turn == 0}
  return _few(
    table,
    {side: np.flatnonzero(chosen) for side, chosen in index.items() if side != 'val' or val},
    by,
    labels,
    seed,
  )


def check_keys(by: str, folds: int, fold: int, seed: int, val: int, labels: float) -> None:
  """Raise a MedtlError for the first key of a split that cannot be, whatever the data are."""
  if by not in WAYS:
    raise MedtlError(f'split by={by!r}; expected {", ".join(map(repr, WAYS))}')
  if by == 'none':
    return
  if not (0 <= fold < folds and 0 <= val < folds - 1):
    raise MedtlError(
      f'split: fold={fold}, folds={folds}, val={val}; expected 0 <= fold < folds and '
      'val <= folds - 2'
    )
  if not 0 <= seed < 2**32:
    raise MedtlError(f'split: seed={seed}; expected a whole number from 0 to 2³² − 1')
  if not 0 < labels <= 1:
    raise MedtlError(
      f'split: labels={labels}; expected a share of the training patients, above 0 and at most 1'
    )


def _few(table: Table, index: Index, by: str, labels: float, seed: int) -> Index:
  """Return the index with a share of the training groups, the first ones of each stratum in an order that only the seed decides."""
  if labels == 1 or 'train' not in index:
    return index
  part = {name: column[index['train']] for name, column in table.items()}
  group, label = _groups(part, by), _strata(part)
  present = np.zeros((group.max() + 1, label.shape[1]), bool)
  np.logical_or.at(present, group, label > 0)
  rarest = np.where(present, present.sum(0), len(part['row']) + 1).argmin(
    1
  )  # a patient with two classes counts as the rarer
  order = np.random.RandomState(seed).permutation(len(present))
  kept = np.concatenate(
    [
      own[: max(1, round(labels * len(own)))]
      for kind in np.unique(rarest)
      for own in [order[rarest[order] == kind]]
    ]
  )
  return {**index, 'train': index['train'][np.isin(group, kept)]}


def _publisher(table: Table, folds: int, fold: int, seed: int, val: int) -> Index:
  if 'split' not in table:
    raise MedtlError(
      "split by='publisher', but the source has no column 'split' (folders train/ and test/, or a manifest's "
      "column data.partition); expected by='patient' or by='image'"
    )
  sides = np.asarray(table['split'])
  strange = sorted({str(side) for side in sides} - set(SIDES))
  if strange:
    raise MedtlError(f"column 'split' holds {strange}; expected only {', '.join(SIDES)}")
  index = {side: np.flatnonzero(sides == side) for side in SIDES if (sides == side).any()}
  if val and 'val' not in index and 'train' in index:
    train = index['train']
    part = {name: column[train] for name, column in table.items()}
    turn = (deal(part, 'patient' if 'patient' in table else 'image', folds, seed) - fold) % folds
    index |= {'train': train[turn >= val], 'val': train[turn < val]}
  return {side: index[side] for side in SIDES if side in index}


def deal(table: Table, by: str, folds: int, seed: int) -> np.ndarray:
  """Return each example's fold number [n]: groups, the largest first, go where their classes are rarest so far.

  Whole numbers and a frozen random stream, so that every machine deals alike, in whatever order the examples come.
  """
  group = _groups(table, by)
  count = group.max() + 1
  if count < folds:
    raise MedtlError(
      f'{count} groups for {folds} folds; expected at least one each (by={by!r}; what shares a patient or pictures '
      'equal in every pixel is one group: look for duplicates, and for one name that stands for several patients)'
    )
  label = _strata(table)
  images = np.zeros((count, label.shape[1]), np.int64)
  np.add.at(images, group, label)
  counts = np.concatenate(
    [images, images > 0], axis=1
  )  # patients are spread as well as pictures: intervals are over them
  total = [max(1, int(number)) for number in counts.sum(axis=0)]
  weight = [
    10**18 // number**2 for number in total
  ]  # squared shares: a rare class counts as much as a frequent one
  order = np.random.RandomState(seed).permutation(len(counts))
  order = order[np.argsort(-images[order].sum(axis=1), kind='stable')]
  held = [[0] * len(total) for _ in range(folds)]
  home = np.zeros(len(counts), np.int64)
  for one in order:
    present = [(kind, int(number)) for kind, number in enumerate(counts[one]) if number]
    cost = [
      (sum(row[kind] * number * weight[kind] for kind, number in present), sum(row)) for row in held
    ]
    home[one] = best = min(range(folds), key=lambda place: (cost[place], place))
    for kind, number in present:
      held[best][kind] += number
  return home[group]


def _groups(table: Table, by: str) -> np.ndarray:
  """Return the number [n] of what must stay together: linked by a patient or by equal pixels, also through others."""
  from scipy.sparse import coo_array
  from scipy.sparse.csgraph import connected_components

  size = len(table['row'])
  alone = np.array([f'row {row}' for row in table['row']])
  names = np.asarray(table['patient'] if by == 'patient' else table.get('file', alone)).astype(str)
  first = np.unique(np.where(names == '', alone, names), return_inverse=True)[1]
  content = np.asarray(table['content'] if 'content' in table else [''] * size)
  alike = content != ''
  second = np.unique(content[alike], return_inverse=True)[1] + first.max() + 1
  nodes = int(max(first.max(), second.max(initial=0))) + 1
  links = coo_array((np.ones(len(second), bool), (first[alike], second)), shape=(nodes, nodes))
  found = connected_components(links, directed=False)[1][first]
  return np.unique(found, return_inverse=True)[1]


def _strata(table: Table) -> np.ndarray:
  """Return membership [n, k] in what is to be spread evenly: classes, or labels and 'no label'; numbers are not spread."""
  y = np.asarray(table['y'])
  if y.ndim == 1 and y.dtype.kind == 'f':
    return np.ones((len(y), 1), np.int64)
  if y.ndim == 1:
    return (y[:, None] == np.unique(y)).astype(np.int64)
  return np.concatenate([y > 0, ~(y > 0).any(axis=1, keepdims=True)], axis=1).astype(np.int64)


def _known_patients(table: Table) -> None:
  if 'patient' not in table:
    raise MedtlError(
      "split by='patient', but the source knows no patients; give data.patient (a manifest's column) or "
      "data.pattern (a regex on file names), or choose by='image': results may then be too good"
    )
  empty = np.flatnonzero(np.asarray(table['patient']).astype(str) == '')
  if len(empty):
    raise MedtlError(
      f"split by='patient', but {len(empty)} examples have no patient (first: {name_of(table, empty[0])}); "
      'fill them in, leave these examples out, or say who the patient is by data.pattern or data.patient'
    )


def name_of(table: Table, index: int) -> str:
  """Return the file of an example, or its row where there are no files."""
  return str(table['file'][index]) if 'file' in table else f'row {table["row"][index]}'


def leaks(table: Table, index: Mapping[str, np.ndarray]) -> list[str]:
  """Return what stands on more than one side, in words: patients first, then pictures equal in every pixel."""
  found = []
  for column, what in (('patient', 'patient'), ('content', 'picture')):
    if column not in table:
      continue
    sides: dict[str, dict[str, int]] = {}
    for side, rows in index.items():
      for one in rows:
        sides.setdefault(str(table[column][one]), {}).setdefault(side, int(one))
    for name in sorted(sides):
      if name and len(sides[name]) > 1:
        shown = (
          f'patient {name}'
          if what == 'patient'
          else ' = '.join(name_of(table, one) for one in sides[name].values())
        )
        found.append(f'{shown} in {" and ".join(sides[name])}')
  return found


def check(table: Table, index: Mapping[str, np.ndarray], allow_leak: bool = False) -> list[str]:
  """Return the leaks; raise a MedtlError that names them unless `allow_leak`."""
  found = leaks(table, index)
  if found and not allow_leak:
    shown = '; '.join(found[:12]) + (f'; … and {len(found) - 12} more' if len(found) > 12 else '')
    by = 'patient' if 'patient' in table else 'image'  # either keeps equal pictures together
    people = np.asarray(table['patient']).astype(str) if by == 'patient' else np.array([])
    fill = (
      f'fill in the {(people == "").sum()} missing patients and ' if (people == '').any() else ''
    )
    raise MedtlError(
      f'{len(found)} leaks between the sides of the split: {shown}. Expected each patient and picture on one '
      f"side; {fill}set data.split.by='{by}', or set data.allow_leak=True to go on: the report then says so"
    )
  return found


def split_hash(table: Table, index: Mapping[str, np.ndarray]) -> str:
  """Return the sha256 of which example is on which side; the order of examples does not matter, files go by name."""
  lines = sorted(f'{side}\t{name_of(table, one)}' for side, rows in index.items() for one in rows)
  return hashlib.sha256('\n'.join(lines).encode('utf-8', 'surrogateescape')).hexdigest()
