"""What people write as a label, or as nothing: classes, their order, words for missing values."""

import collections
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError

# What R, pandas, SAS, Excel and people write where there is no value; capitals do not matter.
MISSING = (
  'NA',
  'N/A',
  'NaN',
  'null',
  'none',
  'nil',
  'NaT',
  '<NA>',
  '#N/A',
  '#NA',
  '#NULL!',
  '#N/A N/A',
  '-NaN',
  '1.#QNAN',
  '1.#IND',
  '-1.#IND',
  '-1.#QNAN',
  '?',
  '-',
  '--',
  '.',
)
NUMBER = re.compile(r'[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?')  # no leading zeros: 007 is a name
INVISIBLE = '\u200b\u200c\u200d\u2060\ufeff\u00ad'  # signs of no width
GIVEN, NUMBERS, ALPHABET = 'given', 'numbers', 'alphabet'  # how the order of classes was found


class Labels(NamedTuple):
  """Labels as numbers."""

  classes: tuple[str, ...]
  y: np.ndarray  # int32 [n], -1 unlabelled; or float32 [n, k] of 0 and 1
  order: str  # GIVEN | NUMBERS | ALPHABET


def missing(words: np.ndarray, spelt: Sequence[str]) -> np.ndarray:
  """Return bool [n]: which words are empty or one of `spelt`, capitals aside."""
  lower = {str(word).strip().lower() for word in spelt} | {''}
  return np.array([word.lower() in lower for word in words.tolist()], bool)


def numbers(column: np.ndarray, empty: np.ndarray) -> np.ndarray:
  """Return a column of text [n] as float64, NaN where it is `empty`.

  A column with any value that is no number stays text, '' where it is empty.
  """
  values = np.where(empty, '', column)
  if empty.all() or not all(NUMBER.fullmatch(value) for value in values[~empty]):
    return values
  return np.array([float(value) if value else np.nan for value in values])


def find(
  raw: np.ndarray,
  label: str | Sequence[str],
  classes: Sequence[str | int | float],
  names: Sequence[str],
  spelt: Sequence[str],
) -> Labels:
  """Return the labels of text `raw`, [n], or [n, k] for k label columns; `names` are the files.

  `classes` fix names and order; without them numbers are sorted as numbers, and words by the
  alphabet.
  """
  known = tuple(_text(name) for name in classes)
  if not label:
    return Labels(known, np.full(len(raw), -1, np.int32), GIVEN)
  _stop_missing(raw, names, spelt)
  if raw.ndim == 2:
    return _columns(raw, tuple(label), known, names)
  found = sorted(set(raw.tolist()))
  numeric = all(NUMBER.fullmatch(name) for name in (*found, *known))
  if not classes:
    _stop_twins(found, raw.tolist(), names)
    _stop_several(found)
    known = tuple(sorted(found, key=float)) if numeric else tuple(found)
  number = _numbers_of(known)
  if numeric and classes:  # '1.0', as pandas writes whole numbers beside missing ones, is class 1
    value = {float(name): index for name, index in number.items()}
    number |= {name: value[float(name)] for name in found if float(name) in value}
  order = GIVEN if classes else NUMBERS if numeric else ALPHABET
  return Labels(known, _numbered(raw, number, known, names), order)


def _numbers_of(classes: Sequence[str]) -> dict[str, int]:
  """Return {class: its number}; fewer than two classes, or one named twice, are a MedtlError."""
  if len(classes) < 2:
    raise MedtlError(
      f'found one class only ({classes[0]!r}); expected a folder or label for each of two or more, '
      'or data.classes=(…) where a class has no picture here'
    )
  number = {name: index for index, name in enumerate(classes)}
  if len(number) < len(classes):
    raise MedtlError(f'data.classes={classes} names a class twice; expected each once')
  return number


def _numbered(
  raw: np.ndarray, number: Mapping[str, int], classes: Sequence[str], names: Sequence[str]
) -> np.ndarray:
  """Return int32 [n], the number of each label; one outside the classes is a MedtlError."""
  strange = [index for index, name in enumerate(raw.tolist()) if name not in number]
  if strange:
    first = str(raw[strange[0]])
    raise MedtlError(
      f'{len(strange)} labels outside the classes, first {first!r} of {names[strange[0]]}; '
      f'{did_you_mean(first, classes)}'
    )
  return np.array([number[name] for name in raw.tolist()], np.int32)


