"""Steps of ours and of PyTorch's, each in a process of its own, in turn: medians, and the ratio with its spread."""

import argparse
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

from experiments.bench.cases import CLASSES, MODELS, WORKS, Case
from medtl.run import run_folder


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
      f'a worker ended with {self.process.wait()}; its words are above. PyTorch: pip install -r requirements/bench.txt'
    )

  def time(self):
    """Return the seconds of the work, once."""
    self.process.stdin.write('go\n')
    self.process.stdin.flush()
    return self.read()

  def end(self):
    """Return the peak memory in bytes."""
    self.process.stdin.close()
    found = self.read()
    self.process.wait()
    return found


def compared(case, repeats):
  """Return a row: medians in seconds, the paired ratios theirs / ours, memory and compile seconds."""
  ours = Worker('ours', case)
  theirs = Worker(
    'theirs', case._replace(work=case.work.removesuffix('-cached')), ours.facts['frozen']
  )
  pairs = [(ours.time(), theirs.time()) for _ in range(repeats)]
  one, other = (statistics.median(side) for side in zip(*pairs, strict=True))
  ratios = sorted(b / a for a, b in pairs)
  return {
    'case': case,
    'ours': one,
    'theirs': other,
    'ratio': other / one,
    'least': ratios[0],
    'most': ratios[-1],
    'memory': (ours.end(), theirs.end()),
    'facts': (ours.facts, theirs.facts),
  }


def pictures(folder, size, count=40):
  """Write PNG files of noise for those who read pictures."""
  random = np.random.RandomState(0)
  for number in range(count):
    path = folder / f'class{number % CLASSES}' / f'{number}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.randint(0, 255, (size, size, 3), np.uint8)).save(path)


def line(row):
  """Return a row of the table."""
  case, (ours, theirs) = row['case'], row['facts']
  cached = (
    f' (from child {ours["from"]})'
    if ours['from']
    else ' (not kept: ' + ours['why'] + ')'
    if 'cached' in case.work
    else ''
  )
  return (
    f'| {case.model} | {case.dtype} | {case.work}{cached} | {case.batch / row["ours"]:.1f} | {case.batch / row["theirs"]:.1f} | '
    f'{row["ratio"]:.2f} ({row["least"]:.2f} to {row["most"]:.2f}) | {row["memory"][0] / 1e9:.1f} / {row["memory"][1] / 1e9:.1f} | '
    f'{ours["compile"]:.0f} / {theirs["compile"]:.0f} |'
  )


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
  heads = (
    'net',
    'dtype',
    'work',
    'ours, images/s',
    'torch, images/s',
    'ratio (least to most)',
    'peak memory, GB',
    'compile, s',
  )
  print(f'| {" | ".join(heads)} |\n' + '|---' * len(heads) + '|')
  with tempfile.TemporaryDirectory() as folder:
    os.environ['MEDTL_CACHE'] = f'{folder}/cache'
    pictures(Path(folder) / 'pictures', flags.size)
    for model in flags.models.split(','):
      for dtype in flags.dtypes.split(','):
        for work in flags.works.split(','):
          case = Case(
            model, dtype, work, flags.batch or MODELS[model][1], flags.size, f'{folder}/pictures'
          )
          row = compared(case, flags.repeats)
          print(line(row), flush=True)
  facts = row['facts']
  print(
    f'\n{time.strftime("%Y-%m-%d")}; {run_folder.hardware()}; {facts[0]["version"]} on {facts[0]["device"]}, {facts[1]["version"]} on '
    f'{facts[1]["device"]}; medians of {flags.repeats}, in turn; peak memory of the whole process on a CPU, of the device elsewhere; '
    'torch: eager on a CPU, torch.compile on a GPU'
  )
