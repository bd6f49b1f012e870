"""Who the patient of a file is: a pattern in its name, or a naming that is known, which is said."""

import re
from collections.abc import Sequence

import numpy as np

from medtl.core.types import MedtlError

# CLASS-PATIENT-NUMBER, of OCT2017 and of the chest X-rays that were published with it (Kermany
# 2018).
KERMANY = r'(?:^|/)(?:CNV|DME|DRUSEN|NORMAL|BACTERIA|VIRUS)-(\d+)-\d+(?!\d)'
# Namings of public data sets whose files tell the patient; the first group is the patient.
KNOWN = {
  'OCT2017 (Kermany 2018), CLASS-PATIENT-NUMBER': KERMANY,
  'TCGA barcode, TCGA-SITE-PARTICIPANT': r'(?:^|[/_])(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?![A-Z0-9])',
}


def by_pattern(files: Sequence[str], pattern: str) -> np.ndarray:
  """Return the patients [n] that the first group of a regex finds in each file's path.

  Raises MedtlError where it is no regex with a group, or finds nobody in some file.
  """
  try:
    group = re.compile(pattern)
  except re.error as error:
    raise MedtlError(f'data.pattern={pattern!r} is not a regex: {error}') from None
  if group.groups < 1:
    raise MedtlError(
      f'data.pattern={pattern!r} has no group; expected one around the patient, such as '
      "'patient_([0-9]+)'"
    )
  found = [group.search(name) for name in files]
  lacking = [name for name, match in zip(files, found, strict=True) if not (match and match[1])]
  if lacking:
    raise MedtlError(
      f'data.pattern={pattern!r} matches {len(files) - len(lacking)} of {len(files)} files; '
      f'the first without: {lacking[0]}'
    )
  return np.array([match[1] for match in found if match])


def guessed(files: Sequence[str]) -> tuple[np.ndarray | None, str]:
  """Return (patients [n], a sentence that says so) where all files bear names of one KNOWN kind.

  (None, a sentence) where most do, (None, '') where few or none do.
  """
  for naming, pattern in KNOWN.items():
    found = [re.search(pattern, name) for name in files]
    patients = [match[1] for match in found if match]
    if len(files) / 2 < len(patients) < len(files):
      first = files[found.index(None)]
      return None, (
        f'patients are not known: {len(patients)} of {len(files)} file names tell one ({naming}), '
        f'the first that does not is {first}; rename or remove the others, or give data.pattern'
      )
    if len(patients) == len(files):
      shown = ', '.join(
        f'{name} → {patient}' for name, patient in list(zip(files, patients, strict=True))[:3]
      )
      return np.array(patients), (
        f'patients are taken from the file names ({naming}): {shown}; '
        'data.pattern or data.patient says otherwise'
      )
  return None, ''
