"""Prints how many mutants the tests notice: `make mutants [SEED=0] [COUNT=300]`.

What was found is kept in runs/mutation: started again, a run that was stopped goes on, and only
mutants whose file or tests have changed since are tried anew.
"""

import argparse
import sys
import tempfile
import time
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
  chosen = sample(ROOT, given.seed, given.count)
  results = list(_results(given, chosen))
  print(table.markdown(results, argued))
  for line in table.remarks(results, argued):
    print(line)
  wrong = [result for result in results if result['outcome'] != trials.SURVIVED]
  return 1 if any(equivalents.argued(result, argued) for result in wrong) else 0


def _results(given: argparse.Namespace, chosen: list) -> list[trials.Result]:
  began = time.monotonic()
  results: list[trials.Result] = []
  processes.KEPT.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix='medtl-mutants-') as scratch:
    places = [Path(scratch) / f'tree{number}' for number in range(given.jobs)]
    trees = [processes.copy_tree(ROOT, place) for place in places]
    reached = reach.measure(ROOT, trees[0], processes.KEPT / 'reach')
    for result in trials.run_all(ROOT, chosen, reached, trees, processes.KEPT / 'results.jsonl'):
      results.append(result)
      minutes = (time.monotonic() - began) / 60
      where = f'{result["path"]}:{result["line"]}'
      print(
        f'{len(results)}/{len(chosen)} {minutes:.0f} min {result["outcome"]} {where}', flush=True
      )
  return results


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser('make mutants', description=__doc__)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--count', type=int, default=300, help='mutants in the sample (default 300)')
  parser.add_argument('--jobs', type=int, default=2, help='mutants at a time (default 2)')
  return parser.parse_args()


if __name__ == '__main__':
  sys.exit(main())
