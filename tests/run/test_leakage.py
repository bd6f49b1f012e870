"""What a run has seen, by pixels, files and patients.

Nothing that it has seen is claimed to be new.
"""

import numpy as np
import pytest
from PIL import Image

from medtl import data
from medtl.core.types import Dataset, Example, MedtlError
from medtl.data.sources import phantom
from medtl.run import leakage

KEYS = {'name': 'toy.load'}


def dataset(content, patient=None, file=None, row=None):
  """A data set of which only the table counts."""
  size = len(content)
  table = {
    'row': np.arange(size) if row is None else np.array(row),
    'y': np.zeros(size, int),
    'content': np.array(content, str),
  }
  table |= {
    name: np.array(column)
    for name, column in (('patient', patient), ('file', file))
    if column is not None
  }
  return Dataset(lambda i: Example(np.zeros((2, 2, 1)), 0, i), size, ('a', 'b'), table)


def sides(train, val, **more):
  return {
    'train': dataset(train, **more),
    'val': dataset(val, row=range(50, 50 + len(val))),
    'test': dataset(['t']),
  }


def test_equal_pictures_are_found_under_any_name_and_flat_ones_are_none():
  seen = leakage.record(
    {
      'train': dataset(['p', 'q', ''], file=['1.png', '2.png', '3.png'], row=[0, 1, 2]),
      'val': dataset(['v'], file=['4.png'], row=[3]),
    },
    KEYS,
    None,
  )
  tested = dataset(
    ['x', 'v', 'q', ''], file=['a.png', 'b.png', '2.png', 'd.png'], row=[10, 11, 12, 13]
  )
  found = leakage.compare(seen, tested, {'name': 'other.load'})
  assert (
    found.equal == {'': {'val': 1, 'train': 1}}
    and found.pictures == 2
    and found.size == found.known == 4
  )
  assert found.first == ['b.png = 4.png (val)', '2.png (train)']
  assert leakage.compare(seen, dataset(['x', '']), {'name': 'other.load'}).pictures == 0


def test_a_message_names_some_and_counts_the_rest_and_its_advice_works():
  seen = leakage.record(sides([f'{i}' for i in range(9)], ['v']), KEYS, None)
  found = leakage.compare(seen, dataset([f'{i}' for i in range(10)], row=range(20, 30)), KEYS)
  with pytest.raises(
    MedtlError,
    match=r'9 of 10 pictures .* this run was trained or chosen on \(9 train\): row 20 = row 0 '
    r'\(train\), '
    r'.*row 25 = row 5 \(train\) … and 3 more\. .*Out with them, or set '
    r'--config.data.allow_leak=True',
  ):
    leakage.stop(found, False, 'Out with them')
  leakage.stop(found, True, '')
  leakage.stop(leakage.compare(seen, dataset(['new'], row=[99]), KEYS), False, '')


def test_the_same_row_or_file_is_found_when_it_is_read_with_other_keys(tmp_path):
  small, large = (
    dict(name='phantom', patients=8, scans=1, size=(side, side), ops='') for side in (16, 32)
  )
  read = {
    side: data.load(**keys, split={'by': 'none'})['test']
    for side, keys in ((16, small), (32, large))
  }
  assert not set(read[16].table['content']) & set(read[32].table['content'])
  seen = leakage.record({'train': read[16]}, small, None)
  assert leakage.compare(seen, read[32], large | {'name': 'phantom.load'}).equal == {
    '': {'train': 8}
  }
  assert (
    leakage.compare(seen, phantom.load(patients=8, scans=1, seed=1), large | {'seed': 1}).pictures
    == 0
  )
  turned = Image.Exif()
  turned[0x0112] = 6
  Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / 'a.png', exif=turned)
  keys = dict(name='folder.load', root=str(tmp_path), label='', exif='apply')
  seen = leakage.record({'train': data.load(**keys, split={'by': 'none'})['test']}, keys, None)
  other = dataset(['another hash'], file=['a.png'])
  assert leakage.compare(seen, other, {**keys, 'exif': 'stop'}).equal == {'': {'train': 1}}
  (tmp_path / 'a.png').write_bytes(b'another picture under this name')
  assert leakage.compare(seen, other, keys).pictures == 0


