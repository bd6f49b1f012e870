"""files → Dataset → Batch. `load` is its door: a source by name, operations, split and checks."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from medtl.core import expressions
from medtl.core.types import Dataset, MedtlError
from medtl.data import arguments, class_names, patches, splits, store
from medtl.data import transforms as operations
from medtl.data.listing import labels

ENOUGH = 4  # pictures whose range says something
MIXING = ('patient', 'image', 'site')  # ways of splitting that heed no publisher's sides
MOST_UNUSED = 0.27  # of 0 … 1: pictures of 14 bits and fewer in files of 16, and a little more


@arguments.checked
def load(
  name: str,
  *,
  split: Mapping[str, Any],
  ops: str = '',
  draw: str = '',
  skip_unreadable: int = 0,
  allow_leak: bool = False,
  keep_gb: float = 4.0,
  site: str = '',
  rename: class_names.Names = MappingProxyType({}),
  **source: Any,
) -> dict[str, Dataset]:
  """Return {'train', 'val', 'test'} of a source, checked; see splits.split for which there are.

  `name` is a function of medtl/data/sources ('folder.load', 'folder' for short), and `source` are
  its keys. `ops` are applied to each case as it is read. `draw` says what a training batch takes of
  a case (data/patches.py); cases may then differ in shape.
  `skip_unreadable`: up to so many pictures that cannot be read are left out; facts['unreadable']
  lists them.
  `allow_leak` lets a patient or an equal picture be on two sides; facts['leak'] lists them.
  `keep_gb` (10⁹ bytes): pictures that need at most so much are kept decoded in the cache folder,
  others are read anew each time.
  `site` is the column of the table that says where an example comes from. The table gains the
  columns `site` and `group`, its number in facts['groups'] (-1: not known).
  `rename` gives classes other names, {'AMD': 'abnormal', 'CNV': 'abnormal'}: those of one new name
  become one class. A config writes names with a dot as pairs, (('Grade 1.5', 'CNV'),). Where the
  source takes `classes`, they are the names before.

  `facts` also gain `ops`, `hash`, `shape`, `split` (its keys), `split_hash`, `split_ignored` (the
  source has a split of its own), `patients` (0: unknown) and `notes`: sentences on what was guessed
  or left out, which console and page show.
  """
  new_names = class_names.by_old_name(rename)
  chain = expressions.functions(ops, operations, given=('example',))
  draw_of = None
  if draw:
    draw_of = expressions.single_function(draw, patches, given=('example', 'random'))
  everything = expressions.find(name, 'medtl.data.sources')(**source)
  if not everything.fingerprint:
    raise MedtlError(
      f'the source {name} gives its Dataset no fingerprint, so that changed data would be taken '
      'for the old; set fingerprint to a hash of all that the examples depend on, as in '
      'listing.fingerprint'
    )
  facts = {'name': name.partition('.')[0], 'order': 'publisher', 'notes': [], **everything.facts}
  everything = dataclasses.replace(everything, facts=facts)
  _check_labels(everything)
  everything = class_names.renamed(everything, new_names)
  whole = store.prepare(
    everything,
    chain,
    dict(source, name=name, ops=ops, rename=new_names),
    skip_unreadable=skip_unreadable,
    keep_gb=keep_gb,
    many_shapes=draw_of is not None,
  )
  whole = _grouped(_without_content(whole), site)
  index = splits.split(whole.table, **split)
  leak = splits.check(whole.table, index, allow_leak)
  _check_classes(whole, index, split)
  if rename and len(whole.classes) < 2 and len(index) > 1:
    raise MedtlError(
      f'data.rename makes one class of all, {whole.classes[0]!r}; expected two or more: leave out '
      'a class that is to keep its name'
    )
  patients: set[str] = set()
  if 'patient' in whole.table:
    patients = set(whole.table['patient'].tolist()) - {''}
  facts = {**whole.facts, 'ops': ops, 'split': dict(split)}
  facts['split_hash'] = splits.split_hash(whole.table, index)
  facts['leak'] = leak
  facts['split_ignored'] = 'split' in whole.table and split['by'] in MIXING
  facts['patients'] = len(patients)
  facts['notes'] = [*whole.facts['notes'], *_notes(whole)]
  whole = dataclasses.replace(whole, facts=facts, draw=draw_of)
  return {side: whole.subset(rows) for side, rows in index.items()}


def _without_content(dataset: Dataset) -> Dataset:
  """Return the data set; examples without spatial axes lose the hash of their content.

  A handful of numbers may well be those of two people, so that equal ones are no leak.
  """
  if len(dataset.facts['shape']) > 1:
    return dataset
  table = {**dataset.table, 'content': np.full(dataset.size, '')}
  return dataclasses.replace(dataset, table=table)


def _grouped(dataset: Dataset, site: str) -> Dataset:
  """Return the data set with the columns `site` and `group`; unchanged where `site` is ''."""
  if not site:
    return dataset
  if site not in dataset.table:
    hint = expressions.did_you_mean(site, dataset.table)
    raise MedtlError(f'data.site: the data have no column {site!r}; {hint}')
  if site in dataset.facts.get('features', ()):
    raise MedtlError(
      f'data.site is {site!r}, which is also a feature: the net would learn where an example comes '
      'from; list the features without it: data.features=(…)'
    )
  column = _names(np.asarray(dataset.table[site]))
  sites = np.where(labels.missing(column, labels.MISSING), '', column)
  names = np.unique(sites[sites != ''])
  group = np.where(sites == '', -1, np.searchsorted(names, sites))
  return dataclasses.replace(
    dataset,
    table={**dataset.table, 'site': sites, 'group': group},
    facts={**dataset.facts, 'groups': names.tolist()},
  )


def _names(column: np.ndarray) -> np.ndarray:
  """Return the names [n] of sites as text: 70.0, which stands for 70 in a file, is '70'."""
  if column.dtype.kind != 'f':
    return column.astype(str)
  names = []
  for number in column.tolist():
    names.append('' if math.isnan(number) else np.format_float_positional(number, trim='-'))
  return np.array(names)


def _notes(dataset: Dataset) -> list[str]:
  """Return sentences on what nobody said of the data.

  These are the order of the classes, which one is positive, equal pictures, and numbers whose
  range is doubtful.
  """
  classes = dataset.classes
  order = dataset.facts['order']
  y = dataset.table['y']
  notes = []
  if not dataset.masks:
    notes.append(labels.order_note(classes, order))
    labelled = np.ndim(y) == 1 and not (y == -1).all()
    if len(classes) == 2 and labelled:
      turned = '' if order == labels.GIVEN else '; data.classes turns them round'
      notes.append(f'of the two classes {classes[1]!r} is the positive one{turned}')
  notes += _twins(dataset)
  notes.append(_range_note(dataset))
  return [note for note in notes if note]


def _range_note(dataset: Dataset) -> str:
  """Return a sentence where pictures seem to hold 12 bits in files of 16, else ''."""
  low, high = dataset.facts['range']
  pictures = len(dataset.facts['shape']) > 1 and 'manufacturer' not in dataset.table
  dark = low >= 0 and 0 < high <= MOST_UNUSED
  if not (pictures and dark and dataset.size >= ENOUGH):
    return ''
  return (
    f'the pictures hold numbers of {low:.3g} … {high:.3g} only, where 0 … 1 is expected: 12 bits '
    f"in 16-bit files? Then add 'window(0, {_power(high):g})' to data.ops"
  )


def _twins(dataset: Dataset) -> list[str]:
  """Return sentences on pictures that are equal in every pixel, with the same label or another."""
  table = dataset.table
  first_row: dict[str, int] = {}  # of each content
  same_label: list[str] = []
  other_label: list[str] = []
  for row, content in enumerate(table['content'].tolist()):
    first = first_row.setdefault(content, row) if content else row
    if first == row:
      continue
    names = f'{splits.name_of(table, first)} = {splits.name_of(table, row)}'
    if (table['y'][first] == table['y'][row]).all():
      same_label.append(names)
    else:
      other_label.append(names)
  notes = []
  if same_label:
    notes.append(
      f'{len(same_label)} pictures are equal in every pixel to another one, first {same_label[0]}'
    )
  if other_label:
    notes.append(
      f'{len(other_label)} pictures are equal in every pixel to one of another label, first '
      f'{other_label[0]}'
    )
  return notes


def _power(high: float) -> float:
  """Return the smallest power of two that is not below `high`: the range of so many bits."""
  return 2.0 ** math.ceil(math.log2(high))


def _check_labels(dataset: Dataset) -> None:
  """Raise a MedtlError unless the table's y is what a Dataset may hold.

  That is a class's number, one number of 0 … 1 for each class, one number to predict, or -1 for
  all (unlabelled). What masks hold is the task's to check: pixels are not read here.
  """
  y = np.asarray(dataset.table['y'])
  classes = dataset.strata
  count = len(classes)
  if (y.dtype.kind == 'f' and y.ndim == 1) or (y == -1).all():
    return
  if y.ndim == 2 and y.shape[1] != count:
    raise MedtlError(
      f'labels have {y.shape[1]} columns, but there are {count} classes: {", ".join(classes)}'
    )
  most = 1 if y.ndim == 2 else count - 1
  inside = (y >= 0) & (y <= most)
  wrong = np.flatnonzero(~inside.reshape(len(y), -1).all(axis=1))
  if len(wrong):
    first = wrong[0]
    raise MedtlError(
      f'{len(wrong)} labels outside the classes, first {y[first]} of '
      f'{splits.name_of(dataset.table, first)}; expected 0 … {most} ({", ".join(classes)})'
    )


def _check_classes(
  dataset: Dataset, index: Mapping[str, np.ndarray], split: Mapping[str, Any]
) -> None:
  """Raise where a class has no example on a side; a source that is one side only may lack classes.

  Of masks nothing is asked: the classes of the pictures are not what is learned.
  """
  y = np.asarray(dataset.table['y'])
  if len(index) < 2 or dataset.masks or (y.dtype.kind == 'f' and y.ndim == 1):
    return
  for side, rows in index.items():
    for number, name in enumerate(dataset.classes):
      if _has(y[rows], number).any():
        continue
      found = (
        f'class {name!r} has no example in {side!r}, which holds {len(rows)} of all '
        f'{dataset.size}; {_rarity(dataset, number)}'
      )
      if side == 'test' and split['by'] == 'site':
        sites = ', '.join(np.unique(dataset.table['site'][rows]).tolist())
        raise MedtlError(
          f'{found}. Expected every class where a site tests, which {sites} cannot give: test it '
          'together with others or not at all (data.split.test names the sites that test), take a '
          'column of larger units as data.site, or leave its rows out'
        )
      fewer_labels = side == 'train' and split.get('labels', 1) < 1
      more = 'a larger data.split.labels, ' if fewer_labels else ''
      raise MedtlError(
        f'{found}. Expected every class on every side: take {more}fewer folds '
        '(data.split.folds=3), another data.split.seed or data.split.fold, or leave its folder or '
        'rows out'
      )


def _has(y: np.ndarray, number: int) -> np.ndarray:
  """Return [n] bool: which examples are of a class, or have a label."""
  return y[:, number] > 0 if y.ndim == 2 else y == number


def _rarity(dataset: Dataset, number: int) -> str:
  """Return in words how many examples and patients a class has."""
  has = _has(np.asarray(dataset.table['y']), number)
  people = ''
  if 'patient' in dataset.table:
    people = f' of {len(np.unique(dataset.table["patient"][has]))} patients'
  return f'the class has {has.sum()} examples{people} in all'
