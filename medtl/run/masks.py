"""Predicted masks as files: PNG for pictures, npy for arrays of other numbers of axes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from medtl.core import frames
from medtl.core.types import Dataset, Tree
from medtl.data.geometry import frame_of
from medtl.evaluation import predictions
from medtl.run import assemble
from medtl.runtime import files


def write(
  folder: Path,
  dense: Callable,
  params: Tree,
  extra: Tree,
  dataset: Dataset,
  config: ConfigDict,
  classes: Sequence[str],
) -> list[str]:
  """Write each example's predicted mask to folder/<its file>.png; return in words what they hold.

  A mask returns to the grid of its file: what data.ops cut off there is background. One batch is in
  memory at a time.
  """
  factor = 255 // (len(classes) - 1) if len(classes) < 256 else 1
  place_of = {int(row): place for place, row in enumerate(dataset.table['row'])}
  batches = assemble.eval_batches(dataset, config)
  for row, maps in predictions.maps(dense, params, extra, batches):
    place = place_of[row]
    example = dataset.fetch(place)
    file_frame = example.file_frame or frame_of(example)
    whole = frames.resampled(maps['prediction'], frame_of(example), file_frame, order=0)
    _write_one(folder / dataset.table['file'][place], whole, factor)
  shades = ', '.join(f'{number * factor} {name}' for number, name in enumerate(classes))
  return [f'the masks are in {folder}, each of the size of its file: {shades}']


def _write_one(path: Path, mask: np.ndarray, factor: int) -> None:
  """Write a mask [*s] of classes beside its name; of a picture in shades that can be told apart."""
  suffix = '.png' if mask.ndim == 2 else '.npy'
  with files.atomic_write(path.with_name(path.name + suffix)) as aside, aside.open('wb') as file:
    if mask.ndim == 2:
      Image.fromarray(mask * np.array(factor, mask.dtype)).save(file, 'PNG')
    else:
      np.save(file, mask)
