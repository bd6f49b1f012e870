"""What the page shows of a classifier: curves, confusion, numbers by class, its mistakes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from medtl.core.types import Predictions, Table
from medtl.evaluation.summary import PER_IMAGE, thresholds_of, worst_errors
from medtl.report import figures

Images = Callable[[int], np.ndarray | None] | None
MOST_CURVES = 12  # classes beyond which a figure of all of them says nothing


def content(
  numbers: Mapping[str, Any],
  predictions: Mapping[str, Predictions],
  tables: Mapping[str, Table],
  images: Images = None,
) -> dict[str, Any]:
  """Return the variables of classification.html.j2.

  `images(i)` is the picture x [*s, c] of the i-th test prediction, None where it has none; `images`
  is None where pictures are out of reach.
  """
  return {
    'drawn': drawn(numbers, predictions),
    'thresholds_by_fold': PER_IMAGE in predictions['test'].values,
    'errors': errors(numbers, predictions['test'], tables['test'], images),
    'shown': images is not None,
  }


def drawn(numbers: Mapping[str, Any], predictions: Mapping[str, Predictions]) -> dict[str, str]:
  """Return {name: data URI} of the figures that these predictions allow."""
  kind = numbers['kind']
  classes = numbers['classes']
  test = predictions['test']
  cut = thresholds_of(test, predictions.get('val'), numbers['threshold'], kind)
  pictures = {'reliability': figures.reliability(test)}
  if len(classes) <= MOST_CURVES:
    pictures['roc'] = figures.roc(test, cut, kind, classes)
    pictures['precision_recall'] = figures.precision_recall(test, cut, kind, classes)
  return pictures


def errors(
  numbers: Mapping[str, Any], predictions: Predictions, table: Table, images: Images
) -> list[dict[str, Any]]:
  """Return the most confident mistakes in words, with their pictures where these can be had."""
  classes = numbers['classes']
  mistakes = []
  for mistake in worst_errors(predictions, numbers['kind']):
    index = mistake['index']
    predicted = classes[mistake['predicted']]
    p = mistake['p']
    if numbers['kind'] != 'multilabel':
      true = classes[mistake['true']]
    elif mistake['true']:
      true = predicted
      predicted = f'no {true}'
      p = max(p, 1 - p)
    else:
      true = f'no {predicted}'
      p = max(p, 1 - p)
    picture = images(index) if images else None
    where = [f'{name} {table[name][index]}' for name in ('file', 'patient') if name in table]
    words = {'true': true, 'said': predicted, 'p': p, 'p_true': mistake['p_true']}
    words['where'] = where or [f'row {mistake["row"]}']
    words['picture'] = '' if picture is None else figures.picture(picture)
    mistakes.append(words)
  return mistakes
