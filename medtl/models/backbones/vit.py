"""Vision transformers: AugReg, DeiT, CLIP, SigLIP, DINO … are one architecture with switches.

A stage is one block; where attention pools the tokens at the end, that is one more stage.
"""

import functools
import math
from typing import Any

import jax.numpy as jnp

from medtl.core.types import MedtlError
from medtl.models import Backbone, child_name
from medtl.models.layers.layer_norm import LayerNorm
from medtl.models.layers.transformer import (
  LAYERS,
  POSITIONS,
  AttentionPool,
  Block,
  Stem,
  Update,
  hidden_units,
)
from medtl.models.presets import preset
from medtl.models.pretrained.vit import ADAPT, RENAMES, WEIGHTS  # noqa: F401

FRESH = ('.*/lora_[ab]',)  # no checkpoint has them
POOLS = ('', 'attention', 'mean')


class ViT(Backbone):
  """Pictures [b, *size, c] → tokens [b, t, width].

  Tokens are the class token, the registers, then the patches, row by row. `size` fixes the grid of
  position embeddings, in one, two or three dimensions. With a pool the last stage puts the token
  that it makes of all of them in front.

  Sources: Dosovitskiy et al. 2021 (arXiv 2010.11929); LayerScale from Touvron et al. 2021
  (2103.17239); registers from Darcet et al. 2024 (2309.16588); early convolutions from Xiao et al.
  2021 (2106.14881), with which a small ViT learns from hundreds of pictures, not millions. DINOv3
  (2508.10104) also jitters the coordinates of rotary positions in training, which is left out here.
  """

  size: tuple[int, ...] = (224, 224)
  patch: int | tuple[int, ...] = 16
  width: int = 768
  depth: int = 12
  heads: int = 12
  # channels of 3×3 convolutions at stride 2 before the patches are cut, which are smaller for it
  early: tuple[int, ...] = ()
  ratio: float = 4.0  # hidden units of an MLP ÷ width
  gated: bool = False  # SwiGLU in place of the MLP, with two thirds of the hidden units
  registers: int = 0
  class_token: bool = True
  # which tokens have learned positions: token+patches, patches, all (with registers); or rotary
  positions: str = 'token+patches'
  key_bias: bool = True
  # one more stage: SigLIP's pooling by 'attention', or a norm of the 'mean' of the patches instead
  # of one of each token, as in fine-tuned masked autoencoders
  pool: str = ''
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
    return self.depth + bool(self.pool)

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
    if index <= self.depth:
      value = self._block(index)(value, train)
    if index < self.stages:
      return value
    if self.pool not in POOLS:
      raise MedtlError(f"pool={self.pool!r}; expected 'attention' or 'mean', or '' for none")
    if self.pool != 'mean':
      value = LayerNorm(self.epsilon, self.dtype, name='norm')(value)
    if not self.pool:
      return value
    token = self._pooled(value, train)
    return jnp.concatenate([token[:, None], value], axis=1)

  def _stem(self) -> Stem:
    if self.positions not in POSITIONS:
      expected = ', '.join(POSITIONS)
      raise MedtlError(f'positions={self.positions!r}; expected one of: {expected}')
    return Stem(
      size=tuple(self.size),
      patches=self.patches,
      grid=self.grid,
      width=self.width,
      early=tuple(self.early),
      registers=self.registers,
      class_token=self.class_token,
      positions=self.positions,
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
      hidden=hidden_units(self.width, self.ratio, self.gated),
      gated=self.gated,
      layer_scale=self.layer_scale,
      activation=self.activation,
      key_bias=self.key_bias,
      turned=self.grid if self.positions == 'rotary' else (),
      epsilon=self.epsilon,
      dropout=self.dropout,
      drop_path=self.drop_path * (index - 1) / last,
      update=self.update,
      dtype=self.dtype,
      name=child_name(index),
    )

  def _pooled(self, value: Any, train: bool) -> Any:
    """Return the token [b, width] that the last stage makes of all tokens."""
    name = child_name(self.stages)
    if self.pool == 'mean':
      mean = self.maps(value).mean(range(1, 1 + len(self.grid)))
      return LayerNorm(self.epsilon, self.dtype, name=name)(mean)
    pool = AttentionPool(
      heads=self.heads,
      hidden=hidden_units(self.width, self.ratio, gated=False),
      activation=self.activation,
      epsilon=self.epsilon,
      update=self.update,
      dtype=self.dtype,
      name=name,
    )
    return pool(value, train)

  def maps(self, value: Any) -> Any:
    first = value.shape[1] - math.prod(self.grid)
    patches = value[:, first:]
    return patches.reshape(value.shape[0], *self.grid, self.width)

  def token(self, value: Any) -> Any:
    """Return the pooled token, before the pool and without one the class token."""
    before_pool = self.class_token + self.registers + math.prod(self.grid)
    is_pooled = value.shape[1] > before_pool
    return value[:, 0] if self.class_token or is_pooled else None


