"""The recipe: config → run folder. The one corridor between the rooms."""

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from medtl import build, evaluate, features, folder, log, loop, metrics, partition
from medtl.build import Parts
from medtl.checkpoint import Checkpoints, Progress
from medtl.data import stream
from medtl.fetch import cache_folder
from medtl.types import Batch, Dataset, Predictions, State


def train(config: ConfigDict, workdir: Path, command: str = '') -> dict[str, Any]:
  """Return the numbers of a run, trained from where its folder stands; a finished run is only read."""
  folder.claim(workdir, config)
  if (workdir / 'numbers.json').exists():
    log.console.print(f'{workdir} is finished; its numbers:')
    return folder.read(workdir, 'numbers.json')
  begin = time.time()
  for name, _ in config.compare:
    train(folder.companion(config, name), workdir / 'compare' / name, command)
  parts = build.parts(config)
  build.describe(parts, log.console.print)
  folder.plan(workdir, parts)
  checkpoints = Checkpoints(workdir / 'checkpoints')
  try:
    fit(parts, workdir, checkpoints)
    params, extra = checkpoints.params('best')
    progress = checkpoints.progress('latest')
  finally:
    checkpoints.close()
  for side in ('val', 'test'):
    if side in parts.data:
      save(workdir, side, parts, params, extra, parts.data[side])
  folder.provenance(workdir, parts, command=command, seconds=time.time() - begin, progress=progress)
  return folder.report(workdir, parts.data)


def save(workdir: Path, name: str, parts: Parts, params: Any, extra: Any, dataset: Dataset) -> Predictions:
  """Predict a whole data set and keep it in `predictions/<name>.npz`."""
  batches = stream.once(dataset, parts.config.batch, workers=parts.config.workers)
  found = evaluate.predict(jax.jit(parts.task(0).measure), params, extra, batches)
  evaluate.save(workdir / 'predictions' / f'{name}.npz', found, dataset.table, dataset.classes)
  return found


def fit(parts: Parts, workdir: Path, checkpoints: Checkpoints) -> None:
  """Train through all phases, from the newest checkpoint where there is one."""
  progress = checkpoints.progress('latest') if checkpoints.step('latest') is not None else Progress()
  state = parts.start(progress.phase)
  if checkpoints.step('latest') is not None:
    state = checkpoints.restore('latest', jax.eval_shape(lambda: state))
    log.console.print(f'continuing at step {int(state.step)}, phase {progress.phase + 1} of {len(parts.phases)}')
  writer = log.Writer(workdir, int(state.step))
  try:
    while not progress.done:
      if progress.phase_done:
        state, progress = enter(parts, state, progress)
      state = run_phase(parts, state, progress, checkpoints, writer)
  finally:
    checkpoints.wait()
    writer.close()


def enter(parts: Parts, state: State, progress: Progress) -> tuple[State, Progress]:
  """Return the state at the begin of the next phase: what is live in both keeps its optimizer state."""
  phase = progress.phase + 1
  opt = partition.carry(state.opt, jax.jit(parts.phases[phase].parts.tx.init)(state.params))
  progress.phase, progress.phase_start, progress.phase_done, progress.waiting = phase, int(state.step), False, 0
  return state._replace(opt=opt), progress


def run_phase(parts: Parts, state: State, progress: Progress, checkpoints: Checkpoints, writer: log.Writer) -> State:
  """Return the state at the phase's end, reached by its duration or by early stopping."""
  phase, config = parts.phases[progress.phase], parts.config
  train_set, val_set, first = boundary(parts, progress.phase, state)
  until = progress.phase_start + phase.steps
  last = progress.phase == len(parts.phases) - 1
  with log.progress() as bar:
    line = bar.add_task(f'phase {progress.phase + 1}/{len(parts.phases)} {phase.freeze}', total=phase.steps, note='',
                        completed=int(state.step) - progress.phase_start)
    look = functools.partial(validate, parts, progress, checkpoints, writer, first, val_set,
                             functools.partial(bar.update, line), until)

    def note(step: int, values: dict[str, float]) -> None:
      writer.write_scalars(step, {f'train/{name}': value for name, value in values.items()})
      bar.update(line, completed=step - progress.phase_start)

    def keep(step: int, state: State) -> None:
      checkpoints.save('latest', state, progress)
      checkpoints.wait()

    state = loop.fit(
      parts.step(progress.phase, first), state,
      batches(train_set, config, int(state.step)), until=until, log=note, on_signal=keep,
      hooks=[loop.every(build.period(parts), look, until)])
  progress.phase_done, progress.done = True, last
  checkpoints.save('latest', state, progress)
  return state


def validate(parts: Parts, progress: Progress, checkpoints: Checkpoints, writer: log.Writer, first: int, dataset: Dataset,
             show: Callable, until: int, step: int, state: State) -> bool:
  """Evaluate, keep the best and the latest; return whether patience has run out."""
  config = parts.config
  params = partition.averaged(state.opt, state.params)
  measure = _measure(parts, first)
  found = evaluate.predict(measure, params, state.extra, stream.once(dataset, config.batch, workers=config.workers))
  values = metrics.monitor(found.score, found.y, config.task.kind)
  values = {**values, 'loss': float(np.mean(found.measures['loss']))}
  writer.write_scalars(step, {f'val/{name}': value for name, value in values.items()})
  value, better = values[config.monitor], metrics.better(config.monitor)
  show(note=f'val/{config.monitor} {value:.3f}')
  if progress.best is None or better(value, progress.best):
    progress.best, progress.best_step, progress.best_phase, progress.waiting = value, step, progress.phase, 0
    checkpoints.save('best', state._replace(params=params, opt=()), progress)
  else:
    progress.waiting += 1
  stop = bool(config.patience) and progress.waiting >= config.patience
  if step < until and not stop:
    checkpoints.save('latest', state, progress)
  return stop


@functools.lru_cache(maxsize=4)
def _measure(parts: Parts, first: int) -> Callable:
  return jax.jit(parts.task(0, first).measure)
