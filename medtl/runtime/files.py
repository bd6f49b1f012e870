"""Files that are whole or not there, who may write them, and room for them."""

import contextlib
import csv
import errno
import fcntl
import io
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from medtl.core.types import MedtlError
from medtl.runtime import multihost

DAY = 86400  # seconds after which a half-written file is a dead process's
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # of a file system without locks


@contextlib.contextmanager
def exclusive_lock(lock: Path, instead: str = 'choose a --workdir elsewhere') -> Iterator[None]:
  """Keep other processes out of the folder of the file `lock` for as long as this context is open.

  The kernel frees the lock when a process ends, however it ends; so the file itself may stay. Of
  the processes of one run the first takes it for all. Raises MedtlError where the folder cannot be
  written to, and where another process has the lock: the message says what to do `instead`.
  """
  if not multihost.is_main_process():
    yield
    return
  with _opened(lock) as file:
    _take(file, lock.parent, instead)
    try:
      yield
    finally:
      file.truncate(0)


def _opened(lock: Path) -> FileIO:
  """Return the lock's file, open for reading and writing, with what it held."""
  try:
    lock.parent.mkdir(parents=True, exist_ok=True)
    return lock.open('ab+', buffering=0)
  except OSError as error:
    if error.errno == errno.ENOSPC:
      raise
    raise MedtlError(
      f'cannot write to {lock.parent}: {error.strerror}; give another --workdir, or '
      'a copy of the run folder that you may write to'
    ) from None


def _take(file: FileIO, folder: Path, instead: str) -> None:
  """Take the lock of an open file, and write who has it into the file, for the others' message."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    raise MedtlError(f'{_occupied(file, folder)}, or {instead}') from None
  except OSError as error:
    if error.errno not in NO_LOCKS:
      raise
    print(
      f'{folder} is on a file system without locks ({error.strerror}): see to it that no other '
      'process works there',
      file=sys.stderr,
    )
  now = time.strftime('%Y-%m-%d %H:%M:%S')
  holder = {'pid': os.getpid(), 'host': os.uname().nodename, 'since': now}
  with contextlib.suppress(OSError):  # a full disk: others then do not learn who it is
    file.truncate(0)
    file.write(json.dumps(holder).encode())


def _occupied(file: FileIO, folder: Path) -> str:
  """Return in words who works in a folder, and how that ends."""
  file.seek(0)
  try:
    holder = json.loads(file.read())
    who = f'process {holder["pid"]} on {holder["host"]}, since {holder["since"]}'
    end = f'kill {holder["pid"]}'
  except (ValueError, TypeError, KeyError):  # it has the lock, and has not yet written its name
    who, end = 'since just now', 'kill and its number'
  return f'another process works in {folder} ({who}); wait until it has ended ({end} there ends it)'


@contextlib.contextmanager
def atomic_write(path: Path, own: bool = False) -> Iterator[Path]:
  """Give a path beside `path` to write to, and rename it when all went well: a reader sees the old file or the new one, never half of it.

  Several may write the same file at the same time, on several machines too; each has a name of its own. Of the processes of one run all
  come here, the file is the first one's, and the others go on when it is there; unless each has its `own`.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  aside = path.with_name(f'{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part')
  try:
    yield aside
    if own or multihost.is_main_process():
      aside.replace(path)
  except OSError as error:
    if error.filename == str(aside):
      error.filename, error.filename2 = str(path), None  # what the user knows
    raise
  finally:
    with contextlib.suppress(OSError):
      aside.unlink()
  if not own:
    multihost.barrier(path.name)
    if not path.exists():
      raise MedtlError(
        f'{path} was written by the first process and is not seen here: a run of several hosts needs a run folder on a '
        'file system that they share; give all of them such a --workdir'
      )


def write(path: Path, words: str, own: bool = False) -> None:
  """Write a text file whole, as UTF-8; line ends stay as they are."""
  with atomic_write(path, own) as aside:
    aside.write_text(printable(words), encoding='utf-8', newline='')


def printable(words: str) -> str:
  r"""Return text that UTF-8 can hold; bytes of a file name that are not UTF-8 become '\udcff'.

  >>> printable(os.fsdecode(b'k\xe4lte.png')) == r'k\udce4lte.png'
  True
  """
  return words.encode('utf-8', 'backslashreplace').decode('utf-8')


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
  """Return rows as csv (RFC 4180, Unix line ends): text in quotes, numbers bare, None empty.

  >>> csv_text([['file', 'normal, benign'], ['a "b".png', 0.25]])
  '"file","normal, benign"\\n"a ""b"".png",0.25\\n'
  """
  file = io.StringIO()
  writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator='\n')
  for row in rows:
    writer.writerow(['' if cell is None else cell for cell in row])
  return file.getvalue()


def free_bytes(folder: Path) -> int:
  """Return the bytes that are free on the disk of a folder, which need not exist yet."""
  return shutil.disk_usage(
    next(place for place in (folder, *folder.absolute().parents) if place.exists())
  ).free


def require_space(
  folder: Path,
  needed: float,
  what: str,
  advice: str = 'make room, or set MEDTL_CACHE to a folder on another disk',
) -> None:
  """Raise a MedtlError when `needed` bytes do not fit on the folder's disk."""
  there = free_bytes(folder)
  if needed > there:
    raise MedtlError(
      f'no space for {what}: {needed / 1e6:.1f} MB needed, {there / 1e6:.1f} MB free on the disk of {folder}; {advice}'
    )


def prune(folder: Path, most: float, keep: Collection[Path] = ()) -> list[Path]:
  """Return the files that were removed, those used longest ago, until a folder holds `most` bytes.

  `keep` stays. A half-written file (`.part`) is another run's work; one that nobody has written to
  for a day was left by a process that was killed, and goes first.
  """
  found = []
  dead = time.time() - DAY
  for path in folder.glob('*'):
    with contextlib.suppress(FileNotFoundError):  # another run may prune too
      state = path.stat()
      if path.suffix == '.part' and state.st_mtime < dead:
        path.unlink()
      elif path.is_file() and path.suffix != '.part':
        found.append((state.st_mtime, state.st_size, path))
  size, gone = sum(bytes for _, bytes, _ in found), []
  for _, bytes, path in sorted(found):
    if size <= most:
      break
    if path not in keep:
      size -= bytes
      path.unlink(missing_ok=True)  # a run that has it mapped keeps its pages
      gone.append(path)
  return gone


def inventory(folder: Path) -> list[tuple[str, int, int]]:
  """Return (name, files, bytes) of each folder in a folder."""
  found = []
  for place in sorted(path for path in folder.glob('*') if path.is_dir()):
    files = [path for path in place.rglob('*') if path.is_file()]
    found.append((place.name, len(files), sum(path.stat().st_size for path in files)))
  return found
