"""The recipe: config → run folder."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from medtl.core.types import Dataset, MedtlError, Missing, Task, Tree
from medtl.evaluation import predictions
from medtl.run import (
  assemble,
  colours,
  cost,
  frozen_features,
  leakage,
  other_data,
  phases,
  run_data,
  run_folder,
  run_report,
  validate,
)
from medtl.run.context import RunContext
from medtl.runtime import files, multihost, run_log
from medtl.training.checkpoints import Checkpoints

write = run_log.console.print


def train(
  config: ConfigDict, workdir: Path, command: str = '', like: RunContext | None = None
) -> dict[str, Any]:
  """Return the numbers of a run, continued from where its folder stands.

  A finished one is only read. `like` holds the context of another run, whose data, weights and
  programs are taken where they are the same; its cost is known then, and not told again.
  """
  validate.check_config(config)
  with run_folder.open_unfinished(workdir, config) as to_do:
    if to_do:
      return _train(config, workdir, command, like)
  write(f'{workdir} is finished already; nothing was trained')
  return run_folder.read(workdir, 'numbers.json')


def _train(
  config: ConfigDict, workdir: Path, command: str, like: RunContext | None
) -> dict[str, Any]:
  """Return the numbers of a run that is not finished, see `train`."""
  origin = resolve_pretrained_run(config, workdir, command)
  for name, changes in config.compare:
    run_log.heading(name, ': the run that this one is compared with')
    train(
      assemble.with_changes(config, changes), run_folder.companion_folder(workdir, name), command
    )
  watch = run_log.Watch()
  with watch('prepare'):
    context = prepare(config, origin, like)
    run_log.heading(str(workdir), f': {assemble.one_line(context)}')
    plan = assemble.plan_json(context, cost.phase_rows(context))
    plan['data']['notes'] = [*plan['data']['notes'], *_remarks(context)]
    plan |= _colour(context)
    seen = _seen(context)
    tests = _load_tests(config, plan, seen)
    # from here on the folder is this config's: what is wrong with the tests has been said
    run_folder.write_json(workdir / 'plan.json', plan)
    _remember(context, workdir, seen)
  checkpoints = Checkpoints(workdir / 'checkpoints')
  if like is None:
    with watch('predict'):
      cost.print_plan(
        context,
        write,
        checkpoints.progress('latest').phase if checkpoints.step('latest') is not None else 0,
      )
  try:
    with watch('save'):
      if checkpoints.begin(context.params, context.extra, context.origins):
        context.origins.append(checkpoints.folder)
    phases.fit(context, workdir, checkpoints, watch)
    params, extra = checkpoints.params('best')
    progress = checkpoints.progress('latest')
  finally:
    checkpoints.close()
  with watch('evaluate'):
    sides = frozen_features.boundary(context, progress.best_phase, params, extra)
    start_child = frozen_features.start_child(context, progress.best_phase)
    params, extra = context.device_put((params, extra))
    write_predictions(
      context.task,
      (context.measure(start_child), context.dense(start_child)),
      params,
      extra,
      context.data,
      config,
      workdir,
      sides,
    )
    from_pictures = (context.measure(), context.dense())
    for name, (dataset, overlap) in tests.items():
      named = (name, dataset)
      write_other_predictions(
        context.task, from_pictures, params, extra, named, config, workdir, overlap
      )
  run_folder.write_provenance(
    workdir, command, watch.spans, {'best_step': progress.best_step, 'best': progress.best}
  )
  for name in tests:
    run_report.write_report(workdir, name)
  return run_report.write_report(workdir)


def prepare(config: ConfigDict, origin: Path | None, like: RunContext | None = None) -> RunContext:
  """Return the context of a run.

  Where a publisher's file cannot be had, the error says what the config offers instead.
  """
  try:
    context = assemble.run_context(config, origin, like)
  except Missing as error:
    raise Missing(f'{error}\n  instead   {config.hint}' if config.hint else str(error)) from None
  if like is None:
    for note in (*context.data['train'].facts['notes'], *_remarks(context)):
      write(files.printable(f'· {note}'))
  if origin is not None and 'test' in context.data:
    data = config.data.to_dict()
    inherited = leakage.compare(leakage.inherited(origin), context.data['test'], data)
    leakage.stop(
      inherited,
      data.get('allow_leak', False),
      f'Split the data as {origin} does (data.split), so that it never saw the test side',
    )
  _stop_used_streams(config, context)
  return context


def _stop_used_streams(config: ConfigDict, context: RunContext) -> None:
  """Raise where a stream holds pictures that test or choose the net, unless that is allowed."""
  data = config.data.to_dict()
  for name, dataset in context.streams.items():
    keys = config.streams[name].to_dict()
    allowed = data.get('allow_leak', False) or keys.get('allow_leak', False)
    seen = leakage.record({}, data, None, [(dataset, keys)])
    for side in ('test', 'val'):
      leakage.stop(
        leakage.compare(seen, context.data[side], data),
        allowed,
        f"They are of the run's own {side} side: take them out of config.streams.{name}",
        f'allow_leak=True in config.streams.{name}',
      )


def _remarks(context: RunContext) -> list[str]:
  """Return in words what its sources do not know of a run's data."""
  return [*_grey(context), *run_data.untrained_values(context.data)]


def _grey(context: RunContext) -> list[str]:
  """Return in words that pictures in colour are read as grey.

  It is looked up once for all runs that are alike.
  """
  if 'grey' not in context.remarks:
    found = colours.made_grey(context.data['train'], context.config.data.to_dict())
    context.remarks['grey'] = [
      f'{words}; data.channels=3 keeps colour (skin, fundus, histology)' for words in found
    ]
  return context.remarks['grey']


