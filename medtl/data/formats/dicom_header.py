"""Reads the elements of a DICOM file, be they absent, empty, illegal or oddly written.

An element that is absent, empty or blank has no value: None, '' or []. An illegal one raises
ValueError, which names the element and what it holds. If no picture needs it, it is left out with a
remark instead.
"""

import logging
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

SPACINGS = ('PixelSpacing', 'ImagerPixelSpacing', 'NominalScannedPixelSpacing')
FRAME_GROUPS = ('PerFrameFunctionalGroupsSequence', 'SharedFunctionalGroupsSequence')
FRAME_MACROS = ('PixelValueTransformationSequence', 'FrameVOILUTSequence', 'PixelMeasuresSequence')
SEXES = ('M', 'F', 'O')  # PS3.3 C.7.1.1
AGE = re.compile(r'(\d{1,3})([DWMY])')  # PS3.5 6.2, value representation AS
UNITS_IN_A_YEAR = {'D': 365.25, 'W': 365.25 / 7, 'M': 12, 'Y': 1}
LONGEST_SHOWN = 40  # characters of a value in a message


class Header(NamedTuple):
  """The elements of a file, or of one item of a sequence."""

  elements: Any  # pydicom.Dataset
  little_endian: bool
  remarks: dict[str, str]  # what was assumed or left out → the value that the file holds


def mute_pydicom() -> None:
  """Keep pydicom's warnings off the console, several a file; remarks say what matters."""
  logging.getLogger('pydicom').setLevel(logging.CRITICAL + 1)
  warnings.filterwarnings('ignore', module='pydicom')


def read(path: Path, only: tuple[str, ...] = ()) -> Header:
  """Return all elements of a file, or those that `only` names, without the pixels.

  A file without DICM at byte 128 is read as a bare data set. Multi-frame objects keep the elements
  of a frame in functional groups (PS3.3 C.7.6.16). Those of the first frame become the file's own.

  Raises ValueError for a file that is no DICOM file, and what pydicom raises.
  """
  import pydicom

  tags = [*only, *FRAME_GROUPS] if only else None
  elements = pydicom.dcmread(path, force=True, stop_before_pixels=bool(only), specific_tags=tags)
  _, little_endian = elements.original_encoding
  header = Header(elements, bool(little_endian), {})
  if elements.preamble is None:
    if 'SOPClassUID' not in elements and 'Rows' not in elements:
      raise ValueError('it is no DICOM file: no DICM at byte 128, no SOPClassUID, no Rows')
    remark(header, 'no DICM at byte 128, read as a bare data set')
  _set_transfer_syntax(header)
  _lift_frame_groups(header)
  return header


def _set_transfer_syntax(header: Header) -> None:
  """Set an absent TransferSyntaxUID to the encoding that pydicom detected."""
  from pydicom import uid

  meta = header.elements.file_meta
  if 'TransferSyntaxUID' in meta and meta.TransferSyntaxUID:
    return
  implicit, little = header.elements.original_encoding
  explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
  meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
  remark(header, 'TransferSyntaxUID is absent; the pixels are taken as not compressed')


def _lift_frame_groups(header: Header) -> None:
  """Give a file the elements that its functional groups say of the first frame."""
  for group in FRAME_GROUPS:
    frame = first_item(header, group)
    if frame is not None:
      for macro in FRAME_MACROS:
        _lift(header, first_item(frame, macro))


def _lift(header: Header, item: Header | None) -> None:
  """Give a file the elements of an item of one of its sequences, where it lacks them."""
  if item is None:
    return
  for tag in list(item.elements.keys()):
    if tag not in header.elements:
      header.elements[tag] = item.elements.get_item(tag)


def remark(header: Header, sentence: str, value: Any = '') -> None:
  """Note what was assumed or left out, for the notes on a data set."""
  header.remarks.setdefault(sentence, shown(value))


def illegal(keyword: str, value: Any, expected: str) -> ValueError:
  """Return the error for an element that holds what it must not hold."""
  return ValueError(f"{keyword} is '{shown(value)}'; expected {expected}")


def shown(value: Any) -> str:
  """Return a value as a short text of one line for a message."""
  printable = ''.join(sign if sign.isprintable() else '�' for sign in _joined(value))
  if len(printable) <= LONGEST_SHOWN:
    return printable
  return printable[:LONGEST_SHOWN] + '…'


def _joined(value: Any) -> str:
  """Return a value as text without blanks around it; several are joined by backslashes."""
  if isinstance(value, bytes):
    joined = value.decode('latin-1')
  elif _is_several(value):
    joined = '\\'.join(str(item) for item in value)
  else:
    joined = str(value)
  return joined.strip('\0 ')


