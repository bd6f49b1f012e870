"""What a config and its data must promise before anything is computed: a mistake found after an hour of training costs an hour."""

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from medtl.core import annotation, expressions
from medtl.core.annotation import ABOVE_0, ABOVE_0_TO_1, FROM_0, FROM_1, Range
from medtl.core.types import Dataset, MedtlError
from medtl.data import augmentation
from medtl.data.listing import labels
from medtl.evaluation import metrics, thresholds
from medtl.run import components
from medtl.tasks import classification
from medtl.training import freezing, optimizers, schedules

# every key of a config (configs/base.py says what each means) and its kind
INTEGERS = (
  'seed',
  'seeds',
  'truncate',
  'views',
  'norm_images',
  'batch',
  'accumulate',
  'patience',
  'resamples',
  'workers',
)
FLOATS = ('lr', 'head_lr', 'lr_decay', 'decay', 'l2_sp', 'clip', 'ema')
TEXTS = (
  'transfer',
  'augment',
  'sampling',
  'class_weights',
  'optimizer',
  'schedule',
  'dtype',
  'cache',
  'monitor',
  'threshold',
  'hint',
)
KEYS: dict[str, Any] = {
  **dict.fromkeys(INTEGERS, int),
  **dict.fromkeys(FLOATS, float),
  **dict.fromkeys(TEXTS, str),
  **dict.fromkeys(('data', 'model', 'head', 'task', 'mesh'), Mapping),
  **dict.fromkeys(('mean', 'std'), Sequence[float]),
  **dict.fromkeys(('fresh', 'remat'), Sequence[str]),
  **dict.fromkeys(('phases', 'norms', 'rules', 'shards', 'compare'), Sequence),
  'random_frozen': bool,
  'every': str | int,
}
CACHES = ('auto', 'head', 'on', 'off')
OFF = Range('0 (off) or more', FROM_0.holds)
NUMBERS = {
  **dict.fromkeys(('batch', 'accumulate', 'resamples'), FROM_1),
  'seed': Range('0 or more, below 2³²', lambda value: 0 <= value < 2**32),
  'truncate': Range('0 (all children) or more', FROM_0.holds),
  'norm_images': Range('0 (running averages) or more', FROM_0.holds),
  'patience': Range('0 (never) or more', FROM_0.holds),
  **dict.fromkeys(('views', 'workers', 'decay'), FROM_0),
  **dict.fromkeys(('lr', 'head_lr'), ABOVE_0),
  'lr_decay': ABOVE_0_TO_1,
  **dict.fromkeys(('clip', 'l2_sp'), OFF),
  'ema': Range('0 (off) or more, below 1', lambda value: 0 <= value < 1),
}
Factor = Annotated[float, FROM_0]


def parameters() -> dict[str, Parameter]:
  """Return the keys of a config as parameters."""
  return {
    name: Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind) for name, kind in KEYS.items()
  }


def check_config(given: ConfigDict) -> None:
  """Raise a MedtlError for the first key whose value cannot work, whatever the data are."""
  expressions.checked_keys('config', given.to_dict(), parameters())
  components.check(given)
  for name, span in NUMBERS.items():
    if not span.holds(given[name]):
      raise MedtlError(f'config.{name} is {given[name]}; expected a number {span.words}')
  if given.batch % given.accumulate:
    raise MedtlError(
      f'config.accumulate is {given.accumulate}, the parts that a batch is cut into; '
      f'expected a divisor of config.batch, {given.batch}'
    )
  if given.seeds != 1:
    raise MedtlError(
      f'config.seeds is {given.seeds}: how many runs a study makes of each variant, for the verb ablate. A run has one, '
      'config.seed; leave config.seeds at 1'
    )
  for name, known in (
    ('cache', CACHES),
    ('sampling', ('', 'balanced')),
    ('class_weights', ('', 'balanced')),
    ('dtype', ('float32', 'bfloat16')),
    ('transfer', ('weights', 'mean_var')),
  ):
    if given[name] not in known:
      raise MedtlError(
        f'config.{name} is {given[name]!r}; {expressions.did_you_mean(given[name], [repr(word) for word in known])}'
      )
  _tuple_of(
    given.phases,
    'phases',
    "(freeze, duration), for instance (('depth(1.0)', '3 epochs'),)",
    (str, str | int),
    least=1,
  )
  rule = (
    '(regex, learning-rate factor, weight decay), both numbers 0 or more, for instance '
    "(('.*/bias', 1.0, 0.0),)"
  )
  _tuple_of(given.rules, 'rules', rule, (str, Factor, Factor))
  _tuple_of(
    given.norms, 'norms', "(regex, policy), for instance (('backbone/.*', 'train'),)", (str, str)
  )
  _tuple_of(given.shards, 'shards', "(regex, how), for instance (('.*', 'largest'),)", (str, str))
  _compare(given)
  for pattern, *_ in given.rules:
    expressions.compiled_regex(pattern, 'config.rules')
  if any(value <= 0 for value in given.std):
    raise MedtlError(
      f'config.std is {tuple(given.std)}; expected numbers above 0, or () for those of the checkpoint or the data'
    )
  if given.l2_sp and not given.model.weights:
    raise MedtlError(
      f"config.l2_sp is {given.l2_sp}, a pull back to the checkpoint, but model.weights is ''; give a checkpoint, or set "
      'l2_sp=0.0'
    )
  if given.views and not given.augment:
    raise MedtlError(
      f"config.views is {given.views}, but nothing is augmented; set config.augment='flip' for instance, or views=0"
    )
  _durations(given)
  expressions.single_function(given.threshold, thresholds, given=('score', 'has'))
  expressions.single_function(given.optimizer, optimizers, given=('decay',))
  for text, _ in given.phases:
    expressions.functions(text, freezing, given=('children',))
  _task(given)
  _label(given)
  _sampling(given)


