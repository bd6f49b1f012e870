"""What people's folders and manifests hold beside what was expected.

Each situation has one right answer, or a question.
"""

import csv
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl import data
from medtl.core.types import Dataset, Example, MedtlError
from medtl.data.listing import labels, repeated_rows, walk
from medtl.data.sources import folder


def draw(path: Path, seed: int = 0, size: tuple[int, ...] = (9, 7)) -> Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.random.RandomState(seed).randint(0, 256, size).astype(np.uint8)).save(path)
  return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
  """Six pictures of two classes."""
  for number in range(6):
    draw(tmp_path / 'root' / 'ab'[number % 2] / f'{number}.png', number)
  return tmp_path / 'root'


def listed(root: Path, rows: list[dict[str, str]], **keys) -> Dataset:
  """The data set of a manifest with these rows; each file is drawn."""
  root.mkdir(exist_ok=True)
  for row in rows:
    if row['file'] and not (root / row['file']).exists():
      draw(root / row['file'], len(row['file']))
  with open(root / 'labels.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  return folder.load(str(root), manifest='labels.csv', **keys)


def rows(labels: str, **more: str) -> list[dict[str, str]]:
  """A row for each letter: file <number>.png, the letter as label, i-th words of other columns."""
  others = {name: text.split(' ') for name, text in more.items()}
  return [
    dict(file=f'{i}.png', label=letter, **{name: words[i] for name, words in others.items()})
    for i, letter in enumerate(labels)
  ]


# What cannot be entered, and what is passed over.


def test_links_to_folders_and_files_are_followed(root, tmp_path):
  """DVC and shared stores link class folders and pictures."""
  (root / 'b').rename(tmp_path / 'store')
  (root / 'b').symlink_to(tmp_path / 'store', target_is_directory=True)
  (root / 'a' / 'linked.png').symlink_to(tmp_path / 'store' / '1.png')
  found = folder.load(str(root))
  assert found.table['file'].tolist() == [
    'a/0.png',
    'a/2.png',
    'a/4.png',
    'a/linked.png',
    'b/1.png',
    'b/3.png',
    'b/5.png',
  ]
  assert found.fetch(4).x.shape == (9, 7, 1)
  assert folder.load(str(root), label='').size == 7


def test_a_loop_of_links_ends_and_is_said(root):
  (root / 'a' / 'again').symlink_to(root, target_is_directory=True)
  (root / 'b' / 'itself').symlink_to('itself')
  with pytest.raises(MedtlError, match=r'1 links below .* lead nowhere, first b/itself → itself'):
    folder.load(str(root))
  (root / 'b' / 'itself').unlink()
  found = folder.load(str(root), label='')
  assert found.size == 6
  assert found.facts['notes'] == ['passed over: 1 links back to a folder above, first a/again']


def test_links_that_lead_nowhere_stop_and_annexed_files_are_told(root):
  (root / 'a' / 'gone.png').symlink_to('../.git/annex/objects/x/y.png')
  with pytest.raises(MedtlError, match=r'first a/gone.png → .*datalad get'):
    folder.load(str(root), label='')


def test_a_folder_or_file_that_may_not_be_opened_stops(root, monkeypatch):
  entered = os.scandir

  def refusing(path):
    if Path(path).name == 'b':
      raise PermissionError(13, 'Permission denied', path)
    return entered(path)

  monkeypatch.setattr(walk.os, 'scandir', refusing)
  for keys in ({}, {'label': ''}):
    with pytest.raises(
      MedtlError, match=r'cannot look into the folder .*/b: Permission denied.*chmod -R u\+rX'
    ):
      folder.load(str(root), **keys)
  monkeypatch.undo()

  def shut(path):
    raise PermissionError(13, 'Permission denied', str(path))

  with pytest.raises(MedtlError, match=r'cannot open .*/a/0.png: Permission denied'):
    walk.walk(root, shut)


def test_what_is_passed_over_is_counted_by_suffix(root):
  for name in (
    'a/notes.txt',
    'b/x.gif',
    'b/y.gif',
    '@eaDir/0.png/thumb.jpg',
    '@eaDir/1.png/thumb.jpg',
    '__MACOSX/._0.png',
    'a/.DS_Store',
    'README',
  ):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b'no picture')
  os.mkfifo(root / 'a' / 'pipe.png')
  found = folder.load(str(root))
  assert found.size == 6 and found.classes == ('a', 'b')
  (note,) = found.facts['notes']
  for words in (
    '2 .gif',
    '1 .txt',
    '1 without a suffix',
    '2 in @eaDir',
    '1 in __MACOSX',
    '1 hidden files',
    '1 no regular file',
  ):
    assert words in note
  for path in root.rglob('[0-9].png'):
    if path.is_file():
      path.unlink()
  with pytest.raises(MedtlError, match=r'holds no pictures .*; passed over: .*2 \.gif'):
    folder.load(str(root))


