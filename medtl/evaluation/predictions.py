"""State × batches → Predictions: every example once, padding dropped."""

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from medtl.core.types import Batch, Dataset, MedtlError, Predictions, Table, Tree
from medtl.runtime import multihost
from medtl.runtime.files import atomic_write

SCORE = 'score'
OWN = ('train', 'val', 'test')  # sides of the run's own data
Maps = Mapping[str, Mapping[int, np.ndarray]]  # name -> row -> uint8 [h, w]
Measure = Callable[[Tree, Tree, Batch], dict[str, jax.Array]]


def predict(
  measure: Measure, params: Tree, extra: Tree, batches: Iterable[Batch], table: Table
) -> Predictions:
  """Return what `measure` gives for all unmasked rows, in the order of the batches.

  Labels are those of the data set's `table`. A score that is not finite is an error.
  """
  parts: list[dict[str, np.ndarray]] = []
  pending = None
  for batch in batches:
    before = pending
    pending = (batch, measure(params, extra, batch))
    if before:  # the device works on this batch while the host reads the one before
      parts.append(_real(*before))
  if pending is None:
    raise MedtlError('nothing to predict: the data set is empty')
  parts.append(_real(*pending))
  values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  row = values.pop('row')
  if SCORE in values:
    _stop_infinite(values[SCORE], row)
  return Predictions(row, _labels(table, row), values)


