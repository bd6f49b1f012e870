"""What is told before a run fetches, and the whole path against a server of our own."""

import dataclasses
import functools
import hashlib
import http.server
import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from medtl import cli, main
from medtl.core.types import MedtlError
from medtl.data.sources import medmnist
from medtl.models.backbones import vit
from medtl.run import cost, download_plan, run_folder, train
from medtl.runtime import downloads
from tests.fixtures import seeded

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / 'tests' / 'fixtures'
COUNTS = (16, 8, 8)
SIDE = 28
WORDS = [
  '--config=configs/oct_vit.py',
  f'--config.data.size={SIDE}',
  '--config.data.ops=resize(32, 32)',
  '--config.model.width=32',
  '--config.model.depth=2',
  '--config.model.heads=4',
  "--config.phases=(('depth(1.0)', '1 epochs'), ('depth(2)', '1 epochs'))",
  '--config.batch=4',
  '--config.resamples=20',
  '--config.workers=0',
]


class Publisher(http.server.SimpleHTTPRequestHandler):
  """Serves a folder; `asked` of the server lists the methods and files of all requests."""

  def log_request(self, *_):
    self.server.asked.append((self.command, self.path.partition('?')[0].rpartition('/')[2]))

  def log_message(self, *_):
    pass

  def do_HEAD(self):
    if self.server.tells_sizes:
      super().do_HEAD()
    else:
      self.send_error(501)


@pytest.fixture
def publisher(tmp_path, monkeypatch):
  """A server with a small OCTMNIST and a small AugReg ViT in their publishers' formats."""
  monkeypatch.chdir(ROOT)
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'cache'))
  monkeypatch.delenv('MEDTL_OFFLINE', raising=False)
  folder = tmp_path / 'published'
  folder.mkdir()
  handler = functools.partial(Publisher, directory=str(folder))
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  server.asked = []
  server.tells_sizes = True
  threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
  server.url = f'http://127.0.0.1:{server.server_port}'
  server.data = folder / 'octmnist.npz'
  server.weights = folder / 'B_16.npz'
  publish_data(server, monkeypatch)
  publish_weights(server, monkeypatch)
  yield server
  server.shutdown()
  server.server_close()


def publish_data(server, monkeypatch):
  """Write an OCTMNIST of a few random pictures, and enter its address, checksum and counts."""
  random = np.random.RandomState(0)
  arrays = {}
  for side, count in zip(('train', 'val', 'test'), COUNTS, strict=True):
    arrays[f'{side}_images'] = random.randint(0, 256, (count, SIDE, SIDE)).astype(np.uint8)
    arrays[f'{side}_labels'] = (np.arange(count) % 4).astype(np.uint8)[:, None]
  np.savez_compressed(server.data, **arrays)
  md5 = hashlib.md5(server.data.read_bytes()).hexdigest()
  entry = medmnist.SOURCES['octmnist']._replace(md5=' '.join([md5] * 4))
  monkeypatch.setitem(medmnist.SOURCES, 'octmnist', entry)
  monkeypatch.setitem(medmnist.COUNTS, 'octmnist', COUNTS)
  monkeypatch.setattr(medmnist, 'URL', server.url + '/{file}?download=1')


def publish_weights(server, monkeypatch):
  """Write a ViT with AugReg's names and random numbers, and enter its address."""
  with np.load(FIXTURES / 'vit.npz') as file:
    shapes = json.loads(str(file['augreg/shapes']))
  (positions,) = [name for name in shapes if name.endswith('pos_embedding')]
  shapes[positions] = (1, 1 + 4, 32)  # pictures of 32 px have four patches
  np.savez(server.weights, **seeded.weights(shapes))
  entry = dataclasses.replace(vit.WEIGHTS['augreg_b16'], url=f'{server.url}/B_16.npz')
  monkeypatch.setitem(vit.WEIGHTS, 'augreg_b16', entry)


@pytest.fixture
def two_hours(monkeypatch):
  """Steps that are not timed: a run is said to take two hours."""
  expected = cost.Cost(compiling=600.0, running=6600.0, memory=3_000_000_000)
  monkeypatch.setattr(cost, 'estimate_cost', lambda *_: expected)


def told(words=()):
  """Return the lines that are printed before the first download."""
  config = cli.parse('train', [*WORDS, *words])[1]
  lines = []
  download_plan.tell(config, lines.append)
  return lines


