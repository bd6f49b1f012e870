"""Keras's HDF5 files: almost nothing in them has a checksum, so that many other bytes are legal.

So these files are asked for less: no traceback, no hang, no blow-up, and an error where one is cut.
"""

from pathlib import Path

from tests.fuzz.files import EVERYTHING, Original, Region

FIXTURES = Path(__file__).parents[1] / 'fixtures'  # written by Keras


def originals() -> list[Original]:
  """Return Keras's own files of both generations."""
  found = []
  for name in ('weights_keras2.h5', 'weights_keras3.weights.h5'):
    data = (FIXTURES / name).read_bytes()
    regions = [Region(0, len(data), EVERYTHING)]
    found.append(Original('h5', name, data, 'checkpoint', '.h5', regions=regions))
  return found
