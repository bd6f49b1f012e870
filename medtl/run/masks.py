"""Predicted masks as files: PNG for pictures, npy for arrays of other numbers of axes."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medtl.core.types import Batch, Table, Tree
from medtl.runtime import files, multihost


def write(
  folder: Path,
  dense: Callable,
  params: Tree,
  extra: Tree,
  batches: Iterable[Batch],
  table: Table,
  classes: Sequence[str],
) -> list[str]:
  """Write each example's predicted mask to folder/<its file>.png; return in words what they hold.

  One batch is in memory at a time.
  """
  file_of = dict(zip(table['row'].tolist(), table['file'].tolist(), strict=True))
  factor = 255 // (len(classes) - 1) if len(classes) < 256 else 1
  for batch in batches:
    maps = dense(params, extra, batch)
    rows, real, prediction = multihost.to_numpy((batch.row, batch.mask, maps['prediction']))
    for row, mask in zip(rows[real].tolist(), prediction[real], strict=True):
      _write_one(folder / file_of[row], mask, factor)
  shades = ', '.join(f'{number * factor} {name}' for number, name in enumerate(classes))
  return [f'the masks are in {folder}, of the size that the net sees: {shades}']


def _write_one(path: Path, mask: np.ndarray, factor: int) -> None:
  """Write a mask [*s] of classes beside its name; of a picture in shades that can be told apart."""
  suffix = '.png' if mask.ndim == 2 else '.npy'
  with files.atomic_write(path.with_name(path.name + suffix)) as aside, aside.open('wb') as file:
    if mask.ndim == 2:
      Image.fromarray(mask * np.array(factor, mask.dtype)).save(file, 'PNG')
    else:
      np.save(file, mask)
