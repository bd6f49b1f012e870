"""The run folder: the only interface between a run and the programs that come after it."""

import collections
import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.text import Text

from medtl import tasks
from medtl.core import pytrees, user_files
from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError, Predictions, Table
from medtl.evaluation import predictions
from medtl.report import console, page
from medtl.run import leakage
from medtl.runtime import files, multihost, run_log

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'scikit-learn', 'grain')

LOCK = 'lock'  # of the process that works in a run folder

WHERE = (
  'mesh',
  'shards',
  'workers',
)  # keys that say where a run computes, not what: it may go on elsewhere

# What to do where a file is damaged.
ADVICE = {
  'config.json': 'put back what it was, or train anew in another --workdir',
  **dict.fromkeys(
    ('plan.json', 'provenance.json', 'numbers.json'),
    'delete numbers.json, if it is there, and start the training command again: it '
    'writes this file anew, and trains no step again',
  ),
}

# keys that came later, with the value that does what runs without them did
ADDED = {
  'streams': {},
  'tests': {},
  'transfer': 'weights',
  'truncate': 0,
  'norms': (),
  'l2_sp': 0.0,
  'views': 0,
  'norm_images': 0,
  'seeds': 1,
  'remat': (),
  'random_frozen': True,
  'mesh': {'data': -1, 'fsdp': 1},
  'shards': (('.*', 'largest'),),
}


def default_name(config_name: str, config: ConfigDict) -> str:
  """Return '<config>[-<variant>]-<8 hex of the config>'."""
  path, variant = _parted(config_name)
  return '-'.join([Path(path).stem, *([variant] if variant else []), digest(config)])


def digest(config: ConfigDict) -> str:
  """Return 8 hex digits that stand for every key of the config but where it runs."""
  told = {key: value for key, value in config.to_dict().items() if key not in WHERE}
  return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:8]


def config_json(config: ConfigDict) -> str:
  """Return the config as JSON."""
  return json.dumps(config.to_dict(), indent=1, sort_keys=True, default=str)


def read_config(workdir: Path) -> ConfigDict:
  """Return the config that a run folder was made with; tuples come back as tuples."""
  return ConfigDict(_as_today(_tuples(read(workdir, 'config.json')))).lock()


def _as_today(keys: dict[str, Any]) -> dict[str, Any]:
  """Return the keys of a config that an older version wrote, as this one would have written them."""
  task = {'name': 'classification', **keys.get('task', {})}  # there was no other one
  return {**ADDED, **keys, 'task': task}


def read_plan(workdir: Path) -> dict[str, Any]:
  """Return plan.json, of an older version with the keys that this one adds."""
  plan = read(workdir, 'plan.json')
  if 'kind' in plan:
    plan.setdefault('label_columns', plan['kind'] == 'multilabel')
  return plan


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(inner) for key, inner in value.items()}
  return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


@contextlib.contextmanager
def open_unfinished(workdir: Path, config: ConfigDict, folds: bool = False) -> Iterator[bool]:
  """Give whether a run is still to be done.

  If so, the folder is claimed, and other processes are kept out of it while this is open. A
  finished run is only read, by as many processes as like to.
  """
  if is_finished(workdir):
    open_or_verify(workdir, config, folds)
    yield False
    return
  with occupied(workdir, config, folds):
    to_do = not is_finished(workdir)  # a process that was here until now may have ended it
    if to_do and multihost.is_main_process():
      for path in (*workdir.glob('*.part'), *workdir.glob('predictions/*.part')):
        path.unlink()  # half-written by a process that was killed
    yield to_do


@contextlib.contextmanager
def occupied(workdir: Path, config: ConfigDict, folds: bool = False) -> Iterator[None]:
  """Claim a folder, and keep other processes out of it while this is open."""
  _refuse_foreign(workdir)
  with files.exclusive_lock(workdir / LOCK):
    open_or_verify(workdir, config, folds)
    yield


def _refuse_foreign(workdir: Path) -> None:
  """Raise a MedtlError where a folder has no config, and yet more than a killed process leaves."""
  if not workdir.is_dir():
    foreign = workdir.exists()
  else:
    others = [path for path in workdir.iterdir() if path.name != LOCK and path.suffix != '.part']
    foreign = bool(others) and not (workdir / 'config.json').exists()
  if foreign:
    raise MedtlError(
      f'{workdir} is no run folder and not empty; choose another --workdir, or leave it out'
    )


