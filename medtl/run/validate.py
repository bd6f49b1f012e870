"""What a config and its data must promise before anything is computed.

A mistake that is found after an hour of training costs an hour.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any

from ml_collections import ConfigDict

from medtl import data, tasks
from medtl.core import annotation, expressions
from medtl.core.types import Dataset, MedtlError
from medtl.data import splits
from medtl.evaluation import thresholds
from medtl.run import components, config_keys
from medtl.run.config_keys import Entries
from medtl.training import freezing, optimizers, schedules

OWN = ('train', 'val', 'test')  # names of a run's own predictions


def parameters() -> dict[str, Parameter]:
  """Return the keys of a config as parameters."""
  return {
    name: Parameter(name, Parameter.KEYWORD_ONLY, annotation=key.annotation)
    for name, key in config_keys.KEYS.items()
  }


def check_config(given: ConfigDict) -> None:
  """Raise a MedtlError for the first key whose value cannot work, whatever the data are."""
  expressions.checked_keys('config', given.to_dict(), parameters())
  components.check(given)
  for name, key in config_keys.KEYS.items():
    _check_value(name, given[name], key)
  _check_compare(given)
  for word in given.tests:
    test_name(word)
  _check_together(given)
  _check_expressions(given)
  _check_task(given)


def _check_value(name: str, value: Any, key: config_keys.Key) -> None:
  """Raise where a value of the right kind is not what its declaration asks for."""
  if key.within is not None and not key.within.holds(value):
    raise MedtlError(f'config.{name} is {value}; expected a number {key.within.words}')
  if key.choices and value not in key.choices:
    known = [repr(word) for word in key.choices]
    raise MedtlError(f'config.{name} is {value!r}; {expressions.did_you_mean(value, known)}')
  if key.entries is not None:
    _check_entries(name, value, key.entries)


def _check_entries(name: str, value: Any, entries: Entries) -> None:
  """Raise unless a value is a tuple of such entries."""
  several = value if isinstance(value, tuple | list) else [value]
  if len(several) < entries.least or not all(_is_entry(one, entries.kinds) for one in several):
    least = ' of at least one' if entries.least else ''
    raise MedtlError(f'config.{name} is {value!r}; expected a tuple{least} of {entries.words}')


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


def _check_compare(given: ConfigDict) -> None:
  """Raise where a run beside this one has no name of a folder, or changes what is no key."""
  for word, changes in given.compare:
    folder(word, 'config.compare')
    _check_entries(f'compare ({word!r})', changes, Entries((str, Any), '(key, value)'))
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


def _check_together(given: ConfigDict) -> None:
  """Raise for the first key whose value does not go with those of other keys."""
  if given.batch % given.accumulate:
    raise MedtlError(
      f'config.accumulate is {given.accumulate}, the parts that a batch is cut into; '
      f'expected a divisor of config.batch, {given.batch}'
    )
  if given.seeds != 1:
    raise MedtlError(
      f'config.seeds is {given.seeds}: how many runs a study makes of each variant, for the verb '
      'ablate. A run has one, config.seed; leave config.seeds at 1'
    )
  if any(value <= 0 for value in given.std):
    raise MedtlError(
      f'config.std is {tuple(given.std)}; expected numbers above 0, or () for those of the '
      'checkpoint or the data'
    )
  if given.l2_sp and not given.model.weights:
    raise MedtlError(
      f"config.l2_sp is {given.l2_sp}, a pull back to the checkpoint, but model.weights is ''; "
      'give a checkpoint, or set l2_sp=0.0'
    )
  if given.views and not given.augment:
    raise MedtlError(
      f'config.views is {given.views}, but nothing is augmented; set '
      "config.augment='flip' for instance, or views=0"
    )


def _check_expressions(given: ConfigDict) -> None:
  """Raise for the first text that names no function of its module, or cannot be read."""
  for pattern, *_ in given.rules:
    expressions.compiled_regex(pattern, 'config.rules')
  _durations(given)
  expressions.single_function(given.threshold, thresholds, given=('score', 'has'))
  expressions.single_function(given.optimizer, optimizers, given=('decay',))
  for text, _ in given.phases:
    expressions.functions(text, freezing, given=('children',))


def _check_task(given: ConfigDict) -> None:
  """Raise where the task refuses the config."""
  task = tasks.make(given.task.to_dict())
  task.check(given.to_dict())
  if task.coupled and given.accumulate > 1:
    raise MedtlError(
      f'config.accumulate is {given.accumulate}, but the examples of a batch see each other in the '
      f'loss of the task {given.task.name}: a batch cannot be cut into parts; set accumulate=1'
    )


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

  schedule = expressions.single_function(given.schedule, schedules, given=('total', 'steps'))
  _explained('schedule', schedule, 100, count)


def _explained(key: str, read: Callable, *values: Any, **keys: Any) -> None:
  """Call a function that reads the value of a key; its error is told with the key."""
  try:
    read(*values, **keys)
  except MedtlError as error:
    raise MedtlError(f'config.{key}: {error}') from None


def count_seeds(given: ConfigDict) -> int:
  """Return how many runs a study makes of each variant."""
  if given.seeds < 1:
    raise MedtlError(f'config.seeds is {given.seeds}; expected a number at least 1')
  return given.seeds


def count_folds(given: ConfigDict) -> int:
  """Return how many folds a split has; one that has a single fold is an error.

  A split by site has one for each site, which the data say.
  """
  split = given.data.split.to_dict()
  if split['by'] not in ('patient', 'image', 'site'):
    raise MedtlError(
      f"--folds needs data.split.by='patient', 'image' or 'site', found {split['by']!r}: "
      "a publisher's split has one fold"
    )
  if split.get('val', 1) != 1:
    raise MedtlError(
      '--folds pools the validation sides, on which each example must stand once: data.split.val '
      f'is {split["val"]}, set it to 1'
    )
  return _count_sites(given) if split['by'] == 'site' else split.get('folds', 5)


def _count_sites(given: ConfigDict) -> int:
  """Return how many sites the data have, each of which is left out once."""
  if given.data.split.get('test', ()):
    raise MedtlError(
      f'--folds leaves out one site after another, but data.split.test is {given.data.split.test}; '
      'leave one of them out'
    )
  everything = data.load(**{**given.data.to_dict(), 'split': {'by': 'none'}})['test']
  return len(splits.site_names(everything.table))


def check_training(given: ConfigDict, sides: Mapping[str, Dataset], devices: int = 1) -> None:
  """Raise a MedtlError where a run cannot train on these sides, or cannot choose a checkpoint.

  A side is missing; there are no labels, or they are of another kind than the task; the training
  side is smaller than a batch; config.monitor has no value on the validation labels.
  """
  if lacking := [side for side in ('train', 'val', 'test') if side not in sides]:
    raise MedtlError(
      f'the split has no {" and no ".join(lacking)}: a run trains, chooses on validation and '
      "tests; set data.split.by='patient' and data.split.val=1"
    )
  dataset = sides['train']
  if given.batch % devices:
    raise MedtlError(
      f'config.batch is {given.batch}, and there are {devices} devices to cut it over; expected a '
      f'multiple of {devices}'
    )
  if given.batch > dataset.size:
    raise MedtlError(
      f'config.batch is {given.batch}, but the training side has {dataset.size} examples; '
      'expected at most as many'
    )
  tasks.make(given.task.to_dict()).accepts(sides, given.to_dict())
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

  schedule = expressions.single_function(given.schedule, schedules, given=('total', 'steps'))
  _explained('schedule', schedule, total, count)


def name(word: str, where: str = '--name=') -> str:
  """Return the name of a set of predictions, which becomes part of file names.

  Other signs than letters, digits, _ . - are an error.
  """
  if not re.fullmatch(r'\w[\w.-]*', word):
    raise MedtlError(
      f'{where}{word!r} becomes part of file names; expected letters, digits, _ . and -'
    )
  return word


def test_name(word: str) -> str:
  """Return the name of other data in config.tests.

  One of the run's own sides is an error, and so is a dot, which no key of a config may hold.
  """
  if word in OWN:
    raise MedtlError(
      f"config.tests: {word!r} is a side of the run's own data; expected another name, such as "
      "'hospital_b'"
    )
  if '.' in word:
    raise MedtlError(f'config.tests: {word!r} holds a dot; expected letters, digits, _ and -')
  return name(word, 'config.tests, ')


def folder(word: Any, where: str) -> str:
  """Return the name of a run, which becomes its folder's; one that leads elsewhere is an error."""
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
