"""eICU's tables (demo or whole) as one csv, a row for each hospital stay.

    python -m medtl.data.prepare.eicu FOLDER FILE.csv

and then `--config=configs/eicu_sites.py --config.data.root=FILE.csv`.
"""

import argparse
import csv
import gzip
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from medtl.core.types import MedtlError
from medtl.runtime.files import atomic_write

Row = dict[str, str]
UNIT = 'patientunitstayid'  # a patient's time in one unit
STAY = 'patienthealthsystemstayid'  # and in the hospital, perhaps in several units
VISIT = 'unitvisitnumber'  # the first unit of a stay has the lowest
OUTCOME = 'hospitaldischargestatus'
PATIENT = ('uniquepid', 'gender', 'age', 'ethnicity', 'hospitalid', 'unittype', 'unitadmitsource')
HISTORY = (  # of apachepredvar, which also says who died: that is no predictor
  'hepaticfailure',
  'lymphoma',
  'metastaticcancer',
  'leukemia',
  'immunosuppression',
  'cirrhosis',
  'electivesurgery',
  'diabetes',
)
OLDEST = ('> 89', '90')  # ages above 89 are published as '> 89'


def rows(folder: str) -> list[Row]:
  """Return a row for each hospital stay whose outcome and first day in intensive care are known.

  Its columns are those of PATIENT, OUTCOME, apacheapsvar (numbers of the first day, -1 where
  nothing was measured) and HISTORY of the first unit that has them, and the hospital's `region`.
  Of a patient who lay in several hospitals only the stays in the first one are taken, so that
  nobody stands on two sides of a split by hospital or region.

  Raises MedtlError for a table or a column that is not there, a table that cannot be read, a
  hospital that the table hospital does not list, and a stay or a visit without a number.
  """
  place = Path(folder).expanduser()
  units = _read(place, 'patient', [UNIT, STAY, VISIT, OUTCOME, *PATIENT])
  measured = _by(UNIT, _read(place, 'apacheapsvar', [UNIT]))
  history = _by(UNIT, _read(place, 'apachepredvar', [UNIT, *HISTORY]))
  hospitals = _by('hospitalid', _read(place, 'hospital', ['hospitalid', 'region']))
  hospital_of: dict[str, str] = {}  # the first one of each patient
  joined: dict[str, Row] = {}
  for unit in sorted(units, key=_order):
    known = unit[OUTCOME] and unit[UNIT] in measured and unit[UNIT] in history
    if not known or unit[STAY] in joined:
      continue
    hospital = unit['hospitalid']
    if hospital_of.setdefault(unit['uniquepid'], hospital) != hospital:
      continue
    row = {name: unit[name] for name in (*PATIENT, OUTCOME)}
    row['age'] = row['age'].replace(*OLDEST)
    if hospital not in hospitals:
      raise MedtlError(
        f'{_path(place, "hospital")} has no row of the hospital {hospital!r}, where the unit '
        f'{unit[UNIT]!r} of the table patient lies; expected the tables of one release of eICU'
      )
    row['region'] = hospitals[hospital]['region'] or 'unknown'
    row |= measured[unit[UNIT]]
    row |= {name: history[unit[UNIT]][name] for name in HISTORY}
    joined[unit[STAY]] = row
  if not joined:
    raise MedtlError(
      f'{place} has no stay whose outcome ({OUTCOME}) and first day (apacheapsvar, apachepredvar) '
      'are known; expected the tables of one release of eICU'
    )
  return list(joined.values())


def prepare(folder: str, file: str) -> Path:
  """Return the path of a csv with the `rows` of a folder; a file that is there is replaced."""
  table = rows(folder)
  path = Path(file).expanduser()
  with atomic_write(path, own=True) as aside, open(aside, 'w', newline='', encoding='utf-8') as out:
    writer = csv.DictWriter(out, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
  return path


def _order(unit: Row) -> tuple[int, int]:
  """Return a sort key: hospital stays, and the units of a stay as the patient saw them."""
  numbers = []
  for column in (STAY, VISIT):
    try:
      numbers.append(int(unit[column]))
    except ValueError:
      raise MedtlError(
        f'the column {column!r} of the table patient holds {unit[column]!r} in the row of the unit '
        f'{unit[UNIT]!r}; expected a whole number, which says what came first: mend the row'
      ) from None
  stay, visit = numbers
  return stay, visit


def _by(key: str, table: Sequence[Row]) -> dict[str, Row]:
  return {row[key]: row for row in table}


def _read(folder: Path, name: str, columns: Sequence[str]) -> list[Row]:
  """Return the rows of the table name.csv.gz of a folder, which has these columns."""
  path = _path(folder, name)
  if not path.is_file():
    raise MedtlError(f'no table {path}; expected the folder of eICU with its *.csv.gz')
  try:
    with gzip.open(path, 'rt', newline='', encoding='utf-8') as file:
      reader = csv.DictReader(file)
      table = list(reader)
  except (EOFError, OSError, UnicodeDecodeError, csv.Error, zlib.error) as error:
    raise MedtlError(
      f'cannot read {path}: {error}; expected a whole gzip file of a csv in UTF-8: copy or '
      'download it again'
    ) from error
  for column in columns:
    if column not in (reader.fieldnames or ()):
      raise MedtlError(f'{path} has no column {column!r}; expected the columns of eICU 2.0')
  for number, row in enumerate(table, 1):
    if None in row or None in row.values():  # csv's sign of fields too many or too few
      raise MedtlError(
        f'row {number} of {path} has more or fewer fields than its header; copy or download '
        'it again'
      )
  return table


def _path(folder: Path, name: str) -> Path:
  return folder / f'{name}.csv.gz'


if __name__ == '__main__':
  parser = argparse.ArgumentParser(
    prog='python -m medtl.data.prepare.eicu', description="Join eICU's tables to one csv."
  )
  parser.add_argument('folder', help='holds patient.csv.gz, hospital.csv.gz, apacheapsvar.csv.gz …')
  parser.add_argument('file', help='the csv to write')
  arguments = parser.parse_args()
  try:
    print(prepare(arguments.folder, arguments.file))
  except (MedtlError, OSError) as error:
    sys.exit(str(error))