def test_patients_of_the_same_name_are_a_warning_and_no_claim_is_made():
  seen = leakage.record(sides(['p', 'q', 'r'], ['v'], patient=['7', '8', '']), KEYS, None)
  for names, count in ((['8', '9', ''], 1), (['1', '2', ''], 0)):
    found = leakage.compare(seen, dataset(['a', 'b', 'c'], patient=names, row=[7, 8, 9]), KEYS)
    assert len(found.patients) == count and found.people
    assert ('never used for training or for any choice' in leakage.claim(found)) == (not count)
    assert len(leakage.warnings(found)) == count
  assert leakage.warnings(leakage.compare(seen, dataset(['a'], patient=['8'], row=[9]), KEYS))[
    0
  ].startswith(
    '1 patients have the names of patients that the net was trained or chosen on (8): if they '
    'are the same people'
  )
  unknown = leakage.compare(seen, dataset(['a'], row=[9]), KEYS)
  assert not unknown.people and 'patients could not be compared' in leakage.claim(unknown)


def test_what_the_runs_before_have_seen_is_inherited_through_all_of_them(tmp_path):
  first, second, third = (tmp_path / name for name in ('first', 'second', 'third'))
  leakage.write(first, leakage.record(sides(['p'], ['q']), KEYS | {'seed': 1}, None))
  leakage.write(second, leakage.record(sides(['r'], ['s']), KEYS | {'seed': 2}, first))
  leakage.write(third, leakage.record(sides(['t'], ['p']), KEYS | {'seed': 3}, second))
  seen = leakage.read(third)
  assert seen.table['content'].tolist() == ['t', 'p', 'r', 's', 'p', 'q'] and seen.unknown == ()
  assert seen.table['run'].tolist() == ['', '', str(second), str(second), str(first), str(first)]
  found = leakage.compare(seen, dataset(['q', 'p', 's'], row=[7, 8, 9]), KEYS)
  assert found.equal == {
    str(first): {'val': 1},
    '': {'val': 1},
    str(second): {'val': 1},
  }  # p: its own choice, not first's training
  assert f'that {first}, where the weights come from, was trained' in leakage.warnings(found)[0]
  own = leakage.warnings(found, told=True)
  assert len(own) == 2 and not any('this run' in line for line in own)


def test_what_is_not_known_is_not_claimed(tmp_path):
  (tmp_path / 'old').mkdir()
  assert leakage.read(tmp_path / 'old') is None and leakage.kept(tmp_path, 'x') is None
  seen = leakage.record(sides(['p'], ['q']), KEYS, tmp_path / 'old')
  found = leakage.compare(seen, dataset(['a'], row=[9]), KEYS)
  assert found.unknown == [str(tmp_path / 'old')]
  for said in (
    leakage.claim(None),
    leakage.claim(found),
    leakage.in_training(None)[0],
    leakage.in_training(found)[0],
  ):
    assert 'could not be checked' in said and 'never used' not in said
  clean = leakage.compare(
    leakage.record(sides(['p'], ['q']), KEYS, None), dataset(['a'], row=[9]), KEYS
  )
  assert leakage.in_training(
    clean
  ) == [] and 'compared pixel by pixel with the 2 that were' in leakage.claim(clean)
  assert 'what the published weights were trained on is not known' in leakage.claim(
    clean, published=True
  )
  for name, one in (('x', found), ('x', clean)):
    leakage.keep(tmp_path, name, one)
    assert leakage.kept(tmp_path, name) == one
  leakage.keep(tmp_path, 'x', None)
  assert leakage.kept(tmp_path, 'x') is None


def test_folds_are_compared_each_with_its_own():
  clean, leaky = (
    leakage.compare(
      leakage.record(sides(['p', 'q'], ['v']), KEYS, None), dataset([one], row=[9]), KEYS
    )
    for one in 'ap'
  )
  assert 'each tested by a net for which it was never used for training' in leakage.claim(
    leakage.pooled([clean, clean]), folds=2
  )
  known = clean._replace(people=True)
  assert leakage.pooled([known, known]).people
  assert not leakage.pooled([known, clean._replace(people=False)]).people
  found = leakage.pooled([clean, leaky, leaky])
  assert (
    found.equal == {'': {'train': 2}}
    and found.size == 3
    and leakage.claim(found, 3).startswith('2 of which were used')
  )


def test_a_patient_without_a_name_is_no_patient_of_the_same_name():
  table = {
    'row': np.arange(3),
    'y': np.zeros(3, int),
    'patient': np.array([np.nan, 'p1', 'None'], object),
  }
  assert leakage._column(Dataset(lambda i: None, 3, ('a', 'b'), table), 'patient').tolist() == [
    '',
    'p1',
    '',
  ]


def test_a_picture_whose_class_is_called_otherwise_is_the_same_one(tmp_path, monkeypatch):
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'cache'))
  keys = dict(name='phantom.load', patients=4, scans=1, size=(16, 16))
  side = data.load(**keys, split=dict(by='none'))['test']
  before = leakage.identities(side, keys)
  renamed = leakage.identities(side, {**keys, 'rename': {'CNV': 'wet'}})
  assert before.tolist() == renamed.tolist() and len(set(before.tolist())) == side.size
