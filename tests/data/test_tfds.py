"""OCT2017 prepared from a made-up folder and read back; any ArrayRecord data set; refusals."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chex
import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image

from medtl.core.types import MedtlError
from medtl.data.prepare.oct2017 import prepare
from medtl.data.sources import folder, tfds

ROOT = Path(__file__).parents[2]
FILES = [
  f'{side}/{label}/{label}-{100 * place + patient}-{number}.jpeg'
  for place, side in enumerate(('train', 'val', 'test'))
  for label in ('CNV', 'DME', 'DRUSEN', 'NORMAL')
  for patient in (1, 2)
  for number in (1, 2)
]


def write(root, files=FILES):
  random = np.random.RandomState(0)
  for name in files:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.randint(0, 256, (random.randint(6, 12), 9)).astype(np.uint8)).save(
      root / name, 'JPEG'
    )
  return root


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """(the publisher's folder, the root of prepared data sets); not to be changed."""
  source, root = write(tmp_path_factory.mktemp('OCT2017')), tmp_path_factory.mktemp('root')
  before = sorted(source.rglob('*'))
  assert prepare(str(source), str(root)) == root / 'oct2017' / '1.0.0'
  assert sorted(source.rglob('*')) == before
  return source, root


@pytest.fixture
def copy(prepared, tmp_path):
  shutil.copytree(prepared[1], tmp_path / 'root')
  return tmp_path / 'root'


def test_what_is_read_is_what_was_in_the_folder(prepared):
  source, root = prepared
  dataset, direct = tfds.load('oct2017', root=str(root)), folder.load(str(source))
  assert sorted(dataset.table['file']) == sorted(FILES)
  assert dataset.classes == direct.classes == ('CNV', 'DME', 'DRUSEN', 'NORMAL')
  there = {name: row for row, name in enumerate(direct.table['file'])}
  for row, name in enumerate(dataset.table['file']):
    example, other = dataset.fetch(row), direct.fetch(there[name])
    chex.assert_shape(example.x, (None, 9, 1))
    np.testing.assert_array_equal(example.x, other.x)
    assert example.row == row and example.y == dataset.table['y'][row] == other.y
    for column in ('patient', 'split'):
      assert dataset.table[column][row] == direct.table[column][there[name]]
  assert (
    dataset.facts['licence'] == 'CC BY 4.0'
    and '10.17632/rscbjbr9sj' in dataset.facts['citation'] + dataset.facts['url']
  )


def test_the_files_bytes_are_kept(prepared):
  source, root = prepared
  builder = tensorflow_datasets.builder_from_directory(root / 'oct2017' / '1.0.0')
  records = [
    record
    for split in builder.info.splits
    for record in builder.as_data_source(
      split, decoders={'image': tensorflow_datasets.decode.SkipDecoding()}
    )
  ]
  assert len(records) == len(FILES)
  assert all(
    record['image'] == (source / record['file'].decode()).read_bytes() for record in records
  )


def test_the_table_needs_no_picture_decoded(prepared, monkeypatch):
  monkeypatch.setattr(Image, 'open', lambda *_: pytest.fail('decoded'))
  assert tfds.load('oct2017', root=str(prepared[1])).size == len(FILES)


def test_threads_read_what_one_reads(prepared):
  dataset = tfds.load('oct2017:1.0.0', root=str(prepared[1]))
  with ThreadPoolExecutor(4) as pool:
    for row, example in enumerate(pool.map(dataset.fetch, range(dataset.size))):
      np.testing.assert_array_equal(example.x, dataset.fetch(row).x)


def test_splits_can_be_chosen_but_not_cut(prepared):
  dataset = tfds.load('oct2017', root=str(prepared[1]), splits=('test', 'validation'))
  assert dataset.table['split'].tolist() == ['test'] * 16 + ['val'] * 16
  assert all(name.startswith(('test', 'val')) for name in dataset.table['file'])
  with pytest.raises(MedtlError, match='nor are parts of a split read'):
    tfds.load('oct2017', root=str(prepared[1]), splits=('train[50%:]',))


@pytest.mark.parametrize(
  'keys, text',
  [
    (dict(builder='oct'), "did you mean 'oct2017'"),
    (dict(builder='oct2017', image='picture'), "no feature 'picture'"),
    (dict(builder='oct2017', label='image'), 'expected one class, integer or text'),
    (dict(builder='oct2017', patient='pat'), "did you mean 'patient'"),
  ],
)
def test_mistakes_are_named(prepared, keys, text):
  with pytest.raises(MedtlError, match=text):
    tfds.load(**keys, root=str(prepared[1]))


@pytest.mark.parametrize('name', ['parquet', 'tfrecord'])
def test_other_formats_are_refused(copy, name):
  info = copy / 'oct2017' / '1.0.0' / 'dataset_info.json'
  info.write_text(info.read_text().replace('"array_record"', f'"{name}"'))
  with pytest.raises(
    MedtlError, match=f"prepared as {name}, which is not read .* file_format='array_record'"
  ):
    tfds.load('oct2017', root=str(copy))


def test_a_missing_or_damaged_file_is_named(copy):
  path = copy / 'oct2017' / '1.0.0' / 'oct2017-train.array_record-00000-of-00001'
  whole = tfds.load('oct2017', root=str(copy)).fingerprint
  os.truncate(path, path.stat().st_size - 300)
  with pytest.raises(MedtlError, match='cannot be read'):
    tfds.load('oct2017', root=str(copy))
  path.unlink()
  with pytest.raises(MedtlError, match='is missing'):
    tfds.load('oct2017', root=str(copy))
  rest = tfds.load('oct2017', root=str(copy), splits=('test',)).fingerprint
  assert rest != whole


def test_several_versions_ask_for_one(copy):
  (copy / 'oct2017' / '1.0.0').rename(copy / 'oct2017' / '1.0.1')
  shutil.copytree(copy / 'oct2017' / '1.0.1', copy / 'oct2017' / '1.0.2')
  with pytest.raises(MedtlError, match=r'one of oct2017:1.0.1, oct2017:1.0.2'):
    tfds.load('oct2017', root=str(copy))


class Other(tensorflow_datasets.core.GeneratorBasedBuilder):
  """Holds the same records in each split, in their order."""

  VERSION = tensorflow_datasets.core.Version('1.0.0')
  features, records = {}, []

  def _info(self):
    features = tensorflow_datasets.features.FeaturesDict(self.features)
    return tensorflow_datasets.core.DatasetInfo(
      builder=self, features=features, disable_shuffling=True
    )

  def _split_generators(self, dl_manager):
    return {side: self._generate_examples() for side in ('train', 'test')}

  def _generate_examples(self):
    yield from enumerate(self.records)


def make(root, features, records):
  Other.features, Other.records = features, records
  Other(data_dir=str(root), file_format='array_record').download_and_prepare(download_dir=str(root))


def test_volumes_integers_and_other_columns(tmp_path):
  features = tensorflow_datasets.features
  x = np.random.RandomState(0).randint(0, 65536, (3, 2, 3, 4, 1)).astype(np.uint16)
  make(
    tmp_path,
    {
      'ct': features.Tensor(shape=(2, 3, 4, 1), dtype=np.uint16),
      'grade': features.Scalar(np.int64),
      'subject': features.Text(),
      'age': features.Scalar(np.float32),
      'row': features.Scalar(np.int64),
    },
    [dict(ct=x[i], grade=i, subject=f's{i}', age=40.5 + i, row=7 - i) for i in range(3)],
  )
  dataset = tfds.load('other', root=str(tmp_path), image='ct', label='grade', patient='subject')
  assert dataset.classes == ('0', '1', '2') and dataset.table['y'].dtype == np.int32
  np.testing.assert_array_equal(dataset.table['row'], np.arange(6))
  np.testing.assert_array_equal(dataset.table['row_'], [7, 6, 5] * 2)
  np.testing.assert_array_equal(dataset.table['patient'], ['s0', 's1', 's2'] * 2)
  np.testing.assert_array_equal(dataset.table['age'], np.array([40.5, 41.5, 42.5] * 2))
  np.testing.assert_array_equal(dataset.table['split'], ['train'] * 3 + ['test'] * 3)
  for row in range(6):
    np.testing.assert_array_equal(
      dataset.fetch(row).x, x[row % 3].astype(np.float32) / np.float32(65535)
    )


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path):
  features = tensorflow_datasets.features
  make(
    tmp_path,
    {'image': features.Image(shape=(None, None, 3)), 'label': features.Text()},
    [dict(image=b'\x89PNG broken', label='b'), dict(image=b'', label='a')],
  )
  dataset = tfds.load('other', root=str(tmp_path))
  assert dataset.classes == ('a', 'b') and dataset.table['y'].tolist() == [1, 0, 1, 0]
  with pytest.raises(OSError, match=r'other/1.0.0, test, example 1'):
    dataset.fetch(3)


