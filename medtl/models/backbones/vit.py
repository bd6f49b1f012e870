"""Vision transformers: AugReg, DeiT, CLIP, DINO and DINOv2 are one architecture with switches. A stage is one block."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from medtl.core.types import MedtlError
from medtl.models import Backbone, child_name
from medtl.models.layers.layer_norm import LayerNorm
from medtl.models.layers.transformer import LAYERS, Block, Stem, Update
from medtl.models.pretrained.vit import ADAPT, RENAMES, WEIGHTS  # noqa: F401

FRESH = ('.*/lora_[ab]',)  # no checkpoint has them


class ViT(Backbone):
  """Pictures [b, *size, c] → tokens [b, t, width]: the class token, the registers, then the patches, row by row.

  `size` fixes the grid of position embeddings, in one, two or three dimensions. Sources: Dosovitskiy et al. 2021 (arXiv
  2010.11929), LayerScale from Touvron et al. 2021 (2103.17239), registers from Darcet et al. 2024 (2309.16588),
  early convolutions from Xiao et al. 2021 (2106.14881): with them a small ViT learns from hundreds of pictures, not millions.
  """

  size: tuple[int, ...] = (224, 224)
  patch: int | tuple[int, ...] = 16
  width: int = 768
  depth: int = 12
  heads: int = 12
  early: tuple[
    int, ...
  ] = ()  # channels of 3×3 convolutions at stride 2 that cut the first part of a patch
  ratio: int = 4  # hidden units of an MLP ÷ width
  registers: int = 0
  class_token: bool = True
  layer_scale: bool = False
  pre_norm: bool = False  # CLIP: a norm before the first block, and no bias in the patch embedding
  activation: str = 'gelu'
  epsilon: float = 1e-6  # of the layer norms
  lora: int = (
    0  # rank of low-rank updates beside frozen kernels (Hu et al. 2022, arXiv 2106.09685); 0 = none
  )
  lora_targets: tuple[str, ...] = ('query', 'value')  # of query, key, value, out, up, down
  lora_alpha: float = 0.0  # the update is multiplied by alpha ÷ rank; 0 = by 1
  dropout: float = 0.0
  drop_path: float = (
    0.0  # stochastic depth of the last block; it grows linearly from 0 at the first
  )
  dtype: Any = jnp.float32

  @property
  def stages(self) -> int:
    return self.depth

  @property
  def channels(self) -> int:
    return self.width

  @property
  def patches(self) -> tuple[int, ...]:
    """Return the size of a patch along each axis, in pixels."""
    return (self.patch,) * len(self.size) if isinstance(self.patch, int) else tuple(self.patch)

  @property
  def grid(self) -> tuple[int, ...]:
    """Return how many patches there are along each axis."""
    if any(patch % 2 ** len(self.early) for patch in self.patches):
      raise MedtlError(
        f'{len(self.early)} early convolutions halve a patch each time, which {self.patches} does not allow'
      )
    if len(self.patches) != len(self.size) or any(
      side % patch for side, patch in zip(self.size, self.patches, strict=True)
    ):
      raise MedtlError(
        f'pictures of size {self.size} do not divide into patches of {self.patches}; '
        "resize or pad them: config.data.ops='resize(224, 224)' for instance"
      )
    return tuple(side // patch for side, patch in zip(self.size, self.patches, strict=True))

  @property
  def update(self) -> Update:
    """Return the low-rank update of the blocks' layers."""
    if set(self.lora_targets) - set(LAYERS) or self.lora < 0:
      raise MedtlError(
        f'lora={self.lora}, lora_targets={self.lora_targets}; expected a rank of 0 or more, and targets among: '
        + ', '.join(LAYERS)
      )
    return Update(
      self.lora, tuple(self.lora_targets), (self.lora_alpha or self.lora) / max(1, self.lora)
    )

  def child(self, index: int, value: Any, train: bool) -> Any:
    if index == 0:
      return Stem(
        tuple(self.size),
        self.patches,
        self.grid,
        self.width,
        tuple(self.early),
        self.registers,
        self.class_token,
        self.pre_norm,
        self.epsilon,
        self.dropout,
        self.dtype,
        name='stem',
      )(value, train)
    value = Block(
      self.heads,
      self.ratio,
      self.layer_scale,
      self.activation,
      self.epsilon,
      self.dropout,
      self.drop_path * (index - 1) / max(1, self.depth - 1),
      self.update,
      self.dtype,
      name=child_name(index),
    )(value, train)
    return LayerNorm(self.epsilon, self.dtype, name='norm')(value) if index == self.depth else value

  def maps(self, value: Any) -> Any:
    return value[:, self.class_token + self.registers :].reshape(
      value.shape[0], *self.grid, self.width
    )

  def token(self, value: Any) -> Any:
    return value[:, 0] if self.class_token else None


def _preset(words: str, **fixed: Any) -> Callable[..., ViT]:
  """Return a factory of ViTs: it takes any field of ViT by name, with these defaults."""
  fields = [field for field in dataclasses.fields(ViT) if field.name not in ('parent', 'name')]
  known = {field.name: fixed.get(field.name, field.default) for field in fields}

  def factory(**keys: Any) -> ViT:
    keys = known | keys
    return ViT(**keys | {'size': tuple(keys['size'])})

  parameters = [
    inspect.Parameter(
      field.name, inspect.Parameter.KEYWORD_ONLY, default=known[field.name], annotation=field.type
    )
    for field in fields
  ]
  factory.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]   # so that a misspelt key is found
  factory.__doc__ = words
  return factory


_TINY, _SMALL, _BASE, _LARGE = (
  dict(width=width, depth=depth, heads=heads)
  for width, depth, heads in ((192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16))
)
_CLIP = dict(pre_norm=True, activation='quick_gelu', epsilon=1e-5)
_DINOV2 = dict(patch=14, layer_scale=True)

vit_ti16 = _preset('ViT-Ti/16: AugReg, DeiT-tiny.', **_TINY)
vit_s16 = _preset('ViT-S/16: AugReg, DeiT-small, DINO.', **_SMALL)
vit_b16 = _preset('ViT-B/16: AugReg, DeiT-base, DINO.', **_BASE)
vit_b32 = _preset('ViT-B/32: AugReg.', **_BASE, patch=32)
vit_l16 = _preset('ViT-L/16: AugReg.', **_LARGE)
clip_vit_b16 = _preset("OpenAI's CLIP ViT-B/16, without its projection.", **_BASE, **_CLIP)
clip_vit_b32 = _preset(
  "OpenAI's CLIP ViT-B/32, without its projection.", **_BASE, **_CLIP, patch=32
)
clip_vit_l14 = _preset(
  "OpenAI's CLIP ViT-L/14, without its projection.", **_LARGE, **_CLIP, patch=14
)
dinov2_vit_s14 = _preset(
  'DINOv2 ViT-S/14; registers=4 for the variant that has them.', **_SMALL, **_DINOV2
)
dinov2_vit_b14 = _preset(
  'DINOv2 ViT-B/14; registers=4 for the variant that has them.', **_BASE, **_DINOV2
)
dinov2_vit_l14 = _preset(
  'DINOv2 ViT-L/14; registers=4 for the variant that has them.', **_LARGE, **_DINOV2
)