def _is_several(value: Any) -> bool:
  return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def value_of(header: Header, keyword: str) -> Any:
  """Return an element's value in pydicom's types, None where it is absent, empty or blank."""
  from pydicom.datadict import tag_for_keyword

  tag = tag_for_keyword(keyword)
  if tag not in header.elements:
    return None
  try:
    value = header.elements[tag].value
  except Exception as error:  # pydicom converts only now, and raises many types
    raw = header.elements.get_item(tag).value
    raise illegal(keyword, raw, 'a value that pydicom can read') from error
  return None if _is_blank(value) else value


def _is_blank(value: Any) -> bool:
  if isinstance(value, str):
    return not value.strip('\0 ')
  if _is_several(value):
    return all(_is_blank(item) for item in value)
  return value is None or value == b''


def required(header: Header, keyword: str) -> Any:
  """Return the value of an element that a picture needs; ValueError without one."""
  value = value_of(header, keyword)
  if value is None:
    raise ValueError(f'{keyword} is absent or empty')
  return value


def text(header: Header, keyword: str) -> str:
  """Return an element's text without blanks around it, '' where it has no value."""
  value = value_of(header, keyword)
  return '' if value is None else _joined(value)


def text_or_remark(header: Header, keyword: str) -> str:
  """Return an element's text, or '' with a remark where it cannot be read.

  The remark does not show the value, which may be a person's name.
  """
  try:
    return text(header, keyword)
  except ValueError:
    remark(header, f'{keyword} cannot be read and is left out')
    return ''


def numbers(header: Header, keyword: str) -> list[float]:
  """Return an element's numbers, all finite; [] where it has no value."""
  value = value_of(header, keyword)
  if value is None:
    return []
  items = value if _is_several(value) else [value]
  try:
    values = [float(item) for item in items]
  except (TypeError, ValueError) as error:
    raise illegal(keyword, value, 'a number') from error
  if not all(math.isfinite(number) for number in values):
    raise illegal(keyword, value, 'a finite number')
  return values


def number(header: Header, keyword: str, default: float) -> float:
  """Return an element's number, `default` where it has no value."""
  values = numbers(header, keyword)
  if len(values) > 1:
    raise illegal(keyword, value_of(header, keyword), 'one number')
  return values[0] if values else default


def integer(header: Header, keyword: str) -> int | None:
  """Return an element's whole number, None where it has no value."""
  value = number(header, keyword, math.nan)
  if math.isnan(value):
    return None
  if value != int(value):
    raise illegal(keyword, value, 'a whole number')
  return int(value)


def first_item(header: Header, keyword: str) -> Header | None:
  """Return the first item of a sequence, None where the sequence or the item is empty."""
  import pydicom

  value = value_of(header, keyword)
  if value is None:
    return None
  if not isinstance(value, pydicom.Sequence):
    raise illegal(keyword, value, 'a sequence')
  return header._replace(elements=value[0]) if len(value[0]) else None


def spacing(header: Header) -> tuple[float, ...]:
  """Return the mm between rows and between columns, () where no element says them.

  These are mm in the patient if known, else at the detector, else on a film (PS3.3 10.7 and
  C.8.6.1).
  """
  for keyword in SPACINGS:
    try:
      values = numbers(header, keyword)
    except ValueError:
      values = [math.nan]
    if len(values) in (1, 2) and all(value > 0 for value in values):
      if len(values) == 1:
        remark(header, f'the one number of {keyword} counts for rows and columns', values[0])
      return values[0], values[-1]
    if values:
      remark(header, f'{keyword} is illegal and left out', _raw(header, keyword))
  return ()


def age(header: Header) -> float:
  """Return the patient's age in years, NaN where it is not known."""
  written = text_or_remark(header, 'PatientAge')
  match = AGE.fullmatch(written.upper().replace(' ', ''))
  if match:
    return int(match[1]) / UNITS_IN_A_YEAR[match[2]]
  if written:
    remark(header, 'PatientAge is illegal and left out', written)
  return math.nan


def sex(header: Header) -> str:
  """Return M, F or O, '' where it is not known."""
  written = text_or_remark(header, 'PatientSex')
  if written.upper() in SEXES:
    return written.upper()
  if written:
    remark(header, 'PatientSex is illegal and left out', written)
  return ''


def _raw(header: Header, keyword: str) -> Any:
  """Return what an element holds, even where pydicom cannot convert it."""
  from pydicom.datadict import tag_for_keyword

  return header.elements.get_item(tag_for_keyword(keyword)).value
