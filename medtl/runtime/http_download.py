"""One file over http(s): asked for with a time limit, shown as it comes, continued where the connection broke off."""

import contextlib
import os
import queue
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from rich.console import Console
from rich.progress import (
  BarColumn,
  DownloadColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
  TransferSpeedColumn,
)

from medtl.runtime.files import require_space

ANSWER = 9.0  # seconds until a server must have answered: no network is an error within ten
CHUNK = 1 << 20


class Unreachable(Exception):
  """The file could not be had; the message says why."""


class _Broken(Exception):
  """The connection ended before the file did."""


def download_file(url: str, part: Path, *, checked: bool = False, what: str = '') -> bool:
  """Bring the file at `url` whole into `part`; return whether some of it came from an earlier attempt.

  What `part` holds is continued if the server confirms, by ETag or date, that it still has that very file; a server that cannot
  say so is asked to continue only when the caller compares checksums afterwards (`checked`). Goes on after a broken connection
  as long as each attempt brings the file further. Raises Unreachable, and MedtlError when the disk is too small.
  """
  resumed = False
  while True:
    before = _size(part)
    try:
      begin = _attempt(url, part, checked, what or part.name)
    except _Broken as broken:
      if _size(part) <= before:
        raise Unreachable(f'{broken}; what has come is kept, start again to continue') from None
    else:
      _validator_file(part).unlink(missing_ok=True)
      return resumed or begin > 0
    resumed = True


def remote_size(url: str) -> int | None:
  """Return the bytes of the file at `url`, asked of its server; None where it does not say."""
  try:
    with _open(url, {'User-Agent': 'medtl'}, method='HEAD') as response:
      length = response.headers.get('Content-Length', '')
  except Unreachable:
    return None
  return int(length) if length.isdecimal() else None


def _attempt(url: str, part: Path, checked: bool, what: str) -> int:
  """Append what is missing, or begin anew where the server does not continue this very file; return where it began."""
  have, known, headers = _size(part), _validator_file(part), {'User-Agent': 'medtl'}
  validator = known.read_text() if known.exists() else ''
  if have and (validator or checked):
    headers |= {'Range': f'bytes={have}-'} | ({'If-Range': validator} if validator else {})
  with _open(url, headers) as response:
    begin, total = _extent(response)
    if response.status == 416 and total == have:
      return have
    if response.status == 416 or (begin and (begin != have or _validator(response) != validator)):
      part.unlink()
      return _attempt(url, part, checked, what)
    require_space(part.parent, (total or 0) - begin, what)
    known.write_text(_validator(response))
    with (
      part.open('ab' if begin else 'wb') as file,
      _progress(f'{what} from {url}', begin, total) as advance,
    ):
      for chunk in _chunks(response):
        file.write(chunk)
        advance(len(chunk))
      file.flush()
      os.fsync(file.fileno())
  if total is not None and _size(part) != total:
    raise _Broken(f'the connection broke off after {_size(part)} of {total} bytes')
  return begin


def _open(url: str, headers: dict[str, str], method: str = 'GET') -> HTTPResponse:
  """Return the server's answer, asked for in a thread: looking up a host's name has no time limit of its own."""
  answers: queue.SimpleQueue = queue.SimpleQueue()

  def ask() -> None:
    try:
      request = urllib.request.Request(url, headers=headers, method=method)
      answers.put(urllib.request.urlopen(request, timeout=ANSWER))
    except Exception as error:  # handed to the thread that waits
      answers.put(error)

  threading.Thread(target=ask, daemon=True).start()
  try:
    answer = answers.get(timeout=ANSWER)
  except queue.Empty:
    raise Unreachable(f'no answer within {ANSWER:.0f} s: is there a network?') from None
  if isinstance(answer, Exception) and getattr(answer, 'code', 0) != 416:
    raise Unreachable(f'cannot be downloaded: {answer}') from None
  return answer


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
  """Return the first byte that an answer holds, and the whole file's size or None where the server does not say."""
  if response.status in (206, 416):
    match = re.fullmatch(
      r'bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)', response.headers.get('Content-Range', '')
    )
    return (int(match[1] or 0), int(match[2]) if match[2] else None) if match else (0, None)
  length = response.headers.get('Content-Length')
  return 0, int(length) if length else None


def _validator(response: HTTPResponse) -> str:
  """Return what identifies this version of the file: a strong ETag, else its date, else ''."""
  tag = response.headers.get('ETag', '')
  return tag if tag.startswith('"') else response.headers.get('Last-Modified', '')


def _validator_file(part: Path) -> Path:
  return part.with_name(f'{part.name}.etag')


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
  try:
    while chunk := response.read1(
      CHUNK
    ):  # what has come, so that little is lost when the connection breaks
      yield chunk
  except (OSError, HTTPException) as error:
    raise _Broken(f'the connection broke off: {error}') from None


@contextlib.contextmanager
def _progress(what: str, begin: int, total: int | None) -> Iterator[Callable[[int], None]]:
  """Say what comes, and on a terminal show a bar; both on stderr."""
  console = Console(stderr=True)
  size = f'{total / 1e6:.1f} MB' if total else 'size unknown'
  console.print(f'downloading {what} ({size})', highlight=False, markup=False, soft_wrap=True)
  columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
  with Progress(
    TextColumn('{task.percentage:3.0f} %'),
    *columns,
    console=console,
    disable=not console.is_terminal,
  ) as bar:
    task = bar.add_task('', total=total, completed=begin)
    yield lambda count: bar.advance(task, count)


def _size(path: Path) -> int:
  return path.stat().st_size if path.exists() else 0
