"""Decoders on a backbone: its maps, from coarse to fine, become outputs for every pixel."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medtl.core.types import MedtlError
from medtl.models import Backbone, Head, child_name
from medtl.models.layers.spatial import Conv

GROUPS = 8  # of a norm, or as many as divide the channels


class UNet(Head):
  """Upsample, concatenate with the finer maps, two convolutions; again for each resolution.

  It reads the last child of each resolution. Where all children have one resolution, as in a ViT,
  nothing is left to concatenate, and the maps are only enlarged.
  """

  classes: int
  size: tuple[int, ...]
  widths: tuple[int, ...]
  dtype: Any

  @property
  def reads(self) -> str:
    return 'the last maps of each resolution'

  def levels(self, children: Sequence[str]) -> tuple[str, ...]:
    return tuple(children)

  def reduce(self, value: Any, backbone: Backbone) -> list[Any]:
    """Return the maps [b, *s, c] of the last child of each resolution, from fine to coarse."""
    last, taken = value
    names = [child_name(index) for index in range(backbone.stages + 1)]
    maps = [taken[name] for name in names if name in taken]
    maps[-1] = backbone.maps(last)  # after the backbone's norm, where it has one
    finer: list[Any] = []
    for level, following in itertools.pairwise(maps):
      if level.shape[1:-1] != following.shape[1:-1]:
        finer.append(level)
    return [*finer, maps[-1]]

  @nn.compact
  def __call__(self, maps: Sequence[Any], *, train: bool) -> Any:
    """Return logits [b, *s, classes] in float32, `s` the pictures' size."""
    *finer, x = maps
    x = x.astype(self.dtype)
    for index in reversed(range(len(finer))):
      level = finer[index].astype(self.dtype)
      x = jnp.concatenate([enlarged(x, level.shape[1:-1]), level], axis=-1)
      x = Twice(self.width(index + 1), self.dtype, name=f'level{index + 1}')(x)
    x = Twice(self.width(0), self.dtype, name='level0')(enlarged(x, self.size))
    return nn.Dense(self.classes, name='dense')(x.astype(jnp.float32))

  def width(self, level: int) -> int:
    """Return the channels at a level: 0 are the pictures' pixels, 1 the finest maps."""
    return self.widths[min(level, len(self.widths) - 1)]


class Twice(nn.Module):
  """Convolution, group norm and ReLU, twice.

  Group norm (Wu and He 2018, arXiv 1803.08494) instead of BatchNorm: batches of dense outputs are
  small, and what the decoder makes of a picture depends on that picture alone.
  """

  channels: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    kernel = (3,) * (x.ndim - 2)
    for number in (1, 2):
      x = Conv(self.channels, kernel, dtype=self.dtype, name=f'conv{number}')(x)
      groups = math.gcd(self.channels, GROUPS)
      x = nn.relu(nn.GroupNorm(groups, dtype=self.dtype, name=f'norm{number}')(x))
    return x


def enlarged(x: Any, size: Sequence[int]) -> Any:
  """Return x [b, *s, c] resized to another spatial size, linear between pixels."""
  if x.shape[1:-1] == tuple(size):
    return x
  return jax.image.resize(x, (len(x), *size, x.shape[-1]), 'linear')


def unet(
  classes: int,
  size: Sequence[int],
  widths: Sequence[int] = (16, 32, 48, 64, 96),
  dtype: Any = jnp.float32,
) -> UNet:
  """Return a U-Net's decoder (Ronneberger et al. 2015, arXiv 1505.04597) on any backbone's maps.

  `size` is the pictures', `widths` are the channels at each resolution, from that size to coarser
  ones; the last of them holds for all that follow. Instead of the paper's transposed convolutions,
  maps are resized (Odena et al. 2016: no checkerboard). Its outputs are logits [b, *size, classes].
  """
  if not widths or min(widths) < 1:
    raise MedtlError(f'unet: widths={tuple(widths)}; expected channels, at least 1 at each level')
  return UNet(classes, tuple(size), tuple(widths), dtype)
