"""Many variants of one run → one table, one plot, one sentence that the intervals allow."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medtl.evaluation import label_efficiency, metrics
from medtl.evaluation.intervals import holm
from medtl.evaluation.summary import LABELS
from medtl.report import console, figures, page
from medtl.runtime import files

Row = Mapping[str, Any]
SURE = 0.05  # corrected p below which two variants are told apart
CONTROL = 'random frozen'  # the same network, frozen as chance drew it, with a trained head
BEST = 'best observed'  # a reference beside those that a study names
SHOWN = ('accuracy', 'ece')  # beside the first headline metric


def correct_p_values(rows: Sequence[dict[str, Any]]) -> None:
  """Add `p_holm` to each paired difference.

  It is the p-value, corrected for the comparisons of one metric with one reference. A row's
  `differences` is {reference: {metric: interval}}, None where the row is the reference.
  """
  for reference in rows[0]['differences']:
    others = [row['differences'][reference] for row in rows if row['differences'][reference]]
    metrics_of = others[0] if others else ()
    for metric in metrics_of:
      intervals = [other[metric] for other in others]
      p = [math.nan if interval['p'] is None else interval['p'] for interval in intervals]
      for interval, corrected in zip(intervals, holm(p), strict=True):
        interval['p_holm'] = None if math.isnan(corrected) else corrected


def verdict(rows: Sequence[Row], metric: str) -> str:
  """Return one sentence: the best variant observed, which do not differ from it, which are worse.

  Rows hold differences to 'best observed': variant − best. Two variants are told apart where the
  Holm-corrected p is below SURE.
  """
  best = extreme(rows, metric)
  level = []
  worse = []
  for row in rows:
    differences = row['differences'][BEST]
    if not differences:
      continue
    gap = differences[metric]
    if gap['p_holm'] is not None and gap['p_holm'] < SURE:
      interval = f'[{gap["low"]:.3f}, {gap["high"]:.3f}]'
      worse.append(f'{row["name"]} ({gap["value"]:+.3f} {interval})')
    else:
      level.append(row['name'])
  value = console.words(best['metrics'][metric])
  parts = [f'{best["name"]} is the best observed ({LABELS[metric]} {value})']
  if level:
    verb = 'is' if len(level) == 1 else 'are'
    parts.append(f'{", ".join(level)} {verb} not distinguishable from it')
  if worse:
    parts.append(f'told apart from it: {", ".join(worse)}')
  return '; '.join(parts) + '.'


def transfer(rows: Sequence[Row], metric: str) -> list[str]:
  """Return the sentence that says in which variants the transfer helped; [] without a control.

  The control of a row is the same network, frozen as chance drew it. The transfer helped where the
  interval of the paired difference excludes 0.
  """
  helped: list[str] = []
  unclear: list[str] = []
  for row in rows:
    differences = row['differences'].get(CONTROL)
    if not differences:
      continue
    gap = differences[metric]
    # nothing is known of a difference without an interval
    bounds = (gap['low'], gap['high'])
    is_better = metrics.better(metric, gap['value'], 0.0)
    is_clear = None not in bounds and (bounds[0] > 0 or bounds[1] < 0)
    low_to_high = '' if gap['low'] is None else f' [{gap["low"]:.3f}, {gap["high"]:.3f}]'
    words = f'{row["name"]} ({gap["value"]:+.3f}{low_to_high})'
    (helped if is_better and is_clear else unclear).append(words)
  parts = []
  if helped:
    parts.append(f'against random frozen weights the transfer helped {", ".join(helped)}')
  if unclear:
    parts.append(f'it is not shown to have helped {", ".join(unclear)}')
  if not parts:
    return []
  sentence = '; '.join(parts)
  return [f'{sentence[0].upper()}{sentence[1:]} ({LABELS[metric]}, paired, 95 % intervals).']


def extreme(rows: Sequence[Row], metric: str) -> Row:
  """Return the row with the best value of the metric, which may be one where less is better."""
  best = rows[0]
  for row in rows[1:]:
    if metrics.better(metric, row['metrics'][metric]['value'], best['metrics'][metric]['value']):
      best = row
  return best


def shown_metrics(row: Row) -> list[str]:
  """Return the first headline metric, and what stands beside it."""
  first, *others = row['headline']
  beside = [name for name in SHOWN if name in row['metrics']]
  return [first, *(beside or others)]


def table(rows: Sequence[Row]) -> str:
  """Return the rows as plain text.

  The columns are the metrics that are shown, the paired differences of the first of them with
  Holm-corrected p, and what a variant cost.
  """
  shown = shown_metrics(rows[0])
  header = ['', *(LABELS[name] for name in shown)]
  header += [f'minus {reference}' for reference in rows[0]['differences']]
  header += ['live', 'GFLOP a step', 'seconds']
  lines = [header]
  for row in rows:
    line = [row['name']]
    line += [console.words(row['metrics'][name]) for name in shown]
    for differences in row['differences'].values():
      line.append(difference(differences[shown[0]]) if differences else '')
    line += [f'{row["live"]:,}', f'{row["flops"] / 1e9:.2f}', f'{row["seconds"]:.0f}']
    lines.append(line)
  title = console.over(rows[0])
  if rows[0]['seeds'] > 1:
    title += f', means over {rows[0]["seeds"]} seeds'
  text = [f'{title}; in brackets 95% intervals, p corrected after Holm']
  widths = [max(map(len, column)) + 2 for column in zip(*lines, strict=True)]
  for line in lines:
    cells = [f'{cell:<{width}}' for cell, width in zip(line, widths, strict=True)]
    text.append(''.join(cells).rstrip())
  return '\n'.join(text)


def difference(interval: Mapping[str, Any]) -> str:
  """Return '-0.031 (-0.060 to -0.004) p 0.020'."""
  p = interval['p_holm']
  words = console.words(interval)
  return words if p is None else f'{words} p {p:.3f}'


def csv(rows: Sequence[Row]) -> str:
  """Return the rows as csv: every metric and every difference with interval and p."""
  measured: list[str] = []
  for row in rows:
    for differences in row['differences'].values():
      if differences and not measured:
        measured = list(differences)
  lines = []
  for row in rows:
    cells = {}
    for name in ('name', 'freeze', 'live', 'flops', 'seconds', 'images', 'patients'):
      cells[name] = row[name]
    for name, interval in row['metrics'].items():
      for part in ('value', 'low', 'high'):
        cells[f'{name} {part}'] = interval[part]
    for reference, differences in row['differences'].items():
      for name in measured:
        for part in ('value', 'low', 'high', 'p', 'p_holm'):
          value = differences[name].get(part) if differences else None
          cells[f'{name} minus {reference} {part}'] = value
    lines.append(cells)
  return files.csv_text([list(lines[0]), *(list(cells.values()) for cells in lines)])


def chance(runs: int, first: Sequence[int]) -> str:
  """Return in words from which seeds a study's variants were run.

  Each variant was run `runs` times; `first` are the seeds of the first runs.

  >>> chance(1, [0]), chance(1, [0, 1]), chance(3, [5])
  ('seed 0', 'seeds 0, 1', 'means over 3 runs of each, from seeds 5 to 7')
  """
  if runs > 1:
    return f'means over {runs} runs of each, from seeds {first[0]} to {first[0] + runs - 1}'
  noun = 'seed' if len(first) == 1 else 'seeds'
  return f'{noun} {", ".join(map(str, first))}'


def spent(rows: Sequence[Row]) -> str:
  """Return what the seconds of all variants were spent on: 'train 612 s, evaluate 80 s, …'."""
  total: dict[str, float] = {}
  for row in rows:
    for name, seconds in row['spans'].items():
      total[name] = total.get(name, 0.0) + seconds
  longest_first = sorted(total.items(), key=lambda item: -item[1])
  return ', '.join(f'{name} {seconds:.0f} s' for name, seconds in longest_first if seconds >= 0.5)


def screened(screen: Mapping[str, Any]) -> list[str]:
  """Return in words how scores that need no training ranked the depths; [] without scores."""
  if not screen:
    return []
  name_of_depth = {row['depth']: row['name'] for row in screen['depths']}
  lines = []
  for score, agreement in screen['agreement'].items():
    rank = 'no rank correlation, since one of them is the same at all depths'
    if agreement['spearman'] is not None:
      rank = (
        f'rank correlation with the measured metric {agreement["spearman"]:+.2f} (Spearman), '
        f'{agreement["kendall"]:+.2f} (Kendall)'
      )
    chosen = name_of_depth[agreement['chosen']]
    lines.append(
      f'{score} over {agreement["depths"]} depths: {rank}; it would have chosen {chosen}'
    )
  own = ', '.join(f'{name} {value:.3f}' for name, value in screen['classifier'].items())
  if own:
    lines.append(f"the checkpoint's own classifier: {own}")
  return lines


def write(
  path: Path,
  rows: Sequence[Row],
  facts: Mapping[str, Any],
  screen: Mapping[str, Any],
  curves: label_efficiency.Curves | None = None,
  lines: Sequence[str] = (),
) -> None:
  """Write the study's page.

  `facts` are title, sentence, command, axis, warnings, hardware, versions and seconds; `screen`
  may be {}. `curves` are families of variants that differ in an amount, `lines` what is said of
  them.
  """
  shown = shown_metrics(rows[0])
  first = shown[0]
  axis = facts['axis']
  names = [row['name'] for row in rows]
  pictures = {}
  for name in shown:
    intervals = [row['metrics'][name] for row in rows]
    pictures[name] = figures.variants(names, intervals, LABELS[name], axis)
  if curves:
    interval_of = {row['name']: row['metrics'][first] for row in rows}
    points = {}
    for family, members in curves.items():
      points[family] = [(amount, interval_of[name]) for amount, name in sorted(members.items())]
    pictures['curves'] = figures.families(points, LABELS[first], axis)
  variables: dict[str, Any] = {'rows': rows, 'facts': facts, 'labels': LABELS}
  variables |= {'first': first, 'shown': shown, 'pictures': pictures, 'lines': lines}
  variables['over'] = console.over(rows[0])
  variables['verdict'] = [verdict(rows, first), *transfer(rows, first)]
  variables['spent'] = spent(rows)
  variables |= {'screen': screen, 'screened': screened(screen)}
  template = page.environment().get_template('study.html.j2')
  files.write(path, template.render(variables))
