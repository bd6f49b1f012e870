"""Pictures in a folder, sorted into class folders or listed in a csv manifest.

Before `fetch`, nothing is read but file names, sizes and the manifest, and of files whose names say
no type the first bytes. `fetch` raises OSError for a file that cannot be read.
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
  """Return every picture below `root`, or `root` itself if it is a picture and `label=''`.

  x is [h, w, channels] float32, as `formats.pictures` reads it. Links are followed.

  Without `manifest`: pictures lie in root/CLASS/… or root/{train,val,test}/CLASS/…, and folders
  name the class and the publisher's split. Files that are named as masks of a picture beside them
  are left out (`masks='keep'` reads them).

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
    manifest, file, label, patient, partition, pattern, classes, missing, repeated, masks, suffix
  )
  listing = file_listing.find(root, KIND, keys)
  table = listing.table

  def fetch(index: int) -> Example:
    x = read(listing.folder / table['file'][index], channels, exif)
    return Example(listing.cut(x, index), table['y'][index], index)

  facts = dict(licence=licence, citation=citation) | listing.facts
  return Dataset(fetch, len(table['y']), listing.classes, table, facts, listing.fingerprint)
