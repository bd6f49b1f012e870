"""What a config leaves open (kind of task, loss, kind of split, batch), settled and said."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from medtl import data
from medtl.core.types import Dataset
from medtl.run import batch_size, run_folder, train
from medtl.runtime import sharding
from medtl.tasks import classification

AUTO = 'auto'
SPLITS = {
  'publisher': ": the source's own train, val and test are kept",
  'patient': ': all pictures of a patient are on one side',
  'image': ': patients are not known, and pictures of one patient on two sides make results '
  'too good; data.pattern or data.patient tells them',
}
KINDS = {
  'multilabel': 'several columns of 0 and 1',
  'binary': 'two classes',
  'multiclass': "more than two classes; where they are grades, set task.kind='ordinal'",
}


def settle(config: ConfigDict, workdir: Path, command: str = '', folds: bool = False) -> ConfigDict:
  """Return the config with a value for each open key; a run that has begun keeps its own.

  task.kind='auto': multilabel for label columns, binary for two classes, else multiclass.
  task.loss='': the kind's own.
  data.split.by='auto': the publisher's split where there is one (not with `folds`), else by
  patient where patients are known, else by image. batch='auto': the largest that fits in memory.
  """
  made = ConfigDict(config.to_dict())
  begun = run_folder.read_config(workdir) if run_folder.has_begun(workdir) else None
  with made.ignore_type():
    if made.data.split.by == AUTO or made.task.kind == AUTO:
      _of_data(made, begun, folds)
    if not made.task.loss:
      made.task.loss = classification.DEFAULT.get(made.task.kind, '')
    if made.batch == AUTO:
      made.batch = begun.batch if begun else _batch(made, workdir, command)
  return made.lock()


def _of_data(made: ConfigDict, begun: ConfigDict | None, folds: bool) -> None:
  """Fill in what the labels and patients decide."""
  if begun is None:
    everything = data.load(**{**made.data.to_dict(), 'split': {'by': 'none'}})['test']
    by, kind = split_kind(everything, folds), task_kind(everything)
  else:
    by, kind = begun.data.split.by, begun.task.kind
  if made.data.split.by == AUTO:
    made.data.split.by = by
    train.write(f"· data.split.by='auto' is {by!r}{SPLITS[by]}")
  if made.task.kind == AUTO:
    made.task.kind = kind
    reason = f': {KINDS[kind]}' if kind in KINDS else ''
    train.write(f"· task.kind='auto' is {kind!r}{reason}")


def split_kind(everything: Dataset, folds: bool) -> str:
  """Return how a data set is best split, given what it knows of its examples."""
  table: Mapping[str, Any] = everything.table
  if (
    'split' in table and not folds and {'train', 'test'} <= set(np.asarray(table['split']).tolist())
  ):
    return 'publisher'
  known = 'patient' in table and (np.asarray(table['patient']).astype(str) != '').any()
  return 'patient' if known else 'image'


def task_kind(everything: Dataset) -> str:
  """Return the kind of task that labels are of."""
  if np.ndim(everything.table['y']) == 2:
    return 'multilabel'
  return 'binary' if len(everything.classes) == 2 else 'multiclass'


def _batch(made: ConfigDict, workdir: Path, command: str) -> int:
  """Return the largest batch that fits, tried with the smallest that is allowed."""
  made.batch = math.lcm(sharding.make_mesh(**made.mesh).size, made.accumulate)
  tried = ConfigDict(made.to_dict()).lock()
  context = train.prepare(tried, train.resolve_pretrained_run(tried, workdir, command))
  return batch_size.largest_batch(context, train.write)
