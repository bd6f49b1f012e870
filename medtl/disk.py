"""Files that are whole or not there, and room for them."""

import contextlib
import csv
import io
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from medtl import hosts
from medtl.types import MedtlError


@contextlib.contextmanager
def whole(path: Path, own: bool = False) -> Iterator[Path]:
  """Give a path beside `path` to write to, and rename it when all went well: a reader sees the old file or the new one, never half of it.

  Several may write the same file at the same time, on several machines too; each has a name of its own. Of the processes of one run all
  come here, the file is the first one's, and the others go on when it is there; unless each has its `own`.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  aside = path.with_name(f'{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part')
  try:
    yield aside
    if own or hosts.first():
      aside.replace(path)
  finally:
    aside.unlink(missing_ok=True)
  if not own:
    hosts.wait(path.name)
    if not path.exists():
      raise MedtlError(f'{path} was written by the first process and is not seen here: a run of several hosts needs a run folder on a '
                       'file system that they share; give all of them such a --workdir')


def write(path: Path, words: str, own: bool = False) -> None:
  """Write a text file whole, as UTF-8; line ends stay as they are."""
  with whole(path, own) as aside:
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


def free(folder: Path) -> int:
  """Return the bytes that are free on the disk of a folder, which need not exist yet."""
  return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free


def require_space(folder: Path, needed: float, what: str,
                  advice: str = 'make room, or set MEDTL_CACHE to a folder on another disk') -> None:
  """Raise a MedtlError when `needed` bytes do not fit on the folder's disk."""
  there = free(folder)
  if needed > there:
    raise MedtlError(f'no space for {what}: {needed / 1e6:.1f} MB needed, {there / 1e6:.1f} MB free on the disk of {folder}; {advice}')


def prune(folder: Path, most: float, keep: Collection[Path] = ()) -> list[Path]:
  """Remove the files of a folder that were used longest ago until it holds at most `most` bytes; return them. `keep` stays."""
  found = []
  for path in folder.glob('*'):
    with contextlib.suppress(FileNotFoundError):           # another run may prune too
      if path.is_file() and path.suffix != '.part':        # and is still writing those
        found.append((path.stat().st_mtime, path.stat().st_size, path))
  size, gone = sum(bytes for _, bytes, _ in found), []
  for _, bytes, path in sorted(found):
    if size <= most:
      break
    if path not in keep:
      size -= bytes
      path.unlink(missing_ok=True)                       # a run that has it mapped keeps its pages
      gone.append(path)
  return gone


def inventory(folder: Path) -> list[tuple[str, int, int]]:
  """Return (name, files, bytes) of each folder in a folder."""
  found = []
  for place in sorted(path for path in folder.glob('*') if path.is_dir()):
    files = [path for path in place.rglob('*') if path.is_file()]
    found.append((place.name, len(files), sum(path.stat().st_size for path in files)))
  return found
