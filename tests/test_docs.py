"""Pages that are written from the code are what the code would write."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from docs import checkpoints, figures, table
from medtl.core import expressions
from medtl.core.types import Dataset, Example
from medtl.models import catalogue
from medtl.run import assemble, run_data, run_folder
from tests import test_mission

ROOT = Path(__file__).parents[1]
ENTRIES = catalogue.entries()


def test_the_page_of_checkpoints_is_what_the_code_says():
  if checkpoints.PAGE.read_text() != checkpoints.page():
    pytest.fail(f'{checkpoints.PAGE} is stale; write it again: {checkpoints.COMMAND}')


def test_a_page_that_is_stale_is_noticed(tmp_path, monkeypatch):
  stale = tmp_path / 'checkpoints.md'
  stale.write_text(checkpoints.PAGE.read_text().replace('Apache-2.0', 'MIT', 1))
  monkeypatch.setattr(checkpoints, 'PAGE', stale)
  with pytest.raises(pytest.fail.Exception, match='write it again'):
    test_the_page_of_checkpoints_is_what_the_code_says()


@pytest.mark.parametrize('entry', ENTRIES, ids=lambda entry: f'{entry.family}.{entry.name}')
def test_every_checkpoint_names_its_net_and_what_was_seen_of_it(entry):
  weights = entry.weights
  expressions.find(entry.network, catalogue.PACKAGE)(**weights.keys)
  assert weights.tried in (checkpoints.REAL, checkpoints.FIXTURE, checkpoints.NAMES)
  assert bool(weights.url) != bool(weights.page)
  assert weights.trained_on and weights.note


def test_every_network_of_the_table_was_counted():
  kept = json.loads(catalogue.COUNTS.read_text())
  assert list(kept) == [f'{entry.family}.{entry.name}' for entry in ENTRIES], checkpoints.COMMAND


@pytest.mark.slow
def test_networks_have_as_many_parameters_as_were_counted():
  assert catalogue.COUNTS.read_text() == checkpoints.counts(), checkpoints.COMMAND


@pytest.mark.parametrize(
  ('name', 'published'),
  [
    ('torchvision_resnet50', 25_557_032),
    ('keras_resnet50', 25_636_712 - 53_120),  # Keras counts the statistics of norms too
    ('deit_ti16', 5_717_416),
  ],
)
def test_nets_have_as_many_parameters_as_their_publishers_say(name, published):
  (entry,) = catalogue.entries(f'^{name}$')
  assert catalogue.parameters_of(entry) == published


def test_what_is_called_real_was_read_by_a_test():
  real = [(entry.family, entry.name) for entry in ENTRIES if entry.weights.tried == 'real bytes']
  assert real == [('efficientnet', 'imagenet'), ('mobilenet', 'deep_sort_mobilenet_v2')]
  reader = (ROOT / 'tests/models/test_efficientnet.py').read_text()
  body = reader.split('def test_real_weights_know_a_cat_and_an_espresso')[1]
  assert "efficientnet.WEIGHTS['imagenet']" in body
  reader = (ROOT / 'tests/models/test_mobilenet.py').read_text()
  body = reader.split('def test_real_weights_fit_the_statistics_that_photographs_leave')[1]
  assert "mobilenet.WEIGHTS['deep_sort_mobilenet_v2']" in body
  assert 'test_real_clip' in (ROOT / 'tests/models/test_vit.py').read_text()
  assert 'test_real_weights_know' in (ROOT / 'tests/models/test_resnet.py').read_text()


README = ROOT / 'README.md'


def check_readme(block):
  if README.read_text() != table.written(README.read_text(), [block]):
    pytest.fail(f'{README} is stale; write its tables again: {table.COMMAND}')


def test_the_readme_tells_of_every_verb():
  check_readme('verbs')


@pytest.mark.slow  # a net of each family is built for each column
def test_the_readme_s_table_of_nets_is_what_the_code_says():
  check_readme('nets')


def test_a_table_that_is_stale_is_noticed(tmp_path, monkeypatch):
  stale = tmp_path / 'README.md'
  stale.write_text(README.read_text().replace('| `train` |', '| `trains` |'))
  monkeypatch.setattr(sys.modules[__name__], 'README', stale)
  with pytest.raises(pytest.fail.Exception, match='write its tables again'):
    check_readme('verbs')


def test_the_table_leaves_out_no_task_and_no_source():
  tasks = {task for column in table.COLUMNS for task in column.tasks}
  assert tasks == set(expressions.siblings('medtl.tasks'))
  sources = {source for column in table.COLUMNS for source in column.sources}
  assert sources == set(expressions.siblings('medtl.data.sources'))
  assert set(table.SMALL) == set(table.families())


def test_what_was_trained_on_patients_is_written_down():
  titles = [column.title for column in table.COLUMNS]
  for entry in table.ON_PATIENTS:
    assert entry.family in table.families() and entry.column in titles
    assert entry.words in (ROOT / entry.file).read_text(), entry


@pytest.mark.slow
@pytest.mark.parametrize('column', table.COLUMNS, ids=[column.title for column in table.COLUMNS])
@pytest.mark.parametrize('family', table.SMALL)
def test_what_is_said_to_be_trained_on_made_up_data_is(family, column):
  column = table.fitted(family, column)
  if table.mark(family, column) != table.GENERATED:
    pytest.skip(f'marked {table.mark(family, column)!r}')
  sides = made_up_sides(column)
  config = table.config_of(family, column)
  with config.unlocked():
    config.batch = 4
    config.workers = 0
    if column.tasks[0] == 'segmentation':
      config.monitor = 'dice'
    if column.tasks[0] == 'simclr':
      config.monitor = 'loss'
      config.augment = 'flip'
    if column.tasks[0] == 'adaptation':
      config.streams = dict(
        target=dict(
          name='phantom.load',
          patients=12,
          scans=1,
          size=column.shape[:-1],
          split=dict(by='patient', folds=3, fold=0, seed=0),
        )
      )
  context = assemble.run_context(config, sides=sides)
  context.task.accepts(sides, {**config.to_dict(), 'monitor': 'loss'})
  batch = next(run_data.step_batches(context, sides['train']))
  state = context.start()
  before = jax.device_get(state.params['head'])
  state, logs = context.step(0)(state, batch)
  assert np.isfinite(float(logs['loss']))
  after = jax.device_get(state.params['head'])
  moved = jax.tree.map(lambda first, second: not np.array_equal(first, second), before, after)
  assert any(jax.tree.leaves(moved))


def made_up_sides(column):
  """Return sides of four random examples each, of a column's shape and kind of label."""
  random = np.random.default_rng(0)
  shape = column.shape
  y = np.arange(4) % len(table.CLASSES)
  masked = column.tasks[0] == 'segmentation'

  def fetch(index):
    x = random.random(shape, np.float32)
    target = random.integers(len(table.CLASSES), size=shape[:-1]) if masked else y[index]
    return Example(x, target, index)

  facts = {'target': 'mask', 'classes': table.CLASSES} if masked else {}
  columns = {'row': np.arange(4), 'y': y}
  side = Dataset(fetch, 4, table.CLASSES, columns, facts, 'made up')
  return {'train': side, 'val': side, 'test': side}


