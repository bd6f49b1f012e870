"""Downloads from a local server that behaves, ignores ranges, breaks off or changes its file."""

import base64
import hashlib
import http.server
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.runtime import downloads as fetching
from medtl.runtime import http_download
from medtl.runtime.downloads import cache_folder, digests, fetch

BODY = np.random.RandomState(0).bytes(300_000)
SHA, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()


class Publisher(http.server.BaseHTTPRequestHandler):
  """Serves `body`.

  `ranges`, `conditions` (If-Range), `etag` and `breaks` (lengths after which answers end) say how
  well.
  """

  def do_GET(self):
    server = self.server
    asked, condition = self.headers.get('Range'), self.headers.get('If-Range')
    server.log.append(asked)
    begin = 0
    if asked and server.ranges and (condition in (None, server.etag) or not server.conditions):
      begin = int(asked.removeprefix('bytes=').rstrip('-'))
    if begin >= len(server.body):
      return self.answer(
        416, b'', {'Content-Range': f'bytes */{len(server.body)}', 'Content-Length': '0'}
      )
    body = server.body[begin:]
    headers = {'Content-Length': str(len(body))} | ({'ETag': server.etag} if server.etag else {})
    if begin:
      headers['Content-Range'] = f'bytes {begin}-{len(server.body) - 1}/{len(server.body)}'
    self.answer(
      206 if begin else 200, body[: server.breaks.pop(0)] if server.breaks else body, headers
    )

  def answer(self, status, body, headers):
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(body)
    self.close_connection = True

  def log_message(self, *_):
    pass


@pytest.fixture
def publisher(tmp_path, monkeypatch):
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'cache'))
  monkeypatch.delenv('MEDTL_OFFLINE', raising=False)
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Publisher)
  server.body, server.ranges, server.conditions, server.etag, server.breaks, server.log = (
    BODY,
    True,
    True,
    '"one"',
    [],
    [],
  )
  server.url = f'http://127.0.0.1:{server.server_port}/models/a%20b.npz?download=1'
  threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
  yield server
  server.shutdown()
  server.server_close()


@pytest.mark.parametrize(
  'sums',
  [{}, {'sha256': SHA}, {'sha256': SHA[:8].upper()}, {'md5': MD5}, {'sha256': SHA, 'md5': MD5}],
)
def test_a_file_is_fetched_once_and_checked(publisher, sums):
  path = fetch(publisher.url, **sums)
  assert path.read_bytes() == BODY
  assert (
    path
    == cache_folder() / 'downloads' / f'127.0.0.1:{publisher.server_port}' / 'models' / 'a b.npz'
  )
  assert fetch(publisher.url, **sums) == path and publisher.log == [None]
  assert digests(path) == (SHA, MD5)
  assert not list(path.parent.glob('*.part*'))


@pytest.mark.parametrize(
  'etag, ranges, breaks, asked',
  [
    ('"one"', True, [1000], [None, 'bytes=1000-']),
    ('"one"', True, [1000, 500, 9], [None, 'bytes=1000-', 'bytes=1500-', 'bytes=1509-']),
    (
      '"one"',
      False,
      [1000, 2000],
      [None, 'bytes=1000-', 'bytes=2000-'],
    ),  # begins anew each time, gets further
    ('', True, [1000], [None, None]),  # nothing says that it is the same file
    ('W/"weak"', True, [1000], [None, None]),
  ],
)
def test_a_broken_connection_is_resumed(publisher, etag, ranges, breaks, asked):
  publisher.etag, publisher.ranges, publisher.breaks = etag, ranges, breaks
  assert fetch(publisher.url).read_bytes() == BODY
  assert publisher.log == asked


def test_without_etag_a_checksum_allows_resuming(publisher):
  publisher.etag, publisher.breaks = '', [1000]
  assert fetch(publisher.url, sha256=SHA).read_bytes() == BODY
  assert publisher.log == [None, 'bytes=1000-']


def test_what_has_come_is_kept_when_a_download_gets_no_further(publisher):
  publisher.breaks = [1000, 0]
  with pytest.raises(
    MedtlError, match='broke off after 1000 of 300000 bytes; what has come is kept'
  ):
    fetch(publisher.url, sha256=SHA)
  assert fetch(publisher.url, sha256=SHA).read_bytes() == BODY
  assert publisher.log == [None, 'bytes=1000-', 'bytes=1000-']


