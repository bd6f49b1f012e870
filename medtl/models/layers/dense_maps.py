"""Dense layers on whole maps: the fc6 and fc7 of AlexNet and VGG."""

from typing import Any

import flax.linen as nn

from medtl.models.layers.activation import relu
from medtl.models.layers.spatial import adaptive_mean_pool
from medtl.models.layers.style import Style


class DenseMaps(nn.Module):
  """Maps [b, *s, c] → [b, *1, features]: dropout, one dense layer of all points, ReLU.

  Maps of other sides than `side` are averaged to it first. The layer is a convolution whose kernel
  [*side, c, features] covers the maps. So the weights of pictures fit no volumes: with ACS too its
  kernel has an axis for each of the volumes'.
  """

  features: int
  side: int
  dropout: float
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    sides = (self.side,) * self.style.ndim
    x = adaptive_mean_pool(x, sides)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return relu(self.style.conv(x, self.features, sides, 1, 'dense', padding='VALID'))
