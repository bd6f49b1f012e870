"""The run folder: the only interface between a run and the programs that come after it."""

import collections
import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import runpy
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.text import Text

from medtl import disk, evaluate, hosts, leakage, log, tree
from medtl.report import console, numbers, page
from medtl.spec import nearest
from medtl.types import MedtlError, Table

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'scikit-learn', 'grain')

WHERE = ('mesh', 'shards', 'workers')      # keys that say where a run computes, not what: it may go on elsewhere

# keys that came later, with the value that does what runs without them did
ADDED = {'transfer': 'weights', 'truncate': 0, 'norms': (), 'l2_sp': 0.0, 'views': 0, 'norm_images': 0, 'seeds': 1,
         'remat': (), 'random_frozen': True, 'mesh': {'data': -1, 'fsdp': 1}, 'shards': (('.*', 'largest'),)}


def name(config_name: str, config: ConfigDict) -> str:
  """Return '<config>[-<variant>]-<8 hex of the config>'."""
  path, _, variant = config_name.partition(':')
  return '-'.join([Path(path).stem, *([variant] if variant else []), digest(config)])


def digest(config: ConfigDict) -> str:
  """Return 8 hex digits that stand for every key of the config but where it runs."""
  told = {key: value for key, value in config.to_dict().items() if key not in WHERE}
  return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:8]


def text(config: ConfigDict) -> str:
  """Return the config as JSON."""
  return json.dumps(config.to_dict(), indent=1, sort_keys=True, default=str)


def config(workdir: Path) -> ConfigDict:
  """Return the config that a run folder was made with; tuples come back as tuples."""
  return ConfigDict({**ADDED, **_tuples(read(workdir, 'config.json'))}).lock()


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(inner) for key, inner in value.items()}
  return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def claim(workdir: Path, config: ConfigDict, folds: bool = False) -> None:
  """Make the folder this config's, or check that it is; another config's folder is an error that says what differs.

  `folds`: of the run of every fold, which is no continuation of a run of one.
  """
  path = workdir / 'config.json'
  if workdir.is_file() or (workdir.is_dir() and not path.exists() and any(workdir.iterdir())):
    raise MedtlError(f'{workdir} is no run folder and not empty; choose another --workdir, or leave it out')
  several = any(workdir.glob('fold*/'))
  begun = path.exists() and (several or (workdir / 'plan.json').exists())
  hosts.wait('claim')                                  # all have looked before the first writes
  if not begun:                                        # a command that failed before it began leaves its folder to the next
    disk.write(path, text(config))
    return
  old, new = (tree.flatten({**json.loads(json.dumps(ADDED)), **json.loads(words)}) for words in (path.read_text(), text(config)))
  differ = [f'  {key}: {old.get(key, "(absent)")} there, {new.get(key, "(absent)")} asked for'
            for key in sorted(old.keys() | new.keys()) if old.get(key, None) != new.get(key, None) and key.partition('/')[0] not in WHERE]
  if differ:
    raise MedtlError(f'{workdir} is the run folder of another config:\n' + '\n'.join(differ[:12])
                     + '\nchoose another --workdir, or leave it out')
  if several != folds:
    raise MedtlError(f'{workdir} holds {"every fold" if several else "one split"} of this config, and '
                     f'{"every fold (--folds)" if folds else "one split"} is asked for; choose another --workdir')


def finished(workdir: Path) -> bool:
  """Return whether a run is finished: its numbers are written last."""
  return (workdir / 'numbers.json').exists()


def claimed(workdir: Path) -> None:
  """Check that there is a run folder."""
  if (workdir / 'config.json').exists():
    return
  inside = sorted(str(path.parent) for path in workdir.glob('*/config.json'))
  hint = f'; in it there are: {", ".join(inside)}' if inside else ''
  raise MedtlError(f'{workdir} is no run folder (it has no config.json); expected the folder that a '
                   f'training run printed{hint}')


def write_json(path: Path, value: Any) -> None:
  """Write a value as JSON, numpy numbers and arrays included."""
  disk.write(path, json.dumps(value, indent=1, default=lambda v: v.tolist() if hasattr(v, 'tolist') else str(v)))


def read(workdir: Path, name: str) -> Any:
  """Return the JSON file of that name."""
  path = workdir / name
  if not path.exists():
    raise MedtlError(f'{path} is missing: {workdir} is not the folder of a finished training run; '
                     'start its training command again, or name another --workdir')
  return json.loads(path.read_text())


def hardware() -> str:
  """Return what the run computed on, in words."""
  import jax
  devices = jax.devices()
  cores = f'{os.cpu_count()} cores, {platform.machine()}'
  return f'{len(devices)} × {devices[0].device_kind} ({cores})' if devices[0].platform != 'cpu' else f'CPU, {cores}'