@pytest.mark.parametrize('etag', ['"one"', ''])
def test_a_file_that_changed_meanwhile_is_begun_anew(publisher, etag):
  publisher.etag, publisher.breaks = etag, [1000, 0]
  with pytest.raises(MedtlError):
    fetch(publisher.url, sha256=SHA)  # the publisher still has the old file
  old, publisher.body = BODY, BODY[::-1]
  publisher.etag = etag and '"two"'
  new = hashlib.sha256(publisher.body).hexdigest()
  path = fetch(publisher.url, sha256=new)
  assert path.read_bytes() == old[::-1] and digests(path).sha256 == new


@pytest.mark.parametrize(
  'conditions, asked', [(True, ['bytes=1000-']), (False, ['bytes=1000-', None])]
)
def test_two_versions_are_not_mixed_where_no_checksum_would_tell(publisher, conditions, asked):
  publisher.breaks, publisher.conditions = [1000, 0], conditions
  with pytest.raises(MedtlError):
    fetch(publisher.url)
  publisher.body, publisher.etag, publisher.log = BODY[::-1], '"two"', []
  assert fetch(publisher.url).read_bytes() == BODY[::-1]
  assert publisher.log == asked


def test_a_part_longer_than_the_new_file_is_begun_anew(publisher):
  publisher.breaks = [1000, 0]
  with pytest.raises(MedtlError):
    fetch(publisher.url, md5=MD5)
  publisher.body = b'short'
  assert fetch(publisher.url, md5=hashlib.md5(b'short').hexdigest()).read_bytes() == b'short'


@pytest.mark.parametrize('sums', [{'sha256': '0' * 64}, {'sha256': 'deadbeef'}, {'md5': '0' * 32}])
def test_wrong_bytes_are_refused_and_not_kept(publisher, sums):
  with pytest.raises(MedtlError, match='damaged or another file') as error:
    fetch(publisher.url, **sums)
  assert next(iter(sums.values())) in str(error.value)
  assert [
    file.suffix for file in (cache_folder() / 'downloads').rglob('*.*') if file.is_file()
  ] == ['.lock']


def test_an_unknown_checksum_is_recorded_and_compared_from_then_on(publisher):
  path = fetch(publisher.url)
  assert json.loads(path.with_name('a b.npz.fetched.json').read_text())['sha256'] == SHA
  publisher.body = BODY[::-1]
  path.unlink()
  with pytest.raises(MedtlError, match='not the file that was first downloaded'):
    fetch(publisher.url)
  path.write_bytes(publisher.body)
  with pytest.raises(MedtlError, match='not the file that was first downloaded'):
    fetch(publisher.url)
  path.write_bytes(BODY)
  assert fetch(publisher.url, sha256=SHA[:10]) == path


def test_a_damaged_cached_file_is_refused(publisher):
  path = fetch(publisher.url, md5=MD5)
  path.write_bytes(BODY[:-1])
  with pytest.raises(MedtlError, match=f'299999 bytes.* expected {MD5}; get it again: http'):
    fetch(publisher.url, md5=MD5)


def test_offline_says_what_is_missing_and_where_to_put_it(publisher, monkeypatch):
  monkeypatch.setenv('MEDTL_OFFLINE', '1')
  with pytest.raises(MedtlError) as error:
    fetch(
      publisher.url,
      sha256=SHA,
      purpose='ViT weights',
      hint='configs/oct_vit.py:offline needs no download',
    )
  path = cache_folder() / 'downloads' / f'127.0.0.1:{publisher.server_port}' / 'models' / 'a b.npz'
  for part in ('ViT weights', publisher.url, SHA, str(path), 'configs/oct_vit.py:offline'):
    assert part in str(error.value)
  path.parent.mkdir(parents=True)
  path.write_bytes(BODY)  # put there by hand, as the message says
  assert fetch(publisher.url, sha256=SHA) == path
  assert publisher.log == []


def test_no_answer_is_an_error_in_time(publisher, monkeypatch):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  begin = time.monotonic()
  with pytest.raises(MedtlError, match=r'refused(.|\n)*http://127.0.0.1'):
    fetch(f'http://127.0.0.1:{port}/x.npz')
  assert time.monotonic() - begin < 2
  assert http_download.ANSWER < 10
  monkeypatch.setattr(http_download, 'ANSWER', 0.3)
  with (
    socket.create_server(('127.0.0.1', 0)) as silent,
    pytest.raises(MedtlError, match=r'no answer|timed out'),
  ):
    fetch(f'http://127.0.0.1:{silent.getsockname()[1]}/x.npz')  # which accepts and never speaks
  assert time.monotonic() - begin < 4


