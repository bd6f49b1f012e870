"""How much of one thing is worth how much of another: a metric against an amount, and 'A with n equals B with m', with an interval."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from medtl.evaluation import intervals

Curves = Mapping[str, Mapping[float, str]]  # family -> {amount: the variant's name}


def grouped(
  names: Sequence[str], place: Callable[[str], tuple[str, float]]
) -> dict[str, dict[float, str]]:
  """Return the curves that variants lie on; `place(name)` is (family, amount)."""
  found: dict[str, dict[float, str]] = {}
  for name in names:
    family, amount = place(name)
    found.setdefault(family, {})[amount] = name
  return found


def equivalents(
  curves: Curves,
  score: Mapping[str, np.ndarray],
  y: np.ndarray,
  metric: Callable,
  patient: np.ndarray | None,
  resamples: int = 1000,
) -> list[dict[str, Any]]:
  """Return for each amount of the first family what amount of each other family reaches its metric, with an interval by patient.

  `score` [s, n, k] of each variant's s runs on the same rows. An amount is read off between those tried, on the running maximum of the
  other family's curve; beyond its ends it is the end, and `least` or `most` says so of value, low and high.
  """
  first, *others = curves

  def statistic(rows: np.ndarray, runs: np.ndarray) -> dict[str, np.ndarray]:
    value = {
      name: np.mean([metric(score[name][run][rows], y[rows]) for run in runs])
      for family in curves.values()
      for name in family.values()
    }
    return {
      f'{other} {amount:g}': np.asarray(
        reached(value[name], {x: value[there] for x, there in curves[other].items()})
      )
      for other in others
      for amount, name in curves[first].items()
    }

  count, _, k = next(iter(score.values())).shape
  found = intervals.of(statistic, intervals.presence(y, k), patient, resamples, runs=count)
  rows = []
  for other in others:
    least, most = min(curves[other]), max(curves[other])
    for amount in curves[first]:
      told = found[f'{other} {amount:g}']
      low, high = (
        min(max(bound, least), most) for bound in (told.low, told.high)
      )  # seeds may carry a bound beyond what was tried
      rows.append(
        {
          'family': first,
          'amount': amount,
          'other': other,
          'least': least,
          'most': most,
          'value': told.value,
          'low': low,
          'high': high,
          'reason': told.reason,
        }
      )
  return rows


def reached(level: float, curve: Mapping[float, float]) -> float:
  """Return the smallest amount at which the running maximum of a curve {amount: value} reaches a level, between its ends.

  >>> reached(0.75, {10: 0.6, 20: 0.7, 40: 0.8}), reached(0.5, {10: 0.6, 20: 0.7}), reached(0.9, {10: 0.6, 20: 0.7})
  (30.0, 10.0, 20.0)
  """
  amounts = sorted(curve)
  values = np.maximum.accumulate([curve[amount] for amount in amounts])
  if level <= values[0]:
    return float(amounts[0])
  if level > values[-1]:
    return float(amounts[-1])
  place = int(np.argmax(values >= level))
  share = (level - values[place - 1]) / (values[place] - values[place - 1])
  return float(amounts[place - 1] + share * (amounts[place] - amounts[place - 1]))


def words(row: Mapping[str, Any], unit: str) -> str:
  """Return 'pretrained with 10 % is as good as scratch with 72 % (40 % to at least 100 %)', or that it is better than all of it."""

  def bounded(value: float) -> str:
    ends = 'at least ' if value >= row['most'] else 'at most ' if value <= row['least'] else ''
    return f'{ends}{value:.0f}{unit}'

  if not row['reason'] and row['low'] >= row['most']:
    return f'{row["family"]} with {row["amount"]:g}{unit} is better than {row["other"]} with {row["most"]:g}{unit}, the most that was tried'
  beside = (
    f' ({bounded(row["low"])} to {bounded(row["high"])})'
    if not row['reason']
    else f'; {row["reason"]}'
  )
  return f'{row["family"]} with {row["amount"]:g}{unit} is as good as {row["other"]} with {bounded(row["value"])}{beside}'
