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
    first: int = 0,
    last: int | None = None,
    again: Collection[str] = (),
  ) -> Any:
    """Run children [first, last): from a picture [b, *s, c] when first is 0, else from what [0, first) returned.

    What the children named in `again` make inside is not kept for the backward pass, but computed again there (Chen et al. 2016,
    arXiv 1604.06174).
    """
    count = self.stages + 1
    last = count if last is None else last
    if not 0 <= first <= last <= count:
      raise ValueError(
        f'no slice [{first}, {last}) of {count} children (stem and {self.stages} stages)'
      )
    for index in range(first, last):
      name = child_name(index)
      run = functools.partial(
        _child, index=index, train=train if isinstance(train, bool) else name in train
      )
      x = (nn.remat(run) if name in again else run)(self, x)
    return x


def _child(backbone: Backbone, value: Any, index: int, train: bool) -> Any:
  return backbone.child(index, value, train)


def child_name(index: int) -> str:
  """Return 'stem' for 0 and 'stage<i>' for i."""
  return f'stage{index}' if index else 'stem'


class Net(nn.Module):
  """A backbone and a head: x [b, *s, c] in 0 … 1 → outputs, logits [b, classes] for a classifier.

  `mean` and `std` (one number, or one per channel) are what the checkpoint was trained with, in the units of x. `keep` > 0 leaves
  the children from that one on out: the head stands on what children 0 … keep − 1 make (Ke et al. 2021, CheXtransfer).
  """

  backbone: Backbone
  head: nn.Module
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)
  keep: int = 0
  again: tuple[str, ...] = ()  # children that are computed again in the backward pass

  @property
  def children(self) -> tuple[str, ...]:
    """Return the names of the children that are applied, in order; an impossible `keep` is an error."""
    count = self.backbone.stages + 1
    if not 0 <= self.keep <= count:
      raise MedtlError(
        f'config.truncate is {self.keep}; this backbone has {count} children (stem and {count - 1} stages), so 1 … {count}, '
        'or 0 for all'
      )
    return tuple(map(child_name, range(self.keep or count)))

  @property
  def truncated(self) -> bool:
    """Return whether children are left out, and with the last of them the backbone's `norm`."""
    return len(self.children) <= self.backbone.stages

  def __call__(self, x: Any, *, train: Train, first: int = 0) -> Any:
    """Run the children from `first` on and the head; with first > 0, x is what `features(…, last=first)` returned."""
    value = self.features(x, train=train, first=first)
    return self.head(
      value, self.backbone, train=train if isinstance(train, bool) else 'head' in train
    )

  def features(
    self, x: Any, *, train: Train = False, first: int = 0, last: int | None = None
  ) -> Any:
    """Return what children [first, last) of the backbone make of x."""
    if first == 0:
      x = (x - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.std, x.dtype)
    return self.backbone(
      x,
      train=train,
      first=first,
      last=len(self.children) if last is None else last,
      again=self.again,
    )