def versions() -> dict[str, str]:
  """Return the versions that decide the numbers."""
  return {'python': platform.python_version(), **{package: importlib.metadata.version(package) for package in PACKAGES}}


def load_config(words: str) -> ConfigDict:
  """Return the locked config that 'configs/x.py:variant' names."""
  path, _, variant = words.partition(':')
  if not Path(path).is_file():
    others = [str(other) for other in Path(path).parent.glob('[!_]*.py') if other.stem != 'base']
    raise MedtlError(f'no config {path!r}; {nearest(path, others)}')
  try:
    found = runpy.run_path(path)['get_config']
  except (SyntaxError, ImportError, KeyError) as error:
    raise MedtlError(f'{path} is no config: {type(error).__name__} {error}; expected a Python file with get_config()') from None
  if variant and not inspect.signature(found).parameters:
    raise MedtlError(f'{path} has no variants, found {variant!r}; leave it out')
  try:
    made = found(variant) if variant else found()
  except TypeError as error:
    if not str(error).startswith('Could not override field'):
      raise
    raise MedtlError(f'{path} sets a key to a value of another kind: {error}') from None
  return made.lock()


def provenance(workdir: Path, command: str, spans: Mapping[str, float], outcome: dict[str, Any]) -> None:
  """Write what made the run: command, versions, hardware, seconds and what they were spent on, when, which checkpoint was chosen."""
  write_json(workdir / 'provenance.json', {
    'command': command, 'versions': versions(), 'hardware': hardware(), 'seconds': sum(spans.values()), 'spans': spans,
    'finished': time.strftime('%Y-%m-%d %H:%M:%S %z'), **outcome})


def page_name(name: str) -> str:
  """Return the page's file name: the test set's is report.html."""
  return 'report.html' if name == 'test' else f'report-{name}.html'


def report(workdir: Path, name: str = 'test') -> dict[str, Any]:
  """Return the numbers of predictions/<name>.npz, and write them and the page, from the run folder alone."""
  made = config(workdir)
  plan, origin = read(workdir, 'plan.json'), read(workdir, 'provenance.json')
  _predicted_under(workdir, name)
  test, val = (evaluate.load(workdir / 'predictions' / f'{side}.npz') for side in (name, 'val'))
  predictions, tables = {'test': test.predictions, 'val': val.predictions}, {'test': test.table, 'val': val.table}
  found = numbers.summarise(predictions, tables, test.classes, plan['kind'], threshold=made.threshold, resamples=made.resamples)
  others = [(other, companion(workdir, other)) for other, _ in made.compare] if name == 'test' else []
  found['comparison'] = [{'name': other, 'metrics': read(folder, 'numbers.json')['metrics'], 'difference': difference([workdir], [folder])}
                         for other, folder in others]
  outside = workdir / 'predictions' / f'{name}.json'
  data = plan['data'] if name == 'test' else read(outside.parent, outside.name)
  claim, doubts = _independence(workdir, plan, name, data)
  facts: Any = {**_facts(workdir, made, plan, origin, data), 'data': data,
                'comparison': found['comparison'], 'claim': claim}
  facts['warnings'] = [*doubts, *facts['warnings']]
  if name != 'test':
    facts['splits'] = {name: {'size': len(test.predictions.row), 'patients': found['patients'], 'hash': '', 'classes': {}}}
  page.write(workdir / page_name(name), facts, found, predictions, tables,
             images=lambda index: test.pictures[int(test.predictions.row[index])])
  found['warnings'] = page.warnings(facts, found)      # those of the facts too: the console tells them
  write_json(workdir / ('numbers.json' if name == 'test' else f'numbers-{name}.json'), found)
  return found


def _predicted_under(workdir: Path, name: str) -> None:
  """Raise where no data were evaluated under that name."""
  folder = workdir / 'predictions'
  if name == 'test' or (folder / f'{name}.json').exists():
    return
  others = sorted(path.stem for path in folder.glob('*.json'))
  raise MedtlError(f'{workdir} holds no numbers of other data called {name!r}; '
                   f'{nearest(name, ["test", *others])}. Evaluate them first: evaluate '
                   f'--workdir={workdir} --name={name} --config.data.root=OTHER')


def _independence(workdir: Path, plan: dict[str, Any], name: str,
                  tested: Mapping[str, Any]) -> tuple[str, list[str]]:
  """Return (whether the tested pictures were used before, in words; warnings where they were)."""
  folds = len(plan['folds']) if 'folds' in plan else 0
  folders = [workdir / f'fold{number}' for number in range(folds)] or [workdir]
  parts = [leakage.kept(folder, name) for folder in folders]
  known = [part for part in parts if part is not None]
  overlap = leakage.pooled(known) if len(known) == len(parts) else None
  published = 'sha256' in plan['weights']
  return leakage.claim(overlap, folds, published), leakage.warnings(overlap, bool(tested.get('leak')))


