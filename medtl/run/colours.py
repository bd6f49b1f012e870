"""Whether pictures are in colour, beside what a run was trained on."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from medtl.core import expressions
from medtl.core.types import Dataset
from medtl.run.readers import LOAD, PICTURES, reader

LOOK = 32  # pictures that are looked at for colour
COLOURED = 0.02  # mean difference of channels; JPEG alone makes less


def colour(dataset: Dataset) -> tuple[int, int]:
  """Return (how many pictures are in colour, how many were looked at); LOOK are, evenly spread."""
  count = min(LOOK, dataset.size)
  rows = np.unique(np.linspace(0, dataset.size - 1, count).astype(int))
  coloured = 0
  for row in rows.tolist():
    differences = np.ptp(dataset.fetch(row).x, axis=-1)
    coloured += int(differences.mean() > COLOURED)
  return coloured, len(rows)


def differences(dataset: Dataset, keys: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
  """Return in words how the pictures' colour differs from what the run was trained on."""
  if reader(keys['name']) not in PICTURES.values():
    return []
  if plan['shape'][-1] == 1:
    return [f'{words}, as the run needs it' for words in made_grey(dataset, keys)]
  coloured, looked = colour(dataset)
  trained = plan.get('colour')  # runs of older versions do not tell
  if trained and not coloured:
    return [
      f'of {looked} pictures that were looked at none is in colour, and the run was trained '
      'on pictures in colour'
    ]
  if trained is False and coloured:
    return [
      f'of {looked} pictures that were looked at {coloured} are in colour, and the run was '
      'trained on grey ones'
    ]
  return []


def made_grey(dataset: Dataset, keys: Mapping[str, Any]) -> list[str]:
  """Return in words how many pictures of a source lose their colour where it is read as grey."""
  name = reader(keys['name'])
  if name not in PICTURES.values() or keys.get('channels', 1) != 1:
    return []
  read = expressions.find(name, 'medtl.data.sources')
  asked = {key: value for key, value in keys.items() if key not in LOAD}
  stored = read(**{**asked, 'channels': 3})
  coloured, looked = colour(stored.subset(dataset.table['row']))
  if not coloured:
    return []
  return [
    f'of {looked} pictures that were looked at {coloured} are in colour: they are read as grey'
  ]
