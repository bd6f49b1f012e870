"""Writes into README.md which nets learn what from which data, and the verbs, read off the code.

python -m docs.table

tests/test_docs.py fails where README.md is not what this would write.
"""

import functools
import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs import base
from medtl import main
from medtl.core import expressions
from medtl.core.types import MedtlError
from medtl.models import Backbone
from medtl.run import assemble

PAGE = Path(__file__).parents[1] / 'README.md'
COMMAND = 'python -m docs.table'
CLASSES = ('background', 'lesion', 'other')

REAL = '●'
GENERATED = '○'
BUILT = '·'
REFUSED = ''


class Column(NamedTuple):
  """What is learned from which kind of data."""

  title: str
  tasks: tuple[str, ...]  # files of medtl/tasks
  heads: tuple[str, ...]  # of each task
  shape: tuple[int, ...]  # of an example, [*s, c]
  sources: tuple[str, ...]  # files of medtl/data/sources


PICTURES = ('folder', 'dicom', 'medmnist', 'tfds', 'phantom')
COLUMNS = (
  Column('classes of pictures', ('classification',), ('linear',), (32, 32, 3), PICTURES),
  Column('classes of volumes', ('classification',), ('linear',), (16, 16, 16, 1), ('medmnist',)),
  Column('classes of rows', ('classification',), ('linear',), (5,), ('table',)),
  Column(
    'masks of pictures', ('segmentation',), ('decoders.unet',), (32, 32, 1), ('folder', 'phantom')
  ),
  Column('masks of volumes', ('segmentation',), ('decoders.unet',), (16, 16, 16, 1), ('nifti',)),
  Column(
    'pictures without labels', ('simclr', 'vicreg'), ('projections.mlp',), (32, 32, 1), PICTURES
  ),
  Column(
    "another scanner's pictures",
    ('adaptation', 'coral'),
    ('branches.domain', 'linear'),
    (32, 32, 1),
    PICTURES,
  ),
)
# One net of each family, small: whether it can be built does not depend on its size.
SMALL: dict[str, dict[str, Any]] = {
  'convnext': dict(name='convnext.convnext_tiny', width=4),
  'densenet': dict(name='densenet.densenet121', depths=(1, 2), growth=4, width=8),
  'alexnet': dict(name='alexnet.alexnet', width=8, dense=16),
  'efficientnet': dict(name='efficientnet.efficientnet_lite0', width=0.25, depth=0.25),
  'inception': dict(name='inception.inception_v3', width=0.0625, padding='SAME'),
  'mlp': dict(name='mlp.mlp'),
  'mobilenet': dict(name='mobilenet.mobilenet_v2', width=0.25),
  'nasnet': dict(name='nasnet.nasnet_mobile', filters=4, repeats=1),
  'resnet': dict(name='resnet.resnet18', width=4),
  'swin': dict(name='swin.swin_t', width=8, head_width=4),
  'sam': dict(name='sam.sam_vit_b', width=16, heads=2, depth=2, window=2),
  'unet_encoder': dict(name='unet_encoder.unet_encoder', widths=(4, 8)),
  'vgg': dict(name='vgg.vgg11', width=8, dense=16),
  'vit': dict(name='vit.vit_ti16', width=16, heads=2, depth=2, patch=8),
}


LARGER = {'alexnet': 64, 'vgg': 32}  # pixels a side, where the examples of a column are too small


class OnPatients(NamedTuple):
  """Where it is written that a net was trained on patients' data: `words` stand in `file`."""

  family: str
  column: str
  file: str
  words: str


ON_PATIENTS = (
  OnPatients('efficientnet', 'classes of pictures', 'docs/depth.md', 'EfficientNet-Lite0'),
  OnPatients('resnet', 'classes of pictures', 'configs/blueprint.py', 'AUROC 0.948'),
  OnPatients('vit', 'classes of pictures', 'docs/depth.md', 'CLIP ViT-B/16'),
  OnPatients('mlp', 'classes of rows', 'configs/heart_sites.py', '0.820'),
  OnPatients('efficientnet', 'masks of pictures', 'configs/busi_unet.py', 'Dice 0.666'),
  OnPatients('efficientnet', 'pictures without labels', 'configs/busi_simclr.py', '0.739'),
  OnPatients('unet_encoder', 'masks of volumes', 'configs/hippocampus_unet3d.py', '0.828'),
)

# A step of every column is trained of these families, of the others one of the first column.
TRAINED_IN_TESTS = ('efficientnet', 'mlp', 'resnet', 'unet_encoder', 'vit')