def test_a_name_that_is_not_utf8_is_shown_as_bytes(root):
  (root / 'a' / '0.png').rename(os.fsdecode(os.fsencode(root) + b'/a/k\xe4lte.png'))
  with pytest.raises(MedtlError, match=r"b'k\\xe4lte.png' in .*/a is not UTF-8; rename it"):
    folder.load(str(root))


def test_masks_beside_their_pictures_are_left_out_with_a_word(tmp_path):
  """BUSI as published: 'benign (1).png' beside 'benign (1)_mask.png' and '…_mask_1.png'."""
  for name in ('x', 'x_lesion', 'x.mask', 'mask_x', 'x-label_2'):
    draw(tmp_path / 'other' / f'{name}.png')
  assert folder.load(str(tmp_path), label='').table['file'].tolist() == ['other/x.png']
  shutil.rmtree(tmp_path / 'other')
  names = [
    'benign/benign (1).png',
    'benign/benign (1)_mask.png',
    'benign/benign (1)_mask_1.png',
    'normal/normal (1).png',
    'normal/normal (1)_mask.png',
    'normal/gas_mask.png',
  ]
  for name in names:
    draw(tmp_path / name)
  found = folder.load(str(tmp_path))
  assert found.table['file'].tolist() == [names[0], names[5], names[3]]
  note = found.facts['notes'][0]
  assert note.startswith(
    'left out: 3 files that are called masks of other pictures here, first benign/benign '
    '(1)_mask.png'
  )
  kept = folder.load(str(tmp_path), masks='keep')  # the note's own advice
  assert kept.size == 6 and not kept.facts['notes']
  assert folder.load(str(tmp_path), label='').size == 3
  with pytest.raises(MedtlError, match=r"data.masks='drop'; expected 'leave_out'"):
    folder.load(str(tmp_path), masks='drop')


def test_masks_in_a_folder_beside_that_of_the_pictures_are_left_out(tmp_path):
  """COVID-19 Radiography: CLASS/images beside CLASS/masks.

  Foot ulcers: images beside masks, to be predicted.
  """
  for name in (
    'covid/images/1.png',
    'covid/masks/1.png',
    'normal/images/2.png',
    'normal/masks/2.png',
    'normal/images/scan_seg.png',
  ):
    draw(tmp_path / name, len(name))
  found = folder.load(str(tmp_path))
  assert found.table['file'].tolist() == [
    'covid/images/1.png',
    'normal/images/2.png',
    'normal/images/scan_seg.png',
  ]
  assert found.facts['notes'][0].startswith('left out: 2 files that are called masks')
  assert folder.load(str(tmp_path / 'covid'), label='').table['file'].tolist() == ['images/1.png']
  assert folder.load(str(tmp_path / 'covid' / 'masks'), label='').size == 1  # asked for by name


def test_the_publishers_sides_may_stand_below_the_classes(tmp_path):
  for side in ('train', 'test'):
    for name in 'ab':
      draw(tmp_path / name / side / f'{side}{name}.png', len(side))
  found = folder.load(str(tmp_path))
  assert found.classes == ('a', 'b') and found.table['split'].tolist() == [
    'test',
    'train',
    'test',
    'train',
  ]
  draw(tmp_path / 'a' / 'other' / 'x.png')
  with pytest.raises(
    MedtlError, match=r'mixes the sides of a split with other folders \(first: a/other/x.png\)'
  ):
    folder.load(str(tmp_path))


