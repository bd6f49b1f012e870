"""Rotary position embeddings: queries and keys are turned by angles that say where a patch lies.

Su et al. 2021 (arXiv 2104.09864) for text; by axis, with coordinates from -1 to 1, in DINOv3
(Siméoni et al. 2025, arXiv 2508.10104, section 3.2).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medtl.core.types import MedtlError

BASE = 100.0  # of the periods: they grow from 1 to nearly BASE


def rotate(x: Any, grid: tuple[int, ...]) -> Any:
  """Return x [b, h, t, d], the last tokens of which are the patches of the grid, turned by place.

  Tokens before the patches stay as they are.
  """
  cos, sin = _tables(grid, x.shape[2], x.shape[3])
  return _turned(x, jnp.asarray(cos, x.dtype), jnp.asarray(sin, x.dtype))


@jax.jit
def _turned(x: Any, cos: Any, sin: Any) -> Any:
  """Return x with its component i and component i + d/2 turned as a pair; traced once a shape."""
  first, second = jnp.split(x, 2, axis=-1)
  across = jnp.concatenate([-second, first], axis=-1)
  return x * cos + across * sin


@functools.cache
def _tables(grid: tuple[int, ...], tokens: int, width: int) -> tuple[np.ndarray, np.ndarray]:
  """Return cosines and sines [t, d]; tokens that are no patches have the angle 0."""
  patches = angles(grid, width)
  whole = np.zeros((tokens, width))
  whole[tokens - len(patches) :] = np.tile(patches, 2)
  return np.cos(whole), np.sin(whole)


def angles(grid: tuple[int, ...], width: int) -> np.ndarray:
  """Return the angle [n, d/2] of each patch of the grid and each pair of components.

  Each axis has its share of the pairs. The centre of a patch has a coordinate c from -1 to 1, and
  turns pair j of its axis by 2π c / BASE^(j / pairs).
  """
  if width % (2 * len(grid)):
    raise MedtlError(
      f'{len(grid)} axes do not share the {width // 2} pairs of a head of {width} components; '
      'config.model.width ÷ heads must be a multiple of twice the number of axes'
    )
  pairs = width // (2 * len(grid))
  periods = BASE ** (np.arange(pairs) / pairs)
  centres = [2 * (np.arange(side) + 0.5) / side - 1 for side in grid]
  coordinates = np.stack(np.meshgrid(*centres, indexing='ij'), axis=-1)
  turns = coordinates[..., None] / periods
  return 2 * math.pi * turns.reshape(math.prod(grid), -1)
