"""Pictures in a folder, sorted into class folders or listed in a csv manifest.

Before `fetch`, nothing is read but file names, sizes and the manifest, and of files whose names say
no type the first bytes. `fetch` raises OSError for a file that cannot be read.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medtl.core.types import Dataset, Example, MedtlError
from medtl.data.formats import signature
from medtl.data.formats.pictures import SUFFIXES, read, recognised
from medtl.data.listing import file_listing
from medtl.data.listing.labels import MISSING

MASKED = ('background', 'lesion')
NOISE = 0.15  # of a mask's largest value: what a JPEG adds to two values
BLURRED = 0.1  # share of a mask's pixels that may lie between them: an edge that was resized
SHADES = 8  # values between the two that tell such an edge from labels
KIND = file_listing.Kind(recognised, f'pictures ({", ".join(SUFFIXES)})')


def load(
  root: str,
  *,
  manifest: str = '',
  file: str = 'file',
  label: str | Sequence[str] = 'label',
  patient: str = '',
  pattern: str = '',
  partition: str = '',
  classes: Sequence[str | int | float] = (),
  missing: Sequence[str] = MISSING,
  repeated: str = '',
  masks: str = 'leave_out',
  unmasked: str = 'stop',
  only: Sequence[str] = (),
  suffix: str = '',
  channels: int = 1,
  exif: str = 'stop',
  licence: str = '',
  citation: str = '',
) -> Dataset:
  """Return every picture below `root`, or `root` itself if it is a picture and `label=''`.

  x is [h, w, channels] float32, as `formats.pictures` reads it. Links are followed.

  Without `manifest`: pictures lie in root/CLASS/… or root/{train,val,test}/CLASS/…, and folders
  name the class and the publisher's split. Files that are named as masks of a picture beside them
  are left out (`masks='keep'` reads them).

  `masks='target'`: such masks are what is learned. y is then an integer array [h, w], 0 background
  and 1 lesion, the union of a picture's masks; the label stays in the table, by which splits are
  balanced. A mask holds 0 and one other value. A JPEG, whose values are not exact, and an edge that
  was resized (8 shades or more, on at most a tenth of what is not 0) are cut at half of the largest
  value; any third value is an error. Masks lie beside the picture (x_mask.png) or in
  a folder of masks beside the pictures' (images/x.png, masks/x.png). No label is needed: pictures
  that lie in one folder have none, and a note says so. `unmasked` says what pictures
  without a mask are: an error ('stop'), empty ('zeros'), or left out ('leave_out').
  `only`: labels whose pictures are read; the others are left out.

  With `manifest` (a csv; its path and its column `file` are relative to root): `label` is a column,
  or several columns of 0 and 1 (many labels, y [k] float). `patient` and `partition` (the
  publisher's split) are columns; all others go to the table. `suffix` is added to each name in
  column `file`. A file in several rows is an error unless `repeated` says what its rows mean:
  'first' (its first row counts), 'majority' (the label that most rows have) or 'box' (each row is a
  picture, cut out by the columns x, y, w, h).

  `label=''`: the pictures are unlabelled and y is -1, for `predict`.
  `classes`: names and order of the classes; by default numbers are sorted as numbers, words by the
  alphabet.
  `missing`: words that stand for no value, in labels, patients and all other columns. So does an
  empty field.
  `pattern`: a regex on a file's path whose first group is the patient. Without it and a column
  `patient`, patients come from names that public data sets use (patients.KNOWN), if all files have
  them; a note says so.
  `channels`: 1 (colour → BT.601 luma) or 3 (grey → three equal).
  `exif`: a picture whose EXIF asks to be turned stops the run ('stop') or is turned ('apply').

  Raises MedtlError for keys that contradict each other or what is there.
  """
  if channels not in (1, 3) or exif not in ('stop', 'apply'):
    raise MedtlError(
      f'folder: channels={channels}, exif={exif!r}; expected channels 1 or 3 and exif '
      "'stop' or 'apply'"
    )
  if repeated == 'box' and exif == 'apply':
    raise MedtlError(
      "boxes are places in pictures as they are stored, and data.exif='apply' turns these; store "
      'the pictures upright with boxes that fit, and leave data.exif out'
    )
  keys = file_listing.Keys(
    manifest,
    file,
    label,
    patient,
    partition,
    pattern,
    classes,
    missing,
    repeated,
    masks,
    suffix,
    only,
    unmasked,
  )
  listing = file_listing.find(root, KIND, keys)
  table = listing.table

  def fetch(index: int) -> Example:
    x = read(listing.folder / table['file'][index], channels, exif)
    y = table['y'][index]
    if listing.masks is not None:
      mask = np.zeros(x.shape[:2], bool)
      for name in listing.masks[index]:
        mask |= _mask(listing.folder / name, x.shape[:2], exif)
      y = listing.cut(mask.astype(np.uint8)[..., None], index)[..., 0]
    return Example(listing.cut(x, index), y, index)

  facts = dict(licence=licence, citation=citation) | listing.facts
  classes = listing.classes
  if listing.masks is not None:
    facts.update(target='mask', classes=classes)
    classes = MASKED
  return Dataset(fetch, len(table['y']), classes, table, facts, listing.fingerprint)


def _mask(path: Path, size: tuple[int, int], exif: str) -> np.ndarray:
  """Return bool [h, w]: where a mask shows the lesion.

  Raises MedtlError where it is not of the picture's size, or holds more than two values: a JPEG's
  noise is none.
  """
  values = read(path, 1, exif)[..., 0]
  if values.shape != size:
    raise MedtlError(
      f'the mask {path} has {values.shape[0]} × {values.shape[1]} pixels, and its picture '
      f'{size[0]} × {size[1]}; expected the same size'
    )
  if signature.is_lossy(signature.head(path)):
    return _of_lossy(values, path)
  return _of_exact(values, path)


def _of_lossy(values: np.ndarray, path: Path) -> np.ndarray:
  """Return bool [h, w]: where values [h, w], which compression has changed, reach half the most."""
  most = values.max()
  if most <= 0:
    return np.zeros(values.shape, bool)
  share = values / most
  between = (share > NOISE) & (share < 1 - NOISE)
  if between.sum() > BLURRED * (share > NOISE).sum():
    raise MedtlError(
      f'the mask {path} holds more than two values: {between.mean():.1%} of its pixels are neither '
      'near 0 nor near its largest one. Expected 0 for the background and one other value'
    )
  return share >= 0.5


def _of_exact(values: np.ndarray, path: Path) -> np.ndarray:
  """Return bool [h, w]: where values [h, w] are not 0, or reach half the most where edges are soft.

  Labels are a few values, such as 1 for a lesion and 255 for its border: how near one is to 0 or to
  the largest says nothing. An edge that was resized is many values, on few pixels.
  """
  distinct = np.unique(values)
  most = distinct[-1]
  only_two = len(distinct) == 1 or (len(distinct) == 2 and distinct[0] == 0)
  if only_two and distinct[0] >= 0:
    return values > 0
  between = (values > 0) & (values < most)
  has_soft_edge = (
    distinct[0] == 0
    and len(distinct) >= 2 + SHADES
    and between.sum() <= BLURRED * np.count_nonzero(values)
  )
  if has_soft_edge:
    return values >= most / 2
  raise MedtlError(
    f'the mask {path} holds the {len(distinct)} values {_listed(distinct)}; expected 0 for the '
    'background and one other value for what is learned. Set each other value, such as that of a '
    'border, to one of the two, cut soft edges at half, and store the mask as PNG'
  )


def _listed(distinct: np.ndarray) -> str:
  """Return the first values, as a file of 8 or 16 bits stores them where they are shares of it."""
  numbers = distinct
  for most in (255, 65535):
    stored = np.round(distinct * most)
    if distinct.max() <= 1 and np.allclose(distinct * most, stored, rtol=0, atol=1e-3):
      numbers = stored
      break
  shown = [f'{number:g}' for number in numbers[:6].tolist()]
  if len(numbers) > len(shown):
    shown.append('…')
  return ', '.join(shown)
