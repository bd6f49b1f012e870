"""The language of `schedule`: the run's step → a factor on the learning rate.

Each takes the length of the whole run in steps, `total`, and a function `steps` that turns a
duration such as '5%' or '2 epochs' into steps.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import jax
import jax.numpy as jnp

from medtl.core.annotation import ABOVE_0, ABOVE_0_TO_1, FROM_0

Schedule = Callable[[jax.Array], jax.Array]
Duration = str | int


def constant(total: int, steps: Callable[[Duration], int], warmup: Duration = 0) -> Schedule:
  """Return 1, after a linear warm-up."""
  return _warm(lambda step: jnp.ones(()), steps(warmup))


def cosine(
  total: int,
  steps: Callable[[Duration], int],
  warmup: Duration = 0,
  end: Annotated[float, FROM_0] = 0.0,
) -> Schedule:
  """Return half a cosine from 1 to `end` over the steps that the warm-up leaves.

  Loshchilov and Hutter 2017 (SGDR), equation 5, without restarts.
  """
  begin = steps(warmup)

  def factor(step: jax.Array) -> jax.Array:
    share = jnp.clip((step - begin) / max(1, total - begin), 0.0, 1.0)
    return end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * share))

  return _warm(factor, begin)


def rising(
  total: int, steps: Callable[[Duration], int], start: Annotated[float, ABOVE_0_TO_1] = 1e-6
) -> Schedule:
  """Return a factor that grows from `start` to 1 at the last step, evenly in its logarithm.

  It is what a range test of the learning rate needs (Smith 2017, section 3.3).
  """
  last = max(1, total - 1)
  return lambda step: start ** (1 - jnp.minimum(step / last, 1.0))


def step(
  total: int,
  steps: Callable[[Duration], int],
  at: Sequence[Duration] = ('50%', '75%'),
  factor: Annotated[float, ABOVE_0] = 0.1,
  warmup: Duration = 0,
) -> Schedule:
  """Return `factor` to the power of the boundaries passed.

  The defaults are those of MedMNIST (Yang et al. 2023).
  """
  boundaries = jnp.asarray([steps(text) for text in at])

  def decayed(step: jax.Array) -> jax.Array:
    passed = jnp.sum(step >= boundaries)
    return factor ** passed.astype(jnp.float32)

  return _warm(decayed, steps(warmup))


def _warm(factor: Schedule, warmup: int) -> Schedule:
  """Return the schedule, raised linearly from 1/warmup to its full value over `warmup` steps."""
  return lambda step: factor(step) * jnp.minimum(1.0, (step + 1) / max(1, warmup))
