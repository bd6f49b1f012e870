"""Does a rebuilt medtl compute what it did? Two trees of it, the same configs, on one machine.

    python -m experiments.bench.same_numbers OTHER_TREE [--real=FOLDER --weights=FILE] \
      [--out=DIR] [--only=NAME]

OTHER_TREE is a checkout of another state (git worktree add). Of each run the parameters of the best
checkpoint, the predictions and numbers.json are compared. --real adds one fold on real scans: a
folder for configs/oct_vit.py:kermany and a checkpoint for it. Runs of the other tree that --out
holds already are not repeated.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from medtl.core import pytrees
from medtl.training.checkpoints import Checkpoints

HERE = Path(__file__).parents[2]
RUNS = {
  'quickstart': 'configs/quickstart.py',
  'oct_vit_offline': 'configs/oct_vit.py:offline',
  'oct_resnet_offline': 'configs/oct_resnet.py:offline',
  'tiny_long': 'tests/tiny.py:long',
}
REAL = 'configs/oct_vit.py:kermany'
DECIMALS = 3  # of numbers.json


def trained(tree: Path, config: str, out: Path, words: list[str]) -> Path:
  """Return the run folder of a config that a tree has trained."""
  if (out / 'numbers.json').exists() and tree != HERE:
    return out
  env = {**os.environ, 'MEDTL_CACHE': str(out.parent / 'cache')}
  command = [sys.executable, '-m', 'medtl.main', f'--config={config}', f'--workdir={out}', *words]
  with (out.parent / f'{out.name}.log').open('w') as log:
    subprocess.run(command, cwd=tree, env=env, check=True, stdout=log, stderr=subprocess.STDOUT)
  return out


def arrays(run: Path) -> dict[str, np.ndarray]:
  """Return {name: array}: parameters and statistics of the best checkpoint, and predictions."""
  checkpoints = Checkpoints(run / 'checkpoints')
  params, extra = checkpoints.params('best')
  checkpoints.close()
  leaves = pytrees.flatten([params, extra])
  array_of = {name: np.asarray(leaf) for name, leaf in leaves.items()}
  for side in ('val', 'test'):
    with np.load(run / 'predictions' / f'{side}.npz') as file:
      for name in ('row', 'y', 'score'):
        array_of[f'{side}/{name}'] = file[name]
  return array_of


def difference(one: np.ndarray, other: np.ndarray) -> float:
  """Return the largest difference of two arrays, relative to the largest number in the first."""
  first = one.astype(float)
  largest = np.abs(first).max(initial=1e-30)
  apart = np.abs(first - other.astype(float)).max(initial=0.0)
  return float(apart / largest)


def rounded(value: Any) -> Any:
  """Return a JSON value with its floats at DECIMALS decimals."""
  if isinstance(value, dict):
    return {key: rounded(inner) for key, inner in value.items()}
  if isinstance(value, list):
    return [rounded(inner) for inner in value]
  return round(value, DECIMALS) if isinstance(value, float) else value


def main() -> int:
  """Print a row for each run; return 1 where numbers.json differs."""
  parser = argparse.ArgumentParser(description='Two trees, the same configs: what differs.')
  parser.add_argument('other', type=Path)
  parser.add_argument('--real', default='')
  parser.add_argument('--weights', default='')
  parser.add_argument('--out', type=Path, default=Path('runs/same_numbers'))
  parser.add_argument('--only', default='')
  flags = parser.parse_args()
  runs = {name: (config, list[str]()) for name, config in RUNS.items()}
  if flags.real:
    words = [f'--config.data.root={flags.real}', f'--config.model.weights={flags.weights}']
    runs['kermany_fold'] = (REAL, words)
  status = 0
  print('| run | arrays | equal to the bit | largest relative difference | numbers.json |')
  print('|---|---|---|---|---|')
  for name, (config, words) in runs.items():
    if flags.only and name != flags.only:
      continue
    pair = {}
    for side, tree in (('before', flags.other.resolve()), ('after', HERE)):
      out = flags.out.resolve() / side / name
      out.parent.mkdir(parents=True, exist_ok=True)
      pair[side] = trained(tree, config, out, words)
    before, after = arrays(pair['before']), arrays(pair['after'])
    if before.keys() != after.keys():
      print(f'| {name} | other arrays: {sorted(before.keys() ^ after.keys())[:4]} | | | |')
      status = 1
      continue
    equal = sum(before[key].tobytes() == after[key].tobytes() for key in before)
    largest = max(difference(before[key], after[key]) for key in before)
    read = [json.loads((folder / 'numbers.json').read_text()) for folder in pair.values()]
    added = sorted(read[1].keys() - read[0].keys())
    same = rounded(read[0]) == rounded({name: read[1].get(name) for name in read[0]})
    status = status or int(not same)
    words_of = 'equal' if same else 'DIFFERS'
    if added:
      words_of += f', new: {", ".join(added)}'
    print(f'| {name} | {len(before)} | {equal} | {largest:.2g} | {words_of} |', flush=True)
  return status


if __name__ == '__main__':
  sys.exit(main())