def maps(
  dense: Measure, params: Tree, extra: Tree, batches: Iterable[Batch]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
  """Yield (row, {name: map [*s]}) of each unmasked row; cases may differ in shape."""
  for batch in batches:
    values = _real(batch, dense(params, extra, batch))
    rows = values.pop('row').tolist()
    for place, row in enumerate(rows):
      yield row, {name: value[place] for name, value in values.items()}


def _stop_infinite(score: np.ndarray, row: np.ndarray) -> None:
  bad = ~np.isfinite(score).reshape(len(row), -1).all(1)
  if bad.any():
    raise MedtlError(
      f'{bad.sum()} of {len(bad)} predictions are not finite, first at row {row[bad][0]}: '
      'the parameters have diverged or an image holds extreme values'
    )


def _labels(table: Table, row: np.ndarray) -> np.ndarray:
  """Return the labels of rows, as a batch holds them."""
  place_of = {int(number): place for place, number in enumerate(table['row'])}
  places = [place_of[int(number)] for number in row]
  y = np.asarray(table['y'])[places]
  return y.astype(np.float32 if y.dtype.kind == 'f' else np.int32)


def _real(batch: Batch, values: dict[str, jax.Array]) -> dict[str, np.ndarray]:
  mask, numbers = multihost.to_numpy((batch.mask, {**values, 'row': batch.row}))
  return {name: value[mask] for name, value in numbers.items()}


def save(
  path: Path,
  predictions: Predictions,
  dataset: Dataset,
  shown: Sequence[int] = (),
  dense: Mapping[int, Mapping[str, np.ndarray]] | None = None,
) -> None:
  """Write predictions with their rows of the table, and small pictures of the `shown` ones.

  `shown` are places in the predictions. `dense` are the maps that were predicted of them,
  {row: {name: [*s]}}; with masks, the true ones are kept beside them. An example without spatial
  axes has no picture. A report reads this file and nothing else of the data.
  """
  where = {int(row): index for index, row in enumerate(dataset.table['row'])}
  index = np.array([where[int(row)] for row in predictions.row])
  table = {name: column[index] for name, column in dataset.table.items()}
  pictures = {}
  truth = {}
  for place in shown:
    example = dataset.fetch(int(index[place]))
    if example.x.ndim > 1:
      pictures[example.row] = _small(example.x)
    truth[example.row] = np.asarray(example.y)
  kept: dict[str, dict[int, np.ndarray]] = {}
  for row, own in (dense or {}).items():
    for name, values in own.items():
      kept.setdefault(name, {})[row] = _thin(values)
  if dataset.masks:
    kept['truth'] = {row: _thin(mask) for row, mask in truth.items()}
  _write(path, predictions, table, dataset.classes, pictures, kept)


def pooled(parts: Sequence['Saved'], path: Path, *, may_repeat: bool = False) -> None:
  """Write the out-of-fold predictions of all folds as one file, ordered by row.

  A row in two folds is a MedtlError, or with `may_repeat` stands as the first of them has it.
  """
  row = np.concatenate([part.predictions.row for part in parts])
  distinct, order = np.unique(row, return_index=True)
  repeated = len(row) - len(distinct)
  if repeated and not may_repeat:
    raise MedtlError(
      f'{repeated} rows are in more than one fold: the folds do not come from one split'
    )
  y = np.concatenate([part.predictions.y for part in parts])[order]
  values = {}
  for name in parts[0].predictions.values:
    values[name] = np.concatenate([part.predictions.values[name] for part in parts])[order]
  table = {}
  for name in parts[0].table:
    table[name] = np.concatenate([part.table[name] for part in parts])[order]
  pictures: dict[int, np.ndarray] = {}
  kept: dict[str, dict[int, np.ndarray]] = {}
  for part in reversed(parts):  # so that the first fold of a row has the last word
    pictures.update(part.pictures)
    for name, map_of_row in part.maps.items():
      kept.setdefault(name, {}).update(map_of_row)
  _write(path, Predictions(distinct, y, values), table, parts[0].classes, pictures, kept)


def _write(
  path: Path,
  predictions: Predictions,
  table: Table,
  classes: Sequence[str],
  pictures: Mapping[int, np.ndarray],
  kept: Maps,
) -> None:
  arrays: dict[str, Any] = {'row': predictions.row, 'y': predictions.y}
  arrays['classes'] = np.array(classes)
  for row, picture in pictures.items():
    arrays[f'picture/{row}'] = picture
  for name, map_of_row in kept.items():
    for row, values in map_of_row.items():
      arrays[f'map/{name}/{row}'] = values
  for name, value in predictions.values.items():
    arrays[_key(name)] = value
  for name, column in table.items():
    arrays[f'table/{name}'] = _plain(column)
  with atomic_write(path) as aside, aside.open('wb') as file:
    np.savez_compressed(file, **arrays)


def _key(name: str) -> str:
  """Return the name of a value in the file; scores stood there before there was anything else."""
  return name if name == SCORE else f'measure/{name}'


def _small(x: np.ndarray) -> np.ndarray:
  """Return a picture as uint8 [h, w, c], of a volume its middle slice, thinned.

  What holds numbers outside 0 … 1, as a standardised MRI does, is shown from its least to its most.
  """
  thin = _thin(x, channels=1)
  if thin.min() < 0 or thin.max() > 1:
    thin = (thin - thin.min()) / max(np.ptp(thin), 1e-8)
  return np.clip(thin * 255, 0, 255).astype(np.uint8)


def _thin(values: np.ndarray, channels: int = 0, most: int = 256) -> np.ndarray:
  """Return every n-th point of [h, w, …], of a volume's middle slice, at most `most` a side.

  `channels` is how many axes follow the spatial ones.
  """
  while values.ndim > 2 + channels:
    values = values[values.shape[0] // 2]
  thin = -(-max(values.shape[:2]) // most)
  return values[::thin, ::thin]


def _plain(column: np.ndarray) -> np.ndarray:
  return column.astype(str) if column.dtype == object else column


class Saved(NamedTuple):
  """What `save` wrote, the table in the predictions' order."""

  predictions: Predictions
  table: Table
  classes: tuple[str, ...]
  pictures: dict[int, np.ndarray]  # row -> uint8 [h, w, c]
  maps: Maps  # 'truth' and what was predicted, of the same rows and size


def load(path: Path) -> Saved:
  """Return what `save` wrote."""
  if not path.exists():
    raise MedtlError(f'no predictions at {path}; run the verb evaluate on this run folder first')
  try:
    return _loaded(path)
  except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
    again = f'start evaluate with --name={path.stem} again'
    if path.stem in OWN:
      again = (
        'delete numbers.json, if it is there, and start the training command again: it '
        'writes them anew, and trains no step again'
      )
    raise MedtlError(f'the predictions {path} are damaged ({error}); {again}') from None


def _loaded(path: Path) -> Saved:
  with np.load(path, allow_pickle=False) as file:
    arrays = {name: file[name] for name in file.files}
  values = _named(arrays, 'measure/')
  if SCORE in arrays:
    values = {SCORE: arrays[SCORE], **values}
  pictures = {int(row): x for row, x in _named(arrays, 'picture/').items()}
  kept: dict[str, dict[int, np.ndarray]] = {}
  for key, map_of_row in _named(arrays, 'map/').items():
    name, _, row = key.partition('/')
    kept.setdefault(name, {})[int(row)] = map_of_row
  predictions = Predictions(arrays['row'], arrays['y'], values)
  classes = tuple(str(name) for name in arrays['classes'])
  return Saved(predictions, _named(arrays, 'table/'), classes, pictures, kept)


def _named(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
  """Return the arrays whose names begin with a prefix, without it."""
  return {
    name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)
  }
