"""One file over http(s), with a time limit and a progress bar, continued where it broke off."""

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
  """Download the file at `url` into `part`; return whether an earlier attempt brought some of it.

  What `part` holds is continued if the server confirms, by ETag or date, that it still has that
  very file; a server that cannot say so is asked to continue only when the caller compares
  checksums afterwards (`checked`). After a broken connection it tries again, as long as each
  attempt brings the file further. Raises Unreachable, and MedtlError when the disk is too small.
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
  """Append what is missing to `part`; return the byte at which this attempt began.

  It begins at 0 where the server does not continue this very file.
  """
  have = _size(part)
  validator_file = _validator_file(part)
  validator = validator_file.read_text() if validator_file.exists() else ''
  headers = {'User-Agent': 'medtl'}
  if have and (validator or checked):
    headers['Range'] = f'bytes={have}-'
    if validator:
      headers['If-Range'] = validator
  with _open(url, headers) as response:
    begin, total = _extent(response)
    if response.status == 416 and total == have:
      return have
    another = begin and (begin != have or _validator(response) != validator)
    if response.status == 416 or another:
      part.unlink()
      return _attempt(url, part, checked, what)
    require_space(part.parent, (total or 0) - begin, what)
    validator_file.write_text(_validator(response))
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
  """Return the server's answer; Unreachable where there is none within ANSWER seconds.

  A thread asks, because looking up a host's name has no time limit of its own.
  """
  answers: queue.SimpleQueue = queue.SimpleQueue()
  request = urllib.request.Request(url, headers=headers, method=method)

  def ask() -> None:
    try:
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
  """Return (the first byte that an answer holds, the whole file's size).

  The size is None where the server does not say it.
  """
  if response.status not in (206, 416):
    length = response.headers.get('Content-Length')
    return 0, int(length) if length else None
  content = response.headers.get('Content-Range', '')
  match = re.fullmatch(r'bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)', content)
  if not match:
    return 0, None
  begin = int(match[1] or 0)
  return begin, int(match[2]) if match[2] else None


def _validator(response: HTTPResponse) -> str:
  """Return what identifies this version of the file: a strong ETag, else its date, else ''."""
  tag = response.headers.get('ETag', '')
  return tag if tag.startswith('"') else response.headers.get('Last-Modified', '')


def _validator_file(part: Path) -> Path:
  return part.with_name(f'{part.name}.etag')


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
  """Yield an answer's bytes as they come, so that little is lost when the connection breaks."""
  try:
    while chunk := response.read1(CHUNK):
      yield chunk
  except (OSError, HTTPException) as error:
    raise _Broken(f'the connection broke off: {error}') from None


@contextlib.contextmanager
def _progress(what: str, begin: int, total: int | None) -> Iterator[Callable[[int], None]]:
  """Say what is downloaded, and on a terminal show a bar; both on stderr."""
  console = Console(stderr=True)
  size = f'{total / 1e6:.1f} MB' if total else 'size unknown'
  console.print(f'downloading {what} ({size})', highlight=False, markup=False, soft_wrap=True)
  columns = (
    TextColumn('{task.percentage:3.0f} %'),
    BarColumn(),
    DownloadColumn(),
    TransferSpeedColumn(),
    TimeRemainingColumn(),
  )
  with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
    task = bar.add_task('', total=total, completed=begin)
    yield lambda count: bar.advance(task, count)


def _size(path: Path) -> int:
  return path.stat().st_size if path.exists() else 0
