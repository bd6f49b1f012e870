"""The run folder: the only interface between a run and the programs that come after it."""

import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from medtl.core import pytrees, user_files
from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError
from medtl.run import config_keys
from medtl.runtime import files, multihost, run_log

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'scikit-learn', 'grain')

LOCK = 'lock'  # of the process that works in a run folder

# What to do where a file is damaged.
ADVICE = {
  'config.json': 'put back what it was, or train anew in another --workdir',
  **dict.fromkeys(
    ('plan.json', 'provenance.json', 'numbers.json'),
    'delete numbers.json, if it is there, and start the training command again: it '
    'writes this file anew, and trains no step again',
  ),
}


def default_name(config_name: str, config: ConfigDict) -> str:
  """Return '<config>[-<variant>]-<8 hex of the config>'."""
  path, variant = _parted(config_name)
  parts = [Path(path).stem, variant, digest(config)]
  return '-'.join(filter(None, parts))


def digest(config: ConfigDict) -> str:
  """Return 8 hex digits that stand for every key of the config but where it runs."""
  places = config_keys.changing('place')
  kept = {key: value for key, value in config.to_dict().items() if key not in places}
  text = json.dumps(kept, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def config_json(config: ConfigDict) -> str:
  """Return the config as JSON."""
  return json.dumps(config.to_dict(), indent=1, sort_keys=True, default=str)


def read_config(workdir: Path) -> ConfigDict:
  """Return the config that a run folder was made with; tuples come back as tuples."""
  return ConfigDict(_as_today(_tuples(read(workdir, 'config.json')))).lock()


def _as_today(keys: dict[str, Any]) -> dict[str, Any]:
  """Return the keys of a config that an older version wrote as this one writes them."""
  task = {'name': 'classification', **keys.get('task', {})}  # there was no other one
  today = {**config_keys.added(), **keys, 'task': task}
  head = keys.get('head', {})
  if isinstance(head.get('norm'), bool):  # a BatchNorm or none, before there was a LayerNorm
    today['head'] = {**head, 'norm': 'batch' if head['norm'] else ''}
  return today


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
  """Return whether a run has begun in a folder; else it is left to the next command."""
  signs = [workdir / name for name in ('plan.json', 'checkpoints', 'numbers.json')]
  several = any(workdir.glob('fold*/'))
  begun = several or any(sign.exists() for sign in signs)
  return begun and (workdir / 'config.json').exists()


def open_or_verify(workdir: Path, config: ConfigDict, folds: bool = False) -> None:
  """Make the folder this config's, or check that it is.

  Another config's folder is an error that says what differs; a run that is not finished may get
  other config.tests. `folds`: of the run of every fold, which is no continuation of a run of one.
  """
  _refuse_foreign(workdir)
  path = workdir / 'config.json'
  several = any(workdir.glob('fold*/'))
  begun = has_begun(workdir)
  multihost.barrier('claim')  # all have looked before the first writes
  if not begun:
    files.write(path, config_json(config))
    return
  there = _as_today(read(workdir, path.name))
  other_tests = bool(_differences({**config.to_dict(), 'tests': there['tests']}, config))
  finished = is_finished(workdir)
  if other_tests and not finished:  # they are read when the run ends
    there['tests'] = config.tests.to_dict()
  differences = _differences(there, config)
  if differences:
    shown = '\n'.join(differences[:12])
    advice = 'choose another --workdir, or leave it out'
    if other_tests and finished:
      advice += (
        f'. The run is finished: evaluate --workdir={shlex.quote(str(workdir))} --name=NAME '
        '--config.data.root=OTHER tests it on further data'
      )
    raise MedtlError(f'{workdir} is the run folder of another config:\n{shown}\n{advice}')
  if several != folds:
    held = 'every fold' if several else 'one split'
    asked = 'every fold (--folds)' if folds else 'one split'
    raise MedtlError(
      f'{workdir} holds {held} of this config, and {asked} is asked for; choose another --workdir'
    )
  if other_tests:
    files.write(path, config_json(config))


def _differences(keys: dict[str, Any], config: ConfigDict) -> list[str]:
  """Return in words where the keys of a run folder and a config differ, but for where it runs."""
  old = pytrees.flatten(json.loads(json.dumps(keys)))
  new = pytrees.flatten(json.loads(config_json(config)))
  places = config_keys.changing('place')
  words = []
  for key in sorted(old.keys() | new.keys()):
    name = key.partition('/')[0]
    if old.get(key) != new.get(key) and name not in places:
      there = old.get(key, '(absent)')
      asked = new.get(key, '(absent)')
      words.append(f'  {key}: {there} there, {asked} asked for')
  return words


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

  def plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, 'tolist') else str(value)

  files.write(path, json.dumps(value, indent=1, default=plain))


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
    content = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise MedtlError(f'{path} is missing, of a run that is finished; {advice}') from None
  except ValueError as error:
    raise MedtlError(f'{path} is damaged ({error}); {advice}') from None
  if not isinstance(content, dict):
    raise MedtlError(f'{path} is damaged (it holds a {type(content).__name__}); {advice}')
  return _Read(content, path, advice)


