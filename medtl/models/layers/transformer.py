"""What vision transformers are made of: patches, blocks, attention, low-rank updates of layers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from medtl.core.types import MedtlError
from medtl.models.layers.activation import gelu, gelu_tanh, relu, swiglu
from medtl.models.layers.layer_norm import LayerNorm
from medtl.models.layers.matmul import biased, product
from medtl.models.layers.precision import sum_dtype
from medtl.models.layers.rotary import rotate
from medtl.models.layers.spatial import Conv
from medtl.models.layers.spatial import norm as batch_norm

LAYERS = ('query', 'key', 'value', 'out', 'gate', 'up', 'down')
# who has a position: learned embeddings of these tokens, or turns of queries and keys (`rotary`)
POSITIONS = ('token+patches', 'patches', 'all', 'rotary')


@jax.jit
def quick_gelu(x: Any) -> Any:
  """Return x σ(1.702 x), as OpenAI's CLIP has it."""
  return x * nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
  'gelu': gelu,
  'gelu_tanh': gelu_tanh,
  'quick_gelu': quick_gelu,
}


class Update(NamedTuple):
  """Which layers have a low-rank update, of what rank, and what it is multiplied by."""

  rank: int
  targets: tuple[str, ...]
  scale: float


class Dense(nn.Module):
  """A layer x W + b on the last axis, where `rank` > 0 with a low-rank update: + scale · (x A) B.

  A is drawn, B begins at zero (Hu et al. 2022, arXiv 2106.09685, section 4.1).
  """

  features: int
  dtype: Any
  rank: int = 0
  scale: float = 1.0
  bias: bool = True

  @nn.compact
  def __call__(self, x: Any) -> Any:
    inputs = x.shape[-1]
    kernel = self.param('kernel', nn.initializers.xavier_uniform(), (inputs, self.features))
    x = x.astype(self.dtype)
    y = product('whole', x, kernel.astype(self.dtype))
    if self.bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      y = biased(y, bias.astype(self.dtype))
    if not self.rank:
      return y
    a = self.param('lora_a', nn.initializers.he_uniform(), (inputs, self.rank))
    b = self.param('lora_b', nn.initializers.zeros, (self.rank, self.features))
    update = x @ a.astype(self.dtype) @ b.astype(self.dtype)
    return y + update * jnp.asarray(self.scale, self.dtype)


