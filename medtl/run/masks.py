"""Predicted masks as files: PNG for pictures, npy for arrays of other numbers of axes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from medtl.core import frames
from medtl.core.types import Dataset, Tree
from medtl.data.geometry import frame_of
from medtl.run import assemble
from medtl.runtime import files, multihost


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
  for batch in assemble.eval_batches(dataset, config):
    maps = dense(params, extra, batch)
    rows, real, prediction = multihost.to_numpy((batch.row, batch.mask, maps['prediction']))
    for row, mask in zip(rows[real].tolist(), prediction[real], strict=True):
      place = place_of[row]
      example = dataset.fetch(place)
      file_frame = example.file_frame or frame_of(example)
      whole = frames.resampled(mask, frame_of(example), file_frame, order=0)
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