def test_files_bytes_disk_and_hours_are_told_before_anything_is_fetched(publisher, two_hours):
  lines = told()
  data, weights = (path.stat().st_size for path in (publisher.data, publisher.weights))
  unpacked = sum(COUNTS) * SIDE**2
  expected = (
    rf'.*files are fetched.*\n'
    rf' +{data / 1e6:.1f} MB  MedMNIST octmnist.npz  {publisher.url}/octmnist.npz\?download=1\n'
    rf' +{weights / 1e6:.1f} MB  the checkpoint augreg_b16  {publisher.url}/B_16.npz\n'
    rf' +together {(data + weights) / 1e6:.1f} MB to fetch, '
    rf'{(data + weights + unpacked) / 1e6:.1f} MB on the disk .*; [\d.]+ GB are free in .*cache\n'
    rf' +timing a step .*\n'
    rf' +about 2 h 0 min on this device \(3.0 GB of memory\); .*'
  )
  assert re.fullmatch(expected, '\n'.join(lines)), lines
  assert sorted(publisher.asked) == [('HEAD', 'B_16.npz'), ('HEAD', 'octmnist.npz')]
  assert not list(downloads.cache_folder().rglob('*.npz'))


def test_the_whole_path_from_the_publishers_to_the_page(publisher, tmp_path, capsys):
  run = tmp_path / 'run'
  assert main.main([*WORDS, f'--workdir={run}']) == 0
  printed = capsys.readouterr().out
  assert printed.index('on this device') < printed.index('phase 1: freeze depth(1.0)')
  gets = [name for method, name in publisher.asked if method == 'GET']
  assert gets == ['octmnist.npz', 'B_16.npz']
  plan = json.loads((run / 'plan.json').read_text())
  assert plan['weights']['name'] == 'augreg_b16'
  assert plan['weights']['url'] == f'{publisher.url}/B_16.npz'
  assert plan['weights']['format'] == 'augreg'
  assert [plan['splits'][side]['size'] for side in ('train', 'val', 'test')] == list(COUNTS)
  assert (run / 'report.html').exists()
  assert told() == []  # all are here
  publisher.asked.clear()
  assert main.main([*WORDS, f'--workdir={tmp_path / "again"}', '--offline']) == 0
  assert publisher.asked == []


@pytest.mark.parametrize('finished', [False, True])
def test_a_finished_run_is_only_read_and_fetches_nothing(
  publisher, two_hours, tmp_path, capsys, monkeypatch, finished
):
  def stop(*_):
    raise MedtlError('begun')

  monkeypatch.setattr(run_folder, 'is_finished', lambda _: finished)
  monkeypatch.setattr(train, 'train', stop)
  assert main.main([*WORDS, f'--workdir={tmp_path / "run"}']) == 1
  assert ('to fetch' in capsys.readouterr().out) == (not finished)


def test_a_server_that_tells_no_size(publisher):
  publisher.tells_sizes = False
  lines = told()
  assert [line.split()[:2] for line in lines[1:3]] == [['size', 'unknown']] * 2
  assert 'together an unknown number of bytes to fetch' in lines[3]
  assert len(lines) == 4  # there may be no network: nothing is timed


def test_what_is_here_is_said_and_not_counted(publisher, two_hours):
  downloads.fetch(f'{publisher.url}/B_16.npz')
  lines = told()
  assert lines[2].split()[:2] == ['here', 'already']
  data = publisher.data.stat().st_size
  assert f'together {data / 1e6:.1f} MB to fetch' in lines[3]


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(publisher, monkeypatch):
  usage = shutil._ntuple_diskusage(10, 0, 1000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
  with pytest.raises(MedtlError, match='what this run fetches'):
    told()
  assert {method for method, _ in publisher.asked} == {'HEAD'}


def test_offline_nothing_is_asked(publisher, monkeypatch):
  monkeypatch.setenv('MEDTL_OFFLINE', '1')
  assert told() == []
  assert publisher.asked == []


def test_open_keys_and_folders_are_timed_when_the_data_have_been_read(publisher):
  assert 'told when the data have been read' in told(['--config.task.kind=auto'])[-1]


def test_files_of_runs_beside_and_before_a_run_are_wanted_too(publisher, tmp_path):
  config = cli.parse('train', WORDS)[1]
  names = [remote.what for remote in download_plan.remote_files(config)]
  assert names == ['MedMNIST octmnist.npz', 'the checkpoint augreg_b16']
  first = tmp_path / 'first.py'
  first.write_text((ROOT / 'configs' / 'oct_vit.py').read_text())
  after = cli.parse('train', [*WORDS, f'--config.model.weights=run:{first}'])[1]
  assert 'the checkpoint augreg_b16' in [one.what for one in download_plan.remote_files(after)]
  beside = cli.parse('train', [*WORDS, '--config.model.weights='])[1]
  with beside.unlocked():
    beside.compare = (('published', (('model.weights', 'augreg_s16'),)),)
  assert 'the checkpoint augreg_s16' in [one.what for one in download_plan.remote_files(beside)]


def test_what_the_user_or_a_package_holds_is_not_fetched(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  for words in (
    ['--config=configs/quickstart.py'],
    ['--config=configs/oct_vit.py:offline'],
    ['--config=configs/oct_vit.py', f'--config.data.root={tmp_path}', '--config.model.weights='],
  ):
    assert list(download_plan.remote_files(cli.parse('train', words)[1])) == []