def test_a_name_that_takes_for_ever_to_look_up_is_an_error_in_time(publisher, monkeypatch):
  monkeypatch.setattr(http_download, 'ANSWER', 0.2)
  monkeypatch.setattr(socket, 'getaddrinfo', lambda *_, **__: time.sleep(5))
  begin = time.monotonic()
  with pytest.raises(MedtlError, match='is there a network'):
    fetch('https://nowhere.invalid/x.npz')
  assert time.monotonic() - begin < 2


def test_an_error_of_the_server_is_told(publisher, monkeypatch):
  monkeypatch.setattr(Publisher, 'do_GET', lambda self: self.send_error(403))
  with pytest.raises(MedtlError, match='HTTP Error 403'):
    fetch(publisher.url)


@pytest.mark.parametrize('last', [b'0\r\n\r\n', b''])
def test_a_size_that_is_not_told(publisher, monkeypatch, last):
  """Chunks end with an empty one; without it the file is not whole."""

  def chunked(handler):
    handler.answer(
      200,
      b''.join(b'%x\r\n%b\r\n' % (len(part), part) for part in (BODY[:999], BODY[999:])) + last,
      {'Transfer-Encoding': 'chunked'},
    )

  monkeypatch.setattr(Publisher, 'protocol_version', 'HTTP/1.1')
  monkeypatch.setattr(Publisher, 'do_GET', chunked)
  if last:
    assert fetch(publisher.url).read_bytes() == BODY
  else:
    with pytest.raises(MedtlError, match='broke off'):
      fetch(publisher.url)


def test_a_size_is_asked_for_without_the_file(publisher, monkeypatch):
  assert http_download.remote_size(publisher.url) is None  # a server that knows no HEAD
  headers = {'Content-Length': str(len(BODY))}
  answer_head = lambda handler: handler.answer(200, b'', headers)
  monkeypatch.setattr(Publisher, 'do_HEAD', answer_head, raising=False)
  assert http_download.remote_size(publisher.url) == len(BODY)
  headers.clear()
  assert http_download.remote_size(publisher.url) is None
  assert publisher.log == []
  publisher.shutdown()
  publisher.server_close()
  assert http_download.remote_size(publisher.url) is None


def test_a_file_lies_where_it_was_said_to_lie(publisher):
  assert fetching.cached_path(publisher.url) == fetch(publisher.url)
  named = fetching.cached_path(publisher.url, 'set/x.npz')
  assert named == fetch(publisher.url, name='set/x.npz')
  assert fetching.served(publisher.url)
  assert not any(map(fetching.served, ('pypi:a==1/b', 'file:///a', '/a/b', 'a.npz')))


def test_two_processes_do_not_disturb_each_other(publisher):
  with ThreadPoolExecutor(4) as pool:  # flock holds between open files, so threads will do
    paths = list(pool.map(lambda _: fetch(publisher.url, sha256=SHA), range(4)))
  assert len(set(paths)) == 1 and paths[0].read_bytes() == BODY
  assert publisher.log == [None]


def test_a_full_disk_is_told_before_writing(publisher, monkeypatch):
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(10, 0, 100_000))
  with pytest.raises(MedtlError, match=r'0.3 MB needed, 0.1 MB free'):
    fetch(publisher.url)


def test_a_cache_that_cannot_be_written_is_told(publisher, tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'file'))
  with pytest.raises(MedtlError, match='MEDTL_CACHE'):
    fetch(publisher.url)


def test_local_files(tmp_path):
  path = tmp_path / 'a b.bin'
  path.write_bytes(BODY)
  assert fetch(str(path)) == fetch(path.as_uri(), sha256=SHA) == path
  with pytest.raises(MedtlError, match='damaged or another file'):
    fetch(str(path), md5='0' * 32)
  with pytest.raises(MedtlError, match='no such file'):
    fetch(str(tmp_path / 'missing'))
  with pytest.raises(MedtlError, match='not a checksum'):
    fetch(str(path), sha256='see website')


