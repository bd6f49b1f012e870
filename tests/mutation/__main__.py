"""Prints how many mutants the tests notice: `make mutants [SEED=0] [COUNT=300]`.

What was found is kept in runs/mutation: started again, a run that was stopped goes on, and only
mutants whose file or tests have changed since are tried anew.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.mutation import equivalents, processes, reach, table, trials
from tests.mutation.mutants import sample

ROOT = Path(__file__).parents[2]


def main() -> int:
  """Return 0; 1 where an argument for an equivalent mutant no longer holds."""
  given = _arguments()
  argued = equivalents.load()
  gone = equivalents.stale(ROOT, argued)
  for entry in gone:
    print(f'{entry.path} {entry.function}: no mutant of today is {entry.before} → {entry.after}')
  if gone:
    return 1
  results = list(_results(given.seed, given.count, given.jobs))
  print(table.markdown(results, argued))
  for line in table.remarks(results, argued):
    print(line)
  noticed = [result for result in results if result['outcome'] != trials.SURVIVED]
  return 1 if any(equivalents.argued(result, argued) for result in noticed) else 0


def _results(seed: int, count: int, jobs: int) -> Iterator[trials.Result]:
  """Yield results as they come, all of the tree as it is now: it may be edited meanwhile."""
  began = time.monotonic()
  processes.KEPT.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix='medtl-mutants-') as scratch:
    source = processes.copy_tree(ROOT, Path(scratch) / 'source')
    trees = [processes.copy_tree(source, Path(scratch) / f'tree{n}') for n in range(jobs)]
    chosen = sample(source, seed, count)
    reached = reach.measure(source, trees[0], processes.KEPT / 'reach')
    kept = processes.KEPT / 'results.jsonl'
    for number, result in enumerate(trials.run_all(source, chosen, reached, trees, kept), 1):
      minutes = (time.monotonic() - began) / 60
      where = f'{result["path"]}:{result["line"]}'
      print(f'{number}/{count} {minutes:.0f} min {result["outcome"]} {where}', flush=True)
      yield result


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser('make mutants', description=__doc__)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--count', type=int, default=300, help='mutants in the sample (default 300)')
  parser.add_argument('--jobs', type=int, default=2, help='mutants at a time (default 2)')
  return parser.parse_args()


if __name__ == '__main__':
  sys.exit(main())
