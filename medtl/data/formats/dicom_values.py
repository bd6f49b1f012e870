"""Turns the numbers that a DICOM file stores into the modality's unit, and into 0 … 1 for the eye.

Every function raises ValueError where an element that it needs is illegal (see `dicom_header`).
"""

import math
from typing import NamedTuple

import numpy as np

from medtl.data.formats.dicom_header import (
  Header,
  first_item,
  illegal,
  number,
  numbers,
  remark,
  required,
  text,
  value_of,
)
from medtl.data.formats.dicom_pixels import PALETTE, Layout

FORMS = ('LINEAR', 'LINEAR_EXACT', 'SIGMOID')
LARGEST_TABLE = 1 << 16  # entries, which a descriptor writes as 0
WITHOUT_WINDOW = "; data.values='modality' reads a grey picture without it"


class Table(NamedTuple):
  """A lookup table (PS3.3 C.11.1.1, C.11.2.1.1 and C.7.6.3.1.5)."""

  first: int  # the number that the first entry is for; all numbers below share it
  entries: np.ndarray
  bits: int  # of an entry

  def apply(self, x: np.ndarray) -> np.ndarray:
    """Return the entries for the numbers x."""
    place = np.clip(np.rint(x) - self.first, 0, len(self.entries) - 1)
    return self.entries[place.astype(np.int64)]


class Window(NamedTuple):
  """A window in the modality's unit."""

  centre: float
  width: float
  form: str  # of FORMS

  def apply(self, x: np.ndarray) -> np.ndarray:
    """Return 0 … 1 inside the window, and less than 0 or more than 1 outside.

    PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID) and C.11.2.1.3.2 (LINEAR_EXACT).
    """
    if self.form == 'SIGMOID':
      with np.errstate(over='ignore'):  # far below the window 1 / (1 + ∞) = 0 is right
        return 1 / (1 + np.exp(-4 * (x - self.centre) / self.width))
    centre = self.centre
    width = self.width
    if self.form == 'LINEAR':
      centre -= 0.5
      width -= 1
    if width == 0:
      return np.where(x > centre, 1.0, 0.0)
    return (x - centre) / width + 0.5


class Modality(NamedTuple):
  """How stored numbers become the modality's unit (PS3.3 C.11.1)."""

  table: Table | None  # replaces slope and intercept
  slope: float
  intercept: float
  ends: tuple[float, float]  # the least and the largest value that can come out

  def apply(self, x: np.ndarray) -> np.ndarray:
    """Return stored numbers x in the modality's unit, float64."""
    if self.table is not None:
      return self.table.apply(x).astype(np.float64)
    return x.astype(np.float64) * self.slope + self.intercept


def modality(header: Header, layout: Layout) -> Modality:
  """Return how stored numbers become the modality's unit.

  The header's table counts, else its slope and intercept, by default 1 and 0.
  """
  item = first_item(header, 'ModalityLUTSequence')
  if item is not None:
    table = _table(item, 'LUTDescriptor', 'LUTData', layout.ends)
    return Modality(table, 1, 0, (0, (1 << table.bits) - 1))
  slope = number(header, 'RescaleSlope', 1.0)
  intercept = number(header, 'RescaleIntercept', 0.0)
  if slope == 0:
    raise illegal('RescaleSlope', slope, 'another number: by 0 all pixels are equal')
  low, high = sorted(end * slope + intercept for end in layout.ends)
  return Modality(None, slope, intercept, (low, high))


def interest(header: Header, ends: tuple[float, float]) -> Table | Window | None:
  """Return how modality values between `ends` are to be displayed: the values of interest (VOI).

  The header's first table counts, else its first window; None where it has neither.
  """
  item = first_item(header, 'VOILUTSequence')
  if item is not None:
    halves = [value_of(item, keyword) for keyword in ('LUTDescriptor', 'LUTData')]
    if all(half is not None for half in halves):
      table = _table(item, 'LUTDescriptor', 'LUTData', ends)
      return _fractions(table, 'LUTData')
    remark(header, 'VOILUTSequence lacks LUTDescriptor or LUTData, taken as no table')
  window = _window(header)
  if window is None:
    remark(header, 'no window and no VOI LUT: 0 … 1 is all that the stored bits can hold')
  return window


def _window(header: Header) -> Window | None:
  """Return the header's first window, None where it has none."""
  centres = numbers(header, 'WindowCenter')
  widths = numbers(header, 'WindowWidth')
  if not centres and not widths:
    return None
  if not centres or not widths:
    remark(header, 'WindowCenter or WindowWidth stands alone, taken as no window')
    return None
  if len(centres) != len(widths):
    remark(header, 'WindowCenter and WindowWidth differ in number; the first of each is taken')
  form = text(header, 'VOILUTFunction').upper().replace(' ', '_') or 'LINEAR'
  if form not in FORMS:
    known = ', '.join(FORMS)
    raise illegal('VOILUTFunction', form, f'a VOI LUT function ({known}){WITHOUT_WINDOW}')
  width = widths[0]
  if width <= 0 or (form == 'LINEAR' and width < 1):
    least = 'at least 1' if form == 'LINEAR' else 'more than 0'
    raise illegal('WindowWidth', width, f'{least} for {form} (PS3.3 C.11.2.1){WITHOUT_WINDOW}')
  return Window(centres[0], width, form)