def companion(workdir: Path, name: str) -> Path:
  """Return the folder of a run that this one is compared with."""
  return workdir / 'compare' / name.replace(' ', '_')


def difference(runs: Sequence[Path], others: Sequence[Path]) -> dict[str, Any]:
  """Return {metric: interval} of a run − another on the same test rows, paired; of each there may be several, from several seeds."""
  made, kind, (table, first), (_, second) = config(runs[0]), read(runs[0], 'plan.json')['kind'], _predicted(runs), _predicted(others)
  return numbers.compare(first, second, table, kind, threshold=made.threshold, resamples=made.resamples)


def _predicted(runs: Sequence[Path]) -> tuple[Table, list[numbers.Pair]]:
  """Return the table of the test side, and each run's predictions of test and validation."""
  found = [[evaluate.load(folder / 'predictions' / f'{side}.npz') for side in ('test', 'val')] for folder in runs]
  return found[0][0].table, [(test.predictions, val.predictions) for test, val in found]


def row(runs: Sequence[Path]) -> dict[str, Any]:
  """Return one row of a study: name, metrics, what was live in the last phase, FLOPs, seconds and what they were spent on.

  Of several runs, from several seeds, metrics are means, and seconds sums.
  """
  found, phase, made = read(runs[0], 'numbers.json'), read(runs[0], 'plan.json')['phases'][-1], config(runs[0])
  spent = [read(folder, 'provenance.json') for folder in runs]
  spans = collections.Counter[str]()
  for one in spent:
    spans.update(one.get('spans', {}))
  if len(runs) > 1:
    table, pairs = _predicted(runs)
    found['metrics'] = numbers.several(pairs, table, found['kind'], threshold=made.threshold, resamples=made.resamples)
  return {'name': runs[0].name, 'seeds': len(runs), 'folds': spent[0].get('folds', 0), 'seconds': sum(one['seconds'] for one in spent),
          'spans': dict(spans), **{name: found[name] for name in ('headline', 'images', 'patients', 'metrics', 'warnings')},
          **{name: phase[name] for name in ('freeze', 'depth', 'live', 'flops')}}


def _facts(workdir: Path, made: ConfigDict, plan: dict[str, Any], origin: dict[str, Any], tested: dict[str, Any]) -> dict[str, Any]:
  """Return what the page tells beside the numbers; `tested` are the facts of the data that these are of."""
  data, weights = plan['data'], plan['weights']
  begin = f'{weights["name"]} weights' if weights['name'] else 'random initialisation'
  size = plan['splits']['train']
  people = f' of {size["patients"]} patients' if size['patients'] else ''
  trained = f'trained on {size["size"]} images{people} of {data["name"]}'
  if 'folds' in plan:
    trained = f'trained in {len(plan["folds"])} folds of {data["name"]}, each image tested by a net that never saw its fold,'
  sentence = f'{made.model.name.partition(".")[2]} from {begin}, {trained} to tell {len(plan["classes"])} classes apart'
  warnings = []
  if tested.get('leak'):
    warnings.append(f'{len(tested["leak"])} patients or equal pictures stand on two sides of the split, '
                    'which was allowed: the numbers are too good.')
  if tested.get('split_ignored'):
    warnings.append("The source's own train, val and test were mixed and dealt anew; data.split.by='publisher' keeps them.")
  if tested.get('unreadable'):
    named = ', '.join(map(str, tested['unreadable'][:8]))
    warnings.append(f'{len(tested["unreadable"])} pictures could not be read and were left out: {named}.')
  return {'title': workdir.name, 'sentence': sentence, 'command': origin['command'], 'config': made.to_dict(), 'monitor': made.monitor,
          'best_step': origin.get('best_step'),
          'splits': {f'fold {i + 1} {side}': facts for i, sides in enumerate(plan['folds']) for side, facts in sides.items()}
          if 'folds' in plan else plan['splits'], 'weights': weights, 'phases': plan['phases'],
          'curves': log.records(workdir / 'metrics.jsonl'), 'versions': origin['versions'], 'hardware': origin['hardware'],
          'seconds': origin['seconds'], 'warnings': warnings, 'notes': tested.get('notes', [])}


def headline(workdir: Path, found: dict[str, Any], print_line: Callable[[Any], Any]) -> None:
  """Print the numbers, what was frozen, and how the run compares."""
  print_line('')
  print_line(Text(disk.printable(console.console(found))))
  for row in read(workdir, 'plan.json')['phases']:
    print_line(f'frozen: {row["freeze"]} for {row["steps"]} steps, {row["live"]:,} of {row["live"] + row["frozen"]:,} parameters live')
  for other in found['comparison']:
    for name in found['headline']:
      print_line(f'{console.LABELS[name]} minus that of {other["name"]}: {console.words(other["difference"][name])}')
