"""Classifiers on a backbone: pooled features become logits."""

import typing
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from medtl.core import expressions
from medtl.core.types import MedtlError
from medtl.models import Backbone, Head
from medtl.models.layers.layer_norm import LayerNorm
from medtl.models.layers.precision import at_least_float32

POOLS = ('auto', 'mean', 'max', 'token', 'token+mean')
Norm = Literal['', 'batch', 'layer']
NORMS = typing.get_args(Norm)
SMALL = nn.initializers.normal(0.01)  # a classifier starts near zero


class Linear(Head):
  """Pooling, a norm, dropout and one dense layer, all in float32 at least."""

  classes: int
  pool: str = 'auto'
  dropout: float = 0.0
  norm: str = ''

  @property
  def reads(self) -> str:
    return f'pool={self.pool}'

  def reduce(self, value: Any, backbone: Backbone) -> Any:
    return pooled(value, backbone, self.pool)

  @nn.compact
  def __call__(self, x: Any, *, train: bool) -> Any:
    if self.norm == 'batch':
      norm = nn.BatchNorm(momentum=0.9, use_scale=False, use_bias=False, name='norm')
      x = norm(x, use_running_average=not train)
    elif self.norm == 'layer':
      x = LayerNorm(epsilon=1e-6, dtype=x.dtype, name='norm')(x)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return nn.Dense(self.classes, kernel_init=SMALL, name='dense')(x)


def linear(classes: int, pool: str = 'auto', dropout: float = 0.0, norm: Norm = '') -> Linear:
  """Return a linear classifier of pooled features.

  `pool` is 'auto' (the class token, else the mean) | 'mean' | 'max' | 'token' | 'token+mean'.

  `norm` is what comes between pooling and dense layer, '' for nothing. 'batch' standardises each
  feature over the pictures by a BatchNorm without parameters (He et al. 2022, MAE, appendix A.1):
  features of pretrained transformers share a large constant part, beside which the differences
  between pictures are small. 'layer' is a LayerNorm over the features of each picture, as ConvNeXt
  has it (Liu et al. 2022, arXiv 2201.03545); its scale and bias are `head/norm` of a checkpoint.
  """
  if pool not in POOLS:
    raise MedtlError(f'unknown pooling {pool!r}; {expressions.did_you_mean(pool, POOLS)}')
  if norm not in NORMS:
    raise MedtlError(f"norm is {norm!r}; expected '', 'batch' (which was True) or 'layer'")
  return Linear(classes, pool, dropout, norm)


class Attentive(Head):
  """A learned query looks at all places of the maps, head by head; then as Linear."""

  classes: int
  heads: int = 4
  dropout: float = 0.0

  @property
  def reads(self) -> str:
    return 'maps'

  def reduce(self, value: Any, backbone: Backbone) -> Any:
    return backbone.maps(value)

  @nn.compact
  def __call__(self, maps: Any, *, train: bool) -> Any:
    batch = maps.shape[0]
    channels = maps.shape[-1]
    x = at_least_float32(maps.reshape(batch, -1, channels))
    if channels % self.heads:
      raise MedtlError(f'attentive: {self.heads} heads do not divide {channels} channels')
    x = nn.LayerNorm(use_fast_variance=False, name='norm')(x)
    shape = (self.heads, channels // self.heads)
    query = self.param('query', nn.initializers.normal(0.02), shape)
    key = nn.Dense(channels, name='key')(x).reshape(*x.shape[:2], *shape)
    value = nn.Dense(channels, name='value')(x).reshape(*x.shape[:2], *shape)
    queries = jnp.broadcast_to(query, (batch, 1, *shape))
    attended = nn.dot_product_attention(queries, key, value).reshape(batch, -1)
    attended = nn.Dropout(self.dropout)(attended, deterministic=not train)
    return nn.Dense(self.classes, kernel_init=SMALL, name='dense')(attended)


def attentive(classes: int, heads: int = 4, dropout: float = 0.0) -> Attentive:
  """Return a classifier that learns where to look: cross-attention from one query.

  Chen et al. 2022, arXiv 2202.03026.
  """
  return Attentive(classes, heads, dropout)


def pooled(value: Any, backbone: Any, pool: str) -> Any:
  """Return one vector [b, c] for each example, in float32 at least.

  'token+mean' joins both, [b, 2 c]. A token that the backbone does not have is a MedtlError.
  """
  token = backbone.token(value)
  maps = backbone.maps(value)
  if pool == 'auto':
    pool = 'mean' if token is None else 'token'
  if token is None and 'token' in pool:
    raise MedtlError(
      f"pool={pool!r}, but this backbone has no class token; expected 'mean' or 'max'"
    )
  spatial = tuple(range(1, maps.ndim - 1))
  parts = {
    'token': lambda: at_least_float32(token),
    'mean': lambda: at_least_float32(maps).mean(spatial),
    'max': lambda: at_least_float32(maps).max(spatial),
  }
  return jnp.concatenate([parts[part]() for part in pool.split('+')], axis=-1)
