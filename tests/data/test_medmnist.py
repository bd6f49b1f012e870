"""MedMNIST: small files in the publisher's format from a local server.

The publisher's own files are read where they are there.
"""

import functools
import hashlib
import http.server
import threading

import chex
import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.data import ahead
from medtl.data.sources import medmnist
from medtl.runtime.downloads import cache_folder

COUNTS = dict(train=5, val=2, test=3)


class Quiet(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *_):
    pass


@pytest.fixture
def publish(tmp_path, monkeypatch):
  """Write a set as the publisher would, serve it, and enter its md5; return the arrays."""
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'cache'))
  monkeypatch.delenv('MEDTL_OFFLINE', raising=False)
  folder = tmp_path / 'zenodo'
  folder.mkdir()
  server = http.server.ThreadingHTTPServer(
    ('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder))
  )
  threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
  monkeypatch.setattr(medmnist, 'URL', f'http://127.0.0.1:{server.server_port}/{{file}}?download=1')

  def make(flag, shape, labels=1):
    random = np.random.RandomState(1)
    arrays = {}
    for side, count in COUNTS.items():
      arrays[f'{side}_images'] = random.randint(0, 256, (count, *shape)).astype(np.uint8)
      arrays[f'{side}_labels'] = random.randint(0, 2, (count, labels)).astype(np.uint8)
    path = folder / (f'{flag}.npz' if shape[0] == 28 else f'{flag}_{shape[0]}.npz')
    np.savez_compressed(path, **arrays)
    place = (28, 64, 128, 224).index(shape[0])
    sums = [
      hashlib.md5(path.read_bytes()).hexdigest() if i == place else '0' * 32 for i in range(4)
    ]
    monkeypatch.setitem(medmnist.SOURCES, flag, medmnist.SOURCES[flag]._replace(md5=' '.join(sums)))
    return path, arrays

  yield make
  server.shutdown()
  server.server_close()


def check_equal(dataset, arrays):
  """Every example is the publisher's array, in its order, over 255."""
  x = np.concatenate([arrays[f'{side}_images'] for side in COUNTS])
  y = np.concatenate([arrays[f'{side}_labels'] for side in COUNTS])
  split = np.concatenate([[side] * len(arrays[f'{side}_labels']) for side in COUNTS])
  assert dataset.size == len(x)
  np.testing.assert_array_equal(dataset.table['y'].reshape(y.shape), y)
  np.testing.assert_array_equal(dataset.table['split'], split)
  np.testing.assert_array_equal(dataset.table['row'], np.arange(len(x)))
  for row in range(0, dataset.size, max(1, dataset.size // 50)):
    example = dataset.fetch(row)
    assert example.x.dtype == np.float32 and example.row == row
    np.testing.assert_array_equal(
      example.x, (x[row].astype(np.float32) / np.float32(255)).reshape(example.x.shape)
    )
    np.testing.assert_array_equal(example.y, dataset.table['y'][row])


@pytest.mark.parametrize(
  'flag, shape, labels, expected',
  [
    ('breastmnist', (28, 28), 1, (28, 28, 1)),
    ('octmnist', (64, 64), 1, (64, 64, 1)),
    ('pathmnist', (28, 28, 3), 1, (28, 28, 3)),
    ('chestmnist', (28, 28), 14, (28, 28, 1)),
    ('retinamnist', (28, 28, 3), 1, (28, 28, 3)),
    ('adrenalmnist3d', (28, 28, 28), 1, (28, 28, 28, 1)),
  ],
)
def test_examples_are_the_publishers_arrays(publish, flag, shape, labels, expected):
  _, arrays = publish(flag, shape, labels)
  dataset = medmnist.load(flag, size=shape[0])
  check_equal(dataset, arrays)
  chex.assert_shape(dataset.fetch(9).x, expected)
  chex.assert_shape(dataset.table['y'], (10,) if labels == 1 else (10, labels))
  assert dataset.table['y'].dtype == (np.int32 if labels == 1 else np.float32)
  assert (
    len(dataset.classes)
    == {
      'breastmnist': 2,
      'octmnist': 4,
      'pathmnist': 9,
      'chestmnist': 14,
      'retinamnist': 5,
      'adrenalmnist3d': 2,
    }[flag]
  )
  assert dataset.facts['task'] == {
    'chestmnist': 'multi-label',
    'retinamnist': 'ordinal',
    'octmnist': 'multi-class',
    'pathmnist': 'multi-class',
  }.get(flag, 'binary')


@pytest.mark.parametrize(
  'flag, shape, labels',
  [
    ('breastmnist', (28, 28), 1),
    ('pathmnist', (28, 28, 3), 1),
    ('chestmnist', (64, 64), 14),
    ('adrenalmnist3d', (28, 28, 28), 1),
  ],
)
def test_what_is_known_ahead_is_what_is_read(publish, monkeypatch, flag, shape, labels):
  publish(flag, shape, labels)
  monkeypatch.setitem(medmnist.COUNTS, flag, tuple(COUNTS.values()))
  described = ahead.of('medmnist.load', dict(flag=flag, size=shape[0]))
  dataset = medmnist.load(flag, size=shape[0])
  blank = described.blank
  assert described.remote.path.is_file()
  assert (blank.size, blank.classes) == (dataset.size, dataset.classes)
  for name in ('row', 'split'):
    np.testing.assert_array_equal(blank.table[name], dataset.table[name])
  chex.assert_trees_all_equal_shapes_and_dtypes(blank.table['y'], dataset.table['y'])
  for index in (0, dataset.size - 1):
    chex.assert_trees_all_equal_shapes_and_dtypes(blank.fetch(index)[:2], dataset.fetch(index)[:2])
  arrays = (cache_folder() / 'medmnist').rglob('*_images.npy')
  assert described.unpacked == sum(np.load(file).nbytes for file in arrays)


def test_nothing_is_known_ahead_of_what_is_not_fetched(tmp_path):
  assert set(medmnist.COUNTS) == set(medmnist.SOURCES)
  for keys in (dict(root=str(tmp_path)), dict(flag='none'), dict(size=29)):
    assert ahead.of('medmnist.load', keys) is None
  assert ahead.of('folder.load', dict(root=str(tmp_path))) is None


def test_blank_pictures_are_shaped_and_split_as_the_config_says():
  blank = ahead.of('medmnist.load', dict(flag='breastmnist')).blank
  sides = ahead.sides(blank, 'resize(32, 16)', dict(by='publisher'))
  assert {side: dataset.size for side, dataset in sides.items()} == dict(
    train=546, val=78, test=156
  )
  chex.assert_shape(sides['val'].fetch(77).x, (32, 16, 1))
  assert sides['val'].fetch(3).y == sides['val'].table['y'][3]


def test_a_file_is_unpacked_once(publish, monkeypatch):
  path, arrays = publish('breastmnist', (28, 28))
  medmnist.load('breastmnist')
  monkeypatch.setenv('MEDTL_OFFLINE', '1')
  monkeypatch.setattr(medmnist, '_unpack', lambda *_: pytest.fail('unpacked twice'))
  check_equal(medmnist.load('breastmnist'), arrays)
  assert isinstance(
    medmnist._arrays(next((cache_folder() / 'medmnist').glob('*[!k]')), path, (28, 28), 1)[
      'train_images'
    ],
    np.memmap,
  )
  for root in (path, path.parent):
    check_equal(medmnist.load('breastmnist', root=str(root)), arrays)


def test_an_unpacking_that_was_killed_is_begun_anew(publish):
  _, arrays = publish('breastmnist', (28, 28))
  aside = cache_folder() / 'medmnist' / f'{medmnist.SOURCES["breastmnist"].md5.split()[0]}.part'
  aside.mkdir(parents=True)
  (aside / 'train_images.npy').write_bytes(b'half')
  check_equal(medmnist.load('breastmnist'), arrays)
  assert not aside.exists()


@pytest.mark.parametrize(
  'damage', [lambda b: b[:-100], lambda b: b[:60] + b'x' + b[61:], lambda b: b'']
)
def test_a_damaged_file_is_refused(publish, damage):
  path, _ = publish('breastmnist', (28, 28))
  path.write_bytes(damage(path.read_bytes()))
  for root in ('', str(path)):
    with pytest.raises(MedtlError, match=r'damaged or another file: its md5 is .* expected'):
      medmnist.load('breastmnist', root=root)


def altered(**changes):
  """A change of the arrays that the publisher's checksum would not have let pass."""
  return lambda arrays: arrays.update(
    {name: change(arrays[name]) for name, change in changes.items()}
  )


@pytest.mark.parametrize(
  'change, text',
  [
    (lambda arrays: arrays.pop('val_labels'), 'lacks the array val_labels'),
    (
      altered(train_labels=lambda y: y[:-1]),
      r'train side has pictures uint8 \(5, 28, 28\) and labels uint8 \(4, 1\)',
    ),
    (altered(test_labels=lambda y: y[:, 0]), r'labels uint8 \(3,\); expected'),
    (altered(val_labels=lambda y: y * 0.7), 'labels float64'),
    (altered(val_images=lambda x: x.reshape(2, 14, 56)), r'\(2, 14, 56\)'),
    (altered(val_images=lambda x: x / 255), 'pictures float64'),
    (altered(val_images=lambda x: x[0, 0, 0]), r'pictures uint8 \(\)'),
    (
      altered(val_images=lambda x: x.astype(object)),
      'is damaged: ValueError while its array val_images was read',
    ),
  ],
)
def test_arrays_that_are_not_the_set_are_refused(publish, monkeypatch, change, text):
  path, arrays = publish('breastmnist', (28, 28))
  change(arrays)
  np.savez(path, **arrays)
  sums = hashlib.md5(path.read_bytes()).hexdigest()
  monkeypatch.setitem(
    medmnist.SOURCES, 'breastmnist', medmnist.SOURCES['breastmnist']._replace(md5=f'{sums} {sums}')
  )
  with pytest.raises(MedtlError, match=text) as caught:
    medmnist.load('breastmnist', root=str(path))
  assert str(path) in str(caught.value)


@pytest.mark.parametrize(
  'keys, text',
  [
    (dict(flag='octmist'), "did you mean 'octmnist'"),
    (dict(flag='octmnist', size=112), 'sizes 28, 64, 128, 224'),
    (dict(flag='organmnist3d', size=224), 'sizes 28, 64, found'),
    (dict(root='nowhere'), r'no such file(.|\n)*zenodo|127'),
  ],
)
def test_what_is_not_published(publish, keys, text):
  with pytest.raises(MedtlError, match=text):
    medmnist.load(**keys)


def test_a_missing_download_says_what_to_do(tmp_path, monkeypatch):
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path))
  monkeypatch.setenv('MEDTL_OFFLINE', '1')
  with pytest.raises(MedtlError) as error:
    medmnist.load('octmnist', size=224, hint='configs/oct_vit.py:offline needs no download')
  for part in (
    'https://zenodo.org/records/10519652/files/octmnist_224.npz',
    'abc493b6d529d5de7569faaef2773ba3',
    str(tmp_path / 'downloads' / 'medmnist' / 'octmnist_224.npz'),
    'configs/oct_vit.py:offline',
  ):
    assert part in str(error.value)


def test_the_table_is_whole():
  sums = [text for source in medmnist.SOURCES.values() for text in source.md5.split()]
  assert len(medmnist.SOURCES) == 18 and len(sums) == len(set(sums)) == 12 * 4 + 6 * 2
  assert all(len(text) == 32 and int(text, 16) >= 0 for text in sums)
  assert sum(len(source.classes.split('; ')) for source in medmnist.SOURCES.values()) == 114
  assert medmnist.SOURCES['dermamnist'].licence == 'CC BY-NC 4.0'


@pytest.mark.real
@pytest.mark.parametrize(
  'flag, counts, positive',
  [('breastmnist', (546, 78, 156), 0.731), ('adrenalmnist3d', (1188, 98, 298), 0.22)],
)
def test_the_publishers_own_files(real, tmp_path, monkeypatch, flag, counts, positive):
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path))
  path = real / 'data' / 'medmnist' / f'{flag}.npz'
  dataset = medmnist.load(flag, root=str(path.parent))
  with np.load(path) as arrays:
    check_equal(dataset, arrays)
  assert tuple(int((dataset.table['split'] == side).sum()) for side in COUNTS) == counts
  assert medmnist.COUNTS[flag] == counts
  assert dataset.table['y'].mean() == pytest.approx(positive, abs=0.01)
