"""docs/mission.md: each command can be read, and what is done says where it was seen."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from medtl import cli, main
from medtl.core import expressions, user_files
from medtl.core.types import MedtlError
from medtl.data import augmentation, transforms
from medtl.run import assemble, run_folder, validate
from medtl.tasks import classification

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'mission.md'
WITH_COMMAND = ('done', 'partly')
STATUSES = (*WITH_COMMAND, 'planned')
HEADER = '| what | command | status | seen in | limit |'
LEFT_OUT_HEADER = '| what | status | why |'


class Row(NamedTuple):
  """One thing that the mission names."""

  what: str
  command: str
  status: str
  seen_in: str
  limit: str


def tables():
  """Return {header: the cells of all rows below that header}, of the whole page."""
  found = {}
  header = ''
  for line in PAGE.read_text().splitlines():
    if not line.startswith('|'):
      header = ''
    elif not header:
      header = line
    elif not line.startswith('|---'):
      found.setdefault(header, []).append(cells(line))
  return found


def cells(line):
  """Return the cells of a table's line; a bar that belongs to a cell is written \\|."""
  parts = re.split(r'(?<!\\)\|', line)[1:-1]
  return [part.strip().replace('\\|', '|') for part in parts]


ROWS = [Row(*line) for line in tables()[HEADER]]
COMMANDS = sorted({row.command.strip('`') for row in ROWS if row.command})


def test_every_row_has_a_status_and_a_command_where_there_is_one():
  assert set(tables()) == {HEADER, LEFT_OUT_HEADER}
  assert len(ROWS) > 80
  for row in ROWS:
    assert row.status in STATUSES, row
    has_command = row.command.startswith('`python -m ')
    assert has_command == (row.status in WITH_COMMAND), row
    if not has_command:
      assert row.command == '' and row.seen_in == '', row


def test_what_is_partly_there_says_what_is_missing():
  for row in ROWS:
    if row.status == 'partly':
      assert row.limit, row


def test_what_works_says_where_it_was_seen():
  for row in ROWS:
    if row.status in WITH_COMMAND:
      assert (ROOT / row.seen_in.strip('`')).is_file(), row


def test_what_is_left_out_says_why():
  left_out = tables()[LEFT_OUT_HEADER]
  assert [name for name, _, _ in left_out][:4] == [
    'Speech',
    'Forecasting outbreaks',
    'Choosing a treatment',
    'Medication errors',
  ]
  for _, status, why in left_out:
    assert status == 'left out' and why


@pytest.fixture(scope='module')
def places(tmp_path_factory):
  """What the page's placeholders stand for: a folder of a run that has nothing but its config."""
  run = tmp_path_factory.mktemp('run')
  config = run_folder.load_config(str(ROOT / 'configs/images.py'))
  run_folder.open_or_verify(run, config)
  return {'RUN': str(run)}


@pytest.mark.parametrize('command', COMMANDS)
def test_a_command_can_be_read(command, places, monkeypatch):
  monkeypatch.chdir(ROOT)
  python, option, module, *words = shlex.split(command)
  assert (python, option) == ('python', '-m')
  assert importlib.util.find_spec(module) is not None
  words = [re.sub(r'\bRUN\b', places['RUN'], word) for word in words]
  if module == 'medtl.main':
    verb = main._verb(words)
    assert verb in main.VERBS
    flags_only = [word for word in words if word.startswith('--')]
    check_parsed(verb, flags_only)
  elif any(word.startswith('--config=') for word in words):
    check_parsed('train', words)


def check_parsed(verb, words):
  """Parse the words of a verb, and check what they say as a run would before it reads its data."""
  flags, config, _ = cli.parse(verb, words)
  validate.count_seeds(config)
  validate.check_config(one_run(config))
  if config.augment:
    augmentation.augment(config.augment, classes=2)
  expressions.functions(config.data.ops, transforms, given=('example',))
  if flags.sweep:
    with user_files.defined(user_files.locate(flags.sweep), 'a sweep') as names:
      assert list(names['sweep'](config))


def one_run(config):
  """Return the config of one run, its open keys filled as for several classes."""
  changes = [('seeds', 1)]
  if config.task.name == 'classification':
    kind = 'multiclass' if config.task.kind == 'auto' else config.task.kind
    loss = config.task.loss or classification.DEFAULT[kind]
    changes += [('task.kind', kind), ('task.loss', loss)]
  return assemble.with_changes(config, changes)


@pytest.mark.parametrize(
  'wrong',
  [
    'python -m medtl.main --config=configs/none.py',
    'python -m medtl.main explain --workdir=RUN',
    'python -m medtl.main --config=configs/images.py --config.lrate=0.1',
    'python -m medtl.main --config=configs/images.py --config.data.colour=3',
    'python -m medtl.main evaluate --workdir=RUN --config.lr=0.1',
    "python -m medtl.main --config=configs/images.py --config.augment='turn(10)'",
    'python -m medtl.main ablate --config=configs/images.py --sweep=experiments/none.py',
    'python -m experiments.none --config=configs/images.py',
  ],
)
def test_a_command_that_cannot_be_read_is_noticed(wrong, places, monkeypatch):
  with pytest.raises((AssertionError, MedtlError, FileNotFoundError)):
    test_a_command_can_be_read(wrong, places, monkeypatch)
