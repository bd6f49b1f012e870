"""VICReg: features without labels, from two augmented views and no negatives (Bardes et al. 2022).

What is learned is used as `weights='run:…'` of another task; the projection is left behind.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from medtl.core.annotation import ABOVE_0, FROM_0
from medtl.core.types import Task
from medtl.tasks import simclr

TARGET = 1.0  # γ of equation 1: the standard deviation below which a feature counts as collapsed
EPSILON = 1e-4  # of equation 2: keeps the gradient of the square root finite


def task(
  invariance: Annotated[float, ABOVE_0] = 25.0,
  variance: Annotated[float, FROM_0] = 25.0,
  covariance: Annotated[float, FROM_0] = 1.0,
) -> Task:
  """Return the task of making two views alike while features vary and do not repeat each other.

  The keys are λ, μ and ν of equation 6. It needs config.augment, config.monitor = 'loss' and
  config.head = dict(name='projections.mlp', layers=3), the paper's expander but for its norms.
  Whatever labels the data have are not used.
  """
  keys = dict(name='vicreg', invariance=invariance, variance=variance, covariance=covariance)
  loss = partial(vicreg, invariance=invariance, variance=variance, covariance=covariance)
  return simclr.two_views(loss, keys, aim)


def vicreg(
  projections: jax.Array, real: jax.Array, invariance: float, variance: float, covariance: float
) -> jax.Array:
  """Return losses [b], whose mean over the pictures that are real is the loss of the batch.

  projections [2, b, d], real bool [b]. Variance and covariance are those of the batch, the same for
  each picture (Bardes et al. 2022, algorithm 1; unlike equation 5 it divides the distance by d).
  """
  distances = jnp.mean((projections[0] - projections[1]) ** 2, axis=-1)
  hinges = []
  repetitions = []
  for view in projections:
    matrix = covariance_of(view, real)
    variances = jnp.diagonal(matrix)
    deviations = jnp.sqrt(variances + EPSILON)
    hinges.append(jnp.mean(jax.nn.relu(TARGET - deviations)))
    repetitions.append(jnp.sum((matrix - jnp.diag(variances)) ** 2) / len(matrix))
  return invariance * distances + variance * sum(hinges) + covariance * sum(repetitions)


def covariance_of(values: jax.Array, real: jax.Array) -> jax.Array:
  """Return the unbiased covariance [d, d] of the real [b] rows of values [b, d]; 0 of one row."""
  count = jnp.sum(real)
  biased = jnp.cov(values, rowvar=False, ddof=0, fweights=real.astype(int))
  return jnp.atleast_2d(biased) * count / jnp.maximum(1, count - 1)


def aim(classes: Sequence[str]) -> str:
  """Return in words what the net learns."""
  return 'to give two views of a picture the same features, of which no two tell the same'
