"""Multilayer perceptrons, for vectors: a table's columns. A stage is one layer."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medtl.core import expressions
from medtl.core.types import MedtlError, Weights
from medtl.models import Backbone, child_name
from medtl.models.layers.spatial import norm as normalise
from medtl.models.pretrained.dialects import Dialect

RENAMES: dict[str, Dialect] = {}  # no publisher's names are known
WEIGHTS: dict[str, Weights] = {}
NORMS = ('batch', 'group')


class Layer(nn.Module):
  """Dense layer, norm, ReLU, dropout: [b, c] → [b, width]."""

  width: int
  norm: str
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    # the norm has a bias of its own
    dense = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name='dense')
    x = normalise(dense(x), train, 'norm', self.norm, dtype=self.dtype)
    return nn.Dropout(self.dropout)(nn.relu(x), deterministic=not train)


class MLP(Backbone):
  """Vectors [b, c] → [b, width]; of maps [b, *s, c] each place by itself.

  The MLP of Gorishniy et al. 2021 (arXiv 2106.11959, section 3.1), with a norm in each layer.
  """

  width: int = 64
  depth: int = 2
  norm: str = 'batch'
  dropout: float = 0.1
  dtype: Any = jnp.float32

  @property
  def stages(self) -> int:
    return self.depth

  @property
  def channels(self) -> int:
    return self.width

  def child(self, index: int, value: Any, train: bool) -> Any:
    layer = Layer(self.width, self.norm, self.dropout, self.dtype, name=child_name(index))
    return layer(value, train)


def mlp(
  width: int = 64,
  depth: int = 2,
  norm: str = 'batch',
  dropout: float = 0.1,
  dtype: Any = jnp.float32,
) -> MLP:
  """Return a perceptron of a stem and `depth` stages, each a layer of `width` units.

  `norm` is 'batch' or 'group'.
  """
  if norm not in NORMS:
    raise MedtlError(f'mlp: unknown norm {norm!r}; {expressions.did_you_mean(norm, NORMS)}')
  return MLP(width, depth, norm, dropout, dtype)
