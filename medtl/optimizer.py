"""The language of `optimizer`: how a gradient becomes a direction. Learning rate and freezing are partition's."""

import optax


def adamw(decay: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
  """Return Adam's direction plus decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""
  return optax.chain(optax.scale_by_adam(b1, b2, eps), optax.add_decayed_weights(decay))


def sgd(decay: float, momentum: float = 0.9, nesterov: bool = False) -> optax.GradientTransformation:
  """Return the momentum direction of gradient plus L2 term, as in He et al. 2016 and BiT."""
  return optax.chain(optax.add_decayed_weights(decay), optax.trace(momentum, nesterov) if momentum else optax.identity())
