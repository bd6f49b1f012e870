"""How much of one thing is worth how much of another, such as labels of a pretrained net.

A metric against an amount gives curves; 'A with n is as good as B with m' is read off them, with
an interval.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from medtl.evaluation import intervals

Curves = Mapping[str, Mapping[float, str]]  # family -> {amount: the variant's name}


def grouped(
  names: Sequence[str], place: Callable[[str], tuple[str, float]]
) -> dict[str, dict[float, str]]:
  """Return the curves that variants lie on; `place(name)` is (family, amount)."""
  curves: dict[str, dict[float, str]] = {}
  for name in names:
    family, amount = place(name)
    curves.setdefault(family, {})[amount] = name
  return curves


def equivalents(
  curves: Curves,
  score: Mapping[str, np.ndarray],
  y: np.ndarray,
  metric: Callable,
  patient: np.ndarray | None,
  resamples: int,
) -> list[dict[str, Any]]:
  """Return a row for each amount of the first family and each other family.

  Its `value` is the amount of the other family that reaches the same metric, with an interval by
  patient from `low` to `high`. It is read off between the amounts tried, on the running maximum of
  the other family's curve; beyond the ends of the curve, `least` and `most`, it is the end.
  `score` holds each variant's [s, n, k] of s runs on the same rows.
  """
  first, *others = curves
  variants = [name for family in curves.values() for name in family.values()]

  def statistic(rows: np.ndarray, runs: np.ndarray) -> dict[str, np.ndarray]:
    value = {}
    for name in variants:
      of_runs = [metric(score[name][run][rows], y[rows]) for run in runs]
      value[name] = np.mean(of_runs)
    amounts = {}
    for other in others:
      curve = {amount: value[name] for amount, name in curves[other].items()}
      for amount, name in curves[first].items():
        amounts[_key(other, amount)] = np.asarray(reached(value[name], curve))
    return amounts

  runs, _, k = next(iter(score.values())).shape
  has = intervals.presence(y, k)
  interval_of = intervals.bootstrap(statistic, has, patient, resamples, runs=runs)
  rows = []
  for other in others:
    least = min(curves[other])
    most = max(curves[other])
    for amount in curves[first]:
      interval = interval_of[_key(other, amount)]
      row = {'family': first, 'amount': amount, 'other': other, 'least': least, 'most': most}
      row['value'] = interval.value
      # what chance between seeds adds may carry a bound beyond what was tried
      row['low'] = min(max(interval.low, least), most)
      row['high'] = min(max(interval.high, least), most)
      row['reason'] = interval.reason
      rows.append(row)
  return rows


def _key(other: str, amount: float) -> str:
  return f'{other} {amount:g}'


def reached(level: float, curve: Mapping[float, float]) -> float:
  """Return the smallest amount at which the running maximum of a curve reaches a level.

  `curve` is {amount: value}, linear between its amounts; beyond its ends the end is returned.

  >>> curve = {10: 0.6, 20: 0.7, 40: 0.8}
  >>> reached(0.75, curve), reached(0.5, curve), reached(0.9, curve)
  (30.0, 10.0, 40.0)
  """
  amounts = sorted(curve)
  values = np.maximum.accumulate([curve[amount] for amount in amounts])
  if level <= values[0]:
    return float(amounts[0])
  if level > values[-1]:
    return float(amounts[-1])
  place = int(np.argmax(values >= level))
  below = amounts[place - 1]
  share = (level - values[place - 1]) / (values[place] - values[place - 1])
  return float(below + share * (amounts[place] - below))


def words(row: Mapping[str, Any], unit: str) -> str:
  """Return in a sentence what a row of `equivalents` says, amounts followed by their unit.

  Such as 'pretrained with 10 % is as good as scratch with 72 % (40 % to at least 100 %)', or that
  it is better than the most that was tried.
  """

  def bounded(value: float) -> str:
    text = f'{value:.0f}{unit}'
    if value >= row['most']:
      return f'at least {text}'
    return f'at most {text}' if value <= row['least'] else text

  subject = f'{row["family"]} with {row["amount"]:g}{unit}'
  if row['reason']:
    interval = f'; {row["reason"]}'
  elif row['low'] >= row['most']:
    most = f'{row["most"]:g}{unit}'
    return f'{subject} is better than {row["other"]} with {most}, the most that was tried'
  else:
    interval = f' ({bounded(row["low"])} to {bounded(row["high"])})'
  return f'{subject} is as good as {row["other"]} with {bounded(row["value"])}{interval}'
