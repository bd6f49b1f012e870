"""What a finished study spent on training against its steps times the median step, timed alone on what each variant trains on."""

import json
import statistics
import time
from pathlib import Path

import jax

from medtl.run import assemble, frozen_features, run_data, run_folder, train


def main(argv):
  """Print for each variant of a study the seconds that training took and those that its steps need."""
  workdir = Path(next(word.partition('=')[2] for word in argv if word.startswith('--workdir=')))
  rows, like = json.loads((workdir / 'study.json').read_text())['rows'], None
  print(
    '| variant | steps | median step alone | steps × median | training | ratio | compiling, evaluating, saving, the rest |'
  )
  print('|' + '---|' * 7)
  total = [0.0, 0.0]
  for row in rows:
    folders = [
      workdir / row['name'],
      *(workdir / f'{row["name"]}-seed{number}' for number in range(1, row['seeds'])),
    ]
    runs = [one for folder in folders for one in sorted(folder.glob('fold*/')) or [folder]]
    steps = sum(
      phase['steps'] for one in runs for phase in run_folder.read(one, 'plan.json')['phases']
    )
    config = run_folder.read_config(runs[0])
    like = context = assemble.run_context(
      config, train.resolve_pretrained_run(config, runs[0], '', may_train=False), like
    )
    median, spans = alone(context), row['spans']
    rest = sum(spans.values()) - spans['train']
    print(
      f'| {row["name"]} | {steps} | {median * 1e3:.1f} ms | {steps * median:.1f} s | {spans["train"]:.1f} s | '
      f'{spans["train"] / (steps * median):.2f} | {rest:.1f} s |'
    )
    total = [total[0] + steps * median, total[1] + spans['train']]
  print(
    f'\ntraining {total[1]:.0f} s, steps × median {total[0]:.0f} s: ratio {total[1] / total[0]:.2f}; {run_folder.hardware()}'
  )


def alone(context, repeats=9):
  """Return the median seconds of a step of the last phase on batches of what it trains on."""
  index = len(context.phases) - 1
  sides, start_child = (
    frozen_features.boundary(context, index, context.params, context.extra),
    frozen_features.start_child(context, index),
  )
  batch = next(run_data.train_batches(sides['train'], context.config))
  program, state, seconds = context.program(index, start_child), context.start(index), []
  for _ in range(repeats + 1):
    begin = time.perf_counter()
    state, _ = jax.block_until_ready(program(state, batch))
    seconds.append(time.perf_counter() - begin)
  return statistics.median(seconds[1:])
