"""Handles files that stand in several rows of a manifest: one row a reader, or one row a box.

What the rows mean, `data.repeated` must say.
"""

import collections
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from medtl.core.types import MedtlError

MEANINGS = ('', 'first', 'majority', 'box')
BOX = ('x', 'y', 'w', 'h')  # columns: left, top, width, height in pixels of the stored picture
SPELT_OUT = ('x', 'y', 'width', 'height')  # the same, as RSNA writes them

Groups = dict[str, list[int]]  # file → its rows


def rows_by_file(files: Sequence[str]) -> Groups:
  """Return the rows of each file; files are in the order of their first rows."""
  rows_of: Groups = {}
  for row, name in enumerate(files):
    rows_of.setdefault(name, []).append(row)
  return rows_of


def check_meaning(groups: Groups, raw: np.ndarray) -> None:
  """Raise a MedtlError where a file stands in several rows; `raw` are the labels, [n] or [n, k]."""
  repeated = {name: rows for name, rows in groups.items() if len(rows) > 1}
  if not repeated:
    return
  labels_of = contradicting(groups, raw)
  if labels_of:
    first = next(iter(labels_of))
    shown = f', {len(labels_of)} with more than one label (first {first}: {labels_of[first]})'
  else:
    shown = f' (first {next(iter(repeated))})'
  raise MedtlError(
    f'{len(raw)} rows name {len(groups)} files: {len(repeated)} files stand in several rows{shown}'
    ". Say what the rows mean: data.repeated='first' takes each file's first row, 'majority' the "
    "label that most of its rows have, 'box' cuts a picture out for each row by columns x, y, w, h "
    '(in pixels)'
  )


def contradicting(groups: Groups, raw: np.ndarray) -> dict[str, str]:
  """Return {file: its labels in words} for the files whose rows have more than one label."""
  labels_of = {}
  for name, rows in groups.items():
    if len(np.unique(raw[rows], axis=0)) > 1:
      labels_of[name] = _shown(raw[rows])
  return labels_of


def _shown(labels: np.ndarray) -> str:
  """Return labels [n] or [n, k] in words, each once."""
  words = [' '.join(map(str, np.atleast_1d(label).tolist())) for label in labels]
  return ', '.join(dict.fromkeys(words))


def check_equal(groups: Groups, column: np.ndarray, what: str) -> None:
  """Raise a MedtlError where rows of one file differ in a column that must be the same in all."""
  for name, rows in groups.items():
    values = sorted(set(column[rows].tolist()))
    if len(values) > 1:
      shown = ', '.join(map(repr, values[:4]))
      raise MedtlError(
        f'{name} stands in {len(rows)} rows with {len(values)} {what}: {shown}; expected one, mend '
        'the manifest'
      )


def majority(groups: Groups, raw: np.ndarray) -> np.ndarray:
  """Return the label that most rows of each file have, [files], or [files, k] column by column.

  Raises MedtlError for ties.
  """
  votes = raw.reshape(len(raw), -1)
  chosen = np.empty((len(groups), votes.shape[1]), raw.dtype)
  ties: list[str] = []
  for place, (name, rows) in enumerate(groups.items()):
    for column in range(votes.shape[1]):
      ranked = collections.Counter(votes[rows, column].tolist()).most_common(2)
      label, count = ranked[0]
      chosen[place, column] = label
      if len(ranked) > 1:
        other, other_count = ranked[1]
        if other_count == count:
          ties.append(f'{name}: {label} and {other}, {count} rows each')
  if ties:
    raise MedtlError(
      f'{len(ties)} files have no majority, first {ties[0]}; leave them out, write a decision into '
      "the manifest, or take each file's first row (data.repeated='first')"
    )
  return chosen.reshape(len(groups), *raw.shape[1:])


def box_columns(names: Collection[str]) -> tuple[str, ...]:
  """Return the columns that hold boxes, () where there are none."""
  for columns in (BOX, SPELT_OUT):
    if all(name in names for name in columns):
      return columns
  return ()


def boxes(columns: Mapping[str, np.ndarray], files: Sequence[str]) -> np.ndarray:
  """Return int [n, 4] of left, top, right, bottom from the columns x, y, w, h.

  Raises MedtlError for a row without a box.
  """
  text = np.stack([columns[name] for name in box_columns(columns)], axis=1)
  try:
    values = np.where(text == '', 'nan', text).astype(float)
  except ValueError as error:
    raise MedtlError(
      f'a box holds no number: {error}; expected columns x, y, w, h in pixels'
    ) from None
  is_finite = np.isfinite(values).all(axis=1)
  has_size = (values[:, 2:] > 0).all(axis=1)
  wrong = np.flatnonzero(~(is_finite & has_size))
  if len(wrong):
    raise MedtlError(
      f'{len(wrong)} rows have no box of a size above 0, first that of {files[wrong[0]]}; leave '
      'these rows out (whole pictures beside cut ones are told apart by that alone), or set '
      "data.repeated='first'"
    )
  if values.max() <= 1:
    raise MedtlError(
      'the boxes lie in 0 … 1, as shares of the picture; expected x, y, w, h in pixels: '
      'multiply them'
    )
  left, top, width, height = values.T
  edges = np.stack([left, top, left + width, top + height], axis=1)
  return edges.round().astype(int)


def cut(x: np.ndarray, box: np.ndarray, name: str) -> np.ndarray:
  """Return the part [h, w, c] of a picture x that a box (left, top, right, bottom) holds.

  Raises OSError where the box extends beyond the picture.
  """
  left, top, right, bottom = (int(value) for value in box)
  height, width = x.shape[:2]
  if left < 0 or top < 0 or right > width or bottom > height:
    raise OSError(
      f'the box x {left} … {right}, y {top} … {bottom} of {name} does not lie in its picture of '
      f'{width} × {height} pixels'
    )
  return x[top:bottom, left:right]
