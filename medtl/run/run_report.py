"""What a finished run tells: its numbers, its page, a row of a study, from the run folder alone."""

import collections
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.text import Text

from medtl import tasks
from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError, Predictions, Table
from medtl.evaluation import predictions
from medtl.report import console, page
from medtl.run import leakage
from medtl.run.run_folder import companion_folder, read, read_config, write_json
from medtl.runtime import files, run_log


def numbers_name(name: str) -> str:
  """Return the file name of the numbers: the test set's are numbers.json."""
  return 'numbers.json' if name == 'test' else f'numbers-{name}.json'


def page_name(name: str) -> str:
  """Return the page's file name: the test set's is report.html."""
  return 'report.html' if name == 'test' else f'report-{name}.html'


def write_report(workdir: Path, name: str = 'test') -> dict[str, Any]:
  """Return the numbers of predictions/<name>.npz, and write them and the page, from the run folder alone."""
  made = read_config(workdir)
  plan, origin = read(workdir, 'plan.json'), read(workdir, 'provenance.json')
  _predicted_under(workdir, name)
  test, val = (predictions.load(workdir / 'predictions' / f'{side}.npz') for side in (name, 'val'))
  by_side, tables = (
    {'test': test.predictions, 'val': val.predictions},
    {'test': test.table, 'val': val.table},
  )
  task = tasks.make(made.task.to_dict())
  found = task.summary.whole(
    by_side, tables, test.classes, threshold=made.threshold, resamples=made.resamples
  )
  found['noun'] = noun(plan['shape'])
  found['comparison'] = []
  if name == 'test' or name in made.tests:
    found['comparison'] = [_compared(workdir, other, name) for other, _ in made.compare]
  found['tests'] = _tests(workdir, made) if name == 'test' else []
  outside = workdir / 'predictions' / f'{name}.json'
  data = plan['data'] if name == 'test' else read(outside.parent, outside.name)
  claim, doubts = _independence(workdir, plan, name, data)
  facts: Any = {
    **_facts(workdir, made, plan, origin, data),
    'data': data,
    'comparison': found['comparison'],
    'tests': found['tests'],
    'claim': claim,
  }
  facts['warnings'] = [*doubts, *facts['warnings']]
  if name != 'test':
    facts['sentence'] += f', tested on {data["name"]}'
    facts['splits'] = {
      name: {
        'size': len(test.predictions.row),
        'patients': found['patients'],
        'hash': data['split_hash'],
        'classes': {row['class']: row['images'] for row in found.get('per_class', ())},
      }
    }

  def images(index: int, name: str = 'picture') -> Any:
    kept = test.pictures if name == 'picture' else test.maps[name]
    return kept.get(int(test.predictions.row[index]))

  content = task.page.content(found, by_side, tables, images=images)
  page.write(workdir / page_name(name), facts, found, task.page.template, content)
  found['warnings'] = page.warnings(facts, found)  # those of the facts too: the console tells them
  write_json(workdir / numbers_name(name), found)
  return found


def _compared(workdir: Path, other: str, name: str) -> dict[str, Any]:
  """Return the numbers of a run beside this one on the same data, and the paired difference."""
  folder = companion_folder(workdir, other)
  return {
    'name': other,
    'metrics': read(folder, numbers_name(name))['metrics'],
    'difference': paired_difference([workdir], [folder], name),
  }


def _tests(workdir: Path, made: ConfigDict) -> list[dict[str, Any]]:
  """Return of each of config.tests what the run's own page tells; of pooled folds there is none."""
  told = []
  for name in made.tests:
    if (workdir / numbers_name(name)).exists():
      numbers = read(workdir, numbers_name(name))
      kept = {key: numbers[key] for key in ('headline', 'metrics', 'comparison')}
      told.append(dict(kept, name=name, over=console.over(numbers), page=page_name(name)))
  return told


def noun(shape: Sequence[int]) -> str:
  """Return what an example x [*s, c] is called: without spatial axes it is the row of a table."""
  return 'image' if len(shape) > 1 else 'row'


def _predicted_under(workdir: Path, name: str) -> None:
  """Raise where no data were evaluated under that name."""
  folder = workdir / 'predictions'
  if name == 'test' or (folder / f'{name}.json').exists():
    return
  others = sorted(path.stem for path in folder.glob('*.json'))
  raise MedtlError(
    f'{workdir} holds no numbers of other data called {name!r}; '
    f'{did_you_mean(name, ["test", *others])}. Evaluate them first: evaluate '
    f'--workdir={shlex.quote(str(workdir))} --name={name} --config.data.root=OTHER'
  )


def _independence(
  workdir: Path, plan: dict[str, Any], name: str, tested: Mapping[str, Any]
) -> tuple[str, list[str]]:
  """Return (whether the tested pictures were used before, in words; warnings where they were)."""
  folds = len(plan['folds']) if 'folds' in plan else 0
  folders = [workdir / f'fold{number}' for number in range(folds)] or [workdir]
  parts = [leakage.kept(folder, name) for folder in folders]
  known = [part for part in parts if part is not None]
  overlap = leakage.pooled(known) if len(known) == len(parts) else None
  published = 'sha256' in plan['weights']
  return leakage.claim(overlap, folds, published), leakage.warnings(
    overlap, bool(tested.get('leak'))
  )