def _tuple_of(value: Any, name: str, words: str, kinds: tuple, least: int = 0) -> None:
  entries = value if isinstance(value, tuple | list) else [value]
  if len(entries) < least or not all(_is_entry(entry, kinds) for entry in entries):
    raise MedtlError(
      f'config.{name} is {value!r}; expected a tuple{" of at least one" if least else ""} of {words}'
    )


def _is_entry(entry: Any, kinds: tuple) -> bool:
  """Return whether a sequence holds one value of each kind."""
  if not isinstance(entry, tuple | list) or len(entry) != len(kinds):
    return False
  try:
    for value, kind in zip(entry, kinds, strict=True):
      annotation.fitted(value, kind)
  except annotation.Misfit:
    return False
  return True


def _compare(given: ConfigDict) -> None:
  """Raise where a run beside this one has no name of a folder, or changes what is no key."""
  example = "for instance (('fast', (('lr', 0.01),)),)"
  _tuple_of(given.compare, 'compare', f'(name, ((key, value), …)), {example}', (str, Sequence))
  for word, changes in given.compare:
    folder(word, 'config.compare')
    _tuple_of(changes, f'compare ({word!r})', '(key, value)', (str, Any))
    for key, _ in changes:
      _known(given, key)
  _stop_repeated([word.replace(' ', '_') for word, _ in given.compare], 'config.compare')


def _known(given: ConfigDict, key: str) -> None:
  """Raise unless there is a key such as 'model.weights' in the config."""
  node: Any = given
  for part in key.split('.'):
    if not isinstance(node, ConfigDict) or part not in node:
      known = node if isinstance(node, ConfigDict) else []
      raise MedtlError(
        f'config.compare changes {key!r}, which is no key of the config; '
        f'{expressions.did_you_mean(part, known)}'
      )
    node = node[part]


def _durations(given: ConfigDict) -> None:
  """Raise for a duration that cannot be read, or is more than the whole run."""
  for _, duration in given.phases:
    _explained('phases', expressions.duration_in_steps, duration, examples=1, batch=1)
  _explained('every', expressions.duration_in_steps, given.every, examples=1, batch=1, total=1)

  def count(duration: str | int) -> int:
    steps = expressions.duration_in_steps(duration, examples=1, batch=1, total=100, least=0)
    if steps > 100 and str(duration).strip().endswith('%'):
      raise MedtlError(f'{duration!r} is more than the whole run; expected at most 100%')
    return steps

  made = expressions.single_function(given.schedule, schedules, given=('total', 'steps'))
  _explained('schedule', made, 100, count)


def _explained(key: str, read: Callable, *values: Any, **keys: Any) -> None:
  """Call a function that reads the value of a key; its error is told with the key."""
  try:
    read(*values, **keys)
  except MedtlError as error:
    raise MedtlError(f'config.{key}: {error}') from None


def _label(given: ConfigDict) -> None:
  """Raise where several label columns are written as one text."""
  label = given.data.label if 'label' in given.data else ''
  if given.task.kind == 'multilabel' and isinstance(label, str) and ',' in label:
    columns = tuple(word.strip() for word in label.split(','))
    raise MedtlError(
      f'config.data.label is {label!r}, the name of one column, but task.kind is '
      f"'multilabel'; several are written as a tuple: "
      f'--config.data.label="{columns}"'
    )


def _sampling(given: ConfigDict) -> None:
  """Raise where examples are drawn or mixed as labels of this kind do not allow."""
  kind = given.task.kind
  if given.sampling == 'balanced' and kind == 'multilabel':
    raise MedtlError(
      "config.sampling is 'balanced', which draws a class and then one of its "
      "examples, but task.kind is 'multilabel', several labels an example; set "
      "sampling='' and class_weights='balanced'"
    )
  if augmentation.mixes(given.augment) and kind == 'ordinal':
    raise MedtlError(
      f'config.augment is {given.augment!r}, which mixes labels, but task.kind is '
      "'ordinal', whose grades cannot be mixed; leave mixup out"
    )


def _task(given: ConfigDict) -> None:
  """Raise where the loss cannot learn the kind of task, or the kind has no such metric."""
  kind = given.task.kind
  classification.loss_of(**given.task)
  known = dict.fromkeys([*metrics.names(kind), 'loss'], 0.0)
  metrics.chosen(known, given.monitor)


