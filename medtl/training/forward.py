"""A net as tasks apply it: which children move, whose statistics norms use, where it starts."""

from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn

from medtl.core.types import Forward, Tree
from medtl.training import batch_statistics, parameter_groups


def forward(
  net: nn.Module,
  live: Tree | None = None,
  rules: batch_statistics.Rules = (),
  start_child: int = 0,
) -> Forward:
  """Return how a task applies `net`.

  `live` (bool for each parameter) says what moves: a child without a live leaf is applied in
  evaluation mode, and a frozen BatchNorm keeps its statistics, unless `rules` (config.norms) say
  otherwise. With start_child > 0, x is what the children below it made of the picture.
  """
  moving: Collection[str] = parameter_groups.live_children(live) if live is not None else ()

  def train(params: Tree, extra: Tree, x: Any, key: Any) -> tuple[Any, Tree]:
    with batch_statistics.apply(live, rules):
      outputs, changed = net.apply(
        {'params': params, **extra},
        x,
        train=moving,
        start_child=start_child,
        mutable=list(extra),
        rngs={'dropout': key},
      )
    return outputs, {**extra, **changed}

  def evaluate(params: Tree, extra: Tree, x: Any) -> Any:
    return net.apply({'params': params, **extra}, x, train=False, start_child=start_child)

  return Forward(train, evaluate)


def before(made: Forward, unpack: Callable[[Any], Any]) -> Forward:
  """Return the forward pass of what `unpack` makes of x."""

  def train(params: Tree, extra: Tree, x: Any, key: Any) -> tuple[Any, Tree]:
    return made.train(params, extra, unpack(x), key)

  def evaluate(params: Tree, extra: Tree, x: Any) -> Any:
    return made.eval(params, extra, unpack(x))

  return Forward(train, evaluate)
