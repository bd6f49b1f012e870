"""What is timed: four nets, six kinds of work, as plain values that both sides read."""

from typing import NamedTuple


class Case(NamedTuple):
  """One net at one kind of work, from a resident batch."""

  model: str
  dtype: str  # float32 | bfloat16
  work: str  # of WORKS
  batch: int
  size: int = 224  # pixels a side
  folder: str = ''  # of pictures, for those who read some


def table_head(names):
  """Return the first two lines of a table in markdown."""
  return f'{table_line(names)}\n|{"---|" * len(names)}'


def table_line(cells):
  """Return a line of a table in markdown."""
  return f'| {" | ".join(map(str, cells))} |'


CLASSES = 4
# children frozen (all of them: -1), and whether ours may use activations that are kept
WORKS = {
  'forward': (0, False),
  'full': (0, False),
  'half': (0.5, False),
  'half-cached': (0.5, True),
  'head': (1.0, False),
  'head-cached': (1.0, True),
}
MODELS = {
  'resnet50': ('resnet.resnet50', 16),
  'vit_s16': ('vit.vit_s16', 16),
  'vit_b16': ('vit.vit_b16', 8),
  'efficientnet_lite0': ('efficientnet.efficientnet_lite0', 16),
}  # our factory, batch
