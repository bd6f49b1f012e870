"""What a config and its data must promise before anything is computed: a mistake found after an hour of training costs an hour."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from medtl import metrics, spec, tasks
from medtl.report import threshold
from medtl.types import Dataset, MedtlError

CACHES = ('auto', 'head', 'on', 'off')
# (what a value must be, in words, and as a function)
NUMBERS = {
  'batch': ('at least 1', lambda v: v >= 1), 'accumulate': ('at least 1', lambda v: v >= 1), 'resamples': ('at least 1', lambda v: v >= 1),
  'seed': ('0 or more', lambda v: v >= 0), 'views': ('0 or more', lambda v: v >= 0),
  'norm_images': ('0 (running averages) or more', lambda v: v >= 0),
  'workers': ('0 or more', lambda v: v >= 0), 'patience': ('0 (never) or more', lambda v: v >= 0), 'lr': ('above 0', lambda v: v > 0),
  'head_lr': ('above 0', lambda v: v > 0), 'lr_decay': ('above 0 and at most 1', lambda v: 0 < v <= 1),
  'decay': ('0 or more', lambda v: v >= 0),
  'clip': ('0 (off) or more', lambda v: v >= 0), 'l2_sp': ('0 (off) or more', lambda v: v >= 0),
  'ema': ('0 (off) or more, below 1', lambda v: 0 <= v < 1),
}
# losses that would leave a class or a label unlearned in a task of that kind
UNFIT = {'multiclass': ('sigmoid', 'ordinal'), 'binary': ('sigmoid', 'ordinal'), 'multilabel': ('softmax', 'focal', 'ordinal'),
         'ordinal': ('softmax', 'sigmoid', 'focal', 'mse')}


def config(given: ConfigDict) -> None:
  """Raise a MedtlError for the first key whose value cannot work, whatever the data are."""
  for name, (words, right) in NUMBERS.items():
    if not right(given[name]):
      raise MedtlError(f'config.{name} is {given[name]}; expected a number {words}')
  if given.seeds != 1:
    raise MedtlError(f'config.seeds is {given.seeds}: how many runs a study makes of each variant, for the verb ablate. A run has one, '
                     'config.seed; leave config.seeds at 1')
  for name, known in (('cache', CACHES), ('sampling', ('', 'balanced')), ('class_weights', ('', 'balanced')),
                      ('dtype', ('float32', 'bfloat16')), ('transfer', ('weights', 'mean_var'))):
    if given[name] not in known:
      raise MedtlError(f'config.{name} is {given[name]!r}; {spec.nearest(given[name], [repr(word) for word in known])}')
  _tuple_of(given.phases, 'phases', "(freeze, duration), for instance (('depth(1.0)', '3 epochs'),)", (str, (str, int)), least=1)
  _tuple_of(given.rules, 'rules', "(regex, learning-rate factor, weight decay), for instance (('.*/bias', 1.0, 0.0),)",
            (str, (int, float), (int, float)))
  _tuple_of(given.norms, 'norms', "(regex, policy), for instance (('backbone/.*', 'train'),)", (str, str))
  for pattern, *_ in given.rules:
    spec.regex(pattern, 'config.rules')
  if any(value <= 0 for value in given.std):
    raise MedtlError(f'config.std is {tuple(given.std)}; expected numbers above 0, or () for those of the checkpoint or the data')
  if given.l2_sp and not given.model.weights:
    raise MedtlError(f"config.l2_sp is {given.l2_sp}, a pull back to the checkpoint, but model.weights is ''; give a checkpoint, or set "
                     'l2_sp=0.0')
  if given.views and not given.augment:
    raise MedtlError(f"config.views is {given.views}, but nothing is augmented; set config.augment='flip' for instance, or views=0")
  spec.steps(given.every, examples=1, batch=1, total=1)
  spec.one(given.threshold, threshold, given=('score', 'has'))
  _task(given)


def _tuple_of(value: Any, name: str, words: str, kinds: tuple, least: int = 0) -> None:
  fits = isinstance(value, tuple | list) and len(value) >= least and all(
    isinstance(entry, tuple | list) and len(entry) == len(kinds) and all(map(isinstance, entry, kinds)) for entry in value)
  if not fits:
    raise MedtlError(f'config.{name} is {value!r}; expected a tuple{" of at least one" if least else ""} of {words}')


def _task(given: ConfigDict) -> None:
  kind = given.task.kind
  for key in given.task:
    if key not in ('kind', 'loss'):
      raise MedtlError(f'config.task has no key {key!r}; {spec.nearest(key, ("kind", "loss"))}')
  tasks.outputs(kind, 2)
  loss = spec.chain(given.task.loss)
  if loss and loss[0].name in UNFIT[kind]:
    raise MedtlError(f'the loss {loss[0].name!r} cannot learn a task of kind {kind!r}; '
                     + (f'set task.kind={loss[0].name!r} or ' if loss[0].name in tasks.KINDS else '')
                     + f"choose a loss for {kind}, such as {tasks.DEFAULT[kind]!r}")
  names = metrics.monitor(np.eye(2, dtype=np.float32), np.eye(2) if kind == 'multilabel' else np.arange(2), kind)
  metrics.chosen(dict.fromkeys([*names, 'loss'], 0.0), given.monitor)


def seeds(given: ConfigDict) -> int:
  """Return how many runs a study makes of each variant."""
  if given.seeds < 1:
    raise MedtlError(f'config.seeds is {given.seeds}; expected a number at least 1')
  return given.seeds


def folds(given: ConfigDict) -> int:
  """Return how many folds a split has; a publisher's has one, which is an error where folds are asked for."""
  split = given.data.split.to_dict()
  if split['by'] not in ('patient', 'image'):
    raise MedtlError(f"--folds needs data.split.by='patient' or 'image', found {split['by']!r}: a publisher's split has one fold")
  if split.get('val', 1) != 1:
    raise MedtlError('--folds pools the validation sides, on which each example must stand once: data.split.val is '
                     f'{split["val"]}, set it to 1')
  return split.get('folds', 5)


def training(given: ConfigDict, sides: Mapping[str, Dataset], devices: int = 1) -> None:
  """Raise a MedtlError where a side is missing, the training side's labels are not of the task's kind, or it is smaller than a batch."""
  if lacking := [side for side in ('train', 'val', 'test') if side not in sides]:
    raise MedtlError(f"the split has no {' and no '.join(lacking)}: a run trains, chooses on validation and tests; "
                     "set data.split.by='patient' and data.split.val=1")
  dataset = sides['train']
  if given.batch % devices:
    raise MedtlError(f'config.batch is {given.batch}, and there are {devices} devices to cut it over; expected a multiple of {devices}')
  if given.batch > dataset.size:
    raise MedtlError(f'config.batch is {given.batch}, but the training side has {dataset.size} examples; expected at most as many')
  many, kind = np.ndim(dataset.table['y']) == 2, given.task.kind
  if many != (kind == 'multilabel'):
    raise MedtlError(f'the data have {"several labels" if many else "one class"} an example, but task.kind is {kind!r}; '
                     + ("set task.kind='multilabel' and task.loss='sigmoid'" if many else 'choose multiclass, binary or ordinal'))


def name(word: str) -> str:
  """Return the name of a set of predictions, which becomes part of file names; other signs than letters, digits, _ . - are an error."""
  if not re.fullmatch(r'\w[\w.-]*', word):
    raise MedtlError(f'--name={word!r} becomes part of file names; expected letters, digits, _ . and -')
  return word
