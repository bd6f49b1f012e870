"""DICOM files of one picture each → x [h, w, c] float32. Their headers say who the patient is.

Headers are read when the set is loaded, pixels in `fetch`, which raises OSError where they cannot
be decoded. pydicom reads the files. `dicom_header` reads elements, `dicom_pixels` the stored
numbers, and `dicom_values` says what they mean and how they are to be displayed.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medtl.core import frames
from medtl.core.types import Dataset, Example, MedtlError
from medtl.data.formats import dicom_header, dicom_pixels, dicom_values, signature
from medtl.data.formats.pictures import grey_or_colour
from medtl.data.listing import file_listing, labels
from medtl.data.listing.labels import MISSING

TEXTS = {
  'patient': 'PatientID',
  'study': 'StudyInstanceUID',
  'modality': 'Modality',
  'manufacturer': 'Manufacturer',
}
HIDDEN = ('patient', 'study')  # only a digest of these is kept
COLUMNS = (*TEXTS, 'sex', 'age')  # what the table gains from headers
ELEMENTS = (
  *TEXTS.values(),
  'PatientSex',
  'PatientAge',
  *dicom_header.SPACINGS,
  'SOPClassUID',
  'Rows',
  'Columns',
  'SamplesPerPixel',
  'PhotometricInterpretation',
  'PlanarConfiguration',
  'NumberOfFrames',
  'BitsAllocated',
  'BitsStored',
  'HighBit',
  'PixelRepresentation',
  'ModalityLUTSequence',
  'RescaleSlope',
  'RescaleIntercept',
  'VOILUTSequence',
  'WindowCenter',
  'WindowWidth',
  'VOILUTFunction',
)
SUFFIXES = ('.dcm', '.dicom', '.ima')
WORDS = f'DICOM files ({", ".join(SUFFIXES)}, or DICM at byte 128)'


def load(
  root: str,
  *,
  values: str = '',
  manifest: str = '',
  file: str = 'file',
  label: str | Sequence[str] = 'label',
  patient: str = '',
  pattern: str = '',
  partition: str = '',
  classes: Sequence[str | int | float] = (),
  missing: Sequence[str] = MISSING,
  repeated: str = '',
  suffix: str = '',
  channels: int = 1,
  licence: str = '',
  citation: str = '',
) -> Dataset:
  """Return every DICOM picture below `root`; labels and splits are found as by `folder.load`.

  `values='modality'`: numbers in the modality's unit, HU for CT (PS3.3 C.11.1). Follow it with
  `window(low, high)` or `rescale`.
  `values='display'`: 0 … 1 as a workstation shows it: by the header's first lookup table or window
  (PS3.3 C.11.2), or without one from the least to the largest number that the stored bits can hold.
  MONOCHROME1 is inverted so that larger is brighter. Colour pictures need 'display'. With either,
  PixelPaddingValue is treated as any other number.

  An element without a value counts as absent: slope 1, intercept 0, no window. An illegal element
  is left out; if the picture needs it, the file cannot be decoded. `facts['notes']` count what was
  left out or assumed.

  Patients are the headers' PatientID unless `patient` or `pattern` says otherwise. Ids are kept as
  a digest of 12 hex digits, which hides them from a glance, but not from somebody who has a list of
  ids. The table gains study (a digest), modality, manufacturer, sex and age (years).

  Raises MedtlError for keys that contradict each other or what is there.
  """
  if values not in ('modality', 'display') or channels not in (1, 3):
    raise MedtlError(
      f'dicom: values={values!r}, channels={channels}; expected channels 1 or 3 '
      "and data.values='modality' (HU for CT; then a window in data.ops) or "
      "'display' (0 … 1 by each header's window: X-ray, mammography, ultrasound)"
    )
  keys = file_listing.Keys(
    manifest, file, label, patient, partition, pattern, classes, missing, repeated, 'keep', suffix
  )
  kind = file_listing.Kind(belongs, WORDS)
  listing = file_listing.find(root, kind, keys, guess=False)
  dicom_header.mute_pydicom()
  rows: list[dict[str, Any]] = []
  remarks: dict[str, list[str]] = {}
  for name in listing.table['file']:
    row, own_remarks = _describe(listing.folder / name, values, missing)
    rows.append(row)
    for sentence, value in own_remarks.items():
      where = f'{name}: {value}' if value else str(name)
      remarks.setdefault(sentence, []).append(where)
  columns = {name: np.array([row[name] for row in rows]) for name in COLUMNS}
  table = columns | listing.table
  facts = dict(licence=licence, citation=citation) | listing.facts
  facts['notes'] = [*listing.facts['notes'], *_notes(remarks, len(rows))]

  def fetch(index: int) -> Example:
    x, spacing = read(listing.folder / table['file'][index], values, channels)
    cut = listing.cut(x, index)
    frame = frames.plain(cut.shape[:-1], spacing)
    return Example(cut, table['y'][index], index, frame)

  return Dataset(fetch, len(rows), listing.classes, table, facts, listing.fingerprint)


def belongs(path: Path) -> bool:
  """Return whether a file is DICOM (PS3.10, 7.1) or has its suffix, and is no DICOMDIR."""
  if path.is_dir() or path.name.upper() == 'DICOMDIR':
    return False
  if path.suffix.lower() in SUFFIXES:
    return True
  return signature.is_dicom(signature.head(path))


def read(path: Path, values: str, channels: int) -> tuple[np.ndarray, tuple[float, ...]]:
  """Return (x [h, w, channels] float32, mm between rows and between columns or () where unknown).

  Raises OSError where the picture cannot be decoded, or an element that it needs is illegal, and
  MedtlError for several frames, or for a colour picture where `values` are not 'display'.
  """
  try:
    header = dicom_header.read(path)
    x = _picture(header, path, values)
    spacing = dicom_header.spacing(header)
  except (MedtlError, FileNotFoundError, PermissionError):
    raise
  except Exception as error:  # pydicom and its decoders raise many types
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise OSError(f'cannot decode {path}: {reason}') from error
  return grey_or_colour(np.asarray(x, np.float32), channels), spacing


def _picture(header: dicom_header.Header, path: Path, values: str) -> np.ndarray:
  """Return the picture [h, w], or [h, w, 3] where it has colours."""
  dicom_pixels.pixel_keyword(header)
  layout = dicom_pixels.read_layout(header)
  frames = dicom_pixels.frames(header)
  if frames > 1:
    raise MedtlError(f'{path} holds {frames} frames; expected one picture a file')
  if not layout.grey and values != 'display':
    raise MedtlError(
      f"{path} is a colour picture, which has no modality values; set data.values='display'"
    )
  layout = dicom_pixels.agree(header, layout)
  x = dicom_pixels.stored_numbers(header, layout)
  if not layout.grey:
    return dicom_values.colours(x, header, layout)
  modality = dicom_values.modality(header, layout)
  x = modality.apply(x)
  if values == 'modality':
    return x
  voi = dicom_values.interest(header, modality.ends)
  return dicom_values.display(x, voi, modality.ends, layout.inverted)


def _describe(
  path: Path, values: str, missing: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
  """Return (what a header says for COLUMNS, remarks): '' or NaN where it says nothing.

  The same stands for a header that cannot be read; `fetch` then says why.
  """
  try:
    header = dicom_header.read(path, ELEMENTS)
  except Exception:  # see `read`
    return dict.fromkeys(COLUMNS, '') | {'age': np.nan}, {}
  row: dict[str, Any] = {}
  for name, keyword in TEXTS.items():
    text = dicom_header.text_or_remark(header, keyword)
    if text and labels.missing(np.array([text]), missing)[0]:
      dicom_header.remark(header, f'{keyword} is a word for a missing value', text)
      text = ''
    row[name] = _digest(text) if name in HIDDEN else text
  row['sex'] = dicom_header.sex(header)
  row['age'] = dicom_header.age(header)
  dicom_header.spacing(header)
  with contextlib.suppress(Exception):  # `fetch` says why there is no picture
    _remark_pixels(header, values)
  return row, header.remarks


def _remark_pixels(header: dicom_header.Header, values: str) -> None:
  """Note what `read` will assume of the pixels."""
  layout = dicom_pixels.read_layout(header)
  if layout.grey and values == 'display':
    modality = dicom_values.modality(header, layout)
    dicom_values.interest(header, modality.ends)
  elif layout.inverted:
    dicom_header.remark(header, 'MONOCHROME1, whose modality values are larger where it is darker')


def _notes(remarks: dict[str, list[str]], size: int) -> list[str]:
  """Return a sentence for each kind of remark, with its count and the first file."""
  notes = []
  for sentence, files in remarks.items():
    notes.append(f'{len(files)} of {size} DICOM files: {sentence} (first {files[0]})')
  return notes


def _digest(text: str) -> str:
  """Return 12 hex digits that stand for a text, '' for none."""
  return hashlib.sha256(text.encode()).hexdigest()[:12] if text else ''
