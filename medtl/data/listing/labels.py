"""Turns labels as people write them into numbers: classes, their order, missing values."""

import collections
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

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
NUMBER = re.compile(
  r'[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?'
)  # no leading zeros: 007 is a name
INVISIBLE = '\u200b\u200c\u200d\u2060\ufeff\u00ad'  # signs of no width
GIVEN, NUMBERS, ALPHABET = 'given', 'numbers', 'alphabet'  # how the order of classes was found


class UnknownClass(MedtlError):
  """A label is none of the classes."""

  def __init__(self, words: str, name: str):
    super().__init__(words)
    self.name = name


class Labels(NamedTuple):
  """Labels as numbers, and their classes."""

  classes: tuple[str, ...]
  y: np.ndarray  # int32 [n], -1 unlabelled; or float32 [n, k] of 0 and 1
  order: str  # GIVEN | NUMBERS | ALPHABET


def missing(words: np.ndarray, missing_words: Sequence[str]) -> np.ndarray:
  """Return bool [n]: which words are empty or one of `missing_words`, in any case."""
  lower = {str(word).strip().lower() for word in missing_words} | {''}
  return np.array([word.lower() in lower for word in words.tolist()], bool)


def numbers(column: np.ndarray, empty: np.ndarray) -> np.ndarray:
  """Return a column of text [n] as float64, NaN where it is `empty`.

  A column with a value that is no number stays text, '' where it is empty.
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
  missing_words: Sequence[str],
) -> Labels:
  """Return the labels of text `raw`, [n], or [n, k] for k label columns.

  `label` says which columns they come from ('': unlabelled), `names` are their files, for messages.
  `classes` fix names and order of the classes. Without them numbers are sorted as numbers, and
  words by the alphabet.

  Raises MedtlError for missing labels, labels outside the classes, and classes that may be one.
  """
  wanted = tuple(_text(name) for name in classes)
  if not label:
    return Labels(wanted, np.full(len(raw), -1, np.int32), GIVEN)
  _check_missing(raw, names, missing_words)
  if raw.ndim == 2:
    return _columns(raw, tuple(label), wanted, names)
  written = sorted(set(raw.tolist()))
  is_numeric = all(NUMBER.fullmatch(name) for name in (*written, *wanted))
  if wanted:
    number = _numbers_of(wanted)
    if is_numeric:
      number = _with_spellings(number, written)
    return Labels(wanted, _numbered(raw, number, wanted, names), GIVEN)
  _check_twins(written, raw.tolist(), names)
  _check_combined(written)
  ordered = tuple(sorted(written, key=float) if is_numeric else written)
  y = _numbered(raw, _numbers_of(ordered), ordered, names)
  return Labels(ordered, y, NUMBERS if is_numeric else ALPHABET)


def _with_spellings(number: dict[str, int], written: Sequence[str]) -> dict[str, int]:
  """Return {class: its number} with every written label of the same value.

  '1.0', as pandas writes whole numbers in a column with missing ones, is class 1.
  """
  by_value = {float(name): index for name, index in number.items()}
  spellings = {}
  for name in written:
    if float(name) in by_value:
      spellings[name] = by_value[float(name)]
  return number | spellings


def _numbers_of(classes: Sequence[str]) -> dict[str, int]:
  """Return {class: its number}; MedtlError for fewer than two classes, or one named twice."""
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
  """Return int32 [n], the number of each label; MedtlError for one outside the classes."""
  written = raw.tolist()
  outside = [index for index, name in enumerate(written) if name not in number]
  if outside:
    first = str(written[outside[0]])
    raise UnknownClass(
      f'{len(outside)} labels outside the classes, first {first!r} of {names[outside[0]]}; '
      f'there are: {", ".join(sorted(classes))}',
      first,
    )
  return np.array([number[name] for name in written], np.int32)


def order_note(classes: Sequence[str], order: str) -> str:
  """Return a sentence on the order of the classes, '' where a config or a source said it."""
  shown = ', '.join(classes)
  if order == ALPHABET:
    return f'classes in the order of the alphabet: {shown}; data.classes says otherwise'
  if order == NUMBERS:
    return f'classes in the order of their numbers: {shown}'
  return ''


def _text(name: str | int | float) -> str:
  """Return a class's name: 2 and 2.0 are '2'."""
  return f'{name:g}' if isinstance(name, float) else str(name)


def _check_missing(raw: np.ndarray, names: Sequence[str], missing_words: Sequence[str]) -> None:
  """Raise where a label is empty or a word for 'missing'."""
  empty = missing(raw.ravel(), missing_words).reshape(raw.shape)
  rows = np.flatnonzero(empty if raw.ndim == 1 else empty.any(axis=1))
  if not len(rows):
    return
  first = names[rows[0]]
  counts = collections.Counter(raw[empty].tolist())
  written = [f'{word!r} {count} times' for word, count in counts.most_common(4) if word]
  if not written:
    raise MedtlError(
      f'{len(rows)} pictures have no label, first {first}; fill them in, leave them out, '
      "or set data.label='' to predict"
    )
  used = {word.lower() for word in counts}
  others = tuple(word for word in missing_words if word.lower() not in used)
  raise MedtlError(
    f'{len(rows)} pictures have no label, first {first} (written {", ".join(written)}); fill them '
    'in or leave them out. Where that word is a class, take it out of the words for missing: '
    f'data.missing={others}'
  )


def _check_twins(classes: Sequence[str], raw: Sequence[str], names: Sequence[str]) -> None:
  """Raise where two classes are probably one, which differ in case, blanks or as `1.0` and `1`."""
  groups = twins(classes)
  if groups:
    shown = '; '.join(' and '.join(map(repr, group)) for group in groups[:4])
    row = min(raw.index(name) for name in groups[0])
    raise MedtlError(
      f'are these the same class? {shown}, first {names[row]}. Write them alike, or list every '
      f'class that is meant: data.classes={tuple(classes)}'
    )


def _check_combined(classes: Sequence[str]) -> None:
  """Raise where a label is made of others, as several findings in one field are."""
  for name in classes:
    parts = [part.strip() for part in re.split(r'[|;,+&]', name)]
    others = [part for part in parts if part in classes]
    if len(parts) > 1 and others:
      raise MedtlError(
        f'the label {name!r} is made of others, such as {others[0]!r}: several findings in one '
        'field? Write a column of 0 and 1 for each (data.label=(…)), or list every class that is '
        f'meant: data.classes={tuple(classes)}'
      )


def plain(name: str) -> str:
  """Return a name without what does not count: case, blanks, invisible signs, zeros of numbers."""
  composed = unicodedata.normalize('NFKC', name)
  visible = ''.join(sign for sign in composed if sign not in INVISIBLE)
  if re.fullmatch(r'[+-]?\d+(\.\d*)?', visible.strip()):
    return f'{float(visible):g}'
  words = re.split(r'[\s_-]+', visible.casefold())
  return ' '.join(words).strip()


def twins(names: Iterable[str]) -> list[list[str]]:
  """Return the groups of names that are probably one, since `plain` makes them equal."""
  groups: dict[str, list[str]] = {}
  for name in sorted(set(names)):
    groups.setdefault(plain(name), []).append(name)
  return [group for group in groups.values() if len(group) > 1]


def _columns(
  raw: np.ndarray, label: tuple[str, ...], classes: tuple[str, ...], names: Sequence[str]
) -> Labels:
  """Return the labels of k columns of 0 and 1; MedtlError for any other value."""
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
