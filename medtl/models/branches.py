"""Heads with several outputs: a classifier, and beside it what adaptation compares."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medtl.models import Backbone, Head
from medtl.models.heads import pooled


@jax.custom_vjp
def reverse(x: Any, strength: Any) -> Any:
  """Return x; its gradient is multiplied by −strength (Ganin et al. 2016, equation 15)."""
  return x


def _forward(x: Any, strength: Any) -> tuple[Any, Any]:
  return x, strength


def _backward(strength: Any, gradient: Any) -> tuple[Any, None]:
  return -strength * gradient, None


reverse.defvjp(_forward, _backward)


class Branches(Head):
  """Pooled features → {'logits' [b, classes], 'features' [b, c], 'domain' [b, 2]}.

  The domain classifier sees the features through a reversed gradient, whose strength lies in the
  collection `adversary` and is set by the task.
  """

  classes: int
  hidden: int

  @property
  def reads(self) -> str:
    return 'pool=auto'

  def reduce(self, value: Any, backbone: Backbone) -> Any:
    return pooled(value, backbone, 'auto')

  @nn.compact
  def __call__(self, x: Any, *, train: bool) -> dict[str, Any]:
    strength = self.variable('adversary', 'strength', lambda: jnp.zeros((), jnp.float32))
    reversed_x = reverse(x, strength.value)
    hidden = nn.relu(nn.Dense(self.hidden, name='domain1')(reversed_x))
    logits = nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01), name='dense')(x)
    return {'logits': logits, 'features': x, 'domain': nn.Dense(2, name='domain2')(hidden)}


def domain(classes: int, hidden: int = 128) -> Branches:
  """Return a linear classifier with a domain classifier of one hidden layer beside it."""
  return Branches(classes, hidden)
