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
  rename: Mapping[str, str] = MappingProxyType({}),
  **source: Any,
) -> dict[str, Dataset]:
  """Return {'train', 'val', 'test'} (`split` says which there are; see splits.split) of a source, checked.

  `name` is a function of medtl/data/sources ('folder.load', 'folder' for short) and `source` are its
  keys. `ops` are applied to each case as it is read. `draw` says what a training batch takes of a
  case (data/patches.py); cases may then differ in shape. Up to `skip_unreadable` pictures that
  cannot be read are left out; `facts['unreadable']` lists them. `allow_leak` lets a patient or an
  equal picture stand on two sides; `facts['leak']` lists them. Pictures are kept decoded in the
  cache folder where they need at most `keep_gb` (10⁹ bytes), otherwise read anew each time. `site`
  is the column of the table that says where an example comes from: the table gains the columns
  `site` and `group`, the number of a site (-1: not known) in facts['groups']. `rename` gives classes
  other names, {'AMD': 'abnormal', 'CNV': 'abnormal'}: those of one new name become one class; where
  the source takes `classes`, they are those before. `facts` also gain `ops`, `hash`, `shape`,
  `split` (its keys), `split_hash`, `split_ignored` (the source has one of its own), `patients` (0:
  unknown) and `notes`: sentences on what was guessed or left out, which console and page show.
  """
  chain = expressions.functions(ops, operations, given=('example',))
  drawn = expressions.single_function(draw, patches, given=('example', 'random')) if draw else None
  everything = expressions.find(name, 'medtl.data.sources')(**source)
  if not everything.fingerprint:
    raise MedtlError(
      f'the source {name} gives its Dataset no fingerprint, so that changed data would be taken for the '
      'old; set fingerprint to a hash of all that the examples depend on, as in listing.fingerprint'
    )
  facts = {'name': name.partition('.')[0], 'order': 'publisher', 'notes': [], **everything.facts}
  everything = dataclasses.replace(everything, facts=facts)
  _check_labels(everything)
  everything = class_names.renamed(everything, rename)
  whole = store.prepare(
    everything,
    chain,
    dict(source, name=name, ops=ops, rename=dict(rename)),
    skip_unreadable=skip_unreadable,
    keep_gb=keep_gb,
    many_shapes=drawn is not None,
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
  people = set(whole.table['patient'].tolist()) - {''} if 'patient' in whole.table else set()
  facts = dict(
    whole.facts,
    ops=ops,
    split=dict(split),
    split_hash=splits.split_hash(whole.table, index),
    leak=leak,
    split_ignored='split' in whole.table and split['by'] in MIXING,
    patients=len(people),
    notes=[*whole.facts['notes'], *_notes(whole)],
  )
  whole = dataclasses.replace(whole, facts=facts, draw=drawn)
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
  """Return the data set with the columns `site` and `group`; as it is where no site is asked for."""
  if not site:
    return dataset
  if site not in dataset.table:
    raise MedtlError(
      f'data.site: the data have no column {site!r}; {expressions.did_you_mean(site, dataset.table)}'
    )
  if site in dataset.facts.get('features', ()):
    raise MedtlError(
      f'data.site is {site!r}, which is also a feature: the net would learn where an example comes '
      'from; list the features without it: data.features=(…)'
    )
  column = np.asarray(dataset.table[site]).astype(str)
  sites = np.where(labels.missing(column, labels.MISSING), '', column)
  names = np.unique(sites[sites != ''])
  group = np.where(sites == '', -1, np.searchsorted(names, sites))
  return dataclasses.replace(
    dataset,
    table={**dataset.table, 'site': sites, 'group': group},
    facts={**dataset.facts, 'groups': names.tolist()},
  )


def _notes(dataset: Dataset) -> list[str]:
  """Return sentences on what nobody said of the data: the order of classes, which is positive, numbers of doubtful range."""
  classes = dataset.classes
  y = dataset.table['y']
  found = []
  if not dataset.masks:
    found.append(labels.order_note(classes, dataset.facts['order']))
  if len(classes) == 2 and np.ndim(y) == 1 and not (y == -1).all() and not dataset.masks:
    turned = '' if dataset.facts['order'] == labels.GIVEN else '; data.classes turns them round'
    found.append(f'of the two classes {classes[1]!r} is the positive one{turned}')
  found += _twins(dataset)
  low, high = dataset.facts['range']
  if (
    'manufacturer' not in dataset.table
    and len(dataset.facts['shape']) > 1
    and dataset.size >= ENOUGH
    and low >= 0
    and 0 < high <= MOST_UNUSED
  ):
    found.append(
      f'the pictures hold numbers of {low:.3g} … {high:.3g} only, where 0 … 1 is expected: 12 bits in 16-bit files? '
      f"Then add 'window(0, {_power(high):g})' to data.ops"
    )
  return [words for words in found if words]


def _twins(dataset: Dataset) -> list[str]:
  """Return sentences on pictures that are equal in every pixel, with the same label or another."""
  seen: dict[str, int] = {}
  twice: list[str] = []
  torn: list[str] = []
  for row, content in enumerate(dataset.table['content'].tolist()):
    first = seen.setdefault(content, row) if content else row
    if first == row:
      continue
    names = f'{splits.name_of(dataset.table, first)} = {splits.name_of(dataset.table, row)}'
    same = (dataset.table['y'][first] == dataset.table['y'][row]).all()
    (twice if same else torn).append(names)
  said = []
  if twice:
    said.append(f'{len(twice)} pictures are equal in every pixel to another one, first {twice[0]}')
  if torn:
    said.append(
      f'{len(torn)} pictures are equal in every pixel to one of another label, first {torn[0]}'
    )
  return said


def _power(high: float) -> float:
  """Return the smallest power of two that is no smaller: what so many bits of a file's 16 can hold."""
  return 2.0 ** math.ceil(math.log2(high))


def _check_labels(dataset: Dataset) -> None:
  """Raise unless the table's y is a class's number, one number of 0 … 1 for each class, or -1 for all (unlabelled).

  What masks hold is the task's to check: it takes pixels, and these are not read here.
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
  wrong = np.flatnonzero(~((y >= 0) & (y <= most)).reshape(len(y), -1).all(axis=1))
  if len(wrong):
    raise MedtlError(
      f'{len(wrong)} labels outside the classes, first {y[wrong[0]]} of '
      f'{splits.name_of(dataset.table, wrong[0])}; expected 0 … {most} ({", ".join(classes)})'
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
    present = (
      (y[rows] > 0).any(axis=0)
      if y.ndim == 2
      else np.isin(np.arange(len(dataset.classes)), y[rows])
    )
    for name, there in zip(dataset.classes, present, strict=True):
      if not there:
        few = side == 'train' and 'labels' in split and split['labels'] < 1
        more = 'a larger data.split.labels, ' if few else ''
        raise MedtlError(
          f'class {name!r} has no example in {side!r}, which holds {len(rows)} of all {dataset.size}; '
          f'{_rarity(dataset, name)}. Expected every class on every side: take {more}fewer folds '
          '(data.split.folds=3), another data.split.seed or data.split.fold, or leave its folder or rows out'
        )


def _rarity(dataset: Dataset, name: str) -> str:
  """Return in words how many examples and patients a class has."""
  y, number = np.asarray(dataset.table['y']), dataset.classes.index(name)
  has = y[:, number] > 0 if y.ndim == 2 else y == number
  people = (
    f' of {len(np.unique(dataset.table["patient"][has]))} patients'
    if 'patient' in dataset.table
    else ''
  )
  return f'the class has {has.sum()} examples{people} in all'