def display(
  x: np.ndarray, voi: Table | Window | None, ends: tuple[float, float], inverted: bool
) -> np.ndarray:
  """Return modality values [h, w] between `ends` as 0 … 1, by a table or window.

  Without one, `ends` become 0 and 1. `inverted`: large values are dark.
  """
  low, high = ends
  if voi is not None:
    x = voi.apply(x)
  elif math.isnan(low):
    raise ValueError(
      'WindowWidth is absent; expected a window, for numbers that are no integers' + WITHOUT_WINDOW
    )
  else:
    x = (x - low) / (high - low)
  x = np.clip(x, 0, 1)
  return 1 - x if inverted else x


def colours(x: np.ndarray, header: Header, layout: Layout) -> np.ndarray:
  """Return colours [h, w, 3] in 0 … 1 of numbers [h, w, 3] or, with a palette, [h, w]."""
  if layout.photometric != PALETTE:
    most = np.float32((1 << layout.stored) - 1)
    return np.clip(x / most, 0, 1)
  planes = [table.apply(x) for table in _palette(header, layout)]
  return np.stack(planes, axis=-1)


def _palette(header: Header, layout: Layout) -> list[Table]:
  """Return the tables of red, green and blue, their entries 0 … 1 (PS3.3 C.7.6.3.1.5 and .6)."""
  tables = []
  for name in ('Red', 'Green', 'Blue'):
    descriptor = f'{name}PaletteColorLookupTableDescriptor'
    data = f'{name}PaletteColorLookupTableData'
    if value_of(header, data) is None and value_of(header, f'Segmented{data}') is not None:
      return _segmented_palette(header, layout)
    table = _table(header, descriptor, data, layout.ends)
    tables.append(_fractions(table, data))
  return tables


def _segmented_palette(header: Header, layout: Layout) -> list[Table]:
  """Return the palette's tables, whose segments pydicom expands (PS3.3 C.7.9.2)."""
  from pydicom.pixels import apply_color_lut

  keyword = 'RedPaletteColorLookupTableDescriptor'
  count, first, bits = _descriptor(header, keyword, layout.ends)
  if bits == 8 and count > 256:  # pydicom's indices then wrap around
    raise illegal(keyword, value_of(header, keyword), 'at most 256 entries of 8 bits in segments')
  _, start, _ = value_of(header, keyword)
  indices = start + np.arange(count)
  entries = apply_color_lut(indices, header.elements) / ((1 << bits) - 1)
  return [Table(first, entries[:, colour], bits) for colour in range(3)]


def _fractions(table: Table, keyword: str) -> Table:
  """Return a table with its entries divided by the largest that their bits can hold."""
  most = (1 << table.bits) - 1
  largest = int(table.entries.max())
  if largest > most:
    raise illegal(keyword, largest, f'at most {most}: its descriptor says {table.bits} bits')
  return table._replace(entries=table.entries / most)


def _table(header: Header, descriptor: str, data: str, ends: tuple[float, float]) -> Table:
  """Return a table; `ends` are the least and the largest number that it is applied to.

  A word holds two entries of 8 bits, the first in the low byte. Some programs write one entry in a
  word (PS3.3 C.11.1.1.1; C.7.6.3.1.5 has a note).
  """
  count, first, bits = _descriptor(header, descriptor, ends)
  words = _words(header, data)
  if len(words) == count:
    return Table(first, words, bits)
  if bits <= 8 and len(words) == math.ceil(count / 2):
    pairs = words.astype('<u2').view(np.uint8)
    return Table(first, pairs[:count], bits)
  raise ValueError(
    f'{data} has {len(words)} words of 16 bits; expected {count} entries '
    f'of {bits} bits, as {descriptor} says'
  )


def _descriptor(header: Header, keyword: str, ends: tuple[float, float]) -> tuple[int, int, int]:
  """Return (how many entries, the number that the first one is for, bits of an entry).

  The second is signed where the table is applied to signed numbers, but files mark that wrongly. It
  is read in the way in which it lies between `ends`. Where both ways do, or none does, the file's
  own mark counts.
  """
  words = _words(header, keyword)
  if len(words) != 3 or not 1 <= words[2] <= 16:
    legal = 'entries, first number and bits of an entry (8, 10 … 16)'
    raise illegal(keyword, value_of(header, keyword), legal)
  count, first, bits = words.tolist()
  if first >= 1 << 15:
    low, high = ends
    negative = first - (1 << 16)
    can_be = low <= first <= high
    can_be_negative = low <= negative <= high
    is_marked_signed = header.elements[keyword].VR == 'SS'
    is_signed = can_be_negative if can_be != can_be_negative else is_marked_signed
    first = negative if is_signed else first
  return count or LARGEST_TABLE, first, bits


def _words(header: Header, keyword: str) -> np.ndarray:
  """Return an element's words [n] of 16 bits, be they written as numbers or as bytes."""
  value = required(header, keyword)
  if isinstance(value, bytes):
    even = value + b'\0' * (len(value) % 2)
    return np.frombuffer(even, '<u2' if header.little_endian else '>u2')
  try:
    words = np.atleast_1d(np.asarray(value)).astype(np.int64)
  except (TypeError, ValueError, OverflowError) as error:
    raise illegal(keyword, value, 'whole numbers') from error
  if words.min() < -(1 << 15) or words.max() >= 1 << 16:
    raise illegal(keyword, value, 'numbers of 16 bits')
  return (words & 0xFFFF).astype(np.uint16)
