"""Tells masks, which are drawings of where a lesion lies, from pictures of their own.

Publishers put masks beside their pictures (BUSI: x_mask.png, ISIC: x_segmentation.png) or into a
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
  """Return whether a folder is called like one that holds masks.

  >>> is_folder('masks'), is_folder('ISIC2018_GroundTruth'), is_folder('benign')
  (True, True, False)
  """
  return FOLDER.fullmatch(name) is not None


def without(files: Sequence[PurePosixPath], notes: list[str]) -> list[PurePosixPath]:
  """Return the files that are not masks of others; `notes` gain a sentence on the masks."""
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
  """Return the files that are called a mask of another file in their folder."""
  present = {path.with_suffix('') for path in files}
  masks = set()
  for path in files:
    after = AFTER.fullmatch(path.stem)
    if after and path.with_name(after[1]) in present:
      masks.add(path)
    before = BEFORE.fullmatch(path.stem)
    if before and path.with_name(before[2]) in present:
      masks.add(path)
  return masks


def _in_folders(files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
  """Return the files in folders of masks that have a folder of another name beside them."""
  folders = {folder for path in files for folder in path.parents if folder.name}
  holding_others = {folder.parent for folder in folders if not is_folder(folder.name)}
  masks = set()
  for path in files:
    if any(is_folder(folder.name) and folder.parent in holding_others for folder in path.parents):
      masks.add(path)
  return masks
