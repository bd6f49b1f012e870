"""Other data become the run's in size, channels and classes, with a word.

What cannot is an error whose advice works.
"""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from medtl.core import expressions
from medtl.core.types import Dataset, Example, MedtlError
from medtl.run import colours, other_data, readers

OWN = {'name': 'folder.load', 'root': '/nowhere', 'ops': ''}


def plan(*shape, classes=('benign', 'malignant'), several=False, **more):
  return {
    'shape': list(shape or (16, 16, 1)),
    'classes': list(classes),
    'label_columns': several,
    **more,
  }


def draw(path, size=(16, 16), seed=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.random.RandomState(seed).randint(0, 256, size).astype(np.uint8)).save(path)


def unlabelled(root, own=OWN, made=None, **keys):
  """Return (x of each picture, notes) as predict reads them."""
  asked = {'name': own['name'], 'ops': own['ops'], 'root': str(root), 'label': '', **keys}
  found, _ = other_data.load(asked, own, made or plan())
  return [found.fetch(index).x for index in range(found.size)], found.facts['notes']


def labelled(root, own=OWN, made=None, **keys):
  return other_data.load({**own, 'root': str(root), **keys}, own, made or plan())[0]


def dicom(path, name='CT_small.dcm'):
  path.parent.mkdir(parents=True, exist_ok=True)
  shutil.copy(get_testdata_file(name), path)


def test_pictures_of_the_run_s_size_stay_as_they_are(tmp_path):
  draw(tmp_path / 'a.png')
  x, notes = unlabelled(tmp_path)
  assert (
    np.array_equal(x[0][..., 0] * 255, np.asarray(Image.open(tmp_path / 'a.png'))) and notes == []
  )


@pytest.mark.parametrize(
  ('sizes', 'said'),
  [
    (
      ((32, 32), (32, 32)),
      '2 of 2 pictures were resized to 16 × 16, the size that the run was trained on; they were '
      '32 × 32 \\(2\\)',
    ),
    (
      ((16, 16), (32, 32), (24, 16)),
      '2 of 3 pictures were resized .*were 32 × 32 \\(1\\), 24 × 16 \\(1\\); their proportions '
      'changed',
    ),
  ],
)
def test_other_sizes_are_resized_and_counted(tmp_path, sizes, said):
  for number, size in enumerate(sizes):
    draw(tmp_path / f'{number}.png', size, number)
  x, notes = unlabelled(tmp_path)
  assert all(one.shape == (16, 16, 1) for one in x) and len(notes) == 1
  assert re.fullmatch(said, notes[0])
  exact = np.asarray(
    Image.open(tmp_path / '1.png').resize((16, 16), Image.Resampling.BILINEAR), float
  )
  np.testing.assert_allclose(
    x[1][..., 0] * 255, exact, atol=1
  )  # Pillow rounds to 8 bits after each axis
  assert all(
    one.shape == (16, 16, 1)
    for one in unlabelled(tmp_path, {**OWN, 'ops': 'rescale | resize(16)'})[0]
  )


def test_volumes_are_resized_too_and_pictures_are_no_volumes(tmp_path, monkeypatch):
  volume = np.random.RandomState(0).rand(8, 6, 4, 1).astype(np.float32)

  def load(name, *, ops='', split=None, **keys):
    case = Example(volume, 0, 0)
    for operation in expressions.functions(ops, other_data.datasets.operations, given=('example',)):
      case = operation(case)
    x = case.x
    facts = {'shape': list(x.shape), 'notes': [], 'ops': ops}
    return {
      'test': Dataset(
        lambda i: Example(x, 0, i),
        1,
        ('benign', 'malignant'),
        {'row': np.arange(1), 'y': np.zeros(1, int)},
        facts,
      )
    }

  monkeypatch.setattr(other_data.datasets, 'load', load)
  asked, own = (
    {'name': 'medmnist.load', 'flag': 'a', 'ops': ''},
    {'name': 'medmnist.load', 'flag': 'b', 'ops': ''},
  )
  found, keys = other_data.load(asked, own, plan(4, 4, 4, 1))
  assert (
    found.fetch(0).x.shape == (4, 4, 4, 1)
    and keys['ops'] == 'resize(4, 4, 4)'
    and '8 × 6 × 4 (1)' in found.facts['notes'][0]
  )
  with pytest.raises(
    MedtlError,
    match=r'trained on pictures of 16 × 16 × 1, found volumes of 8 × 6 × 4 × 1: .*as many axes',
  ):
    other_data.load(asked, own, plan())


