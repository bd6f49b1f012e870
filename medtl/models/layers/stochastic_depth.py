"""Stochastic depth: a residual branch is left out for some of the examples.

Huang et al. 2016, arXiv 1603.09382.
"""

from collections.abc import Sequence


def linear_rates(last: float, depths: Sequence[int]) -> tuple[tuple[float, ...], ...]:
  """Return the rate of each block of each stage: it grows linearly from 0 to `last`.

  >>> linear_rates(0.5, (1, 2))
  ((0.0,), (0.25, 0.5))
  """
  steps = max(1, sum(depths) - 1)
  rates = []
  first = 0
  for depth in depths:
    rates.append(tuple(last * block / steps for block in range(first, first + depth)))
    first += depth
  return tuple(rates)
