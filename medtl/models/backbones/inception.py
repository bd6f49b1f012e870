"""Inception-v3 (Szegedy et al. 2016, arXiv 1512.00567, table 1), for pictures of 75 pixels or more.

The blocks are those of figures 5 to 7, with batch norm in every unit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError
from medtl.models import Backbone, child_name
from medtl.models.layers.activation import relu
from medtl.models.layers.spatial import max_pool, mean_pool
from medtl.models.layers.style import Style
from medtl.models.pretrained.inception import RENAMES, WEIGHTS  # noqa: F401

PADDINGS = ('VALID', 'SAME')
LEAST = 75  # pixels a side, below which nothing is left of the last maps without padding


class Unit(NamedTuple):
  """Convolution, norm, ReLU. Where it is not `padded` to keep the size, see `Form.padding`."""

  features: int
  kernel: int | tuple[int, int]
  stride: int = 1
  padded: bool = True


# units one after the other; two in brackets see the same maps, and what they make is joined
Branch = tuple[Unit | tuple[Unit, Unit], ...]
Branches = tuple[tuple[str, Branch], ...]


class Block(NamedTuple):
  """Branches by name, which see the same maps; what they make is joined.

  `branch_pool` begins with 3×3 average pooling. A block that `shrinks` joins the maps themselves
  too, after 3×3 max-pooling at stride 2.
  """

  branches: Branches
  shrinks: bool = False


def _block_35(pooled: int) -> Block:
  """Return a block of figure 5, for maps of 35 × 35 (of pictures of 299 pixels)."""
  branches: Branches = (
    ('branch1x1', (Unit(64, 1),)),
    ('branch5x5', (Unit(48, 1), Unit(64, 5))),
    ('branch3x3dbl', (Unit(64, 1), Unit(96, 3), Unit(96, 3))),
    ('branch_pool', (Unit(pooled, 1),)),
  )
  return Block(branches)


def _block_17(width: int) -> Block:
  """Return a block of figure 6, for maps of 17 × 17, with n = 7."""
  row = Unit(width, (1, 7))
  column = Unit(width, (7, 1))
  branches: Branches = (
    ('branch1x1', (Unit(192, 1),)),
    ('branch7x7', (Unit(width, 1), row, Unit(192, (7, 1)))),
    ('branch7x7dbl', (Unit(width, 1), column, row, column, Unit(192, (1, 7)))),
    ('branch_pool', (Unit(192, 1),)),
  )
  return Block(branches)


_FORKED = (Unit(384, (1, 3)), Unit(384, (3, 1)))
_BLOCK_8: Branches = (  # figure 7, for maps of 8 × 8
  ('branch1x1', (Unit(320, 1),)),
  ('branch3x3', (Unit(384, 1), _FORKED)),
  ('branch3x3dbl', (Unit(448, 1), Unit(384, 3), _FORKED)),
  ('branch_pool', (Unit(192, 1),)),
)
_TO_17: Branches = (
  ('branch3x3', (Unit(384, 3, 2, padded=False),)),
  ('branch3x3dbl', (Unit(64, 1), Unit(96, 3), Unit(96, 3, 2, padded=False))),
)
_TO_8: Branches = (
  ('branch3x3', (Unit(192, 1), Unit(320, 3, 2, padded=False))),
  (
    'branch7x7x3',
    (Unit(192, 1), Unit(192, (1, 7)), Unit(192, (7, 1)), Unit(192, 3, 2, padded=False)),
  ),
)
# the stages: Mixed_5b, 5c, 5d, 6a … 6e, 7a, 7b, 7c, or mixed0 … mixed10
BLOCKS = (
  _block_35(32),
  _block_35(64),
  _block_35(64),
  Block(_TO_17, shrinks=True),
  _block_17(128),
  _block_17(160),
  _block_17(160),
  _block_17(192),
  Block(_TO_8, shrinks=True),
  Block(_BLOCK_8),
  Block(_BLOCK_8),
)


class Form(NamedTuple):
  """What all units and pools of a net have in common."""

  width: float = 1.0  # factor of channels
  padding: str = 'VALID'  # of what is not padded: 'VALID' as published, 'SAME' for small pictures
  pool_counts_padding: bool = True  # whether zeros around the maps count in average pools
  style: Style = Style(epsilon=1e-3)

  def unit(self, x: Any, unit: Unit, train: bool, name: str) -> Any:
    """Return x after a unit, a child `name` of the module that calls."""
    features = self.scaled(unit.features)
    padding = None if unit.padded else self.padding
    apply = Convolved(features, unit.kernel, unit.stride, padding, self.style, name=name)
    return apply(x, train)

  def scaled(self, features: int) -> int:
    """Return channels × width, 1 at least."""
    return max(1, round(features * self.width))

  def shrunk(self, x: Any) -> Any:
    """Return x after 3×3 max-pooling at stride 2."""
    return max_pool(x, padding=self.padding)


class Inception(Backbone):
  """Pictures [b, h, w, c] → maps [b, about h / 32, about w / 32, channels]; a stage is a block."""

  form: Form = Form()
  blocks: tuple[Block, ...] = BLOCKS  # the last of them does not shrink

  @property
  def stages(self) -> int:
    return len(self.blocks)

  @property
  def channels(self) -> int:
    count = 0
    for _, branch in self.blocks[-1].branches:
      last = branch[-1]
      units = (last,) if isinstance(last, Unit) else last
      count += sum(self.form.scaled(unit.features) for unit in units)
    return count

  def child(self, index: int, value: Any, train: bool) -> Any:
    if index == 0:
      return Stem(self.form, name='stem')(value, train)
    return Mixed(self.blocks[index - 1], self.form, name=child_name(index))(value, train)


class Stem(nn.Module):
  """Five units and two pools: a picture of 299 pixels becomes maps of 35 × 35."""

  form: Form

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    _check_sides(x.shape[1:-1], self.form)
    x = self.form.unit(x, Unit(32, 3, 2, padded=False), train, 'unit1')
    x = self.form.unit(x, Unit(32, 3, padded=False), train, 'unit2')
    x = self.form.unit(x, Unit(64, 3), train, 'unit3')
    x = self.form.shrunk(x)
    x = self.form.unit(x, Unit(80, 1), train, 'unit4')
    x = self.form.unit(x, Unit(192, 3, padded=False), train, 'unit5')
    return self.form.shrunk(x)


def _check_sides(sides: Sequence[int], form: Form) -> None:
  """Raise MedtlError for pictures that the network cannot take."""
  size = ' × '.join(map(str, sides))
  if len(sides) != form.style.ndim:
    raise MedtlError(
      f'inputs of {size}; Inception-v3 takes pictures, and volumes by config.model.acs=True'
    )
  if form.padding == 'VALID' and min(sides) < LEAST:
    raise MedtlError(
      f'pictures of {size}; Inception-v3 expects {LEAST} pixels a side or more (it was trained on '
      "299): enlarge them, or pad its maps by config.model.padding='SAME'"
    )


class Mixed(nn.Module):
  """The branches of a block, joined along the channels.

  The units of a branch of several are numbered: branch3x3_1, branch3x3_2a, branch3x3_2b.
  """

  block: Block
  form: Form

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    joined = []
    for name, branch in self.block.branches:
      y = x
      if name == 'branch_pool':
        y = mean_pool(x, window=3, stride=1, count_padding=self.form.pool_counts_padding)
      for number, step in enumerate(branch, 1):
        unit_name = f'{name}_{number}' if len(branch) > 1 else name
        y = self.step(y, step, train, unit_name)
      joined.append(y)
    if self.block.shrinks:
      joined.append(self.form.shrunk(x))
    return jnp.concatenate(joined, axis=-1)

  def step(self, y: Any, step: Unit | tuple[Unit, Unit], train: bool, name: str) -> Any:
    """Return y after a unit, or after two side by side."""
    if isinstance(step, Unit):
      return self.form.unit(y, step, train, name)
    first = self.form.unit(y, step[0], train, f'{name}a')
    second = self.form.unit(y, step[1], train, f'{name}b')
    return jnp.concatenate([first, second], axis=-1)


class Convolved(nn.Module):
  """Convolution, norm, ReLU."""

  features: int
  kernel: int | tuple[int, int]
  stride: int
  padding: str | None
  style: Style

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    x = self.style.conv(x, self.features, self.kernel, self.stride, 'conv', padding=self.padding)
    return relu(self.style.normed(x, train, 'norm'))


def inception_v3(
  width: float = 1.0,
  padding: str = 'VALID',
  pool_counts_padding: bool = True,
  acs: bool = False,
  dtype: Any = jnp.float32,
) -> Inception:
  """Return Inception-v3, torchvision's by default; Keras' has pool_counts_padding=False.

  `padding` is 'VALID' as published, or 'SAME' for pictures of less than 75 pixels a side. `acs`
  convolves volumes by the kernels of pictures.
  """
  if padding not in PADDINGS:
    raise MedtlError(f'unknown padding {padding!r}; {did_you_mean(padding, PADDINGS)}')
  style = Style(3 if acs else 2, acs, epsilon=1e-3, dtype=dtype)
  return Inception(Form(width, padding, pool_counts_padding, style))
