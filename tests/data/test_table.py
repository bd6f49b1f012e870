"""Laws of tables: numbers as they are, words as columns of 0 and 1, nothing missing is invented."""

import numpy as np
import pytest

from medtl import data
from medtl.core.types import MedtlError
from medtl.data.sources import table

ROWS = """who,hospital,age,chol,kind,num
a,north,50,.5,x,0
b,north,60,?,y,2
c,south,70,0,,1
d,south,40,2e1,x,0
"""
KEYS = dict(label='num', above=0.0, features=('age', 'chol'), categories=('kind',))
NAMES = ['age', 'chol', 'kind=x', 'kind=y', 'chol missing', 'kind missing']


@pytest.fixture
def path(tmp_path):
  file = tmp_path / 'heart.csv'
  file.write_text(ROWS)
  return file


def matrix(dataset):
  return np.stack([dataset.fetch(index).x for index in range(dataset.size)])


def test_a_row_worked_by_hand(path):
  made = table.load(str(path), **KEYS, classes=('no', 'yes'), patient='who')
  expected = [
    [50, 0.5, 1, 0, 0, 0],
    [60, np.nan, 0, 1, 1, 0],
    [70, 0, 0, 0, 0, 1],
    [40, 20, 1, 0, 0, 0],
  ]
  np.testing.assert_array_equal(matrix(made), np.array(expected, np.float32))
  assert made.facts['columns'] == NAMES and made.facts['flags'] == [2, 3, 4, 5]
  assert made.classes == ('no', 'yes') and made.table['y'].tolist() == [0, 1, 1, 0]
  assert made.table['patient'].tolist() == list('abcd')
  assert made.table['file'][1] == 'heart.csv:3'
  assert made.table['hospital'].tolist() == ['north', 'north', 'south', 'south']
  assert any('1 in chol, 1 in kind' in note for note in made.facts['notes'])


def test_a_zero_is_missing_where_a_key_says_so_and_a_folder_of_one_csv_is_the_csv(path):
  made = table.load(str(path.parent), **KEYS, zero_is_missing=('chol',))
  chol = matrix(made)[:, 1]
  assert np.isnan(chol).tolist() == [False, True, True, False]
  (path.parent / 'other.csv').write_text(ROWS)
  with pytest.raises(MedtlError, match=r'holds 2 csv files \(heart.csv, other.csv\)'):
    table.load(str(path.parent), **KEYS)


def test_all_columns_of_numbers_are_features_but_words_and_labels(path):
  made = table.load(str(path), label='num')
  assert made.facts['features'] == ['age', 'chol'] and made.classes == ('0', '1', '2')
  notes = ' '.join(made.facts['notes'])
  assert 'every column of numbers (age, chol)' in notes
  assert 'does not see: who, hospital, kind' in notes


def test_other_rows_get_the_columns_that_a_net_knows(path, tmp_path):
  other = tmp_path / 'other.csv'
  other.write_text('age,kind,chol\n30,z,7\n20,y,\n')
  keys = dict(label='', features=('age', 'chol'), categories=('kind',), columns=NAMES)
  made = table.load(str(other), **keys)
  expected = [[30, 7, 0, 0, 0, 0], [20, np.nan, 0, 1, 1, 0]]
  np.testing.assert_array_equal(matrix(made), np.array(expected, np.float32))
  assert any('kind=z (1 rows)' in note for note in made.facts['notes'])
  assert (made.table['y'] == -1).all()
  with pytest.raises(MedtlError, match=r"expects the number 'chol'"):
    table.load(str(other), label='', features=('age',), columns=NAMES)


CODES = ('386661006', '386661008', '900000000000207008', '900000000000207009')  # SNOMED CT


