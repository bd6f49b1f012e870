"""The recipe: config → run folder. With build.py the one corridor between the rooms."""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from medtl import build, check, data, describe, disk, evaluate, log, loop, metrics, partition, prefix, runfolder
from medtl.build import Parts
from medtl.checkpoint import Checkpoints, Progress
from medtl.data import stream
from medtl.report import numbers
from medtl.types import Dataset, MedtlError, Missing, State, Task, Tree

write = log.console.print


def train(config: ConfigDict, workdir: Path, command: str = '') -> dict[str, Any]:
  """Return the numbers of a run, continued from where its folder stands; a finished one is only read."""
  runfolder.claim(workdir, config)
  if (workdir / 'numbers.json').exists():
    write(f'{workdir} is finished already; nothing was trained')
    return runfolder.read(workdir, 'numbers.json')
  origin = source(config, workdir, command)
  for name, changes in config.compare:
    write(f'[bold]{name}[/bold]: the run that this one is compared with')
    train(build.changed(config, changes), runfolder.companion(workdir, name), command)
  begin = time.time()
  try:
    parts = build.parts(config, origin)
  except Missing as error:
    raise Missing(f'{error}\n  instead   {config.hint}' if config.hint else str(error)) from None
  write(f'[bold]{workdir}[/bold]: {build.sentence(parts)}')
  phases = describe.rows(parts)
  describe.show(phases, write)
  runfolder.write_json(workdir / 'plan.json', build.plan(parts, phases))
  checkpoints = Checkpoints(workdir / 'checkpoints')
  resumed = checkpoints.step('latest') is not None
  describe.predict(parts, phases, write, checkpoints.progress('latest').phase if resumed else 0)
  try:
    checkpoints.begin(parts.params, parts.extra)
    fit(parts, workdir, checkpoints)
    params, extra = checkpoints.params('best')
    progress = checkpoints.progress('latest')
  finally:
    checkpoints.close()
  phase = progress.best_phase
  sides = prefix.boundary(parts, phase, params, extra)
  predictions(parts.task(phase, prefix.first(parts, phase)), params, extra, parts.data, config, workdir, sides)
  runfolder.provenance(workdir, command, time.time() - begin, {'best_step': progress.best_step, 'best': progress.best})
  return runfolder.report(workdir)


def source(config: ConfigDict, workdir: Path, command: str) -> Path | None:
  """Return the run folder that the weights come from ('run:<folder>' or 'run:<config>', trained first where it is not finished)."""
  kind, _, name = config.model.weights.partition(':')
  if kind != 'run':
    return None
  if Path(name).is_dir():
    runfolder.read(Path(name), 'numbers.json')
    return Path(name)
  other = runfolder.load_config(name)
  folder = workdir.parent / runfolder.name(name, other)
  if not (folder / 'numbers.json').exists():
    write(f'[bold]{name}[/bold]: the run that the weights come from')
    train(other, folder, command)
  return folder


def predictions(task: Task, params: Tree, extra: Tree, sides: Mapping[str, Dataset], config: ConfigDict, workdir: Path,
                inputs: Mapping[str, Dataset] | None = None) -> None:
  """Predict every side but train, from `inputs` where these are not the pictures, and keep it in predictions/<side>.npz."""
  measure = jax.jit(task.measure)
  for name, dataset in sides.items():
    if name != 'train':
      found = evaluate.predict(measure, params, extra, build.once((inputs or sides)[name], config))
      shown = [mistake['index'] for mistake in numbers.worst(found, config.task.kind)]
      evaluate.save(workdir / 'predictions' / f'{name}.npz', found, dataset, shown)


def trained(config: ConfigDict, workdir: Path) -> tuple[Task, Tree, Tree, dict[str, Any]]:
  """Return (task, params, extra, plan) of a finished run, from its folder alone."""
  plan = runfolder.read(workdir, 'plan.json')
  runfolder.read(workdir, 'numbers.json')
  checkpoints = Checkpoints(workdir / 'checkpoints')
  params, extra = checkpoints.params('best')
  checkpoints.close()
  return build.finished(config, plan)[1], params, extra, plan


def evaluate_again(config: ConfigDict, workdir: Path, name: str) -> dict[str, Any]:
  """Predict the run's own data again, or with changed `config.data.…` all of another set, as `name`: external validation."""
  own = runfolder.config(workdir)
  task, params, extra, plan = trained(config, workdir)
  if own.data.to_dict() == config.data.to_dict():
    if name != 'test':
      raise MedtlError(f"--name={name} is for other data, and data are the run's own; give --config.data.root=OTHER, or leave it out")
    predictions(task, params, extra, data.load(**config.data.to_dict()), config, workdir)
    return runfolder.report(workdir)
  if name in ('val', 'test', 'train'):
    raise MedtlError(f"other data needs a name of its own (--name=hospital_b): predictions/{name}.npz are the run's own")
  other = data.load(**{**config.data.to_dict(), 'split': {'by': 'none'}})['test']
  if other.classes != tuple(plan['classes']):
    raise MedtlError(f'the run knows the classes {", ".join(plan["classes"])}; the other data has {", ".join(other.classes)}. '
                     'Set data.classes, or rename the folders')
  check.shape(other.fetch(0).x.shape, plan['shape'])
  predictions(task, params, extra, {name: other}, config, workdir)
  return runfolder.report(workdir, name, dict(other.facts))


