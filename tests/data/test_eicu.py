"""eICU's tables joined to one csv: whose stay counts, what the net may not see, what is missing."""

import csv
import gzip

import numpy as np
import pytest

from medtl import data
from medtl.core.types import MedtlError
from medtl.data.prepare import eicu
from medtl.run import run_folder
from tests.conftest import ROOT

# unit, stay, number of the unit, outcome, patient, age, hospital; a … d are fit for a row
UNITS = (
  ('1', '10', '2', 'Alive', 'ann', '> 89', 'west1'),  # the stay's second unit
  ('2', '10', '1', 'Alive', 'ann', '> 89', 'west1'),
  ('3', '11', '1', 'Expired', 'ann', '> 89', 'east1'),  # in another hospital: left out
  ('4', '12', '1', '', 'bob', '50', 'east1'),  # nobody knows how it ended
  ('5', '13', '1', 'Expired', 'cem', '', 'east1'),
  ('6', '14', '1', 'Alive', 'dan', '60', 'none1'),  # a hospital without a region
  ('7', '15', '1', 'Alive', 'eve', '70', 'west1'),  # without a first day
)
HOSPITALS = (('west1', 'West'), ('east1', 'East'), ('none1', ''))
MEASURED = 'urine wbc temperature respiratoryrate sodium heartrate meanbp ph hematocrit creatinine'
MORE = 'albumin pao2 pco2 bun glucose bilirubin fio2 eyes motor verbal intubated vent dialysis'


def write(folder, name, header, rows):
  with gzip.open(folder / f'{name}.csv.gz', 'wt', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows([header, *rows])


@pytest.fixture
def folder(tmp_path):
  """Return a folder with tables as eICU publishes them, of five patients."""
  columns = [eicu.UNIT, eicu.STAY, 'unitvisitnumber', eicu.OUTCOME, 'uniquepid', 'age']
  columns += ['hospitalid', 'gender', 'ethnicity', 'unittype', 'unitadmitsource']
  units = [(*unit, 'Female', 'Other', 'MICU', 'Floor') for unit in UNITS]
  write(tmp_path, 'patient', columns, units)
  write(tmp_path, 'hospital', ('hospitalid', 'region'), HOSPITALS)
  measured = f'{MEASURED} {MORE}'.split()
  first_days = []
  for unit in '123456':
    values = ['-1.0' if name == 'wbc' else f'{unit}.5' for name in measured]
    first_days.append((unit, *values))
  write(tmp_path, 'apacheapsvar', (eicu.UNIT, *measured), first_days)
  history = [(unit, '1', *'00000000') for unit in '1234567']
  write(tmp_path, 'apachepredvar', (eicu.UNIT, 'diedinhospital', *eicu.HISTORY), history)
  return tmp_path


def test_a_row_is_a_stay_s_first_unit_and_nobody_lies_in_two_hospitals(folder):
  rows = eicu.rows(str(folder))
  assert [row[eicu.UNIT] for row in rows] == ['2', '5', '6']
  assert [row['region'] for row in rows] == ['West', 'East', 'unknown']
  assert [row['age'] for row in rows] == ['90', '', '60']
  assert all('diedinhospital' not in row for row in rows)


def test_the_config_reads_what_was_written(folder, monkeypatch):
  monkeypatch.chdir(ROOT)
  path = eicu.prepare(str(folder), str(folder / 'eicu.csv'))
  keys = run_folder.load_config('configs/eicu_sites.py').data.to_dict()
  keys.update(root=str(path), split={'by': 'none'})
  stays = data.load(**keys)['test']
  assert stays.classes == ('Alive', 'Expired') and stays.table['y'].tolist() == [0, 1, 0]
  assert stays.table['site'].tolist() == ['West', 'East', 'unknown']
  assert stays.table['patient'].tolist() == ['ann', 'cem', 'dan']
  x = np.stack([stays.fetch(row).x for row in range(stays.size)])
  columns = stays.facts['columns']
  np.testing.assert_array_equal(x[:, columns.index('age')], [90, np.nan, 60])
  assert np.isnan(x[:, columns.index('wbc')]).all() and x[:, columns.index('wbc missing')].all()
  assert not {'apacheapsvarid', eicu.UNIT, 'hospitalid', 'ethnicity'} & set(columns)


def test_a_table_or_a_column_that_is_not_there_is_an_error(folder):
  write(folder, 'hospital', ('hospitalid', 'place'), HOSPITALS)
  with pytest.raises(MedtlError, match="has no column 'region'"):
    eicu.rows(str(folder))
  (folder / 'hospital.csv.gz').unlink()
  with pytest.raises(MedtlError, match=r'no table .*hospital\.csv\.gz'):
    eicu.rows(str(folder))


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'no checksum', 'text', 'latin-1'])
def test_a_table_that_cannot_be_read_is_an_error_that_names_it(folder, damage):
  path = folder / 'patient.csv.gz'
  packed = path.read_bytes()
  flipped = bytearray(packed)
  flipped[len(packed) // 2] ^= 0xFF
  path.write_bytes(
    {
      'cut': packed[:-20],
      'flipped': bytes(flipped),
      'no checksum': packed[:-8],
      'text': gzip.decompress(packed),
      'latin-1': gzip.compress(
        gzip.decompress(packed).replace(b'Other', 'Übrige'.encode('latin-1'))
      ),
    }[damage]
  )
  with pytest.raises(MedtlError, match=r'patient\.csv\.gz.*copy or download it again'):
    eicu.rows(str(folder))


def test_a_hospital_that_its_table_does_not_list_is_an_error(folder):
  write(folder, 'hospital', ('hospitalid', 'region'), HOSPITALS[:1])
  with pytest.raises(MedtlError, match=r"hospital\.csv\.gz has no row of the hospital 'east1'"):
    eicu.rows(str(folder))


@pytest.mark.parametrize('column, value', [(2, ''), (2, '1.5'), (1, '')])
def test_a_stay_or_a_visit_without_a_number_is_an_error(folder, column, value):
  with gzip.open(folder / 'patient.csv.gz', 'rt', newline='', encoding='utf-8') as file:
    header, first, *others = csv.reader(file)
  first[column] = value
  write(folder, 'patient', header, [first, *others])
  with pytest.raises(MedtlError, match=rf"'{header[column]}'.* of the unit '1'.*whole number"):
    eicu.rows(str(folder))


@pytest.mark.parametrize('fields', [3, 12])
def test_a_row_of_more_or_fewer_fields_than_the_header_is_an_error(folder, fields):
  with gzip.open(folder / 'patient.csv.gz', 'rt', newline='', encoding='utf-8') as file:
    header, first, second, *others = csv.reader(file)
  second = [*second, 'more'][:fields]
  write(folder, 'patient', header, [first, second, *others])
  with pytest.raises(MedtlError, match=r'row 2 of .*patient\.csv\.gz has more or fewer fields'):
    eicu.rows(str(folder))
