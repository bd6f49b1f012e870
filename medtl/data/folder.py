"""Pictures in a folder: class folders, or a csv manifest → x [h, w, c] float32, as `pictures` reads them.

Nothing but file names, sizes and the manifest is read before `fetch`, which raises OSError for a file
that cannot be read; only of files whose names say no type, the first bytes are read too.
"""

from collections.abc import Sequence

from medtl.data import listing
from medtl.data.pictures import SUFFIXES, read, recognised
from medtl.types import Dataset, Example, MedtlError

KIND = listing.Kind(recognised, f'pictures ({", ".join(SUFFIXES)})')


def load(root: str, *, manifest: str = '', file: str = 'file', label: str | Sequence[str] = 'label', patient: str = '',
         pattern: str = '', partition: str = '', classes: Sequence[str] = (), channels: int = 1, exif: str = 'stop',
         licence: str = '', citation: str = '') -> Dataset:
  """Return every picture below `root`.

  Without `manifest`: root/CLASS/… or root/{train,val,test}/CLASS/…; folders name the class and the publisher's split.
  With `manifest` (a csv; its path and column `file` are relative to root): column `label`, or several columns of 0 and 1
  (many labels, y [k] float); `patient` and `partition` (the publisher's split) are columns; all others go to the table.
  `label=''`: unlabelled pictures, y is -1, for `predict`. `classes` fixes names and order (default: sorted).
  Patients come from column `patient`, or from the first group of the regex `pattern` in the file's path, or from OCT2017's
  names CLASS-PATIENT-NUMBER where all files have them. `channels`: 1 (colour → BT.601 luma) or 3 (grey → three equal).
  A picture whose EXIF asks to be turned is never turned silently: it stops the run, or is turned with `exif='apply'`.
  """
  if channels not in (1, 3) or exif not in ('stop', 'apply'):
    raise MedtlError(f"folder: channels={channels}, exif={exif!r}; expected channels 1 or 3 and exif 'stop' or 'apply'")
  columns = dict(file=file, label=label, patient=patient, partition=partition)
  found = listing.find(root, KIND, manifest, columns, classes, pattern)

  def fetch(index: int) -> Example:
    return Example(read(found.folder / found.table['file'][index], channels, exif), found.table['y'][index], index)

  return Dataset(fetch, len(found.table['y']), found.classes, found.table, dict(licence=licence, citation=citation) | found.facts)
