"""What a finished study spent on training against its steps times the median step.

The step is timed alone, on what each variant trains on.
"""

import json
import statistics
import time
from pathlib import Path

import jax

from experiments.bench import cases
from medtl.run import assemble, frozen_features, run_data, run_folder, train

HEADER = (
  'variant',
  'steps',
  'median step alone',
  'steps × median',
  'training',
  'ratio',
  'compiling, evaluating, saving, the rest',
)


def main(argv):
  """Print for each variant of a study the seconds of its training and those that its steps need."""
  workdir = Path(next(word.partition('=')[2] for word in argv if word.startswith('--workdir=')))
  rows = json.loads((workdir / 'study.json').read_text())['rows']
  context = None
  print(cases.table_head(HEADER))
  total_needed = 0.0
  total_training = 0.0
  for row in rows:
    runs = runs_of(workdir, row)
    steps = 0
    for run in runs:
      steps += sum(phase['steps'] for phase in run_folder.read(run, 'plan.json')['phases'])
    config = run_folder.read_config(runs[0])
    pretrained_run = train.resolve_pretrained_run(config, runs[0], '', may_train=False)
    context = assemble.run_context(config, pretrained_run, context)
    median = alone(context)
    needed = steps * median
    training = row['spans']['train']
    rest = sum(row['spans'].values()) - training
    cells = [row['name'], steps, f'{median * 1e3:.1f} ms', f'{needed:.1f} s']
    cells += [f'{training:.1f} s', f'{training / needed:.2f}', f'{rest:.1f} s']
    print(cases.table_line(cells))
    total_needed += needed
    total_training += training
  print(
    f'\ntraining {total_training:.0f} s, steps × median {total_needed:.0f} s: ratio '
    f'{total_training / total_needed:.2f}; {run_folder.hardware()}'
  )


def runs_of(workdir, row):
  """Return the run folders of a variant: one for each seed, or each seed and fold."""
  folders = [workdir / row['name']]
  folders += [workdir / f'{row["name"]}-seed{number}' for number in range(1, row['seeds'])]
  runs = []
  for folder in folders:
    runs += sorted(folder.glob('fold*/')) or [folder]
  return runs


def alone(context, repeats=9):
  """Return the median seconds of a step of the last phase on batches of what it trains on."""
  index = len(context.phases) - 1
  sides = frozen_features.boundary(context, index, context.params, context.extra)
  start_child = frozen_features.start_child(context, index)
  batch = next(run_data.train_batches(sides['train'], context.config))
  program = context.program(index, start_child)
  state = context.start(index)
  seconds = []
  for _ in range(repeats + 1):
    begin = time.perf_counter()
    state, _ = jax.block_until_ready(program(state, batch))
    seconds.append(time.perf_counter() - begin)
  return statistics.median(seconds[1:])
