"""A publisher's file, its checksum compared, in one cache folder.

`MEDTL_CACHE` names the folder (default ~/.cache/medtl, or a temporary folder where there is no home
to write to); `MEDTL_OFFLINE=1` forbids the network.
"""

import base64
import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import stat
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from medtl.core.types import MedtlError, Missing
from medtl.runtime import files
from medtl.runtime.http_download import CHUNK, Unreachable, download_file

REMEDY = 'set MEDTL_CACHE to a folder that can be written to'


class Digests(NamedTuple):
  """Both checksums of one file, in hexadecimal."""

  sha256: str
  md5: str


class Remote(NamedTuple):
  """A file that a publisher serves, and where it lies once it is fetched."""

  what: str
  url: str
  path: Path


@dataclass(frozen=True)
class Wanted:
  """A file that is asked for, what its bytes must be, and what to say where it cannot be had."""

  url: str  # '' for a file that the user names
  path: Path  # where it lies, or is to lie
  sha256: str = ''  # whole or leading digits, '' when unknown
  md5: str = ''
  purpose: str = ''
  hint: str = ''

  def missing(self, why: str) -> Missing:
    """Return the error that says what is missing and why, and what the user can do.

    It names the URL, the checksum, the path to put the file at, and what to do instead.
    """
    checksum = 'none known'
    if self.sha256:
      checksum = f'sha256 {self.sha256}'
    elif self.md5:
      checksum = f'md5 {self.md5}'
    lines = [f'missing: {self.purpose or self.path.name}: {why}']
    if self.url:
      lines.append(f'  URL       {self.url}')
    lines.append(f'  checksum  {checksum}')
    lines.append(f'  put it at {self.path}')
    if self.hint:
      lines.append(f'  or        {self.hint}')
    return Missing('\n'.join(lines))

  def check(self, found: Digests, path: Path) -> None:
    """Raise a MedtlError unless the checksums `found` of the file at `path` are as expected."""
    for kind, expected in (('sha256', self.sha256.lower()), ('md5', self.md5.lower())):
      if not getattr(found, kind).startswith(expected):
        where = self.url or self.hint or self.purpose or 'from where it came'
        raise MedtlError(
          f'{path} ({path.stat().st_size} bytes) is damaged or another file: its {kind} is '
          f'{getattr(found, kind)}, expected {expected}; get it again: {where}'
        )


def cache_folder() -> Path:
  """Return the folder that keeps what was downloaded, unpacked or computed.

  `MEDTL_CACHE` names it, else it is ~/.cache/medtl. A user without a home to write to, as in many
  containers, has a temporary one, and is told so. Raises RuntimeError where `MEDTL_CACHE` begins
  with ~ and there is no home.
  """
  named = os.environ.get('MEDTL_CACHE', '')
  if named:
    return Path(named).expanduser().absolute()
  return _cache_at_home() or _temporary_cache()


def require_cache() -> None:
  """Raise a MedtlError unless the cache folder can be written to."""
  folder = cache_folder()
  if not _writable(folder):
    raise MedtlError(f'the cache folder {folder} is a file, or cannot be written to; {REMEDY}')


def at_home() -> bool:
  """Return whether the user has a home to write to, where libraries keep files of their own."""
  return _cache_at_home() is not None


def _cache_at_home() -> Path | None:
  """Return ~/.cache/medtl, None where it can be neither made nor written to."""
  try:
    folder = Path('~/.cache/medtl').expanduser().absolute()
  except RuntimeError:  # neither HOME nor the list of users names a home
    return None
  return folder if _writable(folder) else None


def _writable(folder: Path) -> bool:
  """Return whether a folder can be written to, or made where it is not there yet."""
  place = folder
  while not os.path.lexists(place) and place != place.parent:  # False where one may not look
    place = place.parent
  return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


