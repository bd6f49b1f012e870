"""The folds of one split as one answer: each trained by itself, their predictions pooled."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from medtl import tasks
from medtl.core.types import MedtlError
from medtl.evaluation import predictions
from medtl.run import assemble, cost, run_data, run_folder, run_report, train, validate
from medtl.run.context import RunContext
from medtl.runtime import run_log


def train_folds(
  config: ConfigDict, workdir: Path, command: str = '', like: RunContext | None = None
) -> dict[str, Any]:
  """Return the numbers of the out-of-fold predictions, each example tested by a net new to it.

  Every fold is trained in `fold<i>/`, and brings its own thresholds, chosen on its own validation
  patients: pooled ones would have seen the labels that they are tested on. With `like` the runs
  share what it has in memory.
  """
  validate.check_config(config)
  count = validate.count_folds(config)
  with run_folder.open_unfinished(workdir, config, folds=True) as unfinished:
    if unfinished:
      return _train_folds(config, count, workdir, command, like)
  run_log.console.print(f'{workdir} is finished already; nothing was trained')
  return run_folder.read(workdir, 'numbers.json')


def _train_folds(
  config: ConfigDict, count: int, workdir: Path, command: str, like: RunContext | None
) -> dict[str, Any]:
  folders = fold_folders(workdir, count)
  for number, folder in enumerate(folders):
    run_log.heading(f'fold {number + 1} of {count}')
    fold = of_fold(config, number)
    if like is None and not run_folder.is_finished(folder):
      like = train.prepare(fold, train.resolve_pretrained_run(fold, folder, command))
      cost.print_plan(like, run_log.console.print)
      look_at_folds([config], count)  # a study has looked before
    train.train(fold, folder, command, like)
  for side in ('val', 'test'):
    parts = [_saved(folder, side, config) for folder in folders]
    # where many sites test in turn, an example validates in the folds of several of them
    may_repeat = side == 'val' and config.data.split.by == 'site'
    predictions.pooled(parts, workdir / 'predictions' / f'{side}.npz', may_repeat=may_repeat)
  plans = [run_folder.read(folder, 'plan.json') for folder in folders]
  splits = [plan['splits'] for plan in plans]
  run_folder.write_json(workdir / 'plan.json', {**plans[0], 'folds': splits})
  for name, changes in config.compare:
    companion = run_folder.companion_folder(workdir, name)
    train_folds(assemble.with_changes(config, changes), companion, command)
  spans: dict[str, float] = {}
  for folder in folders:
    for name, seconds in run_folder.read(folder, 'provenance.json')['spans'].items():
      spans[name] = spans.get(name, 0.0) + seconds
  run_folder.write_provenance(workdir, command, spans, {'folds': count})
  return run_report.write_report(workdir)


def of_fold(config: ConfigDict, number: int) -> ConfigDict:
  """Return the config of one fold of its split."""
  return assemble.with_changes(config, (('data.split.fold', number),))


def contexts(config: ConfigDict, count: int, workdir: Path, command: str) -> list[RunContext]:
  """Return the context of each of `count` folds, of the config itself where `count` is 0.

  They share data, weights and compiled programs. Weights that are another run's are looked for
  beside `workdir`.
  """
  configs = [of_fold(config, number) for number in range(count)] or [
    assemble.with_changes(config, ())
  ]
  made: list[RunContext] = []
  for fold in configs:
    pretrained_run = train.resolve_pretrained_run(fold, workdir, command)
    made.append(train.prepare(fold, pretrained_run, made[0] if made else None))
  return made


def look_at_folds(configs: Iterable[ConfigDict], count: int) -> None:
  """Load the data of every fold: the checks tell now what would stop the last fold after hours.

  For instance a class that a side lacks. Configs that differ in nothing that is checked are
  looked at once.
  """
  seen: list[tuple] = []
  for config in configs:
    checked = (config.data, config.task, config.monitor, config.batch)
    if checked not in seen:
      seen.append(checked)
      for number in range(count):
        _look(config, number)


def _look(config: ConfigDict, number: int) -> None:
  try:
    run_data.load_data(of_fold(config, number))
  except MedtlError as error:
    raise MedtlError(
      f'data.split.fold={number}: {error}. Every fold is trained here, so change '
      'something else than the fold'
    ) from None


def fold_folders(workdir: Path, count: int) -> list[Path]:
  """Return the run folders of the folds."""
  return [workdir / f'fold{number}' for number in range(count)]


def _saved(folder: Path, side: str, config: ConfigDict) -> predictions.Saved:
  """Return the predictions of a fold, those of its test side as they are pooled with others'."""
  saved = predictions.load(folder / 'predictions' / f'{side}.npz')
  if side != 'test':
    return saved
  val = predictions.load(folder / 'predictions' / 'val.npz')
  task = tasks.make(config.task.to_dict())
  pooled = task.summary.pooled(saved.predictions, val.predictions, val.table, config.threshold)
  return saved._replace(predictions=pooled)