@pytest.mark.parametrize(
  'files, text',
  [
    ([], 'no folder train'),
    ([name for name in FILES if 'val/DME' not in name], 'val/DME holds no .jpeg'),
    (FILES + ['train/CNV/scan1.jpeg'], 'scan1.jpeg: expected a name CNV-PATIENT-NUMBER.jpeg'),
    (FILES + ['train/CNV/DME-1-1.jpeg'], 'DME-1-1.jpeg: expected a name CNV'),
  ],
)
def test_another_folder_is_refused(tmp_path, files, text):
  with pytest.raises(MedtlError, match=text):
    prepare(str(write(tmp_path, files)), str(tmp_path / 'root'))
  assert not list((tmp_path / 'root').rglob('*.json'))


def test_prepared_once(prepared):
  with pytest.raises(MedtlError, match='prepared already'):
    prepare(str(prepared[0]), str(prepared[1]))
  with pytest.raises(MedtlError, match='no folder'):
    prepare('nowhere', str(prepared[1]))


def test_the_command_prepares_what_is_there(tmp_path):
  """The third version has no val."""
  write(tmp_path / 'OCT', [name for name in FILES if not name.startswith('val')])
  program = [
    sys.executable,
    '-m',
    'medtl.data.prepare.oct2017',
    str(tmp_path / 'OCT'),
    str(tmp_path / 'root'),
  ]
  done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT)
  assert done.stdout.splitlines()[-1] == str(tmp_path / 'root' / 'oct2017' / '1.0.0'), done.stderr
  assert set(tfds.load('oct2017', root=str(tmp_path / 'root')).table['split']) == {'train', 'test'}
  again = subprocess.run(program, capture_output=True, text=True, cwd=ROOT)
  assert again.returncode == 1 and again.stderr.strip().endswith('delete it to prepare it anew')


