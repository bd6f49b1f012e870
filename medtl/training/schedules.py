"""The language of `schedule`: the run's step -> a factor on the learning rate. Durations are texts such as '5%' or '2 epochs'."""

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
  """Return half a cosine from 1 to `end` over what the warm-up leaves (Loshchilov and Hutter 2017, equation 5)."""
  begin = steps(warmup)

  def factor(step: jax.Array) -> jax.Array:
    share = jnp.clip((step - begin) / max(1, total - begin), 0.0, 1.0)
    return end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * share))

  return _warm(factor, begin)


def rising(
  total: int, steps: Callable[[Duration], int], start: Annotated[float, ABOVE_0_TO_1] = 1e-6
) -> Schedule:
  """Return start, growing evenly in its logarithm to 1 at the last step: a range test (Smith 2017)."""
  return lambda step: start ** (1 - jnp.minimum(step / max(1, total - 1), 1.0))


def step(
  total: int,
  steps: Callable[[Duration], int],
  at: Sequence[Duration] = ('50%', '75%'),
  factor: Annotated[float, ABOVE_0] = 0.1,
  warmup: Duration = 0,
) -> Schedule:
  """Return `factor` to the number of boundaries passed; the defaults are MedMNIST's (Yang et al. 2023)."""
  boundaries = jnp.asarray([steps(text) for text in at])
  return _warm(
    lambda step: factor ** jnp.sum(step >= boundaries).astype(jnp.float32), steps(warmup)
  )


def _warm(factor: Schedule, warmup: int) -> Schedule:
  return lambda step: factor(step) * jnp.minimum(1.0, (step + 1) / max(1, warmup))
