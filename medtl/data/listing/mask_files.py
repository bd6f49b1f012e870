"""Tells masks, which are drawings of where a lesion lies, from pictures of their own.

Publishers put masks beside their pictures (BUSI: x_mask.png, ISIC: x_segmentation.png) or into a
folder beside that of the pictures (images/x.png and masks/x.png).
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from medtl.core.types import MedtlError
from medtl.data.listing.records import Listed

TARGET = 'target'  # masks are what is learned
UNMASKED = ('stop', 'zeros', 'leave_out')
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


def matched(listed: Listed, files: Sequence[PurePosixPath], unmasked: str) -> Listed:
  """Return the listed pictures with the masks that belong to each, of all the files of a folder.

  `unmasked` says what becomes of a picture that has none: 'stop' is an error, 'zeros' means that it
  shows nothing, 'leave_out' leaves it out. What was done is a sentence in the notes.
  """
  masks_of: dict[str, list[str]] = {name: [] for name in listed.names}
  pictures: dict[Place, set[str]] = {}
  for name in masks_of:
    for place in _places(PurePosixPath(name)):
      pictures.setdefault(place, set()).add(name)
  for path in files:
    name = path.as_posix()
    if name not in masks_of:
      owners = _owners(path, pictures)
      if len(owners) > 1:
        raise MedtlError(
          f'{name} may be the mask of {" or ".join(sorted(owners))}; expected one picture of that '
          'name: rename one of them'
        )
      for owner in owners:
        masks_of[owner].append(name)
  masks = [tuple(masks_of[name]) for name in listed.names]
  count = sum(map(len, masks))
  without = [name for name, own in zip(listed.names, masks, strict=True) if not own]
  notes = [f'{count} masks are learned, of {len(masks) - len(without)} of {len(masks)} pictures']
  if count and len(masks) - len(without) < count:
    notes[0] += '; several of one picture are joined'
  if not count or (without and unmasked == 'stop'):
    raise MedtlError(
      f'{len(without)} of {len(masks)} pictures have no mask, first {without[0]}; expected '
      "x_mask.png beside x.png, or masks/x.png beside images/x.png. data.unmasked='zeros' says "
      "that such pictures show nothing, 'leave_out' leaves them out"
    )
  kept = listed._replace(masks=masks)
  if without and unmasked == 'leave_out':
    kept = kept.rows(np.array([bool(own) for own in masks]))
    notes.append(f'left out: {len(without)} pictures without a mask, first {without[0]}')
  elif without:
    notes.append(f'{len(without)} pictures without a mask count as empty, first {without[0]}')
  return kept._replace(notes=[*kept.notes, *notes])


Place = tuple[str, ...]  # folders but the one that tells pictures from masks, and the name


def _places(path: PurePosixPath) -> Iterator[Place]:
  """Yield where masks of a picture may lie: its folders, all of them or without one."""
  folders = path.parts[:-1]
  yield (*folders, path.stem)
  for level in range(len(folders)):
    yield (*folders[:level], *folders[level + 1 :], path.stem)


def _owners(path: PurePosixPath, pictures: dict[Place, set[str]]) -> set[str]:
  """Return the pictures that a file is called a mask of: one, or none where it is no mask."""
  stems = _stripped(path.stem)
  for stem in stems:
    beside = {
      name
      for name in pictures.get((*path.parts[:-1], stem), ())
      if PurePosixPath(name).parent == path.parent
    }
    if beside:
      return beside
  for level, folder in enumerate(path.parts[:-1]):
    if is_folder(folder):
      others = (*path.parts[:level], *path.parts[level + 1 : -1])
      for stem in (path.stem, *stems):
        owners = pictures.get((*others, stem), set())
        if owners:
          return owners
  return set()


def _stripped(stem: str) -> list[str]:
  """Return the names of pictures that a file's name makes it a mask of.

  >>> _stripped('x_mask_1'), _stripped('mask_x'), _stripped('x')
  (['x'], ['x'], [])
  """
  after = AFTER.fullmatch(stem)
  before = BEFORE.fullmatch(stem)
  return [*([after[1]] if after else []), *([before[2]] if before else [])]


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
