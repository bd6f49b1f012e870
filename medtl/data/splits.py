"""Which examples train, validate and test, checked for leakage.

By patient and stratified by class, by site, or as the publisher split them.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError, Table
from medtl.data import dealing

Index = dict[str, np.ndarray]
SIDES = ('train', 'val', 'test')
WAYS = ('patient', 'image', 'publisher', 'site', 'none')
AUTO = 'auto'  # one of them, chosen before a run (run/open_keys.py)
MOST_SHOWN = 12  # leaks that an error names
FEW_SITES = 6  # so many can each validate on patients of their own, and enough of them


def split(
  table: Table,
  *,
  by: str = 'patient',
  folds: int = 5,
  fold: int = 0,
  seed: int = 0,
  val: int = 1,
  labels: float = 1.0,
  test: Sequence[str] = (),
) -> Index:
  """Return {'train': index, 'val': index, 'test': index}, each ascending.

  Every example is on one side, apart from training examples that `labels` leaves out.

  `by='patient'`: fold `fold` of `folds` tests, and the `val` folds after it validate (0: no
  'val'). Patients stay together, and so do pictures that are equal in every pixel. Each class is
  spread evenly.
  `by='image'`: the same, but each picture is dealt by itself.
  `by='publisher'`: column `split` says the side. If it has no 'val', folds of its 'train' become
  'val', by patient where patients are known.
  `by='site'`: the sites `test` test, or without them site number `fold` in the order of the
  alphabet, and do nothing else: they have no part in any choice. Of each other site `val` of
  `folds` folds validate, by patient where patients are known, and the rest train. Sites with fewer
  patients than folds are dealt together, as one; where these are still too few, all of them train.
  Up to FEW_SITES sites, each is dealt into as many folds as there are sites, if these are more
  than `folds`: with val=1 no example of a site that is dealt by itself then validates in the folds
  of two sites. With more sites that would leave next to nothing to validate on.
  `by='none'`: {'test': everything}, for external validation and for prediction.
  `labels`: the share of the training patients whose examples are used, the same share of each
  class. A smaller share is part of a larger one.

  Raises MedtlError for keys that contradict each other or the table.
  """
  check_keys(by, folds, fold, seed, val, labels, test)
  if by == 'none':
    return {'test': np.arange(len(table['row']))}
  if by == 'publisher':
    index = _publisher(table, folds, fold, seed, val)
    return _share_of_train(table, index, _usual_grouping(table), labels, seed)
  if by == 'site':
    index = _sites(table, folds, fold, seed, val, test)
    return _share_of_train(table, index, _usual_grouping(table), labels, seed)
  if by == 'patient':
    _check_patients(table)
  turn = (dealing.deal(table, by, folds, seed) - fold) % folds  # 0 tests, 1 … val validate
  index = {'train': np.flatnonzero(turn > val)}
  if val:
    index['val'] = np.flatnonzero((turn > 0) & (turn <= val))
  index['test'] = np.flatnonzero(turn == 0)
  return _share_of_train(table, index, by, labels, seed)


def _usual_grouping(table: Table) -> str:
  """Return what groups examples where no key says it: 'patient' where known, else 'image'."""
  return 'patient' if 'patient' in table else 'image'


def check_keys(
  by: str,
  folds: int,
  fold: int,
  seed: int,
  val: int,
  labels: float,
  test: Sequence[str] = (),
) -> None:
  """Raise a MedtlError for the first key of a split that no data set could follow."""
  if by not in WAYS:
    raise MedtlError(f'split by={by!r}; expected {", ".join(map(repr, WAYS))}')
  if test and (by != 'site' or fold):
    raise MedtlError(
      f'split: test={tuple(test)} names the sites that test, but by={by!r} and fold={fold}; '
      "expected by='site' with either test or fold"
    )
  if by == 'none':
    return
  if by == 'site':
    _check_site_keys(folds, fold, val)
  elif not (0 <= fold < folds and 0 <= val < folds - 1):
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


def _check_site_keys(folds: int, fold: int, val: int) -> None:
  """Raise for keys of a split by site that cannot be.

  `fold` is the number of a site; `folds` are those of which `val` validate.
  """
  if fold < 0 or not 0 <= val < folds:
    raise MedtlError(
      f"split by='site': fold={fold}, folds={folds}, val={val}; expected the number of a site, "
      'from 0, and val < folds: so many of the folds of the other sites validate'
    )


def _share_of_train(table: Table, index: Index, by: str, labels: float, seed: int) -> Index:
  """Return the index with a share of the training groups of each class, at least one group.

  The seed alone decides in which order groups are taken, so that shares are nested.
  """
  if labels == 1 or 'train' not in index:
    return index
  train = index['train']
  part = {name: column[train] for name, column in table.items()}
  group = dealing.groups(part, by)
  stratum = dealing.strata(part)
  present = np.zeros((group.max() + 1, stratum.shape[1]), bool)
  np.logical_or.at(present, group, stratum > 0)
  # a patient with two classes counts as the rarer one
  frequency = np.where(present, present.sum(0), len(train) + 1)
  rarest = frequency.argmin(1)
  order = np.random.RandomState(seed).permutation(len(present))
  kept: list[int] = []
  for kind in np.unique(rarest):
    members = order[rarest[order] == kind]
    count = max(1, round(labels * len(members)))
    kept.extend(members[:count])
  return {**index, 'train': train[np.isin(group, kept)]}


def _publisher(table: Table, folds: int, fold: int, seed: int, val: int) -> Index:
  """Return the publisher's split; `val` of `folds` folds of its 'train' are a missing 'val'."""
  if 'split' not in table:
    raise MedtlError(
      "split by='publisher', but the source has no column 'split' (folders train/ and test/, or a "
      "manifest's column data.partition); expected by='patient' or by='image'"
    )
  sides = np.asarray(table['split'])
  strange = sorted({str(side) for side in sides} - set(SIDES))
  if strange:
    raise MedtlError(f"column 'split' holds {strange}; expected only {', '.join(SIDES)}")
  index = {side: np.flatnonzero(sides == side) for side in SIDES if (sides == side).any()}
  if val and 'val' not in index and 'train' in index:
    train = index['train']
    part = {name: column[train] for name, column in table.items()}
    turn = (dealing.deal(part, _usual_grouping(table), folds, seed) - fold) % folds
    index['train'] = train[turn >= val]
    index['val'] = train[turn < val]
  return {side: index[side] for side in SIDES if side in index}


