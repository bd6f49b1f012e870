"""Many runs as one answer: the folds of one split, pooled out of fold; the variants of one config, compared pair by pair."""

import re
from collections.abc import Iterable, Mapping, Sequence
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
from medtl.run import assemble, cost, run_data, run_folder, run_report, train, validate
from medtl.run.context import RunContext
from medtl.runtime import files, run_log
from medtl.studies import transferability_scores

EXPECTED = (
  'a file of experiments/ with a docstring, sweep(config), which yields (name, ((key, '
  "value), …)), AXIS = 'what differs' and AGAINST = (names, …)"
)


def folds(
  config: ConfigDict, workdir: Path, command: str = '', like: RunContext | None = None
) -> dict[str, Any]:
  """Return the numbers of the out-of-fold predictions: every fold trained in `fold<i>/`, each example tested by a net that never saw it.

  Each fold brings its own thresholds, chosen on its own validation patients: pooled ones would have seen the labels they are tested on.
  """
  validate.check_config(config)
  count = validate.count_folds(config)
  with run_folder.open_unfinished(workdir, config, folds=True) as to_do:
    if to_do:
      return _folds(config, count, workdir, command, like)
  run_log.console.print(f'{workdir} is finished already; nothing was trained')
  return run_folder.read(workdir, 'numbers.json')


def _folds(
  config: ConfigDict, count: int, workdir: Path, command: str, like: RunContext | None
) -> dict[str, Any]:
  """Return the numbers of `count` folds that are not finished, see `folds`."""
  folders = _fold_folders(workdir, count)
  for number, part in enumerate(folders):
    run_log.heading(f'fold {number + 1} of {count}')
    fold = assemble.with_changes(config, (('data.split.fold', number),))
    if like is None and not run_folder.is_finished(part):
      like = train.prepare(fold, train.resolve_pretrained_run(fold, part, command))
      cost.print_plan(like, run_log.console.print)
      look_at_folds([config], count)  # a study has looked before
    train.train(fold, part, command, like)
  for side in ('val', 'test'):
    predictions.pooled(
      [_saved(part, side, config) for part in folders], workdir / 'predictions' / f'{side}.npz'
    )
  plan = run_folder.read(folders[0], 'plan.json')
  run_folder.write_json(
    workdir / 'plan.json',
    {**plan, 'folds': [run_folder.read(part, 'plan.json')['splits'] for part in folders]},
  )
  for name, changes in config.compare:
    folds(
      assemble.with_changes(config, changes), run_folder.companion_folder(workdir, name), command
    )
  spent = [run_folder.read(part, 'provenance.json')['spans'] for part in folders]
  spans = {
    name: sum(one.get(name, 0.0) for one in spent)
    for name in dict.fromkeys(name for one in spent for name in one)
  }
  run_folder.write_provenance(workdir, command, spans, {'folds': count})
  return run_report.write_report(workdir)


def look_at_folds(configs: Iterable[ConfigDict], count: int) -> None:
  """Load the data of every fold: the checks tell now what would stop the last fold after hours.

  For instance a class that a side lacks. Configs that differ in nothing that is checked are
  looked at once.
  """
  seen: list[tuple] = []
  for config in configs:
    told = (config.data, config.task, config.monitor, config.batch)
    if told not in seen:
      seen.append(told)
      for number in range(count):
        _look(config, number)


def _look(config: ConfigDict, number: int) -> None:
  try:
    run_data.load_data(assemble.with_changes(config, (('data.split.fold', number),)))
  except MedtlError as error:
    raise MedtlError(
      f'data.split.fold={number}: {error}. Every fold is trained here, so change '
      'something else than the fold'
    ) from None


def _fold_folders(workdir: Path, count: int) -> list[Path]:
  """Return the run folders of the folds."""
  return [workdir / f'fold{number}' for number in range(count)]


def _saved(part: Path, side: str, config: ConfigDict) -> predictions.Saved:
  """Return the predictions of a fold; those of its test side as they are pooled with other folds'."""
  saved = predictions.load(part / 'predictions' / f'{side}.npz')
  if side != 'test':
    return saved
  val = predictions.load(part / 'predictions' / 'val.npz')
  task = tasks.make(config.task.to_dict())
  pooled = task.summary.pooled(saved.predictions, val.predictions, val.table, config.threshold)
  return saved._replace(predictions=pooled)


