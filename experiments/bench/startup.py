"""Process start to the first step of a ViT-Ti, with nothing kept and with compiled programs kept; and what imports cost."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
  """Return (seconds from process start to the end of the first step, seconds until the page, what they were spent on) of a run."""
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
  begin = time.time()
  subprocess.run(
    [sys.executable, '-m', 'medtl.main', *words], check=True, stdout=subprocess.DEVNULL
  )
  end = time.time()
  first = json.loads((run / 'metrics.jsonl').read_text().splitlines()[0])['time']
  return first - begin, end - begin, run_folder.read(run, 'provenance.json')['spans']


def imported(words):
  """Return (seconds until the end, {package: seconds that its import took within}) of a command."""
  begin = time.time()
  said = subprocess.run(
    [sys.executable, '-X', 'importtime', '-m', 'medtl.main', *words], capture_output=True, text=True
  )
  end = time.time()
  if said.returncode:
    raise SystemExit(said.stderr[-2000:])
  found = re.findall(r'import time:\s+\d+ \|\s+(\d+) \|\s+(\S+)', said.stderr)
  return end - begin, {name: int(micro) / 1e6 for micro, name in found if name in IMPORTS}


def main(argv):
  """Print both tables."""
  if argv:
    raise SystemExit(f'--startup takes nothing more, found {" ".join(argv)}')
  with tempfile.TemporaryDirectory() as folder:
    os.environ['MEDTL_CACHE'] = f'{folder}/cache'
    pictures(Path(folder) / 'pictures', 224)
    print(
      '| ViT-Ti/16, 224 px, batch 16, from scratch | process start to first step, s | to the page, s | spent on |\n|---|---|---|---|'
    )
    for name in ('nothing kept', 'compiled programs kept'):
      first, page, spans = first_step(folder, name.replace(' ', '_'))
      print(
        f'| {name} | {first:.1f} | {page:.1f} | '
        + ', '.join(f'{what} {seconds:.1f}' for what, seconds in spans.items())
        + ' |'
      )
    print('\n| verb | seconds | imports of ' + ', '.join(IMPORTS) + ' |\n|---|---|---|')
    for name, words in VERBS.items():
      seconds, packages = imported([word.format(run=f'{folder}/nothing_kept') for word in words])
      print(
        f'| {name} | {seconds:.1f} | '
        + ', '.join(f'{package} {took:.2f}' for package, took in packages.items())
        + ' |'
      )
  print(
    f'\n{run_folder.hardware()}; compiled programs lie in MEDTL_CACHE/compiled, ~/.cache/medtl unless told'
  )