@pytest.mark.real
def test_real_scans_come_back_as_the_folder_reads_them(real, tmp_path):
  scans = real / 'data' / 'oct_kermany_subset'
  for label in ('CNV', 'DME', 'DRUSEN', 'NORMAL'):
    paths = sorted(path for path in (scans / label).iterdir() if path.suffix in ('.jpg', '.jpeg'))
    for path, side in zip(paths, ('train', 'val', 'test') * 2, strict=False):
      (tmp_path / 'OCT' / side / label).mkdir(parents=True, exist_ok=True)
      shutil.copy(path, tmp_path / 'OCT' / side / label / path.name)
  prepare(str(tmp_path / 'OCT'), str(tmp_path / 'root'))
  dataset, direct = (
    tfds.load('oct2017', root=str(tmp_path / 'root')),
    folder.load(str(tmp_path / 'OCT')),
  )
  order = np.argsort(dataset.table['file'])
  assert dataset.size == direct.size == 24
  for row, other in zip(order, np.argsort(direct.table['file']), strict=True):
    np.testing.assert_array_equal(dataset.fetch(row).x, direct.fetch(other).x)
    assert dataset.table['patient'][row] == direct.table['patient'][other]


def test_words_for_missing_and_grades_as_text_are_those_of_a_manifest(tmp_path):
  """'10' comes after '2', and a patient called NA is nobody; a label NA is asked about."""
  grades, people = ('10', '2', '1'), ('p1', 'NA', 'p2')
  column = np.array(grades)
  assert (
    tfds._labels(column, None).classes == ('1', '2', '10')
    and tfds._labels(column, None).order == 'numbers'
  )
  assert tfds._filled(np.array(people)).tolist() == ['p1', '', 'p2']
  with pytest.raises(MedtlError, match='1 pictures have no label, first example 1'):
    tfds._labels(np.array(['a', 'NA', 'b']), None)
  assert tfds._labels(np.array([0, 2]), ('no', 'mild', 'severe')).order == 'given'