@pytest.mark.parametrize(
  'names, words',
  [
    (
      ('images/1.png', 'masks/1.png'),
      "called images, masks, and 'masks' is what a folder of masks is called",
    ),
    (('covid/1.png', 'normal/2.png', 'masks/1.png'), "'masks' is what a folder of masks is called"),
    (
      ('ISIC_Data/1.png', 'ISIC_GroundTruth/1.png'),
      "'ISIC_GroundTruth' is what a folder of masks is called",
    ),
    (('training_set/1.png', 'test_set/2.png'), 'sides of a split, no classes'),
    (
      ('hospital1/a/1.png', 'hospital1/b/2.png', 'hospital2/a/3.png', 'hospital2/b/4.png'),
      'each of hospital1, hospital2 in .* holds the folders a, b: which of the two is the class',
    ),
    (('train/1.png', 'test/2.png'), 'sides of a split, no classes'),
  ],
)
def test_folders_that_are_no_classes_are_told_from_classes(tmp_path, names, words):
  for name in names:
    draw(tmp_path / name)
  with pytest.raises(MedtlError, match=words):
    folder.load(str(tmp_path))


def test_one_file_alone_is_a_data_set_of_one(root):
  found = folder.load(str(root / 'a' / '0.png'), label='')
  assert (
    found.size == 1
    and found.table['file'].tolist() == ['0.png']
    and found.fetch(0).x.shape == (9, 7, 1)
  )
  with pytest.raises(MedtlError, match='expected a folder of pictures, and this is a file'):
    folder.load(str(root / 'a' / '0.png'))


# A csv that does not say what it seems to say.


@pytest.mark.parametrize(
  'text, words',
  [
    (
      'file,label\n0.png,a\n1.png,"b\n2.png,a\n3.png,b\n',
      r'labels.csv, line 3: .*A quote opens a field that it does not close',
    ),
    ('file,label\n0.png,a\n1.png,"b"x\n2.png,a\n', r'line 3: .*A quote'),
    ('file,label,note\n0.png,a,"x\n1.png,b,"y"\n', r'line 2: .*A quote'),
    ('file,label,label\n0.png,a,b\n', r"2 columns called 'label'; which one is meant\?"),
    ('file, file,label\n0.png,a,b\n', r"2 columns called 'file'"),
    ('file;label\n0.png;a\n', 'separates its columns by semicolons; expected commas'),
    ('file\tlabel\n0.png\ta\n', 'separates its columns by tabs; expected commas'),
    ('file,label\n0.png,a,b\n', 'line 2: 3 fields, where the header has 2'),
    ('file,label\n0.png\n', 'line 2: 1 fields, where the header has 2'),
    ('file,label\n,a\n', "line 2: column 'file' names no file"),
    ('file,label\n"0\n.png",a\n', 'line 2: the file name spans lines'),
    ('file,label,\n0.png,a,\n', 'column 3 has no name; write one'),
    ('file,label\na,a\n', r'line 2: a is a folder; expected a file'),
    (
      'file,label,patient\n0.png,a,1\n',
      "has a column 'patient': is it what it is called. Then set data.patient='patient'",
    ),
    ('file,label\n', 'has no rows'),
    ('\n\n', 'has no rows'),
    ('file,label\n0.png,a\0\n', 'line 2'),
  ],
)
def test_a_csv_that_cannot_be_trusted_is_an_error_with_its_line(root, text, words):
  (root / 'labels.csv').write_text(text)
  with pytest.raises(MedtlError, match=words):
    folder.load(str(root), manifest='labels.csv')


def test_long_fields_lines_within_texts_and_an_index_column_are_read(tmp_path):
  """A run-length mask of more than 128 KB, a report of two lines, pandas' column without a name."""
  rle = ' '.join(map(str, range(30000)))
  for name in '01':
    draw(tmp_path / f'{name}.png')
  (tmp_path / 'labels.csv').write_text(
    f'\ufeff,file,label,report,rle\n0,0.png,a,"no ""mass"",\nclear",{rle}\n\n1,1.png,b,,\n'
  )
  found = folder.load(str(tmp_path), manifest='labels.csv')
  assert (
    found.table['report'].tolist() == ['no "mass",\nclear', ''] and found.table['rle'][0] == rle
  )
  assert found.table['index'].tolist() == [0, 1]


