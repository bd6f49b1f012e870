"""Which picture files are drawings of where a lesion lies: masks, no pictures of their own.

Publishers put them beside their pictures (BUSI: x_mask.png, ISIC: x_segmentation.png) or into a
folder beside that of the pictures (images/x.png and masks/x.png).
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

WORDS = (
  'masks?|segmentations?|seg|annotations?|ground_?truth|gt|labels?|roi|lesions?|contours?|'
  'heatmaps?|overlays?'
)
AFTER = re.compile(rf'(.+)[_.-]({WORDS})([_-]?\d+)?', re.IGNORECASE)  # x_mask_1
BEFORE = re.compile(rf'({WORDS})[_.-](.+)', re.IGNORECASE)  # mask_x
FOLDER = re.compile(
  r'(.*[_\W])?(masks?|segmentations?|annotations?|ground_?truth|gt|labels?)', re.IGNORECASE
)


def is_folder(name: str) -> bool:
  """Return whether a folder is called so that it holds masks.

  >>> is_folder('masks'), is_folder('ISIC2018_GroundTruth'), is_folder('benign')
  (True, True, False)
  """
  return FOLDER.fullmatch(name) is not None


def without(files: Sequence[PurePosixPath], notes: list[str]) -> list[PurePosixPath]:
  """Return the files that are no masks of another one; `notes` gain a sentence on the others."""
  masks = _beside(files) | _in_folders(files)
  if not masks:
    return list(files)
  first = min(masks)
  notes.append(
    f'left out: {len(masks)} files that are called masks of other pictures here, first {first}; '
    "data.masks='keep' reads them as pictures"
  )
  return [path for path in files if path not in masks]


def _beside(files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
  """Return the files that are called a mask of another one in their folder."""
  there = {path.with_suffix('') for path in files}
  found = set()
  for path in files:
    after, before = AFTER.fullmatch(path.stem), BEFORE.fullmatch(path.stem)
    names = [match[group] for match, group in ((after, 1), (before, 2)) if match]
    if any(path.with_name(name) in there for name in names):
      found.add(path)
  return found


def _in_folders(files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
  """Return the files in folders called so that have another folder beside them, not called so."""
  folders = {folder for path in files for folder in path.parents if folder.name}
  pictures = {folder.parent for folder in folders if not is_folder(folder.name)}
  found = set()
  for path in files:
    if any(is_folder(folder.name) and folder.parent in pictures for folder in path.parents):
      found.add(path)
  return found
