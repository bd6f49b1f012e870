"""The headline in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from medtl.evaluation.summary import LABELS

IMAGE = 'image'  # what an example is, where numbers do not say it


def console(numbers: Mapping[str, Any]) -> str:
  """Return the metrics with their intervals as a table in plain text, the headline ones first."""
  headline = numbers['headline']
  names = [*headline, *(name for name in numbers['metrics'] if name not in headline)]
  width = max(len(LABELS[name]) for name in names) + 2

  def lines_of(interval_of: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [f'  {LABELS[name]:<{width}}{words(interval_of[name])}' for name in names]

  lines = [f'{over(numbers)}, {numbers["level"]:.0%} intervals by {unit(numbers)}']
  lines += lines_of(numbers['metrics'], names)
  if numbers['by_patient']:
    lines.append(f'mean probability of each of {numbers["patients"]} patients')
    lines += lines_of(numbers['by_patient'], headline)
  lines += [f'! {warning}' for warning in numbers['warnings']]
  return '\n'.join(lines)


def over(numbers: Mapping[str, Any]) -> str:
  """Return what was tested on: '48 images of 24 patients'.

  >>> over({'images': 48, 'patients': 24})
  '48 images of 24 patients'
  """
  people = f' of {numbers["patients"]} patients' if numbers['patients'] is not None else ''
  return f'{numbers["images"]} {noun(numbers)}s{people}'


def noun(numbers: Mapping[str, Any]) -> str:
  """Return what an example is called: 'image', or what the numbers say."""
  return numbers.get('noun', IMAGE)


def unit(numbers: Mapping[str, Any]) -> str:
  """Return what intervals are over: 'patient', or what an example is called."""
  return 'patient' if numbers['unit'] == 'patient' else noun(numbers)


def words(interval: Mapping[str, Any], digits: int = 3) -> str:
  """Return '0.912 (0.873 to 0.941)', or why there is no interval.

  >>> words(dict(value=0.9, low=0.85, high=0.95, reason=''))
  '0.900 (0.850 to 0.950)'
  """
  if interval['value'] is None:
    return interval['reason']
  value = f'{interval["value"]:.{digits}f}'
  if interval['low'] is None:
    return f'{value} ({interval["reason"]})'
  low = f'{interval["low"]:.{digits}f}'
  high = f'{interval["high"]:.{digits}f}'
  return f'{value} ({low} to {high})'
