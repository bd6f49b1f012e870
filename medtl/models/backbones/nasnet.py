"""NASNet-A (Zoph et al. 2018, arXiv 1707.07012), as Keras has it."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from medtl.models import Backbone, child_name
from medtl.models.layers.activation import relu
from medtl.models.layers.spatial import max_pool, mean_pool
from medtl.models.layers.style import Style
from medtl.models.pretrained.nasnet import RENAMES, WEIGHTS  # noqa: F401


class Kind(NamedTuple):
  """Which of the two cells of figure 4, and the channels of each of its branches."""

  reduces: bool
  filters: int


class NASNet(Backbone):
  """Pictures [b, *s, c] → maps [b, *s / 32, channels]. A stage is a cell.

  A cell reads the two cells before it. So what crosses a cut is a pair, (a cell's maps, those of
  the cell before it). With each cell a stage, a study over depth may cut anywhere, as between a
  transformer's blocks.
  """

  cells: tuple[Kind, ...]
  stem: int = 32
  style: Style = Style(epsilon=1e-3, momentum=0.9997, padding='SAME')

  @property
  def stages(self) -> int:
    return len(self.cells)

  @property
  def channels(self) -> int:
    last = self.cells[-1]
    return (4 if last.reduces else 6) * last.filters

  def maps(self, value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value

  def child(self, index: int, value: Any, train: bool) -> Any:
    if index == 0:
      return Stem(self.stem, self.style, name='stem')(value, train)
    x, previous = value if isinstance(value, tuple) else (value, None)
    kind = self.cells[index - 1]
    cell = Reduction if kind.reduces else Normal
    y = cell(kind.filters, self.style, name=child_name(index))(x, previous, train)
    return relu(y) if index == self.stages else (y, x)


class Stem(nn.Module):
  """A 3×3 convolution at stride 2 without padding, and its norm."""

  channels: int
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    x = self.style.conv(x, self.channels, 3, 2, 'conv', padding='VALID')
    return self.style.normed(x, train, 'norm')


class Normal(nn.Module):
  """The normal cell of figure 4: x and the previous cell's maps → six branches, side by side."""

  filters: int
  style: Style

  @nn.compact
  def __call__(self, x: Any, previous: Any, train: bool) -> Any:
    p = adjusted(previous, x, self.filters, self.style, train)
    h = projected(x, self.filters, self.style, train, '')
    separable = lambda x, kernel, name: Separable(self.filters, kernel, 1, self.style, name=name)(
      x, train
    )
    mean = lambda x: mean_pool(x, 3, 1, 'SAME', count_padding=False)
    first = separable(h, 5, 'left1') + separable(p, 3, 'right1')
    second = separable(p, 5, 'left2') + separable(p, 3, 'right2')
    third = mean(h) + p
    fourth = 2 * mean(p)
    fifth = separable(h, 3, 'left5') + h
    return jnp.concatenate([p, first, second, third, fourth, fifth], axis=-1)


class Reduction(nn.Module):
  """The reduction cell of figure 4: x and the previous cell's maps → four branches, halved.

  Pools count the points around the maps as zeros.
  """

  filters: int
  style: Style

  @nn.compact
  def __call__(self, x: Any, previous: Any, train: bool) -> Any:
    p = x if previous is None else adjusted(previous, x, self.filters, self.style, train)
    h = projected(x, self.filters, self.style, train, '')
    separable = lambda x, kernel, name, stride=2: Separable(
      self.filters, kernel, stride, self.style, name=name
    )(x, train)
    largest = max_pool(h, 3, 2, fill=0.0, padding='SAME')
    first = separable(h, 5, 'left1') + separable(p, 7, 'right1')
    second = largest + separable(p, 7, 'right2')
    third = mean_pool(h, 3, 2, 'SAME') + separable(p, 5, 'right3')
    fourth = second + mean_pool(first, 3, 1, 'SAME', count_padding=False)
    fifth = separable(first, 3, 'left4', stride=1) + largest
    return jnp.concatenate([second, third, fourth, fifth], axis=-1)


class Separable(nn.Module):
  """ReLU, depthwise k×k, 1×1, norm: twice; the first has the stride."""

  filters: int
  kernel: int
  stride: int
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    for number, stride in ((1, self.stride), (2, 1)):
      x = self.style.depthwise(relu(x), self.kernel, stride, f'depthwise{number}')
      x = self.style.conv(x, self.filters, 1, 1, f'pointwise{number}')
      x = self.style.normed(x, train, f'norm{number}')
    return x


def projected(x: Any, filters: int, style: Style, train: bool, prefix: str) -> Any:
  """Return ReLU, 1×1, norm of x, by children of the module that calls."""
  x = style.conv(relu(x), filters, 1, 1, f'{prefix}conv')
  return style.normed(x, train, f'{prefix}norm')


def adjusted(previous: Any, x: Any, filters: int, style: Style, train: bool) -> Any:
  """Return the previous cell's maps in the size of x and with so many channels.

  Where they are finer, each of two 1×1 convolutions sees every other point, the second those one
  step further along each axis (appendix A.3: factorised reduction).
  """
  if previous.shape[1:-1] == x.shape[1:-1]:
    if previous.shape[-1] == filters:
      return previous
    return projected(previous, filters, style, train, 'adjust_')
  y = relu(previous)
  axes = y.ndim - 2
  shifted = jnp.pad(y, [(0, 0), *[(0, 1)] * axes, (0, 0)])[:, *[slice(1, None)] * axes]
  halves = [
    style.conv(y, filters // 2, 1, 2, 'adjust_conv1', padding='VALID'),
    style.conv(shifted, filters // 2, 1, 2, 'adjust_conv2', padding='VALID'),
  ]
  return style.normed(jnp.concatenate(halves, axis=-1), train, 'adjust_norm')


def nasnet_mobile(
  ndim: int = 2,
  filters: int = 44,
  repeats: int = 4,
  acs: bool = False,
  dtype: Any = jnp.float32,
) -> NASNet:
  """Return Keras' NASNet-Mobile, 4 @ 1056: 1056 channels come out, 24 times `filters`.

  Two reductions, then `repeats` normal cells, and twice more a reduction and normal cells.
  """
  style = Style(ndim, acs, epsilon=1e-3, momentum=0.9997, padding='SAME', dtype=dtype)
  cells = [Kind(True, filters // 4), Kind(True, filters // 2)]
  cells += [Kind(False, filters)] * repeats
  for factor in (2, 4):
    cells.append(Kind(True, factor * filters))
    cells += [Kind(False, factor * filters)] * repeats
  return NASNet(tuple(cells), 32, style)
