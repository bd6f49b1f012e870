"""Vision transformers: AugReg, DeiT, CLIP, DINO and DINOv2 are one architecture with switches. A stage is one block."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange

from medtl.models import Backbone, child_name
from medtl.models.layers import Conv
from medtl.models.layers import norm as batch_norm
from medtl.models.vit_checkpoints import ADAPT, RENAMES, WEIGHTS  # noqa: F401
from medtl.types import MedtlError

ACTIVATIONS: dict[str, Callable] = {
  'gelu': lambda x: nn.gelu(x, approximate=False),
  'quick_gelu': lambda x: x * nn.sigmoid(1.702 * x),                     # OpenAI's CLIP
}


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
  early: tuple[int, ...] = ()            # channels of 3×3 convolutions at stride 2 that cut the first part of a patch
  ratio: int = 4                         # hidden units of an MLP ÷ width
  registers: int = 0
  class_token: bool = True
  layer_scale: bool = False
  pre_norm: bool = False                 # CLIP: a norm before the first block, and no bias in the patch embedding
  activation: str = 'gelu'
  epsilon: float = 1e-6                  # of the layer norms
  dropout: float = 0.0
  drop_path: float = 0.0                 # stochastic depth of the last block; it grows linearly from 0 at the first
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
      raise MedtlError(f'{len(self.early)} early convolutions halve a patch each time, which {self.patches} does not allow')
    if len(self.patches) != len(self.size) or any(side % patch for side, patch in zip(self.size, self.patches, strict=True)):
      raise MedtlError(f'pictures of size {self.size} do not divide into patches of {self.patches}; '
                       "resize or pad them: config.data.ops='resize(224, 224)' for instance")
    return tuple(side // patch for side, patch in zip(self.size, self.patches, strict=True))

  def child(self, index: int, value: Any, train: bool) -> Any:
    if index == 0:
      return Stem(tuple(self.size), self.patches, self.grid, self.width, tuple(self.early), self.registers, self.class_token, self.pre_norm,
                  self.epsilon, self.dropout, self.dtype, name='stem')(value, train)
    value = Block(self.heads, self.ratio, self.layer_scale, self.activation, self.epsilon, self.dropout,
                  self.drop_path * (index - 1) / max(1, self.depth - 1), self.dtype, name=child_name(index))(value, train)
    return norm(self.epsilon, self.dtype, 'norm')(value) if index == self.depth else value

  def maps(self, value: Any) -> Any:
    return value[:, self.class_token + self.registers:].reshape(value.shape[0], *self.grid, self.width)

  def token(self, value: Any) -> Any:
    return value[:, 0] if self.class_token else None


class Stem(nn.Module):
  """Patches, class token, position embeddings, registers (which have no position) and CLIP's norm."""
  size: tuple[int, ...]
  patches: tuple[int, ...]
  grid: tuple[int, ...]
  width: int
  early: tuple[int, ...]
  registers: int
  class_token: bool
  pre_norm: bool
  epsilon: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    if x.shape[1:-1] != self.size:
      raise MedtlError(f'this ViT has position embeddings for pictures of size {self.size}, found {x.shape[1:-1]}; '
                       'resize the pictures or set config.model.size')
    for number, channels in enumerate(self.early, 1):
      x = Conv(channels, (3,) * len(self.size), 2, dtype=self.dtype, name=f'conv{number}')(x)
      x = nn.relu(batch_norm(x, train, f'conv_norm{number}', dtype=self.dtype))
    place = nn.initializers.normal(0.02)
    left = tuple(patch // 2 ** len(self.early) for patch in self.patches)
    x = PatchEmbedding(left, self.width, not self.pre_norm, self.dtype, name='embedding')(x)
    x = x + self.param('positions', place, (*self.grid, self.width)).astype(self.dtype)
    x = x.reshape(x.shape[0], -1, self.width)
    before = []
    if self.class_token:
      token = self.param('class_token', nn.initializers.zeros, (self.width,))
      before += [(token + self.param('class_position', place, (self.width,)))[None]]
    if self.registers:
      before += [self.param('registers', place, (self.registers, self.width))]
    before = [jnp.broadcast_to(tokens.astype(self.dtype), (x.shape[0], *tokens.shape)) for tokens in before]
    x = nn.Dropout(self.dropout)(jnp.concatenate([*before, x], axis=1), deterministic=not train)
    return norm(self.epsilon, self.dtype, 'norm')(x) if self.pre_norm else x


class PatchEmbedding(nn.Module):
  """A convolution whose stride is its kernel, written as a matrix product: [b, *s, c] → [b, *grid, width]."""
  patches: tuple[int, ...]
  width: int
  bias: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    kernel = self.param('kernel', nn.initializers.lecun_normal(), (*self.patches, x.shape[-1], self.width))
    axes = range(len(self.patches))
    cut, grid, inside = (' '.join(word.format(i=i) for i in axes) for word in ('(g{i} p{i})', 'g{i}', 'p{i}'))
    x = rearrange(x.astype(self.dtype), f'b {cut} c -> b {grid} ({inside} c)', **{f'p{i}': self.patches[i] for i in axes})
    x = x @ kernel.reshape(-1, self.width).astype(self.dtype)
    return x + self.param('bias', nn.initializers.zeros, (self.width,)).astype(self.dtype) if self.bias else x


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)); each branch scaled by LayerScale and sometimes dropped for an example."""
  heads: int
  ratio: int
  layer_scale: bool
  activation: str
  epsilon: float
  dropout: float
  drop_path: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    branches = (Attention(self.heads, self.dropout, self.dtype, name='attention'),
                Mlp(self.ratio, self.activation, self.dropout, self.dtype, name='mlp'))
    for index, branch in enumerate(branches, 1):
      y = branch(norm(self.epsilon, self.dtype, f'norm{index}')(x), train)
      if self.layer_scale:
        y = y * self.param(f'scale{index}', nn.initializers.constant(1e-5), (x.shape[-1],)).astype(y.dtype)
      x = x + nn.Dropout(self.drop_path, broadcast_dims=(1, 2))(y, deterministic=not train)
    return x


class Attention(nn.Module):
  """Softmax attention between all tokens, several heads side by side; the softmax in float32 at least."""
  heads: int
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    width = x.shape[-1]
    # Heads before tokens: XLA's CPU backend then takes 8 ms a block instead of 20 (ViT-S, batch 16; the gradient 33, not 46).
    query, key, value = (rearrange(dense(width, self.dtype, name)(x), 'b t (h d) -> b h t d', h=self.heads)
                         for name in ('query', 'key', 'value'))
    logits = jnp.einsum('bhqd,bhkd->bhqk', query * (width // self.heads) ** -0.5, key,
                        preferred_element_type=jnp.promote_types(self.dtype, jnp.float32))
    x = rearrange(nn.softmax(logits).astype(self.dtype) @ value, 'b h t d -> b t (h d)')
    return nn.Dropout(self.dropout)(dense(width, self.dtype, 'out')(x), deterministic=not train)


class Mlp(nn.Module):
  """Two layers on each token."""
  ratio: int
  activation: str
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    width = x.shape[-1]
    x = ACTIVATIONS[self.activation](dense(self.ratio * width, self.dtype, 'up')(x))
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return nn.Dropout(self.dropout)(dense(width, self.dtype, 'down')(x), deterministic=not train)


def dense(width: int, dtype: Any, name: str) -> nn.Dense:
  """Return a layer on the last axis."""
  return nn.Dense(width, dtype=dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)


def norm(epsilon: float, dtype: Any, name: str) -> nn.LayerNorm:
  """Return a layer norm; the two-pass variance, since tokens of CLIP and DINO lie far from zero."""
  return nn.LayerNorm(epsilon, dtype=dtype, use_fast_variance=False, name=name)


def _preset(words: str, **fixed: Any) -> Callable[..., ViT]:
  """Return a factory of ViTs: it takes any field of ViT by name, with these defaults."""
  fields = [field for field in dataclasses.fields(ViT) if field.name not in ('parent', 'name')]
  known = {field.name: fixed.get(field.name, field.default) for field in fields}

  def factory(**keys: Any) -> ViT:
    keys = known | keys
    return ViT(**keys | {'size': tuple(keys['size'])})

  parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in known.items()]
  factory.__signature__ = inspect.Signature(parameters)      # type: ignore[attr-defined]   # so that a misspelt key is found
  factory.__doc__ = words
  return factory


_TINY, _SMALL, _BASE, _LARGE = (dict(width=width, depth=depth, heads=heads) for width, depth, heads in
                                ((192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16)))
_CLIP = dict(pre_norm=True, activation='quick_gelu', epsilon=1e-5)
_DINOV2 = dict(patch=14, layer_scale=True)

vit_ti16 = _preset('ViT-Ti/16: AugReg, DeiT-tiny.', **_TINY)
vit_s16 = _preset('ViT-S/16: AugReg, DeiT-small, DINO.', **_SMALL)
vit_b16 = _preset('ViT-B/16: AugReg, DeiT-base, DINO.', **_BASE)
vit_b32 = _preset('ViT-B/32: AugReg.', **_BASE, patch=32)
vit_l16 = _preset('ViT-L/16: AugReg.', **_LARGE)
clip_vit_b16 = _preset("OpenAI's CLIP ViT-B/16, without its projection.", **_BASE, **_CLIP)
clip_vit_b32 = _preset("OpenAI's CLIP ViT-B/32, without its projection.", **_BASE, **_CLIP, patch=32)
clip_vit_l14 = _preset("OpenAI's CLIP ViT-L/14, without its projection.", **_LARGE, **_CLIP, patch=14)
dinov2_vit_s14 = _preset('DINOv2 ViT-S/14; registers=4 for the variant that has them.', **_SMALL, **_DINOV2)
dinov2_vit_b14 = _preset('DINOv2 ViT-B/14; registers=4 for the variant that has them.', **_BASE, **_DINOV2)
dinov2_vit_l14 = _preset('DINOv2 ViT-L/14; registers=4 for the variant that has them.', **_LARGE, **_DINOV2)
