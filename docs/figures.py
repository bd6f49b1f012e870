"""Draws docs/depth.svg from the first table of docs/depth.md: AUROC at every freezing depth.

python -m docs.figures

tests/test_docs.py fails where the figure is not of that table.
"""

import base64
import re
from pathlib import Path
from typing import NamedTuple

from medtl.report import figures

TABLE = Path(__file__).with_name('depth.md')
FIGURE = Path(__file__).with_name('depth.svg')
COMMAND = 'python -m docs.figures'
AXIS = 'children frozen, from the full fine-tune to the linear probe'
# '| depth4 | .962 (.929 to .983) | …': the first measure of a table's line.
LINE = re.compile(r'^\| (\w+) \| (\.\d+) \((\.\d+) to (\.\d+)\) \|', re.MULTILINE)


class Measured(NamedTuple):
  """One depth: the AUROC out of fold and its 95 % interval by patient."""

  name: str
  value: float
  low: float
  high: float


def measured() -> list[Measured]:
  """Return the lines of the first table of docs/depth.md, in its order."""
  first = TABLE.read_text().split('## Every depth of an EfficientNet-Lite0')[1].split('\n###')[0]
  return [Measured(name, *map(float, numbers)) for name, *numbers in LINE.findall(first)]


def drawn() -> str:
  """Return the figure as SVG, the same bytes each time."""
  lines = measured()
  names = [line.name for line in lines]
  uri = figures.variants(names, [line._asdict() for line in lines], 'AUROC', AXIS)
  return base64.b64decode(uri.partition(',')[2]).decode()


if __name__ == '__main__':
  FIGURE.write_text(drawn())
  print(FIGURE)
