"""python -m medtl.main [verb] --config=configs/x.py[:variant] [--config.key=value …]
                      [--workdir=DIR]

verbs
  train      train, evaluate and report (the default); continues a run that was stopped
             --folds: every fold, pooled out of fold
  ablate     --sweep=experiments/x.py [--folds] [--only=NAME,…]: every variant that the file's
             sweep yields, compared pair by pair
             --only: these are trained now, and reported with those that are finished
  probe      [--folds] [--layers=N]: linear heads by the hundred on frozen features, chosen on
             validation, beside the exact solutions
  lr_find    a range test of config.lr for the last phase, with its plot
  describe   what would move, what it costs, how long it takes; trains nothing
              --parameters: every array with its shape, mean and std
  evaluate   --workdir=RUN [--config.data.root=… --name=NAME]: predictions and report, also on
              another data set
  report     --workdir=RUN: write report.html again from the run folder alone
  predict    --workdir=RUN --images=FOLDER or FILE [--output=FILE.csv]: class probabilities, or
             masks, of unlabelled pictures
  weights    [PATTERN]: the public checkpoints whose name, network, data or terms it is found in
             --check FILE: what a checkpoint file is, and what its network wants to see
  cache      what the cache folder holds
             --clear: remove the activations and decoded pictures in it, not what was downloaded

  --hosts=auto|ADDRESS:PORT,COUNT,INDEX   with every verb that computes: one of several processes
                                          that are one run (docs/scale.md)
"""

import contextlib
import errno
import io
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from medtl.runtime import cpu

VERBS = (
  'train',
  'ablate',
  'probe',
  'lr_find',
  'describe',
  'evaluate',
  'report',
  'predict',
  'weights',
  'cache',
)
INTERRUPTS: dict[int, str] = {signal.SIGINT: 'Ctrl-C', signal.SIGTERM: 'SIGTERM'}
SHOW_CURSOR = b'\x1b[?25h\n'
FETCHING = ('train', 'ablate', 'probe', 'lr_find', 'describe')  # begin with data and weights
PRINTING = ('describe', 'weights', 'cache', 'help')  # do nothing else
CONTINUED = ('train', 'ablate')  # another process goes on from their run folders


