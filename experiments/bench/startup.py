"""Process start to the first step of a ViT-Ti, with and without compiled programs; imports."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.bench import cases
from experiments.bench.against import pictures
from medtl.run import run_folder

IMPORTS = (
  'jax',
  'flax',
  'optax',
  'orbax.checkpoint',
  'grain',
  'sklearn',
  'scipy',
  'matplotlib',
  'tensorboardX',
  'rich',
  'PIL',
)
VERBS = {
  '--help': ['--help'],
  'cache': ['cache'],
  'report': ['report', '--workdir={run}'],
  'describe': ['describe', '--config=configs/oct_vit.py:offline', '--config.model.weights='],
}


def first_step(folder, name):
  """Return (seconds to the end of a run's first step, to the page, what they were spent on).

  Seconds count from the start of the process.
  """
  run = Path(folder) / name
  words = [
    '--config=configs/oct_vit.py:kermany',
    '--config.data.name=folder.load',
    f'--config.data.root={folder}/pictures',
    '--config.data.channels=3',
    '--config.data.split.by=image',
    '--config.model.name=vit.vit_ti16',
    '--config.mean=(0.5,)',
    '--config.std=(0.5,)',
    "--config.phases=(('none', '2 steps'),)",
    '--config.batch=16',
    f'--workdir={run}',
  ]
  command = [sys.executable, '-m', 'medtl.main', *words]
  begin = time.time()
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
  end = time.time()
  record, *_ = (run / 'metrics.jsonl').read_text().splitlines()
  first = json.loads(record)['time']
  return first - begin, end - begin, run_folder.read(run, 'provenance.json')['spans']


def imported(words):
  """Return (seconds until the end, {package: seconds that its import took within}) of a command."""
  command = [sys.executable, '-X', 'importtime', '-m', 'medtl.main', *words]
  begin = time.time()
  process = subprocess.run(command, capture_output=True, text=True)
  end = time.time()
  if process.returncode:
    raise SystemExit(process.stderr[-2000:])
  times = re.findall(r'import time:\s+\d+ \|\s+(\d+) \|\s+(\S+)', process.stderr)
  return end - begin, {name: int(micro) / 1e6 for micro, name in times if name in IMPORTS}


def main(argv):
  """Print both tables."""
  if argv:
    raise SystemExit(f'--startup takes nothing more, found {" ".join(argv)}')
  with tempfile.TemporaryDirectory() as folder:
    os.environ['MEDTL_CACHE'] = f'{folder}/cache'
    pictures(Path(folder) / 'pictures', 224)
    title = 'ViT-Ti/16, 224 px, batch 16, from scratch'
    header = (title, 'process start to first step, s', 'to the page, s', 'spent on')
    print(cases.table_head(header))
    for name in ('nothing kept', 'compiled programs kept'):
      first, page, spans = first_step(folder, name.replace(' ', '_'))
      print(cases.table_line((name, f'{first:.1f}', f'{page:.1f}', spent(spans, 1))))
    print('\n' + cases.table_head(('verb', 'seconds', f'imports of {", ".join(IMPORTS)}')))
    for name, words in VERBS.items():
      seconds, packages = imported([word.format(run=f'{folder}/nothing_kept') for word in words])
      print(cases.table_line((name, f'{seconds:.1f}', spent(packages, 2))))
  print(
    f'\n{run_folder.hardware()}; compiled programs lie in MEDTL_CACHE/compiled, ~/.cache/medtl '
    'unless told'
  )


def spent(seconds_of, digits):
  """Return {name: seconds} as text."""
  return ', '.join(f'{name} {seconds:.{digits}f}' for name, seconds in seconds_of.items())
