"""Every backbone obeys one contract: children stem, stage1 … stageN[, norm], callable on any slice of them."""

import functools
from collections.abc import Collection
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medtl.core.types import MedtlError

Train = (
  bool | Collection[str]
)  # False, True, or the names of the children that are in training mode


class Backbone(nn.Module):
  """x → maps. Child 0 is the stem, child i is stage i, `norm` follows the last stage.

  A subclass defines `stages`, `channels` and `child(i, value, train)`; it never knows that checkpoints exist.
  """

  @property
  def stages(self) -> int:
    """Return N, the number of stages."""
    raise NotImplementedError

  def child(self, index: int, value: Any, train: bool) -> Any:
    """Apply child `index` (0 the stem, i stage i; after the last stage `norm`, where there is one)."""
    raise NotImplementedError

  def maps(self, value: Any) -> Any:
    """Return what a slice returned as maps [b, *s, c], without class token and registers."""
    return value

  def token(self, value: Any) -> Any:
    """Return the class token [b, d] of what a slice returned, or None where the architecture has none."""
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
  ) -> Any:
    """Run children [start_child, end_child): from a picture [b, *s, c] when start_child is 0, else from what [0, start_child) returned.

    What the children named in `remat` make inside is not kept for the backward pass, but computed again there (Chen et al. 2016,
    arXiv 1604.06174).
    """
    count = self.stages + 1
    end_child = count if end_child is None else end_child
    if not 0 <= start_child <= end_child <= count:
      raise ValueError(
        f'no slice [{start_child}, {end_child}) of {count} children (stem and {self.stages} stages)'
      )
    for index in range(start_child, end_child):
      name = child_name(index)
      run = functools.partial(
        _child, index=index, train=train if isinstance(train, bool) else name in train
      )
      x = (nn.remat(run) if name in remat else run)(self, x)
    return x


def _child(backbone: Backbone, value: Any, index: int, train: bool) -> Any:
  return backbone.child(index, value, train)


def child_name(index: int) -> str:
  """Return 'stem' for 0 and 'stage<i>' for i."""
  return f'stage{index}' if index else 'stem'


class Net(nn.Module):
  """A backbone and a head: x [b, *s, c] in 0 … 1 → outputs, logits [b, classes] for a classifier.

  `mean` and `std` (one number, or one per channel) are what the checkpoint was trained with, in the units of x. `num_children` > 0 leaves
  the children from that one on out: the head stands on what children 0 … num_children − 1 make (Ke et al. 2021, CheXtransfer).
  """

  backbone: Backbone
  head: nn.Module
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)
  num_children: int = 0
  remat: tuple[str, ...] = ()  # children that are computed again in the backward pass

  @property
  def children(self) -> tuple[str, ...]:
    """Return the names of the children that are applied, in order; an impossible `num_children` is an error."""
    count = self.backbone.stages + 1
    if not 0 <= self.num_children <= count:
      raise MedtlError(
        f'config.truncate is {self.num_children}; this backbone has {count} children (stem and {count - 1} stages), so 1 … {count}, '
        'or 0 for all'
      )
    return tuple(map(child_name, range(self.num_children or count)))

  @property
  def truncated(self) -> bool:
    """Return whether children are left out, and with the last of them the backbone's `norm`."""
    return len(self.children) <= self.backbone.stages

  def __call__(self, x: Any, *, train: Train, start_child: int = 0) -> Any:
    """Run the children from `start_child` on and the head; above 0, x is what `features(…, end_child=start_child)` made."""
    value = self.features(x, train=train, start_child=start_child)
    return self.head(
      value, self.backbone, train=train if isinstance(train, bool) else 'head' in train
    )

  def features(
    self, x: Any, *, train: Train = False, start_child: int = 0, end_child: int | None = None
  ) -> Any:
    """Return what children [start_child, end_child) of the backbone make of x."""
    if start_child == 0:
      x = (x - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.std, x.dtype)
    return self.backbone(
      x,
      train=train,
      start_child=start_child,
      end_child=len(self.children) if end_child is None else end_child,
      remat=self.remat,
    )
