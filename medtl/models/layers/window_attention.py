"""Attention between the patches of a window, with positions relative to each other.

As in SAM's image encoder (Kirillov et al. 2023, arXiv 2304.02643, appendix A), after ViTDet (Li et
al. 2022, 2203.16527) and MViTv2 (Li et al. 2022, 2112.01526).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from medtl.models.layers.layer_norm import LayerNorm
from medtl.models.layers.transformer import (
  Mlp,
  Update,
  dense,
  joined_heads,
  split_heads,
  weigh,
)


class WindowBlock(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)), of maps x [b, h, w, c].

  The attention is between the patches of each window of `window` × `window`, or between all of them
  where that is 0. Stochastic depth drops a branch for some of the examples.
  """

  heads: int
  hidden: int
  window: int
  dropout: float
  drop_path: float
  update: Update
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    attention = RelativeAttention(
      self.heads, self.dropout, self.update, self.dtype, name='attention'
    )
    mlp = Mlp(
      hidden=self.hidden,
      gated=False,
      activation='gelu',
      dropout=self.dropout,
      update=self.update,
      dtype=self.dtype,
      name='mlp',
    )
    y = LayerNorm(1e-6, self.dtype, name='norm1')(x)
    if self.window:
      y = attention(windows(y, self.window), train)
      y = joined_windows(y, x.shape[1], x.shape[2])
    else:
      y = attention(y, train)
    x = x + self._dropped(y, train)
    y = mlp(LayerNorm(1e-6, self.dtype, name='norm2')(x), train)
    return x + self._dropped(y, train)

  def _dropped(self, branch: Any, train: bool) -> Any:
    drop_path = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3))
    return drop_path(branch, deterministic=not train)


def windows(x: Any, side: int) -> Any:
  """Return maps [b, h, w, c] as windows [n, side, side, c]; zeros fill those at the far edges."""
  below, beside = (-length % side for length in x.shape[1:3])
  x = jnp.pad(x, ((0, 0), (0, below), (0, beside), (0, 0)))
  return rearrange(x, 'b (i p) (j q) c -> (b i j) p q c', p=side, q=side)


def joined_windows(x: Any, height: int, width: int) -> Any:
  """Return the maps [b, height, width, c] that `windows` made [n, side, side, c] of."""
  side = x.shape[1]
  rows = -(-height // side)
  columns = -(-width // side)
  x = rearrange(x, '(b i j) p q c -> b (i p) (j q) c', i=rows, j=columns)
  return x[:, :height, :width]


class RelativeAttention(nn.Module):
  """Softmax attention between all patches of [n, h, w, c], which know how far apart they lie.

  A logit is query · (key / √d + R[row − row'] + C[column − column']), R and C learned (MViTv2,
  arXiv 2112.01526, equation 4).
  """

  heads: int
  dropout: float
  update: Update
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    _, height, width, channels = x.shape
    depth = channels // self.heads
    tokens = x.reshape(x.shape[0], height * width, channels)

    def project(name: str) -> Any:
      y = dense(channels, self.update, self.dtype, name)(tokens)
      return split_heads(y, self.heads)

    def table(name: str, side: int) -> Any:
      learned = self.param(name, nn.initializers.zeros, (2 * side - 1, depth))
      return learned[differences(side)].astype(self.dtype)

    query = project('query')
    key = project('key')
    value = project('value')
    y = attend_by_place(query, key, value, table('rows', height), table('columns', width))
    y = dense(channels, self.update, self.dtype, 'out')(joined_heads(y))
    y = nn.Dropout(self.dropout)(y, deterministic=not train)
    return y.reshape(x.shape)


def differences(side: int) -> np.ndarray:
  """Return [side, side]: the row of a table that says how far query q lies behind key k."""
  places = np.arange(side)
  return places[:, None] - places[None] + side - 1


@jax.jit
def attend_by_place(query: Any, key: Any, value: Any, rows: Any, columns: Any) -> Any:
  """Return the attention of [n, heads, h · w, d]; rows [h, h, d], columns [w, w, d] of differences.

  The terms of place are more components of queries, and keys have a one where they lie: then they
  are part of one product, and nothing of the size of the logits is added to them.
  """
  height = len(rows)
  width = len(columns)
  grid = rearrange(query, 'n h (y x) d -> n h y x d', y=height)
  by_row = jnp.einsum('nhyxd,ykd->nhyxk', grid, rows)
  by_column = jnp.einsum('nhyxd,xkd->nhyxk', grid, columns)
  terms = jnp.concatenate([by_row, by_column], axis=-1)
  terms = terms.reshape(*query.shape[:-1], height + width)
  places = jnp.asarray(places_of(height, width), key.dtype)
  places = jnp.broadcast_to(places, (*key.shape[:-1], height + width))
  scaled = query * query.shape[-1] ** -0.5
  queries = jnp.concatenate([scaled, terms.astype(query.dtype)], axis=-1)
  return weigh(queries, jnp.concatenate([key, places], axis=-1), value)


def places_of(height: int, width: int) -> np.ndarray:
  """Return [h · w, h + w]: a one for the row and a one for the column of each patch."""
  rows = np.repeat(np.eye(height), width, axis=0)
  columns = np.tile(np.eye(width), (height, 1))
  return np.concatenate([rows, columns], axis=1)
