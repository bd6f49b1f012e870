"""What the publishers of vision transformers have in common: our paths, positions, statistics."""

import math

import jax
import numpy as np

from medtl.core.types import MedtlError

Renames = tuple[tuple[str, str], ...]

BACKBONE = 'params/backbone'
STEM = 'params/backbone/stem'
# most publishers have one array of positions, whose first row is the class token's
POSITIONS = f'{STEM}/{{class_position[:1],positions[1:]}}'
LAST = 'params/backbone/stage_last'
HALF = (0.5, 0.5, 0.5)  # mean and std of inputs from -1 to 1


def stages(block: str, count: int = 40) -> Renames:
  """Return renames of blocks, which publishers count from 0.

  `block` is a pattern with a place for the number.
  """
  return tuple((block.format(i), f'{BACKBONE}/stage{i + 1}/') for i in range(count))


def resize_positions(positions: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
  """Return position embeddings [*source, d] on another grid, [*grid, d].

  They are the same array when the grid is the same. Bicubic (a = -0.5) and antialiased, as Pillow
  resizes and as timm ports checkpoints. DINOv2's own code interpolates without antialiasing
  (a = -0.75), which differs by some percent where its 37 × 37 grid shrinks.
  """
  if positions.shape[:-1] == tuple(grid):
    return positions
  shape = (*grid, positions.shape[-1])
  return np.asarray(jax.image.resize(positions, shape, 'cubic', antialias=True))


def patch_positions(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Return [*grid, d] from a publisher's [1, n, d].

  n is a square (a cube …), as public checkpoints were trained on square pictures. Otherwise it must
  be the number of patches of our own grid, or a MedtlError is raised.
  """
  patches = rows.reshape(-1, rows.shape[-1])
  count = len(patches)
  grid = shape[:-1]
  axes = len(grid)
  side = round(count ** (1 / axes))
  source = (side,) * axes if side**axes == count else grid
  if math.prod(source) != count:
    kind = {2: 'a square', 3: 'a cube'}.get(axes, 'a line')
    of_pictures = '; config.inflate takes a checkpoint of pictures' if axes == 3 else ''
    raise MedtlError(
      f'{count} position embeddings of patches are neither {kind} nor a grid of {grid}; expected '
      f'a checkpoint of pictures with equal sides, or of this size{of_pictures}'
    )
  return resize_positions(patches.reshape(*source, -1), grid)


ADAPT = {r'backbone/stem/positions': patch_positions}