def _colour(context: RunContext) -> dict[str, bool]:
  """Return whether the run is trained on pictures in colour, where they could be."""
  train = context.data['train']
  shape = train.fetch(0).x.shape
  if len(shape) == 1 or shape[-1] != 3:
    return {}
  coloured, _ = colours.colour(train)
  return {'colour': coloured > 0}


def _seen(context: RunContext) -> leakage.Record:
  """Return the record of what the net of a run sees."""
  keys = context.config.streams.to_dict()
  streams = [(dataset, keys[name]) for name, dataset in context.streams.items()]
  return leakage.record(context.data, context.config.data.to_dict(), context.run, streams)


def _remember(context: RunContext, workdir: Path, seen: leakage.Record) -> None:
  """Keep in the run folder what its net sees, and what the test side has in common with it."""
  data = context.config.data.to_dict()
  leakage.write(workdir, seen)
  leakage.keep(workdir, 'test', leakage.compare(seen, context.data['test'], data))


def _load_tests(
  config: ConfigDict, plan: dict[str, Any], seen: leakage.Record
) -> dict[str, tuple[Dataset, leakage.Overlap]]:
  """Return {name: (data, what they have in common with what the net sees)} of config.tests."""
  tests = {}
  for name, asked in config.tests.to_dict().items():
    place = f'config.tests.{name}'
    with multihost.main_process_first(f'tests {name}'), other_data.read_as(place):
      dataset, keys = other_data.load_test(
        {**other_data.UNSPLIT, **asked}, config.data.to_dict(), plan
      )
    if (np.asarray(dataset.table['y']) == -1).all() and not dataset.masks:
      raise MedtlError(
        f"config.tests.{name} has no labels (label=''), so that nothing can be measured; say where "
        "they stand, for instance label='label', or leave it out"
      )
    overlap = leakage.compare(seen, dataset, keys)
    leakage.stop(
      overlap,
      keys.get('allow_leak', False),
      f'Take them out of config.tests.{name}',
      f'allow_leak=True in config.tests.{name}',
    )
    tests[name] = (dataset, overlap)
  return tests


def resolve_pretrained_run(
  config: ConfigDict, workdir: Path, command: str, may_train: bool = True
) -> Path | None:
  """Return the run folder that the weights come from, None where they come from no run.

  weights='run:<folder>' names it; 'run:<config>' is trained first where it is not finished. It
  stands beside this run's; that of a whole study, further up, serves all of its runs.
  """
  kind, _, name = config.model.weights.partition(':')
  if kind != 'run':
    return None
  there = Path(name).expanduser()
  if there.is_dir():
    run_folder.read(there, 'numbers.json')
    return there
  other = run_folder.load_config(name)
  wanted = run_folder.default_name(name, other)
  folder = next(
    (place / wanted for place in workdir.parents if run_folder.is_finished(place / wanted)),
    workdir.parent / wanted,
  )
  if not run_folder.is_finished(folder):
    if not may_train:
      raise MedtlError(
        'the weights come from a run that is not finished; train it first: '
        f'python -m medtl.main --config={name} --workdir={shlex.quote(str(folder))}'
      )
    run_log.heading(name, ': the run that the weights come from')
    train(other, folder, command)
  return folder


def write_predictions(
  task: Task,
  functions: tuple[Callable, Callable | None],
  params: Tree,
  extra: Tree,
  sides: Mapping[str, Dataset],
  config: ConfigDict,
  workdir: Path,
  inputs: Mapping[str, Dataset] | None = None,
) -> None:
  """Predict every side but train, and keep that in predictions/<side>.npz.

  `inputs` are what the net sees where it is not the pictures. `functions` are the task's measure
  and dense, jitted. Maps are predicted of those examples alone that the page shows.
  """
  measure, dense = functions
  for name, dataset in sides.items():
    if name == 'train':
      continue
    side = (inputs or sides)[name]
    batches = run_data.eval_batches(side, config)
    predicted = predictions.predict(measure, params, extra, batches, dataset.table)
    shown = task.page.shown(predicted)
    maps = {}
    if dense is not None and shown:
      few = run_data.eval_batches(side.subset(np.array(shown)), config)
      maps = dict(predictions.maps(dense, params, extra, few))
    path = workdir / 'predictions' / f'{name}.npz'
    predictions.save(path, predicted, dataset, shown, maps)


def write_other_predictions(
  task: Task,
  functions: tuple[Callable, Callable | None],
  params: Tree,
  extra: Tree,
  named: tuple[str, Dataset],
  config: ConfigDict,
  workdir: Path,
  overlap: leakage.Overlap | None,
) -> None:
  """Predict other data, `named` (name, data), and keep what `write_report` tells of them."""
  name, dataset = named
  write_predictions(task, functions, params, extra, {name: dataset}, config, workdir)
  run_folder.write_json(workdir / 'predictions' / f'{name}.json', dict(dataset.facts))
  leakage.keep(workdir, name, overlap)


def describe(config: ConfigDict, workdir: Path, parameters: bool = False) -> None:
  """Print what would move, what it costs and how long it takes; train nothing.

  With `parameters` each array is listed, with the mean and the standard deviation that a checkpoint
  or chance gave it.
  """
  validate.check_config(config)
  context = prepare(config, resolve_pretrained_run(config, workdir, '', may_train=False))
  write(assemble.one_line(context))
  if parameters:
    write(parameter_overview.get_parameter_overview(context.params))
  cost.print_plan(context, write)
