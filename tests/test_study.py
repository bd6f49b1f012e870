"""Studies: a sweep changes only keys that there are, folds pool what they compare with, rows are compared pair by pair."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from medtl import build, evaluate, main, runfolder, study
from medtl.report import console
from medtl.types import MedtlError

ROOT = Path(__file__).parents[1]
EXPERIMENTS = [path for path in sorted((ROOT / 'experiments').glob('[!_]*.py')) if 'def sweep(' in path.read_text()]


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_every_override_of_every_experiment_is_a_key_of_its_config(path):
  text = path.read_text()
  name = text.split('--config=')[1].split()[0]
  config = runfolder.load_config(str(ROOT / name))
  variants = list(study._sweep(path)(config))
  names = [name for name, _ in variants]
  assert len(names) == len(set(names)) > 1
  made = [build.changed(config, changes) for _, changes in variants]
  assert sum(variant.to_dict() != config.to_dict() for variant in made) >= len(made) - 1      # one may be the config itself
  assert f'--sweep=experiments/{path.name}' in text


def test_a_file_without_a_sweep_is_explained(tmp_path):
  with pytest.raises(MedtlError, match=r'nothing.py holds no sweep\(config\)'):
    study._sweep(tmp_path / 'nothing.py')


def interval(value, low, high):
  return dict(value=value, low=low, high=high, reason='')


ROWS = [dict(name=name, headline=["auroc", "accuracy"], images=8, patients=4, freeze=f"depth({number})", live=1000 * number,
             flops=1e9, seconds=2.0,
             metrics=dict(auroc=interval(0.8 + number / 10, 0.7, 0.9), accuracy=interval(0.5, 0.4, 0.6)),
             difference=dict(auroc=interval(number / 10, -0.1, 0.2), accuracy=interval(0.0, -0.1, 0.1)))
        for number, name in enumerate(('full', 'probe'))]


def test_the_table_and_the_csv_hold_each_row_once():
  lines = console.table(ROWS).splitlines()
  assert lines[0] == '8 images of 4 patients; in brackets 95% intervals; differences are paired, to full'
  assert lines[2].split() == ['full', '0.800', '(0.700', 'to', '0.900)', '0.500', '(0.400', 'to', '0.600)', '0']
  assert '0.100 (-0.100 to 0.200)' in lines[3] and lines[3].endswith('1,000')
  rows = list(csv.DictReader(console.csv(ROWS).splitlines()))
  assert [row['name'] for row in rows] == ['full', 'probe'] and float(rows[1]['difference auroc high']) == 0.2


SWEEP = '''
def sweep(config):
  yield 'slow', (('lr', 1e-3),)
  yield 'fast', (('lr', 1e-2),)
'''


@pytest.mark.slow
def test_an_ablation_over_folds_ends_in_one_table_and_repeats_nothing(tmp_path, capsys):
  (tmp_path / 'sweep.py').write_text(SWEEP)
  words = ['ablate', f'--config={ROOT}/tests/tiny.py', f'--sweep={tmp_path}/sweep.py', f'--workdir={tmp_path}/study', '--folds',
           "--config.phases=(('depth(1.0)', '2 epochs'),)", '--config.data.split.folds=3']
  assert main.main(words) == 0
  rows = json.loads((tmp_path / 'study' / 'ablation.json').read_text())
  assert [row['name'] for row in rows] == ['slow', 'fast'] and rows[0]['images'] == 80
  assert rows[0]['difference']['auroc']['value'] == 0 and (tmp_path / 'study' / 'ablation.csv').exists()
  test = [evaluate.load(tmp_path / 'study' / name / 'predictions' / 'test.npz').predictions for name in ('slow', 'fast')]
  assert np.array_equal(test[0].row, np.arange(80)) and not np.array_equal(test[0].score, test[1].score)
  capsys.readouterr()
  assert main.main(words) == 0
  assert capsys.readouterr().out.count('is finished already; nothing was trained') == 2


@pytest.mark.slow
def test_folds_compare_out_of_fold_with_the_runs_beside_them(tmp_path):
  words = [f'--config={ROOT}/tests/tiny.py', f'--workdir={tmp_path}/run', '--folds', "--config.phases=(('depth(1.0)', '2 epochs'),)",
           '--config.data.split.folds=3', "--config.compare=(('fast', (('lr', 0.01),)),)"]
  assert main.main(words) == 0
  beside = json.loads((tmp_path / 'run' / 'numbers.json').read_text())['comparison']
  assert beside[0]['name'] == 'fast' and beside[0]['difference']['auroc']['value'] is not None