def test_two_forgotten_quotes_that_swallow_rows_between_them_are_noticed(root):
  """The second quote closes the first; the row between them would be part of a text."""
  (root / 'labels.csv').write_text(
    'file,label,note\na/0.png,a,"x\na/2.png,a,y\nb/1.png,b,z"\nb/3.png,b,w\n'
  )
  with pytest.raises(
    MedtlError,
    match=r"line 2: the text in column 'note' goes on .* what looks like a row \(a/2.png,a,y\)",
  ):
    folder.load(str(root), manifest='labels.csv')


def test_utf16_is_said(root):
  (root / 'labels.csv').write_text('file,label\n0.png,a\n', encoding='utf-16')
  with pytest.raises(MedtlError, match=r'not UTF-8 .*; save it as UTF-8'):
    folder.load(str(root), manifest='labels.csv')


def test_ids_without_a_suffix_name_the_file_that_is_there_and_the_advice_works(root):
  (root / 'labels.csv').write_text('id,label\na/0,a\nb/1,b\n')
  keys = dict(manifest='labels.csv', file='id')
  with pytest.raises(
    MedtlError, match=r"none of the 2 files .* first a/0; there is a/0.png: set data.suffix='\.png'"
  ):
    folder.load(str(root), **keys)
  assert folder.load(str(root), **keys, suffix='.png').table['file'].tolist() == [
    'a/0.png',
    'b/1.png',
  ]
  (root / 'labels.csv').write_text('id,label\n0.png,a\n2.png,b\n')
  said = (
    rf"there is a/0.png: write names relative to .*, or set data.root='{root / 'a'}' "
    rf"data.manifest='../labels.csv'"
  )
  with pytest.raises(MedtlError, match=said):
    folder.load(str(root), **keys)
  assert folder.load(str(root / 'a'), manifest='../labels.csv', file='id').size == 2
  (root / 'labels.csv').write_text('id,label\n0,a\n2,b\n')
  with pytest.raises(MedtlError, match=r"data.manifest='../labels.csv' data.suffix='.png'"):
    folder.load(str(root), **keys)
  assert folder.load(str(root / 'a'), manifest='../labels.csv', file='id', suffix='.png').size == 2


def test_backslashes_of_windows_are_slashes_with_a_word(root):
  (root / 'labels.csv').write_text('file,label\na\\0.png,a\n./b/../b/1.png,b\n')
  found = folder.load(str(root), manifest='labels.csv')
  assert (
    found.table['file'].tolist() == ['a/0.png', 'b/1.png']
    and 'backslashes' in found.facts['notes'][0]
  )


# Rows that are not cases.

READERS = [
  dict(file=f'{i}.png', label=label, who=f'p{i}', x='1', y_='0')
  for i, votes in enumerate(('aab', 'bbb', 'bab'))
  for label in votes
]


def test_a_file_in_several_rows_is_refused_with_counts_and_contradictions(tmp_path):
  with pytest.raises(
    MedtlError,
    match=r'9 rows name 3 files: 3 files stand in several rows, 2 with more than one label '
    r"\(first 0.png: a, b\)\. Say what the rows mean: data.repeated='first'",
  ):
    listed(tmp_path, READERS)
  with pytest.raises(
    MedtlError, match=r'8 rows name 4 files: 4 files .* several rows \(first 0.png\)'
  ):
    listed(tmp_path, rows('abab') * 2)
  other = [
    dict(file='0.png', label='a'),
    dict(file='./0.png', label='a'),
    dict(file='1.png', label='b'),
  ]
  with pytest.raises(MedtlError, match='3 rows name 2 files'):
    listed(tmp_path, other)
  other[1]['file'] = str(tmp_path / '0.png')
  with pytest.raises(MedtlError, match='3 rows name 2 files'):
    listed(tmp_path, other)


def test_first_and_majority_make_one_case_of_a_file(tmp_path):
  first = listed(tmp_path, READERS, repeated='first', patient='who')
  assert first.size == 3 and [first.classes[y] for y in first.table['y']] == ['a', 'b', 'b']
  most = listed(tmp_path, READERS, repeated='majority', patient='who')
  assert [most.classes[y] for y in most.table['y']] == ['a', 'b', 'b']
  assert most.table['patient'].tolist() == ['p0', 'p1', 'p2']
  assert most.facts['notes'][0] == (
    '9 rows name 3 files, 2 with more than one label; each counts once, with the label of most of '
    'its rows and the other columns of its first row'
  )
  with pytest.raises(
    MedtlError,
    match=r"1 files have no majority, first 0.png: a and b, 1 rows each; .*data.repeated='first'",
  ):
    listed(tmp_path, [*rows('ab'), dict(file='0.png', label='b')], repeated='majority')


