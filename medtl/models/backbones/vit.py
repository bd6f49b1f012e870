"""Vision transformers: AugReg, DeiT, CLIP, DINO and DINOv2 are one architecture with switches.

A stage is one block.
"""

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
  """Pictures [b, *size, c] → tokens [b, t, width].

  Tokens are the class token, the registers, then the patches, row by row. `size` fixes the grid of
  position embeddings, in one, two or three dimensions.

  Sources: Dosovitskiy et al. 2021 (arXiv 2010.11929); LayerScale from Touvron et al. 2021
  (2103.17239); registers from Darcet et al. 2024 (2309.16588); early convolutions from Xiao et al.
  2021 (2106.14881), with which a small ViT learns from hundreds of pictures, not millions.
  """

  size: tuple[int, ...] = (224, 224)
  patch: int | tuple[int, ...] = 16
  width: int = 768
  depth: int = 12
  heads: int = 12
  # channels of 3×3 convolutions at stride 2 before the patches are cut, which are smaller for it
  early: tuple[int, ...] = ()
  ratio: int = 4  # hidden units of an MLP ÷ width
  registers: int = 0
  class_token: bool = True
  layer_scale: bool = False
  pre_norm: bool = False  # CLIP: a norm before the first block, and no bias in the patch embedding
  activation: str = 'gelu'
  epsilon: float = 1e-6  # of the layer norms
  # rank of low-rank updates beside frozen kernels (Hu et al. 2022, arXiv 2106.09685); 0 = none
  lora: int = 0
  lora_targets: tuple[str, ...] = ('query', 'value')  # of query, key, value, out, up, down
  lora_alpha: float = 0.0  # the update is multiplied by alpha ÷ rank; 0 = by 1
  dropout: float = 0.0
  # stochastic depth of the last block; it grows linearly from 0 at the first
  drop_path: float = 0.0
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
    if isinstance(self.patch, int):
      return (self.patch,) * len(self.size)
    return tuple(self.patch)

  @property
  def grid(self) -> tuple[int, ...]:
    """Return how many patches there are along each axis; a MedtlError where they do not fit."""
    patches = self.patches
    halved = len(self.early)
    if any(patch % 2**halved for patch in patches):
      raise MedtlError(
        f'{halved} early convolutions halve a patch each time, which {patches} does not allow'
      )
    pairs = list(zip(self.size, patches, strict=False))
    if len(patches) != len(self.size) or any(side % patch for side, patch in pairs):
      raise MedtlError(
        f'pictures of size {self.size} do not divide into patches of {patches}; '
        "resize or pad them: config.data.ops='resize(224, 224)' for instance"
      )
    return tuple(side // patch for side, patch in pairs)

  @property
  def update(self) -> Update:
    """Return the low-rank update of the blocks' layers; a MedtlError where there is none such."""
    unknown = set(self.lora_targets) - set(LAYERS)
    if unknown or self.lora < 0:
      raise MedtlError(
        f'lora={self.lora}, lora_targets={self.lora_targets}; expected a rank of 0 or more, '
        f'and targets among: {", ".join(LAYERS)}'
      )
    alpha = self.lora_alpha or self.lora
    return Update(self.lora, tuple(self.lora_targets), alpha / max(1, self.lora))

  def child(self, index: int, value: Any, train: bool) -> Any:
    if index == 0:
      return self._stem()(value, train)
    value = self._block(index)(value, train)
    if index == self.depth:
      value = LayerNorm(self.epsilon, self.dtype, name='norm')(value)
    return value

  def _stem(self) -> Stem:
    return Stem(
      size=tuple(self.size),
      patches=self.patches,
      grid=self.grid,
      width=self.width,
      early=tuple(self.early),
      registers=self.registers,
      class_token=self.class_token,
      pre_norm=self.pre_norm,
      epsilon=self.epsilon,
      dropout=self.dropout,
      dtype=self.dtype,
      name='stem',
    )

  def _block(self, index: int) -> Block:
    last = max(1, self.depth - 1)
    return Block(
      heads=self.heads,
      ratio=self.ratio,
      layer_scale=self.layer_scale,
      activation=self.activation,
      epsilon=self.epsilon,
      dropout=self.dropout,
      drop_path=self.drop_path * (index - 1) / last,
      update=self.update,
      dtype=self.dtype,
      name=child_name(index),
    )

  def maps(self, value: Any) -> Any:
    first = self.class_token + self.registers
    patches = value[:, first:]
    return patches.reshape(value.shape[0], *self.grid, self.width)

  def token(self, value: Any) -> Any:
    return value[:, 0] if self.class_token else None


def _preset(docstring: str, **defaults: Any) -> Callable[..., ViT]:
  """Return a factory of ViTs: it takes any field of ViT by name, with these defaults."""
  of_flax = ('parent', 'name')
  fields = [field for field in dataclasses.fields(ViT) if field.name not in of_flax]
  for field in fields:
    defaults.setdefault(field.name, field.default)

  def factory(**keys: Any) -> ViT:
    values = defaults | keys
    values['size'] = tuple(values['size'])
    return ViT(**values)

  parameters = []
  for field in fields:
    parameter = inspect.Parameter(
      field.name,
      inspect.Parameter.KEYWORD_ONLY,
      default=defaults[field.name],
      annotation=field.type,
    )
    parameters.append(parameter)
  # a config's keys are checked against the signature, so that a misspelt one is found
  factory.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
  factory.__doc__ = docstring
  return factory


_TINY = dict(width=192, depth=12, heads=3)
_SMALL = dict(width=384, depth=12, heads=6)
_BASE = dict(width=768, depth=12, heads=12)
_LARGE = dict(width=1024, depth=24, heads=16)
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