def _sites(table: Table, folds: int, fold: int, seed: int, val: int, test: Sequence[str]) -> Index:
  """Return the sides where the sites `test`, or site number `fold`, test."""
  names = site_names(table)
  tested = _tested_sites(names, fold, test)
  site = np.asarray(table['site']).astype(str)
  is_tested = np.isin(site, tested)
  if not val:
    return {'train': np.flatnonzero(~is_tested), 'test': np.flatnonzero(is_tested)}
  validates = _turns_by_site(table, names, tested, folds, seed) < val
  return {
    'train': np.flatnonzero(~is_tested & ~validates),
    'val': np.flatnonzero(~is_tested & validates),
    'test': np.flatnonzero(is_tested),
  }


def _tested_sites(names: Sequence[str], fold: int, test: Sequence[str]) -> tuple[str, ...]:
  """Return the sites that test; MedtlError where there are none such, or none that train."""
  if len(names) < 2:
    raise MedtlError(
      f"split by='site', but all examples are of one site, {names[0]!r}; expected two or more, or "
      "data.split.by='patient'"
    )
  if not test and fold >= len(names):
    count = len(names)
    raise MedtlError(
      f"split by='site': fold={fold}, but there are {count} sites ({', '.join(names)}); "
      f'expected 0 … {count - 1}, or data.split.test=({names[0]!r},)'
    )
  chosen = tuple(test) or (names[fold],)
  for name in chosen:
    if name not in names:
      raise MedtlError(f'split: no site {name!r} to test; {did_you_mean(name, names)}')
  if set(chosen) == set(names):
    raise MedtlError(f'split: test={chosen} are all sites; expected at least one that trains')
  return chosen


def _turns_by_site(
  table: Table, names: Sequence[str], tested: Sequence[str], folds: int, seed: int
) -> np.ndarray:
  """Return [n]: in how many folds an example validates first, at least `folds` for never.

  Folds are counted from that of the first site of `tested` on. Each other site is dealt by itself.
  Its fold 0 validates where the first of the other sites tests, fold 1 where the second does, and
  so on. Sites with fewer patients than folds are dealt together.
  """
  are_few = len(names) <= FEW_SITES
  parts = max(folds, len(names)) if are_few else folds
  site = np.asarray(table['site']).astype(str)
  first = names.index(tested[0])
  turn = np.full(len(site), parts)
  small: list[np.ndarray] = []  # rows of each small site
  for number, name in enumerate(names):
    if name in tested:
      continue
    own = np.flatnonzero(site == name)
    if _count_groups(table, own) < parts:
      small.append(own)
      continue
    place = first if first < number else first - 1  # among the other sites
    if not are_few:
      place += number  # fold 0 is the largest of each site: another one's turn at each
    turn[own] = (_dealt(table, own, parts, seed) - place) % parts
  if not small:
    return turn
  together = np.sort(np.concatenate(small))
  all_are_small = len(small) + len(tested) == len(names)
  if all_are_small or _count_groups(table, together) >= parts:
    turn[together] = (_dealt(table, together, parts, seed) - first) % parts
  return turn


