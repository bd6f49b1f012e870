"""python -m medtl.main [verb] --config=configs/x.py[:variant] [--config.key=value …] [--workdir=DIR]

verbs
  train      train, evaluate and report (the default); continues a run that was stopped; --folds: every fold, pooled out of fold
  ablate     --sweep=experiments/x.py [--folds] [--only=NAME,…]: every variant that the file's sweep yields, compared pair by pair;
             --only: these are trained now, and reported with those that are finished
  probe      [--folds] [--layers=N]: linear heads by the hundred on frozen features, chosen on validation, beside the exact solutions
  lr_find    a range test of config.lr for the last phase, with its plot
  describe   what would move, what it costs, how long it takes; trains nothing
  evaluate   --workdir=RUN [--config.data.root=… --name=NAME]: predictions and report, also on another data set
  report     --workdir=RUN: write report.html again from the run folder alone
  predict    --workdir=RUN --images=FOLDER or FILE [--output=FILE.csv]: class probabilities of unlabelled pictures
  cache      [--clear]: what the cache folder holds; remove the activations and decoded pictures in it, not what was downloaded

  --hosts=auto|ADDRESS:PORT,COUNT,INDEX   with every verb that computes: one of several processes that are one run (docs/scale.md)
"""

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medtl import cpu

VERBS = ('train', 'ablate', 'probe', 'lr_find', 'describe', 'evaluate', 'report', 'predict', 'cache')


def main(argv: list[str] | None = None) -> int:
  """Run one verb; return the exit status: 0 done, 1 a mistake (said in words), 143 stopped by a signal, state safe."""
  argv = list(sys.argv[1:] if argv is None else argv)
  verb = argv.pop(0) if argv and not argv[0].startswith('-') else 'train'
  if {'-h', '--help', '--helpshort'} & set(argv) or verb == 'help':
    print(__doc__)
    return 0
  cpu.prepare()
  from medtl import hosts
  return hosts.leave(_guarded(verb, argv))


def _guarded(verb: str, argv: list[str]) -> int:
  """Run a verb, and say in words what went wrong."""
  from medtl import hosts
  from medtl.types import MedtlError, Terminated
  try:
    if verb not in VERBS:
      from medtl.spec import nearest
      raise MedtlError(f'unknown verb {verb!r}; {nearest(verb, VERBS)}')
    return _call(verb, argv)
  except MedtlError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except OSError as error:
    full = error.errno == errno.ENOSPC
    print(f'error: no space left on the disk of {error.filename or "the run folder"}; make room and start the same command again: '
          'the run continues' if full else f'error: {error.strerror}: {error.filename or error}', file=sys.stderr)
    return 1
  except Terminated as error:
    print(f'{error}; the state is saved: the same command continues', file=sys.stderr)
    return 143
  except Exception as error:
    hosts.lost(error)
    raise


def _cache(argv: list[str]) -> int:
  from medtl import disk, fetch
  from medtl.types import MedtlError
  folder = fetch.cache_folder()
  if set(argv) - {'--list', '--clear'}:
    raise MedtlError(f'cache takes --list or --clear, found {" ".join(argv)}')
  if '--clear' in argv:
    for name in ('features', 'decoded'):
      shutil.rmtree(folder / name, ignore_errors=True)
  for name, count, size in disk.inventory(folder):
    print(f'{name:<12}{count:>8} files{size / 1e6:>12.1f} MB')
  print(folder)
  return 0


def _settle(place: str) -> None:
  """Make JAX ready: where compiled programs are kept, and which of several processes this is."""
  import jax

  from medtl import fetch, hosts
  from medtl.log import console
  cpu.settle()
  if place:
    hosts.join(place)
    console.quiet = not hosts.first()
    console.print(f'{hosts.share()[1]} processes are one run; where one is lost the others stop, and {hosts.AGAIN}')
  jax.config.update('jax_compilation_cache_dir', str(fetch.cache_folder() / 'compiled'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def _call(verb: str, argv: list[str]) -> int:
  if verb == 'cache':
    return _cache(argv)
  from medtl import commandline
  flags, config, name = commandline.parse(verb, argv)
  from absl import logging

  from medtl import automatic, check, inference, lr_find, probing, run, runfolder, study
  from medtl.log import console
  from medtl.types import MedtlError
  logging.set_verbosity(logging.ERROR)               # orbax tells of every save
  if flags.offline:
    os.environ['MEDTL_OFFLINE'] = '1'
  _settle(flags.hosts)
  kind = {'ablate': f'-{Path(flags.sweep).stem}', 'probe': '-probe', 'lr_find': '-lr_find'}.get(verb, '')
  workdir = Path(flags.workdir) if flags.workdir else Path('runs') / (runfolder.name(name, config) + kind)
  command = ' '.join(['python -m medtl.main', *([verb] if verb != 'train' else []), *argv])
  if verb == 'predict' and not flags.images:
    raise MedtlError('predict needs --images=FOLDER, or one file')
  if verb == 'ablate' and not flags.sweep:
    raise MedtlError('ablate needs --sweep=experiments/x.py')
  config, begin = automatic.settled(config, workdir, command, flags.folds), time.time()
  call: dict[str, Callable[[], Any]] = {
    'train': lambda: (study.folds if flags.folds else run.train)(config, workdir, command),
    'ablate': lambda: study.ablate(config, Path(flags.sweep), workdir, command, every_fold=flags.folds, only=flags.only),
    'probe': lambda: probing.probed(config, workdir, command, every_fold=flags.folds, layers=flags.layers),
    'lr_find': lambda: lr_find.find(config, workdir, command),
    'describe': lambda: run.explain(config, workdir),
    'evaluate': lambda: inference.evaluate_again(config, workdir, check.name(flags.name)),
    'report': lambda: runfolder.report(workdir, check.name(flags.name)),
    'predict': lambda: inference.predict(config, workdir, Path(flags.images), Path(flags.output or workdir / 'predictions.csv')),
  }
  numbers = call[verb]()
  if verb in ('train', 'evaluate', 'report'):
    runfolder.headline(workdir, numbers, console.print)
    console.print(f'{time.time() - begin:.0f} s; the page: {workdir / runfolder.page_name(flags.name)}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
