"""Many variants of one run → one table, one plot, one sentence that claims no more than the intervals allow."""

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
BEST = 'best observed'  # a reference beside those that a study names
SHOWN = ('accuracy', 'ece')  # beside the first headline metric


def correct_p_values(rows: Sequence[dict[str, Any]]) -> None:
  """Add `p_holm` to each paired difference: corrected for the comparisons of one metric with one reference.

  A row's `differences` is {reference: {metric: interval}}, None where the row is the reference.
  """
  for reference in rows[0]['differences']:
    others = [row['differences'][reference] for row in rows if row['differences'][reference]]
    for metric in others[0] if others else ():
      p = [float('nan') if found[metric]['p'] is None else found[metric]['p'] for found in others]
      for found, value in zip(others, holm(p), strict=True):
        found[metric]['p_holm'] = None if value != value else value


def verdict(rows: Sequence[Row], metric: str) -> str:
  """Return one sentence: the best variant observed, what is not distinguishable from it, what is worse and by how much.

  Rows hold differences to 'best observed': variant − best. Two variants are told apart where the Holm-corrected p is below 0.05.
  """
  best = extreme(rows, metric)
  others = [
    (row['name'], row['differences'][BEST][metric]) for row in rows if row['differences'][BEST]
  ]
  worse = [
    (name, found)
    for name, found in others
    if found['p_holm'] is not None and found['p_holm'] < SURE
  ]
  level = [name for name, _ in others if name not in dict(worse)]
  words = [
    f'{best["name"]} is the best observed ({LABELS[metric]} {console.words(best["metrics"][metric])})'
  ]
  if level:
    words.append(
      f'{", ".join(level)} {"is" if len(level) == 1 else "are"} not distinguishable from it'
    )
  if worse:
    words.append(
      'told apart from it: '
      + ', '.join(
        f'{name} ({found["value"]:+.3f} [{found["low"]:.3f}, {found["high"]:.3f}])'
        for name, found in worse
      )
    )
  return '; '.join(words) + '.'


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
  """Return the rows as plain text: the first headline metric, its paired differences with Holm-corrected p, and what it cost."""
  shown = shown_metrics(rows[0])
  first = shown[0]
  columns = [LABELS[name] for name in shown] + [
    f'minus {reference}' for reference in rows[0]['differences']
  ]
  cells = [['', *columns, 'live', 'GFLOP a step', 'seconds']]
  for row in rows:
    beside = [difference(found[first]) if found else '' for found in row['differences'].values()]
    cells.append(
      [
        row['name'],
        *(console.words(row['metrics'][name]) for name in shown),
        *beside,
        f'{row["live"]:,}',
        f'{row["flops"] / 1e9:.2f}',
        f'{row["seconds"]:.0f}',
      ]
    )
  wide = [max(len(line[i]) for line in cells) + 2 for i in range(len(cells[0]))]
  over = console.over(rows[0]) + (
    f', means over {rows[0]["seeds"]} seeds' if rows[0]['seeds'] > 1 else ''
  )
  return '\n'.join(
    [
      f'{over}; in brackets 95% intervals, p corrected after Holm',
      *(
        ''.join(f'{cell:<{width}}' for cell, width in zip(line, wide, strict=True)).rstrip()
        for line in cells
      ),
    ]
  )


def difference(found: Mapping[str, Any]) -> str:
  """Return '-0.031 (-0.060 to -0.004) p .02'."""
  p = found['p_holm']
  return console.words(found) + ('' if p is None else f' p {p:.3f}')


def csv(rows: Sequence[Row]) -> str:
  """Return the rows as csv: every metric and every difference with interval and p."""
  flat, measured = (
    [],
    list(next((found for row in rows for found in row['differences'].values() if found), ())),
  )
  for row in rows:
    cells = {
      name: row[name]
      for name in ('name', 'freeze', 'live', 'flops', 'seconds', 'images', 'patients')
    }
    cells |= {
      f'{name} {part}': value[part]
      for name, value in row['metrics'].items()
      for part in ('value', 'low', 'high')
    }
    for reference, found in row['differences'].items():
      cells |= {
        f'{name} minus {reference} {part}': found and found[name].get(part)
        for name in measured
        for part in ('value', 'low', 'high', 'p', 'p_holm')
      }
    flat.append(cells)
  return files.csv_text([list(flat[0]), *(list(cells.values()) for cells in flat)])


def chance(runs: int, first: Sequence[int]) -> str:
  """Return from which seeds a study's variants were run; `first` are those of each variant's first run.

  >>> chance(1, [0]), chance(1, [0, 1]), chance(3, [5])
  ('seed 0', 'seeds 0, 1', 'means over 3 runs of each, from seeds 5 to 7')
  """
  if runs > 1:
    return f'means over {runs} runs of each, from seeds {first[0]} to {first[0] + runs - 1}'
  return f'seed{"s" * (len(first) > 1)} {", ".join(map(str, first))}'


def spent(rows: Sequence[Row]) -> str:
  """Return what the seconds of all variants were spent on: 'train 612 s, evaluate 80 s, …'."""
  total: dict[str, float] = {}
  for row in rows:
    for name, seconds in row['spans'].items():
      total[name] = total.get(name, 0.0) + seconds
  return ', '.join(
    f'{name} {seconds:.0f} s'
    for name, seconds in sorted(total.items(), key=lambda item: -item[1])
    if seconds >= 0.5
  )


def screened(found: Mapping[str, Any]) -> list[str]:
  """Return in words how scores that need no training ranked the depths; nothing where there are none."""
  if not found:
    return []
  named = {row['depth']: row['name'] for row in found['depths']}
  lines = []
  for name, told in found['agreement'].items():
    rank = (
      'no rank correlation, since one of them is the same at all depths'
      if told['spearman'] is None
      else f'rank correlation with the measured metric {told["spearman"]:+.2f} (Spearman), {told["kendall"]:+.2f} (Kendall)'
    )
    lines.append(
      f'{name} over {told["depths"]} depths: {rank}; it would have chosen {named[told["chosen"]]}'
    )
  own = ', '.join(f'{name} {value:.3f}' for name, value in found['classifier'].items())
  return lines + ([f"the checkpoint's own classifier: {own}"] if own else [])


def write(
  path: Path,
  rows: Sequence[Row],
  facts: Mapping[str, Any],
  screen: Mapping[str, Any],
  curves: label_efficiency.Curves | None = None,
  lines: Sequence[str] = (),
) -> None:
  """Write the study's page: `facts` are title, sentence, command, axis, warnings, hardware, versions, seconds; `screen` may be {}.

  `curves` are families of variants that differ in an amount, `lines` what is said of them.
  """
  shown = shown_metrics(rows[0])
  first = shown[0]
  names = [row['name'] for row in rows]
  pictures = {
    name: figures.variants(
      names, [row['metrics'][name] for row in rows], LABELS[name], facts['axis']
    )
    for name in shown
  }
  if curves:
    found = {row['name']: row['metrics'][first] for row in rows}
    points = {
      family: [(amount, found[name]) for amount, name in sorted(members.items())]
      for family, members in curves.items()
    }
    pictures['curves'] = figures.families(points, LABELS[first], facts['axis'])
  files.write(
    path,
    page.environment()
    .get_template('study.html.j2')
    .render(
      rows=rows,
      facts=facts,
      first=first,
      shown=shown,
      labels=LABELS,
      over=console.over(rows[0]),
      pictures=pictures,
      verdict=verdict(rows, first),
      spent=spent(rows),
      screen=screen,
      screened=screened(screen),
      lines=lines,
    ),
  )
