"""ROOM 6. State × batches → Predictions: every example once, padding dropped."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import numpy as np

from medtl.types import Batch, MedtlError, Predictions, Table, Tree

Measure = Callable[[Tree, Tree, Batch], dict[str, jax.Array]]


def predict(measure: Measure, params: Tree, extra: Tree, batches: Iterable[Batch]) -> Predictions:
  """Return the predictions of all unmasked rows, in the order of the batches; a non-finite score is an error."""
  parts: list[dict[str, np.ndarray]] = []
  pending = None
  for batch in batches:
    last, pending = pending, (batch, measure(params, extra, batch))      # the device works while the host reads the one before
    if last:
      parts.append(_real(*last))
  if pending is None:
    raise MedtlError('nothing to predict: the data set is empty')
  parts.append(_real(*pending))
  joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  bad = ~np.isfinite(joined['score']).reshape(len(joined['row']), -1).all(1)
  if bad.any():
    raise MedtlError(f'{bad.sum()} of {len(bad)} predictions are not finite, first at row {joined["row"][bad][0]}: '
                     'the parameters have diverged or an image holds extreme values')
  return Predictions(joined.pop('row'), joined.pop('y'), joined.pop('score'), joined)


def _real(batch: Batch, measures: dict[str, jax.Array]) -> dict[str, np.ndarray]:
  mask = np.asarray(batch.mask)
  values = {**jax.device_get(measures), 'row': np.asarray(batch.row), 'y': np.asarray(batch.y)}
  return {name: value[mask] for name, value in values.items()}


def average(members: Sequence[Predictions]) -> Predictions:
  """Return the ensemble: the mean of the members' scores, row by row; all members must have predicted the same rows."""
  first = members[0]
  if any(not np.array_equal(member.row, first.row) for member in members):
    raise MedtlError('the members of an ensemble predicted different rows; evaluate all of them on the same data')
  return Predictions(first.row, first.y, np.mean([member.score for member in members], axis=0))


def pool(folds: Sequence[Predictions]) -> Predictions:
  """Return the out-of-fold predictions of all folds as one, ordered by row; a row in two folds is an error."""
  row = np.concatenate([fold.row for fold in folds])
  if len(np.unique(row)) < len(row):
    raise MedtlError(f'{len(row) - len(np.unique(row))} rows are in more than one fold: the folds do not come from one split')
  order = np.argsort(row)
  join = [np.concatenate([getattr(fold, name) for fold in folds])[order] for name in ('row', 'y', 'score')]
  return Predictions(*join)


def save(path: Path, predictions: Predictions, table: Table, classes: Sequence[str]) -> None:
  """Write predictions with the rows of the table that they belong to: a run folder is all that a report needs."""
  path.parent.mkdir(parents=True, exist_ok=True)
  where = {int(row): index for index, row in enumerate(table['row'])}
  index = np.array([where[int(row)] for row in predictions.row])
  aside = path.with_suffix('.part')
  with aside.open('wb') as file:
    np.savez(file, row=predictions.row, y=predictions.y, score=predictions.score, classes=np.array(classes),
             **{f'measure/{name}': value for name, value in predictions.measures.items()},
             **{f'table/{name}': _plain(column[index]) for name, column in table.items()})
  aside.replace(path)


def _plain(column: np.ndarray) -> np.ndarray:
  return column.astype(str) if column.dtype == object else column


def load(path: Path) -> tuple[Predictions, Table]:
  """Return what `save` wrote: predictions, and the table in the same order."""
  if not path.exists():
    raise MedtlError(f'no predictions at {path}; run the verb evaluate on this run folder first')
  with np.load(path, allow_pickle=False) as file:
    part = {prefix: {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}
            for prefix in ('measure/', 'table/')}
    return Predictions(file['row'], file['y'], file['score'], part['measure/']), part['table/']