def test_long_codes_stay_apart_in_training_and_in_other_rows(tmp_path):
  file = tmp_path / 'codes.csv'
  file.write_text('age,sex,label\n' + ''.join(f'5,{code},{code[-1]}\n' for code in CODES))
  keys = dict(label='label', features=('age',), categories=('sex',))
  made = table.load(str(file), **keys)
  names = ['age', *(f'sex={code}' for code in CODES)]
  assert made.facts['columns'] == names
  np.testing.assert_array_equal(matrix(made)[:, 1:], np.eye(4))
  again = table.load(str(file), **keys, columns=names)
  np.testing.assert_array_equal(matrix(again), matrix(made))
  file.write_text(f'age,sex\n5,{CODES[1]}.0\n5,{CODES[0]}\n5,386661007\n')
  other = table.load(str(file), **{**keys, 'label': ''}, columns=names)
  np.testing.assert_array_equal(matrix(other)[:, 1:], [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
  assert any('with: sex=386661007 (1 rows)' in note for note in other.facts['notes'])


def test_a_code_is_one_value_however_it_is_written_in_the_order_of_numbers(tmp_path):
  file = tmp_path / 'codes.csv'
  file.write_text('sex\n7.0\n+7\n10\n.50\n1e1\n0\n-0.0\n\n?\n')
  made = table.load(str(file), label='', categories=('sex',))
  assert made.facts['columns'] == ['sex=0', 'sex=0.5', 'sex=7', 'sex=10', 'sex missing']
  number = [2, 2, 3, 1, 3, 0, 0, 4]
  np.testing.assert_array_equal(matrix(made), np.eye(5)[number])


def test_columns_of_an_older_run_are_read_where_they_are_unambiguous(tmp_path):
  file = tmp_path / 'codes.csv'
  file.write_text(f'sex\n{CODES[0]}\n7\n1000000\n')
  keys = dict(label='', categories=('sex',))
  older = ('sex=7', 'sex=1e+06', 'sex=3.86661e+08')
  made = table.load(str(file), **keys, columns=older)
  np.testing.assert_array_equal(matrix(made), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
  assert any('sex=3.86661e+08 of an older run is taken' in note for note in made.facts['notes'])
  with pytest.raises(MedtlError, match=r"two columns called 'sex=3.86661e\+08'.*train again"):
    table.load(str(file), **keys, columns=(*older, 'sex=3.86661e+08'))
  file.write_text(f'sex\n{CODES[0]}\n{CODES[1]}\n')
  with pytest.raises(MedtlError, match=r"may be 'sex=386661006' or 'sex=386661008'"):
    table.load(str(file), **keys, columns=older)


def test_two_numbers_of_one_name_are_refused(tmp_path):
  file = tmp_path / 'twice.csv'
  file.write_text('age,age missing\n,1\n5,2\n')
  with pytest.raises(MedtlError, match="two numbers of x would be called 'age missing'"):
    table.load(str(file), label='')


def test_a_further_feature_is_told_by_its_name_also_where_it_has_gaps(path):
  columns = ('age', *NAMES[2:])
  made = table.load(str(path), **KEYS, columns=columns)
  assert made.facts['columns'] == list(columns)
  assert 'values that the net was not trained with: chol' in made.facts['notes']


@pytest.mark.parametrize(
  'keys, words',
  [
    (dict(KEYS, features=('age', 'kind'), categories=()), r"'kind' holds 'x' \(heart.csv:2\)"),
    (dict(KEYS, features=('age', 'num')), 'named twice.*would be the answer'),
    (dict(KEYS, features=('aeg',)), "no column 'aeg'.*did you mean 'age'"),
    (dict(KEYS, label='kind', categories=()), 'no column of numbers; leave data.above out'),
    (dict(KEYS, classes=('a', 'b', 'c')), 'makes two classes'),
    (dict(label='num', features=(), categories=(), patient='age', partition='chol'), 'no column'),
  ],
)
def test_wrong_keys_say_what_is_right(path, keys, words):
  with pytest.raises(MedtlError, match=f'(?s){words}'):
    table.load(str(path), **keys)


def test_the_fingerprint_tells_a_changed_number(path):
  before = table.load(str(path), **KEYS).fingerprint
  assert table.load(str(path), **KEYS).fingerprint == before
  path.write_text(ROWS.replace('2e1', '2e2'))
  assert table.load(str(path), **KEYS).fingerprint != before


LONG = '900000000000207009'


def loaded(path, **split):
  keys = dict(KEYS, site='hospital', patient='row')
  return data.load('table', root=str(path), split=split, **keys)


def test_a_site_becomes_a_group_and_equal_rows_of_two_sites_are_no_leak(path):
  path.write_text(ROWS + 'e,south,50,.5,x,0\n')
  sides = loaded(path, by='site', test=('south',), val=0)
  assert set(sides['train'].table['hospital']) == {'north'}
  assert sides['test'].table['group'].tolist() == [1, 1, 1]
  assert sides['test'].facts['groups'] == ['north', 'south']


def test_a_site_of_a_number_is_named_as_in_the_file(path):
  numbered = ROWS.replace('north', '70').replace('south', '1234567')
  path.write_text(numbered + 'e,,50,.5,x,0\n')
  whole = loaded(path, by='none')['test']
  assert whole.table['site'].tolist() == ['70', '70', '1234567', '1234567', '']
  assert whole.facts['groups'] == ['1234567', '70']
  path.write_text(numbered)
  sides = loaded(path, by='site', test=('70',), val=0)
  assert sides['test'].table['group'].tolist() == [1, 1]
  path.write_text(numbered.replace('70,', '900000000000207008,').replace('1234567', LONG))
  assert loaded(path, by='none')['test'].facts['groups'] == ['900000000000207008', LONG]


def test_a_site_of_one_class_that_tests_says_what_helps(path):
  path.write_text(ROWS.replace('c,south,70,0,,1', 'c,south,70,0,,0'))
  with pytest.raises(
    MedtlError, match=r'which south cannot give.*data.split.test.*data.site'
  ) as error:
    loaded(path, by='site', test=('south',), val=0)
  assert 'fewer folds' not in str(error.value)


def test_a_site_among_the_features_is_an_error(path):
  keys = dict(KEYS, categories=('kind', 'hospital'))
  with pytest.raises(MedtlError, match='also a feature'):
    data.load('table', root=str(path), split=dict(by='none'), site='hospital', **keys)
  with pytest.raises(MedtlError, match=r"data.site: .*'hospitl'; did you mean 'hospital'"):
    data.load('table', root=str(path), split=dict(by='none'), site='hospitl', **KEYS)


def test_a_row_without_a_site_has_no_group(path):
  path.write_text(ROWS.replace('c,south', 'c,?'))
  whole = loaded(path, by='none')['test']
  assert whole.table['group'].tolist() == [0, 0, -1, 1]
  with pytest.raises(MedtlError, match=r'1 examples have no site \(first: heart.csv:4\)'):
    loaded(path, by='site')


def test_operations_that_resize_need_a_picture(path):
  with pytest.raises(MedtlError, match=r'resize changes the size of pictures.*row of 6 numbers'):
    data.load('table', root=str(path), split=dict(by='none'), ops='resize(3)', **KEYS)