def count_seeds(given: ConfigDict) -> int:
  """Return how many runs a study makes of each variant."""
  if given.seeds < 1:
    raise MedtlError(f'config.seeds is {given.seeds}; expected a number at least 1')
  return given.seeds


def count_folds(given: ConfigDict) -> int:
  """Return how many folds a split has; a publisher's has one, which is an error where folds are asked for."""
  split = given.data.split.to_dict()
  if split['by'] not in ('patient', 'image'):
    raise MedtlError(
      f"--folds needs data.split.by='patient' or 'image', found {split['by']!r}: a publisher's split has one fold"
    )
  if split.get('val', 1) != 1:
    raise MedtlError(
      '--folds pools the validation sides, on which each example must stand once: data.split.val is '
      f'{split["val"]}, set it to 1'
    )
  return split.get('folds', 5)


def check_training(given: ConfigDict, sides: Mapping[str, Dataset], devices: int = 1) -> None:
  """Raise a MedtlError where a run cannot train on these sides, or cannot choose a checkpoint.

  A side is missing; there are no labels, or they are of another kind than the task; the training
  side is smaller than a batch; config.monitor has no value on the validation labels.
  """
  if lacking := [side for side in ('train', 'val', 'test') if side not in sides]:
    raise MedtlError(
      f'the split has no {" and no ".join(lacking)}: a run trains, chooses on validation and tests; '
      "set data.split.by='patient' and data.split.val=1"
    )
  dataset = sides['train']
  if given.batch % devices:
    raise MedtlError(
      f'config.batch is {given.batch}, and there are {devices} devices to cut it over; expected a multiple of {devices}'
    )
  if given.batch > dataset.size:
    raise MedtlError(
      f'config.batch is {given.batch}, but the training side has {dataset.size} examples; expected at most as many'
    )
  y = np.asarray(dataset.table['y'])
  if (y < 0).all():
    raise MedtlError(
      "the pictures have no labels (data.label=''): they can be predicted, not "
      "trained on; say where the labels stand, for instance data.label='label'"
    )
  many, kind = y.ndim == 2, given.task.kind
  if many != (kind == 'multilabel'):
    raise MedtlError(
      f'the data have {"several labels" if many else "one class"} an example, but task.kind is {kind!r}; '
      + (
        "set task.kind='multilabel' and task.loss='sigmoid'"
        if many
        else 'choose multiclass, binary or ordinal'
      )
    )
  _order(kind, dataset)
  _monitor(given, sides)
  _schedule(given, dataset.size)


def _schedule(given: ConfigDict, size: int) -> None:
  """Raise where a duration of the schedule is longer than the run on `size` examples."""
  total = sum(
    expressions.duration_in_steps(duration, size, given.batch) for _, duration in given.phases
  )

  def count(duration: str | int) -> int:
    steps = expressions.duration_in_steps(duration, size, given.batch, total, least=0)
    if steps > total:
      raise MedtlError(
        f'{duration!r} is {steps} steps, but the phases have {total} in all; '
        'expected at most as many'
      )
    return steps

  made = expressions.single_function(given.schedule, schedules, given=('total', 'steps'))
  _explained('schedule', made, total, count)


def _order(kind: str, dataset: Dataset) -> None:
  """Raise where grades are words that were put in the order of the alphabet."""
  if kind == 'ordinal' and dataset.facts.get('order') == labels.ALPHABET:
    raise MedtlError(
      "task.kind='ordinal' learns an order, and the classes are words that were put in the order of the "
      f'alphabet: {" < ".join(dataset.classes)}. Say the right one, from the least to the most: '
      "--config.data.classes=\"('LEAST', …, 'MOST')\" with all of these words"
    )


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
  raise MedtlError(
    f'config.monitor is {given.monitor!r}, which has no value on validation: '
    f'{"; ".join(said[:3])}{more}. You can {", or ".join(advice)}'
  )


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
    raise MedtlError(
      f'--name={word!r} becomes part of file names; expected letters, digits, _ . and -'
    )
  return word


def folder(word: Any, where: str) -> str:
  """Return the name of a run, which becomes that of its folder; one that leads elsewhere is an error."""
  if not isinstance(word, str) or not re.fullmatch(r'\w[^/\\\x00-\x1f]*(?<!\s)', word):
    raise MedtlError(
      f'{where}: the name {word!r} becomes that of a folder; expected text without / '
      'and \\ that begins with a letter, a digit or _'
    )
  return word


def variants(names: Sequence[Any], where: str) -> None:
  """Raise unless the names of a study's variants are those of folders, each its own."""
  for word in names:
    folder(word, where)
  _stop_repeated(names, where)


def _stop_repeated(names: Sequence[str], where: str) -> None:
  """Raise where two runs would have the same folder."""
  for word in names:
    if names.count(word) > 1:
      raise MedtlError(
        f'{where}: the name {word!r} is given to {names.count(word)} runs, which '
        'would have the same folder; expected each once'
      )
