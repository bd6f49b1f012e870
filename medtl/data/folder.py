"""Pictures in a folder: class folders, or a csv manifest; png, jpg, tiff, bmp, 8 and 16 bit → x [h, w, c] float32.

Nothing but file names, sizes and the manifest is read before `fetch`, which raises OSError for a file that cannot be read.
8 and 16 bit become 0 … 1 by their type's largest value; 32-bit TIFFs keep their numbers (then `window` or `rescale` them).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from medtl.data import listing
from medtl.data.labels import MISSING
from medtl.types import Dataset, Example, MedtlError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp')
KIND = listing.Kind(lambda path: path.suffix.lower() in SUFFIXES, f'pictures ({", ".join(SUFFIXES)})')
GREY = np.array([0.299, 0.587, 0.114], np.float32)   # luma of ITU-R BT.601
UPRIGHT, ORIENTATION = 1, 0x0112                     # EXIF


def load(root: str, *, manifest: str = '', file: str = 'file', label: str | Sequence[str] = 'label', patient: str = '',
         pattern: str = '', partition: str = '', classes: Sequence[str | int | float] = (), missing: Sequence[str] = MISSING,
         repeated: str = '', masks: str = 'leave_out', suffix: str = '', channels: int = 1, exif: str = 'stop',
         licence: str = '', citation: str = '') -> Dataset:
  """Return every picture below `root`, or the one that `root` is where nothing is asked about labels.

  Without `manifest`: root/CLASS/… or root/{train,val,test}/CLASS/…; folders name the class and the publisher's split. Links are
  followed. Files that are called a mask of a picture beside them are left out (`masks='keep'` reads them).
  With `manifest` (a csv; its path and column `file` are relative to root): column `label`, or several columns of 0 and 1
  (many labels, y [k] float); `patient` and `partition` (the publisher's split) are columns; all others go to the table.
  `suffix` is added to each name in column `file`. A file in several rows is an error unless `repeated` says what its rows mean:
  'first' (its first row), 'majority' (the label that most rows have) or 'box' (a picture each, cut out by columns x, y, w, h).
  `missing`: words that stand for no value, beside an empty field, in labels, patients and all other columns.
  `label=''`: unlabelled pictures, y is -1, for `predict`. `classes` fixes names and order (default: numbers as numbers, words by
  the alphabet). Patients come from column `patient`, or from the first group of the regex `pattern` in the file's path, or from
  names that public data sets use (patients.KNOWN) where all files have them, which is said.
  `channels`: 1 (colour → BT.601 luma) or 3 (grey → three equal).
  A picture whose EXIF asks to be turned is never turned silently: it stops the run, or is turned with `exif='apply'`.
  """
  if channels not in (1, 3) or exif not in ('stop', 'apply'):
    raise MedtlError(f"folder: channels={channels}, exif={exif!r}; expected channels 1 or 3 and exif 'stop' or 'apply'")
  keys = listing.Keys(manifest, file, label, patient, partition, pattern, classes, missing, repeated, masks, suffix)
  found = listing.find(root, KIND, keys)

  def fetch(index: int) -> Example:
    x = read(found.folder / found.table['file'][index], channels, exif)
    return Example(found.cut(x, index), found.table['y'][index], index)

  facts = dict(licence=licence, citation=citation) | found.facts
  return Dataset(fetch, len(found.table['y']), found.classes, found.table, facts, found.fingerprint)


def read(path: Path, channels: int, exif: str) -> np.ndarray:
  """Return the picture [h, w, channels] float32; OSError where it cannot be decoded."""
  try:
    with Image.open(path) as image:
      if image.format == 'TIFF' and getattr(image, 'n_frames', 1) > 1:
        raise MedtlError(f'{path} holds {image.n_frames} pages; expected one picture a file')  # type: ignore[attr-defined]
      turn = image.getexif().get(ORIENTATION, UPRIGHT)
      if turn != UPRIGHT and exif == 'stop':
        raise MedtlError(f"{path} is stored turned (EXIF orientation {turn}); set data.exif='apply' to turn such files "
                         'upright, or store them upright: who drew masks or read them elsewhere may have seen either')
      return grey_or_colour(_values(ImageOps.exif_transpose(image)), channels)
  except (SyntaxError, TypeError, ValueError, EOFError, Image.DecompressionBombError) as error:   # Pillow, on broken files
    raise OSError(f'cannot decode {path}: {error}') from error


def _values(image: Image.Image) -> np.ndarray:
  """Return [h, w] or [h, w, 3]; transparency is dropped, palettes are looked up."""
  if image.mode in ('I', 'F'):
    return np.asarray(image, np.float32)
  if image.mode.startswith('I;16'):
    return np.asarray(image).astype(np.float32) / np.float32(65535)
  image = image.convert('L' if image.mode in ('1', 'L', 'LA') else 'RGB')
  return np.asarray(image, np.float32) / np.float32(255)


def grey_or_colour(x: np.ndarray, channels: int) -> np.ndarray:
  """Return [h, w, channels] of a picture [h, w] or [h, w, 3]."""
  if x.ndim == 3 and channels == 1:
    x = x @ GREY
  return x if x.ndim == 3 else np.repeat(x[..., None], channels, axis=2)
