"""The house keeps its walls: who may import whom, and what no file may hold."""

import ast
import importlib
from pathlib import Path

import pytest

from medtl.core import expressions

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / 'medtl').rglob('*.py'))
EVERYTHING = [
  path
  for folder in ('medtl', 'configs', 'experiments', 'tests')
  for path in sorted((ROOT / folder).rglob('*.py'))
]
RANKS = {
  0: ('core',),
  1: ('runtime',),
  2: ('data', 'models', 'training', 'evaluation'),
  3: ('features', 'report'),
  4: ('tasks',),
  5: ('run',),
  6: ('studies',),
  7: ('main', 'cli', '__init__'),
}
RANK = {room: rank for rank, rooms in RANKS.items() for room in rooms}
FORBIDDEN = {
  'data': {'flax', 'optax'},
  'models': {'optax', 'grain'},
  'evaluation': {'flax', 'optax'},
  'report': {'jax', 'flax', 'optax'},
}
# no room of these ranks knows another one of its own rank
APART = (2, 3)
# within a room: who does not know whom
WALLS = {'medtl/training/loop.py': 'medtl.training.step'}


def room(path):
  return path.relative_to(ROOT / 'medtl').parts[0].removesuffix('.py')


def imports(path):
  """Every dotted name that a file imports, also inside functions."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
  return found


def rooms_of(names):
  parts = [name.split('.') for name in names]
  return {part[1] for part in parts if part[0] == 'medtl' and len(part) > 1 and part[1] in RANK}


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_import_order(path):
  here = room(path)
  assert here in RANK, f'{here} has no rank: enter it in RANKS and in docs/architecture.md'
  names = imports(path)
  for other in rooms_of(names) - {here}:
    higher = RANK[other] > RANK[here]
    sideways = RANK[here] == RANK[other] and RANK[here] in APART
    assert not higher and not sideways, (
      f'{here} (rank {RANK[here]}) imports {other} (rank {RANK[other]})'
    )
  wall = WALLS.get(str(path.relative_to(ROOT)))
  assert wall is None or not any(name.startswith(wall) for name in names), (
    f'{path} never imports {wall}'
  )


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_that_a_room_does_without(path):
  packages = {name.split('.')[0] for name in imports(path)}
  without_jax = room(path) == 'data' and path.stem != 'augmentation'
  without_jax = without_jax or (room(path) == 'evaluation' and path.stem != 'predictions')
  assert not packages & (FORBIDDEN.get(room(path), set()) | ({'jax'} if without_jax else set()))


@pytest.mark.parametrize('name', ['sources', 'backbones', 'tasks'])
def test_what_a_config_may_name_lies_alone(name):
  """A misspelt name is answered with what one may choose, never with a helper's file."""
  folder = next(path for path in (ROOT / 'medtl').rglob(name) if path.is_dir())
  for path in folder.glob('*.py'):
    if path.stem != '__init__':
      package = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
      assert expressions.public(importlib.import_module(package)), (
        f'{package} offers nothing to choose'
      )


@pytest.mark.parametrize('path', EVERYTHING, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_rots_is_not_there(path):
  text = path.read_text()
  assert path.stem not in {'utils', 'util', 'common', 'helpers', 'misc'}
  needle = 'config' + '.get('
  assert needle not in text, 'a locked config still answers typos there'
  assert 'TODO' + ':' not in text


def test_the_order_is_the_documents():
  words = (ROOT / 'docs' / 'architecture.md').read_text()
  for rank, rooms in RANKS.items():
    for name in rooms:
      if name != '__init__':
        named = any(form in words for form in (f'`{name}`', f'{name}.py', f'{name}/'))
        assert named, f'docs/architecture.md does not name {name} (rank {rank})'
