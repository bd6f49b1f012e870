"""The contracts of networks: a backbone of children that can be cut anywhere, and a head on it."""

import functools
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from medtl.core.types import MedtlError
from medtl.models import slices

# False, True, or the names of the children that are in training mode.
Train = bool | Collection[str]


class Backbone(nn.Module):
  """x → maps. Child 0 is the stem, child i is stage i, `norm` follows the last stage.

  A subclass defines `stages`, `channels` and `child(i, value, train)`; it never knows that
  checkpoints exist.
  """

  @property
  def stages(self) -> int:
    """Return N, the number of stages."""
    raise NotImplementedError

  def child(self, index: int, value: Any, train: bool) -> Any:
    """Apply child `index`: 0 the stem, i stage i, after the last stage `norm` if there is one."""
    raise NotImplementedError

  def maps(self, value: Any) -> Any:
    """Return what a slice returned as maps [b, *s, c], without class token and registers."""
    return value

  def token(self, value: Any) -> Any:
    """Return the class token [b, d] of what a slice returned; None where there is none."""
    return None

  @nn.compact
  def __call__(
    self,
    x: Any,
    *,
    train: Train,
    start_child: int = 0,
    end_child: int | None = None,
    remat: Collection[str] = (),
    levels: Collection[str] = (),
  ) -> Any:
    """Run children [start_child, end_child): from a picture [b, *s, c], or from what others made.

    With `levels`, names of children, what crosses a cut is (value, {name: maps of that child}), of
    those levels that lie below it. What the children named in `remat` make inside is not kept for
    the backward pass, but computed again there (Chen et al. 2016, arXiv 1604.06174).
    """
    count = self.stages + 1
    end_child = count if end_child is None else end_child
    if not 0 <= start_child <= end_child <= count:
      raise ValueError(
        f'no slice [{start_child}, {end_child}) of {count} children (stem and {self.stages} stages)'
      )
    value, taken = x if levels and start_child else (x, {})
    for index in range(start_child, end_child):
      name = child_name(index)
      training = train if isinstance(train, bool) else name in train
      run = functools.partial(_child, index=index, train=training)
      value = (nn.remat(run) if name in remat else run)(self, value)
      if name in levels:
        taken = {**taken, name: self.maps(value)}
    return (value, taken) if levels else value


def _child(backbone: Backbone, value: Any, index: int, train: bool) -> Any:
  return backbone.child(index, value, train)


def child_name(index: int) -> str:
  """Return 'stem' for 0 and 'stage<i>' for i."""
  return f'stage{index}' if index else 'stem'


class Level(NamedTuple):
  """The maps that a child makes: their sides [*s] and channels."""

  name: str
  sides: tuple[int, ...]
  channels: int


def describe_levels(backbone: Backbone, shape: Sequence[int]) -> list[Level]:
  """Return the maps of every child for pictures of `shape` [*s, c]; nothing is computed."""
  names = [child_name(index) for index in range(backbone.stages + 1)]

  def run(key: jax.Array, x: Any) -> Any:
    (_, taken), _ = backbone.init_with_output(key, x, train=False, levels=names)
    return taken

  example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  taken = jax.eval_shape(run, jax.random.key(0), example)
  return [Level(name, taken[name].shape[1:-1], taken[name].shape[-1]) for name in names]


class Head(nn.Module):
  """What stands on a backbone: classifier, decoder, projector, or several of them.

  It works in two steps. `reduce`, without parameters, takes what it needs of the backbone's value;
  `__call__(reduced, train=…)` makes outputs of that. Where the whole backbone is frozen, what
  `reduce` returns is all that is kept of a picture.
  """

  @property
  def reads(self) -> str:
    """Return, as text, all that `reduce` depends on: what was kept under it is used again."""
    return repr(self)

  def levels(self, children: Sequence[str]) -> tuple[str, ...]:
    """Return the children whose maps the head reads beside the last one's; none as a rule."""
    return ()

  def reduce(self, value: Any, backbone: Backbone) -> Any:
    """Return what the head needs of the backbone's value, or of (value, {level: maps})."""
    return value


class Net(nn.Module):
  """A backbone and a head: x [b, *s, c] in 0 … 1 → the head's outputs.

  `mean` and `std` (one number, or one per channel) are what the checkpoint was trained with, in the
  units of x. A number that is missing (NaN, in tables alone) becomes the mean. `num_children` > 0
  leaves the children from that one on out: the head stands on what children 0 … num_children − 1
  make (Ke et al. 2021, CheXtransfer). A cut is counted in children; the cut after the last one and
  the head's `reduce` is `reduced`.
  """

  backbone: Backbone
  head: Head
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)
  num_children: int = 0
  # > 0: the backbone is one of pictures and sees the slices of volumes, so many neighbouring ones
  # as channels of one picture (medtl/models/slices.py)
  slices: int = 0
  remat: tuple[str, ...] = ()  # children that are computed again in the backward pass

  @property
  def children(self) -> tuple[str, ...]:
    """Return the names of the children that are applied, in order."""
    count = self.backbone.stages + 1
    if not 0 <= self.num_children <= count:
      raise MedtlError(
        f'config.truncate is {self.num_children}; this backbone has {count} children (stem and '
        f'{count - 1} stages), so 1 … {count}, or 0 for all'
      )
    return tuple(map(child_name, range(self.num_children or count)))

  @property
  def truncated(self) -> bool:
    """Return whether children are left out, and with the last of them the backbone's `norm`."""
    return len(self.children) <= self.backbone.stages

  @property
  def reduced(self) -> int:
    """Return the cut behind which only the head's parameters lie."""
    return len(self.children) + 1

  @property
  def levels(self) -> tuple[str, ...]:
    """Return the children whose maps the head reads."""
    return self.head.levels(self.children)

  @property
  def reading(self) -> Any:
    """Return the backbone as heads read it: `maps`, `token` and `stages`."""
    return slices.OfSlices(self.backbone) if self.slices else self.backbone

  def __call__(self, x: Any, *, train: Train, start_child: int = 0) -> Any:
    """Return the head's outputs.

    x is a picture, or what `features(…, end_child=start_child)` made of it.
    """
    value = self.features(x, train=train, start_child=start_child, end_child=self.reduced)
    return self.head(value, train=train if isinstance(train, bool) else 'head' in train)

  def features(
    self, x: Any, *, train: Train = False, start_child: int = 0, end_child: int | None = None
  ) -> Any:
    """Return what children [start_child, end_child) make of x; `reduce` counts as the last one."""
    count = len(self.children)
    end_child = count if end_child is None else end_child
    if not 0 <= start_child <= end_child <= self.reduced:
      raise ValueError(
        f"no slice [{start_child}, {end_child}) of {count} children and the head's reduction"
      )
    if start_child == self.reduced:
      return x
    if start_child == 0:
      if self.slices:
        x = slices.with_neighbours(x, self.slices)
      x = (x - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.std, x.dtype)
      if x.ndim == 2:  # vectors: a number of a table may be missing
        x = jnp.where(jnp.isnan(x), 0, x)
    batch = jax.tree.leaves(x)[0].shape[0]
    value = self.backbone(
      slices.as_pictures(x) if self.slices else x,
      train=train,
      start_child=start_child,
      end_child=min(end_child, count),
      remat=self.remat,
      levels=self.levels,
    )
    if self.slices:
      value = slices.as_volumes(value, batch)
    return self.head.reduce(value, self.reading) if end_child == self.reduced else value