def order_note(classes: Sequence[str], order: str) -> str:
  """Return a sentence on the order in which classes were put, where nobody said it."""
  shown = ', '.join(classes)
  return {
    ALPHABET: f'classes in the order of the alphabet: {shown}; data.classes says otherwise',
    NUMBERS: f'classes in the order of their numbers: {shown}',
  }.get(order, '')


def _text(name: str | int | float) -> str:
  """Return a class's name: 2 and 2.0 are '2'."""
  return f'{name:g}' if isinstance(name, float) else str(name)


def _stop_missing(raw: np.ndarray, names: Sequence[str], spelt: Sequence[str]) -> None:
  """Raise where a label is a word for 'missing'."""
  empty = missing(raw.ravel(), spelt).reshape(raw.shape)
  rows = np.flatnonzero(empty if raw.ndim == 1 else empty.any(axis=1))
  if not len(rows):
    return
  counts = collections.Counter(raw[empty].tolist())
  written = ', '.join(f'{word!r} {count} times' for word, count in counts.most_common(4) if word)
  if not written:
    raise MedtlError(
      f'{len(rows)} pictures have no label, first {names[rows[0]]}; fill them in, leave them out, '
      "or set data.label='' to predict"
    )
  meant = {word.lower() for word in counts}
  kept = tuple(word for word in spelt if word.lower() not in meant)
  raise MedtlError(
    f'{len(rows)} pictures have no label, first {names[rows[0]]} (written {written}); fill them in '
    'or leave them out. Where that word is a class, take it out of the words for missing: '
    f'data.missing={kept}'
  )


def _stop_twins(found: Sequence[str], raw: Sequence[str], names: Sequence[str]) -> None:
  """Raise where two classes are probably one: other capitals, blanks, or another `1.0` for `1`."""
  groups = twins(found)
  if groups:
    shown = '; '.join(' and '.join(map(repr, group)) for group in groups[:4])
    first = names[min(raw.index(name) for name in groups[0])]
    raise MedtlError(
      f'are these the same class? {shown}, first {first}. Write them alike, or list every class '
      f'that is meant: data.classes={tuple(found)}'
    )


def _stop_several(found: Sequence[str]) -> None:
  """Raise where a label is made of others: several findings in one field."""
  for name in found:
    parts = [part.strip() for part in re.split(r'[|;,+&]', name)]
    if len(parts) > 1 and any(part in found for part in parts):
      raise MedtlError(
        f'the label {name!r} is made of others, such as {next(part for part in parts if part in found)!r}: '
        'several findings in one field? Write a column of 0 and 1 for each (data.label=(…)), or list '
        f'every class that is meant: data.classes={tuple(found)}'
      )


def plain(name: str) -> str:
  """Return what is left of a name when capitals, blanks, invisible signs and zeros do not count."""
  visible = ''.join(sign for sign in unicodedata.normalize('NFKC', name) if sign not in INVISIBLE)
  if re.fullmatch(r'[+-]?\d+(\.\d*)?', visible.strip()):
    return f'{float(visible):g}'
  return ' '.join(re.split(r'[\s_-]+', visible.casefold())).strip()


def twins(names: Iterable[str]) -> list[list[str]]:
  """Return the groups of names that are probably one: they differ in what `plain` takes away."""
  groups: dict[str, list[str]] = {}
  for name in sorted(set(names)):
    groups.setdefault(plain(name), []).append(name)
  return [group for group in groups.values() if len(group) > 1]


def _columns(
  raw: np.ndarray, label: tuple[str, ...], classes: tuple[str, ...], names: Sequence[str]
) -> Labels:
  """Return the labels of k columns of 0 and 1."""
  if classes not in ((), label):
    raise MedtlError(
      f'classes={classes} beside the label columns {label}; expected none, the columns are the '
      'names'
    )
  wrong = np.argwhere(~np.isin(raw, ['0', '1', '0.0', '1.0']))
  if len(wrong):
    row, column = wrong[0]
    raise MedtlError(
      f'{len(wrong)} labels are neither 0 nor 1, first {str(raw[row, column])!r} of {names[row]} '
      f'in column {label[column]!r}; decide what it means and write 0 or 1'
    )
  return Labels(label, raw.astype(np.float32), GIVEN)
