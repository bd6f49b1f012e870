"""What vision transformers are made of: patches, blocks, attention, and layers with low-rank updates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from medtl.core.types import MedtlError
from medtl.models.layers.activation import gelu, relu
from medtl.models.layers.layer_norm import LayerNorm
from medtl.models.layers.matmul import biased, product
from medtl.models.layers.spatial import Conv
from medtl.models.layers.spatial import norm as batch_norm

LAYERS = ('query', 'key', 'value', 'out', 'up', 'down')
ACTIVATIONS: dict[str, Callable] = {
  'gelu': gelu,
  'quick_gelu': jax.jit(lambda x: x * nn.sigmoid(1.702 * x)),  # OpenAI's CLIP
}


class Update(NamedTuple):
  """Which layers have a low-rank update, of what rank, and what it is multiplied by."""

  rank: int
  targets: tuple[str, ...]
  scale: float


class Dense(nn.Module):
  """A layer x W + b with a low-rank update: + scale · (x A) B. A is drawn, B begins at zero (Hu et al. 2022, section 4.1)."""

  features: int
  dtype: Any
  rank: int = 0
  scale: float = 1.0

  @nn.compact
  def __call__(self, x: Any) -> Any:
    kernel = self.param('kernel', nn.initializers.xavier_uniform(), (x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    x = x.astype(self.dtype)
    y = biased(product('whole', x, kernel.astype(self.dtype)), bias.astype(self.dtype))
    if not self.rank:
      return y
    a = self.param('lora_a', nn.initializers.he_uniform(), (x.shape[-1], self.rank))
    b = self.param('lora_b', nn.initializers.zeros, (self.rank, self.features))
    return y + x @ a.astype(self.dtype) @ b.astype(self.dtype) * jnp.asarray(self.scale, self.dtype)


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
      raise MedtlError(
        f'this ViT has position embeddings for pictures of size {self.size}, found {x.shape[1:-1]}; '
        'resize the pictures or set config.model.size'
      )
    for number, channels in enumerate(self.early, 1):
      x = Conv(channels, (3,) * len(self.size), 2, dtype=self.dtype, name=f'conv{number}')(x)
      x = relu(batch_norm(x, train, f'conv_norm{number}', dtype=self.dtype))
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
    before = [
      jnp.broadcast_to(tokens.astype(self.dtype), (x.shape[0], *tokens.shape)) for tokens in before
    ]
    x = nn.Dropout(self.dropout)(jnp.concatenate([*before, x], axis=1), deterministic=not train)
    return LayerNorm(self.epsilon, self.dtype, name='norm')(x) if self.pre_norm else x


class PatchEmbedding(nn.Module):
  """A convolution whose stride is its kernel, written as a matrix product: [b, *s, c] → [b, *grid, width]."""

  patches: tuple[int, ...]
  width: int
  bias: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    kernel = self.param(
      'kernel', nn.initializers.lecun_normal(), (*self.patches, x.shape[-1], self.width)
    )
    axes = range(len(self.patches))
    cut, grid, inside = (
      ' '.join(word.format(i=i) for i in axes) for word in ('(g{i} p{i})', 'g{i}', 'p{i}')
    )
    x = rearrange(
      x.astype(self.dtype),
      f'b {cut} c -> b {grid} ({inside} c)',
      **{f'p{i}': self.patches[i] for i in axes},
    )
    x = product('whole', x, kernel.reshape(-1, self.width).astype(self.dtype))
    return (
      x + self.param('bias', nn.initializers.zeros, (self.width,)).astype(self.dtype)
      if self.bias
      else x
    )


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)); each branch scaled by LayerScale and sometimes dropped for an example."""

  heads: int
  ratio: int
  layer_scale: bool
  activation: str
  epsilon: float
  dropout: float
  drop_path: float
  update: Update
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    branches = (
      Attention(self.heads, self.dropout, self.update, self.dtype, name='attention'),
      Mlp(self.ratio, self.activation, self.dropout, self.update, self.dtype, name='mlp'),
    )
    for index, branch in enumerate(branches, 1):
      y = branch(LayerNorm(self.epsilon, self.dtype, name=f'norm{index}')(x), train)
      if self.layer_scale:
        y = y * self.param(f'scale{index}', nn.initializers.constant(1e-5), (x.shape[-1],)).astype(
          y.dtype
        )
      x = x + nn.Dropout(self.drop_path, broadcast_dims=(1, 2))(y, deterministic=not train)
    return x


class Attention(nn.Module):
  """Softmax attention between all tokens, several heads side by side; the softmax in float32 at least."""

  heads: int
  dropout: float
  update: Update
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    width = x.shape[-1]
    # Heads before tokens: XLA's CPU backend then takes 8 ms a block instead of 20 (ViT-S, batch 16; the gradient 33, not 46).
    query, key, value = (
      rearrange(
        dense(width, self.update, self.dtype, name)(x), 'b t (h d) -> b h t d', h=self.heads
      )
      for name in ('query', 'key', 'value')
    )
    x = rearrange(attend(query, key, value), 'b h t d -> b t (h d)')
    return nn.Dropout(self.dropout)(
      dense(width, self.update, self.dtype, 'out')(x), deterministic=not train
    )


@jax.jit
def attend(query: Any, key: Any, value: Any) -> Any:
  """Return softmax(query keyᵀ / √d) value of [b, h, t, d] in their dtype; traced once for each shape.

  The softmax's division comes after the product with value: d numbers a token instead of t (Dao et al. 2022, arXiv 2205.14135, 3.1).
  """
  wide = jnp.promote_types(query.dtype, jnp.float32)
  logits = jnp.einsum(
    'bhqd,bhkd->bhqk', query * query.shape[-1] ** -0.5, key, preferred_element_type=wide
  )
  weight = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
  summed = jnp.matmul(weight.astype(query.dtype), value, preferred_element_type=wide)
  return (summed / weight.sum(-1, keepdims=True)).astype(query.dtype)


class Mlp(nn.Module):
  """Two layers on each token."""

  ratio: int
  activation: str
  dropout: float
  update: Update
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    width = x.shape[-1]
    x = ACTIVATIONS[self.activation](dense(self.ratio * width, self.update, self.dtype, 'up')(x))
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return nn.Dropout(self.dropout)(
      dense(width, self.update, self.dtype, 'down')(x), deterministic=not train
    )


def dense(width: int, update: Update, dtype: Any, name: str) -> Dense:
  """Return a layer on the last axis."""
  return Dense(width, dtype, update.rank if name in update.targets else 0, update.scale, name=name)
