"""The command line changes every key that a run knows, and explains what it does not know."""

import pytest

from medtl import cli
from medtl.core.types import MedtlError

CONFIG = '--config=tests/tiny.py'


@pytest.fixture(autouse=True)
def at_root(monkeypatch, request):
  monkeypatch.chdir(request.config.rootpath)


def config(*words, verb='train'):
  return cli.parse(verb, words)[1]


def test_keys_of_the_config_keep_their_type():
  made = config(CONFIG, '--config.lr=0.5', '--config.model.width=8', '--config.data.split.fold=2')
  assert (made.lr, made.model.width, made.data.split.fold) == (0.5, 8, 2) and made.is_locked
  with pytest.raises(MedtlError, match=r'wide|int'):
    config(CONFIG, '--config.batch=wide')


def test_keys_that_a_component_only_knows_by_its_function_are_added():
  made = config(
    CONFIG,
    '--config.head.pool=max',
    '--config.model.norm=group',
    '--config.data.split.labels=0.5',
    '--config.data.size=(48, 32)',
  )
  assert (
    made.head.pool == 'max'
    and made.model.norm == 'group'
    and made.data.split.labels == 0.5
    and made.data.size == (48, 32)
  )


def test_keys_of_other_data_are_known_by_their_function_too():
  made = config(CONFIG)
  with made.unlocked(), made.ignore_type():
    made.tests = {'b': {'name': 'table.load', 'root': 'x'}}
    made.streams = {'target': {'name': 'phantom.load', 'split': {'by': 'none'}}}
  words = [
    "--config.tests.b.rename={'CNV': 'AMD'}",
    '--config.tests.b.patient=7',
    '--config.streams.target.site=hospital',
    '--config.streams.target.split.by=site',
  ]
  read, left = cli.read_components(made.lock(), words)
  assert left == []
  assert read.tests.b.rename.to_dict() == {'CNV': 'AMD'} and read.tests.b.patient == '7'
  assert (read.streams.target.site, read.streams.target.split.by) == ('hospital', 'site')


def test_of_one_key_given_twice_the_last_counts():
  phases = "--config.phases=(('none', '{} epochs'),)"
  made = config(CONFIG, phases.format(1), '--config.lr=1', phases.format(2), '--config.lr=0.5')
  assert made.phases == (('none', '2 epochs'),) and made.lr == 0.5


def test_another_name_replaces_the_component():
  made = config(
    CONFIG,
    '--config.model.name=vit.vit_ti16',
    '--config.model.patch=8',
    '--config.data.name=folder.load',
    '--config.data.root=x',
  )
  assert made.model.to_dict() == {'name': 'vit.vit_ti16', 'weights': '', 'patch': 8}
  assert made.data.to_dict() == {
    'name': 'folder.load',
    'root': 'x',
    'ops': '',
    'split': dict(by='patient', folds=4, fold=0, seed=0),
  }


def test_a_value_may_stand_apart_from_its_name():
  assert config('--config', 'tests/tiny.py', '--config.lr', '0.5', '--folds').lr == 0.5


@pytest.mark.parametrize(
  'words, said',
  [
    ((CONFIG, '--config.lrr=1'), "no config key 'lrr'; did you mean 'lr'"),
    (
      (CONFIG, '--config.epochs=1'),
      r"no config key 'epochs'; medtl/run/config_keys.py holds every key",
    ),
    ((CONFIG, '--data.root=x'), r'no flag --data.root; did you mean --config.data.root\?'),
    ((CONFIG, '--config.data.splitt.fold=1'), "no config key 'data.splitt.fold'"),
    ((CONFIG, '--fold'), 'fold'),
    ((CONFIG, 'extra'), "unexpected argument 'extra'"),
    ((CONFIG, '--config.lr=x', '--config.batch=y'), "config: lr is 'x'; expected a number"),
    (('--config=tests/tyni.py',), r"no config 'tests/tyni.py'; did you mean 'tests/tiny.py'"),
    (
      (),
      r'train needs --config=configs/x.py; the configs are: configs/adrenal_volumes.py, '
      r'configs/blueprint.py, configs/breast_clip.py',
    ),
  ],
)
def test_what_it_does_not_know_it_explains(words, said):
  with pytest.raises(MedtlError, match=said):
    config(*words)


@pytest.mark.parametrize(
  'verb, word',
  [
    ('train', '--only=a'),
    ('lr_find', '--folds'),
    ('describe', '--layers=2'),
    ('train', '--sweep=x.py'),
  ],
)
def test_a_flag_of_another_verb_is_refused(verb, word):
  with pytest.raises(
    MedtlError, match=rf'{verb} takes no {word.partition("=")[0]}; it belongs to '
  ):
    config(CONFIG, word, verb=verb)


@pytest.mark.parametrize('value', ['x', '0', '-1', '1.5'])
def test_a_flag_of_the_wrong_size_is_refused_in_words(value):
  with pytest.raises(
    MedtlError, match=f"--layers is '{value}'; expected a whole number at least 1"
  ):
    config(CONFIG, f'--layers={value}', verb='probe')


def test_a_list_of_names_that_cannot_be_read_is_refused_in_words():
  with pytest.raises(MedtlError, match=r"--only is '\"a'; expected names with commas between them"):
    config(CONFIG, '--only="a', verb='ablate')


def test_verbs_of_a_run_folder_take_no_config(tmp_path):
  with pytest.raises(MedtlError, match='works from a run folder'):
    config(CONFIG, f'--workdir={tmp_path}', verb='report')
  with pytest.raises(MedtlError, match='is no run folder'):
    config(f'--workdir={tmp_path}', verb='report')
