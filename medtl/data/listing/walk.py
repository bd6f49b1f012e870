"""Finds the files below a folder.

Links are followed, a folder that cannot be entered is an error, and other files are counted.
"""

import collections
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from medtl.core.types import MedtlError

# folders that systems create beside people's own: Synology, macOS archives, Windows, ext4
SYSTEM = (
  '@eaDir',
  '#recycle',
  '__MACOSX',
  '$RECYCLE.BIN',
  'System Volume Information',
  'lost+found',
)
HIDDEN = 'hidden files'
MOST_SUFFIXES = 8  # named in the line about what was passed over

Identity = tuple[int, int]  # device and inode of a folder


class Walked(NamedTuple):
  """The files and folders below a folder; paths are relative to it."""

  files: list[PurePosixPath]  # those that belong, sorted
  folders: list[PurePosixPath]  # those that were entered, sorted, without the first
  passed_over: str  # in words, '' where every file belongs


class _Walk:
  """What a walk has met so far."""

  def __init__(self, belongs: Callable[[Path], bool]):
    self.belongs = belongs
    self.files: list[PurePosixPath] = []
    self.folders: list[PurePosixPath] = []
    self.suffixes: collections.Counter[str] = collections.Counter()
    self.system: collections.Counter[str] = collections.Counter()
    self.loops: list[PurePosixPath] = []
    self.dangling: list[tuple[PurePosixPath, str]] = []

  def enter(self, folder: Path, relative: PurePosixPath, above: frozenset[Identity]) -> None:
    """Note what a folder holds; `above` are the folders around it, so that loops of links end."""
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
    """Note an entry that is no folder."""
    if is_system(entry.name):
      self.system[HIDDEN] += 1
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
    common = self.suffixes.most_common(MOST_SUFFIXES)
    rest = self.suffixes.total() - sum(count for _, count in common)
    parts = [f'{count} {suffix}' for suffix, count in common]
    if rest:
      parts.append(f'{rest} others')
    for name, count in self.system.items():
      if name == HIDDEN:
        parts.append(f'{count} {name}')
      elif count:
        parts.append(f'{count} in {name}')
    if self.loops:
      parts.append(f'{len(self.loops)} links back to a folder above, first {self.loops[0]}')
    return ', '.join(parts)


def walk(root: Path, belongs: Callable[[Path], bool]) -> Walked:
  """Return the files below `root` for which `belongs` is true.

  Raises MedtlError for a folder or file that may not be opened, for links that lead nowhere, and
  for names that are not UTF-8.
  """
  state = _Walk(belongs)
  state.enter(root, PurePosixPath(), frozenset())
  if state.dangling:
    path, target = state.dangling[0]
    advice = 'mend or remove them'
    if '.git/annex' in target:
      advice = 'get the files (datalad get, or git annex get)'
    raise MedtlError(
      f'{len(state.dangling)} links below {root} lead nowhere, first {path} → {target}; {advice}'
    )
  return Walked(sorted(state.files), sorted(state.folders), state.words())


def is_system(name: str) -> bool:
  """Return whether a file or folder is hidden, or one that a system creates for itself."""
  return name.startswith('.') or name in SYSTEM


def _identity(folder: Path) -> Identity:
  status = folder.stat()
  return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[os.DirEntry]:
  """Return what lies in a folder, sorted by name; MedtlError where it cannot be read."""
  try:
    with os.scandir(folder) as entries:
      return sorted(entries, key=lambda entry: entry.name)
  except OSError as error:
    raise MedtlError(
      f'cannot look into the folder {folder}: {error.strerror}; its files would be left out '
      'without a word. Make it readable (chmod -R u+rX), or move it elsewhere'
    ) from None


def _is_folder(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link that leads to itself
    return False


def _belongs(belongs: Callable[[Path], bool], path: Path) -> bool:
  """Return whether a file belongs; MedtlError where it has to be opened and cannot be."""
  try:
    return belongs(path)
  except OSError as error:
    raise MedtlError(
      f'cannot open {path}: {error.strerror}; make it readable (chmod u+r), or move it elsewhere'
    ) from None


def _readable(name: str, folder: Path) -> str:
  """Return the name of an entry; MedtlError unless it is UTF-8."""
  try:
    name.encode()
  except UnicodeEncodeError:
    raise MedtlError(
      f'the name {os.fsencode(name)!r} in {folder} is not UTF-8; rename it, for instance with '
      'convmv -f latin1 -t utf-8 -r --notest FOLDER'
    ) from None
  return name


def _count(folder: Path) -> int:
  """Return how many files lie below a system's folder, as far as it is readable."""
  return sum(len(files) for _, _, files in os.walk(folder))
