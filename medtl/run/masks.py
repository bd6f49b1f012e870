"""Predicted masks as files: NIfTI for volumes, PNG for pictures, npy for other arrays."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from medtl.core import frames
from medtl.core.types import Dataset, Example, Tree
from medtl.data.formats import nifti
from medtl.data.geometry import frame_of
from medtl.evaluation import predictions
from medtl.run import run_data
from medtl.runtime import files


def write(
  folder: Path,
  dense: Callable,
  params: Tree,
  extra: Tree,
  dataset: Dataset,
  config: ConfigDict,
  classes: Sequence[str],
  root: Path,
) -> list[str]:
  """Write each example's predicted mask to `folder`; return in words what the files hold.

  A mask returns to the grid of its file: what data.ops cut off there is background. A volume that
  was read from a NIfTI file below `root` gets a file of the same name, shape, affine and codes; a
  picture x.jpg gets x.jpg.png. One batch is in memory at a time.
  """
  place_of = {int(row): place for place, row in enumerate(dataset.table['row'])}
  factor = 255 // (len(classes) - 1) if len(classes) < 256 else 1
  volumes = False
  batches = run_data.eval_batches(dataset, config)
  for row, maps in predictions.maps(dense, params, extra, batches):
    place = place_of[row]
    name = str(dataset.table['file'][place])
    whole = on_file_grid(maps['prediction'], dataset.fetch(place))
    if nifti.belongs(Path(name)):
      volumes = True
      _write_volume(folder / name, whole, root if root.is_file() else root / name)
    else:
      _write_array(folder / name, whole, factor)
  if volumes:
    numbers = ', '.join(f'{number} {name}' for number, name in enumerate(classes))
    return [f"the masks are in {folder}, NIfTI files on the volumes' own grids: {numbers}"]
  shades = ', '.join(f'{number * factor} {name}' for number, name in enumerate(classes))
  return [f'the masks are in {folder}, each of the size of its file: {shades}']


def on_file_grid(mask: np.ndarray, example: Example) -> np.ndarray:
  """Return a mask [*s] that was predicted of an example on the grid of the example's file.

  Each class is resampled linearly, and the largest wins: its border then lies between voxels, where
  the nearest neighbour would show steps of the net's grid. Where operations only turned, flipped,
  cut or padded the volume, no voxel changes. What lies outside is background, 0.
  """
  frame = frame_of(example)
  target = example.file_frame or frame
  best = np.full(target.shape, -1.0, np.float32)
  found = np.zeros(target.shape, mask.dtype)
  for number in range(int(mask.max()) + 1):
    outside = 1.0 if number == 0 else 0.0
    share = frames.resampled((mask == number).astype(np.float32), frame, target, 1, outside)
    larger = share > best
    best[larger] = share[larger]
    found[larger] = number
  return found


def _write_volume(path: Path, mask: np.ndarray, like: Path) -> None:
  with files.atomic_write(path) as aside:
    nifti.write_mask(aside, mask, like, path.name)


def _write_array(path: Path, mask: np.ndarray, factor: int) -> None:
  """Write a mask [*s] of classes beside its name; of a picture in shades that can be told apart."""
  suffix = '.png' if mask.ndim == 2 else '.npy'
  with files.atomic_write(path.with_name(path.name + suffix)) as aside, aside.open('wb') as file:
    if mask.ndim == 2:
      Image.fromarray(mask * np.array(factor, mask.dtype)).save(file, 'PNG')
    else:
      np.save(file, mask)
