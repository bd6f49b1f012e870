"""The image encoder of SAM (Kirillov et al. 2023, arXiv 2304.02643), and so of MedSAM.

A stage is one block; the neck after them is one more.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medtl.core.types import MedtlError
from medtl.models import Backbone, child_name
from medtl.models.layers.layer_norm import LayerNorm
from medtl.models.layers.spatial import Conv
from medtl.models.layers.transformer import PatchEmbedding, Update
from medtl.models.layers.window_attention import WindowBlock
from medtl.models.presets import preset
from medtl.models.pretrained.sam import ADAPT, RENAMES, WEIGHTS  # noqa: F401

PATCH = 16


class Sam(Backbone):
  """Pictures [b, *size, c] → maps [b, *size / 16, neck].

  `size` fixes the grid of position embeddings. Most blocks look into windows; four of them, evenly
  spread, see the whole picture (appendix A).
  """

  size: tuple[int, ...] = (1024, 1024)
  width: int = 768
  depth: int = 12
  heads: int = 12
  window: int = 14  # patches a side
  global_every: int = 3  # every so many blocks, the last sees the whole picture
  neck: int = 256  # channels of the maps
  dropout: float = 0.0
  # stochastic depth of the last block; it grows linearly from 0 at the first
  drop_path: float = 0.0
  dtype: Any = jnp.float32

  @property
  def stages(self) -> int:
    return self.depth + 1

  @property
  def channels(self) -> int:
    return self.neck

  @property
  def grid(self) -> tuple[int, ...]:
    """Return how many patches there are along each axis; a MedtlError where they do not fit."""
    if len(self.size) != 2 or any(side % PATCH for side in self.size):
      raise MedtlError(
        f'pictures of size {tuple(self.size)} do not divide into patches of {PATCH} × {PATCH}; '
        "resize or pad them: config.data.ops='resize(1024, 1024)' for instance"
      )
    return tuple(side // PATCH for side in self.size)

  def child(self, index: int, value: Any, train: bool) -> Any:
    if index == 0:
      return Stem(tuple(self.size), self.grid, self.width, self.dtype, name='stem')(value)
    if index == self.stages:
      return Neck(self.neck, self.dtype, name=child_name(index))(value)
    return self._block(index)(value, train)

  def _block(self, index: int) -> WindowBlock:
    last = max(1, self.depth - 1)
    sees_all = index % self.global_every == 0
    return WindowBlock(
      heads=self.heads,
      hidden=4 * self.width,
      window=0 if sees_all else self.window,
      dropout=self.dropout,
      drop_path=self.drop_path * (index - 1) / last,
      update=Update(0, (), 1.0),
      dtype=self.dtype,
      name=child_name(index),
    )


class Stem(nn.Module):
  """Pictures [b, *size, c] → patches with their positions, [b, *grid, width]."""

  size: tuple[int, ...]
  grid: tuple[int, ...]
  width: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    if x.shape[1:-1] != self.size:
      raise MedtlError(
        f'this SAM is made for pictures of size {self.size}, found {x.shape[1:-1]}; resize the '
        'pictures or set config.model.size'
      )
    patches = (PATCH, PATCH)
    x = PatchEmbedding(patches, self.width, True, self.dtype, name='embedding')(x)
    draw = nn.initializers.normal(0.02)
    positions = self.param('positions', draw, (*self.grid, self.width))
    return x + positions.astype(self.dtype)


class Neck(nn.Module):
  """1 × 1 and 3 × 3 convolutions with a layer norm over the channels after each."""

  features: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    for number, side in ((1, 1), (2, 3)):
      x = Conv(self.features, (side, side), dtype=self.dtype, name=f'conv{number}')(x)
      x = LayerNorm(1e-6, self.dtype, name=f'norm{number}')(x)
    return x


sam_vit_b = preset(Sam, "SAM's ViT-B, which MedSAM has too.")
sam_vit_l = preset(Sam, "SAM's ViT-L.", width=1024, depth=24, heads=16, global_every=6)
sam_vit_h = preset(Sam, "SAM's ViT-H.", width=1280, depth=32, heads=16, global_every=8)
