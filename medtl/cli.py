"""The words after `python -m medtl.main` → flags and a locked config."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from medtl.core import annotation, user_files
from medtl.core.types import MedtlError
from medtl.run import components, run_folder, validate

COMPONENTS = ('data', 'model', 'head', 'task')  # their keys are those of functions
OTHER_DATA = ('streams', 'tests')  # and those of each data set in these
# what the verbs that work from a run folder take: keys that begin so, and single ones
FAMILIES = {'evaluate': ('--config.data.',), 'predict': (), 'report': ()}
TAKEN = {
  'evaluate': (),
  'report': (),
  'predict': (
    '--config.data.values',
    '--config.data.ops',
    '--config.data.exif',
    '--config.data.skip_unreadable',
    '--config.data.masks',
  ),
}
SWITCHES = ('folds', 'offline', 'parameters')
EXPECTED = {  # by absl's names of kinds of flags
  'int': 'a whole number at least 1',
  'bool': 'True or False',
  'comma separated list of strings': 'names with commas between them',
}
HEEDED = {  # by which verbs
  'folds': ('train', 'ablate', 'probe'),
  'sweep': ('ablate',),
  'only': ('ablate',),
  'layers': ('probe',),
  'parameters': ('describe',),
  'images': ('predict',),
  'output': ('predict',),
  'name': ('evaluate', 'report'),
}


def parse(verb: str, argv: Sequence[str]) -> tuple[Any, ConfigDict, str]:
  """Return (flags, locked config, the config's name); words that mean nothing are a MedtlError.

  Verbs that work from a run folder take its config.json as the default, and its path as the name.
  """
  values = _flags()
  words = joined(argv)
  workdir = _option(words, 'workdir')
  file = _option(words, 'config')
  for word in words:
    flag = word.removeprefix('--').partition('=')[0]
    if verb not in HEEDED.get(flag, (verb,)):
      raise MedtlError(f'{verb} takes no --{flag}; it belongs to {", ".join(HEEDED[flag])}')
  if verb in FAMILIES:
    if not workdir or file:
      raise MedtlError(
        f'{verb} works from a run folder: --workdir=RUN (and no --config: the run folder has its '
        'own)'
      )
    config = run_folder.require(Path(workdir).expanduser())
    _refuse_other_keys(verb, words)
  elif file:
    config = run_folder.load_config(file)
  else:
    known = ', '.join(user_files.configs())
    raise MedtlError(f'{verb} needs --config=configs/x.py; the configs are: {known}')
  words = _last_of_each([word for word in words if not word.startswith('--config=')])
  config, words = read_components(config, words, other=verb == 'evaluate')
  if file:  # a run folder's config was checked when it ran
    components.check(config)
  if '--config.batch=auto' in words:  # a word where numbers stand: ml_collections would refuse it
    config = _automatic(config)
    words = [word for word in words if word != '--config.batch=auto']
  unexpected = _read(values, config, words)
  if unexpected:
    raise MedtlError(f'unexpected argument {unexpected[0]!r}; options are written --name=value')
  return values, values.config.lock(), file or workdir


def _last_of_each(words: Sequence[str]) -> list[str]:
  """Return the words without options of a config that come again later.

  ml_collections would put two values of a tuple one after the other.

  >>> _last_of_each(['--config.lr=1', 'x', '--config.lr=2'])
  ['x', '--config.lr=2']
  """
  last = {word.partition('=')[0]: place for place, word in enumerate(words)}
  kept = []
  for place, word in enumerate(words):
    name = word.partition('=')[0]
    if not name.startswith('--config.') or last[name] == place:
      kept.append(word)
  return kept


def _refuse_other_keys(verb: str, words: Sequence[str]) -> None:
  """Raise for the first config key that a verb does not take, since the run folder decides it."""
  for word in words:
    key = word.partition('=')[0]
    is_taken = key.startswith(FAMILIES[verb]) or key in TAKEN[verb]
    if key.startswith('--config.') and not is_taken:
      families = [f'{family}…' for family in FAMILIES[verb]]
      taken = ', '.join([*TAKEN[verb], *families])
      advice = f'it takes {taken}' if taken else 'train again to change it'
      raise MedtlError(f"{verb} takes no {key}: the run's own config decides; {advice}")


def _flags() -> Any:
  values = flags.FlagValues()
  flags.DEFINE_string('workdir', '', 'run folder', flag_values=values)
  flags.DEFINE_bool(
    'folds', False, 'train every fold and pool the out-of-fold predictions', flag_values=values
  )
  flags.DEFINE_bool('parameters', False, 'list every parameter', flag_values=values)
  flags.DEFINE_string('hosts', '', 'several processes as one run', flag_values=values)
  flags.DEFINE_bool('offline', False, 'never ask the network', flag_values=values)
  flags.DEFINE_string('sweep', '', 'file of experiments/ with a sweep(config)', flag_values=values)
  flags.DEFINE_list('only', [], 'names of the variants to train now', flag_values=values)
  flags.DEFINE_integer(
    'layers', 1, 'how many of the last children a probe sees', lower_bound=1, flag_values=values
  )
  flags.DEFINE_string(
    'images', '', 'unlabelled pictures: a folder, or one file', flag_values=values
  )
  flags.DEFINE_string('output', '', 'csv file', flag_values=values)
  flags.DEFINE_string('name', 'test', 'name of the predictions', flag_values=values)
  return values


def joined(argv: Sequence[str]) -> list[str]:
  """Return the words with '--name value' written as '--name=value'.

  >>> joined(['--config', 'configs/x.py', '--folds', '--config.lr=0.1'])
  ['--config=configs/x.py', '--folds', '--config.lr=0.1']
  """
  words: list[str] = []
  for word in argv:
    if words and _lacks_value(words[-1]) and not word.startswith('--'):
      words[-1] += f'={word}'
    else:
      words.append(word)
  return words


def _lacks_value(word: str) -> bool:
  """Return whether a word is an option whose value comes in the next word."""
  return word.startswith('--') and '=' not in word and word.lstrip('-') not in SWITCHES


def _option(words: Sequence[str], name: str) -> str:
  """Return the value of the first option of this name, '' where there is none."""
  for word in words:
    if word.startswith(f'--{name}='):
      return word.partition('=')[2]
  return ''


def read_components(
  config: ConfigDict, words: Sequence[str], other: bool = False
) -> tuple[ConfigDict, list[str]]:
  """Return the config with the keys of its components that the words set, and the other words.

  `--config.model.width=32` sets or adds a key, read as the component's function takes it. A key
  that the function does not know is added too: the check of the config refuses it. Another
  `--config.data.name` replaces the component whole; data keep their ops and split (`other`: an
  external data set is not split).
  """
  new = ConfigDict(config.to_dict())
  left = []
  for part in COMPONENTS:
    name = _option(words, f'config.{part}.name')
    if name and name != new[part].name:
      keys: dict[str, Any] = {'name': name}
      if part == 'data':
        keys['ops'] = new.data.ops
        keys['split'] = {'by': 'none'} if other else new.data.split
      if part == 'model':
        keys['weights'] = ''
      new[part] = ConfigDict(keys)
  for word in words:
    path, _, value = word.removeprefix('--config.').partition('=')
    part, _, last = path.rpartition('.')
    if word.startswith('--config.') and _of_component(part):
      node = _node(new, path)
      parameter = components.parameters(new, part).get(last)
      meant = annotation.read(value, parameter)
      _refuse_dots(path, meant)
      with node.ignore_type():  # the function says the kind, not the value that stood there
        node[last] = meant
    else:
      left.append(word)
  return new.lock(), left


def _of_component(part: str) -> bool:
  """Return whether keys of a part such as 'data.split' or 'tests.b' are those of a function."""
  first, _, rest = part.partition('.')
  return first in COMPONENTS or (first in OTHER_DATA and bool(rest))


def _refuse_dots(path: str, value: Any) -> None:
  """Raise where a name in a mapping holds a dot, which ml_collections refuses."""
  names = value if isinstance(value, dict) else {}
  for name in names:
    if isinstance(name, str) and '.' in name:
      raise MedtlError(
        f'config.{path}: the name {name!r} holds a dot, and no key of a config may; give pairs: '
        f'--config.{path}="{tuple(names.items())}"'
      )


def _node(config: ConfigDict, path: str) -> ConfigDict:
  """Return what holds the last key of a path such as 'data.split.fold'."""
  *parents, _ = path.split('.')
  node: Any = config
  for parent in parents:
    if not isinstance(node, ConfigDict) or parent not in node:
      raise MedtlError(
        f'no config key {path!r}; medtl/run/config_keys.py holds every key with its meaning'
      )
    node = node[parent]
  if not isinstance(node, ConfigDict):
    raise MedtlError(f'config.{".".join(parents)} is {node!r}, which has no keys; found {path!r}')
  return node


def _automatic(config: ConfigDict) -> ConfigDict:
  """Return the config with batch='auto'."""
  new = ConfigDict(config.to_dict())
  with new.ignore_type():
    new.batch = 'auto'
  return new.lock()


def _read(values: Any, config: ConfigDict, words: Sequence[str]) -> list[str]:
  """Have absl and ml_collections check the words and set `values`; return the words left over.

  What they say in several sentences is said in one, as a MedtlError.
  """
  try:
    config_flags.DEFINE_config_dict(
      'config', config, flag_values=values, sys_argv=['medtl', *words]
    )
    return values(['medtl', *words])[1:]
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    _refuse(values, config, words)
    message = str(error.args[0] if error.args else error)
    raise MedtlError(_shortened(message.removeprefix('"').removesuffix('"'))) from None


def _shortened(message: str) -> str:
  """Return in one sentence what absl or ml_collections says of an unknown flag or key."""
  flag = re.fullmatch(r"Unknown command line flag '((?:data|model|head|task)\..*?)'.*", message)
  if flag:
    return f'no flag --{flag[1]}; did you mean --config.{flag[1]}?'
  key = re.search(r'(\w+)\W+n?Did you mean \W?(\w+)\W? instead', message)
  if key:
    return f'no config key {key[1]!r}; did you mean {key[2]!r}?'
  if ' ' not in message:  # ml_collections names a key alone where it has no better idea
    name = message.strip("'")
    return f'no config key {name!r}; medtl/run/config_keys.py holds every key with its meaning'
  return message


def _refuse(values: Any, config: ConfigDict, words: Sequence[str]) -> None:
  """Raise for the first word whose value is of another kind than its flag or key."""
  for word in words:
    if '=' not in word:
      continue
    name, _, value = word.removeprefix('--').partition('=')
    if name.startswith('config.'):
      _refuse_key(config, name.removeprefix('config.'), value)
    elif name in values:
      flag = values[name]
      try:
        flag.parser.parse(value)
      except ValueError:
        expected = EXPECTED[flag.flag_type()]
        raise MedtlError(f'--{name} is {value!r}; expected {expected}') from None


def _refuse_key(config: ConfigDict, path: str, value: str) -> None:
  """Raise where a value is of another kind than the key 'lr', 'mesh.data' …"""
  part, _, name = path.rpartition('.')
  known = components.parameters(config, part) if part else validate.parameters()
  if name not in known:
    return
  if not part and isinstance(config[name], ConfigDict):
    first = min(config[name], key=lambda key: key != 'name')
    raise MedtlError(
      f'config.{name} is {value!r}; expected its keys, each for itself: --config.{name}.{first}=…'
    )
  where = f'config.{part}' if part else 'config'
  annotation.checked(where, name, annotation.read(value, known[name]), known[name])
