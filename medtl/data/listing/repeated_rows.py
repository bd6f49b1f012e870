"""Files in several rows of a manifest: a row a reader, or a row a box. What they mean is asked."""

import collections
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from medtl.core.types import MedtlError

MEANINGS = ('', 'first', 'majority', 'box')
BOX = ('x', 'y', 'w', 'h')  # columns: left, top, width, height in pixels of the stored picture
SPELT_OUT = ('x', 'y', 'width', 'height')  # or so, as RSNA writes them

Groups = dict[str, list[int]]  # file → its rows


def groups(files: Sequence[str]) -> Groups:
  """Return the rows of each file, in the order in which files come."""
  found: Groups = {}
  for row, name in enumerate(files):
    found.setdefault(name, []).append(row)
  return found


def ask(found: Groups, raw: np.ndarray) -> None:
  """Raise a MedtlError where a file stands in several rows; `raw` are the labels, [n] or [n, k]."""
  several = {name: rows for name, rows in found.items() if len(rows) > 1}
  if not several:
    return
  torn = contradicting(found, raw)
  first = next(iter(torn or several))
  labels = (
    f', {len(torn)} with more than one label (first {first}: {torn[first]})'
    if torn
    else f' (first {first})'
  )
  raise MedtlError(
    f'{len(raw)} rows name {len(found)} files: {len(several)} files stand in several rows{labels}. '
    "Say what the rows mean: data.repeated='first' takes each file's first row, 'majority' the "
    'label that '
    "most of its rows have, 'box' cuts a picture out for each row by columns x, y, w, h (in pixels)"
  )


def contradicting(found: Groups, raw: np.ndarray) -> dict[str, str]:
  """Return {file: its labels in words} of the files whose rows have more than one label."""
  torn = {}
  for name, rows in found.items():
    if len(np.unique(raw[rows], axis=0)) > 1:
      torn[name] = _shown(raw[rows])
  return torn


def _shown(labels: np.ndarray) -> str:
  words = [' '.join(map(str, np.atleast_1d(label).tolist())) for label in labels]
  return ', '.join(dict.fromkeys(words))


def agree(found: Groups, column: np.ndarray, what: str) -> None:
  """Raise a MedtlError where rows of one file differ in a column that a file has one value of."""
  for name, rows in found.items():
    values = sorted(set(column[rows].tolist()))
    if len(values) > 1:
      raise MedtlError(
        f'{name} stands in {len(rows)} rows with {len(values)} {what}: '
        f'{", ".join(map(repr, values[:4]))}; '
        'expected one, mend the manifest'
      )


def majority(found: Groups, raw: np.ndarray) -> np.ndarray:
  """Return the label that most rows of each file have, [files], or [files, k] column by column.

  Raises MedtlError for ties.
  """
  votes = raw.reshape(len(raw), -1)
  chosen = np.empty((len(found), votes.shape[1]), raw.dtype)
  ties: list[str] = []
  for place, (name, rows) in enumerate(found.items()):
    for column in range(votes.shape[1]):
      ranked = collections.Counter(votes[rows, column].tolist()).most_common(2)
      chosen[place, column], count = ranked[0]
      if len(ranked) > 1 and ranked[1][1] == count:
        ties.append(f'{name}: {ranked[0][0]} and {ranked[1][0]}, {count} rows each')
  if ties:
    raise MedtlError(
      f'{len(ties)} files have no majority, first {ties[0]}; leave them out, write a decision into '
      'the '
      "manifest, or take each file's first row (data.repeated='first')"
    )
  return chosen.reshape(len(found), *raw.shape[1:])


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
  wrong = np.flatnonzero(~(np.isfinite(values).all(axis=1) & (values[:, 2:] > 0).all(axis=1)))
  if len(wrong):
    raise MedtlError(
      f'{len(wrong)} rows have no box of a size above 0, first that of {files[wrong[0]]}; leave '
      'these rows out '
      "(whole pictures beside cut ones are told apart by that alone), or set data.repeated='first'"
    )
  if values.max() <= 1:
    raise MedtlError(
      'the boxes lie in 0 … 1, as shares of the picture; expected x, y, w, h in pixels: multiply them'
    )
  left, top, width, height = values.T
  return np.stack([left, top, left + width, top + height], axis=1).round().astype(int)


def cut(x: np.ndarray, box: np.ndarray, name: str) -> np.ndarray:
  """Return the part [h, w, c] of a picture x that a box (left, top, right, bottom) holds.

  Raises OSError where the box sticks out.
  """
  left, top, right, bottom = (int(value) for value in box)
  height, width = x.shape[:2]
  if left < 0 or top < 0 or right > width or bottom > height:
    raise OSError(
      f'the box x {left} … {right}, y {top} … {bottom} of {name} '
      'does not lie in its picture of '
      f'{width} × {height} pixels'
    )
  return x[top:bottom, left:right]
