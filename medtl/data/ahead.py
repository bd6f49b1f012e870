"""What is known of a data set before its file is here: address, size, shape of its pictures."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from medtl.core import expressions
from medtl.core.types import Dataset, Example
from medtl.data import splits, transforms
from medtl.runtime.downloads import Remote


class Ahead(NamedTuple):
  """A data set that a publisher serves, described without its file."""

  remote: Remote
  unpacked: int  # bytes that its arrays take on the disk, beside the file
  blank: Dataset  # its size, classes and sides; pictures are zeros, and the classes come in turn


Describe = Callable[..., Ahead | None]


def known_ahead(describe: Describe) -> Callable[[Callable], Callable]:
  """Return a decorator for the `load` of a source, whose file `describe` knows ahead.

  `describe` takes the keys of `load` and returns None where nothing is to be fetched.
  """

  def declare(load: Any) -> Any:
    load.ahead = describe
    return load

  return declare


def of(name: str, keys: Mapping[str, Any]) -> Ahead | None:
  """Return what a source knows before its files are here; None where it fetches nothing.

  `name` is a function of medtl/data/sources, `keys` are those of config.data.
  """
  load = expressions.find(name, 'medtl.data.sources')
  describe: Describe | None = getattr(load, 'ahead', None)
  if describe is None:
    return None
  known = expressions.parameters(load)
  return describe(**{key: value for key, value in keys.items() if key in known})


def classes_in_turn(count: int, classes: int, many: bool) -> np.ndarray:
  """Return made-up labels, [n] classes or, for `many` labels an example, [n, k] of 0 and 1.

  >>> classes_in_turn(3, 2, many=False)
  array([0, 1, 0], dtype=int32)
  """
  turn = np.arange(count, dtype=np.int32) % classes
  return np.eye(classes, dtype=np.float32)[turn] if many else turn


def sides(blank: Dataset, ops: str, split: Mapping[str, Any]) -> dict[str, Dataset]:
  """Return the sides that the split makes of a blank data set, its pictures as `ops` shape them."""
  example = blank.fetch(0)
  for operation in expressions.functions(ops, transforms, given=('example',)):
    example = operation(example)
  labels = blank.table['y']

  def fetch(index: int) -> Example:
    return example._replace(y=labels[index], row=index)

  whole = Dataset(fetch, blank.size, blank.classes, blank.table, blank.facts)
  index = splits.split(blank.table, **split)
  return {side: whole.subset(rows) for side, rows in index.items()}