def has_begun(workdir: Path) -> bool:
  """Return whether a run has begun in a folder; a command that failed before leaves it to the next."""
  signs = [workdir / name for name in ('plan.json', 'checkpoints', 'numbers.json')]
  several = any(workdir.glob('fold*/'))
  return (workdir / 'config.json').exists() and (several or any(sign.exists() for sign in signs))


def open_or_verify(workdir: Path, config: ConfigDict, folds: bool = False) -> None:
  """Make the folder this config's, or check that it is; another config's folder is an error that says what differs.

  `folds`: of the run of every fold, which is no continuation of a run of one.
  """
  _refuse_foreign(workdir)
  path = workdir / 'config.json'
  several, there = any(workdir.glob('fold*/')), has_begun(workdir)
  multihost.barrier('claim')  # all have looked before the first writes
  if not there:
    files.write(path, config_json(config))
    return
  old = pytrees.flatten(json.loads(json.dumps(_as_today(read(workdir, path.name)))))
  new = pytrees.flatten(json.loads(config_json(config)))
  differ = [
    f'  {key}: {old.get(key, "(absent)")} there, {new.get(key, "(absent)")} asked for'
    for key in sorted(old.keys() | new.keys())
    if old.get(key, None) != new.get(key, None) and key.partition('/')[0] not in WHERE
  ]
  if differ:
    raise MedtlError(
      f'{workdir} is the run folder of another config:\n'
      + '\n'.join(differ[:12])
      + '\nchoose another --workdir, or leave it out'
    )
  if several != folds:
    raise MedtlError(
      f'{workdir} holds {"every fold" if several else "one split"} of this config, and '
      f'{"every fold (--folds)" if folds else "one split"} is asked for; choose another --workdir'
    )


def is_finished(workdir: Path) -> bool:
  """Return whether a run is finished: its numbers are written last."""
  return (workdir / 'numbers.json').exists()


def require(workdir: Path) -> ConfigDict:
  """Return the config of a run folder, which must be there and whole."""
  if not (workdir / 'config.json').exists():
    inside = sorted(str(path.parent) for path in workdir.glob('*/config.json'))
    hint = f'; in it there are: {", ".join(inside)}' if inside else ''
    raise MedtlError(
      f'{workdir} is no run folder (it has no config.json); expected the folder that a '
      f'training run printed{hint}'
    )
  return _complete(read_config(workdir), str(workdir / 'config.json'), ADVICE['config.json'])


def write_json(path: Path, value: Any) -> None:
  """Write a value as JSON, numpy numbers and arrays included."""
  files.write(
    path,
    json.dumps(value, indent=1, default=lambda v: v.tolist() if hasattr(v, 'tolist') else str(v)),
  )


def read(workdir: Path, name: str) -> dict[str, Any]:
  """Return the JSON file of that name."""
  path = workdir / name
  if not path.exists() and not is_finished(workdir):
    raise MedtlError(
      f'{path} is missing: {workdir} is not the folder of a finished training run; '
      'start its training command again, or name another --workdir'
    )
  advice = ADVICE.get(name, f'start evaluate with --name={path.stem} again')
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise MedtlError(f'{path} is missing, of a run that is finished; {advice}') from None
  except ValueError as error:
    raise MedtlError(f'{path} is damaged ({error}); {advice}') from None
  if not isinstance(found, dict):
    raise MedtlError(f'{path} is damaged (it holds a {type(found).__name__}); {advice}')
  return _Read(found, path, advice)


class _Read(dict):
  """What a file of a run folder holds; a key that is not there is a MedtlError."""

  def __init__(self, found: dict[str, Any], path: Path, advice: str):
    super().__init__(found)
    self.path, self.advice = path, advice

  def __missing__(self, key: str) -> Any:
    raise MedtlError(
      f'{self.path} has no {key!r}, as if another version of medtl had written it; {self.advice}'
    )