def test_channels_become_the_run_s_with_a_word(tmp_path):
  draw(tmp_path / 'grey/a.png')
  draw(tmp_path / 'colour/a.png', (16, 16, 3))
  x, notes = unlabelled(tmp_path / 'colour')
  assert (
    x[0].shape == (16, 16, 1)
    and 'of 1 pictures that were looked at 1 are in colour: they are read as grey' in notes[0]
  )
  for trained, place, said in (
    (True, 'grey', 'none is in colour, and the run was trained on pictures in colour'),
    (True, 'colour', ''),
    (False, 'colour', '1 are in colour, and the run was trained on grey ones'),
    (False, 'grey', ''),
  ):
    x, notes = unlabelled(tmp_path / place, made=plan(16, 16, 3, colour=trained))
    assert x[0].shape == (16, 16, 3) and (said in notes[0] if said else not notes)
  assert not unlabelled(tmp_path / 'grey', made=plan(16, 16, 3))[1]  # an older run does not tell
  with pytest.raises(MedtlError, match=r'channels=3, and the run was trained on 1; leave it out'):
    unlabelled(tmp_path / 'grey', channels=3)


def test_a_source_that_has_other_channels_is_refused_and_a_folder_is_not(tmp_path):
  phantoms = {'name': 'phantom.load', 'patients': 4, 'scans': 1, 'size': (16, 16), 'ops': ''}
  made = plan(16, 16, 3, classes=('NORMAL', 'DRUSEN', 'DME', 'CNV'))
  with pytest.raises(
    MedtlError,
    match=r'found 1, and phantom.load makes no one of the other; .*--config.data.name=folder.load',
  ):
    other_data.load(phantoms, OWN, made)
  for number, name in enumerate(made['classes']):
    draw(tmp_path / name / 'a.png', seed=number)
  assert labelled(tmp_path, made=made).fetch(0).x.shape == (16, 16, 3)


def test_content_decides_what_a_file_is(tmp_path):
  dicom(tmp_path / 'one.png')
  draw(tmp_path / 'x.png')
  (tmp_path / 'x.png').rename(tmp_path / 'two.dcm')
  (tmp_path / 'notes.txt').write_text('no picture')
  (tmp_path / 'broken.jpg').write_text('no picture')
  for name, kind in (
    ('one.png', 'dicoms'),
    ('two.dcm', 'pictures'),
    ('notes.txt', 'passed_over'),
    ('broken.jpg', 'pictures'),
  ):
    found = readers.contents(tmp_path / name)
    assert [one for one in found._fields if getattr(found, one)] == [kind]
  (tmp_path / 'two.dcm').unlink()
  (tmp_path / '.hidden.png').write_text('no picture')
  found = readers.contents(tmp_path)
  assert [[path.name for path in paths] for paths in found[:2]] == [['broken.jpg'], ['one.png']]
  assert found.passed_over == '1 .txt, 1 hidden files'


