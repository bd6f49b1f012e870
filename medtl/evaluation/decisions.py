"""From probabilities to what is said of each case: the columns and rows of predictions.csv."""

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
  predicted, how = _predicted(predictions.score, classes, val, threshold, kind)
  header, renamed = columns(classes)
  probabilities = predictions.score.astype(float).round(6).tolist()
  rows = []
  for file, answer, numbers in zip(files, predicted, probabilities, strict=True):
    rows.append([file, answer, *numbers])
  return Answers(header, rows, [how, *renamed])


def _predicted(
  score: np.ndarray, classes: Sequence[str], val: Predictions, threshold: str, kind: str
) -> tuple[list[str], str]:
  """Return (what is predicted of each picture, in words how probabilities [n, k] became that)."""
  cut = operating_points.class_thresholds(val, threshold, kind)
  if kind == 'multilabel':
    return _reached(score, classes, np.where(np.isnan(cut), 0.5, cut))
  predicted = [classes[number] for number in score.argmax(1)]
  if kind == 'ordinal':
    return predicted, 'predicted is the most probable grade'
  if kind == 'binary' and not np.isnan(cut[0]):
    return predicted, (
      'predicted is the more probable class; sensitivity and specificity in the report '
      f'are for P({classes[1]}) of at least {cut[0]:.4g}, which validation chose'
    )
  return predicted, 'predicted is the most probable class'


def _reached(score: np.ndarray, classes: Sequence[str], cut: np.ndarray) -> tuple[list[str], str]:
  """Return (the labels that reach their thresholds [k], joined; in words how they were found)."""
  between = _sign_between(classes)
  predicted = []
  for row in score >= cut:
    reached = [name for name, enough in zip(classes, row, strict=True) if enough]
    predicted.append(between.join(reached))
  least = ', '.join(f'{name} {value:.4g}' for name, value in zip(classes, cut, strict=True))
  return predicted, (
    f'predicted holds each label that reaches its threshold, joined by {between!r}; '
    f'validation chose the thresholds (without one: 0.5): {least}'
  )


def _sign_between(classes: Sequence[str]) -> str:
  """Return the first sign of BETWEEN that no label contains, else the last."""
  for sign in BETWEEN:
    if not any(sign.strip(' ') in name for name in classes):
      return sign
  return BETWEEN[-1]


def columns(classes: Sequence[str]) -> tuple[list[str], list[str]]:
  """Return (names of the columns, no two alike; in words what was renamed for that).

  >>> columns(['file', 'cyst', 'cyst'])[0]
  ['file_', 'predicted', 'file', 'cyst', 'cyst (2)']
  >>> columns(['cyst', 'cyst', 'cyst (2)'])[0]
  ['file', 'predicted', 'cyst', 'cyst (3)', 'cyst (2)']
  """
  taken = [_unused(word, classes) for word in ('file', 'predicted')]
  for name in classes:
    count = 1
    column = name
    while column in taken or (count > 1 and column in classes):
      count += 1
      column = f'{name} ({count})'
    taken.append(column)
  renamed = []
  for word, column in zip(['file', 'predicted', *classes], taken, strict=True):
    if word != column:
      renamed.append(f'column {column!r} is what {word!r} would be, a name that another column has')
  return taken, renamed


def _unused(word: str, names: Sequence[str]) -> str:
  """Return the word, with as many underscores as make it none of the names."""
  while word in names:
    word += '_'
  return word
