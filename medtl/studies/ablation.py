"""Many runs as one answer: the variants of one config, compared pair by pair."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from medtl import tasks
from medtl.core import user_files
from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError
from medtl.evaluation import label_efficiency, predictions, summary
from medtl.report import comparison
from medtl.run import assemble, cost, run_folder, run_report, train, validate
from medtl.run.context import RunContext
from medtl.runtime import files, run_log
from medtl.studies import folds, transferability_scores

EXPECTED = (
  'a file of experiments/ with a docstring, sweep(config), which yields (name, ((key, '
  "value), …)), AXIS = 'what differs' and AGAINST = (names, …)"
)


def ablate(
  config: ConfigDict,
  sweep: Path,
  workdir: Path,
  command: str = '',
  *,
  every_fold: bool = False,
  only: Sequence[str] = (),
) -> list[dict[str, Any]]:
  """Return a row for each variant that `sweep` yields, and write study.json, .csv and .html.

  A row holds the variant's metrics, and its paired differences to the experiment's references and
  to the best observed. Each variant is a run folder `<workdir>/<name>`; those that are finished
  are only read, so that a study that was stopped goes on. With `only` these variants are trained
  now, and reported with those that are finished.
  """
  experiment = _experiment(sweep)
  with files.exclusive_lock(workdir / run_folder.LOCK):
    return _ablate(config, sweep, experiment, workdir, command, every_fold=every_fold, only=only)


def _ablate(
  config: ConfigDict,
  sweep: Path,
  experiment: dict[str, Any],
  workdir: Path,
  command: str,
  *,
  every_fold: bool,
  only: Sequence[str],
) -> list[dict[str, Any]]:
  seeds = validate.count_seeds(config)
  config = assemble.with_changes(config, (('seeds', 1),))
  variants = []
  runs = {}
  for name, variant in _variants(config, sweep, experiment, seeds, only):
    folders = [workdir / name]
    folders += [workdir / f'{name}-seed{number}' for number in range(1, seeds)]
    finished = all(run_folder.is_finished(folder) for folder in folders)
    if not only or name in only or finished:
      variants.append((name, variant))
      runs[name] = folders
  count = validate.count_folds(config) if every_fold else 0
  _train(variants, runs, count, workdir, command)
  rows = [run_report.study_row(folders) for folders in runs.values()]
  _add_differences(rows, runs, experiment)
  curves = _curves(rows, experiment, runs)
  # What was measured is safe before more is computed.
  _write(rows, {}, experiment, curves, workdir, command)
  print_line = run_log.console.print
  print_line(comparison.table(rows))
  print_line(comparison.verdict(rows, rows[0]['headline'][0]))
  for line in (*comparison.transfer(rows, rows[0]['headline'][0]), *curves.lines):
    print_line(line)
  try:
    screened = _screened(config, rows, workdir, command)
    if screened:
      _write(rows, screened, experiment, curves, workdir, command)
      for line in comparison.screened(screened):
        print_line(line)
  except MedtlError as error:
    print_line(f'no scores beside the study: {error}')
  seconds = sum(row['seconds'] for row in rows)
  page = workdir / 'study.html'
  print_line(f'{seconds:.0f} s in all ({comparison.spent(rows)}); the page: {page}')
  return rows


def _add_differences(
  rows: list[dict[str, Any]],
  runs: Mapping[str, Sequence[Path]],
  experiment: Mapping[str, Any],
) -> None:
  """Add to each row its paired differences to the references, its control, the best observed."""
  names = [row['name'] for row in rows]
  best = comparison.extreme(rows, rows[0]['headline'][0])['name']
  control = experiment.get('control')
  for row in rows:
    against = {name: name for name in names if name in experiment['AGAINST']}
    if control:
      own = control(row['name'])
      against[comparison.CONTROL] = own if own in names else row['name']
    against[comparison.BEST] = best
    row['differences'] = dict.fromkeys(against)
    for reference, name in against.items():
      if name != row['name']:
        difference = run_report.paired_difference(runs[row['name']], runs[name])
        row['differences'][reference] = difference
  comparison.correct_p_values(rows)


def _variants(
  config: ConfigDict, sweep: Path, experiment: Mapping[str, Any], seeds: int, only: Sequence[str]
) -> list[tuple[str, ConfigDict]]:
  """Return (name, config) of each variant: all are checked before one is trained."""
  variants = []
  with user_files.explained(sweep, EXPECTED):
    for name, changes in experiment['sweep'](config):
      variants.append((name, assemble.with_changes(config, changes)))
  names = [name for name, _ in variants]
  validate.variants(names, str(sweep))
  if seeds > 1 and any(variant.seed != config.seed for _, variant in variants):
    raise MedtlError(
      f'config.seeds is {seeds}, but {sweep} tells its variants apart by their seed; set '
      'config.seeds=1'
    )
  for name in only:
    if name not in names:
      raise MedtlError(f'--only={name}: {sweep} has no such variant; {did_you_mean(name, names)}')
  return variants


def _train(
  variants: Sequence[tuple[str, ConfigDict]],
  runs: Mapping[str, Sequence[Path]],
  fold_count: int,
  workdir: Path,
  command: str,
) -> None:
  """Train every unfinished run of every variant, after telling what that will cost.

  Each is trained in `fold_count` folds, or on one split where `fold_count` is 0.
  """
  unfinished = {}
  for name, variant in variants:
    parts: list[Path] = []
    for folder in runs[name]:
      parts += folds.fold_folders(folder, fold_count) if fold_count else [folder]
    left = [part for part in parts if not run_folder.is_finished(part)]
    if left:
      unfinished[name] = (variant, len(left))
  prepared = forecast(unfinished, workdir, command)
  folds.look_at_folds([context.config for context in prepared.values()], fold_count)
  train_one = folds.train_folds if fold_count else train.train
  for number, (name, variant) in enumerate(variants, 1):
    like = prepared.pop(name, None)  # popped, so that its memory is free after its last run
    for index, folder in enumerate(runs[name]):
      progress = f', {number} of {len(variants)}'
      if len(runs[name]) > 1:
        progress += f', seed {index + 1} of {len(runs[name])}'
      run_log.heading(name, progress)
      seeded = assemble.with_changes(variant, (('seed', variant.seed + index),))
      if like is not None:  # what the forecast, or the seed before, compiled serves this run
        pretrained_run = train.resolve_pretrained_run(seeded, folder, command)
        like = train.prepare(seeded, pretrained_run, like)
      train_one(seeded, folder, command, like)


def _same_test(prepared: Mapping[str, RunContext], name: str) -> None:
  """Raise where a variant is tested on other examples or classes than the first."""
  first = next(iter(prepared))
  own = prepared[name]
  other = prepared[first]
  own_task = (own.classes, dict(own.task.keys))
  other_task = (other.classes, dict(other.task.keys))
  if own_task != other_task:
    raise MedtlError(
      f'{name} tells {own_task} apart and {first} {other_task}: variants are compared pair by '
      'pair, on the same classes'
    )
  own_rows = own.data['test'].table['row']
  other_rows = other.data['test'].table['row']
  if not np.array_equal(own_rows, other_rows):
    common = len(np.intersect1d(own_rows, other_rows))
    raise MedtlError(
      f'{name} would be tested on {len(own_rows)} examples of which {common} are among the '
      f'{len(other_rows)} of {first}: variants are compared pair by pair, on the same test '
      'patients. In a sweep leave the split as it is, but for data.split.labels'
    )


def _frozen_below(config: ConfigDict, folder: Path, row: Mapping[str, Any]) -> bool:
  """Return whether a variant differs from the config in the boundary below which it freezes.

  Net, data and weights must be the config's, with all children below a boundary frozen, and no
  others.
  """
  own = run_folder.read_config(folder)
  for key in ('model', 'transfer', 'norms', 'seed', 'mean', 'std', 'dtype', 'task'):
    if own[key] != config[key]:
      return False
  if _split_of(own) != _split_of(config):
    return False
  return row['depth'] > 0 and re.fullmatch(r'depth\([\d.]+\)', row['freeze']) is not None


def _split_of(config: ConfigDict) -> dict[str, Any]:
  """Return the keys of the split, whichever the fold."""
  return {**config.data.to_dict()['split'], 'fold': 0}


class Curves(NamedTuple):
  """Families of variants that differ in an amount, and what amounts are worth across families."""

  families: dict[str, dict[float, str]]
  rows: list[dict[str, Any]]
  lines: list[str]


def _curves(
  rows: list[dict[str, Any]], experiment: dict[str, Any], runs: Mapping[str, Sequence[Path]]
) -> Curves:
  """Return the curves of an experiment; empty where it defines no place(name) and UNIT.

  `place(name)` is (family, amount). They are empty too where there is one family only, or the
  headline metric is not a function of scores.
  """
  nothing = Curves({}, [], [])
  if 'place' not in experiment:
    return nothing
  names = [row['name'] for row in rows]
  families = label_efficiency.grouped(names, experiment['place'])
  if len(families) < 2:
    return nothing
  config = run_folder.read_config(runs[names[0]][0])
  task = tasks.make(config.task.to_dict())
  metric = task.metrics.get(rows[0]['headline'][0])
  if metric is None:
    return nothing
  saved = {}
  score = {}
  for name in names:
    saved[name] = [predictions.load(run / 'predictions' / 'test.npz') for run in runs[name]]
    score[name] = np.stack([one.predictions.score for one in saved[name]])
  first = saved[names[0]][0]
  patient, _ = summary.patients(first.table)
  equivalents = label_efficiency.equivalents(
    families, score, first.predictions.y, metric, patient, config.resamples
  )
  lines = [label_efficiency.words(row, experiment['UNIT']) for row in equivalents]
  return Curves(families, equivalents, lines)


def _screened(
  config: ConfigDict, rows: list[dict[str, Any]], workdir: Path, command: str
) -> dict[str, Any]:
  """Return the scores that need no training at each depth of a study of depths, else {}.

  Beside them stands how they ranked what was measured. Scores are means over the training sides
  of the study's folds; of several variants with one boundary the first counts.
  """
  measured: dict[int, dict[str, Any]] = {}
  for row in rows:
    if _frozen_below(config, workdir / row['name'], row):
      measured.setdefault(row['depth'], row)
  one_class = tasks.make(config.task.to_dict()).one_class
  if len(measured) < 3 or not config.model.weights or not one_class:
    return {}
  contexts = folds.contexts(config, rows[0]['folds'], workdir / 'any', command)
  scores = transferability_scores.depths(contexts, sorted(measured))
  metric = rows[0]['headline'][0]
  values = {depth: row['metrics'][metric]['value'] for depth, row in measured.items()}
  depths = []
  for depth in sorted(scores):
    named = {'depth': depth, 'name': measured[depth]['name'], metric: values[depth]}
    depths.append(named | scores[depth])
  return {
    'depths': depths,
    'agreement': transferability_scores.agreement(scores, values),
    'classifier': transferability_scores.classifier(contexts),
  }


def forecast(
  variants: Mapping[str, tuple[ConfigDict, int]], workdir: Path, command: str
) -> dict[str, RunContext]:
  """Return the context of each variant, and print what its runs, so many of each, will cost.

  What is compiled here, the runs find compiled; variants that are alike share data, weights and
  programs.
  """
  total_seconds = 0.0
  most_memory = 0
  total_runs = 0
  prepared: dict[str, RunContext] = {}
  for name, (variant, count) in variants.items():
    pretrained_run = train.resolve_pretrained_run(variant, workdir / 'any', command)
    context = train.prepare(variant, pretrained_run, _alike(variant, prepared))
    prepared[name] = context
    _same_test(prepared, name)
    estimate = cost.estimate_cost(context, lambda _: None)
    seconds = estimate.compiling + count * estimate.running
    run_log.console.print(f'  {name}: {seconds:.0f} s, {estimate.memory / 1e6:.0f} MB')
    total_seconds += seconds
    most_memory = max(most_memory, estimate.memory)
    total_runs += count
  if prepared:
    run_log.console.print(
      f'predicted: {total_runs} runs of {len(prepared)} variants, {total_seconds:.0f} s, at most '
      f'{most_memory / 1e6:.0f} MB; reading, writing and reports apart'
    )
  return prepared


def _alike(variant: ConfigDict, prepared: Mapping[str, RunContext]) -> RunContext | None:
  """Return the first context whose data and weights a variant can share."""
  for context in prepared.values():
    if assemble.shares_weights(context.config, variant):
      return context
  return None


def _write(
  rows: list[dict[str, Any]],
  screened: dict[str, Any],
  experiment: dict[str, Any],
  curves: Curves,
  workdir: Path,
  command: str,
) -> None:
  """Write study.json, study.csv and study.html."""
  folders = [workdir / row['name'] for row in rows]
  plans = [run_folder.read(folder, 'plan.json') for folder in folders]
  weights = dict.fromkeys(plan['weights']['name'] or 'random' for plan in plans)
  seeds = sorted({run_folder.read_config(folder).seed for folder in folders})
  data = plans[0]['data']['name']
  chance = comparison.chance(rows[0]['seeds'], seeds)
  facts = {
    'title': experiment['__doc__'].split(':')[0].strip(),
    'axis': experiment['AXIS'],
    'sentence': f'{len(rows)} variants on {data}, weights {", ".join(weights)}, {chance}.',
    **provenance(rows, command, sum(row['seconds'] for row in rows)),
  }
  study = {'rows': rows, 'screen': screened, 'equivalents': curves.rows}
  run_folder.write_json(workdir / 'study.json', study)
  files.write(workdir / 'study.csv', comparison.csv(rows))
  comparison.write(workdir / 'study.html', rows, facts, screened, curves.families, curves.lines)


def provenance(rows: list[dict[str, Any]], command: str, seconds: float) -> dict[str, Any]:
  """Return what the page of any study tells of its making, and the warnings of its rows."""
  warnings: list[str] = []
  for row in rows:
    warnings += row['warnings']
  return {
    'command': command,
    'hardware': run_folder.hardware(),
    'versions': run_folder.versions(),
    'seconds': seconds,
    'warnings': list(dict.fromkeys(warnings)),
  }


def _experiment(path: Path) -> dict[str, Any]:
  """Return what a file of experiments/ defines.

  sweep(config), AXIS (what differs), AGAINST (names to compare with); control(name), where there is
  one, returns the variant that is the same network, frozen as chance drew it. A file that defines
  place(name) needs UNIT too. A file without these, or without a docstring, is a MedtlError.
  """
  if not path.is_file():
    there = sorted(str(other) for other in path.parent.glob('[!_]*.py'))
    raise MedtlError(f'no experiment {str(path)!r}; {did_you_mean(str(path), there)}')
  with user_files.defined(path, EXPECTED) as names:
    experiment = names
  needed = ['sweep', 'AXIS', 'AGAINST']
  if 'place' in experiment:
    needed.append('UNIT')
  lacking = [name for name in needed if name not in experiment]
  if not lacking and not experiment['__doc__']:
    lacking = ['a docstring']
  if lacking:
    raise MedtlError(f'{path} lacks {", ".join(lacking)}; expected {EXPECTED}')
  return experiment