def _count_groups(table: Table, rows: np.ndarray) -> int:
  """Return how many patients these rows have, or pictures where patients are not known."""
  part = {name: column[rows] for name, column in table.items()}
  return int(dealing.groups(part, _usual_grouping(table)).max()) + 1


def _dealt(table: Table, rows: np.ndarray, folds: int, seed: int) -> np.ndarray:
  """Return the fold of each of these rows, which are dealt by themselves."""
  part = {name: column[rows] for name, column in table.items()}
  return dealing.deal(part, _usual_grouping(table), folds, seed)


def site_names(table: Table) -> list[str]:
  """Return the names of the sites by the alphabet; MedtlError unless each example has one."""
  if 'site' not in table:
    raise MedtlError(
      "split by='site', but which column says the site is not known; set data.site, for instance "
      "data.site='hospital'"
    )
  sites = np.asarray(table['site']).astype(str)
  empty = np.flatnonzero(sites == '')
  if len(empty):
    raise MedtlError(
      f"split by='site', but {len(empty)} examples have no site (first: "
      f'{name_of(table, empty[0])}); fill them in, or leave these examples out'
    )
  return np.unique(sites).tolist()


def _check_patients(table: Table) -> None:
  """Raise a MedtlError unless every example has a patient."""
  if 'patient' not in table:
    raise MedtlError(
      "split by='patient', but the source knows no patients; give data.patient (a manifest's "
      "column) or data.pattern (a regex on file names), or choose by='image': results may then be "
      'too good'
    )
  empty = np.flatnonzero(np.asarray(table['patient']).astype(str) == '')
  if not len(empty):
    return
  first = name_of(table, empty[0])
  count = len(empty)
  if count == 1:
    without = f'1 example has no patient: {first}; fill it in, leave this example out'
  else:
    without = (
      f'{count} examples have no patient (first: {first}); fill them in, leave these examples out'
    )
  raise MedtlError(
    f"split by='patient', but {without}, or say who the patient is by data.pattern or data.patient"
  )


def name_of(table: Table, index: int) -> str:
  """Return the file of an example, or its row where there are no files."""
  if 'file' in table:
    return str(table['file'][index])
  return f'row {table["row"][index]}'


def leaks(table: Table, index: Mapping[str, np.ndarray]) -> list[str]:
  """Return a phrase for each patient and each picture that is on more than one side.

  Patients come first; pictures are the same where they are equal in every pixel.
  """
  phrases = []
  for column in ('patient', 'content'):
    if column not in table:
      continue
    places: dict[str, dict[str, int]] = {}  # value → side → its first row there
    for side, rows in index.items():
      for row in rows:
        value = str(table[column][row])
        places.setdefault(value, {}).setdefault(side, int(row))
    for value in sorted(places):
      sides = places[value]
      if value == '' or len(sides) < 2:
        continue
      if column == 'patient':
        shown = f'patient {value}'
      else:
        shown = ' = '.join(name_of(table, row) for row in sides.values())
      phrases.append(f'{shown} in {" and ".join(sides)}')
  return phrases


def check(table: Table, index: Mapping[str, np.ndarray], allow_leak: bool = False) -> list[str]:
  """Return the leaks; raise a MedtlError that names them unless `allow_leak`."""
  phrases = leaks(table, index)
  if not phrases or allow_leak:
    return phrases
  shown = '; '.join(phrases[:MOST_SHOWN])
  if len(phrases) > MOST_SHOWN:
    shown += f'; … and {len(phrases) - MOST_SHOWN} more'
  by = _usual_grouping(table)  # either keeps equal pictures together
  missing = 0
  if by == 'patient':
    missing = int((np.asarray(table['patient']).astype(str) == '').sum())
  noun = 'patient' if missing == 1 else 'patients'
  fill = f'fill in the {missing} missing {noun} and ' if missing else ''
  raise MedtlError(
    f'{len(phrases)} leaks between the sides of the split: {shown}. Expected each patient and '
    f"picture on one side; {fill}set data.split.by='{by}', or set data.allow_leak=True to go on: "
    'the report then says so'
  )


def split_hash(table: Table, index: Mapping[str, np.ndarray]) -> str:
  """Return the sha256 of which example is on which side, in hex.

  Examples go by their files' names, where they have any; their order does not matter.
  """
  lines = []
  for side, rows in index.items():
    lines += [f'{side}\t{name_of(table, row)}' for row in rows]
  text = '\n'.join(sorted(lines))
  return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()