def ablate(
  config: ConfigDict,
  sweep: Path,
  workdir: Path,
  command: str = '',
  *,
  every_fold: bool = False,
  only: Sequence[str] = (),
) -> list[dict[str, Any]]:
  """Return a row for each variant that `sweep` yields: its metrics, and paired differences to references and to the best observed.

  Each variant is a run folder `<workdir>/<name>`; those that are finished are only read, so that a study that was stopped goes on. With
  `only` these are trained now, and reported with those that are finished. Writes study.json, study.csv and study.html.
  """
  made = _experiment(sweep)
  with files.exclusive_lock(workdir / run_folder.LOCK):
    return _ablate(config, sweep, made, workdir, command, every_fold=every_fold, only=only)


def _ablate(
  config: ConfigDict,
  sweep: Path,
  made: dict[str, Any],
  workdir: Path,
  command: str,
  *,
  every_fold: bool,
  only: Sequence[str],
) -> list[dict[str, Any]]:
  """Return the rows of an experiment that defines `made`, see `ablate`."""
  seeds = validate.count_seeds(config)
  config = assemble.with_changes(config, (('seeds', 1),))
  variants = _variants(config, sweep, made, seeds, only)
  runs = {
    name: [workdir / name, *(workdir / f'{name}-seed{number}' for number in range(1, seeds))]
    for name, _ in variants
  }
  variants = [
    (name, variant)
    for name, variant in variants
    if not only or name in only or all(map(run_folder.is_finished, runs[name]))
  ]
  references = [name for name, _ in variants if name in made['AGAINST']]
  _train(variants, runs, validate.count_folds(config) if every_fold else 0, workdir, command)
  rows = [run_report.study_row(runs[name]) for name, _ in variants]
  best = comparison.extreme(rows, rows[0]['headline'][0])['name']
  for row in rows:
    against = {**{name: name for name in references}, comparison.BEST: best}
    row['differences'] = {
      what: run_report.paired_difference(runs[row['name']], runs[name])
      if name != row['name']
      else None
      for what, name in against.items()
    }
  comparison.correct_p_values(rows)
  curves = _curves(rows, made, runs)
  _write(
    rows, {}, made, curves, workdir, command
  )  # what was measured is safe before more is computed
  for line in (
    comparison.table(rows),
    comparison.verdict(rows, rows[0]['headline'][0]),
    *curves.lines,
  ):
    run_log.console.print(line)
  try:
    if screened := _screened(config, rows, workdir, command):
      _write(rows, screened, made, curves, workdir, command)
      for line in comparison.screened(screened):
        run_log.console.print(line)
  except MedtlError as error:
    run_log.console.print(f'no scores beside the study: {error}')
  run_log.console.print(
    f'{sum(row["seconds"] for row in rows):.0f} s in all ({comparison.spent(rows)}); the page: {workdir / "study.html"}'
  )
  return rows


def _variants(
  config: ConfigDict, sweep: Path, made: Mapping[str, Any], seeds: int, only: Sequence[str]
) -> list[tuple[str, ConfigDict]]:
  """Return (name, config) of each variant: all are checked before one is trained."""
  with user_files.explained(sweep, EXPECTED):
    variants = [
      (name, assemble.with_changes(config, changes)) for name, changes in made['sweep'](config)
    ]
  validate.variants([name for name, _ in variants], str(sweep))
  if seeds > 1 and any(variant.seed != config.seed for _, variant in variants):
    raise MedtlError(
      f'config.seeds is {seeds}, but {sweep} tells its variants apart by their seed; set config.seeds=1'
    )
  for name in only:
    if name not in dict(variants):
      raise MedtlError(
        f'--only={name}: {sweep} has no such variant; {did_you_mean(name, dict(variants))}'
      )
  return variants


