"""A run on the rows of a csv: another hospital tests.

Its page, evaluate and predict know no picture.
"""

import csv
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from configs import base
from medtl.core.types import Dataset, Example, MedtlError
from medtl.evaluation import predictions
from medtl.models import Net, heads
from medtl.models.backbones import mlp
from medtl.run import (
  initial_weights,
  open_keys,
  other_data,
  predict,
  run_data,
  run_folder,
  train,
  validate,
)
from medtl.studies import folds

HEADER = ('site', 'sick', 'age', 'dose', 'kind')


def rows(site: str, count: int, seed: int) -> list[tuple]:
  """Patients whose risk is linear in their columns.

  In the north a third of the doses is missing.
  """
  random = np.random.RandomState(seed)
  found = []
  for _ in range(count):
    age = random.normal(60, 10)
    dose = random.normal(3, 1)
    kind = random.choice(['x', 'y'])
    risk = (age - 60) / 5 + 2 * (dose - 3) + (kind == 'y')
    sick = int(random.rand() < 1 / (1 + np.exp(-risk)))
    missing = site == 'north' and random.rand() < 1 / 3
    found.append((site, sick, f'{age:.1f}', '' if missing else f'{dose:.2f}', kind))
  return found


def write(path, found):
  with open(path, 'w', newline='') as file:
    csv.writer(file).writerows([HEADER, *found])
  return path


def config_of(path):
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='table',
      root=str(path),
      label='sick',
      classes=(),
      features=('age', 'dose'),
      categories=('kind',),
      patient='row',
      site='site',
      split=dict(by='site', test=('south',), folds=4, seed=0),
      ops='',
    )
    config.model = dict(name='mlp.mlp', width=8, depth=1, dropout=0.0, weights='')
    config.task = dict(name='classification', kind='auto', loss='')
    config.phases = (('none', '6 epochs'),)
    config.lr = 2e-2
    config.every = '3 epochs'
    config.resamples, config.workers = 20, 0
  return config.lock()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """(config, run folder) of a finished run."""
  folder = tmp_path_factory.mktemp('table')
  sites = [*rows('north', 120, 0), *rows('east', 120, 1), *rows('south', 120, 2)]
  workdir = folder / 'run'
  config = open_keys.settle(config_of(write(folder / 'three.csv', sites)), workdir)
  train.train(config, workdir)
  return config, workdir


def columns(saved):
  """[n, 4] as scikit-learn takes them: the mean in place of a missing dose, and whether it is."""
  dose = saved['dose']
  missing = np.isnan(dose)
  filled = np.where(missing, 3.0, dose)
  return np.stack([saved['age'] / 10, filled, saved['kind'] == 'y', missing], axis=1)


def test_another_site_tests_and_the_net_is_about_as_good_as_logistic_regression(run):
  config, workdir = run
  numbers = run_folder.read(workdir, 'numbers.json')
  assert config.task.kind == 'binary' and numbers['images'] == numbers['patients'] == 120
  test = predictions.load(workdir / 'predictions' / 'test.npz')
  assert set(test.table['site']) == {'south'} and not test.pictures
  val = predictions.load(workdir / 'predictions' / 'val.npz')
  assert set(val.table['site']) == {'north', 'east'}
  reference = LogisticRegression().fit(columns(val.table), val.table['y'])
  score = reference.predict_proba(columns(test.table))[:, 1]
  expected = roc_auc_score(test.table['y'], score)
  assert expected > 0.85 and numbers['metrics']['auroc']['value'] > expected - 0.03


def test_the_page_speaks_of_rows_and_shows_no_picture(run):
  _, workdir = run
  page = (workdir / 'report.html').read_text()
  words = re.sub(r'<[^>]*>', ' ', page.partition('<main>')[2].partition('The whole config')[0])
  assert '120 rows of 120 patients' in words and 'three.csv:' in words
  assert not re.search(r'(?i)\b(images?|pictures?|pixels?)\b', words)
  assert 'class="errors"' in page and 'loading="lazy"' not in page


def test_evaluate_gives_the_same_again_and_knows_another_hospital(run, tmp_path):
  config, workdir = run
  before = run_folder.read(workdir, 'numbers.json')
  again = predict.evaluate_again(config, workdir, 'test')
  assert again['metrics']['auroc'] == before['metrics']['auroc']
  west = rows('west', 60, 3)
  west[0] = (*west[0][:4], 'z')
  other = config.copy_and_resolve_references()
  with other.unlocked():
    other.data.root = str(write(tmp_path / 'west.csv', west))
  numbers = predict.evaluate_again(other, workdir, 'west')
  assert numbers['images'] == 60 and numbers['metrics']['auroc']['value'] > 0.8
  facts = run_folder.read(workdir / 'predictions', 'west.json')
  assert any('kind=z (1 rows)' in note for note in facts['notes'])


