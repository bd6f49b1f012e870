"""Folders and manifests of pictures made here, and real ones that lie beside the checkout."""

import csv
import os
from pathlib import Path

import chex
import numpy as np
import pytest
from PIL import Image

from medtl.core.types import MedtlError
from medtl.data.sources import folder


def draw(path: Path, seed: int = 0, size: tuple[int, ...] = (9, 7)) -> Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.random.RandomState(seed).randint(0, 256, size).astype(np.uint8)).save(path)
  return path


def manifest(root: Path, rows: list[dict[str, str]]) -> None:
  with open(root / 'labels.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
  for number, name in enumerate(
    ['sick/b.png', 'sick/deep/a.jpg', 'well/c.TIFF', 'well/d.bmp', 'well/._d.bmp', 'well/notes.txt']
  ):
    if name.endswith('txt'):
      (tmp_path / name).write_text('no picture')
    else:
      draw(tmp_path / name, number)
  return tmp_path


def test_class_folders_give_classes_files_and_rows(classes):
  data = folder.load(str(classes))
  assert data.classes == ('sick', 'well') and data.size == 4
  assert data.table['file'].tolist() == [
    'sick/b.png',
    'sick/deep/a.jpg',
    'well/c.TIFF',
    'well/d.bmp',
  ]
  assert data.table['y'].tolist() == [0, 0, 1, 1] and data.table['row'].tolist() == [0, 1, 2, 3]
  assert 'split' not in data.table and 'patient' not in data.table
  for number in range(4):
    example = data.fetch(number)
    chex.assert_shape(example.x, (9, 7, 1))
    assert example.x.dtype == np.float32 and example.x.min() >= 0 and example.x.max() <= 1
    assert (example.y, example.row) == (data.table['y'][number], number)
  assert folder.load(str(classes), classes=('well', 'rare', 'sick')).table['y'].tolist() == [
    2,
    2,
    0,
    0,
  ]


def test_nothing_is_read_before_fetch_and_a_broken_file_is_an_os_error(classes):
  whole = (classes / 'sick/b.png').read_bytes()
  for content in (b'', b'no picture', whole[: len(whole) // 2]):
    (classes / 'sick/b.png').write_bytes(content)
    data = folder.load(str(classes))
    with pytest.raises(OSError):
      data.fetch(0)


def test_the_publishers_split_and_oct2017_names_are_recognised(tmp_path):
  for side in ('train', 'val', 'test'):
    for name in ('CNV', 'NORMAL'):
      draw(tmp_path / side / name / f'{name}-{len(side)}77-12.jpeg')
  data = folder.load(str(tmp_path))
  assert (
    data.classes == ('CNV', 'NORMAL')
    and data.table['split'].tolist() == ['test'] * 2 + ['train'] * 2 + ['val'] * 2
  )
  assert data.table['patient'].tolist() == ['477', '477', '577', '577', '377', '377']
  draw(tmp_path / 'extra' / 'NORMAL' / 'x.png')
  with pytest.raises(MedtlError, match='mixes the sides'):
    folder.load(str(tmp_path))


def test_a_pattern_finds_patients(tmp_path):
  for name in ('a/p1_x.png', 'a/p2_x.png', 'b/p1_y.png'):
    draw(tmp_path / name)
  assert folder.load(str(tmp_path), pattern=r'p(\d+)_').table['patient'].tolist() == ['1', '2', '1']
  for pattern, words in (
    (r'p(1)_', 'matches 2 of 3.*a/p2_x.png'),
    (r'p\d', 'no group'),
    (r'p(', 'not a regex'),
  ):
    with pytest.raises(MedtlError, match=words):
      folder.load(str(tmp_path), pattern=pattern)


def test_a_manifest_gives_labels_patients_sides_and_numbers(tmp_path):
  draw(tmp_path / 'one.png')
  draw(tmp_path / 'two.png')
  manifest(
    tmp_path,
    [
      dict(path='one.png', disease='10', who='007', part='Training', age='61', sex='f', y='8'),
      dict(path='two.png', disease='9', who='008', part='test', age='', sex='m', y='9'),
    ],
  )
  keys = dict(manifest='labels.csv', file='path', patient='who', partition='part')
  data = folder.load(str(tmp_path), label='disease', **keys)
  assert data.classes == ('9', '10') and data.table['y'].tolist() == [1, 0]
  assert data.table['patient'].tolist() == ['007', '008'] and data.table['split'].tolist() == [
    'train',
    'test',
  ]
  np.testing.assert_array_equal(data.table['age'], [61, np.nan])
  np.testing.assert_array_equal(data.table['y_'], [8, 9])  # the table has a column y of its own
  assert data.table['sex'].tolist() == ['f', 'm'] and data.fetch(1).row == 1


def test_several_label_columns_are_many_labels(tmp_path):
  draw(tmp_path / 'a.png')
  manifest(
    tmp_path, [dict(file='a.png', mass='1', cyst='0'), dict(file='b.png', mass='1', cyst='1')]
  )
  data = folder.load(str(tmp_path), manifest='labels.csv', label=('mass', 'cyst'))
  assert data.classes == ('mass', 'cyst') and data.table['y'].tolist() == [[1, 0], [1, 1]]
  assert data.table['y'].dtype == np.float32
  (tmp_path / 'labels.csv').write_text('file,mass,cyst\na.png,1,maybe\n')
  with pytest.raises(MedtlError, match=r"'maybe' of a.png \(in labels.csv\) in column 'cyst'"):
    folder.load(str(tmp_path), manifest='labels.csv', label=('mass', 'cyst'))


def test_pictures_without_labels_are_minus_one(classes):
  data = folder.load(str(classes), label='', classes=('sick', 'well'))
  assert (
    data.table['y'].tolist() == [-1] * 4
    and data.classes == ('sick', 'well')
    and data.fetch(2).y == -1
  )


@pytest.mark.parametrize(
  'stored, suffix', [(np.uint8, 'png'), (np.uint8, 'bmp'), (np.uint16, 'png'), (np.uint16, 'tif')]
)
def test_grey_of_8_and_16_bit_is_exact(tmp_path, stored, suffix):
  most = np.iinfo(stored).max
  values = np.array([[0, 1, most // 3], [most // 2, most - 1, most]], stored)
  path = tmp_path / f'x.{suffix}'
  Image.fromarray(values).save(path)
  for channels in (1, 3):
    found = folder.read(path, channels, 'stop')
    chex.assert_shape(found, (2, 3, channels))
    for channel in range(channels):
      np.testing.assert_array_equal(
        found[..., channel], values.astype(np.float32) / np.float32(most)
      )


def test_colour_and_palette_become_luma_and_float_stays(tmp_path):
  values = np.random.RandomState(0).randint(0, 256, (5, 6, 3)).astype(np.uint8)
  path = tmp_path / 'x.png'
  Image.fromarray(values).save(path)
  np.testing.assert_array_equal(
    folder.read(path, 3, 'stop'), values.astype(np.float32) / np.float32(255)
  )
  np.testing.assert_allclose(
    folder.read(path, 1, 'stop')[..., 0], values @ [0.299, 0.587, 0.114] / 255, atol=1e-6
  )
  Image.fromarray(values).quantize(256).save(path)
  np.testing.assert_allclose(folder.read(path, 3, 'stop'), values / 255, atol=0.1)
  hounsfield = np.array([[-1000.0, 40.5]], np.float32)
  Image.fromarray(hounsfield).save(tmp_path / 'x.tif')
  np.testing.assert_array_equal(folder.read(tmp_path / 'x.tif', 1, 'stop')[..., 0], hounsfield)


def test_turned_pictures_are_never_turned_silently(tmp_path):
  picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
  exif = Image.Exif()
  exif[0x0112] = 6  # stored turned by 90° counter-clockwise
  picture.save(tmp_path / 'x.png', exif=exif)
  with pytest.raises(MedtlError, match='orientation 6'):
    folder.read(tmp_path / 'x.png', 1, 'stop')
  found = folder.read(tmp_path / 'x.png', 1, 'apply')[..., 0] * 255
  np.testing.assert_allclose(found, np.rot90(np.arange(12).reshape(3, 4), -1), atol=1e-4)


def test_a_tiff_of_several_pages_stops(tmp_path):
  page = Image.fromarray(np.zeros((4, 4), np.uint8))
  page.save(tmp_path / 'x.tif', save_all=True, append_images=[page])
  with pytest.raises(MedtlError, match='2 pages'):
    folder.read(tmp_path / 'x.tif', 1, 'stop')


def test_the_fingerprint_tells_other_labels_and_any_change_of_a_file(classes):
  first, again = folder.load(str(classes)), folder.load(str(classes))
  assert first.fingerprint == again.fingerprint and first.facts == again.facts
  path = classes / 'sick/b.png'
  size, times = path.stat().st_size, path.stat()
  draw(classes / 'other.bin.png', 5).rename(classes / 'other')
  path.write_bytes(
    (classes / 'other').read_bytes()[:size].ljust(size)
  )  # same size, and the old times are put back
  os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
  (classes / 'other').unlink()
  assert folder.load(str(classes)).fingerprint != first.fingerprint
  found = []
  for labels in ('sw', 'ss', 'sw'):
    manifest(
      classes, [dict(file='sick/b.png', label=labels[0]), dict(file='well/d.bmp', label=labels[1])]
    )
    found.append(folder.load(str(classes), manifest='labels.csv', classes=('s', 'w')).fingerprint)
  assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(
  'keys, words',
  [
    (dict(manifest='none.csv'), 'no manifest'),
    (dict(patient='who'), 'data.patient need a manifest, and none'),
    (dict(channels=2), 'channels 1 or 3'),
    (dict(exif='turn'), "'apply'"),
    (dict(classes=('sick', 'sound')), r"2 labels outside .*'well' of well/c.TIFF"),
  ],
)
def test_wrong_keys_say_what_is_right(classes, keys, words):
  with pytest.raises(MedtlError, match=words):
    folder.load(str(classes), **keys)


def test_what_a_folder_or_manifest_lacks_is_said(tmp_path, classes):
  (classes / 'empty').mkdir()
  with pytest.raises(
    MedtlError, match=r'1 folders hold no pictures .*, first empty; expected none'
  ):
    folder.load(str(classes))
  assert folder.load(str(classes), label='').size == 4
  with pytest.raises(MedtlError, match=r'no folder of pictures was named; set data.root=FOLDER'):
    folder.load('')
  for text, said in (
    (b'file,label\n', 'has no rows; expected a header line and a line for each picture'),
    ('file,label\nsick/b.png,k\u00e4lte\n'.encode('latin-1'), 'is not UTF-8 .*; save it as UTF-8'),
    (
      b'file,label\nsick/b.png,A\nwell/d.bmp,B\nwell/c.TIFF,\n',
      '1 pictures have no label, first well/c.TIFF',
    ),
  ):
    (classes / 'labels.csv').write_bytes(text)
    with pytest.raises(MedtlError, match=said):
      folder.load(str(classes), manifest='labels.csv')


def test_wrong_folders_say_what_is_right(tmp_path):
  with pytest.raises(MedtlError, match='no folder'):
    folder.load(str(tmp_path / 'gone'))
  with pytest.raises(MedtlError, match='no pictures'):
    folder.load(str(tmp_path))
  draw(tmp_path / 'only' / 'x.png')
  with pytest.raises(MedtlError, match=r"one class only.*'only'"):
    folder.load(str(tmp_path))
  draw(tmp_path / 'y.png')
  with pytest.raises(MedtlError, match=r'no class folder.*y\.png'):
    folder.load(str(tmp_path))
  (tmp_path / 'labels.csv').write_text('file,label\na.png\n')
  with pytest.raises(MedtlError, match='line 2'):
    folder.load(str(tmp_path), manifest='labels.csv')
  (tmp_path / 'labels.csv').write_text('file,lable\na.png,1\n')
  with pytest.raises(MedtlError, match="did you mean 'lable'"):
    folder.load(str(tmp_path), manifest='labels.csv')


@pytest.mark.real
def test_the_kermany_subset_is_known_by_its_file_names(real):
  root = str(real / 'data/oct_kermany_subset')
  data = folder.load(root)
  assert data.classes == ('CNV', 'DME', 'DRUSEN', 'NORMAL') and np.bincount(
    data.table['y']
  ).tolist() == [100, 15, 15, 117]
  listed = folder.load(
    root, manifest='labels.csv', patient='patient_id', partition='kermany_partition'
  )
  by_file = dict(zip(listed.table['file'], listed.table['patient'], strict=True))
  assert [by_file[name] for name in data.table['file']] == data.table['patient'].tolist()
  assert len(set(data.table['patient'])) == 96
  chex.assert_shape(data.fetch(0).x, (256, None, 1))


@pytest.mark.real
def test_busi_is_read_by_its_manifest(real):
  data = folder.load(
    str(real / 'data/busi'), manifest='labels.csv', classes=('normal', 'benign', 'malignant')
  )
  assert (
    np.bincount(data.table['y']).tolist() == [133, 437, 210]
    and data.table['n_masks'].dtype == float
  )
  assert data.fetch(5).x.shape[2] == 1