@functools.cache  # it is said once
def _temporary_cache() -> Path:
  """Return a temporary folder that only this user can read, and say where it is."""
  user = os.getuid()
  folder = Path(tempfile.gettempdir()) / f'medtl-{user}'
  try:
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
  except OSError as error:
    raise MedtlError(
      f'there is no home to keep downloads in, and {folder} cannot be made '
      f'({error.strerror}); {REMEDY}'
    ) from None
  if state.st_uid != user or not stat.S_ISDIR(state.st_mode):
    raise MedtlError(
      f'there is no home to keep downloads in, and {folder} belongs to another user; {REMEDY}'
    )
  folder.chmod(0o700)
  print(
    f'no home that can be written to: downloads and cached files are in {folder}, which may '
    f'not last; {REMEDY}',
    file=sys.stderr,
  )
  return folder


def offline() -> bool:
  """Return whether `MEDTL_OFFLINE` forbids the network."""
  return os.environ.get('MEDTL_OFFLINE', '').lower() not in ('', '0', 'false', 'no')


def fetch(
  url: str, *, sha256: str = '', md5: str = '', name: str = '', purpose: str = '', hint: str = ''
) -> Path:
  """Return the path of a file whose checksum was compared.

  `url` is http(s)://…, `pypi:<distribution>==<version>/<path in the wheel>` (a file of an installed
  package), file://… or a path. `sha256` may be its leading digits. Where neither checksum is known,
  the first download's is recorded beside the file and compared from then on. `name` is the path
  inside the cache's `downloads` (default: the URL's host and path), `purpose` says what the file
  is, `hint` what to do without it. Raises MedtlError, within ten seconds when there is no network.
  """
  if not re.fullmatch('[0-9a-fA-F]{0,64}', sha256) or not re.fullmatch('([0-9a-fA-F]{32})?', md5):
    raise MedtlError(f'sha256 {sha256!r} or md5 {md5!r} of {url} is not a checksum in hexadecimal')
  if served(url):
    return _downloaded(Wanted(url, cached_path(url, name), sha256, md5, purpose, hint))
  scheme, _, path = urllib.parse.urlsplit(url)[:3]
  if scheme == 'pypi':
    return _installed(url.removeprefix('pypi:'), sha256, md5, purpose, hint)
  local = Path(urllib.parse.unquote(path) if scheme == 'file' else url).expanduser()
  wanted = Wanted('', local, sha256, md5, purpose, hint)
  if not local.is_file():
    raise wanted.missing('there is no such file')
  if sha256 or md5:
    wanted.check(digests(local), local)
  return local


def served(url: str) -> bool:
  """Return whether an address is that of a server."""
  return urllib.parse.urlsplit(url).scheme in ('http', 'https')


def cached_path(url: str, name: str = '') -> Path:
  """Return where the file of a server lies once it is fetched; for `name` see `fetch`."""
  _, host, path = urllib.parse.urlsplit(url)[:3]
  return cache_folder() / 'downloads' / (name or host + urllib.parse.unquote(path))


def digests(path: Path) -> Digests:
  """Return a file's checksums.

  Of a downloaded file that has not changed since, they are those recorded beside it.
  """
  if _unchanged(path):
    record = _record(path)
    return Digests(record['sha256'], record['md5'])
  sha256 = hashlib.sha256()
  md5 = hashlib.md5(usedforsecurity=False)
  with path.open('rb') as file:
    while chunk := file.read(CHUNK):
      sha256.update(chunk)
      md5.update(chunk)
  return Digests(sha256.hexdigest(), md5.hexdigest())


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
  """While open, this process alone may make `path`; others wait. The folder of `path` is made.

  A cache that cannot be written to is a MedtlError.
  """
  with _lock_file(path) as lock:  # closing the file, or the end of the process, gives the lock back
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def _lock_file(path: Path) -> Any:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    return _beside(path, 'lock').open('w')
  except OSError as error:
    raise MedtlError(f'cannot write {path}: {error}; {REMEDY}') from None


def _downloaded(wanted: Wanted) -> Path:
  """Return the path of a file that is in the cache, or is downloaded to it."""
  path = wanted.path
  if not (path.is_file() and _unchanged(path)):
    if offline() and not path.is_file():
      raise wanted.missing('not in the cache, and MEDTL_OFFLINE (--offline) forbids the network')
    with locked(path):
      if path.is_file():  # put there by hand, changed, or made while this process waited
        _settle(wanted, path)
      else:
        _complete(wanted)
  wanted.check(digests(path), path)
  return path


