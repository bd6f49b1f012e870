"""The headline in the terminal."""

from collections.abc import Mapping
from typing import Any

from medtl.evaluation.summary import LABELS

IMAGE = 'image'  # what an example is, where numbers do not say it


def console(numbers: Mapping[str, Any]) -> str:
  """Return a table in plain text: each metric, its value and interval; first the headline ones, then the others."""
  headline = numbers['headline']
  names = [*headline, *(name for name in numbers['metrics'] if name not in headline)]
  wide = max(len(LABELS[name]) for name in names) + 2
  lines = [f'{over(numbers)}, {numbers["level"]:.0%} intervals by {unit(numbers)}']
  lines += [f'  {LABELS[name]:<{wide}}{words(numbers["metrics"][name])}' for name in names]
  if numbers['by_patient']:
    lines += [f'mean probability of each of {numbers["patients"]} patients']
    lines += [f'  {LABELS[name]:<{wide}}{words(numbers["by_patient"][name])}' for name in headline]
  return '\n'.join(lines + [f'! {warning}' for warning in numbers['warnings']])


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
  if interval['low'] is None:
    return f'{interval["value"]:.{digits}f} ({interval["reason"]})'
  return f'{interval["value"]:.{digits}f} ({interval["low"]:.{digits}f} to {interval["high"]:.{digits}f})'
