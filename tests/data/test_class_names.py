"""Classes are renamed where data are read, whatever the source, and several become one."""

import numpy as np
import pytest
from PIL import Image

from medtl import data
from medtl.core.types import Dataset, Example, MedtlError
from medtl.data import class_names
from medtl.data.sources import phantom

CLASSES = ('AMD', 'CNV', 'NRM')
NAMES = {'AMD': 'abnormal', 'CNV': 'abnormal', 'NRM': 'normal'}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'cache'))


def labelled(y, **facts):
  y = np.array(y)
  fetch = lambda index: Example(np.zeros((2, 2, 1), np.float32), y[index], index)
  return Dataset(fetch, len(y), CLASSES, {'row': np.arange(len(y)), 'y': y}, facts)


def labels_of(dataset):
  return [dataset.fetch(index).y.tolist() for index in range(dataset.size)]


def test_several_classes_become_one_in_the_table_and_in_every_example():
  found = class_names.renamed(labelled([0, 1, 2, 1], notes=['before']), NAMES)
  assert found.classes == ('abnormal', 'normal')
  assert found.table['y'].tolist() == labels_of(found) == [0, 0, 1, 0]
  assert found.table['y'].dtype == labelled([0]).table['y'].dtype
  assert found.facts['notes'] == ['before', 'data.rename: AMD, CNV → abnormal; NRM → normal']
  assert found.facts['classes_before'] == list(CLASSES)


def test_a_class_that_is_not_named_keeps_its_name_and_the_order_stays():
  found = class_names.renamed(labelled([0, 1, 2]), {'CNV': 'sick', 'AMD': 'sick'})
  assert found.classes == ('sick', 'NRM') and found.table['y'].tolist() == [0, 0, 1]
  given = class_names.renamed(labelled([0, 1, 2]), {'AMD': 'z'})
  assert given.classes == ('z', 'CNV', 'NRM')
  sorted_names = class_names.renamed(labelled([0, 1, 2], order='alphabet'), {'AMD': 'z'})
  assert sorted_names.classes == ('CNV', 'NRM', 'z')
  assert sorted_names.table['y'].tolist() == [2, 0, 1]


def test_a_column_that_several_become_holds_1_where_one_of_them_does():
  columns = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0]], np.float32)
  found = class_names.renamed(labelled(columns), NAMES)
  assert found.table['y'].tolist() == labels_of(found) == [[1, 0], [1, 1], [0, 0], [1, 0]]
  assert found.table['y'].dtype == np.float32


def test_masks_are_renamed_pixel_by_pixel_and_the_classes_of_pictures_are_not():
  mask = np.array([[0, 1], [2, -1]], np.int32)
  fetch = lambda index: Example(np.zeros((2, 2, 1), np.float32), mask, index)
  table = {'row': np.arange(1), 'y': np.array([2])}
  facts = {'target': 'mask', 'classes': ('a', 'b', 'c')}
  found = class_names.renamed(Dataset(fetch, 1, CLASSES, table, facts), {'CNV': 'AMD'})
  assert found.classes == ('AMD', 'NRM') and found.strata == ('a', 'b', 'c')
  assert found.fetch(0).y.tolist() == [[0, 0], [1, -1]] and found.table['y'].tolist() == [2]
  sorted_names = Dataset(fetch, 1, CLASSES, table, {**facts, 'order': 'alphabet'})
  found = class_names.renamed(sorted_names, {'AMD': 'z'})
  assert found.classes == ('z', 'CNV', 'NRM'), 'of masks the background stays the first'


def test_unknown_names_and_labels_that_are_numbers_are_refused():
  with pytest.raises(MedtlError, match=r"no class 'amd'; there are: AMD, CNV, NRM"):
    class_names.renamed(labelled([0, 1, 2]), {'amd': 'x'})
  with pytest.raises(MedtlError, match='the labels are numbers'):
    class_names.renamed(labelled([0.5, 1.5]), {'AMD': 'x'})
  nobody = labelled([-1, -1])
  assert class_names.renamed(nobody, NAMES) is nobody


