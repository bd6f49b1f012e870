"""DICOM files of one picture each → x [h, w, c] float32. Who the patient is, and which machine, is read from their headers (pydicom).

Headers are read when the set is loaded; pixels, also compressed ones, in `fetch`, which raises OSError where they cannot be decoded.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medtl.data import listing
from medtl.data.pictures import grey_or_colour
from medtl.types import Dataset, Example, MedtlError

HEADER = {'patient': 'PatientID', 'study': 'StudyInstanceUID', 'modality': 'Modality', 'manufacturer': 'Manufacturer',
          'sex': 'PatientSex', 'age': 'PatientAge'}
SUFFIXES = ('.dcm', '.dicom', '.ima')
WORDS = f'DICOM files ({", ".join(SUFFIXES)}, or DICM at byte 128)'
YEARS = {'D': 365.25, 'W': 365.25 / 7, 'M': 12, 'Y': 1}        # units of an age string (PS3.5, value representation AS) in a year


def load(root: str, *, values: str = '', manifest: str = '', file: str = 'file', label: str | Sequence[str] = 'label',
         patient: str = '', pattern: str = '', partition: str = '', classes: Sequence[str] = (), channels: int = 1,
         licence: str = '', citation: str = '') -> Dataset:
  """Return every DICOM picture below `root`, by its suffix or DICM at byte 128; labels and splits as `folder.load`.

  `values='modality'`: numbers in the modality's unit, HU for CT (PS3.3 C.11.1); follow it with `window(low, high)` or `rescale`.
  `values='display'`: 0 … 1 as a workstation shows it: the header's first window or lookup table (PS3.3 C.11.2), without one all
  that the stored bits can hold; MONOCHROME1 is turned so that larger is brighter. Colour pictures need 'display'.
  Patients are the headers' PatientID unless `patient` or `pattern` says otherwise. Of ids a digest of 12 hex digits is kept: it hides
  them from a glance, not from somebody who has a list of ids. The table gains study (a digest), modality, manufacturer, sex, age (years).
  """
  if values not in ('modality', 'display') or channels not in (1, 3):
    raise MedtlError(f"dicom: values={values!r}, channels={channels}; expected channels 1 or 3, and data.values='modality' (HU for CT; "
                     "then a window in data.ops) or 'display' (0 … 1 by the window in each header: X-ray, mammography, ultrasound)")
  columns = dict(file=file, label=label, patient=patient, partition=partition)
  found = listing.find(root, listing.Kind(belongs, WORDS), manifest, columns, classes, pattern)
  said = [_header(found.folder / name) for name in found.table['file']]
  table = {name: np.array([one[name] for one in said]) for name in HEADER} | found.table

  def fetch(index: int) -> Example:
    x, spacing = read(found.folder / table['file'][index], values, channels)
    return Example(x, table['y'][index], index, spacing)

  return Dataset(fetch, len(said), found.classes, table, dict(licence=licence, citation=citation) | found.facts)


def belongs(path: Path) -> bool:
  """Return whether a file is DICOM (PS3.10, section 7.1) or is named so (`fetch` then says what is wrong), and no DICOMDIR."""
  if path.is_dir() or path.name == 'DICOMDIR':
    return False
  if path.suffix.lower() in SUFFIXES:
    return True
  try:
    with open(path, 'rb') as file:
      return file.read(132)[128:] == b'DICM'
  except OSError:                              # a file without a suffix that cannot be opened is nobody's picture
    return False


def read(path: Path, values: str, channels: int) -> tuple[np.ndarray, tuple[float, ...]]:
  """Return (x [h, w, channels] float32, the mm between rows and between columns, () where unknown); OSError where it cannot be decoded."""
  import pydicom
  from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
  try:
    header = pydicom.dcmread(path)
    frames = int(header.get('NumberOfFrames') or 1)
    if frames > 1:
      raise MedtlError(f'{path} holds {frames} frames; expected one picture a file')
    x = pixel_array(header)
    if header.PhotometricInterpretation == 'PALETTE COLOR':
      x = apply_color_lut(x, header)
    if x.ndim == 3 and values != 'display':
      raise MedtlError(f"{path} is a colour picture, which has no modality values; set data.values='display'")
    x = x / np.float32(np.iinfo(x.dtype).max) if x.ndim == 3 else apply_modality_lut(x, header)
    if values == 'display' and x.ndim == 2:
      x = _display(x, header)
  except (AttributeError, KeyError, ValueError, TypeError, NotImplementedError, RuntimeError, pydicom.errors.InvalidDicomError) as error:
    raise OSError(f'cannot decode {path}: {error}') from error
  spacing = header.get('PixelSpacing') or header.get('ImagerPixelSpacing') or ()
  return grey_or_colour(np.asarray(x, np.float32), channels), tuple(map(float, spacing))


def _display(x: np.ndarray, header: Any) -> np.ndarray:
  """Return 0 … 1 of modality values [h, w]: PS3.3 C.11.2.1.1 (lookup tables), C.11.2.1.2 and .3 (windows)."""
  from pydicom.pixels import apply_modality_lut
  if 'VOILUTSequence' in header:               # not by pydicom 3.0.2, whose numbers wrap at 256 where a table has 8 bits
    table = header.VOILUTSequence[0]
    count, begin, bits = table.LUTDescriptor
    entries = np.frombuffer(table.LUTData, '<u2') if isinstance(table.LUTData, bytes) else np.asarray(table.LUTData)
    x = entries[np.clip(np.rint(x).astype(np.int64) - begin, 0, (count or 1 << 16) - 1)] / (2.0 ** bits - 1)
  elif 'WindowWidth' in header and 'WindowCenter' in header:
    first = lambda value: float(np.atleast_1d(value)[0])                                    # noqa: E731
    centre, width, form = first(header.WindowCenter), first(header.WindowWidth), header.get('VOILUTFunction') or 'LINEAR'
    if form == 'LINEAR':
      x = (x - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
    elif form == 'LINEAR_EXACT':
      x = (x - centre) / width + 0.5
    elif form == 'SIGMOID':
      x = 1 / (1 + np.exp(-4 * (x - centre) / width))
    else:
      raise ValueError(f'VOI LUT function {form!r}; expected LINEAR, LINEAR_EXACT or SIGMOID')
  else:
    half = 1 << int(header.BitsStored) - 1
    low, high = apply_modality_lut(np.array([-half, half - 1] if header.PixelRepresentation else [0, 2 * half - 1]), header)
    x = (x - low) / (high - low)
  x = np.clip(x, 0, 1)
  return 1 - x if header.PhotometricInterpretation == 'MONOCHROME1' else x


def _header(path: Path) -> dict[str, Any]:
  """Return what a file says of HEADER: '' and NaN where it does not, or where it cannot be read (`fetch` then says why)."""
  import pydicom
  try:
    said = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(HEADER.values()))
    text = {name: str(said.get(word) or '').strip() for name, word in HEADER.items()}
  except (OSError, ValueError, pydicom.errors.InvalidDicomError):
    text = dict.fromkeys(HEADER, '')
  age = text['age']
  years = int(age[:3]) / YEARS[age[3]] if age[:3].isdigit() and age[3:] in YEARS else np.nan
  return text | {'patient': _digest(text['patient']), 'study': _digest(text['study']), 'age': years}


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()[:12] if text else ''
