"""Mutants: copies of a file in which one operator, number, condition or decorator is another.

cosmic-ray makes them. Left out are its swaps that are errors of type at once (`a + b` to `a << b`),
and annotations, which decide nothing at run time.
"""

import difflib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from parso.tree import NodeOrLeaf

PACKAGES = {
  'evaluation': 'medtl/evaluation',
  'training': 'medtl/training',
  'data/splits': 'medtl/data/splits.py',
  'data/dealing': 'medtl/data/dealing.py',
  'tasks': 'medtl/tasks',
}
BINARY = (
  'Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Div FloorDiv_Mul Mod_Mul Mod_FloorDiv Pow_Mul '
  'BitOr_BitAnd BitAnd_BitOr BitXor_BitAnd LShift_RShift RShift_LShift'
)
COMPARISON = (
  'Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot IsNot_Is'
)
OPERATORS = (
  *(f'core/ReplaceBinaryOperator_{swap}' for swap in BINARY.split()),
  *(f'core/ReplaceComparisonOperator_{swap}' for swap in COMPARISON.split()),
  'core/ReplaceUnaryOperator_Delete_USub',
  'core/ReplaceUnaryOperator_Delete_Invert',
  'core/ReplaceUnaryOperator_Delete_Not',
  'core/AddNot',
  'core/ReplaceTrueWithFalse',
  'core/ReplaceFalseWithTrue',
  'core/ReplaceAndWithOr',
  'core/ReplaceOrWithAnd',
  'core/ReplaceBreakWithContinue',
  'core/ReplaceContinueWithBreak',
  'core/ExceptionReplacer',
  'core/NumberReplacer',
  'core/RemoveDecorator',
  'core/ZeroIterationForLoop',
)
# parents of an operator that has two sides; elsewhere * and ** unpack, or part the parameters
EXPRESSIONS = {'arith_expr', 'term', 'expr', 'and_expr', 'xor_expr', 'shift_expr', 'power'}
BLOCKS = {'file_input', 'suite', 'if_stmt', 'while_stmt', 'for_stmt', 'with_stmt', 'try_stmt'}
BLOCKS |= {'funcdef', 'classdef', 'decorated', 'async_stmt'}

Span = tuple[int, int]  # first and last line


class Mutant(NamedTuple):
  """One break, not yet made."""

  path: str  # from the root of the tree
  function: str  # 'Class.method'; '' outside of functions
  operator: str  # cosmic-ray's name
  occurrence: int  # which of the operator's places in the file
  place: tuple[int, int]  # line and column
  spans: tuple[Span, ...]  # the statement, functions around it, the file


def package_of(path: str) -> str:
  """Return the row of the table to which a file belongs."""
  return next(name for name, place in PACKAGES.items() if path.startswith(place))


def mutated_files(root: Path) -> list[str]:
  """Return the paths of the files that are mutated, sorted."""
  found: list[str] = []
  for place in PACKAGES.values():
    files = [root / place] if place.endswith('.py') else (root / place).rglob('*.py')
    found += [str(file.relative_to(root)) for file in files]
  return sorted(found)


def sample(root: Path, seed: int, count: int) -> list[Mutant]:
  """Return `count` mutants, each at another place; a small sample begins a larger one."""
  places: dict[tuple[str, tuple[int, int]], list[Mutant]] = {}
  for path in mutated_files(root):
    for mutant in mutants(path, (root / path).read_text()):
      places.setdefault((mutant.path, mutant.place), []).append(mutant)
  choices = [places[place] for place in sorted(places)]
  generator = random.Random(seed)
  generator.shuffle(choices)
  return [generator.choice(choice) for choice in choices[:count]]


def mutants(path: str, source: str) -> Iterator[Mutant]:
  """Yield every mutant of a file."""
  module = get_ast(source)
  for name in OPERATORS:
    operator = get_operator(name)()
    occurrence = 0
    for node in ast_nodes(module):
      for place, _ in operator.mutation_positions(node):
        leaf = module.get_leaf_for_position(place, include_prefixes=True)
        if _decides(leaf, name):
          yield Mutant(path, _function(leaf), name, occurrence, place, tuple(_spans(leaf)))
        occurrence += 1


def mutate(source: str, mutant: Mutant) -> str:
  """Return the source with the break made."""
  return mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)


def changed_line(source: str, mutant: Mutant) -> tuple[str, str]:
  """Return the line that a mutant changes, before and after; '' after where a decorator is gone."""
  lines = source.splitlines()
  mutated_lines = mutate(source, mutant).splitlines()
  before: list[str] = []
  after: list[str] = []
  for line in difflib.unified_diff(lines, mutated_lines, n=0):
    words = ' '.join(line[1:].split())  # cosmic-ray puts blanks before numbers
    if line.startswith('-') and not line.startswith('---'):
      before.append(words)
    if line.startswith('+') and not line.startswith('+++'):
      after.append(words)
  return ' '.join(before).strip(), ' '.join(after).strip()


def _ancestors(leaf: NodeOrLeaf) -> Iterator[tuple[NodeOrLeaf, NodeOrLeaf]]:
  """Yield (node, its parent) from the leaf to the file."""
  node = leaf
  while node.parent is not None:
    yield node, node.parent
    node = node.parent


def _decides(leaf: NodeOrLeaf, operator: str) -> bool:
  """Return whether an operator can change what is computed at this place."""
  if 'BinaryOperator' in operator and leaf.parent.type not in EXPRESSIONS:
    return False
  if 'Exception' in operator and leaf.parent.type == 'atom_expr':
    return False  # cosmic-ray cannot replace a dotted name
  return not _in_annotation(leaf)


def _in_annotation(leaf: NodeOrLeaf) -> bool:
  for node, parent in _ancestors(leaf):
    if parent.type == 'tfpdef' and node is parent.children[-1]:
      return True
    if parent.type == 'annassign' and node is parent.children[1]:
      return True
    if parent.type == 'funcdef' and node is parent.annotation:
      return True
  return False


def _function(leaf: NodeOrLeaf) -> str:
  names = [node.name.value for node, _ in _ancestors(leaf) if node.type in ('funcdef', 'classdef')]
  return '.'.join(reversed(names))


def _spans(leaf: NodeOrLeaf) -> Iterator[Span]:
  """Yield the lines of the statement, or of the head of a block, then of all around it.

  What runs at import, a default or a constant, has no lines of its own: a test that happens to
  import the file would seem to be about it.
  """
  around = list(_ancestors(leaf))
  statement = next((node for node, parent in around if parent.type in BLOCKS), leaf)
  types = {node.type for node, _ in around}
  if 'funcdef' in types and 'parameters' not in types:
    yield _lines(statement)
  for node, _ in around:
    if node.type == 'funcdef':
      yield _lines(node)
  yield _lines(leaf.get_root_node())


def _lines(node: NodeOrLeaf) -> Span:
  return node.start_pos[0], node.get_last_leaf().start_pos[0]
