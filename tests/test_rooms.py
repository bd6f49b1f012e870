"""The house keeps its walls: who may import whom, and what no file may hold."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / 'medtl').rglob('*.py'))
EVERYTHING = [path for folder in ('medtl', 'configs', 'experiments', 'tests') for path in sorted((ROOT / folder).rglob('*.py'))]
RANKS = {
  0: ('types', 'spec', 'tree', 'disk', 'fetch', 'transfer', 'cpu', 'hosts', 'userfile'),
  1: ('data', 'models', 'transferability', 'losses', 'metrics', 'partition', 'norms', 'mesh', 'freeze', 'optimizer', 'schedule',
      'checkpoint', 'log'),
  2: ('features', 'probe', 'tasks', 'step', 'loop', 'evaluate', 'report'),
  3: ('check', 'build', 'origin', 'prefix', 'describe', 'runfolder', 'run', 'parts', 'inference', 'memory'),
  4: ('study', 'screen', 'probing', 'lr_find'),
  5: ('main', 'commandline', '__init__'),
}
RANK = {room: rank for rank, rooms in RANKS.items() for room in rooms}
FORBIDDEN = {'data': {'flax', 'optax'}, 'models': {'optax', 'grain'}, 'metrics': {'jax', 'flax'}, 'report': {'jax', 'flax', 'optax'}}
WALLS = {('models', 'data'), ('step', 'models'), ('loop', 'evaluate'), ('tasks', 'models'), ('loop', 'step')}


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
  for other in rooms_of(imports(path)) - {here}:
    higher = RANK[other] > RANK[here]
    sideways = RANK[here] == RANK[other] == 1 and (here, other) != ('partition', 'freeze')
    assert not higher and not sideways, f'{here} (rank {RANK[here]}) imports {other} (rank {RANK[other]})'
    assert (here, other) not in WALLS, f'{here} never imports {other}'


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_that_a_room_does_without(path):
  packages = {name.split('.')[0] for name in imports(path)}
  forbidden = FORBIDDEN.get(room(path), set()) | ({'jax'} if room(path) == 'data' and path.stem != 'augment' else set())
  assert not packages & forbidden


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