def test_the_order_of_a_run_holds_classes_without_example():
  run = ('normal', 'unclear', 'abnormal')
  found = class_names.in_order(class_names.renamed(labelled([0, 1, 2]), NAMES), run)
  assert found.classes == run and found.table['y'].tolist() == labels_of(found) == [2, 2, 0]
  other = labelled([0, 1, 2])
  assert class_names.in_order(other, run) is other


@pytest.mark.parametrize('name', ['phantom.load', 'folder.load'])
def test_every_source_is_renamed_at_the_door(tmp_path, name):
  keys = dict(patients=12, scans=1, size=(16, 16))
  if name == 'folder.load':
    pictures = phantom.load(**keys)
    for row in range(pictures.size):
      example = pictures.fetch(row)
      path = tmp_path / 'in' / pictures.classes[example.y] / f'{row}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray((example.x[..., 0] * 255).astype(np.uint8)).save(path)
    keys = dict(root=str(tmp_path / 'in'))
  names = {'DRUSEN': 'sick', 'DME': 'sick', 'CNV': 'sick'}
  load = lambda **more: data.load(name=name, split=dict(by='none'), **keys, **more)['test']
  before = load()
  found = load(rename=names)
  assert set(found.classes) == {'NORMAL', 'sick'}
  words = lambda dataset: [dataset.classes[number] for number in dataset.table['y']]
  assert words(found) == [names.get(word, word) for word in words(before)]
  renamed = ', '.join(word for word in before.classes if word in names)
  assert f'data.rename: {renamed} → sick' in found.facts['notes']
  assert [found.classes[found.fetch(row).y] for row in range(found.size)] == words(found)
  assert found.facts['hash'] != before.facts['hash']


@pytest.mark.parametrize(
  ('names', 'words'),
  [
    ('NORMAL', 'rename is .NORMAL.; expected keys with values'),
    ({'NORMAL': ('a',)}, 'rename is .*; expected keys with values'),
    ({'NORMAL': ''}, "rename gives the class 'NORMAL' no name"),
  ],
)
def test_what_is_no_pair_of_names_is_refused_before_anything_is_read(names, words):
  with pytest.raises(MedtlError, match=words):
    data.load(name='folder', root='/nowhere', split=dict(by='none'), rename=names)


def test_pairs_rename_as_a_mapping_does_and_hold_names_with_dots():
  keys = dict(name='phantom', patients=6, scans=1, size=(16, 16), split=dict(by='none'))
  load = lambda names: data.load(**keys, rename=names)['test']
  mapped = load({'CNV': 'Grade 1.5', 'DME': 'Grade 1.5'})
  paired = load((('CNV', 'Grade 1.5'), ('DME', 'Grade 1.5')))
  assert paired.classes == mapped.classes and 'Grade 1.5' in paired.classes
  assert paired.facts['hash'] == mapped.facts['hash']
  assert paired.table['y'].tolist() == mapped.table['y'].tolist()
  with pytest.raises(MedtlError, match="names the class 'CNV' twice"):
    load((('CNV', 'a'), ('CNV', 'b')))


def test_one_class_for_all_is_refused_where_a_net_is_to_learn():
  keys = dict(name='phantom', patients=12, scans=1, size=(16, 16))
  names = dict.fromkeys(phantom.CLASSES, 'eye')
  with pytest.raises(MedtlError, match="makes one class of all, 'eye'"):
    data.load(**keys, split=dict(by='patient', folds=3), rename=names)
  assert data.load(**keys, split=dict(by='none'), rename=names)['test'].classes == ('eye',)


def test_numbers_are_names_of_classes_too():
  keys = dict(name='phantom', patients=6, scans=1, size=(16, 16), classes=('NORMAL', 'CNV'))
  found = data.load(**keys, split=dict(by='none'), rename={'NORMAL': 0, 'CNV': 1})['test']
  assert found.classes == ('0', '1')