def test_the_figure_is_drawn_from_the_table_of_depths():
  measured = figures.measured()
  assert [line.name for line in measured] == [
    'full',
    *(f'depth{depth}' for depth in range(1, 9)),
    'probe',
  ]
  assert measured[4] == ('depth4', 0.962, 0.929, 0.983)
  if figures.FIGURE.read_text() != figures.drawn():
    pytest.fail(f'{figures.FIGURE} is stale; draw it again: {figures.COMMAND}')


def commands(text):
  """Return the lines of a page's code blocks that call the program, without comments."""
  blocks = re.findall(r'(?ms)^```(\w*)\n(.*?)^```$', text)
  lines = (
    ''.join(code for language, code in blocks if not language).replace('\\\n', ' ').splitlines()
  )
  return [line for line in lines if line.startswith('python -m medtl')]


NEW = 'configs/mine.py'  # written by the reader of README.md
PAGES = ('README.md', 'docs/data.md', 'docs/oct.md')
COMMANDS = sorted({line for page in PAGES for line in commands((ROOT / page).read_text())})


@pytest.mark.parametrize('command', [line for line in COMMANDS if NEW not in line])
def test_a_command_of_the_readme_can_be_read(command, places, monkeypatch):
  words = shlex.split(command, comments=True)
  test_mission.test_a_command_can_be_read(shlex.join(words), places, monkeypatch)


