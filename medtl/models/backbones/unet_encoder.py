"""The encoder of nnU-Net: plain convolutions at each resolution, to be trained from scratch.

Isensee et al. 2021, "nnU-Net", Nature Methods 18:203. There is no public checkpoint of it.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError
from medtl.models import Backbone, child_name
from medtl.models.layers.spatial import Conv

RENAMES: dict[str, Any] = {}
WEIGHTS: dict[str, Any] = {}
SLOPE = 0.01  # of the leaky ReLU below 0 (nnU-Net)
NORMS = ('instance', 'group')
GROUP = 8  # channels of a group


class UNetEncoder(Backbone):
  """x [b, *s, c] → maps [b, *s / 2^N, widths[-1]]; the stem keeps the full resolution."""

  widths: tuple[int, ...]
  ndim: int
  norm: str
  dtype: Any

  @property
  def stages(self) -> int:
    return len(self.widths) - 1

  @property
  def channels(self) -> int:
    return self.widths[-1]

  def child(self, index: int, value: Any, train: bool) -> Any:
    return Stage(
      self.widths[index],
      1 if index == 0 else 2,
      self.ndim,
      self.norm,
      self.dtype,
      name=child_name(index),
    )(value)


class Stage(nn.Module):
  """Convolution, norm and leaky ReLU, twice; the first convolution strides."""

  features: int
  stride: int
  ndim: int
  norm: str
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    for number, stride in ((1, self.stride), (2, 1)):
      conv = Conv(self.features, (3,) * self.ndim, stride, dtype=self.dtype, name=f'conv{number}')
      size = 1 if self.norm == 'instance' else math.gcd(GROUP, self.features)
      norm = nn.GroupNorm(
        None, size, dtype=self.dtype, use_fast_variance=False, name=f'norm{number}'
      )
      x = nn.leaky_relu(norm(conv(x)), SLOPE)
    return x


def unet_encoder(
  widths: Sequence[int] = (32, 64, 128, 256, 320),
  ndim: int = 2,
  norm: str = 'instance',
  dtype: Any = jnp.float32,
) -> UNetEncoder:
  """Return the plain convolutional encoder of a U-Net for `ndim` axes.

  `widths` are the channels at each resolution: of the stem, which keeps the pictures' own, and of
  each stage, which halves it. `norm` is 'instance' (each channel of an example by itself, as in the
  paper) or 'group' (eight channels together). Neither depends on the other examples of a batch.
  """
  if len(widths) < 2 or min(widths) < 1:
    raise MedtlError(
      f'unet_encoder: widths={tuple(widths)}; expected channels of the stem and of one stage '
      'or more'
    )
  if norm not in NORMS:
    raise MedtlError(f'unet_encoder has no norm {norm!r}; {did_you_mean(norm, NORMS)}')
  return UNetEncoder(tuple(widths), ndim, norm, dtype)
