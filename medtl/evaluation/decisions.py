"""From probabilities to what is said of each case, in a table that other programs read."""

from collections.abc import Sequence

import numpy as np

from medtl.core.types import Answers, Predictions
from medtl.evaluation import operating_points

BETWEEN = ('; ', ' | ', ' / ', '\n')  # between labels: the first sign that no label contains


def answers(
  predictions: Predictions,
  files: Sequence[str],
  classes: Sequence[str],
  *,
  val: Predictions,
  threshold: str,
  kind: str,
) -> Answers:
  """Return what is said of each file: the predicted class or labels, and all probabilities.

  `val` are the validation predictions, on which the rule `threshold` chooses thresholds.
  """
  said, how = _said(predictions.score, classes, val, threshold, kind)
  header, renamed = columns(classes)
  probabilities = predictions.score.astype(float).round(6).tolist()
  rows = [
    [file, answer, *numbers]
    for file, answer, numbers in zip(files, said, probabilities, strict=True)
  ]
  return Answers(header, rows, [how, *renamed])


def _said(
  score: np.ndarray, classes: Sequence[str], val: Predictions, threshold: str, kind: str
) -> tuple[list[str], str]:
  """Return (what is predicted of each picture, in words how probabilities [n, k] became that)."""
  cut = operating_points.class_thresholds(val, threshold, kind)
  if kind == 'multilabel':
    return _reached(score, classes, np.where(np.isnan(cut), 0.5, cut))
  said = [classes[number] for number in score.argmax(1)]
  if kind == 'ordinal':
    return said, 'predicted is the most probable grade'
  if kind == 'binary' and not np.isnan(cut[0]):
    return said, (
      'predicted is the more probable class; sensitivity and specificity in the report '
      f'are for P({classes[1]}) of at least {cut[0]:.4g}, which validation chose'
    )
  return said, 'predicted is the most probable class'


def _reached(score: np.ndarray, classes: Sequence[str], cut: np.ndarray) -> tuple[list[str], str]:
  """Return (the labels that reach their thresholds [k], joined; in words how they were found)."""
  between = next(
    (sign for sign in BETWEEN if not any(sign.strip(' ') in name for name in classes)), BETWEEN[-1]
  )
  said = []
  for row in score >= cut:
    reached = [name for name, enough in zip(classes, row, strict=True) if enough]
    said.append(between.join(reached))
  least = ', '.join(f'{name} {value:.4g}' for name, value in zip(classes, cut, strict=True))
  return said, (
    f'predicted holds each label that reaches its threshold, joined by {between!r}; '
    f'validation chose the thresholds (without one: 0.5): {least}'
  )


def columns(classes: Sequence[str]) -> tuple[list[str], list[str]]:
  """Return (names of the columns, no two alike; in words what was renamed for that).

  >>> columns(['file', 'cyst', 'cyst'])[0]
  ['file_', 'predicted', 'file', 'cyst', 'cyst (2)']
  """
  first = [_unused(word, classes) for word in ('file', 'predicted')]
  taken = list(first)
  for name in classes:
    count, column = 1, name
    while column in taken or (count > 1 and column in classes):
      count += 1
      column = f'{name} ({count})'
    taken.append(column)
  asked = ['file', 'predicted', *classes]
  renamed = [
    f'column {column!r} is what {word!r} would be, a name that another column has'
    for word, column in zip(asked, taken, strict=True)
    if word != column
  ]
  return taken, renamed


def _unused(word: str, names: Sequence[str]) -> str:
  """Return the word, with as many underscores as make it none of the names."""
  while word in names:
    word += '_'
  return word
