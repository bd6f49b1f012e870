"""The language of `optimizer`: how a gradient becomes a direction.

Learning rates and freezing are the business of `parameter_groups.partition`.
"""

from typing import Annotated

import optax

from medtl.core.annotation import ABOVE_0, FROM_0_BELOW_1

Decay = Annotated[float, FROM_0_BELOW_1]  # of a running average


def adamw(
  decay: float, b1: Decay = 0.9, b2: Decay = 0.999, eps: Annotated[float, ABOVE_0] = 1e-8
) -> optax.GradientTransformation:
  """Return Adam's direction plus decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2)."""
  return optax.chain(optax.scale_by_adam(b1, b2, eps), optax.add_decayed_weights(decay))


def sgd(
  decay: float, momentum: Decay = 0.9, nesterov: bool = False
) -> optax.GradientTransformation:
  """Return the momentum direction of gradient plus L2 term, as in He et al. 2016 and BiT."""
  moving = optax.trace(momentum, nesterov) if momentum else optax.identity()
  return optax.chain(optax.add_decayed_weights(decay), moving)