TABLE_KEY = (
  f'{REAL} trained on data of patients · {GENERATED} on made-up data alone: phantoms, or a step '
  f'of a test · {BUILT} built and not trained · empty: refused'
)


def families() -> list[str]:
  """Return the files of medtl/models/backbones that hold a backbone."""
  found = []
  for name in expressions.siblings('medtl.models.backbones'):
    module = importlib.import_module(f'medtl.models.backbones.{name}')
    kinds = [value for value in vars(module).values() if isinstance(value, type)]
    if any(issubclass(kind, Backbone) for kind in kinds):
      found.append(name)
  return found


def fitted(family: str, column: Column) -> Column:
  """Return the column with examples that are large enough for a family."""
  sides = tuple(max(side, LARGER.get(family, 0)) for side in column.shape[:-1])
  return column._replace(shape=(*sides, column.shape[-1]))


def config_of(family: str, column: Column) -> ConfigDict:
  """Return a config of a small net that learns what the column says, its data left open."""
  changes = (
    ('model', dict(SMALL[family], weights='')),
    ('task', {'name': column.tasks[0]}),
    ('head', {'name': column.heads[0]}),
  )
  return assemble.with_changes(base.get_config(), changes)


@functools.cache
def can_be_built(family: str, column: Column) -> bool:
  """Return whether a run's own way of building a net gives one for examples of the column."""
  column = fitted(family, column)
  config = config_of(family, column)
  pictures = jax.ShapeDtypeStruct((2, *column.shape), jnp.float32)
  try:
    net, _ = assemble.build_net(config, column.shape, CLASSES)
    init = lambda key, x: net.init(key, x, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), pictures)
    apply = lambda variables, x: net.apply(variables, x, train=False)
    jax.eval_shape(apply, variables, pictures)
  except (MedtlError, TypeError, ValueError):
    return False
  return True


def mark(family: str, column: Column) -> str:
  """Return the cell of a family of nets and a column."""
  if any((entry.family, entry.column) == (family, column.title) for entry in ON_PATIENTS):
    return REAL
  if not can_be_built(family, column):
    return REFUSED
  is_trained = family in TRAINED_IN_TESTS or column.title == COLUMNS[0].title
  return GENERATED if is_trained else BUILT


def matrix() -> list[str]:
  """Return the lines of the table of nets and what they learn."""
  titles = [column.title for column in COLUMNS]
  tasks = [', '.join(f'`{task}`' for task in column.tasks) for column in COLUMNS]
  heads = [', '.join(f'`{head}`' for head in column.heads) for column in COLUMNS]
  lines = [row('', titles), '|---' * (len(COLUMNS) + 1) + '|']
  lines.append(row('`config.task.name`', tasks))
  lines.append(row('`config.head.name`', heads))
  lines.append(row('`config.data.name`', [sources(column) for column in COLUMNS]))
  for family in families():
    lines.append(row(f'`{family}`', [mark(family, column) for column in COLUMNS]))
  return [*lines, '', TABLE_KEY]


def sources(column: Column) -> str:
  """Return the sources that have examples of a column; a long list is given once."""
  if column.sources == PICTURES and column is not COLUMNS[0]:
    return 'the same five'
  return ', '.join(f'`{source}`' for source in column.sources)


def row(first: str, cells: Sequence[str]) -> str:
  """Return a line of a table.

  >>> row('a', ['b', ''])
  '| a | b |  |'
  """
  return f'| {" | ".join([first, *cells])} |'


def verbs() -> list[str]:
  """Return the lines of the table of verbs, in the words of `python -m medtl.main --help`."""
  told = main.__doc__.split('\nverbs\n')[1].split('\n\n')[0]
  lines = ['| verb | what it does |', '|---|---|']
  for entry in re.split(r'(?m)^  (?=\w)', told)[1:]:
    name, words = entry.split(maxsplit=1)
    one_line = ' '.join(words.split())
    options_apart = re.sub(r' (--\w+): ', r'; `\1`: ', one_line)
    lines.append(row(f'`{name}`', [options_apart]))
  return lines


BLOCKS = {'nets': matrix, 'verbs': verbs}


def written(text: str, blocks: Sequence[str] = tuple(BLOCKS)) -> str:
  """Return a page with what the code says between the markers of these blocks."""
  for name in blocks:
    begin = f'<!-- {name}: written by {COMMAND} -->'
    end = f'<!-- end of {name} -->'
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    if not after:
      raise LookupError(f'{PAGE} lacks {begin} … {end}')
    block = '\n'.join(BLOCKS[name]())
    text = f'{before}{begin}\n{block}\n{end}{after}'
  return text


if __name__ == '__main__':
  PAGE.write_text(written(PAGE.read_text()))
  print(PAGE)
