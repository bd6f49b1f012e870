"""Many runs as one answer: the folds of one split, pooled out of fold; the variants of one config, compared pair by pair."""

import dataclasses
import runpy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from medtl import build, disk, evaluate, log, run, runfolder
from medtl.report import console, operating
from medtl.types import MedtlError


def folds(config: ConfigDict, workdir: Path, command: str = '') -> dict[str, Any]:
  """Return the numbers of the out-of-fold predictions: every fold trained in `fold<i>/`, each example tested by a net that never saw it.

  Each fold brings its own thresholds, chosen on its own validation patients: pooled ones would have seen the labels they are tested on.
  """
  if config.data.split.by not in ('patient', 'image'):
    raise MedtlError(f"--folds needs data.split.by='patient' or 'image', found {config.data.split.by!r}: a publisher's split has one fold")
  runfolder.claim(workdir, config)
  if (workdir / 'numbers.json').exists():
    log.console.print(f'{workdir} is finished already; nothing was trained')
    return runfolder.read(workdir, 'numbers.json')
  count = config.data.split.folds
  parts = [workdir / f'fold{number}' for number in range(count)]
  for number, part in enumerate(parts):
    log.console.print(f'[bold]fold {number + 1} of {count}[/bold]')
    run.train(build.changed(config, (('data.split.fold', number),)), part, command)
  for side in ('val', 'test'):
    evaluate.pooled([_saved(part, side, config) for part in parts], workdir / 'predictions' / f'{side}.npz')
  plan = runfolder.read(parts[0], 'plan.json')
  runfolder.write_json(workdir / 'plan.json', {**plan, 'folds': [runfolder.read(part, 'plan.json')['splits'] for part in parts]})
  for name, changes in config.compare:
    folds(build.changed(config, changes), runfolder.companion(workdir, name), command)
  seconds = sum(runfolder.read(part, 'provenance.json')['seconds'] for part in parts)
  runfolder.provenance(workdir, command, seconds, {'folds': count})
  return runfolder.report(workdir)


def _saved(part: Path, side: str, config: ConfigDict) -> evaluate.Saved:
  found = evaluate.load(part / 'predictions' / f'{side}.npz')
  if side == 'test':
    val = evaluate.load(part / 'predictions' / 'val.npz').predictions
    cut = operating.thresholds(val, config.threshold, config.task.kind)
    measures = {**found.predictions.measures, 'threshold': np.tile(cut, (len(found.predictions.row), 1))}
    return found._replace(predictions=dataclasses.replace(found.predictions, measures=measures))
  return found


def ablate(config: ConfigDict, sweep: Path, workdir: Path, command: str = '', *, every_fold: bool = False) -> list[dict[str, Any]]:
  """Return a row for each variant that `sweep` yields: its metrics, and their paired difference to the first variant's.

  Each variant is a run folder `<workdir>/<name>`; those that are finished are only read. Writes ablation.json and ablation.csv.
  """
  variants = [(name, build.changed(config, changes)) for name, changes in _sweep(sweep)(config)]     # all are checked before one is trained
  for name, variant in variants:
    log.console.print(f'[bold]{name}[/bold]')
    (folds if every_fold else run.train)(variant, workdir / name, command)
  rows = [runfolder.row(workdir / name, workdir / variants[0][0]) for name, _ in variants]
  runfolder.write_json(workdir / 'ablation.json', rows)
  disk.write(workdir / 'ablation.csv', console.csv(rows))
  log.console.print(console.table(rows))
  return rows


def _sweep(path: Path) -> Callable[[ConfigDict], Iterable[tuple[str, tuple]]]:
  found = runpy.run_path(str(path)) if path.is_file() else {}
  if 'sweep' not in found:
    raise MedtlError(f'{path} holds no sweep(config); expected a file of experiments/ whose sweep yields (name, ((key, value), …))')
  return found['sweep']
