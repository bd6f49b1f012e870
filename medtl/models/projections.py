"""Heads of self-supervised tasks: what is compared instead of features, and thrown away later."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medtl.models import Backbone, Head
from medtl.models.heads import pooled


class Projection(Head):
  """Pooled features through layers of one hidden width, the last without an activation."""

  width: int
  hidden: int
  layers: int

  @property
  def reads(self) -> str:
    return 'pool=auto'

  def reduce(self, value: Any, backbone: Backbone) -> Any:
    return pooled(value, backbone, 'auto')

  @nn.compact
  def __call__(self, x: Any, *, train: bool) -> Any:
    for index in range(self.layers - 1):
      x = nn.relu(nn.Dense(self.hidden, name=f'dense{index + 1}')(x))
    return nn.Dense(self.width, name=f'dense{self.layers}')(x).astype(jnp.float32)


def mlp(classes: int, width: int = 128, hidden: int = 512, layers: int = 2) -> Projection:
  """Return SimCLR's projection head g(·): [b, c] → [b, width] (Chen et al. 2020, section 2.1).

  `classes` is not used: nothing is classified.
  """
  return Projection(width, hidden, layers)
