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
  """Return the numbers of predictions/<name>.npz; write them and their page."""
  config = read_config(workdir)
  plan = read(workdir, 'plan.json')
  origin = read(workdir, 'provenance.json')
  _predicted_under(workdir, name)
  test = predictions.load(workdir / 'predictions' / f'{name}.npz')
  val = predictions.load(workdir / 'predictions' / 'val.npz')
  by_side = {'test': test.predictions, 'val': val.predictions}
  tables = {'test': test.table, 'val': val.table}
  task = tasks.make(config.task.to_dict())
  numbers = task.summary.whole(
    by_side, tables, test.classes, threshold=config.threshold, resamples=config.resamples
  )
  numbers['noun'] = noun(plan['shape'])
  numbers['comparison'] = []
  if name == 'test' or name in config.tests:
    numbers['comparison'] = [_compared(workdir, other, name) for other, _ in config.compare]
  numbers['tests'] = _tests(workdir, config) if name == 'test' else []
  data = plan['data']
  if name != 'test':
    data = read(workdir / 'predictions', f'{name}.json')
  claim, doubts = _independence(workdir, plan, name, data)
  facts: Any = _facts(workdir, config, plan, origin, data)
  if name == 'test':
    facts['notes'] = [*facts['notes'], *_not_pooled(config, plan)]
  facts['data'] = data
  facts['comparison'] = numbers['comparison']
  facts['tests'] = numbers['tests']
  facts['claim'] = claim
  facts['warnings'] = [*doubts, *facts['warnings']]
  if name != 'test':
    facts['sentence'] += f', tested on {data["name"]}'
    facts['splits'] = {
      name: {
        'size': len(test.predictions.row),
        'patients': numbers['patients'],
        'hash': data['split_hash'],
        'classes': {row['class']: row['images'] for row in numbers.get('per_class', ())},
      }
    }

  def images(index: int, name: str = 'picture') -> Any:
    kept = test.pictures if name == 'picture' else test.maps[name]
    return kept.get(int(test.predictions.row[index]))

  content = task.page.content(numbers, by_side, tables, images=images)
  page.write(workdir / page_name(name), facts, numbers, task.page.template, content)
  numbers['warnings'] = page.warnings(facts, numbers)  # the facts' too: the console tells them
  write_json(workdir / numbers_name(name), numbers)
  return numbers


def _compared(workdir: Path, other: str, name: str) -> dict[str, Any]:
  """Return the numbers of a run beside this one on the same data, and the paired difference."""
  folder = companion_folder(workdir, other)
  metrics = read(folder, numbers_name(name))['metrics']
  difference = paired_difference([workdir], [folder], name)
  return {'name': other, 'metrics': metrics, 'difference': difference}


def _tests(workdir: Path, made: ConfigDict) -> list[dict[str, Any]]:
  """Return of each of config.tests what the run's own page tells; of pooled folds there is none."""
  told = []
  for name in made.tests:
    if (workdir / numbers_name(name)).exists():
      numbers = read(workdir, numbers_name(name))
      kept = {key: numbers[key] for key in ('headline', 'metrics', 'comparison')}
      told.append(dict(kept, name=name, over=console.over(numbers), page=page_name(name)))
  return told


def _not_pooled(config: ConfigDict, plan: Mapping[str, Any]) -> list[str]:
  """Return in words where the numbers of config.tests stand that several folds have."""
  if 'folds' not in plan:
    return []
  return [
    f"{name} (config.tests) was tested by each fold's net alone, and is not pooled: see "
    f'fold0/{page_name(name)} and those of the other folds'
    for name in config.tests
  ]


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
  claim = leakage.claim(overlap, folds, published)
  return claim, leakage.warnings(overlap, bool(tested.get('leak')))