def test_majority_over_columns_is_taken_column_by_column(tmp_path):
  """VinDr: three readers, a column a finding."""
  votes = [dict(file='0.png', mass=mass, cyst=cyst) for mass, cyst in ('10', '10', '01')] + [
    dict(file='1.png', mass='0', cyst='1')
  ]
  found = listed(tmp_path, votes, label=('mass', 'cyst'), repeated='majority')
  assert found.table['y'].tolist() == [[1, 0], [0, 1]]


def test_rows_of_one_file_with_two_patients_stop(tmp_path):
  for column, keys, words in (
    ('who', dict(patient='who'), "2 patients: 'p1', 'p2'"),
    ('side', dict(partition='side'), "2 sides: 'test', 'train'"),
  ):
    values = ('p1', 'p2') if column == 'who' else ('train', 'test')
    twice = [dict(file='0.png', label='a', **{column: value}) for value in values] + [
      dict(file='1.png', label='b', **{column: values[0]})
    ]
    with pytest.raises(MedtlError, match=words):
      listed(tmp_path, twice, repeated='first', **keys)


def test_a_box_is_a_picture_of_its_own_and_a_file_a_group(tmp_path):
  """RSNA: a row a box; columns x, y, w, h in pixels."""
  boxes = [
    dict(file='0.png', label='a', x='0', y='2', w='3', h='4'),
    dict(file='0.png', label='b', x='1.0', y='0', w='6', h='9'),
    dict(file='1.png', label='b', x='0', y='0', w='7', h='9'),
  ]
  found = listed(tmp_path, boxes, repeated='box')
  whole = folder.read(tmp_path / '0.png', 1, 'stop')
  np.testing.assert_array_equal(found.fetch(0).x, whole[2:6, 0:3])
  np.testing.assert_array_equal(found.fetch(1).x, whole[0:9, 1:7])
  assert found.table['patient'].tolist() == ['0.png', '0.png', '1.png']
  assert found.facts['notes'][:2] == [
    'each of 3 rows is a box, cut out of 2 files',
    'patients are not known: the boxes of one file count as one patient',
  ]
  spelt_out = [{**box, 'width': box['w'], 'height': box['h']} for box in boxes]
  for box in spelt_out:
    del box['w'], box['h']
  np.testing.assert_array_equal(
    listed(tmp_path, spelt_out, repeated='box').fetch(1).x, whole[0:9, 1:7]
  )
  assert listed(tmp_path, spelt_out, repeated='first').size == 2
  boxes[2]['x'] = '5'
  with pytest.raises(
    OSError, match=r'x 5 … 12, y 0 … 9 of 1.png does not lie in its picture of 7 × 9 pixels'
  ):
    listed(tmp_path, boxes, repeated='box').fetch(2)
  shares = [{**box, 'x': '0.1', 'y': '0.2', 'w': '0.5', 'h': '0.5'} for box in boxes]
  with pytest.raises(
    MedtlError,
    match='the boxes lie in 0 … 1, as shares of the picture; expected x, y, w, h in pixels',
  ):
    listed(tmp_path, shares, repeated='box')
  with pytest.raises(MedtlError, match='boxes are places in pictures as they are stored'):
    listed(tmp_path, boxes, repeated='box', exif='apply')
  boxes[2]['x'] = '-1'
  with pytest.raises(OSError, match='x -1 … 6'):
    listed(tmp_path, boxes, repeated='box').fetch(2)
  boxes[2].update(x='0.6', y='0.6', w='3.6', h='3')
  assert listed(tmp_path, boxes, repeated='box').fetch(2).x.shape == (3, 3, 1)  # 1 … 4, rounded
  boxes[2]['x'] = 'NA'
  with pytest.raises(
    MedtlError, match=r'1 rows have no box of a size above 0, first that of 1.png'
  ):
    listed(tmp_path, boxes, repeated='box')
  with pytest.raises(
    MedtlError, match=r"has no columns for data.repeated='box'; expected x, y, w, h"
  ):
    listed(tmp_path, rows('ab'), repeated='box')


