"""One side of a comparison in a process of its own: `worker SIDE CASE FROZEN`.

A line on standard input asks for one measurement.
"""

import json
import sys
import time
from pathlib import Path

from experiments.bench.cases import Case
from medtl.runtime import cpu


def main(side, case, frozen):
  """Say when ready, then the seconds of the work at each line; last the peak memory."""
  cpu.prepare()  # for both sides: PyTorch gains from kept memory too
  if side == 'ours':
    from experiments.bench import ours as how

    work, facts = how.prepare(case)
  else:
    from experiments.bench import theirs as how

    work, facts = how.prepare(case, frozen)
  work()
  print(json.dumps(facts), flush=True)
  for _ in sys.stdin:
    begin = time.perf_counter()
    work()
    print(json.dumps(time.perf_counter() - begin), flush=True)
  print(json.dumps(how.peak() or peak_of_process()), flush=True)


def peak_of_process():
  """Return the peak memory of this process in bytes."""
  for line in Path('/proc/self/status').read_text().splitlines():
    if line.startswith('VmHWM'):
      return 1024 * int(line.split()[1])
  raise SystemExit('/proc/self/status names no VmHWM: the peak memory is not known')


if __name__ == '__main__':
  main(sys.argv[1], Case(*json.loads(sys.argv[2])), int(sys.argv[3]))