def test_dicom_files_for_a_run_on_pictures(tmp_path):
  dicom(tmp_path / 'in' / 'IM1')
  with pytest.raises(
    MedtlError,
    match=r'in holds 1 DICOM files, .*--config.data.values=display .*or '
    r'--config.data.values=modality',
  ):
    unlabelled(tmp_path / 'in')
  x, notes = unlabelled(tmp_path / 'in', values='display')
  assert x[0].shape == (16, 16, 1) and x[0].min() >= 0 and x[0].max() <= 1
  assert (
    'the data are DICOM files, so dicom.load reads them, and not folder.load' in notes
    and '128 × 128 (1)' in notes[-1]
  )
  with pytest.raises(
    MedtlError,
    match=r'trained on 0 … 1; set --config.data.values=display, or '
    r".*--config.data.ops='window\(low, high\)",
  ):
    unlabelled(tmp_path / 'in', values='modality')
  x, _ = unlabelled(tmp_path / 'in', values='modality', ops='window(-1000, 400)')
  assert 0 <= x[0].min() < x[0].max() <= 1
  draw(tmp_path / 'in' / 'preview.png')
  with pytest.raises(
    MedtlError,
    match=r'1 pictures \(first: preview.png\) and 1 DICOM files \(first: IM1\); expected one '
    r'kind: move',
  ):
    unlabelled(tmp_path / 'in', values='display')
  (tmp_path / 'in' / 'preview.png').rename(tmp_path / 'preview.png')
  unlabelled(tmp_path / 'in', values='display')


def test_pictures_for_a_run_on_dicom_files(tmp_path):
  draw(tmp_path / 'a.png')
  displayed = {'name': 'dicom.load', 'root': '/nowhere', 'ops': '', 'values': 'display'}
  x, notes = unlabelled(tmp_path, displayed, values='display')
  assert x[0].max() <= 1 and notes == [
    'the data are pictures, so folder.load reads them, and not dicom.load'
  ]
  units = {**displayed, 'values': 'modality'}
  with pytest.raises(
    MedtlError,
    match=r'numbers of the modality .*give DICOM files, or set --config.data.ops '
    r".*'rescale\(-1000, 400\)",
  ):
    unlabelled(tmp_path, units, values='modality')
  assert (
    unlabelled(tmp_path, units, values='modality', ops='rescale(-1000, 400)')[0][0].min() == -1000
  )
  dicom(tmp_path / 'archive' / 'IM1')
  with pytest.raises(MedtlError, match=r'leave --config.data.values out'):
    unlabelled(tmp_path / 'archive', units, values='display')
  assert unlabelled(tmp_path / 'archive', units, values='modality')[0][0].max() > 100
  draw(tmp_path / 'pictures' / 'a.png')
  with pytest.raises(
    MedtlError,
    match=r'--config.data.values says nothing of pictures \(folder.load has no such key\); leave '
    r'it out',
  ):
    unlabelled(tmp_path / 'pictures', values='display')
  unlabelled(tmp_path / 'pictures')


def test_a_place_without_pictures_says_what_it_holds(tmp_path):
  with pytest.raises(
    MedtlError,
    match=r'no file or folder .*gone; expected a picture, a DICOM file or a NIfTI file, or a '
    r'folder',
  ):
    unlabelled(tmp_path / 'gone')
  with pytest.raises(
    MedtlError, match=r'holds no pictures \(.png, .* and no DICOM files; it is empty'
  ):
    unlabelled(tmp_path)
  for name in ('a.mgz', 'b.mgz', 'README'):
    (tmp_path / name).write_text('x')
  with pytest.raises(MedtlError, match=r'it holds 2 .mgz, 1 without a suffix'):
    unlabelled(tmp_path)
  with pytest.raises(
    MedtlError, match=r'a.mgz is no picture \(.png, .*, no NIfTI file and no DICOM file'
  ):
    unlabelled(tmp_path / 'a.mgz')


def test_one_file_is_read_by_its_content_whatever_the_run_was_trained_on(tmp_path):
  draw(tmp_path / 'a.png')
  (tmp_path / 'other.png').write_bytes(b'not looked at')
  (tmp_path / 'named').write_bytes((tmp_path / 'a.png').read_bytes())
  dicom(tmp_path / 'IM1')
  dicom(tmp_path / 'x.png')
  for own in (
    OWN,
    {**OWN, 'name': 'dicom.load', 'values': 'display'},
    {**OWN, 'name': 'medmnist.load', 'flag': 'breastmnist'},
  ):
    for name, kind in (
      ('a.png', 'picture'),
      ('named', 'picture'),
      ('IM1', 'dicom'),
      ('x.png', 'dicom'),
    ):
      asked = (
        {'name': own['name'], 'values': 'display'}
        if 'values' in own or kind == 'dicom'
        else {'name': own['name']}
      )
      found, keys = other_data.load(
        {'ops': '', 'label': '', **asked, 'root': str(tmp_path / name)}, own, plan()
      )
      assert (
        found.size == 1
        and found.table['file'].tolist() == [name]
        and found.fetch(0).x.shape == (16, 16, 1)
      )
      assert keys['name'] == ('dicom.load' if kind == 'dicom' else 'folder.load')