def main(argv: list[str] | None = None) -> int:
  """Run one verb; return the exit status.

  0 done · 1 a mistake, said in words, or a checkpoint that fits no network · 130 Ctrl-C and 143
  SIGTERM, the state safe · 141 nobody reads the output any more
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  verb = _verb(argv)
  if argv and argv[0] == verb:
    del argv[0]
  _open_streams()
  try:
    status = _guarded(verb, argv)
    sys.stdout.flush()
  except BrokenPipeError:
    _discard(sys.__stdout__)
    if verb not in PRINTING:
      _tell(f'stopped: nobody reads the output any more; {_advice(verb)}')
    status = 128 + signal.SIGPIPE
  multihost = sys.modules.get('medtl.runtime.multihost')  # help does without
  return multihost.shutdown(status) if multihost else status


def _verb(argv: list[str]) -> str:
  """Return the verb that the words ask for."""
  if {'-h', '--help', '--helpshort'} & set(argv):
    return 'help'
  return argv[0] if argv and not argv[0].startswith('-') else 'train'


def _advice(verb: str) -> str:
  """Return what to do after a verb was stopped."""
  if verb in CONTINUED:
    return 'the same command continues from what was saved'
  return 'start the same command again'


def heed_signals() -> None:
  """Let Ctrl-C and SIGTERM end the process at once, with a sentence.

  The loop of a training run saves its state first (loop.fit). Elsewhere nothing is left
  half-written, as after kill -9. To raise KeyboardInterrupt instead was tried: it was lost where it
  arose in a callback of the garbage collector, and crashed in XLA's frames.
  """
  for number in INTERRUPTS:
    if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell's background jobs have it
      signal.signal(number, _stop)


def _stop(number: int, frame: Any) -> None:
  words = f'stopped by {INTERRUPTS[number]}; {_advice(_verb(sys.argv[1:]))}\n'
  for stream in (1, 2):
    if os.isatty(stream):
      os.write(stream, SHOW_CURSOR)  # a progress bar hides it
  with contextlib.suppress(OSError):  # nobody reads it
    os.write(2, words.encode())
  os._exit(128 + number)


def _tell(words: str) -> None:
  """Print to stderr, if anybody reads it."""
  try:
    print(words, file=sys.stderr, flush=True)
  except BrokenPipeError:
    _discard(sys.__stderr__)


def _discard(stream: TextIO | None) -> None:
  """Send what a stream still holds to /dev/null, since its reader has gone."""
  if stream is not None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _open_streams() -> None:
  """Make sure that anything can be printed to the standard streams.

  What their encoding lacks is escaped, as Python does on stderr. One that is closed becomes
  /dev/null: its number would go to the next file that is opened.
  """
  number = 0
  while number <= 2:
    number = os.open(os.devnull, os.O_RDWR)
  os.close(number)
  for name in ('stdout', 'stderr'):
    stream = getattr(sys, name)
    if stream is None:
      setattr(sys, name, _nowhere())
    elif isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')


def _nowhere() -> TextIO:
  return open(os.devnull, 'w')


def _guarded(verb: str, argv: list[str]) -> int:
  """Run a verb, and say in words what went wrong."""
  if verb == 'help':
    print(__doc__)
    return 0
  cpu.prepare()
  from medtl.core.types import MedtlError, Terminated
  from medtl.runtime import multihost

  try:
    if verb not in VERBS:
      from medtl.core.expressions import did_you_mean

      raise MedtlError(f'unknown verb {verb!r}; {did_you_mean(verb, VERBS)}')
    return _call(verb, argv)
  except MedtlError as error:
    _tell(f'error: {error}')
    return 1
  except BrokenPipeError:
    raise
  except OSError as error:
    _tell(f'error: {_explained(error)}')
    return 1
  except Terminated as error:
    _tell(f'{error}; the state is saved: the same command continues')
    return 128 + error.number
  except Exception as error:
    if isinstance(error, RuntimeError) and 'home directory' in str(error):  # pathlib's
      _tell(
        'error: a path begins with ~, and this user has no home folder; write it from / on, or '
        'set HOME'
      )
      return 1
    multihost.abort_on_lost_peer(error)
    raise


def _explained(error: OSError) -> str:
  """Return what the system says and of which file, and what to do where the disk is full."""
  if error.errno == errno.ENOSPC:
    where = error.filename or 'the run folder'
    return (
      f'no space left on the disk of {where}; make room and start the same command again: '
      'the run continues'
    )
  if error.strerror and error.filename:
    return f'{error.strerror}: {error.filename}'
  return error.strerror or str(error) or type(error).__name__


def _cache(argv: list[str]) -> int:
  """Print what the cache folder holds; --clear removes first what can be computed again."""
  from medtl.core.types import MedtlError
  from medtl.runtime import downloads, files

  folder = downloads.cache_folder()
  if set(argv) - {'--list', '--clear'}:
    raise MedtlError(f'cache takes --list or --clear, found {" ".join(argv)}')
  if '--clear' in argv:
    for name in ('features', 'decoded'):
      shutil.rmtree(folder / name, ignore_errors=True)
  for name, count, size in files.inventory(folder):
    print(f'{name:<12}{count:>8} files{size / 1e6:>12.1f} MB')
  print(folder)
  return 0


def _weights(argv: list[str]) -> int:
  """Print the public checkpoints, or what a file is."""
  from medtl import cli
  from medtl.core.types import MedtlError
  from medtl.run import public_weights

  words = cli.joined(argv)
  checked = [word.partition('=')[2] for word in words if word.startswith('--check=')]
  patterns = [word for word in words if not word.startswith('-')]
  if len(checked) + len(patterns) > 1 or len(words) > 1 or words == ['--check']:
    raise MedtlError(f'weights takes one PATTERN, or --check FILE, found {" ".join(argv)}')
  if words and not (checked or patterns):
    raise MedtlError(f'weights takes a PATTERN, or --check FILE, found {words[0]}')
  fits = True
  if checked:
    lines, fits = public_weights.check(Path(checked[0]).expanduser())
  else:
    lines = public_weights.listing(*patterns)
  for line in lines:
    print(line)
  return 0 if fits else 1


def _settle(place: str, verb: str) -> None:
  """Make JAX ready: where compiled programs are kept, and which of several processes this is."""
  import jax

  from medtl.runtime import downloads, multihost
  from medtl.runtime.run_log import console

  cpu.settle()
  if place:
    multihost.join_cluster(place)
    console.quiet = not multihost.is_main_process()
    _, count = multihost.host_share()
    console.print(
      f'{count} processes are one run; where one is lost the others stop, and {multihost.AGAIN}'
    )
  if not downloads.at_home():
    os.environ.setdefault('MPLCONFIGDIR', str(downloads.cache_folder() / 'matplotlib'))
  if verb == 'report':  # needs the run folder alone
    return
  downloads.require_cache()
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    jax.config.update('jax_compilation_cache_dir', str(downloads.cache_folder() / 'compiled'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def _call(verb: str, argv: list[str]) -> int:
  """Read the words, then call the function of the verb; return the exit status."""
  if verb == 'cache':
    return _cache(argv)
  if verb == 'weights':
    return _weights(argv)
  from medtl import cli

  flags, config, name = cli.parse(verb, argv)
  from absl import logging

  from medtl.core import user_files
  from medtl.core.types import MedtlError
  from medtl.run import (
    download_plan,
    open_keys,
    predict,
    run_folder,
    run_report,
    train,
    validate,
  )
  from medtl.runtime import files
  from medtl.runtime.run_log import console
  from medtl.studies import ablation, folds, linear_probe, lr_range_test

  logging.set_verbosity(logging.ERROR)  # orbax tells of every save
  if flags.offline:
    os.environ['MEDTL_OFFLINE'] = '1'
  _settle(flags.hosts, verb)
  suffixes = {'ablate': f'-{Path(flags.sweep).stem}', 'probe': '-probe', 'lr_find': '-lr_find'}
  if flags.workdir:
    workdir = Path(flags.workdir).expanduser()
  else:
    workdir = Path('runs') / (run_folder.default_name(name, config) + suffixes.get(verb, ''))
  output = Path(flags.output or workdir / 'predictions.csv').expanduser()
  words = argv if verb == 'train' else [verb, *argv]
  command = shlex.join(['python', '-m', 'medtl.main', *words])  # as a shell takes it again
  if verb == 'predict' and not flags.images:
    raise MedtlError('predict needs --images=FOLDER, or one file')
  if verb == 'ablate' and not flags.sweep:
    raise MedtlError('ablate needs --sweep=experiments/x.py')
  finished = verb == 'train' and run_folder.is_finished(workdir)
  if verb in FETCHING and not finished:
    download_plan.tell(config, console.print)
  config = open_keys.settle(config, workdir, command, flags.folds)
  begin = time.time()
  trained = folds.train_folds if flags.folds else train.train
  call: dict[str, Callable[[], Any]] = {
    'train': lambda: trained(config, workdir, command),
    'ablate': lambda: ablation.ablate(
      config,
      user_files.locate(flags.sweep),
      workdir,
      command,
      every_fold=flags.folds,
      only=flags.only,
    ),
    'probe': lambda: linear_probe.probed(
      config, workdir, command, every_fold=flags.folds, layers=flags.layers
    ),
    'lr_find': lambda: lr_range_test.find(config, workdir, command),
    'describe': lambda: train.describe(config, workdir, flags.parameters),
    'evaluate': lambda: predict.evaluate_again(config, workdir, flags.name, command),
    'report': lambda: run_report.write_report(workdir, flags.name),
    'predict': lambda: predict.predict(config, workdir, Path(flags.images).expanduser(), output),
  }
  if verb in ('evaluate', 'report'):  # other processes may work on other predictions
    lock = workdir / 'predictions' / f'{validate.name(flags.name)}.lock'
    with files.exclusive_lock(lock, 'give another --name'):
      numbers = call[verb]()
  else:
    numbers = call[verb]()
  if verb in ('train', 'evaluate', 'report'):
    run_report.headline(workdir, numbers, console.print)
    page = workdir / run_report.page_name(flags.name)
    console.print(f'{time.time() - begin:.0f} s; the page: {page}')
  return 0


if __name__ == '__main__':
  heed_signals()
  sys.exit(main())