@pytest.fixture(scope='module')
def places(tmp_path_factory):
  """A run folder that RUN stands for."""
  run = tmp_path_factory.mktemp('run')
  run_folder.open_or_verify(run, run_folder.load_config(str(ROOT / 'configs/images.py')))
  return {'RUN': str(run)}


def test_files_that_the_readme_names_are_there():
  for target in re.findall(r'\]\((?!http)([^)#]+)\)', README.read_text()):
    assert (ROOT / target).is_file(), target
  for name in re.findall(r'`([a-z_]\w+\.py)`', README.read_text()):
    assert (ROOT / 'experiments' / name).is_file(), name


def evidence():
  """Return (the file that a row of README's evidence links to, its numbers), for each row."""
  section = README.read_text().split('\n## Evidence\n')[1].split('\n## ')[0]
  rows = []
  for line in section.splitlines():
    link = re.search(r'\]\(([^)]+)\)', line)
    if line.startswith('| ') and link:
      rows.append((link[1], re.findall(r'\.\d{2,}', line.replace(link[0], ''))))
  return rows


def test_each_number_of_the_evidence_stands_where_its_row_says():
  rows = evidence()
  assert 4 <= len(rows) <= 6
  for file, numbers in rows:
    text = (ROOT / file).read_text()
    assert numbers, file
    assert [number for number in numbers if number not in text] == [], file


EXAMPLE = re.compile(
  r'(At the end of )?`((?:medtl|configs)/[\w/]+\.py)`:\n\n```python\n(.*?)```', re.S
)


@pytest.fixture(scope='module')
def extended(tmp_path_factory):
  """A copy of the program with the additions of README.md, and a file of made-up scans."""
  folder = tmp_path_factory.mktemp('extended')
  for package in ('medtl', 'configs'):
    shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns('__pycache__'))
  for at_the_end, name, code in EXAMPLE.findall(README.read_text()):
    file = folder / name
    assert file.exists() == bool(at_the_end), name
    before = f'{file.read_text()}\n\n' if at_the_end else ''
    file.write_text(before + code)
  y = np.arange(60) % 2
  dim = np.random.default_rng(0).integers(0, 150, (60, 16, 16))
  x = (dim + 60 * y[:, None, None]).astype(np.uint8)
  patient = np.array([f'patient {index // 2}' for index in range(60)])
  np.savez(folder / 'scans.npz', x=x, y=y, patient=patient)
  return folder


def test_what_the_readme_adds_is_one_of_each_kind():
  names = [name for _, name, _ in EXAMPLE.findall(README.read_text())]
  assert [str(Path(name).parent) for name in names] == [
    'medtl/data/sources',
    'medtl/models/backbones',
    'medtl/training',
    'medtl/tasks',
    'configs',
  ]
  assert names[-1] == NEW


def test_what_the_readme_adds_trains(extended):
  [command] = [line for line in COMMANDS if NEW in line]
  program, *words = shlex.split(command)
  assert program == 'python'
  done = subprocess.run(
    [sys.executable, *words, '--workdir=run', '--config.workers=0', '--config.resamples=20'],
    cwd=extended,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  numbers = json.loads((extended / 'run' / 'numbers.json').read_text())
  assert numbers['metrics']['auroc']['value'] > 0.9
  records = (extended / 'run' / 'metrics.jsonl').read_text()
  assert 'train/apart' in records and 'train/class' in records
  config = json.loads((extended / 'run' / 'config.json').read_text())
  assert config['model']['name'] == 'plain.plain' and config['data']['name'] == 'npz.load'
  assert config['task']['loss'] == 'poly(epsilon=2.0)'
