"""Prints what became of some hundred mutated files of each kind: `make fuzz [SEED=0] [COUNT=1500]`.

A process of its own reads the files, so that a reader that hangs or dies is an outcome too.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.files import Case
from tests.fuzz.mutations import KINDS, cases
from tests.fuzz.outcomes import ERROR, RIGHT, SAME, UNDETECTABLE, Verdict, judge

COUNT = 1500
PATIENCE = 30.0  # seconds, on a busy machine, until a file counts as hanging
HANG, DEATH = 'hang', 'death'


def main() -> int:
  """Return 0 where no outcome was wrong."""
  given = _arguments()
  kinds = [kind for kind in KINDS if given.kind in ('', kind)]
  chosen = [case for kind in kinds for case in cases(kind, given.count // len(kinds), given.seed)]
  began = time.monotonic()
  verdicts = list(_verdicts(chosen))
  _print_table(kinds, chosen, verdicts)
  wrong = [
    (case, verdict) for case, verdict in zip(chosen, verdicts, strict=True) if not verdict.right
  ]
  for case, verdict in wrong:
    print(f'{verdict.outcome}: {case.label}: {verdict.detail}')
  if given.keep:
    _keep(Path(given.keep), wrong)
  seconds = time.monotonic() - began
  print(f'{len(chosen)} files, {len(wrong)} wrong, seed {given.seed}, {seconds:.0f} s')
  return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser('make fuzz', description=__doc__)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--count', type=int, default=COUNT, help=f'files in all (default {COUNT})')
  parser.add_argument('--kind', choices=KINDS, default='', help='of files, default all')
  parser.add_argument('--keep', default='', help='a folder for the files that went wrong')
  return parser.parse_args()


def _verdicts(chosen: list[Case]) -> Iterator[Verdict]:
  """Give a verdict on each case; after a hang or a death the next process goes on."""
  place = 0
  with tempfile.TemporaryDirectory(prefix='medtl-fuzz-') as scratch:
    while place < len(chosen):
      for verdict in _until_death(chosen[place:], Path(scratch) / str(place)):
        yield verdict
        place += 1


def _until_death(chosen: list[Case], scratch: Path) -> Iterator[Verdict]:
  """Give verdicts from one process, the last of them on a file that ended it, if one does."""
  context = multiprocessing.get_context('fork')
  here, there = context.Pipe()
  child = context.Process(target=_child, args=(there, chosen, scratch), daemon=True)
  child.start()
  there.close()
  for _ in chosen:
    verdict = _next(here)
    yield verdict
    if verdict.outcome in (HANG, DEATH):
      break
  child.kill()
  child.join()


def _next(pipe: Connection) -> Verdict:
  if not pipe.poll(PATIENCE):
    return Verdict(HANG, f'no end after {PATIENCE:.0f} s')
  try:
    return pipe.recv()
  except EOFError:
    return Verdict(DEATH, 'the process ended without a word')


def _child(pipe: Connection, chosen: list[Case], scratch: Path) -> None:
  """Judge cases one after the other; what decoders print themselves is dropped."""
  silence = os.open(os.devnull, os.O_WRONLY)
  os.dup2(silence, 1)
  os.dup2(silence, 2)
  for case in chosen:
    pipe.send(judge(case, scratch))


def _print_table(kinds: list[str], chosen: list[Case], verdicts: list[Verdict]) -> None:
  """Print a line for each kind: files, the right outcomes, the wrong ones."""
  columns = (SAME, ERROR, UNDETECTABLE)
  print(f'{"kind":14}{"files":>6}' + ''.join(f'{name:>14}' for name in columns) + '   wrong')
  for kind in kinds:
    pairs = zip(chosen, verdicts, strict=True)
    counted = Counter(verdict.outcome for case, verdict in pairs if case.original.kind == kind)
    others = {name: number for name, number in counted.items() if name not in RIGHT}
    cells = ''.join(f'{counted[name]:14}' for name in columns)
    words = ', '.join(f'{number} {name}' for name, number in sorted(others.items())) or '0'
    print(f'{kind:14}{sum(counted.values()):6}{cells}   {words}')


def _keep(folder: Path, wrong: list[tuple[Case, Verdict]]) -> None:
  """Write the files that went wrong, to look at them."""
  folder.mkdir(parents=True, exist_ok=True)
  for number, (case, verdict) in enumerate(wrong):
    words = f'{number:03} {verdict.outcome} {case.label}'.replace('/', '-')[:120]
    (folder / f'{words}{case.original.suffix}').write_bytes(case.data)


if __name__ == '__main__':
  sys.exit(main())
