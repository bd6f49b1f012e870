"""The records that listing passes around: a config's keys, and files with their labels as text."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIDES = {
  'train': 'train',
  'training': 'train',
  'val': 'val',
  'valid': 'val',
  'validation': 'val',
  'dev': 'val',
  'test': 'test',
  'testing': 'test',
}


def side(name: str) -> str:
  """Return the side of a split that a name means, '' where it means none.

  >>> side('Train'), side('test_set'), side('validation-data'), side('benign')
  ('train', 'test', 'val', '')
  """
  plain = re.sub(r'[\W_]*(set|data|images)?$', '', name.lower())
  return SIDES.get(plain, '')


class Kind(NamedTuple):
  """The files that a source reads."""

  belongs: Callable[[Path], bool]
  words: str  # plural, for messages


class Keys(NamedTuple):
  """The keys of a config that say what to list; `folder.load` describes them."""

  manifest: str
  file: str
  label: str | Sequence[str]
  patient: str
  partition: str
  pattern: str
  classes: Sequence[str | int | float]
  missing: Sequence[str]
  repeated: str
  masks: str
  suffix: str
  only: Sequence[str] = ()
  unmasked: str = 'stop'


class Listed(NamedTuple):
  """Files and what is written beside them, still as text."""

  names: list[str]
  raw: np.ndarray  # labels [n] or [n, k]
  table: dict[str, np.ndarray]  # split, patient and all other columns
  notes: list[str]
  boxes: np.ndarray | None = None
  masks: list[tuple[str, ...]] | None = None  # the masks of each file, where they are asked for

  def rows(self, keep: np.ndarray) -> 'Listed':
    """Return the files where `keep`, bool [n], is true."""
    index = np.flatnonzero(keep)
    return self._replace(
      names=[self.names[place] for place in index],
      raw=self.raw[index],
      table={name: column[index] for name, column in self.table.items()},
      boxes=None if self.boxes is None else self.boxes[index],
      masks=None if self.masks is None else [self.masks[place] for place in index],
    )
