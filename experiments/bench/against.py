"""Steps of ours and of PyTorch, each in a process of its own, in turn: medians and their ratio."""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.bench import cases
from experiments.bench.cases import CLASSES, MODELS, WORKS, Case
from medtl.run import run_folder

HEADER = (
  'net',
  'dtype',
  'work',
  'ours, images/s',
  'torch, images/s',
  'ratio (least to most)',
  'peak memory, GB',
  'compile, s',
)


class Worker:
  """A process that does one side's work when asked."""

  def __init__(self, side, case, frozen=0):
    words = [sys.executable, '-m', 'experiments.bench.worker', side, json.dumps(case), str(frozen)]
    self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    self.facts = self.read()

  def read(self):
    """Return the next thing that it says; what jax or torch print is passed over."""
    for line in self.process.stdout:
      if line[0] in '{0123456789':
        return json.loads(line)
    raise SystemExit(
      f'a worker ended with {self.process.wait()}; its words are above. PyTorch: pip install -r '
      'requirements/bench.txt'
    )

  def time(self):
    """Return the seconds of the work, once."""
    self.process.stdin.write('go\n')
    self.process.stdin.flush()
    return self.read()

  def end(self):
    """Return the peak memory in bytes."""
    self.process.stdin.close()
    peak = self.read()
    self.process.wait()
    return peak


def compared(case, repeats):
  """Return a row: median seconds, the paired ratios theirs / ours, memory and compile seconds."""
  ours = Worker('ours', case)
  work = case.work.removesuffix('-cached')
  theirs = Worker('theirs', case._replace(work=work), ours.facts['frozen'])
  pairs = [(ours.time(), theirs.time()) for _ in range(repeats)]
  our_median = statistics.median(first for first, _ in pairs)
  their_median = statistics.median(second for _, second in pairs)
  ratios = [second / first for first, second in pairs]
  row = {'case': case, 'ours': our_median, 'theirs': their_median}
  row |= {'ratio': their_median / our_median, 'least': min(ratios), 'most': max(ratios)}
  row['memory'] = (ours.end(), theirs.end())
  row['facts'] = (ours.facts, theirs.facts)
  return row


def pictures(folder, size, count=40):
  """Write PNG files of noise for those who read pictures."""
  random = np.random.RandomState(0)
  for number in range(count):
    path = folder / f'class{number % CLASSES}' / f'{number}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.randint(0, 255, (size, size, 3), np.uint8)).save(path)


def line(row):
  """Return a row of the table."""
  case = row['case']
  ours, theirs = row['facts']
  our_memory, their_memory = (f'{size / 1e9:.1f}' for size in row['memory'])
  work = case.work
  if ours['from']:
    work += f' (from child {ours["from"]})'
  elif 'cached' in case.work:
    work += f' (not kept: {ours["why"]})'
  cells = [case.model, case.dtype, work]
  cells += [f'{case.batch / row[side]:.1f}' for side in ('ours', 'theirs')]
  cells.append(f'{row["ratio"]:.2f} ({row["least"]:.2f} to {row["most"]:.2f})')
  cells.append(f'{our_memory} / {their_memory}')
  cells.append(f'{ours["compile"]:.0f} / {theirs["compile"]:.0f}')
  return cases.table_line(cells)


def main(argv):
  """Print the table, a line as soon as it is known."""
  parser = argparse.ArgumentParser(prog='python -m experiments.bench')
  parser.add_argument('--against', choices=['torch'], required=True)
  for name, known in (('models', MODELS), ('works', WORKS), ('dtypes', ('float32', 'bfloat16'))):
    parser.add_argument(f'--{name}', default=','.join(known), help=f'of: {", ".join(known)}')
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument('--batch', type=int, default=0, help='0: each net its own')
  parser.add_argument('--size', type=int, default=224)
  flags = parser.parse_args(argv)
  print(cases.table_head(HEADER))
  models = flags.models.split(',')
  dtypes = flags.dtypes.split(',')
  works = flags.works.split(',')
  with tempfile.TemporaryDirectory() as folder:
    os.environ['MEDTL_CACHE'] = f'{folder}/cache'
    pictures(Path(folder) / 'pictures', flags.size)
    for model, dtype, work in itertools.product(models, dtypes, works):
      batch = flags.batch or MODELS[model][1]
      case = Case(model, dtype, work, batch, flags.size, f'{folder}/pictures')
      row = compared(case, flags.repeats)
      print(line(row), flush=True)
  sides = [f'{facts["version"]} on {facts["device"]}' for facts in row['facts']]
  print(
    f'\n{time.strftime("%Y-%m-%d")}; {run_folder.hardware()}; {", ".join(sides)}; medians of '
    f'{flags.repeats}, in turn; peak memory of the whole process on a CPU, of the device '
    'elsewhere; torch: eager on a CPU, torch.compile on a GPU'
  )