def test_a_run_on_another_source_finds_the_pictures_of_a_folder(tmp_path):
  own = {
    'name': 'medmnist.load',
    'flag': 'breastmnist',
    'size': 28,
    'root': '/there',
    'ops': '',
    'split': {'by': 'publisher'},
  }
  for number, name in enumerate(('benign', 'malignant')):
    draw(tmp_path / name / 'a.png', seed=number)
  found = labelled(tmp_path, own)
  assert (
    found.size == 2 and 'folder.load reads them, and not medmnist.load' in found.facts['notes'][1]
  )
  with pytest.raises(MedtlError, match=r'--config.data.flag says nothing of pictures'):
    labelled(tmp_path, own, flag='pathmnist')


def test_classes_are_the_run_s_whatever_the_other_data_hold(tmp_path):
  draw(tmp_path / 'some' / 'malignant' / 'a.png')
  found = labelled(tmp_path / 'some')
  assert found.classes == ('benign', 'malignant') and found.table['y'].tolist() == [1]
  assert found.facts['notes'][1:] == ["no picture has the class 'benign'"]
  draw(tmp_path / 'some' / 'unclear' / 'a.png', seed=1)
  with pytest.raises(
    MedtlError, match=r"1 labels outside the classes, first 'unclear'.*there are: benign, malignant"
  ):
    labelled(tmp_path / 'some')
  (tmp_path / 'some' / 'unclear').rename(tmp_path / 'some' / 'benign')
  assert labelled(tmp_path / 'some').table['y'].tolist() == [0, 1]
  with pytest.raises(
    MedtlError,
    match=r'in this order; the other data has malignant, benign. Leave --config.data.classes',
  ):
    labelled(tmp_path / 'some', classes=('malignant', 'benign'))
  backwards = plan(classes=('malignant', 'benign'))  # the order of the run, not of the alphabet
  assert labelled(tmp_path / 'some', made=backwards).table['y'].tolist() == [1, 0]
  phantoms = {'name': 'phantom.load', 'patients': 4, 'scans': 1, 'size': (16, 16), 'ops': ''}
  with pytest.raises(
    MedtlError,
    match=r'the other data has NORMAL, .*a folder for each class, --config.data.name=folder.load',
  ):
    other_data.load(phantoms, OWN, plan())


def test_an_error_of_other_data_names_the_place_of_its_keys():
  words = 'config.data.split lacks x; set --config.data.rename="{}", data.label=…, see data.csv'
  with pytest.raises(MedtlError) as raised, other_data.read_as('config.tests.b'):
    raise MedtlError(words)
  assert str(raised.value) == (
    'config.tests.b.split lacks x; set config.tests.b.rename="{}", config.tests.b.label=…, see '
    'data.csv'
  )


def test_a_run_that_renamed_its_classes_reads_other_data_so_unless_told_otherwise(tmp_path):
  own = {**OWN, 'rename': {'scar': 'benign', 'cyst': 'benign'}, 'classes': ('scar', 'cyst', 'x')}
  made = plan(classes=('benign', 'x'), data={'classes_before': ['scar', 'cyst', 'x']})
  draw(tmp_path / 'set' / 'x' / 'a.png')
  draw(tmp_path / 'set' / 'cyst' / 'b.png', seed=1)  # and no scar
  for known in (own, {**own, 'classes': ()}):
    assert labelled(tmp_path / 'set', known, made).table['y'].tolist() == [0, 1]
  (tmp_path / 'set' / 'cyst').rename(tmp_path / 'set' / 'benign')
  assert labelled(tmp_path / 'set', own, made, rename={}).table['y'].tolist() == [0, 1]
  (tmp_path / 'set' / 'benign').rename(tmp_path / 'set' / 'node')
  found = labelled(tmp_path / 'set', own, made, rename={'node': 'benign'})
  assert found.classes == ('benign', 'x') and found.table['y'].tolist() == [0, 1]
  alone = dict(rename={'node': 'benign'}, classes=('node', 'x'))
  shutil.rmtree(tmp_path / 'set' / 'x')
  assert labelled(tmp_path / 'set', own, made, **alone).table['y'].tolist() == [0]


