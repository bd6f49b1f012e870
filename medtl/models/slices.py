"""2.5-D: a network of pictures sees each slice of a volume, with its neighbours as channels.

What it makes of the slices is kept slice by slice, [b, d, …], so that an example stays one row.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


def with_neighbours(x: Any, count: int) -> Any:
  """Return volumes [b, d, h, w, c] as slices of `count` · c channels; `count` is odd.

  The slice is in the middle, those before it come first. At both ends the last slice stands in for
  its missing neighbours.
  """
  half = count // 2
  padded = jnp.pad(x, [(0, 0), (half, half), (0, 0), (0, 0), (0, 0)], mode='edge')
  depth = x.shape[1]
  return jnp.concatenate([padded[:, start : start + depth] for start in range(count)], axis=-1)


def as_pictures(value: Any) -> Any:
  """Return every array [b, d, …] of a tree as [b · d, …]: slices become examples."""
  return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), value)


def as_volumes(value: Any, batch: int) -> Any:
  """Return every array [b · d, …] of a tree as [b, d, …]."""
  return jax.tree.map(lambda leaf: leaf.reshape(batch, -1, *leaf.shape[1:]), value)


@dataclasses.dataclass(frozen=True)
class OfSlices:
  """A backbone of pictures as heads read it behind slices: maps [b, d, *s, c], one token [b, c]."""

  backbone: Any

  @property
  def stages(self) -> int:
    """Return the number of stages of the backbone."""
    return self.backbone.stages

  def maps(self, value: Any) -> Any:
    """Return the maps of all slices, [b, d, *s, c]."""
    batch = jax.tree.leaves(value)[0].shape[0]
    return as_volumes(self.backbone.maps(as_pictures(value)), batch)

  def token(self, value: Any) -> Any:
    """Return the mean of the slices' class tokens; None where there is none."""
    batch = jax.tree.leaves(value)[0].shape[0]
    token = self.backbone.token(as_pictures(value))
    return None if token is None else as_volumes(token, batch).mean(1)