def _complete(wanted: Wanted) -> None:
  """Download a file, or the rest of one that an earlier attempt began, and put it into place.

  What was resumed can mix two versions of the file: then it is downloaded once more, as a whole.
  """
  part = _beside(wanted.path, 'part')
  for is_last in (False, True):
    resumed = _download_part(wanted, part)
    try:
      return _settle(wanted, part)
    except MedtlError:
      part.unlink()
      if is_last or not resumed:
        raise


def _download_part(wanted: Wanted, part: Path) -> bool:
  """Download a file into `part`; return whether some of it came from an earlier attempt."""
  checked = bool(wanted.sha256 or wanted.md5)
  what = wanted.purpose or wanted.path.name
  try:
    return download_file(wanted.url, part, checked=checked, what=what)
  except Unreachable as error:
    raise wanted.missing(str(error)) from None
  except OSError as error:
    raise MedtlError(
      f'cannot write {part}: {error}; make room, or set MEDTL_CACHE to another folder'
    ) from None


def _settle(wanted: Wanted, path: Path) -> None:
  """Check a whole file, record its checksums beside its final place and move it there."""
  sums = digests(path)
  known = _record(wanted.path)
  wanted.check(sums, path)
  if known and known['sha256'] != sums.sha256:
    raise MedtlError(
      f'{wanted.url} is not the file that was first downloaded: sha256 {sums.sha256}, recorded '
      f'{known["sha256"]}; if the new one is right, delete {_record_file(wanted.path)}'
    )
  record = {'url': wanted.url, **sums._asdict(), 'stamp': _stamp(path)}
  files.write(_record_file(wanted.path), json.dumps(record, indent=1), own=True)
  os.replace(path, wanted.path)


def _installed(address: str, sha256: str, md5: str, purpose: str, hint: str) -> Path:
  """Return a file of an installed distribution.

  It is compared with the checksums asked for, and with the one that its wheel records.
  """
  match = re.fullmatch(r'([\w.-]+)==([^/]+)/(.+)', address)
  if not match:
    raise MedtlError(
      f'cannot read pypi:{address}: expected pypi:<distribution>==<version>/<path in the wheel>'
    )
  name, version, inside = match.groups()
  try:
    distribution = importlib.metadata.distribution(name)
  except importlib.metadata.PackageNotFoundError:
    distribution = None
  if distribution is None or distribution.version != version:
    installed = distribution.version if distribution else 'no version'
    advice = f'\n  or        {hint}' if hint else ''
    raise MedtlError(
      f'missing: {purpose or inside}: it comes with the package {name} {version}, found '
      f'{installed} of it; pip install {name}=={version}{advice}'
    )
  members = {str(file): file for file in distribution.files or ()}
  if inside not in members:
    raise MedtlError(
      f'{name} {version} holds no {inside}; there are: {", ".join(sorted(members)[:9])} …'
    )
  member = members[inside]
  path = Path(str(member.locate()))
  recorded = ''
  if member.hash and member.hash.mode == 'sha256':
    recorded = base64.urlsafe_b64decode(member.hash.value + '==').hex()
  for expected in (sha256, recorded):
    wanted = Wanted(f'pip install --force-reinstall {name}=={version}', path, expected, md5)
    wanted.check(digests(path), path)
  return path


def _beside(path: Path, suffix: str) -> Path:
  return path.with_name(f'{path.name}.{suffix}')


def _record(path: Path) -> dict[str, Any]:
  """Return what was recorded beside a downloaded file, {} where nothing was."""
  return json.loads(_record_file(path).read_text()) if _record_file(path).is_file() else {}


def _record_file(path: Path) -> Path:
  return _beside(path, 'fetched.json')


def _stamp(path: Path) -> list[int]:
  return [path.stat().st_size, path.stat().st_mtime_ns]


def _unchanged(path: Path) -> bool:
  """Return whether a downloaded file still has its recorded size and date."""
  return _record(path).get('stamp') == _stamp(path)