def test_what_repeated_rows_mean_is_asked_of_a_manifest_alone(root):
  with pytest.raises(MedtlError, match=r'data.repeated need a manifest, and none is given'):
    folder.load(str(root), repeated='first')
  with pytest.raises(MedtlError, match='did you mean "\'majority\'"'):
    folder.load(str(root), repeated='majorit')
  assert set(repeated_rows.MEANINGS) == {'', 'first', 'majority', 'box'}


# Missing that is not empty.


@pytest.mark.parametrize(
  'word', ['NA', 'nan', 'NaN', 'null', 'NULL', 'None', 'n/a', '?', '-', '#N/A', '<NA>', ' NA ']
)
def test_a_word_for_missing_is_no_class_and_no_patient(tmp_path, word):
  people = [
    dict(file=f'{i}.png', label='ab'[i % 2], who=f'p{i // 2}' if i < 4 else word) for i in range(6)
  ]
  found = listed(tmp_path, people, patient='who')
  assert found.table['patient'].tolist() == ['p0', 'p0', 'p1', 'p1', '', '']
  assert found.facts['notes'] == [
    'words that were taken for a missing value: 2 in who; data.missing=() takes none'
  ]
  people[5]['label'] = word
  spelt = tuple(one for one in labels.MISSING if one.lower() != word.strip().lower())
  said = (
    rf'1 pictures have no label, first 5.png \(in labels.csv\) \(written '
    rf'{re.escape(repr(word.strip()))} 1 times\)'
  )
  with pytest.raises(MedtlError, match=said):
    listed(tmp_path, people, patient='who')
  with pytest.raises(MedtlError, match=re.escape(f'data.missing={spelt}')):
    listed(tmp_path, people)
  kept = listed(tmp_path, people, missing=spelt)  # the message's own advice
  assert word.strip() in kept.classes


def test_missing_is_one_list_for_every_column(tmp_path):
  table = listed(
    tmp_path, rows('abab', age='61 NA 40 .', sex='f m NA f', code='007 008 009 010')
  ).table
  np.testing.assert_array_equal(table['age'], [61, np.nan, 40, np.nan])
  assert table['sex'].tolist() == ['f', 'm', '', 'f'] and table['code'].tolist() == [
    '007',
    '008',
    '009',
    '010',
  ]
  unknown = listed(tmp_path, rows('abab', sex='f unknown m f'), missing=('unknown',)).table
  assert unknown['sex'].tolist() == ['f', '', 'm', 'f']
  underscored = listed(tmp_path, rows('ab', scan='1_0 2_0')).table  # float() would read 10 and 20
  assert underscored['scan'].tolist() == ['1_0', '2_0']


def test_a_folder_called_none_is_asked_about(root):
  (root / 'b').rename(root / 'None')
  with pytest.raises(
    MedtlError,
    match=r"3 pictures have no label, .*written 'None' 3 times.*take it out of the words",
  ):
    folder.load(str(root))
  assert folder.load(str(root), missing=()).classes == ('None', 'a')


def test_several_findings_in_one_field_are_asked_about(tmp_path):
  """NIH ChestX-ray14: Cardiomegaly|Effusion; BreastMNIST's 'normal, benign' is one class."""
  several = [
    dict(file=f'{i}.png', label=word)
    for i, word in enumerate(('Effusion', 'Cardiomegaly|Effusion', 'No Finding'))
  ]
  with pytest.raises(
    MedtlError, match=r"the label 'Cardiomegaly\|Effusion' is made of others, such as 'Effusion'"
  ):
    listed(tmp_path, several)
  meant = ('Cardiomegaly|Effusion', 'Effusion', 'No Finding')
  assert listed(tmp_path, several, classes=meant).classes == meant
  one = [
    dict(file=f'{i}.png', label=word) for i, word in enumerate(('malignant', 'normal, benign'))
  ]
  assert listed(tmp_path, one).classes == ('malignant', 'normal, benign')


