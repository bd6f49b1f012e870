"""eICU's tables (demo or whole) as one csv, a row for each hospital stay.

    python -m medtl.data.prepare.eicu FOLDER FILE.csv

and then `--config=configs/eicu_sites.py --config.data.root=FILE.csv`.
"""

import argparse
import csv
import gzip
import sys
from collections.abc import Sequence
from pathlib import Path

from medtl.core.types import MedtlError
from medtl.runtime.files import atomic_write

Row = dict[str, str]
UNIT = 'patientunitstayid'  # a patient's time in one unit
STAY = 'patienthealthsystemstayid'  # and in the hospital, perhaps in several units
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

  Raises MedtlError for a table or a column that is not there.
  """
  place = Path(folder).expanduser()
  units = _read(place, 'patient', [UNIT, STAY, 'unitvisitnumber', OUTCOME, *PATIENT])
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
  return int(unit[STAY]), int(unit['unitvisitnumber'])


def _by(key: str, table: Sequence[Row]) -> dict[str, Row]:
  return {row[key]: row for row in table}


def _read(folder: Path, name: str, columns: Sequence[str]) -> list[Row]:
  """Return the rows of the table name.csv.gz of a folder, which has these columns."""
  path = folder / f'{name}.csv.gz'
  if not path.is_file():
    raise MedtlError(f'no table {path}; expected the folder of eICU with its *.csv.gz')
  with gzip.open(path, 'rt', newline='', encoding='utf-8') as file:
    reader = csv.DictReader(file)
    for column in columns:
      if column not in (reader.fieldnames or ()):
        raise MedtlError(f'{path} has no column {column!r}; expected the columns of eICU 2.0')
    return list(reader)


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
