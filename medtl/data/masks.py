"""Which picture files are drawings of where a lesion lies: masks, no pictures of their own.

Publishers put them beside their pictures (BUSI: x_mask.png, ISIC: x_segmentation.png) or into a
folder beside that of the pictures (images/x.png and masks/x.png).
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

NAME = re.compile(
  r'(.+)[_-](mask|segmentation|seg|annotation|groundtruth|gt)([_-]?\d+)?', re.IGNORECASE
)
FOLDERS = {
  'mask', 'masks', 'segmentation', 'segmentations', 'annotation', 'annotations', 'groundtruth', 'gt'
}
PICTURE_FOLDERS = {'image', 'images', 'img', 'imgs', 'picture', 'pictures', 'scan', 'scans'}


def without(files: Sequence[PurePosixPath], notes: list[str]) -> list[PurePosixPath]:
  """Return the files that are no masks of another one; `notes` gain a sentence on the others."""
  masks = {path for path in files if _beside(path, set(files))} | _in_folders(files)
  if not masks:
    return list(files)
  first = min(masks)
  notes.append(
    f'left out: {len(masks)} files that are called masks of other pictures here, first {first}; '
    "data.masks='keep' reads them as pictures"
  )
  return [path for path in files if path not in masks]


def _beside(path: PurePosixPath, files: set[PurePosixPath]) -> bool:
  """Return whether a file is called a mask of another one in its folder."""
  match = NAME.fullmatch(path.stem)
  if not match:
    return False
  suffixes = {other.suffix for other in files}
  return any(path.with_name(match[1] + suffix) in files for suffix in suffixes)


def _in_folders(files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
  """Return the files in folders that are called masks and have a folder of pictures beside them."""
  folders = {folder for path in files for folder in path.parents}
  found = set()
  for path in files:
    for folder in path.parents:
      is_mask = folder.name.lower() in FOLDERS
      if is_mask and any(_is_pictures(other) and other.parent == folder.parent for other in folders):
        found.add(path)
  return found


def _is_pictures(folder: PurePosixPath) -> bool:
  return folder.name.lower() in PICTURE_FOLDERS