class _Read(dict):
  """What a file of a run folder holds; a key that is not there is a MedtlError."""

  def __init__(self, content: dict[str, Any], path: Path, advice: str):
    super().__init__(content)
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
  if devices[0].platform == 'cpu':
    return f'CPU, {cores}'
  return f'{len(devices)} × {devices[0].device_kind} ({cores})'


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
  with user_files.defined(path, 'a Python file with get_config()') as names:
    get_config = names.get('get_config')
    if not callable(get_config):
      raise MedtlError(
        f'{path} is no config: it has no function get_config(); expected a Python '
        'file with get_config()'
      )
    arguments = [variant] if variant else []
    try:
      inspect.signature(get_config).bind(*arguments)
    except TypeError:
      problem = f'{path} needs a variant; give one: --config={name}:VARIANT'
      if variant:
        problem = f'{path} has no variants, found {variant!r}; leave it out'
      raise MedtlError(problem) from None
    with user_files.explained(path, 'get_config() to return the config'):
      config = _called(get_config, arguments, path)
  if not isinstance(config, ConfigDict):
    raise MedtlError(
      f'get_config() of {path} returned {config!r}; expected what base.get_config() '
      'returns, with changes'
    )
  return _complete(config.lock(), str(path), 'begin with base.get_config(), which holds every key')


def _called(get_config: Callable, arguments: Sequence[str], path: Path) -> Any:
  """Return what get_config() returns; a MedtlError says which value ml_collections refuses."""
  try:
    return get_config(*arguments)
  except TypeError as error:
    if not str(error).startswith('Could not override field'):
      raise
    raise MedtlError(f'{path} sets a key to a value of another kind: {error}') from None
  except ValueError as error:
    dotted = re.search('dots in field names.*the key (.*) contains one', str(error))
    if not dotted:
      raise
    raise MedtlError(
      f'{path}: the name {dotted[1]!r} holds a dot, and no key of a config may. data.rename also '
      f"takes pairs, (({dotted[1]!r}, 'new name'),); a name in config.tests or config.streams "
      'takes letters, digits, _ and -'
    ) from None


def _parted(words: str) -> tuple[str, str]:
  """Return (path, variant) of 'configs/x.py:variant'.

  >>> _parted('configs/x.py'), _parted('/a:b/x.py:small')
  (('configs/x.py', ''), ('/a:b/x.py', 'small'))
  """
  path, colon, variant = words.rpartition(':')
  is_path = '/' in variant or variant.endswith('.py')
  return (path, variant) if colon and not is_path else (words, '')


def _complete(config: ConfigDict, where: str, advice: str) -> ConfigDict:
  """Return a config that has every declared key, and say which it has beside these."""
  known = config_keys.KEYS
  lacking = [key for key in known if key not in config]
  unknown = [key for key in config if key not in known]
  if lacking:
    raise MedtlError(f'{where} lacks {", ".join(lacking)}; {advice}')
  if unknown:
    run_log.console.print(
      f'{where}: this version of medtl knows no {", ".join(unknown)}, and does not heed it'
    )
  return config


def write_provenance(
  workdir: Path, command: str, spans: Mapping[str, float], outcome: dict[str, Any]
) -> None:
  """Write what made the run.

  It tells command, versions, hardware, seconds and what they were spent on, when it was finished,
  which checkpoint was chosen.
  """
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


def companion_folder(workdir: Path, name: str) -> Path:
  """Return the folder of a run that this one is compared with."""
  return workdir / 'compare' / name.replace(' ', '_')
