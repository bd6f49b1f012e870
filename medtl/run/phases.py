"""A run's phases: from the newest checkpoint to the last step, with what was best on validation."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from medtl.core.types import Dataset, State
from medtl.evaluation import metrics, predictions
from medtl.run import batch_size, frozen_features, run_data
from medtl.run.context import RunContext
from medtl.runtime import run_log
from medtl.training import loop, parameter_groups
from medtl.training.checkpoints import Checkpoints, Progress

write = run_log.console.print


class _Run(NamedTuple):
  """What the phases of a run have in common."""

  context: RunContext
  progress: Progress
  checkpoints: Checkpoints
  writer: run_log.Writer
  watch: run_log.Watch


def fit(context: RunContext, workdir: Path, checkpoints: Checkpoints, watch: run_log.Watch) -> None:
  """Train through all phases, from the newest checkpoint where there is one."""
  resumed = checkpoints.step('latest') is not None
  progress = checkpoints.progress('latest') if resumed else Progress()
  state = context.start(progress.phase)
  if resumed:
    state = context.device_put(checkpoints.restore('latest', jax.eval_shape(lambda: state)))
    write(
      f'continuing at step {int(state.step)}, in phase {progress.phase + 1} of '
      f'{len(context.phases)}'
    )
    watch.resume(progress.spans)
  elif checkpoints.step('best') is not None:
    write('there is a best checkpoint, but no latest one to go on from: trained from the beginning')
  run = _Run(context, progress, checkpoints, run_log.Writer(workdir, int(state.step)), watch)
  try:
    while not (progress.phase_done and progress.phase == len(context.phases) - 1):
      if progress.phase_done:
        state = enter(context, state, progress)
      state = _phase(run, state)
  finally:
    checkpoints.wait()
    run.writer.close()


def enter(context: RunContext, state: State, progress: Progress) -> State:
  """Return the state at the begin of the next phase.

  A group that is live in both keeps its optimizer state.
  """
  progress.phase += 1
  progress.phase_start = int(state.step)
  progress.phase_done = False
  progress.waiting = 0
  tx = context.phases[progress.phase].partition.tx
  begun = jax.jit(tx.init)(state.params)
  carried = parameter_groups.carry_opt_state(state.opt, begun)
  opt = parameter_groups.anchored(carried, context.params)
  return context.device_put(state._replace(opt=opt))


def _phase(run: _Run, state: State) -> State:
  """Return the state at the end of this phase."""
  context, progress, watch = run.context, run.progress, run.watch
  phase = context.phases[progress.phase]
  until = progress.phase_start + phase.steps
  with watch('activations'):
    sides = frozen_features.boundary(context, progress.phase, state.params, state.extra, write)
  start_child = frozen_features.start_child(context, progress.phase)
  with watch('compile'):
    program = context.program(progress.phase, start_child)
  name = f'phase {progress.phase + 1}/{len(context.phases)} {phase.freeze}'
  with (
    run_log.Bar(name, phase.steps, int(state.step) - progress.phase_start) as bar,
    watch('train'),
  ):
    views = max(1, frozen_features.choose(context, progress.phase).views)
    look = functools.partial(_validate, run, until, sides, start_child, bar.note)

    def note(step: int, values: dict[str, float]) -> None:
      run.writer.write_scalars(step, {f'train/{name}': value for name, value in values.items()})
      bar.at(step - progress.phase_start)

    def keep(step: int, state: State) -> None:
      progress.spans = watch.now()
      run.checkpoints.save('latest', state, progress)
      run.checkpoints.wait()

    batches = run_data.step_batches(context, sides['train'], int(state.step), views)
    with batch_size.explain_out_of_memory(context, progress.phase, start_child):
      return loop.fit(
        program,
        state,
        batches,
        until=until,
        log=note,
        on_signal=keep,
        hooks=[loop.every(context.period, look, until)],
      )


def _validate(
  run: _Run,
  until: int,
  sides: Mapping[str, Dataset],
  start_child: int,
  show: Callable,
  step: int,
  state: State,
) -> bool:
  """Evaluate, keep the best and the latest; return whether the phase ends here."""
  config, progress = run.context.config, run.progress
  params, extra = parameter_groups.averaged_params(state.opt, state.params), state.extra
  with run.watch('evaluate'):
    if config.norm_images:
      train = sides.get(frozen_features.PLAIN, sides['train'])
      shuffled = run_data.norm_pictures(run.context, train)
      count = math.ceil(min(config.norm_images, train.size) / config.batch)
      extra = run.context.with_precise_batch_stats(
        progress.phase,
        start_child,
        params,
        extra,
        itertools.islice(shuffled, count),
      )
    predicted = predictions.predict(
      run.context.measure(start_child),
      params,
      extra,
      run_data.eval_batches(sides['val'], config),
      sides['val'].table,
    )
  values = run.context.task.monitor(predicted) | {'loss': float(np.mean(predicted.values['loss']))}
  run.writer.write_scalars(step, {f'val/{name}': value for name, value in values.items()})
  value = metrics.chosen(values, config.monitor)
  show(f'val/{config.monitor} {value:.3f}')
  with run.watch('save'):
    progress.spans = run.watch.now()
    if progress.best is None or metrics.better(config.monitor, value, progress.best):
      progress.best = value
      progress.best_step = step
      progress.best_phase = progress.phase
      progress.waiting = 0
      run.checkpoints.save('best', state._replace(params=params, extra=extra, opt=()), progress)
    else:
      progress.waiting += 1
    progress.phase_done = step == until or 0 < config.patience <= progress.waiting
    run.checkpoints.save('latest', state, progress)
  return progress.phase_done