def paired_difference(
  runs: Sequence[Path], others: Sequence[Path], name: str = 'test'
) -> dict[str, Any]:
  """Return {metric: interval} of a run − another on the same rows of predictions/<name>.npz, paired.

  Of each there may be several, from several seeds.
  """
  config = read_config(runs[0])
  table, own = _predicted(runs, name)
  _, other = _predicted(others, name)
  task = tasks.make(config.task.to_dict())
  return task.summary.difference(
    own, other, table, threshold=config.threshold, resamples=config.resamples
  )


def _predicted(
  runs: Sequence[Path], name: str = 'test'
) -> tuple[Table, list[tuple[Predictions, Predictions]]]:
  """Return the table of the tested data, and each run's predictions of them and of validation."""
  found = [
    [predictions.load(folder / 'predictions' / f'{side}.npz') for side in (name, 'val')]
    for folder in runs
  ]
  return found[0][0].table, [(test.predictions, val.predictions) for test, val in found]


def study_row(runs: Sequence[Path]) -> dict[str, Any]:
  """Return one row of a study: name, metrics, what was live in the last phase, FLOPs, seconds and what they were spent on.

  Of several runs, from several seeds, metrics are means, and seconds sums.
  """
  found, phase, made = (
    read(runs[0], 'numbers.json'),
    read(runs[0], 'plan.json')['phases'][-1],
    read_config(runs[0]),
  )
  spent = [read(folder, 'provenance.json') for folder in runs]
  spans = collections.Counter[str]()
  for one in spent:
    spans.update(one.get('spans', {}))
  if len(runs) > 1:
    table, pairs = _predicted(runs)
    task = tasks.make(made.task.to_dict())
    found['metrics'] = task.summary.seeds(
      pairs, table, threshold=made.threshold, resamples=made.resamples
    )
  return {
    'name': runs[0].name,
    'seeds': len(runs),
    'folds': spent[0].get('folds', 0),
    'seconds': sum(one['seconds'] for one in spent),
    'spans': dict(spans),
    **{name: found[name] for name in ('headline', 'images', 'patients', 'metrics', 'warnings')},
    'noun': console.noun(found),
    **{name: phase[name] for name in ('freeze', 'depth', 'live', 'flops')},
  }


def _facts(
  workdir: Path,
  made: ConfigDict,
  plan: dict[str, Any],
  origin: dict[str, Any],
  tested: dict[str, Any],
) -> dict[str, Any]:
  """Return what the page tells beside the numbers; `tested` are the facts of the data that these are of."""
  data, weights = plan['data'], plan['weights']
  begin = f'{weights["name"]} weights' if weights['name'] else 'random initialisation'
  size = plan['splits']['train']
  people = f' of {size["patients"]} patients' if size['patients'] else ''
  what = noun(plan['shape'])
  trained = f'trained on {size["size"]} {what}s{people} of {data["name"]}'
  if 'folds' in plan:
    trained = f'trained in {len(plan["folds"])} folds of {data["name"]}, each {what} tested by a net that never saw its fold,'
  aim = tasks.make(made.task.to_dict()).page.aim(plan['classes'])
  sentence = f'{made.model.name.partition(".")[2]} from {begin}, {trained} {aim}'
  warnings = []
  if tested.get('leak'):
    warnings.append(
      f'{len(tested["leak"])} patients or equal pictures stand on two sides of the split, '
      'which was allowed: the numbers are too good.'
    )
  if tested.get('split_ignored'):
    warnings.append(
      "The source's own train, val and test were mixed and dealt anew; data.split.by='publisher' keeps them."
    )
  if tested.get('unreadable'):
    named = ', '.join(map(str, tested['unreadable'][:8]))
    warnings.append(
      f'{len(tested["unreadable"])} pictures could not be read and were left out: {named}.'
    )
  return {
    'title': workdir.name,
    'sentence': sentence,
    'command': origin['command'],
    'config': made.to_dict(),
    'monitor': made.monitor,
    'best_step': origin.get('best_step'),
    'splits': {
      f'fold {i + 1} {side}': facts
      for i, sides in enumerate(plan['folds'])
      for side, facts in sides.items()
    }
    if 'folds' in plan
    else plan['splits'],
    'weights': weights,
    'phases': plan['phases'],
    'curves': run_log.records(workdir / 'metrics.jsonl'),
    'versions': origin['versions'],
    'hardware': origin['hardware'],
    'seconds': origin['seconds'],
    'warnings': warnings,
    'notes': tested.get('notes', []),
  }


def headline(workdir: Path, found: dict[str, Any], print_line: Callable[[Any], Any]) -> None:
  """Print the numbers, what was frozen, and how the run compares."""
  print_line('')
  print_line(Text(files.printable(console.console(found))))
  origin = read(workdir, 'provenance.json')
  if origin.get('best_step') is not None:
    print_line(f'the checkpoint of step {origin["best_step"]} is used: the best on validation')
  for row in read(workdir, 'plan.json')['phases']:
    print_line(
      f'frozen: {row["freeze"]} for {row["steps"]} steps, {row["live"]:,} of {row["live"] + row["frozen"]:,} parameters live'
    )
  _print_differences(found, print_line)
  for test in found['tests']:
    print_line(f'{test["name"]}, {test["over"]} ({test["page"]})')
    for name in test['headline']:
      print_line(f'  {console.LABELS[name]} {console.words(test["metrics"][name])}')
    _print_differences(test, print_line)


def _print_differences(found: Mapping[str, Any], print_line: Callable[[Any], Any]) -> None:
  for other in found['comparison']:
    for name in found['headline']:
      print_line(
        f'{console.LABELS[name]} minus that of {other["name"]}: {console.words(other["difference"][name])}'
      )
