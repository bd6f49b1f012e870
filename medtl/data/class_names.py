"""Classes under other names, several of which may become one, and in another order."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from medtl.core.expressions import did_you_mean
from medtl.core.types import Dataset, Example, MedtlError
from medtl.data.listing import labels

Names = Mapping[str, str] | Sequence[tuple[str, str]]


def by_old_name(names: Names) -> dict[str, str]:
  """Return {old: new} of a mapping, or of pairs; MedtlError where pairs rename a class twice.

  A config takes no mapping with a dot in a name: 'Grade 1.5' is renamed by a pair.
  """
  pairs = list(names.items()) if isinstance(names, Mapping) else list(names)
  new_names: dict[str, str] = {}
  for old, new in pairs:
    if old in new_names:
      raise MedtlError(f'data.rename names the class {old!r} twice; expected each once')
    new_names[old] = new
  return new_names


def renamed(dataset: Dataset, names: Mapping[str, str]) -> Dataset:
  """Return the data set with its classes renamed, {old: new}; those of one new name become one.

  A class that `names` leaves out keeps its name. Classes stay in the order of the alphabet where
  that is how they were ordered; else each stands where the first of its name stood. facts gain a
  note and `classes_before`. Data without labels stay as they are. Raises MedtlError for a name that
  no class has, and for labels that are numbers.
  """
  y = np.asarray(dataset.table['y'])
  if not names or ((y == -1).all() and not dataset.masks):
    return dataset
  if y.dtype.kind == 'f' and y.ndim == 1:
    raise MedtlError('data.rename: the labels are numbers, and no classes; leave it out')
  for old in names:
    if old not in dataset.classes:
      raise MedtlError(
        f'data.rename: the data have no class {old!r}; {did_you_mean(old, dataset.classes)}'
      )
  after = [names.get(old, old) for old in dataset.classes]
  classes = list(dict.fromkeys(after))
  if dataset.facts.get('order') == labels.ALPHABET and not dataset.masks:
    classes.sort()
  facts = {
    **dataset.facts,
    'notes': [*dataset.facts.get('notes', []), _note(dataset, names)],
    'classes_before': list(dataset.classes),
  }
  numbers = [classes.index(name) for name in after]
  return _numbered(dataclasses.replace(dataset, facts=facts), numbers, classes)


def _note(dataset: Dataset, names: Mapping[str, str]) -> str:
  """Return in words which classes were renamed: 'data.rename: AMD, CNV → abnormal'."""
  groups: dict[str, list[str]] = {}
  for old in dataset.classes:
    if old in names:
      groups.setdefault(names[old], []).append(old)
  shown = [f'{", ".join(olds)} → {new}' for new, olds in groups.items()]
  return f'data.rename: {"; ".join(shown)}'


def in_order(dataset: Dataset, classes: Sequence[str]) -> Dataset:
  """Return the data set with these classes in this order, also those that it has no example of.

  Data with a class that is none of them stay as they are.
  """
  if not set(dataset.classes) <= set(classes):
    return dataset
  numbers = [list(classes).index(name) for name in dataset.classes]
  return _numbered(dataset, numbers, classes)


def _numbered(dataset: Dataset, numbers: Sequence[int], classes: Sequence[str]) -> Dataset:
  """Return the data set with other classes; numbers[i] is the new number of class i."""

  def fetch(index: int) -> Example:
    example = dataset.fetch(index)
    return example._replace(y=_mapped(example.y, numbers, len(classes)))

  table = dict(dataset.table)
  if not dataset.masks:  # the table of masks tells the classes of the pictures
    table['y'] = _mapped(table['y'], numbers, len(classes))
  return dataclasses.replace(dataset, fetch=fetch, classes=tuple(classes), table=table)


def _mapped(y: np.ndarray, numbers: Sequence[int], count: int) -> np.ndarray:
  """Return labels [*s] with new numbers, or label columns [*s, k] of new classes [*s, count].

  A column that several become is 1 where one of them is. What is no class, as -1, stays.
  """
  y = np.asarray(y)
  if y.dtype.kind == 'f':
    columns = np.zeros((*y.shape[:-1], count), y.dtype)
    for old, new in enumerate(numbers):
      columns[..., new] = np.maximum(columns[..., new], y[..., old])
    return columns
  known = (y >= 0) & (y < len(numbers))
  moved = np.asarray(numbers)[np.where(known, y, 0)]
  return np.where(known, moved, y).astype(y.dtype)
