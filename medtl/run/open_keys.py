"""What a config leaves open (kind of task, loss, kind of split, batch), settled and said."""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from medtl import data, tasks
from medtl.core.types import Dataset
from medtl.run import batch_size, run_folder, train
from medtl.runtime import sharding

AUTO = 'auto'
SPLITS = {
  'publisher': ": the source's own train, val and test are kept",
  'patient': ': all pictures of a patient are on one side',
  'image': ': patients are not known, and pictures of one patient on two sides make results '
  'too good; data.pattern or data.patient tells them',
}


def settle(config: ConfigDict, workdir: Path, command: str = '', folds: bool = False) -> ConfigDict:
  """Return the config with a value for each open key; a run that has begun keeps its own.

  task.kind='auto': multilabel for label columns, binary for two classes, else multiclass.
  task.loss='': the kind's own.
  data.split.by='auto': the publisher's split where there is one (not with `folds`), else by
  patient where patients are known, else by image. batch='auto': the largest that fits in memory.
  """
  settled = ConfigDict(config.to_dict())
  begun = run_folder.read_config(workdir) if run_folder.has_begun(workdir) else None

  @functools.cache
  def everything() -> Dataset:
    return data.load(**{**settled.data.to_dict(), 'split': {'by': 'none'}})['test']

  with settled.ignore_type():
    if settled.data.split.by == AUTO:
      by = begun.data.split.by if begun else split_kind(everything(), folds)
      settled.data.split.by = by
      train.write(f"· data.split.by='auto' is {by!r}{SPLITS[by]}")
    _settle_task(settled, begun, everything)
    if settled.batch == AUTO:
      settled.batch = begun.batch if begun else _batch(settled, workdir, command)
  return settled.lock()


def _settle_task(
  config: ConfigDict, begun: ConfigDict | None, everything: Callable[[], Dataset]
) -> None:
  """Fill in the keys of the task that are left open."""
  settle_keys = getattr(tasks.module(config.task.name), 'settle', None)
  if settle_keys is None:
    return
  settled, note = settle_keys(config.task.to_dict(), everything, begun and begun.task.to_dict())
  config.task = ConfigDict(settled)
  if note:
    train.write(f'· {note}')


def split_kind(everything: Dataset, folds: bool) -> str:
  """Return how a data set is best split, given what it knows of its examples."""
  table: Mapping[str, Any] = everything.table
  if (
    'split' in table and not folds and {'train', 'test'} <= set(np.asarray(table['split']).tolist())
  ):
    return 'publisher'
  known = 'patient' in table and (np.asarray(table['patient']).astype(str) != '').any()
  return 'patient' if known else 'image'


def _batch(config: ConfigDict, workdir: Path, command: str) -> int:
  """Return the largest batch that fits, tried with the smallest that is allowed."""
  config.batch = math.lcm(sharding.make_mesh(**config.mesh).size, config.accumulate)
  tried = ConfigDict(config.to_dict()).lock()
  context = train.prepare(tried, train.resolve_pretrained_run(tried, workdir, command))
  return batch_size.largest_batch(context, train.write)