def predict(config: ConfigDict, workdir: Path, images: Path, output: Path) -> Path:
  """Write a csv with the class probabilities of every picture below `images`; return its path."""
  task, params, extra, plan = trained(config, workdir)
  kept = {key: config.data[key] for key in ('exif', 'skip_unreadable') if key in config.data}
  pictures = data.load('folder.load', root=str(images), label='', channels=plan['shape'][-1], ops=config.data.ops,
                       split={'by': 'none'}, **kept)['test']
  check.shape(pictures.fetch(0).x.shape, plan['shape'])
  found = evaluate.predict(jax.jit(task.measure), params, extra, build.once(pictures, config))
  head = ','.join(['file', 'predicted', *plan['classes']])
  lines = [','.join([f'"{file}"', plan['classes'][int(row.argmax())], *(f'{p:.6f}' for p in row)])
           for file, row in zip(pictures.table['file'], found.score, strict=True)]
  disk.write(output, '\n'.join([head, *lines]) + '\n')
  skipped = pictures.facts['unreadable']
  write(f'{pictures.size} pictures: {output}' + (f'; {len(skipped)} could not be read: {", ".join(skipped)}' if skipped else ''))
  return output


def explain(config: ConfigDict, workdir: Path) -> None:
  """Print what would move, what it costs and how long it takes; train nothing."""
  parts = build.parts(config, source(config, workdir, ''))
  write(build.sentence(parts))
  found = describe.rows(parts)
  describe.show(found, write)
  describe.predict(parts, found, write)


def fit(parts: Parts, workdir: Path, checkpoints: Checkpoints) -> None:
  """Train through all phases, from the newest checkpoint where there is one."""
  resumed = checkpoints.step('latest') is not None
  progress = checkpoints.progress('latest') if resumed else Progress()
  state = parts.start(progress.phase)
  if resumed:
    state = checkpoints.restore('latest', jax.eval_shape(lambda: state))
    write(f'continuing at step {int(state.step)}, in phase {progress.phase + 1} of {len(parts.phases)}')
  writer = log.Writer(workdir, int(state.step))
  try:
    while not (progress.phase_done and progress.phase == len(parts.phases) - 1):
      if progress.phase_done:
        state = enter(parts, state, progress)
      state = _phase(parts, state, progress, checkpoints, writer)
  finally:
    checkpoints.wait()
    writer.close()


def enter(parts: Parts, state: State, progress: Progress) -> State:
  """Return the state at the begin of the next phase: a group that is live in both keeps its optimizer state."""
  progress.phase, progress.phase_start = progress.phase + 1, int(state.step)
  progress.phase_done, progress.waiting = False, 0
  tx = parts.phases[progress.phase].parts.tx
  return state._replace(opt=partition.carry(state.opt, jax.jit(tx.init)(state.params)))


def _phase(parts: Parts, state: State, progress: Progress, checkpoints: Checkpoints, writer: log.Writer) -> State:
  phase, config = parts.phases[progress.phase], parts.config
  until = progress.phase_start + phase.steps
  sides = prefix.boundary(parts, progress.phase, state.params, state.extra, write)
  first = prefix.first(parts, progress.phase)
  name = f'phase {progress.phase + 1}/{len(parts.phases)} {phase.freeze}'
  with log.Bar(name, phase.steps, int(state.step) - progress.phase_start) as bar:
    look = functools.partial(_validate, parts, progress, checkpoints, writer, until, sides['val'],
                             jax.jit(parts.task(progress.phase, first).measure), bar.note)

    def note(step: int, values: dict[str, float]) -> None:
      writer.write_scalars(step, {f'train/{name}': value for name, value in values.items()})
      bar.at(step - progress.phase_start)

    def keep(step: int, state: State) -> None:
      checkpoints.save('latest', state, progress)
      checkpoints.wait()

    batches = stream.batches(sides['train'], config.batch, seed=config.seed, start=int(state.step), workers=config.workers,
                             sampling=config.sampling)
    return loop.fit(parts.program(progress.phase, first), state, map(build.on_device, batches), until=until, log=note, on_signal=keep,
                    hooks=[loop.every(build.period(parts), look, until)])


def _validate(parts: Parts, progress: Progress, checkpoints: Checkpoints, writer: log.Writer, until: int, dataset: Dataset,
              measure: Callable, show: Callable, step: int, state: State) -> bool:
  """Evaluate, keep the best and the latest; return whether the phase ends here."""
  params = partition.averaged(state.opt, state.params)
  found = evaluate.predict(measure, params, state.extra, build.once(dataset, parts.config))
  values = {**metrics.monitor(found.score, found.y, parts.config.task.kind), 'loss': float(np.mean(found.measures['loss']))}
  writer.write_scalars(step, {f'val/{name}': value for name, value in values.items()})
  value = metrics.chosen(values, parts.config.monitor)
  show(f'val/{parts.config.monitor} {value:.3f}')
  if progress.best is None or metrics.better(parts.config.monitor, value, progress.best):
    progress.best, progress.best_step, progress.best_phase, progress.waiting = value, step, progress.phase, 0
    checkpoints.save('best', state._replace(params=params, opt=()), progress)
  else:
    progress.waiting += 1
  progress.phase_done = step == until or 0 < parts.config.patience <= progress.waiting
  checkpoints.save('latest', state, progress)
  return progress.phase_done
