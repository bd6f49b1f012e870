"""The learning-rate range test: from step to step the rate rises, until the loss does.

Smith 2017, arXiv 1506.01186, section 3.3.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from medtl.core.types import MedtlError
from medtl.report import range_test
from medtl.run import assemble, frozen_features, run_data, run_folder, train
from medtl.runtime import files, run_log

LOW, HIGH, STEPS = 1e-6, 1.0, 120
LEAST = 10  # steps before the test may be over
MEMORY = 0.9  # of the running mean of the loss
WORSE = 3.0  # times the best running mean: the test is over


class Found(NamedTuple):
  """What a range test says."""

  steepest: float  # the rate at which the running mean falls fastest, as log10(rate) goes on
  tenth: float  # a tenth of the rate at which it is least
  rates: list[float]
  losses: list[float]
  means: list[float]


def find(config: ConfigDict, workdir: Path, command: str = '') -> Found:
  """Return the learning rates that a range test suggests for `config.lr`.

  The last phase of the config is tested, on training patients alone; every other key is the
  config's own: freezing, factors by layer, batch, augmentation. Writes lr_find.html and
  lr_find.json.
  """
  with run_folder.occupied(workdir, config):
    return _find(config, workdir, command)


def _find(config: ConfigDict, workdir: Path, command: str) -> Found:
  freeze, _ = config.phases[-1]
  changes = [('phases', ((freeze, f'{STEPS} steps'),)), ('lr', HIGH)]
  changes.append(('schedule', f'rising({LOW / HIGH!r})'))
  config = assemble.with_changes(config, changes)
  context = train.prepare(config, train.resolve_pretrained_run(config, workdir, command))
  print_line = run_log.console.print
  subject = assemble.one_line(context)
  print_line(subject)
  sides = frozen_features.boundary(context, 0, context.params, context.extra, print_line)
  program = context.program(0, frozen_features.start_child(context, 0))
  state = context.start()
  views = max(1, frozen_features.choose(context, 0).views)
  batches = run_data.step_batches(context, sides['train'], views=views)

  def loss() -> float:
    nonlocal state
    state, logs = program(state, next(batches))
    return float(logs['loss'])

  result = rise(loss)
  run_folder.write_json(workdir / 'lr_find.json', result._asdict())
  page = workdir / 'lr_find.html'
  files.write(page, range_test.page_of(result._asdict(), subject, freeze, command))
  print_line(
    f'the running mean of the loss falls fastest at lr {result.steepest:.1e}; a tenth of the rate '
    f'of its minimum is {result.tenth:.1e}; the plot: {page}'
  )
  return result


def rise(loss: Callable[[], float]) -> Found:
  """Return the range test of a function that takes a step at each call and returns its loss.

  The rates are LOW … HIGH, evenly in log10. A loss that is not finite in the first LEAST steps is
  a MedtlError.
  """
  rates: list[float] = []
  losses: list[float] = []
  means: list[float] = []
  mean = 0.0
  for number, rate in enumerate(np.geomspace(LOW, HIGH, STEPS), 1):
    value = loss()
    if not math.isfinite(value):
      break
    mean = MEMORY * mean + (1 - MEMORY) * value
    rates.append(float(rate))
    losses.append(value)
    means.append(mean / (1 - MEMORY**number))
    if number > LEAST and means[-1] > WORSE * min(means):
      break
  if len(rates) < LEAST:
    raise MedtlError(
      f'the loss is not finite after {len(rates)} steps at lr {LOW:g}; look for extreme values in '
      'the images or the weights'
    )
  lowest = rates[int(np.argmin(means))]
  return Found(steepest(rates, means), lowest / 10, rates, losses, means)


def steepest(rates: Sequence[float], means: Sequence[float]) -> float:
  """Return the rate at which the running mean falls fastest along log10(rate).

  Rates after the minimum of the mean do not count.
  """
  end = max(2, int(np.argmin(means)) + 1)
  slope = np.gradient(np.asarray(means[:end]), np.log10(rates[:end]))
  fastest = int(np.argmin(slope))
  return float(rates[fastest])
