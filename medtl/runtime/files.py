"""Files and folders that are whole or not there, who may write them, and room for them."""

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
from typing import Any, NamedTuple

from medtl.core.types import MedtlError
from medtl.runtime import multihost

DAY = 86400  # seconds after which a half-written file is a dead process's
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # of a file system without locks


@contextlib.contextmanager
def exclusive_lock(lock: Path, instead: str = 'choose a --workdir elsewhere') -> Iterator[None]:
  """While open, keep other processes out of the folder of the file `lock`.

  The kernel frees the lock when a process ends, however it ends; so the file itself may stay. The
  main process takes the lock for all processes of its run. Raises MedtlError where the folder
  cannot be written to, and where another process has the lock: the message says what to do
  `instead`.
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
  """Lock an open file, and write into it who has the lock, for the message to other processes."""
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
    who = 'since just now'
    end = 'kill and its number'
  return f'another process works in {folder} ({who}); wait until it has ended ({end} there ends it)'


@contextlib.contextmanager
def atomic_write(path: Path, own: bool = False) -> Iterator[Path]:
  """Give a path beside `path` to write to, and rename it to `path` when all went well.

  What is written there may be a file, or a folder that is made there. A reader sees the old file or
  the new one, never half of it. A folder that is there by then stays: another process has made the
  same. Several processes, on several machines too, may write to the same path at the same time:
  each writes to a name of its own, which ends in `.part`.
  Unless own=True, every process of a run must call this: only the main process's file is kept, and
  the others wait until it is there. Raises MedtlError where they cannot see it then.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  aside = path.with_name(f'{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part')
  try:
    yield aside
    if own or multihost.is_main_process():
      _settle(aside, path)
  except OSError as error:
    if error.filename == str(aside):
      error.filename = str(path)  # the name that the user knows
      error.filename2 = None
    raise
  finally:
    with contextlib.suppress(OSError):
      remove(aside)
  if not own:
    multihost.barrier(path.name)
    if not path.exists():
      raise MedtlError(
        f'{path} was written by the first process and is not seen here: a run of several hosts '
        'needs a run folder on a file system that they share; give all of them such a --workdir'
      )


def _settle(aside: Path, path: Path) -> None:
  """Rename what was written aside to its own name."""
  try:
    aside.replace(path)
  except OSError:
    if not (aside.is_dir() and path.is_dir()):
      raise


def remove(path: Path) -> None:
  """Remove a file, or a folder with all that it holds, if it is there."""
  if path.is_dir():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)


def write(path: Path, words: str, own: bool = False) -> None:
  """Write a text file atomically, as UTF-8; line ends stay as they are. See `atomic_write`."""
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
  existing = (place for place in (folder, *folder.absolute().parents) if place.exists())
  return shutil.disk_usage(next(existing)).free


def require_space(
  folder: Path,
  needed: float,
  what: str,
  advice: str = 'make room, or set MEDTL_CACHE to a folder on another disk',
) -> None:
  """Raise a MedtlError when `needed` bytes do not fit on the folder's disk."""
  free = free_bytes(folder)
  if needed > free:
    raise MedtlError(
      f'no space for {what}: {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free on the disk '
      f'of {folder}; {advice}'
    )


class _Entry(NamedTuple):
  """A file or folder that may be removed to make room."""

  used: float  # when, in seconds since 1970
  size: int  # bytes
  path: Path


def prune(folder: Path, most: float, keep: Collection[Path] = ()) -> list[Path]:
  """Remove what was used longest ago until a folder holds at most `most` bytes.

  Returns what was removed, each a file of the folder or a folder in it with all that it holds; who
  uses a folder sets its time (os.utime). `keep` stays. What is half-written (`.part`) is another
  process's work; where nobody has written to it for a day that process was killed, and it goes
  first.
  """
  dead = time.time() - DAY
  entries = []
  for path in folder.glob('*'):
    with contextlib.suppress(FileNotFoundError):  # another run may prune too
      if path.suffix != '.part':
        entries.append(_Entry(path.stat().st_mtime, _size(path), path))
      elif _last_written(path) < dead:
        remove(path)
  total = sum(entry.size for entry in entries)
  removed = []
  for entry in sorted(entries):
    if total <= most:
      break
    if entry.path not in keep:
      total -= entry.size
      remove(entry.path)  # a run that has it mapped keeps its pages
      removed.append(entry.path)
  return removed


def _files(path: Path) -> list[Path]:
  """Return the file itself, or all files that a folder holds."""
  return [inner for inner in (path, *path.rglob('*')) if inner.is_file()]


def _size(path: Path) -> int:
  """Return the bytes of a file, or of all files in a folder."""
  return sum(file.stat().st_size for file in _files(path))


def _last_written(path: Path) -> float:
  """Return when a file, or one in a folder, was last written to, in seconds since 1970."""
  return max(written.stat().st_mtime for written in (path, *_files(path)))


def inventory(folder: Path) -> list[tuple[str, int, int]]:
  """Return (name, number of files, bytes) of each folder in a folder, by name."""
  folders = sorted(path for path in folder.glob('*') if path.is_dir())
  return [(path.name, len(_files(path)), _size(path)) for path in folders]