def test_rows_that_trained_the_net_are_recognised_by_file_and_line(run):
  config, workdir = run
  other = config.copy_and_resolve_references()
  with other.unlocked():
    other.data.patient = ''
  with pytest.raises(MedtlError, match=r'240 of 360 pictures.*180 train, 60 val.*three.csv:2 '):
    predict.evaluate_again(other, workdir, 'same')


def test_predict_answers_for_each_row(run, tmp_path):
  config, workdir = run
  table = tmp_path / 'new.csv'
  table.write_text('age,dose,kind\n90,6,y\n30,,x\n')
  output = predict.predict(config, workdir, table, tmp_path / 'answers.csv')
  answers = list(csv.DictReader(output.open()))
  assert [row['file'] for row in answers] == ['new.csv:2', 'new.csv:3']
  assert [row['predicted'] for row in answers] == ['1', '0']


def test_folds_leave_out_one_site_after_another(run):
  config, _ = run
  with pytest.raises(MedtlError, match=r'data.split.test is .*south'):
    validate.count_folds(config)
  other = config.copy_and_resolve_references()
  with other.unlocked():
    other.data.split = dict(by='site')
  assert validate.count_folds(other) == 3


def test_more_sites_than_folds_are_each_tested_once_and_pooled(tmp_path):
  patients = []
  for seed, site in enumerate('abcdefg'):
    patients += rows(site, 12, seed)
  config = config_of(write(tmp_path / 'many.csv', patients))
  with config.unlocked():
    config.data.split = dict(by='site', folds=4, fold=0, seed=0)
    config.phases = (('none', '1 epochs'),)
    config.every = '1 epochs'
  workdir = tmp_path / 'run'
  numbers = folds.train_folds(open_keys.settle(config, workdir), workdir)
  assert numbers['images'] == len(patients)
  test = predictions.load(workdir / 'predictions' / 'test.npz')
  assert test.predictions.row.tolist() == list(range(len(patients)))
  val = predictions.load(workdir / 'predictions' / 'val.npz')
  assert len(np.unique(val.predictions.row)) == len(val.predictions.row) > len(patients) / 2


def test_a_missing_number_is_the_mean_and_counts_for_none():
  x = np.array([[1, 10, 0, 5], [3, np.nan, 1, 5], [np.nan, 30, 1, 5]], np.float32)
  fetch = lambda row: Example(x[row], np.array(0), row)
  dataset = Dataset(fetch, 3, ('a', 'b'), {}, {'flags': [2]})
  mean, std = initial_weights.statistics(dataset)
  assert mean == (2, 20, 0, 5) and std == (1, 10, 1, 1)
  net = Net(mlp.mlp(width=4), heads.linear(2), mean, std)
  variables = net.init(jax.random.key(0), jnp.zeros((1, 4)), train=False)
  filled = np.where(np.isnan(x), mean, x)
  outputs = net.apply(variables, jnp.asarray(x), train=False)
  np.testing.assert_array_equal(outputs, net.apply(variables, jnp.asarray(filled), train=False))
  assert np.isfinite(outputs).all()


def test_a_column_without_any_value_in_training_is_refused(tmp_path):
  north = [(*row[:3], '', row[4]) for row in rows('north', 60, 0)]
  path = write(tmp_path / 'a.csv', [*north, *rows('south', 60, 2)])
  config = open_keys.settle(config_of(path), tmp_path / 'run')
  with pytest.raises(MedtlError, match='no row of the training side has a value of dose, so'):
    train.prepare(config, None)


def test_a_category_that_no_training_row_has_is_told(tmp_path):
  south = [(*row[:4], 'z') for row in rows('south', 60, 2)]
  path = write(tmp_path / 'a.csv', [*rows('north', 90, 0), *south])
  config = open_keys.settle(config_of(path), tmp_path / 'run')
  context = train.prepare(config, None)
  assert run_data.untrained_values(context.data) == [
    'kind=z stands in 60 rows of test and in none of train: what the net makes of it is chance'
  ]


def test_a_run_of_a_table_reads_no_pictures(run, tmp_path):
  config, _ = run
  Image.new('L', (8, 8)).save(tmp_path / 'a.png')
  own = config.data.to_dict()
  with pytest.raises(MedtlError, match='trained on the rows of a table; choose a csv'):
    other_data.load({**own, 'root': str(tmp_path), 'name': 'folder.load'}, own, {})