@pytest.mark.parametrize(
  'words, shown',
  [
    ('benign Benign malignant', "'Benign' and 'benign'"),
    ('stage_1 stage-1 stage_2', "'stage-1' and 'stage_1'"),
    ('0 1 0.0', "'0' and '0.0'"),
    ('1 01 2', "'01' and '1'"),
    ('a\u0308 \u00e4 b', "'a\u0308' and '\u00e4'"),
    ('a\u200b a b', "'a' and 'a.*'"),
  ],
)
def test_classes_that_are_probably_one_are_asked_about(tmp_path, words, shown):
  two = [dict(file=f'{i}.png', label=word) for i, word in enumerate(words.split(' '))]
  with pytest.raises(MedtlError, match=f'are these the same class. {shown}.*first 0.png'):
    listed(tmp_path, two)
  meant = tuple(sorted(words.split(' ')))
  assert listed(tmp_path, two, classes=meant).classes == meant  # the message's own advice


# An order that was guessed.


@pytest.mark.parametrize(
  'written, order',
  [
    ('10 9 2 1', ('1', '2', '9', '10')),
    ('10.0 2.0 1.0 0.0', ('0.0', '1.0', '2.0', '10.0')),
    ('-1 1 0 10', ('-1', '0', '1', '10')),
  ],
)
def test_numbers_sort_as_numbers(tmp_path, written, order):
  found = listed(
    tmp_path, [dict(file=f'{i}.png', label=word) for i, word in enumerate(written.split(' '))]
  )
  assert found.classes == order and found.facts['order'] == labels.NUMBERS


def test_numbers_given_as_classes_mean_those_labels(tmp_path):
  four = [dict(file=f'{i}.png', label=f'{i}.0') for i in range(4)]
  for classes in ((0, 1, 2, 3), ('0', '1', '2', '3'), (0.0, 1.0, 2.0, 3.0)):
    found = listed(tmp_path, four, classes=classes)
    assert found.classes == ('0', '1', '2', '3') and found.table['y'].tolist() == [0, 1, 2, 3]
  with pytest.raises(
    MedtlError, match=r"1 labels outside the classes, first '3.0' of 3.png \(in labels.csv\)"
  ):
    listed(tmp_path, four, classes=(0, 1, 2))
  with pytest.raises(MedtlError, match='names a class twice'):
    listed(tmp_path, four, classes=(0, '0', 1, 2, 3))


def test_the_order_and_the_positive_class_are_said(root):
  whole = dict(name='folder', root=str(root), split=dict(by='none'))
  assert data.load(**whole)['test'].facts['notes'] == [
    'classes in the order of the alphabet: a, b; data.classes says otherwise',
    "of the two classes 'b' is the positive one; data.classes turns them round",
  ]
  turned = data.load(**whole, classes=('b', 'a'))['test']
  assert turned.facts['notes'] == ["of the two classes 'a' is the positive one"]


# Patients guessed.


def test_tcga_barcodes_are_participants_and_no_sites(tmp_path):
  for number in range(6):
    draw(tmp_path / 'ab'[number % 2] / f'TCGA-02-100{number // 2}-01Z-00-DX1_{number}.png')
  found = folder.load(str(tmp_path))
  assert sorted(set(found.table['patient'])) == ['TCGA-02-1000', 'TCGA-02-1001', 'TCGA-02-1002']
  assert found.facts['notes'] == [
    'patients are taken from the file names (TCGA barcode, TCGA-SITE-PARTICIPANT): '
    'a/TCGA-02-1000-01Z-00-DX1_0.png → '
    'TCGA-02-1000, a/TCGA-02-1001-01Z-00-DX1_2.png → TCGA-02-1001, '
    'a/TCGA-02-1002-01Z-00-DX1_4.png → TCGA-02-1002; '
    'data.pattern or data.patient says otherwise'
  ]
  assert 'patient' in folder.load(str(tmp_path), pattern=r'(DX1)').table


