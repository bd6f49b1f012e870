"""What a run is tested on beside its own data: the numbers of `evaluate`, in the same command."""

import json

import numpy as np
import pytest
from PIL import Image

from medtl.core.types import MedtlError
from medtl.evaluation import predictions
from medtl.run import assemble, predict, run_folder, run_report, train, validate
from medtl.studies import folds
from tests import tiny

SPLIT = dict(by='patient', folds=4, fold=0, seed=0)
OTHER = dict(name='phantom.load', patients=24, scans=1, size=(32, 32), seed=3, ops='')
STREAM = dict(OTHER, patients=40, split=SPLIT)


def config(**changes):
  base = dict(phases=(('none', '1 epochs'),), tests=dict(elsewhere=OTHER))
  return assemble.with_changes(tiny.get_config(), tuple((base | changes).items()))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run, beside one of another learning rate."""
  folder = tmp_path_factory.mktemp('tests') / 'run'
  both = config()
  with both.unlocked():
    both.compare = (('slow', (('lr', 1e-5),)),)
  train.train(both, folder)
  return folder


def numbers(folder, name='numbers.json'):
  return json.loads((folder / name).read_text())


def test_its_numbers_are_those_that_evaluate_gives(run):
  again = run_folder.require(run)
  with again.unlocked():
    again.data = dict(OTHER, split=dict(by='none'))
  evaluated = predict.evaluate_again(again, run, 'again')
  assert evaluated['metrics'] == numbers(run, 'numbers-elsewhere.json')['metrics']
  assert evaluated['comparison'] == []  # the run beside this one was not evaluated there


def test_its_own_page_tells_of_them_and_of_the_run_beside(run):
  (told,) = numbers(run)['tests']
  assert (told['name'], told['over']) == ('elsewhere', '24 images of 24 patients')
  assert told['metrics'] == numbers(run, 'numbers-elsewhere.json')['metrics']
  (beside,) = told['comparison']
  slow = numbers(run / 'compare' / 'slow', 'numbers-elsewhere.json')
  assert beside['name'] == 'slow' and beside['metrics'] == slow['metrics']
  gap = told['metrics']['auroc']['value'] - slow['metrics']['auroc']['value']
  assert beside['difference']['auroc']['value'] == pytest.approx(gap)
  assert '24 images of 24 patients' in (run / 'report.html').read_text()
  assert 'this run − slow' in (run / 'report-elsewhere.html').read_text()
  lines = []
  run_report.headline(run, numbers(run), lambda line: lines.append(str(line)))
  assert 'elsewhere, 24 images of 24 patients (report-elsewhere.html)' in lines


def test_of_split_data_the_test_side_is_used_and_a_stream_is_remembered(tmp_path):
  adaptation = dict(
    task=dict(name='adaptation'),
    head=dict(name='branches.domain', hidden=8),
    streams=dict(target=STREAM),
  )
  found = train.train(config(**adaptation, tests=dict(target=STREAM)), tmp_path / 'run')
  tested = predictions.load(tmp_path / 'run' / 'predictions' / 'target.npz').predictions
  assert len(tested.row) == 10 and (np.asarray(tested.y) >= 0).all()
  assert found['tests'][0]['over'] == '10 images of 10 patients'
  seen = {key: value for key, value in STREAM.items() if key != 'split'}
  with pytest.raises(MedtlError, match=r'(?s)this run was trained.*out of config.tests.target'):
    train.train(config(**adaptation, tests=dict(target=seen)), tmp_path / 'leak')


def test_a_test_of_pictures_that_trained_the_net_is_allowed_by_its_own_key(tmp_path):
  own = {key: value for key, value in config().data.to_dict().items() if key != 'split'}
  with pytest.raises(MedtlError, match=r'or set allow_leak=True in config\.tests\.own to go on'):
    train.train(config(tests=dict(own=own)), tmp_path / 'run')
  allowed = dict(own, allow_leak=True)
  train.train(config(tests=dict(own=allowed)), tmp_path / 'run')  # the same folder is free
  warnings = numbers(tmp_path / 'run', 'numbers-own.json')['warnings']
  assert any('which was allowed' in warning for warning in warnings)


@pytest.mark.parametrize('side', ['test', 'val'])
def test_a_stream_of_pictures_that_test_or_choose_the_net_is_refused(side):
  data = config().data.to_dict()
  folds = data['split']['folds']
  behind = 1 if side == 'test' else folds - 1
  moved = dict(data['split'], fold=behind)
  stream = dict(data, split=moved)
  coral = dict(task=dict(name='coral'), tests={})
  words = rf'of the run.s own {side} side: take them out of config\.streams\.target, or set allow'
  with pytest.raises(MedtlError, match=words):
    train.prepare(config(**coral, streams=dict(target=stream)), None)
  allowed = dict(stream, allow_leak=True)
  train.prepare(config(**coral, streams=dict(target=allowed)), None)


def test_a_name_with_a_dot_is_no_name_of_a_test():
  with pytest.raises(MedtlError, match=r"config.tests: 'hospital.b' holds a dot; expected letters"):
    validate.test_name('hospital.b')


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ("config.tests = {'hospital.b': {}}", "the name 'hospital.b' holds a dot"),
    ("config.data.rename = {'Grade 1.5': 'CNV'}", r"takes pairs, \(\('Grade 1.5', 'new name'\),\)"),
    ('1 / 0', r'line 5: ZeroDivisionError.*; expected get_config\(\) to return the config$'),
  ],
)
def test_what_goes_wrong_in_get_config_is_named(change, words, tmp_path):
  lines = ['from configs import base', 'def get_config():', '  config = base.get_config()']
  lines += ['  with config.unlocked():', f'    {change}', '  return config']
  (tmp_path / 'own.py').write_text('\n'.join(lines))
  with pytest.raises(MedtlError, match=words):
    run_folder.load_config(str(tmp_path / 'own.py'))


@pytest.mark.parametrize(
  ('stream', 'words'),
  [
    (
      dict(STREAM, size=(48, 48)),
      r"config\.streams\.target holds examples of 48 × 48 × 1.*add 'resize\(32, 32\)' to its ops",
    ),
    (dict(STREAM, size=(48, 48), ops='resize(32, 32)'), ''),
    (OTHER, ''),
    (dict(OTHER, split=dict(by='none')), ''),
    (dict(STREAM, channel=3), r"^config\.streams\.target \(phantom.load\) has no key 'channel'"),
    (dict(OTHER, split=dict(folds=2)), r"^config\.streams\.target\.split lacks the key 'by'"),
    (dict(OTHER, rename={'x': 'y'}), r'^config\.streams\.target\.rename: the data have no class'),
  ],
)
def test_a_stream_is_all_of_its_data_where_they_are_not_split_and_of_the_runs_shape(stream, words):
  coral = config(task=dict(name='coral'), tests={}, streams=dict(target=stream))
  if words:
    with pytest.raises(MedtlError, match=words):
      train.prepare(coral, None)
    return
  target = train.prepare(coral, None).streams['target']
  assert target.size == (24 if 'split' not in stream or stream['split']['by'] == 'none' else 20)
  assert target.sample().x.shape == (32, 32, 1)


def test_until_a_run_is_finished_its_tests_may_change(tmp_path):
  asked = config(tests=dict(elsewhere=OTHER, further=OTHER))
  for before in (config(), config(tests={})):
    run_folder.open_or_verify(tmp_path, before)
    (tmp_path / 'plan.json').write_text('{}')  # the run has begun
    run_folder.open_or_verify(tmp_path, asked)
    assert run_folder.read_config(tmp_path).tests.to_dict() == asked.tests.to_dict()
  with pytest.raises(MedtlError, match=r'(?s)another config:\n  lr: 0.001 there.*leave it out$'):
    run_folder.open_or_verify(tmp_path, config(lr=0.1))
  assert run_folder.read_config(tmp_path).tests.to_dict() == asked.tests.to_dict()
  (tmp_path / 'numbers.json').write_text('{}')
  run_folder.open_or_verify(tmp_path, asked)
  with pytest.raises(
    MedtlError, match=r'The run is finished: evaluate .* tests it on further data'
  ):
    run_folder.open_or_verify(tmp_path, config())


@pytest.mark.slow
def test_of_folds_console_and_page_say_where_the_tests_stand(tmp_path):
  pooled = folds.train_folds(config(), tmp_path / 'run')
  words = 'is not pooled: see fold0/report-elsewhere.html'
  assert (tmp_path / 'run' / 'fold0' / 'report-elsewhere.html').exists()
  assert words in (tmp_path / 'run' / 'report.html').read_text()
  lines = []
  run_report.headline(tmp_path / 'run', pooled, lambda line: lines.append(str(line)))
  assert words in ''.join(lines)


def test_pictures_without_labels_are_refused(tmp_path):
  (tmp_path / 'pictures').mkdir()
  Image.fromarray(np.eye(32, dtype=np.uint8)).save(tmp_path / 'pictures' / 'a.png')
  pictures = dict(name='folder.load', root=str(tmp_path / 'pictures'), label='', manifest='')
  with pytest.raises(MedtlError, match=r'config\.tests\.new has no labels'):
    train.train(config(tests=dict(new=pictures)), tmp_path / 'run')


@pytest.mark.parametrize(
  ('tests', 'words'),
  [
    ({'val': OTHER}, "'val' is a side of the run's own data"),
    ({'two words': OTHER}, "config.tests, 'two words' becomes part of file names"),
    ({'hospital/b': OTHER}, "config.tests, 'hospital/b' becomes part of file names"),
    (
      {'other': dict(OTHER, patient=3)},
      "^config.tests.other .*no key 'patient'; did you mean 'patients'",
    ),
  ],
)
def test_what_cannot_be_tested_is_said_before_the_first_step(tests, words, tmp_path):
  with pytest.raises(MedtlError, match=words):
    train.train(config(tests=tests), tmp_path / 'run')
  assert not list((tmp_path / 'run').glob('metrics.jsonl'))