def test_columns_of_other_names_are_put_in_the_order_of_the_run(tmp_path):
  draw(tmp_path / 'a.png')
  (tmp_path / 'labels.csv').write_text('file,a,b,c\na.png,0,1,0\n')
  many = plan(classes=('mass', 'cyst'), several=True)
  names = {'a': 'cyst', 'b': 'mass', 'c': 'cyst'}
  keys = dict(manifest='labels.csv', label=('a', 'b', 'c'), rename=names)
  found = labelled(tmp_path, made=many, **keys)
  assert found.classes == ('mass', 'cyst') and found.table['y'].tolist() == [[1, 0]]


def test_labels_of_another_kind_or_order_are_refused_with_what_fits(tmp_path):
  draw(tmp_path / 'a.png')
  with open(tmp_path / 'labels.csv', 'w', newline='') as file:
    csv.writer(file).writerows([('file', 'mass', 'cyst', 'diagnosis'), ('a.png', 1, 0, 'benign')])
  many = plan(classes=('mass', 'cyst'), several=True)
  keys = dict(manifest='labels.csv', made=many)
  with pytest.raises(
    MedtlError,
    match=r"found data.label='diagnosis'; expected a manifest .*--config.data.label=\"\('mass', "
    r"'cyst'\)\"",
  ):
    labelled(tmp_path, label='diagnosis', **keys)
  with pytest.raises(
    MedtlError,
    match=r"mass, cyst, in this order; the other data has cyst, mass. .*label=\"\('mass', "
    r"'cyst'\)\"",
  ):
    labelled(tmp_path, label=('cyst', 'mass'), **keys)
  found = labelled(tmp_path, label=('mass', 'cyst'), **keys)
  assert found.table['y'].tolist() == [[1, 0]] and found.facts['notes'] == [
    "no picture has the class 'cyst'"
  ]
  with pytest.raises(
    MedtlError,
    match=r"one class of a picture, found data.label=\('mass', 'cyst'\); "
    r'.*--config.data.label=diagnosis, or',
  ):
    labelled(tmp_path, manifest='labels.csv', label=('mass', 'cyst'))
  assert labelled(tmp_path, manifest='labels.csv', label='diagnosis').table['y'].tolist() == [0]
  draw(Path(tmp_path) / 'set' / 'benign' / 'a.png')
  assert labelled(tmp_path / 'set', manifest='', label='label').size == 1


def test_colour_that_is_read_as_grey_is_said_and_a_grey_run_says_nothing(tmp_path):
  random = np.random.RandomState(0)
  for number in range(4):
    path = tmp_path / 'ab'[number % 2] / f'{number}.png'
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(random.randint(0, 256, (8, 8, 3)).astype(np.uint8)).save(path)
  keys = {'name': 'folder', 'root': str(tmp_path), 'split': {'by': 'none'}}
  whole = other_data.datasets.load(**keys)['test']
  assert colours.made_grey(whole, keys) == [
    'of 4 pictures that were looked at 4 are in colour: they are read as grey'
  ]
  assert colours.made_grey(whole, {**keys, 'channels': 3}) == []
  assert colours.made_grey(whole, {**keys, 'name': 'phantom.load'}) == []


def test_colour_is_looked_for_in_all_of_a_set_and_not_in_its_first_pictures_alone():
  grey = np.zeros((4, 4, 3), np.float32)
  red = grey + np.array([1.0, 0.0, 0.0], np.float32)
  fetch = lambda row: Example(red if row >= 100 else grey, 0, row)
  coloured, looked = colours.colour(Dataset(fetch, 200, ('a',), {}))
  assert (coloured, looked) == (16, 32)
