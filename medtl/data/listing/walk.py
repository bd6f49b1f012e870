"""The files below a folder.

Links are followed, what cannot be entered is an error, and what is passed over is counted.
"""

import collections
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from medtl.core.types import MedtlError

# Folders that systems make beside people's own: Synology, macOS archives, Windows, ext4.
SYSTEM = (
  '@eaDir',
  '#recycle',
  '__MACOSX',
  '$RECYCLE.BIN',
  'System Volume Information',
  'lost+found',
)
MOST_SUFFIXES = 8  # named in the line about what was passed over

Identity = tuple[int, int]  # device and inode of a folder


class Walked(NamedTuple):
  """What lies below a folder; paths are relative to it."""

  files: list[PurePosixPath]  # those that belong, sorted
  folders: list[PurePosixPath]  # that were entered, sorted, without the first
  passed_over: str  # in words, '' where every file belongs


class _Walk:
  """A walk under way."""

  def __init__(self, belongs: Callable[[Path], bool]):
    self.belongs = belongs
    self.files: list[PurePosixPath] = []
    self.folders: list[PurePosixPath] = []
    self.suffixes: collections.Counter[str] = collections.Counter()
    self.system: collections.Counter[str] = collections.Counter()
    self.loops: list[PurePosixPath] = []
    self.dangling: list[tuple[PurePosixPath, str]] = []

  def enter(self, folder: Path, relative: PurePosixPath, above: frozenset[Identity]) -> None:
    """Note what a folder holds; `above` are the folders that lead to it: a loop of links ends."""
    identity = _identity(folder)
    if identity in above:
      self.loops.append(relative)
      return
    if relative.parts:
      self.folders.append(relative)
    for entry in _entries(folder):
      path = relative / _readable(entry.name, folder)
      if _is_folder(entry):
        if is_system(entry.name):
          self.system[entry.name] += _count(Path(entry.path))
        else:
          self.enter(Path(entry.path), path, above | {identity})
      else:
        self.take(entry, path)

  def take(self, entry: os.DirEntry, path: PurePosixPath) -> None:
    """Note one entry that is no folder."""
    if is_system(entry.name):
      self.system['hidden files'] += 1
    elif entry.is_symlink() and not os.path.exists(entry.path):
      self.dangling.append((path, os.readlink(entry.path)))
    elif not entry.is_file():  # a pipe would wait for ever
      self.suffixes['no regular file'] += 1
    elif _belongs(self.belongs, Path(entry.path)):
      self.files.append(path)
    else:
      self.suffixes[path.suffix.lower() or 'without a suffix'] += 1

  def words(self) -> str:
    """Return in one line what was passed over."""
    most = self.suffixes.most_common(MOST_SUFFIXES)
    rest = self.suffixes.total() - sum(count for _, count in most)
    said = [f'{count} {suffix}' for suffix, count in most]
    said += [f'{rest} others'] if rest else []
    said += [
      f'{count} in {name}' if name != 'hidden files' else f'{count} {name}'
      for name, count in self.system.items()
      if count
    ]
    said += (
      [f'{len(self.loops)} links back to a folder above, first {self.loops[0]}']
      if self.loops
      else []
    )
    return ', '.join(said)


def walk(root: Path, belongs: Callable[[Path], bool]) -> Walked:
  """Return the files below `root` for which `belongs` is true.

  Raises MedtlError for a folder or file that may not be opened, for links that lead nowhere, and
  for names that are not UTF-8.
  """
  found = _Walk(belongs)
  found.enter(root, PurePosixPath(), frozenset())
  if found.dangling:
    path, target = found.dangling[0]
    annexed = '.git/annex' in target
    raise MedtlError(
      f'{len(found.dangling)} links below {root} lead nowhere, first {path} → {target}; '
      + ('get the files (datalad get, or git annex get)' if annexed else 'mend or remove them')
    )
  return Walked(sorted(found.files), sorted(found.folders), found.words())


def is_system(name: str) -> bool:
  """Return whether a file or folder is hidden, or made by a system for itself."""
  return name.startswith('.') or name in SYSTEM


def _identity(folder: Path) -> Identity:
  status = folder.stat()
  return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[os.DirEntry]:
  try:
    with os.scandir(folder) as entries:
      return sorted(entries, key=lambda entry: entry.name)
  except OSError as error:
    raise MedtlError(
      f'cannot look into the folder {folder}: {error.strerror}; its files would be left out '
      'without a word. '
      'Make it readable (chmod -R u+rX), or move it elsewhere'
    ) from None


def _is_folder(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link that leads to itself
    return False


def _belongs(belongs: Callable[[Path], bool], path: Path) -> bool:
  try:
    return belongs(path)
  except OSError as error:
    raise MedtlError(
      f'cannot open {path}: {error.strerror}; make it readable (chmod u+r), or move it elsewhere'
    ) from None


def _readable(name: str, folder: Path) -> str:
  try:
    name.encode()
  except UnicodeEncodeError:
    raise MedtlError(
      f'the name {os.fsencode(name)!r} in {folder} is not UTF-8; rename it, for instance with '
      'convmv -f latin1 -t utf-8 -r --notest FOLDER'
    ) from None
  return name


def _count(folder: Path) -> int:
  """Return how many files lie below a system's folder, which need not be readable."""
  return sum(len(files) for _, _, files in os.walk(folder))
