"""Finds the patient of a file in its name, by a given pattern or by a known naming."""

import re
from collections.abc import Sequence

import numpy as np

from medtl.core.types import MedtlError

# CLASS-PATIENT-NUMBER: OCT2017, and the chest X-rays published with it (Kermany 2018)
KERMANY = r'(?:^|/)(?:CNV|DME|DRUSEN|NORMAL|BACTERIA|VIRUS)-(\d+)-\d+(?!\d)'
# public data sets whose file names say the patient: the first group
KNOWN = {
  'OCT2017 (Kermany 2018), CLASS-PATIENT-NUMBER': KERMANY,
  'TCGA barcode, TCGA-SITE-PARTICIPANT': r'(?:^|[/_])(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?![A-Z0-9])',
}


def by_pattern(files: Sequence[str], pattern: str) -> np.ndarray:
  """Return the patients [n] that the first group of a regex finds in each file's path.

  Raises MedtlError where `pattern` is no regex with a group, or finds no patient in a path.
  """
  try:
    regex = re.compile(pattern)
  except re.error as error:
    raise MedtlError(f'data.pattern={pattern!r} is not a regex: {error}') from None
  if regex.groups < 1:
    raise MedtlError(
      f'data.pattern={pattern!r} has no group; expected one around the patient, such as '
      "'patient_([0-9]+)'"
    )
  patients = []
  lacking = []
  for name in files:
    match = regex.search(name)
    if match and match[1]:
      patients.append(match[1])
    else:
      lacking.append(name)
  if lacking:
    raise MedtlError(
      f'data.pattern={pattern!r} matches {len(patients)} of {len(files)} files; '
      f'the first without: {lacking[0]}'
    )
  return np.array(patients)


def guessed(files: Sequence[str]) -> tuple[np.ndarray | None, str]:
  """Return (patients [n], a sentence that says so) if all file names follow one KNOWN naming.

  Returns (None, a sentence) if most do, and (None, '') if few or none do.
  """
  for naming, pattern in KNOWN.items():
    matches = [re.search(pattern, name) for name in files]
    patients = [match[1] for match in matches if match]
    if len(patients) == len(files):
      examples = zip(files[:3], patients[:3], strict=True)
      shown = ', '.join(f'{name} → {patient}' for name, patient in examples)
      note = (
        f'patients are taken from the file names ({naming}): {shown}; '
        'data.pattern or data.patient says otherwise'
      )
      return np.array(patients), note
    if len(patients) > len(files) / 2:
      first = files[matches.index(None)]
      note = (
        f'patients are not known: {len(patients)} of {len(files)} file names tell one ({naming}), '
        f'the first that does not is {first}; rename or remove the others, or give data.pattern'
      )
      return None, note
  return None, ''