def _train(
  variants: Sequence[tuple[str, ConfigDict]],
  runs: Mapping[str, Sequence[Path]],
  count: int,
  workdir: Path,
  command: str,
) -> None:
  """Train every run of every variant that is not finished, in `count` folds (0: one split), after telling what that will cost."""
  left = {
    name: [
      part
      for folder in runs[name]
      for part in (_fold_folders(folder, count) if count else [folder])
      if not run_folder.is_finished(part)
    ]
    for name, _ in variants
  }
  prepared = forecast(
    {name: (variant, len(left[name])) for name, variant in variants if left[name]}, workdir, command
  )
  look_at_folds([context.config for context in prepared.values()], count)
  for number, (name, variant) in enumerate(variants, 1):
    like = prepared.pop(name, None)
    for index, folder in enumerate(runs[name]):
      of_seeds = f', seed {index + 1} of {len(runs[name])}' if len(runs[name]) > 1 else ''
      run_log.heading(name, f', {number} of {len(variants)}{of_seeds}')
      seeded = assemble.with_changes(variant, (('seed', variant.seed + index),))
      like = like and train.prepare(
        seeded, train.resolve_pretrained_run(seeded, folder, command), like
      )
      (folds if count else train.train)(seeded, folder, command, like)


def _same_test(made: Mapping[str, RunContext], name: str) -> None:
  """Raise before anything is trained where a variant is tested on other examples than the first."""
  first = next(iter(made))
  one, other = (made[which].data['test'].table['row'] for which in (first, name))
  kinds = [(made[which].classes, dict(made[which].task.keys)) for which in (first, name)]
  if kinds[0] != kinds[1]:
    raise MedtlError(
      f'{name} tells {kinds[1]} apart and {first} {kinds[0]}: variants are compared pair by pair, on the same classes'
    )
  if not np.array_equal(one, other):
    raise MedtlError(
      f'{name} would be tested on {len(other)} examples of which {len(np.intersect1d(one, other))} are among the {len(one)} '
      f'of {first}: variants are compared pair by pair, on the same test patients. In a sweep leave the split as it is, '
      'but for data.split.labels'
    )


def _frozen_below(config: ConfigDict, folder: Path, row: Mapping[str, Any]) -> bool:
  """Return whether a variant is the base config's net, data and weights with the children below a boundary frozen, and no others."""
  own = run_folder.read_config(folder)
  alike = all(
    own[key] == config[key]
    for key in ('model', 'transfer', 'norms', 'seed', 'mean', 'std', 'dtype', 'task')
  )
  split = ({**made.data.to_dict()['split'], 'fold': 0} for made in (own, config))
  return (
    row['depth'] > 0
    and alike
    and next(split) == next(split)
    and re.fullmatch(r'depth\([\d.]+\)', row['freeze']) is not None
  )


class Curves(NamedTuple):
  """Families of variants that differ in an amount, and what one family's amounts are worth in another's."""

  families: dict[str, dict[float, str]]
  rows: list[dict[str, Any]]
  lines: list[str]


def _curves(
  rows: list[dict[str, Any]], made: dict[str, Any], runs: Mapping[str, Sequence[Path]]
) -> Curves:
  """Return the curves of an experiment that defines place(name) → (family, amount) and UNIT; else empty."""
  if (
    'place' not in made
    or len(families := label_efficiency.grouped([row['name'] for row in rows], made['place'])) < 2
  ):
    return Curves({}, [], [])
  own = run_folder.read_config(runs[rows[0]['name']][0])
  metric = tasks.make(own.task.to_dict()).metrics.get(rows[0]['headline'][0])
  if metric is None:
    return Curves({}, [], [])
  saved = {
    row['name']: [
      predictions.load(folder / 'predictions' / 'test.npz') for folder in runs[row['name']]
    ]
    for row in rows
  }
  one = saved[rows[0]['name']][0]
  score = {
    name: np.stack([other.predictions.score for other in others]) for name, others in saved.items()
  }
  found = label_efficiency.equivalents(
    families,
    score,
    one.predictions.y,
    metric,
    summary.patients(one.table)[0],
    own.resamples,
  )
  return Curves(families, found, [label_efficiency.words(row, made['UNIT']) for row in found])


