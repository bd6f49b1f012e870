"""Each key is declared once, and does what its declaration says."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from configs import base
from medtl.core.types import MedtlError
from medtl.run import assemble, config_keys, run_folder, validate
from tests import tiny

OLD = Path(__file__).parents[1] / 'fixtures' / 'run_folder_v1.zip'
OF_PROGRAMS = {'data', 'net', 'draws', 'programs', 'update', 'groups'}
# another value of texts and tuples that are checked
VALID = dict(
  monitor='accuracy',
  every='2 epochs',
  threshold='at_sensitivity(0.9)',
  compare=(('fast', (('lr', 0.01),)),),
  tests={'elsewhere': {'name': 'phantom.load'}},
)


@pytest.fixture(scope='module')
def context():
  changes = dict(augment='flip', random_frozen=False, phases=(('none', '2 epochs'),))
  return assemble.run_context(assemble.with_changes(tiny.get_config(), list(changes.items())))


def valid(config, name):
  """Return another value that the checks let pass."""
  value = config[name]
  choices = [word for word in config_keys.KEYS[name].choices if word != value]
  return VALID.get(name) or (choices[0] if choices else another(value))


def another(value):
  """Return a value of the same kind that is not equal."""
  if isinstance(value, Mapping):
    return {**value, 'other': 1}
  if isinstance(value, tuple):
    return (*value, ('other', 'source'))
  return not value if isinstance(value, bool) else value + type(value)(1)


def changed(name):
  config = base.get_config()
  value = config.to_dict()[name]
  return assemble.with_changes(config, [(name, another(value))])


def undeclared():
  """Return the defaults with a key that nobody declared."""
  config = base.get_config()
  with config.unlocked():
    config.undeclared = 1
  return config


def test_the_defaults_are_the_declared_keys_and_no_two_configs_share_them():
  config = base.get_config()
  assert set(config) == set(config_keys.KEYS)
  with config.unlocked():
    config.data.split.fold = 3
  assert base.get_config().data.split.fold == 0


def test_every_key_says_what_it_means_and_its_default_is_what_it_must_be():
  for name, key in config_keys.KEYS.items():
    assert key.meaning.endswith('.'), name
  validate.check_config(base.get_config())


def test_a_key_without_a_declaration_is_an_error_and_shared_by_no_two_runs():
  with pytest.raises(MedtlError, match="config has no key 'undeclared'"):
    validate.check_config(undeclared())
  other = undeclared()
  with other.unlocked():
    other.undeclared = 2
  assert not assemble.shares_weights(undeclared(), other)
  assert run_folder.digest(undeclared()) != run_folder.digest(other)


@pytest.mark.parametrize('name', config_keys.KEYS)
def test_runs_share_their_net_unless_a_key_says_that_it_changes_it(name):
  shared = assemble.shares_weights(base.get_config(), changed(name))
  assert shared == (not set(config_keys.KEYS[name].changes) & {'data', 'net', 'programs'})


@pytest.mark.parametrize('name', config_keys.KEYS)
def test_a_run_has_the_same_folder_wherever_it_computes(name):
  same = run_folder.digest(base.get_config()) == run_folder.digest(changed(name))
  assert same == ('place' in config_keys.KEYS[name].changes)


@pytest.mark.parametrize('name', config_keys.changing('update'))
def test_a_key_of_the_update_is_in_the_key_of_its_program(context, name):
  other = {'class_weights': 'balanced', 'batch': 8, 'accumulate': 2}[name]
  config = assemble.with_changes(context.config, [(name, other)])
  made = assemble.run_context(config, like=context)
  assert made.programs is context.programs
  assert made.program_cache_key(0) != context.program_cache_key(0)


def test_keys_that_change_no_program_do_not_appear_in_the_lowered_update(context):
  names = [name for name, key in config_keys.KEYS.items() if not set(key.changes) & OF_PROGRAMS]
  names.remove('seeds')  # is 1 in every run
  changes = [(name, valid(context.config, name)) for name in names]
  other = assemble.run_context(assemble.with_changes(context.config, changes))
  assert other.programs is not context.programs  # it lowers for itself
  assert other.program_cache_key(0) == context.program_cache_key(0)
  assert other.lowered(0).as_text() == context.lowered(0).as_text()


def test_the_seed_draws_other_weights_of_the_same_program(context):
  other = assemble.run_context(assemble.with_changes(context.config, [('seed', 7)]), like=context)
  kernel = lambda made: made.params['head']['dense']['kernel']
  assert other.programs is context.programs
  assert (kernel(other) != kernel(context)).any()


def test_a_key_that_older_run_folders_lack_says_with_which_value_they_ran():
  with zipfile.ZipFile(OLD) as archive:
    keys = json.loads(archive.read('run/config.json'))
  assert set(config_keys.KEYS) <= set(keys) | set(config_keys.added())
  assert config_keys.added()['norm_images'] == 0  # and not the default of today


@pytest.mark.parametrize(
  ('name', 'value', 'words'),
  [
    ('lr', 0.0, r'config.lr is 0.0; expected a number above 0'),
    ('cache', 'of', r"config.cache is 'of'; did you mean .*off"),
    ('norms', (('.*',),), r'config.norms is .*; expected a tuple of \(regex, policy\)'),
    ('phases', (), r'config.phases is \(\); expected a tuple of at least one of \(freeze, dur'),
  ],
)
def test_what_a_value_must_be_is_said(name, value, words):
  with pytest.raises(MedtlError, match=words):
    validate.check_config(assemble.with_changes(base.get_config(), [(name, value)]))