_preset = functools.partial(preset, ViT)
_TINY = dict(width=192, depth=12, heads=3)
_SMALL = dict(width=384, depth=12, heads=6)
_BASE = dict(width=768, depth=12, heads=12)
_LARGE = dict(width=1024, depth=24, heads=16)
_HUGE = dict(width=1280, depth=32)
_GIANT = dict(width=1536, heads=24)
_SO400M = dict(width=1152, depth=27, heads=16, ratio=4304 / 1152)
_CLIP = dict(pre_norm=True, activation='quick_gelu', epsilon=1e-5)
_SIGLIP = dict(class_token=False, positions='patches', activation='gelu_tanh', pool='attention')
_DINOV2 = dict(patch=14, layer_scale=True)
_DINOV3 = dict(
  registers=4, positions='rotary', key_bias=False, layer_scale=True, epsilon=1e-5, ratio=4.0
)
# Meta gives the gated ones a ratio of 6, of which two thirds remain
_DINOV3_GATED = dict(_DINOV3, gated=True, ratio=6.0)

vit_ti16 = _preset('ViT-Ti/16: AugReg, DeiT-tiny.', **_TINY)
vit_s16 = _preset('ViT-S/16: AugReg, DeiT-small, DINO.', **_SMALL)
vit_b16 = _preset('ViT-B/16: AugReg, DeiT-base, DINO, MAE, the image tower of BiomedCLIP.', **_BASE)
vit_b32 = _preset('ViT-B/32: AugReg.', **_BASE, patch=32)
vit_l16 = _preset('ViT-L/16: AugReg, MAE, RETFound.', **_LARGE)
clip_vit_b16 = _preset("OpenAI's CLIP ViT-B/16, without its projection.", **_BASE, **_CLIP)
clip_vit_b32 = _preset(
  "OpenAI's CLIP ViT-B/32, without its projection.", **_BASE, **_CLIP, patch=32
)
clip_vit_l14 = _preset(
  "OpenAI's CLIP ViT-L/14, without its projection.", **_LARGE, **_CLIP, patch=14
)
siglip_vit_b16 = _preset("SigLIP's and SigLIP 2's ViT-B/16.", **_BASE, **_SIGLIP)
siglip_vit_b32 = _preset("SigLIP 2's ViT-B/32.", **_BASE, **_SIGLIP, patch=32)
siglip_vit_l16 = _preset("SigLIP's and SigLIP 2's ViT-L/16.", **_LARGE, **_SIGLIP)
siglip_so400m14 = _preset(
  "SigLIP's and SigLIP 2's So400m/14 (Alabdulmohsin et al. 2023, arXiv 2305.13035), MedSigLIP.",
  **_SO400M,
  **_SIGLIP,
  patch=14,
)
siglip_so400m16 = _preset("SigLIP 2's So400m/16.", **_SO400M, **_SIGLIP)
dinov2_vit_s14 = _preset(
  'DINOv2 ViT-S/14; registers=4 for the variant that has them.', **_SMALL, **_DINOV2
)
dinov2_vit_b14 = _preset(
  'DINOv2 ViT-B/14, RAD-DINO; registers=4 for the variant that has them.', **_BASE, **_DINOV2
)
dinov2_vit_l14 = _preset(
  'DINOv2 ViT-L/14, RETFound; registers=4 for the variant that has them.', **_LARGE, **_DINOV2
)
dinov2_vit_g14 = _preset(
  'DINOv2 ViT-g/14; registers=4 for the variant that has them.',
  **_GIANT,
  **_DINOV2,
  depth=40,
  gated=True,
)
dinov3_vit_s16 = _preset('DINOv3 ViT-S/16.', **_SMALL, **_DINOV3)
dinov3_vit_s16plus = _preset('DINOv3 ViT-S+/16.', **_SMALL, **_DINOV3_GATED)
dinov3_vit_b16 = _preset('DINOv3 ViT-B/16.', **_BASE, **_DINOV3)
dinov3_vit_l16 = _preset('DINOv3 ViT-L/16.', **_LARGE, **_DINOV3)
dinov3_vit_h16plus = _preset('DINOv3 ViT-H+/16.', **_HUGE, **_DINOV3_GATED, heads=20)
uni = _preset('UNI: ViT-L/16 with LayerScale.', **_LARGE, layer_scale=True)
uni2_h = _preset(
  'UNI2-h: a gated ViT/14 of 24 blocks with 8 registers.',
  **_GIANT,
  **_DINOV2,
  depth=24,
  gated=True,
  registers=8,
  positions='patches',
)
virchow2 = _preset(
  'Virchow2: ViT-H/14 with 4 registers.',
  **_HUGE,
  **_DINOV2,
  heads=16,
  gated=True,
  registers=4,
  positions='all',
)
gigapath_tile = _preset(
  "Prov-GigaPath's tile encoder: a gated ViT-g/16.",
  **_GIANT,
  depth=40,
  layer_scale=True,
  gated=True,
)
h_optimus_0 = _preset(
  'H-optimus-0: ViT-g/14 with 4 registers.',
  **_GIANT,
  **_DINOV2,
  depth=40,
  gated=True,
  registers=4,
  positions='patches',
)