def test_names_of_which_one_tells_nobody_are_said(tmp_path):
  for number, name in enumerate(('CNV-1-1', 'CNV-2-1', 'NORMAL-3-1', 'sample')):
    draw(tmp_path / 'ab'[number % 2] / f'{name}.png')
  found = folder.load(str(tmp_path))
  assert 'patient' not in found.table
  assert found.facts['notes'][0].startswith(
    'patients are not known: 3 of 4 file names tell one (OCT2017'
  ) and ('the first that does not is b/sample.png' in found.facts['notes'][0])
  draw(tmp_path / 'c' / 'TCGA-02-10001-x.png')  # five signs: no participant's code
  assert 'patient' not in folder.load(str(tmp_path)).table


def test_names_of_another_make_tell_no_patient(tmp_path):
  for number in range(4):
    draw(tmp_path / 'ab'[number % 2] / f'SITE-02-100{number}.png')
  assert 'patient' not in folder.load(str(tmp_path)).table
  with pytest.raises(MedtlError, match=r'the source knows no patients; give data.patient'):
    data.load(name='folder', root=str(tmp_path), split=dict(by='patient'))


def test_a_pattern_that_finds_nobody_in_a_file_stops(root):
  with pytest.raises(MedtlError, match='matches 0 of 6 files'):
    folder.load(str(root), pattern=r'a/(x*)')


# Numbers of doubtful range, and data without a name.


def test_twelve_bits_in_sixteen_are_said_and_the_advice_fills_the_range(tmp_path):
  for number in range(4):
    path = tmp_path / 'ab'[number % 2] / f'{number}.png'
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(
      (np.random.RandomState(number).randint(0, 4096, (9, 7))).astype(np.uint16)
    ).save(path)
  keys = dict(name='folder', root=str(tmp_path), split=dict(by='none'))
  note = data.load(**keys)['test'].facts['notes'][-1]
  assert '12 bits in 16-bit files?' in note
  ops = re.search(r"add '(.*)' to data.ops", note)[1]
  better = data.load(**keys, ops=ops)['test']
  assert better.facts['range'][1] > 0.9 and not any(
    'bits' in words for words in better.facts['notes']
  )


def test_a_source_without_a_fingerprint_is_refused(monkeypatch):
  x = np.zeros((4, 2, 2, 1), np.float32)
  table = {'row': np.arange(4), 'y': np.arange(4) % 2}
  made = Dataset(lambda i: Example(x[i], i % 2, i), 4, ('a', 'b'), table)
  monkeypatch.setattr(data.expressions, 'find', lambda *_: lambda: made)
  with pytest.raises(MedtlError, match=r'the source mine.load gives its Dataset no fingerprint'):
    data.load(name='mine', split=dict(by='none'))


def test_a_file_overwritten_with_its_old_size_and_time_is_read_again(root):
  keys = dict(name='folder', root=str(root), split=dict(by='none'))
  path = root / 'a' / '0.png'
  Image.fromarray(np.full((9, 7), 10, np.uint8)).save(path, compress_level=0)
  before, status = data.load(**keys)['test'].fetch(0).x, path.stat()
  Image.fromarray(np.full((9, 7), 90, np.uint8)).save(path, compress_level=0)
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
  assert path.stat().st_size == status.st_size
  after = data.load(**keys)['test'].fetch(0).x
  assert round(float(before.max()) * 255) == 10 and round(float(after.max()) * 255) == 90


def test_equal_pictures_with_two_labels_are_said(root):
  (root / 'b' / 'copy.png').write_bytes((root / 'a' / '0.png').read_bytes())
  notes = data.load(name='folder', root=str(root), split=dict(by='none'))['test'].facts['notes']
  assert (
    '1 pictures are equal in every pixel to one of another label, first a/0.png = b/copy.png'
    in notes
  )
  grey = np.asarray(Image.open(root / 'a' / '0.png'))
  Image.fromarray(np.stack([grey] * 3, -1)).save(
    root / 'a' / 'as_rgb.png'
  )  # luma of equal channels is what they hold
  notes = data.load(name='folder', root=str(root), split=dict(by='none'))['test'].facts['notes']
  assert '1 pictures are equal in every pixel to another one, first a/0.png = a/as_rgb.png' in notes


def test_patients_of_two_spellings_are_said(tmp_path):
  found = listed(tmp_path, rows('abab', who='P1 p1 2 2.0'), patient='who')
  assert found.facts['notes'] == [
    "patients that are told apart by spelling alone: '2' and '2.0', 'P1' and 'p1'; are they the "
    'same?'
  ]
