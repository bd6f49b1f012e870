"""python -m medtl.main [verb] --config=configs/x.py[:variant] [--config.key=value …] [--workdir=DIR]

verbs
  train      train, evaluate and report (the default); continues a run that was stopped; --folds: every fold, pooled out of fold
  describe   what would move, what it costs, how long it takes; trains nothing
  evaluate   --workdir=RUN [--config.data.root=… --name=NAME]: predictions and report, also on another data set
  report     --workdir=RUN: write report.html again from the run folder alone
  predict    --workdir=RUN --images=FOLDER [--output=FILE.csv]: class probabilities of unlabelled pictures
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VERBS = ('train', 'describe', 'evaluate', 'report', 'predict')


def quiet_cpu() -> None:
  """Choose the CPU where no NVIDIA driver and no TPU is, before jax is imported: the CUDA build prints a traceback otherwise."""
  if 'JAX_PLATFORMS' in os.environ or any(Path('/dev').glob('accel*')):
    return
  smi = shutil.which('nvidia-smi')
  if not smi or subprocess.run([smi, '-L'], capture_output=True).returncode:
    os.environ['JAX_PLATFORMS'] = 'cpu'


def main(argv: list[str] | None = None) -> int:
  """Run one verb; return the exit status: 0 done, 1 a mistake (said in words), 143 stopped by a signal, state safe."""
  argv = list(sys.argv[1:] if argv is None else argv)
  verb = argv.pop(0) if argv and not argv[0].startswith('-') else 'train'
  if {'-h', '--help', '--helpshort'} & set(argv) or verb == 'help':
    print(__doc__)
    return 0
  quiet_cpu()
  from medtl.loop import Terminated
  from medtl.types import MedtlError
  try:
    if verb not in VERBS:
      from medtl.spec import nearest
      raise MedtlError(f'unknown verb {verb!r}; {nearest(verb, VERBS)}')
    return _call(verb, argv)
  except MedtlError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except OSError as error:
    if error.errno != 28:              # ENOSPC
      raise
    print(f'error: no space left on the disk of {error.filename or "the run folder"}; make room and start the same command again: '
          'the run continues', file=sys.stderr)
    return 1
  except Terminated as error:
    print(f'{error}; the state is saved: the same command continues', file=sys.stderr)
    return 143


def _call(verb: str, argv: list[str]) -> int:
  flags, config, name = _flags(verb, argv)
  import jax
  from absl import logging

  from medtl import fetch, run, runfolder, study
  from medtl.log import console
  logging.set_verbosity(logging.ERROR)               # orbax tells of every save
  if flags.offline:
    os.environ['MEDTL_OFFLINE'] = '1'
  jax.config.update('jax_compilation_cache_dir', str(fetch.cache_folder() / 'compiled'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  workdir = Path(flags.workdir) if flags.workdir else Path('runs') / runfolder.name(name, config)
  command = ' '.join(['python -m medtl.main', *([verb] if verb != 'train' else []), *argv])
  begin = time.time()
  call: dict[str, Callable[[], Any]] = {
    'train': lambda: (study.folds if flags.folds else run.train)(config, workdir, command),
    'describe': lambda: run.explain(config, workdir),
    'evaluate': lambda: run.evaluate_again(config, workdir, flags.name),
    'report': lambda: runfolder.report(workdir, flags.name),
    'predict': lambda: run.predict(config, workdir, Path(flags.images), Path(flags.output or workdir / 'predictions.csv')),
  }
  numbers = call[verb]()
  if verb in ('train', 'evaluate', 'report'):
    runfolder.headline(workdir, numbers, console.print)
    console.print(f'{time.time() - begin:.0f} s; the page: {workdir / runfolder.page_name(flags.name)}')
  return 0


def _flags(verb: str, argv: list[str]) -> tuple[Any, Any, str]:
  """Return (flags, locked config, its name). Verbs that start from a run folder take its config.json as the default."""
  from absl import flags
  from ml_collections import config_flags

  from medtl import runfolder
  from medtl.types import MedtlError
  values = flags.FlagValues()
  flags.DEFINE_string('workdir', '', 'run folder', flag_values=values)
  flags.DEFINE_bool('folds', False, 'train every fold and pool the out-of-fold predictions', flag_values=values)
  flags.DEFINE_bool('offline', False, 'never ask the network', flag_values=values)
  flags.DEFINE_string('images', '', 'folder of unlabelled pictures', flag_values=values)
  flags.DEFINE_string('output', '', 'csv file', flag_values=values)
  flags.DEFINE_string('name', 'test', 'name of the predictions', flag_values=values)
  workdir = next((word.partition('=')[2] for word in argv if word.startswith('--workdir=')), '')
  given = any(word.startswith('--config=') for word in argv)
  if verb in ('evaluate', 'report', 'predict'):
    if not workdir or given:
      raise MedtlError(f'{verb} works from a run folder: --workdir=RUN (and no --config: the run folder has its own)')
    runfolder.claimed(Path(workdir))
    config, argv = _other_source(runfolder.config(Path(workdir)), argv)
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=['medtl', *argv])
  elif given:
    _exists(next(word.partition('=')[2] for word in argv if word.startswith('--config=')))
    config_flags.DEFINE_config_file('config', lock_config=True, flag_values=values, sys_argv=['medtl', *argv])
  else:
    raise MedtlError(f'{verb} needs --config=configs/x.py; the configs are: '
                     + ', '.join(sorted(str(path) for path in Path('configs').glob('[!_]*.py') if path.stem != 'base')))
  rest = _parse(values, argv)
  if rest:
    raise MedtlError(f'unexpected argument {rest[0]!r}; options are written --name=value')
  name = next((word.partition('=')[2] for word in argv if word.startswith('--config=')), workdir)
  values.config.lock()
  return values, values.config, name


def _other_source(config: Any, argv: list[str]) -> tuple[Any, list[str]]:
  """Return the config with `data` replaced whole where --config.data.name names another source, and the arguments that are left.

  The run's ops stay; every other key of the new source is one that the command line gives.
  """
  import ast

  from ml_collections import ConfigDict
  mark = '--config.data.'
  given = dict(word.removeprefix(mark).partition('=')[::2] for word in argv if word.startswith(mark) and '=' in word)
  if given.get('name', config.data.name) == config.data.name:
    return config, argv

  def literal(text: str) -> Any:
    try:
      return ast.literal_eval(text)
    except (ValueError, SyntaxError):
      return text
  new = ConfigDict(config.to_dict())
  new.data = ConfigDict({'ops': config.data.ops, 'split': {'by': 'none'}, **{key: literal(text) for key, text in given.items()}})
  return new.lock(), [word for word in argv if not word.startswith(mark)]


def _exists(path: str) -> None:
  from medtl.spec import nearest
  from medtl.types import MedtlError
  file = Path(path.partition(':')[0])
  if not file.is_file():
    raise MedtlError(f'no config {file}; {nearest(str(file), [str(other) for other in file.parent.glob("[!_]*.py")])}')


def _parse(values: Any, argv: list[str]) -> list[str]:
  from absl import flags

  from medtl.types import MedtlError
  try:
    return values(['medtl', *argv])[1:]
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise MedtlError(_words(str(error.args[0] if error.args else error))) from None


def _words(said: str) -> str:
  """Return what absl or ml_collections said as one plain sentence."""
  if 'Traceback' in said:                                      # the whole trace of a config's own error
    return said.strip().splitlines()[-1].partition(': ')[2]
  key = re.search(r"(\w+)\W+n?Did you mean \W?(\w+)\W? instead", said)
  return f'no config key {key[1]!r}; did you mean {key[2]!r}?' if key else said.strip('"\'')


if __name__ == '__main__':
  sys.exit(main())
