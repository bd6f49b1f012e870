"""The tests of each mutant, run in copies of the tree; results are kept line by line."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import Any

from tests.mutation import processes
from tests.mutation.mutants import Mutant, changed_line, mutate
from tests.mutation.reach import Reach, tests_of

KILLED, OVER_TIME, NO_IMPORT, SURVIVED = 'killed', 'over time', 'no import', 'survived'
SLACK = 40.0  # CPU seconds more than the tests of a mutant take: start, imports, compiling anew

Result = dict[str, Any]  # path, line, function, before, after, outcome, killer, state, …
State = dict[str, Any]


def run_all(
  root: Path, chosen: Sequence[Mutant], reach: Reach, trees: Sequence[Path], kept: Path
) -> Iterator[Result]:
  """Yield a result for each mutant; those in the file `kept` that still hold are not run again."""
  known = _known(kept)
  free: Queue[Path] = Queue()
  for tree in trees:
    free.put(tree)

  def trial(mutant: Mutant, state: State) -> Result:
    tree = free.get()
    try:
      return _trial(root, tree, mutant, reach) | {'state': state}
    finally:
      free.put(tree)

  pool = ThreadPoolExecutor(len(trees))
  try:
    waiting = []
    for mutant in chosen:
      state = _state(root, mutant, tests_of(mutant, reach))
      result = known.get(state['mutant'])
      if result is not None and _holds(result, state):
        yield result
      else:
        waiting.append(pool.submit(trial, mutant, state))
    for done in as_completed(waiting):
      result = done.result()
      with kept.open('a') as file:
        file.write(json.dumps(result) + '\n')
      yield result
  finally:
    pool.shutdown(cancel_futures=True)  # who stops a run does not wait for all the others


def _known(kept: Path) -> dict[str, Result]:
  if not kept.exists():
    return {}
  results = [json.loads(line) for line in kept.read_text().splitlines()]
  return {result['state']['mutant']: result for result in results}


def _state(root: Path, mutant: Mutant, tests: Sequence[str]) -> State:
  """Return digests of all that a result hangs on: the mutated file, and each test given to it."""
  mutated = mutate((root / mutant.path).read_text(), mutant)
  files = {test: test.partition('::')[0] for test in tests}
  return {
    'mutant': _digest(f'{mutant.path}\0{mutated}'),
    'tests': {test: _digest((root / file).read_text()) for test, file in files.items()},
  }


def _holds(result: Result, state: State) -> bool:
  """Return whether a kept result still counts: its killer, else every test, is as it was."""
  killer = result['killer']
  if killer in state['tests']:
    return result['state']['tests'][killer] == state['tests'][killer]
  return result['state'] == state


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _trial(root: Path, tree: Path, mutant: Mutant, reach: Reach) -> Result:
  source = (root / mutant.path).read_text()
  tests = tests_of(mutant, reach)
  before, after = changed_line(source, mutant)
  outcome, killer = SURVIVED, ''
  if tests:
    (tree / mutant.path).write_text(mutate(source, mutant))
    limit = SLACK + 4 * sum(reach.seconds[test] for test in tests)
    code, output = processes.pytest(tree, tests, limit)
    (tree / mutant.path).write_text(source)
    outcome, killer = judge(code, output)
  return {
    'path': mutant.path,
    'line': mutant.place[0],
    'function': mutant.function,
    'operator': mutant.operator.removeprefix('core/'),
    'before': before,
    'after': after,
    'tests': len(tests),
    'outcome': outcome,
    'killer': killer,
  }


def judge(code: int, output: str) -> tuple[str, str]:
  """Return (outcome, the test that noticed) from pytest's exit code and output."""
  if code == 0:
    return SURVIVED, ''
  if code == processes.OVER_TIME:
    return OVER_TIME, ''
  failed = [line for line in output.splitlines() if line.startswith(('FAILED ', 'ERROR '))]
  killer = failed[0].partition(' ')[2].partition(' - ')[0] if failed else ''
  if code == 1:
    return KILLED, killer
  return (KILLED if code < 0 else NO_IMPORT), killer
