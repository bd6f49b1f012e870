"""Classifiers on a backbone: pooled features become logits."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medtl.core import expressions
from medtl.core.types import MedtlError
from medtl.models import Backbone, Head

POOLS = ('auto', 'mean', 'max', 'token', 'token+mean')


class Linear(Head):
  """Pooling, a norm without parameters, dropout and one dense layer that starts near zero, all in float32 at least."""

  classes: int
  pool: str = 'auto'
  dropout: float = 0.0
  norm: bool = False

  @property
  def reads(self) -> str:
    return f'pool={self.pool}'

  def reduce(self, value: Any, backbone: Backbone) -> Any:
    return pooled(value, backbone, self.pool)

  @nn.compact
  def __call__(self, x: Any, *, train: bool) -> Any:
    if self.norm:
      x = nn.BatchNorm(momentum=0.9, use_scale=False, use_bias=False, name='norm')(
        x, use_running_average=not train
      )
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01), name='dense')(x)


def linear(classes: int, pool: str = 'auto', dropout: float = 0.0, norm: bool = False) -> Linear:
  """Return a linear classifier of pooled features.

  `pool` is 'auto' (the class token, else the mean) | 'mean' | 'max' | 'token' | 'token+mean'.
  `norm` standardises each feature by a BatchNorm without parameters (He et al. 2022, MAE, appendix A.1): features of pretrained
  transformers share a large constant part, beside which the differences between pictures are small.
  """
  if pool not in POOLS:
    raise MedtlError(f'unknown pooling {pool!r}; {expressions.did_you_mean(pool, POOLS)}')
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
    x = maps.reshape(maps.shape[0], -1, maps.shape[-1]).astype(
      jnp.promote_types(maps.dtype, jnp.float32)
    )
    if x.shape[-1] % self.heads:
      raise MedtlError(f'attentive: {self.heads} heads do not divide {x.shape[-1]} channels')
    x = nn.LayerNorm(use_fast_variance=False, name='norm')(x)
    query = self.param(
      'query', nn.initializers.normal(0.02), (self.heads, x.shape[-1] // self.heads)
    )
    key, value = (
      nn.Dense(x.shape[-1], name=name)(x).reshape(*x.shape[:2], self.heads, -1)
      for name in ('key', 'value')
    )
    queries = jnp.broadcast_to(query, (x.shape[0], 1, *query.shape))
    seen = nn.dot_product_attention(queries, key, value).reshape(x.shape[0], -1)
    seen = nn.Dropout(self.dropout)(seen, deterministic=not train)
    return nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01), name='dense')(seen)


def attentive(classes: int, heads: int = 4, dropout: float = 0.0) -> Attentive:
  """Return a classifier that learns where to look: cross-attention from one query (Chen et al. 2022, arXiv 2202.03026)."""
  return Attentive(classes, heads, dropout)


def pooled(value: Any, backbone: Any, pool: str) -> Any:
  """Return one vector [b, c] for each example, in float32 at least."""
  token, maps = backbone.token(value), backbone.maps(value)
  if pool == 'auto':
    pool = 'mean' if token is None else 'token'
  if token is None and 'token' in pool:
    raise MedtlError(
      f"pool={pool!r}, but this backbone has no class token; expected 'mean' or 'max'"
    )
  wide = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
  axes = tuple(range(1, maps.ndim - 1))
  parts = {
    'token': lambda: wide(token),
    'mean': lambda: wide(maps).mean(axes),
    'max': lambda: wide(maps).max(axes),
  }
  return jnp.concatenate([parts[part]() for part in pool.split('+')], axis=-1)