def hardware() -> str:
  """Return what the run computed on, in words."""
  import jax

  devices = jax.devices()
  cores = f'{os.cpu_count()} cores, {platform.machine()}'
  return (
    f'{len(devices)} × {devices[0].device_kind} ({cores})'
    if devices[0].platform != 'cpu'
    else f'CPU, {cores}'
  )


def versions() -> dict[str, str]:
  """Return the versions that decide the numbers."""
  return {
    'python': platform.python_version(),
    **{package: importlib.metadata.version(package) for package in PACKAGES},
  }


def load_config(words: str) -> ConfigDict:
  """Return the locked config that 'configs/x.py:variant' names."""
  name, variant = _parted(words)
  path = user_files.locate(name)
  if not path.is_file():
    there = user_files.configs(path.parent)
    raise MedtlError(f'no config {name!r}; {did_you_mean(name, there)}')
  with user_files.defined(path, 'a Python file with get_config()') as made:
    get_config = made.get('get_config')
    if not callable(get_config):
      raise MedtlError(
        f'{path} is no config: it has no function get_config(); expected a Python '
        'file with get_config()'
      )
    arguments = [variant] if variant else []
    try:
      inspect.signature(get_config).bind(*arguments)
    except TypeError:
      said = (
        f'{path} has no variants, found {variant!r}; leave it out'
        if variant
        else f'{path} needs a variant; give one: --config={name}:VARIANT'
      )
      raise MedtlError(said) from None
    try:
      found = get_config(*arguments)
    except TypeError as error:
      if not str(error).startswith('Could not override field'):
        raise
      raise MedtlError(f'{path} sets a key to a value of another kind: {error}') from None
  if not isinstance(found, ConfigDict):
    raise MedtlError(
      f'get_config() of {path} returned {found!r}; expected what base.get_config() '
      'returns, with changes'
    )
  return _complete(found.lock(), str(path), 'begin with base.get_config(), which holds every key')


def _parted(words: str) -> tuple[str, str]:
  """Return (path, variant) of 'configs/x.py:variant'.

  >>> _parted('configs/x.py'), _parted('/a:b/x.py:small')
  (('configs/x.py', ''), ('/a:b/x.py', 'small'))
  """
  path, colon, variant = words.rpartition(':')
  is_path = '/' in variant or variant.endswith('.py')
  return (path, variant) if colon and not is_path else (words, '')


def _complete(found: ConfigDict, where: str, advice: str) -> ConfigDict:
  """Return a config that has every key of configs/base.py, and say which it has beside these."""
  base = user_files.SHIPPED / 'configs' / 'base.py'
  if not base.is_file():  # medtl was installed without them
    return found
  with user_files.defined(base, 'the defaults') as made:
    known = made['get_config']().keys()
  lacking = [key for key in known if key not in found]
  unknown = [key for key in found if key not in known]
  if lacking:
    raise MedtlError(f'{where} lacks {", ".join(lacking)}; {advice}')
  if unknown:
    run_log.console.print(
      f'{where}: this version of medtl knows no {", ".join(unknown)}, and does not heed it'
    )
  return found


def write_provenance(
  workdir: Path, command: str, spans: Mapping[str, float], outcome: dict[str, Any]
) -> None:
  """Write what made the run: command, versions, hardware, seconds and what they were spent on, when, which checkpoint was chosen."""
  write_json(
    workdir / 'provenance.json',
    {
      'command': command,
      'versions': versions(),
      'hardware': hardware(),
      'seconds': sum(spans.values()),
      'spans': spans,
      'finished': time.strftime('%Y-%m-%d %H:%M:%S %z'),
      **outcome,
    },
  )


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
    facts['splits'] = {
      name: {
        'size': len(test.predictions.row),
        'patients': found['patients'],
        'hash': '',
        'classes': {},
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


def companion_folder(workdir: Path, name: str) -> Path:
  """Return the folder of a run that this one is compared with."""
  return workdir / 'compare' / name.replace(' ', '_')


def paired_difference(
  runs: Sequence[Path], others: Sequence[Path], name: str = 'test'
) -> dict[str, Any]:
  """Return {metric: interval} of a run − another, paired, on the rows of predictions/<name>.npz.

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
