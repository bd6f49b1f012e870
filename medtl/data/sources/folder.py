"""Pictures in a folder: class folders, or a csv manifest → x [h, w, c] float32, as `pictures` reads them.

Nothing but file names, sizes and the manifest is read before `fetch`, which raises OSError for a file
that cannot be read; only of files whose names say no type, the first bytes are read too.
"""

from collections.abc import Sequence

from medtl.core.types import Dataset, Example, MedtlError
from medtl.data.formats.pictures import SUFFIXES, read, recognised
from medtl.data.listing import file_listing
from medtl.data.listing.labels import MISSING

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
  suffix: str = '',
  channels: int = 1,
  exif: str = 'stop',
  licence: str = '',
  citation: str = '',
) -> Dataset:
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
    raise MedtlError(
      f"folder: channels={channels}, exif={exif!r}; expected channels 1 or 3 and exif 'stop' or 'apply'"
    )
  if repeated == 'box' and exif == 'apply':
    raise MedtlError(
      "boxes are places in pictures as they are stored, and data.exif='apply' turns these; store the pictures "
      'upright with boxes that fit, and leave data.exif out'
    )
  keys = file_listing.Keys(
    manifest, file, label, patient, partition, pattern, classes, missing, repeated, masks, suffix
  )
  found = file_listing.find(root, KIND, keys)

  def fetch(index: int) -> Example:
    x = read(found.folder / found.table['file'][index], channels, exif)
    return Example(found.cut(x, index), found.table['y'][index], index)

  facts = dict(licence=licence, citation=citation) | found.facts
  return Dataset(fetch, len(found.table['y']), found.classes, found.table, facts, found.fingerprint)