def paired_difference(
  runs: Sequence[Path], others: Sequence[Path], name: str = 'test'
) -> dict[str, Any]:
  """Return {metric: interval} of a run − another, paired on the rows of predictions/<name>.npz.

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
  tables = []
  pairs = []
  for folder in runs:
    tested = predictions.load(folder / 'predictions' / f'{name}.npz')
    val = predictions.load(folder / 'predictions' / 'val.npz')
    tables.append(tested.table)
    pairs.append((tested.predictions, val.predictions))
  return tables[0], pairs


def study_row(runs: Sequence[Path]) -> dict[str, Any]:
  """Return one row of a study.

  It tells name, metrics, what was live in the last phase, FLOPs, seconds and what they were spent
  on. Of several runs, from several seeds, metrics are means, and seconds sums.
  """
  config = read_config(runs[0])
  numbers = read(runs[0], 'numbers.json')
  phase = read(runs[0], 'plan.json')['phases'][-1]
  origins = [read(folder, 'provenance.json') for folder in runs]
  spans = collections.Counter[str]()
  for origin in origins:
    spans.update(origin.get('spans', {}))
  if len(runs) > 1:
    table, pairs = _predicted(runs)
    task = tasks.make(config.task.to_dict())
    numbers['metrics'] = task.summary.seeds(
      pairs, table, threshold=config.threshold, resamples=config.resamples
    )
  row: dict[str, Any] = {'name': runs[0].name, 'seeds': len(runs)}
  row['folds'] = origins[0].get('folds', 0)
  row['seconds'] = sum(origin['seconds'] for origin in origins)
  row['spans'] = dict(spans)
  for name in ('headline', 'images', 'patients', 'metrics', 'warnings'):
    row[name] = numbers[name]
  row['noun'] = console.noun(numbers)
  for name in ('freeze', 'depth', 'live', 'flops'):
    row[name] = phase[name]
  return row


def _facts(
  workdir: Path,
  config: ConfigDict,
  plan: dict[str, Any],
  origin: dict[str, Any],
  tested: dict[str, Any],
) -> dict[str, Any]:
  """Return what the page tells beside the numbers; `tested` are the facts of their data."""
  facts: dict[str, Any] = {'title': workdir.name, 'sentence': _sentence(config, plan)}
  facts['command'] = '\n'.join(filter(None, [origin['command'], tested.get('command')]))
  facts['config'] = config.to_dict()
  facts['monitor'] = config.monitor
  facts['best_step'] = origin.get('best_step')
  facts['splits'] = _splits(plan)
  facts['weights'] = plan['weights']
  facts['phases'] = plan['phases']
  facts['curves'] = run_log.records(workdir / 'metrics.jsonl')
  for name in ('versions', 'hardware', 'seconds'):
    facts[name] = origin[name]
  facts['warnings'] = _warnings(tested)
  facts['notes'] = tested.get('notes', [])
  return facts


def _sentence(config: ConfigDict, plan: dict[str, Any]) -> str:
  """Return in one sentence what was trained, from which weights, on which data, to what end."""
  data = plan['data']['name']
  weights = plan['weights']['name']
  begin = f'{weights} weights' if weights else 'random initialisation'
  side = plan['splits']['train']
  patients = f' of {side["patients"]} patients' if side['patients'] else ''
  what = noun(plan['shape'])
  trained = f'trained on {side["size"]} {what}s{patients} of {data}'
  if 'folds' in plan:
    trained = (
      f'trained in {len(plan["folds"])} folds of {data}, each {what} tested by a net that never '
      'saw its fold,'
    )
  aim = tasks.make(config.task.to_dict()).page.aim(plan['classes'])
  _, _, model = config.model.name.partition('.')
  return f'{model} from {begin}, {trained} {aim}'


def _splits(plan: dict[str, Any]) -> dict[str, Any]:
  """Return the facts of each side, those of every fold by its number."""
  if 'folds' not in plan:
    return plan['splits']
  splits = {}
  for number, sides in enumerate(plan['folds'], 1):
    for side, facts in sides.items():
      splits[f'fold {number} {side}'] = facts
  return splits


def _warnings(tested: Mapping[str, Any]) -> list[str]:
  """Return in words what makes the numbers of these data doubtful."""
  warnings = []
  if tested.get('leak'):
    warnings.append(
      f'{len(tested["leak"])} patients or equal pictures stand on two sides of the split, '
      'which was allowed: the numbers are too good.'
    )
  if tested.get('split_ignored'):
    warnings.append(
      "The source's own train, val and test were mixed and dealt anew; "
      "data.split.by='publisher' keeps them."
    )
  if tested.get('unreadable'):
    named = ', '.join(map(str, tested['unreadable'][:8]))
    warnings.append(
      f'{len(tested["unreadable"])} pictures could not be read and were left out: {named}.'
    )
  return warnings


def headline(workdir: Path, numbers: dict[str, Any], print_line: Callable[[Any], Any]) -> None:
  """Print the numbers, what was frozen, and how the run compares."""
  print_line('')
  print_line(Text(files.printable(console.console(numbers))))
  best_step = read(workdir, 'provenance.json').get('best_step')
  if best_step is not None:
    print_line(f'the checkpoint of step {best_step} is used: the best on validation')
  for row in read(workdir, 'plan.json')['phases']:
    total = row['live'] + row['frozen']
    print_line(
      f'frozen: {row["freeze"]} for {row["steps"]} steps, {row["live"]:,} of {total:,} parameters '
      'live'
    )
  _print_differences(numbers, print_line)
  for note in _not_pooled(read_config(workdir), read(workdir, 'plan.json')):
    print_line(f'· {note}')
  for test in numbers['tests']:
    print_line(f'{test["name"]}, {test["over"]} ({test["page"]})')
    for name in test['headline']:
      print_line(f'  {console.LABELS[name]} {console.words(test["metrics"][name])}')
    _print_differences(test, print_line)


def _print_differences(numbers: Mapping[str, Any], print_line: Callable[[Any], Any]) -> None:
  for other in numbers['comparison']:
    for name in numbers['headline']:
      difference = console.words(other['difference'][name])
      print_line(f'{console.LABELS[name]} minus that of {other["name"]}: {difference}')
