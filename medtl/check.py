"""What a config and its data must promise before anything is computed: a mistake found after an hour of training costs an hour."""

import re
from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from medtl import components, freeze, metrics, optimizer, schedule, spec, tasks
from medtl.data import augment, labels
from medtl.report import threshold
from medtl.types import Dataset, MedtlError

# every key of a config (configs/base.py says what each means) and its kind
INTEGERS = ('seed', 'seeds', 'truncate', 'views', 'norm_images', 'batch', 'accumulate', 'patience',
            'resamples', 'workers')
FLOATS = ('lr', 'head_lr', 'lr_decay', 'decay', 'l2_sp', 'clip', 'ema')
TEXTS = ('transfer', 'augment', 'sampling', 'class_weights', 'optimizer', 'schedule', 'dtype', 'cache',
         'monitor', 'threshold', 'hint')
KEYS: dict[str, Any] = {
  **dict.fromkeys(INTEGERS, int), **dict.fromkeys(FLOATS, float), **dict.fromkeys(TEXTS, str),
  **dict.fromkeys(('data', 'model', 'head', 'task', 'mesh'), Mapping),
  **dict.fromkeys(('mean', 'std'), Sequence[float]), **dict.fromkeys(('fresh', 'remat'), Sequence[str]),
  **dict.fromkeys(('phases', 'norms', 'rules', 'shards', 'compare'), Sequence),
  'random_frozen': bool, 'every': str | int,
}
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


def config(given: ConfigDict) -> None:
  """Raise a MedtlError for the first key whose value cannot work, whatever the data are."""
  spec.keys('config', given.to_dict(), {name: _key(name, kind) for name, kind in KEYS.items()})
  components.check(given)
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
  spec.one(given.schedule, schedule, given=('total', 'steps'))
  spec.one(given.optimizer, optimizer, given=('decay',))
  for text, _ in given.phases:
    spec.functions(text, freeze, given=('children',))
  augment.mixes(given.augment)
  _task(given)


def _key(name: str, kind: Any) -> Parameter:
  return Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind)


def _tuple_of(value: Any, name: str, words: str, kinds: tuple, least: int = 0) -> None:
  fits = isinstance(value, tuple | list) and len(value) >= least and all(
    isinstance(entry, tuple | list) and len(entry) == len(kinds) and all(map(isinstance, entry, kinds)) for entry in value)
  if not fits:
    raise MedtlError(f'config.{name} is {value!r}; expected a tuple{" of at least one" if least else ""} of {words}')


def _task(given: ConfigDict) -> None:
  """Raise where the loss cannot learn the kind of task, or the kind has no such metric."""
  kind = given.task.kind
  tasks.loss_of(**given.task)
  known = dict.fromkeys([*metrics.names(kind), 'loss'], 0.0)
  metrics.chosen(known, given.monitor)


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
  """Raise a MedtlError where a run cannot train on these sides, or cannot choose a checkpoint.

  A side is missing; there are no labels, or they are of another kind than the task; the training
  side is smaller than a batch; config.monitor has no value on the validation labels.
  """
  if lacking := [side for side in ('train', 'val', 'test') if side not in sides]:
    raise MedtlError(f"the split has no {' and no '.join(lacking)}: a run trains, chooses on validation and tests; "
                     "set data.split.by='patient' and data.split.val=1")
  dataset = sides['train']
  if given.batch % devices:
    raise MedtlError(f'config.batch is {given.batch}, and there are {devices} devices to cut it over; expected a multiple of {devices}')
  if given.batch > dataset.size:
    raise MedtlError(f'config.batch is {given.batch}, but the training side has {dataset.size} examples; expected at most as many')
  y = np.asarray(dataset.table['y'])
  if (y < 0).all():
    raise MedtlError("the pictures have no labels (data.label=''): they can be predicted, not "
                     "trained on; say where the labels stand, for instance data.label='label'")
  many, kind = y.ndim == 2, given.task.kind
  if many != (kind == 'multilabel'):
    raise MedtlError(f'the data have {"several labels" if many else "one class"} an example, but task.kind is {kind!r}; '
                     + ("set task.kind='multilabel' and task.loss='sigmoid'" if many else 'choose multiclass, binary or ordinal'))
  _order(kind, dataset)
  _monitor(given, sides)


def _order(kind: str, dataset: Dataset) -> None:
  """Raise where grades are words that were put in the order of the alphabet."""
  if kind == 'ordinal' and dataset.facts.get('order') == labels.ALPHABET:
    raise MedtlError("task.kind='ordinal' learns an order, and the classes are words that were put in the order of the "
                     f'alphabet: {" < ".join(dataset.classes)}. Say the right one, from the least to the most: '
                     '--config.data.classes="(\'LEAST\', …, \'MOST\')" with all of these words')


def _monitor(given: ConfigDict, sides: Mapping[str, Dataset]) -> None:
  """Raise where config.monitor has no value on the validation labels, whatever the net says."""
  if given.monitor == 'loss':
    return
  kind, classes = given.task.kind, sides['val'].classes
  y = {side: np.asarray(dataset.table['y']) for side, dataset in sides.items()}
  val, whole = y['val'], np.concatenate(list(y.values()))
  lacking = metrics.undefined(given.monitor, val, len(classes), kind)
  if not lacking:
    return
  said = [_constant(classes[label], _has(val, label), _has(whole, label)) for label in lacking]
  more = f'; and {len(said) - 3} more' if len(said) > 3 else ''
  advice = [f'set config.monitor to one that has: {", ".join(_monitors(val, len(classes), kind))}']
  if 'label' in given.data and len(lacking) < len(classes):
    advice.append('leave the label out of data.label')
  if all(len(np.unique(_has(whole, label))) == 2 for label in lacking):
    advice.append(_other_split(given, sides['val']))
  raise MedtlError(f'config.monitor is {given.monitor!r}, which has no value on validation: '
                   f'{"; ".join(said[:3])}{more}. You can {", or ".join(advice)}')


def _monitors(y: np.ndarray, classes: int, kind: str) -> list[str]:
  """Return what can be monitored on the labels y."""
  names = metrics.names(kind)
  return [*(name for name in names if not metrics.undefined(name, y, classes, kind)), 'loss']


def _has(y: np.ndarray, label: int) -> np.ndarray:
  """Return [n] bool: which examples have a label, or are of a class."""
  return y[:, label] > 0.5 if y.ndim == 2 else y == label


def _constant(name: str, val: np.ndarray, whole: np.ndarray) -> str:
  """Return in words that a label is the same in all validation examples."""
  same = bool(val.all())
  others = int((whole != same).sum())
  rest = f'but not in {others} of all {len(whole)}' if others else f'as in all {len(whole)}'
  return f'label {name!r} is {int(same)} in all {len(val)} validation examples, {rest}'


def _other_split(given: ConfigDict, val: Dataset) -> str:
  """Return which keys of the split may put other examples on the validation side."""
  publishers = given.data.split.by == 'publisher' and set(val.table['split']) == {'val'}
  if publishers:
    by = 'patient' if 'patient' in val.table else 'image'
    return f"set data.split.by={by!r}, which deals the publisher's sides anew"
  return 'take another data.split.fold or data.split.seed, or fewer data.split.folds'


def name(word: str) -> str:
  """Return the name of a set of predictions, which becomes part of file names; other signs than letters, digits, _ . - are an error."""
  if not re.fullmatch(r'\w[\w.-]*', word):
    raise MedtlError(f'--name={word!r} becomes part of file names; expected letters, digits, _ . and -')
  return word
