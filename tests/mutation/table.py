"""The table of a mutation run: how many mutants of each package the tests noticed."""

import math
from collections.abc import Sequence

from tests.mutation import equivalents
from tests.mutation.equivalents import Equivalent
from tests.mutation.mutants import PACKAGES, package_of
from tests.mutation.trials import NO_IMPORT, OVER_TIME, SURVIVED, Result

Z = 1.959964  # of a 95 % interval


def wilson(part: int, whole: int) -> tuple[float, float]:
  """Return the 95 % interval of a share (Wilson 1927).

  >>> [round(bound, 3) for bound in wilson(81, 100)]
  [0.722, 0.875]
  """
  share = part / whole
  scale = 1 + Z**2 / whole
  centre = (share + Z**2 / (2 * whole)) / scale
  spread = Z / scale * math.sqrt(share * (1 - share) / whole + Z**2 / (4 * whole**2))
  return centre - spread, centre + spread


def markdown(results: Sequence[Result], argued: Sequence[Equivalent]) -> str:
  """Return a row for each package and one for all; equivalent mutants count as not killed."""
  lines = [
    '| package | mutants | killed | survived | argued equivalent | share killed (95 % Wilson) |',
    '|---|---|---|---|---|---|',
  ]
  for name in PACKAGES:
    part = [result for result in results if package_of(result['path']) == name]
    if part:
      lines.append(_row(f'`{name}`', part, argued))
  lines.append(_row('all', results, argued))
  return '\n'.join(lines)


def _row(name: str, results: Sequence[Result], argued: Sequence[Equivalent]) -> str:
  killed = sum(result['outcome'] != SURVIVED for result in results)
  equal = sum(is_equivalent(result, argued) for result in results)
  survived = len(results) - killed - equal
  low, high = wilson(killed, len(results))
  share = f'{killed / len(results):.1%} ({low:.1%} to {high:.1%})'
  return f'| {name} | {len(results)} | {killed} | {survived} | {equal} | {share} |'


def remarks(results: Sequence[Result], argued: Sequence[Equivalent]) -> list[str]:
  """Return what the table does not say: how the killed ended, and every survivor."""
  over_time = sum(result['outcome'] == OVER_TIME for result in results)
  no_import = sum(result['outcome'] == NO_IMPORT for result in results)
  lines = [f'of the killed {over_time} ran over time and {no_import} could not be imported']
  for result in sorted(results, key=lambda result: (result['path'], result['line'])):
    where = f'{result["path"]}:{result["line"]} {result["function"]}'
    change = f'{result["before"]}  →  {result["after"]}'
    if result['outcome'] == SURVIVED and not is_equivalent(result, argued):
      lines.append(f'survived {result["tests"]} tests: {where}\n    {change}')
    if result['outcome'] != SURVIVED and equivalents.argued(result, argued):
      lines.append(f'argued equivalent, but {result["killer"]}: {where}\n    {change}')
  return lines


def is_equivalent(result: Result, argued: Sequence[Equivalent]) -> bool:
  """Return whether a mutant survived and is argued to be equivalent."""
  return result['outcome'] == SURVIVED and equivalents.argued(result, argued)