class Stem(nn.Module):
  """Pictures [b, *size, c] → tokens [b, t, width]: the class token, the registers, the patches.

  `positions` says which of them have position embeddings (see POSITIONS). `pre_norm` is CLIP's norm
  of the tokens. `early` are channels of 3×3 convolutions before the patches are cut.
  """

  size: tuple[int, ...]
  patches: tuple[int, ...]
  grid: tuple[int, ...]
  width: int
  early: tuple[int, ...]
  registers: int
  class_token: bool
  positions: str
  pre_norm: bool
  epsilon: float
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    if x.shape[1:-1] != self.size:
      raise MedtlError(
        f'this ViT is made for pictures of size {self.size}, found {x.shape[1:-1]}; resize the '
        'pictures or set config.model.size'
      )
    for number, channels in enumerate(self.early, 1):
      kernel = (3,) * len(self.size)
      x = Conv(channels, kernel, 2, dtype=self.dtype, name=f'conv{number}')(x)
      x = relu(batch_norm(x, train, f'conv_norm{number}', dtype=self.dtype))
    patches = tuple(patch // 2 ** len(self.early) for patch in self.patches)
    x = PatchEmbedding(patches, self.width, not self.pre_norm, self.dtype, name='embedding')(x)
    if self.positions != 'rotary':
      x = x + self._drawn('positions', *self.grid).astype(self.dtype)
    x = x.reshape(x.shape[0], -1, self.width)
    repeated = []
    for tokens in self._learned():
      shape = (x.shape[0], *tokens.shape)
      repeated.append(jnp.broadcast_to(tokens.astype(self.dtype), shape))
    x = jnp.concatenate([*repeated, x], axis=1)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return LayerNorm(self.epsilon, self.dtype, name='norm')(x) if self.pre_norm else x

  def _learned(self) -> list[Any]:
    """Return the tokens [n, width] that are the same for every picture, with their positions."""
    learned = []
    if self.class_token:
      token = self.param('class_token', nn.initializers.zeros, (self.width,))
      if self.positions in ('token+patches', 'all'):
        token = token + self._drawn('class_position')
      learned.append(token[None])
    if self.registers:
      registers = self._drawn('registers', self.registers)
      if self.positions == 'all':
        registers = registers + self._drawn('register_positions', self.registers)
      learned.append(registers)
    return learned

  def _drawn(self, name: str, *shape: int) -> Any:
    """Return a parameter [*shape, width] that begins as small noise."""
    return self.param(name, nn.initializers.normal(0.02), (*shape, self.width))


class PatchEmbedding(nn.Module):
  """A convolution whose stride is its kernel: [b, *s, c] → [b, *grid, width].

  It is written as a matrix product.
  """

  patches: tuple[int, ...]
  width: int
  bias: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    shape = (*self.patches, x.shape[-1], self.width)
    kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
    axes = range(len(self.patches))
    sides = ' '.join(f'(g{axis} p{axis})' for axis in axes)
    grid = ' '.join(f'g{axis}' for axis in axes)
    patch = ' '.join(f'p{axis}' for axis in axes)
    sizes = {f'p{axis}': size for axis, size in enumerate(self.patches)}
    x = rearrange(x.astype(self.dtype), f'b {sides} c -> b {grid} ({patch} c)', **sizes)
    matrix = kernel.reshape(-1, self.width)
    x = product('whole', x, matrix.astype(self.dtype))
    if not self.bias:
      return x
    bias = self.param('bias', nn.initializers.zeros, (self.width,))
    return x + bias.astype(self.dtype)


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)).

  LayerScale multiplies each branch; stochastic depth drops it for some of the examples.
  """

  heads: int
  hidden: int
  gated: bool
  layer_scale: bool
  activation: str
  key_bias: bool
  turned: tuple[int, ...]  # the grid whose patches' queries and keys are turned; () = none are
  epsilon: float
  dropout: float
  drop_path: float
  update: Update
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    attention = Attention(
      heads=self.heads,
      dropout=self.dropout,
      update=self.update,
      dtype=self.dtype,
      key_bias=self.key_bias,
      turned=self.turned,
      name='attention',
    )
    mlp = Mlp(
      hidden=self.hidden,
      gated=self.gated,
      activation=self.activation,
      dropout=self.dropout,
      update=self.update,
      dtype=self.dtype,
      name='mlp',
    )
    for index, branch in enumerate((attention, mlp), 1):
      norm = LayerNorm(self.epsilon, self.dtype, name=f'norm{index}')
      y = branch(norm(x), train)
      if self.layer_scale:
        small = nn.initializers.constant(1e-5)
        scale = self.param(f'scale{index}', small, (x.shape[-1],))
        y = y * scale.astype(y.dtype)
      drop_path = nn.Dropout(self.drop_path, broadcast_dims=(1, 2))
      x = x + drop_path(y, deterministic=not train)
    return x


class Attention(nn.Module):
  """Softmax attention between all tokens, head by head; the softmax in float32 at least."""

  heads: int
  dropout: float
  update: Update
  dtype: Any
  key_bias: bool = True
  turned: tuple[int, ...] = ()

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    width = x.shape[-1]

    def project(name: str, bias: bool = True) -> Any:
      y = dense(width, self.update, self.dtype, name, bias)(x)
      return split_heads(y, self.heads)

    query = project('query')
    key = project('key', self.key_bias)
    value = project('value')
    if self.turned:
      query = rotate(query, self.turned)
      key = rotate(key, self.turned)
    y = joined_heads(attend(query, key, value))
    y = dense(width, self.update, self.dtype, 'out')(y)
    return nn.Dropout(self.dropout)(y, deterministic=not train)


def split_heads(x: Any, heads: int) -> Any:
  """Return [b, t, h · d] as [b, h, t, d].

  Heads before tokens: XLA's CPU backend then takes 8 ms a block instead of 20, and 33 instead of 46
  for the gradient (ViT-S, batch 16).
  """
  return rearrange(x, 'b t (h d) -> b h t d', h=heads)


def joined_heads(x: Any) -> Any:
  """Return [b, h, t, d] as [b, t, h · d]."""
  return rearrange(x, 'b h t d -> b t (h d)')


@jax.jit
def attend(query: Any, key: Any, value: Any, bias: Any = None) -> Any:
  """Return softmax(query keyᵀ / √d + bias) value of [..., h, t, d]; traced once a shape."""
  return weigh(query * query.shape[-1] ** -0.5, key, value, bias)


def weigh(query: Any, key: Any, value: Any, bias: Any = None) -> Any:
  """Return softmax(query keyᵀ + bias) value of [..., h, t, d] in their dtype.

  `bias` is [..., h, t, t]. The softmax divides after the product with value: d numbers a token
  instead of t (Dao et al. 2022, arXiv 2205.14135, section 3.1).
  """
  dtype = sum_dtype(query)
  logits = jnp.einsum('...qd,...kd->...qk', query, key, preferred_element_type=dtype)
  if bias is not None:
    logits = logits + bias
  highest = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
  weight = jnp.exp(logits - highest)
  summed = jnp.matmul(weight.astype(query.dtype), value, preferred_element_type=dtype)
  mean = summed / weight.sum(-1, keepdims=True)
  return mean.astype(query.dtype)


class Mlp(nn.Module):
  """Two layers on each token, with an activation between them.

  `gated`: SwiGLU, a third layer says how much of each hidden unit passes (Shazeer 2020, arXiv
  2002.05202, equation 6); `activation` then has no say.
  """

  hidden: int
  gated: bool
  activation: str
  dropout: float
  update: Update
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    width = x.shape[-1]
    y = dense(self.hidden, self.update, self.dtype, 'up')(x)
    if self.gated:
      y = swiglu(dense(self.hidden, self.update, self.dtype, 'gate')(x), y)
    else:
      y = ACTIVATIONS[self.activation](y)
    y = nn.Dropout(self.dropout)(y, deterministic=not train)
    y = dense(width, self.update, self.dtype, 'down')(y)
    return nn.Dropout(self.dropout)(y, deterministic=not train)


def hidden_units(width: int, ratio: float, gated: bool) -> int:
  """Return the hidden units of an MLP.

  A gated one has two thirds of them, so as to have as many parameters (Shazeer 2020, arXiv
  2002.05202, section 3), and a multiple of 8, as in DINOv2.
  """
  hidden = round(ratio * width)
  if not gated:
    return hidden
  two_thirds = int(hidden * 2 / 3)
  return (two_thirds + 7) // 8 * 8


class AttentionPool(nn.Module):
  """Tokens [b, t, width] → one [b, width]: a learned probe attends to them, an MLP follows.

  Zhai et al. 2022 (arXiv 2106.04560, section 3.2, MAP), after Lee et al. 2019 (1810.00825).
  """

  heads: int
  hidden: int
  activation: str
  epsilon: float
  update: Update
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    width = x.shape[-1]

    def project(name: str, tokens: Any) -> Any:
      return split_heads(dense(width, self.update, self.dtype, name)(tokens), self.heads)

    probe = self.param('probe', nn.initializers.xavier_uniform(), (1, width))
    query = project('query', probe[None])
    query = jnp.broadcast_to(query, (x.shape[0], *query.shape[1:]))
    y = attend(query, project('key', x), project('value', x))
    y = dense(width, self.update, self.dtype, 'out')(joined_heads(y))
    mlp = Mlp(
      hidden=self.hidden,
      gated=False,
      activation=self.activation,
      dropout=0.0,
      update=self.update,
      dtype=self.dtype,
      name='mlp',
    )
    y = y + mlp(LayerNorm(self.epsilon, self.dtype, name='norm')(y), train)
    return y[:, 0]


def dense(features: int, update: Update, dtype: Any, name: str, bias: bool = True) -> Dense:
  """Return a layer on the last axis, with the low-rank update if the layer is among its targets."""
  rank = update.rank if name in update.targets else 0
  return Dense(features, dtype, rank, update.scale, bias, name=name)