def _screened(
  config: ConfigDict, rows: list[dict[str, Any]], workdir: Path, command: str
) -> dict[str, Any]:
  """Return the scores that need no training at each depth of a study of depths, and how they ranked what was measured; else {}.

  Scores are means over the training sides of the study's folds; of several variants with one boundary the first counts.
  """
  measured = {
    row['depth']: row for row in reversed(rows) if _frozen_below(config, workdir / row['name'], row)
  }
  one_class = tasks.make(config.task.to_dict()).one_class
  if len(measured) < 3 or not config.model.weights or not one_class:
    return {}
  folds: list[RunContext] = []
  for number in range(rows[0]['folds']) or [None]:
    fold = assemble.with_changes(config, () if number is None else (('data.split.fold', number),))
    folds.append(
      train.prepare(
        fold,
        train.resolve_pretrained_run(fold, workdir / 'any', command),
        folds[0] if folds else None,
      )
    )
  scores, metric = transferability_scores.depths(folds, sorted(measured)), rows[0]['headline'][0]
  values = {depth: row['metrics'][metric]['value'] for depth, row in measured.items()}
  return {
    'depths': [
      {'depth': depth, 'name': measured[depth]['name'], metric: values[depth], **scores[depth]}
      for depth in sorted(scores)
    ],
    'agreement': transferability_scores.agreement(scores, values),
    'classifier': transferability_scores.classifier(folds),
  }


def forecast(
  variants: Mapping[str, tuple[ConfigDict, int]], workdir: Path, command: str
) -> dict[str, RunContext]:
  """Return the context of each variant, and print how long its runs, so many of each, will take and how much memory.

  What is compiled here, the runs find compiled; variants that are alike share data, weights and programs.
  """
  total, most, made = 0.0, 0, dict[str, RunContext]()
  for name, (variant, count) in variants.items():
    like = next(
      (context for context in made.values() if assemble.shares_weights(context.config, variant)),
      None,
    )
    made[name] = context = train.prepare(
      variant, train.resolve_pretrained_run(variant, workdir / 'any', command), like
    )
    _same_test(made, name)
    estimate = cost.estimate_cost(context, lambda _: None)
    seconds = estimate.compiling + count * estimate.running
    run_log.console.print(f'  {name}: {seconds:.0f} s, {estimate.memory / 1e6:.0f} MB')
    total, most = total + seconds, max(most, estimate.memory)
  if made:
    run_log.console.print(
      f'predicted: {sum(count for _, count in variants.values())} runs of {len(made)} variants, {total:.0f} s, at most '
      f'{most / 1e6:.0f} MB; reading, writing and reports apart'
    )
  return made


def _write(
  rows: list[dict[str, Any]],
  screened: dict[str, Any],
  made: dict[str, Any],
  curves: Curves,
  workdir: Path,
  command: str,
) -> None:
  plans = [run_folder.read(workdir / row['name'], 'plan.json') for row in rows]
  begins = dict.fromkeys(plan['weights']['name'] or 'random' for plan in plans)
  seeds = sorted({run_folder.read_config(workdir / row['name']).seed for row in rows})
  seconds = sum(row['seconds'] for row in rows)
  facts = {
    'title': made['__doc__'].split(':')[0].strip(),
    'axis': made['AXIS'],
    'command': command,
    'hardware': run_folder.hardware(),
    'versions': run_folder.versions(),
    'seconds': seconds,
    'warnings': list(dict.fromkeys(warning for row in rows for warning in row['warnings'])),
    'sentence': f'{len(rows)} variants on {plans[0]["data"]["name"]}, weights {", ".join(begins)}, '
    f'{comparison.chance(rows[0]["seeds"], seeds)}.',
  }
  run_folder.write_json(
    workdir / 'study.json', {'rows': rows, 'screen': screened, 'equivalents': curves.rows}
  )
  files.write(workdir / 'study.csv', comparison.csv(rows))
  comparison.write(workdir / 'study.html', rows, facts, screened, curves.families, curves.lines)


def _experiment(path: Path) -> dict[str, Any]:
  """Return what a file of experiments/ defines: sweep(config), AXIS (what differs) and AGAINST (names to compare with)."""
  if not path.is_file():
    there = sorted(str(other) for other in path.parent.glob('[!_]*.py'))
    raise MedtlError(f'no experiment {str(path)!r}; {did_you_mean(str(path), there)}')
  with user_files.defined(path, EXPECTED) as made:
    found = made
  lacking = [
    name
    for name in ('sweep', 'AXIS', 'AGAINST', *(['UNIT'] if 'place' in found else []))
    if name not in found
  ]
  if lacking or not found['__doc__']:
    raise MedtlError(f'{path} lacks {", ".join(lacking) or "a docstring"}; expected {EXPECTED}')
  return found
