"""Which tests run a line: measured once for each test file, and kept until a source changes."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.mutation import processes
from tests.mutation.mutants import Mutant, mutated_files

# where the laws of the mutated packages are; those of a task's checks stand with config's
TESTS = (
  'tests/evaluation',
  'tests/training',
  'tests/tasks',
  'tests/data/test_splits.py',
  'tests/report/test_page.py',
  'tests/run/test_validate.py',
  'tests/run/test_advice.py',
  'tests/run/test_open_keys.py',
  'tests/run/test_predict.py',
  'tests/run/test_tables.py',
)
BUDGET = 30.0  # CPU seconds of tests for a mutant, the quickest tests first
PATIENCE = 3600.0  # seconds for one test file on a busy machine


class Reach(NamedTuple):
  """What the tests run."""

  seconds: dict[str, float]  # of each test
  tests: dict[tuple[str, int], set[str]]  # of (path, line); '' is the import of the file


def measure(root: Path, tree: Path, kept: Path) -> Reach:
  """Return what the tests reach; `tree` is a copy of `root` to run them in."""
  sources = _digest(sorted((root / 'medtl').rglob('*.py')) + sorted(root.glob('tests/*.py')))
  reach = Reach({}, {})
  for file in test_files(root):
    place = kept / f'{_digest([root / file])}-{sources}.json'
    if not place.exists():
      print(f'which lines does {file} run?', flush=True)
      _record(tree, file, place)
    _add(reach, json.loads(place.read_text()))
  return reach


def test_files(root: Path) -> list[str]:
  """Return the paths of the test files, and of mutated files that hold doctests."""
  found: list[str] = []
  for place in TESTS:
    files = [root / place] if place.endswith('.py') else sorted((root / place).glob('test_*.py'))
    found += [str(file.relative_to(root)) for file in files]
  documented = [path for path in mutated_files(root) if '>>> ' in (root / path).read_text()]
  return found + documented


def tests_of(mutant: Mutant, reach: Reach) -> list[str]:
  """Return the tests that may notice a mutant, the quickest first, as many as the budget allows.

  They are those that run its statement. A statement that runs only while its file is imported is
  left to the tests of the function or of the file that it stands in.
  """
  chosen: set[str] = set()
  for first, last in mutant.spans:
    lines = [reach.tests.get((mutant.path, line), set()) for line in range(first, last + 1)]
    found = set().union(*lines)
    chosen = found - {''}
    if chosen or not found:
      break
  return _within_budget(sorted(chosen, key=lambda test: (reach.seconds[test], test)), reach)


def _within_budget(tests: Sequence[str], reach: Reach) -> list[str]:
  total = 0.0
  kept: list[str] = []
  for test in tests:
    total += reach.seconds[test]
    if kept and total > BUDGET:
      break
    kept.append(test)
  return kept


def _record(tree: Path, file: str, place: Path) -> None:
  """Run a test file under the recorder; it must pass, or no mutant could be told from it."""
  place.parent.mkdir(parents=True, exist_ok=True)
  aside = place.with_suffix('.part')
  arguments = ['-p', 'tests.mutation.recorder', '-m', 'not slow', file]
  code, output = processes.pytest(tree, arguments, PATIENCE, MEDTL_REACH=str(aside))
  if code != 0:
    raise SystemExit(f'{file} fails without any mutant:\n{output[-3000:]}')
  aside.rename(place)


def _add(reach: Reach, recorded: dict[str, Any]) -> None:
  reach.seconds.update(recorded['seconds'])
  for path, lines in recorded['lines'].items():
    for line, tests in lines.items():
      reach.tests.setdefault((path, int(line)), set()).update(tests)


def _digest(files: Sequence[Path]) -> str:
  whole = hashlib.sha256()
  for file in files:
    whole.update(file.read_bytes())
  return whole.hexdigest()[:16]
