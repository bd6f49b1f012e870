"""Configs and sweeps work from every directory; a fault in one is a sentence with its line."""

import sys
from pathlib import Path

import pytest

import configs.base  # what a test has imported stays what it was
from medtl.core import user_files
from medtl.core.types import MedtlError
from medtl.run import run_folder
from medtl.studies import ablation

ROOT = Path(__file__).parents[2]
OWN = """from configs import base


def get_config(variant=''):
  config = base.get_config()
  with config.unlocked():
    config.lr = 0.125
  return config
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
  """A working directory of the user's own, from which Python finds medtl and nothing beside it."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(
    sys, 'path', [entry for entry in sys.path if Path(entry or '.').resolve() != ROOT]
  )
  return tmp_path


def write(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  return path


def test_configs_of_medtl_work_from_every_directory(elsewhere):
  whole = run_folder.load_config(f'{ROOT}/configs/oct_resnet.py:source')
  named = run_folder.load_config('configs/oct_resnet.py:source')
  assert whole == named and whole.model.width == 16


@pytest.mark.parametrize('folder', ['mine', 'configs', 'my configs [1]:2'])
def test_a_config_of_one_s_own_imports_base_from_every_directory(elsewhere, folder):
  path = write(elsewhere / folder / 'own.py', OWN)
  for name in (str(path), f'{folder}/own.py', f'{path}:small'):
    assert run_folder.load_config(name).lr == 0.125
  assert run_folder.default_name(f'{path}:small', run_folder.load_config(str(path))).startswith(
    'own-small-'
  )


def test_own_modules_of_a_folder_called_configs_go_first_and_none_stays(elsewhere):
  before = {name: module for name, module in sys.modules.items() if name.startswith('configs')}
  assert before['configs'] is configs
  for place in ('a', 'b'):
    write(elsewhere / place / 'configs' / 'rates.py', f"RATE = {len(place)}.5\nPLACE = '{place}'\n")
    path = write(
      elsewhere / place / 'configs' / 'own.py',
      OWN.replace('import base', 'import base, rates').replace(
        '0.125', f'rates.RATE if rates.PLACE == {place!r} else 0.0'
      ),
    )
    assert run_folder.load_config(str(path)).lr == 1.5
  assert {
    name: module for name, module in sys.modules.items() if name.startswith('configs')
  } == before


def test_a_folder_called_configs_in_the_working_directory_does_not_hide_base(
  elsewhere, monkeypatch
):
  monkeypatch.syspath_prepend(str(elsewhere))
  write(elsewhere / 'configs' / '__init__.py', 'RATE = 0.5\n')
  path = write(
    elsewhere / 'mine' / 'own.py',
    OWN.replace('import base', 'import RATE, base').replace('0.125', 'RATE'),
  )
  assert run_folder.load_config(str(path)).lr == 0.5


@pytest.mark.parametrize(
  'text, said',
  [
    (
      'x = 1\nundefined\n',
      "own.py, line 2: NameError: name 'undefined' is not defined; expected a Python file with "
      'get_config()',
    ),
    (
      'import nothing_of_the_kind',
      "own.py, line 1: ModuleNotFoundError: No module named 'nothing_of_the_kind'",
    ),
    ('from configs import nothing', "own.py, line 1: ImportError: cannot import name 'nothing'"),
    ('def get_config(:', 'own.py, line 1: SyntaxError: invalid syntax'),
    ('raise SystemExit', 'own.py, line 1: SystemExit; expected'),
    ('\0', 'own.py: SyntaxError: source code string cannot contain null bytes'),
    ('x = 1', 'own.py is no config: it has no function get_config()'),
    ('get_config = 1', 'own.py is no config: it has no function get_config()'),
    (
      'def get_config():\n  return',
      'get_config() of own.py returned None; expected what base.get_config() returns',
    ),
    ('def get_config():\n  return 1 / 0', 'own.py, line 2: ZeroDivisionError: division by zero'),
    (
      'def get_config(variant): return variant',
      'own.py needs a variant; give one: --config=own.py:VARIANT',
    ),
    (
      'from ml_collections import ConfigDict\n\ndef get_config(): return ConfigDict({"lr": 1})',
      'begin with base.get_config()',
    ),
    (
      OWN.replace('config.lr', 'config.lrr').replace('with config.unlocked()', 'if 1'),
      'line 7: AttributeError: ',
    ),
  ],
)
def test_what_is_wrong_with_a_config_is_said_with_its_line(elsewhere, text, said):
  write(elsewhere / 'own.py', text)
  with pytest.raises(MedtlError) as caught:
    run_folder.load_config('own.py')
  assert said in str(caught.value) and len(str(caught.value)) < 700


def test_what_the_errors_advise_works(elsewhere):
  write(
    elsewhere / 'own.py', OWN.replace("variant=''", 'variant').replace('0.125', 'len(variant) / 10')
  )
  with pytest.raises(MedtlError, match='needs a variant'):
    run_folder.load_config('own.py')
  assert run_folder.load_config('own.py:four').lr == 0.4
  with pytest.raises(MedtlError, match=r"no config 'won.py'; did you mean 'own.py'"):
    run_folder.load_config('won.py')


def test_a_key_that_is_not_known_is_said(elsewhere, capsys):
  write(elsewhere / 'own.py', OWN.replace('config.lr =', 'config.later_version ='))
  run_folder.load_config('own.py')
  assert (
    'own.py: this version of medtl knows no later_version, and does not heed it'
    in capsys.readouterr().out
  )


SWEEP = '"""Rates: two."""\nAXIS, AGAINST = "rate", ()\n\n\ndef sweep(config):\n'


@pytest.mark.parametrize(
  'text, said',
  [
    ('undefined\n', 'sweep.py, line 1: NameError'),
    (
      f"{SWEEP}  yield 'a', undefined",
      "sweep.py, line 6: NameError: name 'undefined' is not defined; expected a file of",
    ),
    (f"{SWEEP}  yield 'a'", 'sweep.py: ValueError: not enough values to unpack'),
    (f"{SWEEP}  yield 'a', (('lr', 'b', 'c'),)", 'sweep.py: ValueError: too many values to unpack'),
    (f'{SWEEP}  return 3', "sweep.py: TypeError: 'int' object is not iterable"),
    ('x = 1', 'sweep.py lacks sweep, AXIS, AGAINST; expected a file of experiments/'),
  ],
)
def test_what_is_wrong_with_a_sweep_is_said_with_its_line(elsewhere, text, said):
  path = write(elsewhere / 'sweep.py', text)
  config = run_folder.load_config('configs/quickstart.py')
  with pytest.raises(MedtlError) as caught:
    ablation.ablate(config, path, elsewhere / 'study')
  assert said in str(caught.value)


def test_sweeps_of_medtl_are_found_from_every_directory(elsewhere):
  assert user_files.locate('experiments/worth.py') == ROOT / 'experiments' / 'worth.py'
  write(elsewhere / 'experiments' / 'worth.py', '')
  assert user_files.locate('experiments/worth.py') == Path('experiments/worth.py')