def test_files_of_installed_packages(tmp_path, monkeypatch):
  info, file = tmp_path / 'eye_model-1.2.dist-info', tmp_path / 'eye_model' / 'eye.pth'
  for folder in (info, file.parent):
    folder.mkdir()
  file.write_bytes(BODY)
  own = base64.urlsafe_b64encode(hashlib.sha256(BODY).digest()).decode().rstrip('=')
  (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: eye-model\nVersion: 1.2\n')
  (info / 'RECORD').write_text(f'eye_model/eye.pth,sha256={own},{len(BODY)}\n')
  monkeypatch.syspath_prepend(tmp_path)
  for sums in ({}, {'sha256': SHA[:8]}, {'sha256': SHA, 'md5': MD5}):
    assert fetch('pypi:eye-model==1.2/eye_model/eye.pth', **sums) == file
  with pytest.raises(MedtlError, match='--force-reinstall'):
    fetch('pypi:eye-model==1.2/eye_model/eye.pth', sha256='00')
  file.write_bytes(BODY[1:])
  with pytest.raises(MedtlError, match=r'eye-model==1\.2'):
    fetch('pypi:eye-model==1.2/eye_model/eye.pth')  # differs from the wheel's own record


@pytest.mark.parametrize(
  'url, text',
  [
    ('pypi:numpy==0.0.1/numpy/version.py', r'pip install numpy==0.0.1\n  or        use none'),
    ('pypi:medtl-no-such-package==1.0/x', 'found no version'),
    (f'pypi:numpy=={np.__version__}/nothing.py', 'holds no nothing.py'),
    ('pypi:numpy', 'cannot read'),
  ],
)
def test_packages_that_are_not_there(url, text):
  with pytest.raises(MedtlError, match=text):
    fetch(url, hint='use none')


@pytest.fixture
def homeless(tmp_path, monkeypatch):
  """A user whom neither HOME nor the list of users knows, with a temporary folder of their own."""

  def nobody(uid):
    raise KeyError(uid)

  monkeypatch.setattr('pwd.getpwuid', nobody)
  monkeypatch.delenv('MEDTL_CACHE')
  monkeypatch.delenv('HOME')
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
  (tmp_path / 'temporary').mkdir()
  fetching._temporary_cache.cache_clear()
  yield tmp_path / 'temporary' / f'medtl-{os.getuid()}'
  fetching._temporary_cache.cache_clear()


@pytest.mark.parametrize('home', [None, 'a file', 'below/a file'])
def test_without_a_home_to_write_to_there_is_a_temporary_cache_and_it_is_said_once(
  homeless, tmp_path, monkeypatch, capsys, home
):
  (tmp_path / 'a file').write_text('')
  (tmp_path / 'below').symlink_to(tmp_path / 'a file')
  if home:
    monkeypatch.setenv('HOME', str(tmp_path / home))
  assert cache_folder() == cache_folder() == homeless and not fetching.at_home()
  assert homeless.stat().st_mode & 0o777 == 0o700 and homeless.stat().st_uid == os.getuid()
  said = capsys.readouterr().err
  assert said.count('no home that can be written to') == 1 and str(homeless) in said
  fetching.require_cache()
  assert 'set MEDTL_CACHE to a folder that can be written to' in said  # and so:
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'lasting'))
  assert cache_folder() == tmp_path / 'lasting'
  monkeypatch.delenv('MEDTL_CACHE')
  monkeypatch.setenv('HOME', str(tmp_path / 'home' / 'not there yet'))
  assert (
    cache_folder() == tmp_path / 'home' / 'not there yet' / '.cache' / 'medtl'
    and fetching.at_home()
  )
  assert not (tmp_path / 'home').exists(), 'to ask makes nothing'


def test_a_temporary_cache_that_is_another_s_is_not_used(homeless, tmp_path, monkeypatch):
  (tmp_path / 'theirs').mkdir()
  homeless.symlink_to(tmp_path / 'theirs')
  with pytest.raises(MedtlError, match='belongs to another user; set MEDTL_CACHE to a folder'):
    cache_folder()
  homeless.unlink()
  homeless.write_text('')
  with pytest.raises(MedtlError, match='cannot be made'):
    cache_folder()
  homeless.unlink()
  homeless.mkdir(mode=0o777)
  monkeypatch.setattr(os, 'getuid', lambda: 54321)
  homeless.rename(homeless.with_name('medtl-54321'))
  with pytest.raises(MedtlError, match='belongs to another user'):
    cache_folder()


def test_a_cache_that_cannot_be_written_to_is_said_before_it_is_needed(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  for place in ('file', 'file/below'):
    monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / place))
    with pytest.raises(
      MedtlError,
      match=f'the cache folder {tmp_path}/{place} is a file, or cannot be written to; set',
    ):
      fetching.require_cache()
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'new' / 'folder'))
  fetching.require_cache()
