"""A config that cannot work is refused before anything is read or trained, in one sentence."""

import numpy as np
import pytest

from medtl import build, check, commandline, runfolder
from medtl.types import Dataset, MedtlError


def tiny(root, *words):
  return commandline.parse('train', [f'--config={root}/tests/tiny.py', *words])[1]


@pytest.mark.parametrize('words, said', [
  ('--config.batch=0', r'config.batch is 0; expected a number at least 1'),
  ('--config.accumulate=0', r'config.accumulate is 0'),
  ('--config.lr=-1.0', r'config.lr is -1.0; expected a number above 0'),
  ('--config.ema=1.5', r'config.ema is 1.5; .* below 1'),
  ('--config.resamples=0', r'config.resamples is 0'),
  ('--config.cache=maybe', r"config.cache is 'maybe'; There are: 'auto', 'head'"),
  ('--config.sampling=balancd', r"config.sampling is 'balancd'; did you mean \"'balanced'\""),
  ('--config.dtype=float16', r"config.dtype is 'float16'"),
  ("--config.phases=('none', '1 epochs')", r"config.phases is .*; expected a tuple of at least one of \(freeze, duration\)"),
  ('--config.phases=()', r'config.phases is \(\)'),
  ("--config.rules=(('head/(', 0.1, 0.0),)", r"config.rules 'head/\(' is not a regex"),
  ("--config.rules=(('head/.*', 0.1),)", r'config.rules is .*\(regex, learning-rate factor, weight decay\)'),
  ('--config.std=(0.0,)', r'config.std is \(0.0,\); expected numbers above 0'),
  ('--config.every=often', r"cannot read the duration 'often'"),
  ('--config.threshold=yuden', r"unknown operation 'yuden' in 'yuden'; did you mean 'youden'"),
  ('--config.threshold=columns', r"There are: at_sensitivity, youden$"),
  ('--config.monitor=aurok', r"config.monitor is 'aurok'.*did you mean 'auroc'"),
  ('--config.task.lss=mean', r"config.task has no key 'lss'; did you mean 'loss'"),
  ('--config.task.kind=ordinal', r"the loss 'softmax' cannot learn a task of kind 'ordinal'; choose a loss for ordinal, such as 'ordinal'"),
  ('--config.task.loss=ordinal', r"the loss 'ordinal' cannot learn .* set task.kind='ordinal' or choose"),
  ('--config.task.loss=sigmoid', r"the loss 'sigmoid' cannot learn a task of kind 'multiclass'"),
])
def test_refused(request, words, said):
  with pytest.raises(MedtlError, match=said):
    check.config(tiny(request.config.rootpath, words))


def test_every_config_of_the_project_passes(request, monkeypatch):
  monkeypatch.chdir(request.config.rootpath)
  for name in ('quickstart.py', 'oct_vit.py', 'oct_vit.py:kermany', 'oct_vit.py:offline', 'oct_resnet.py', 'oct_resnet.py:keras'):
    check.config(runfolder.load_config(f'configs/{name}'))


@pytest.mark.parametrize('kind, loss, y, said', [
  ('multiclass', 'softmax', np.zeros((40, 3), np.float32),
   r"several labels an example, but task.kind is 'multiclass'; set task.kind='multilabel'"),
  ('multilabel', 'sigmoid', np.zeros(40, int), r"one class an example, but task.kind is 'multilabel'; choose"),
])
def test_labels_of_another_kind(request, kind, loss, y, said):
  made = tiny(request.config.rootpath, f'--config.task.kind={kind}', f'--config.task.loss={loss}')
  with pytest.raises(MedtlError, match=said):
    check.training(made, sides(Dataset(lambda i: None, 40, ('a', 'b', 'c'), {'row': np.arange(40), 'y': y})))


def test_a_batch_larger_than_the_training_side(request):
  made = tiny(request.config.rootpath)
  with pytest.raises(MedtlError, match=r'config.batch is 16, but the training side has 15 examples'):
    check.training(made, sides(Dataset(lambda i: None, 15, ('a', 'b'), {'row': np.arange(15), 'y': np.zeros(15, int)})))


@pytest.mark.parametrize(('split', 'said'), [({'by': 'none'}, 'the split has no train and no val'), ({'val': 0}, 'the split has no val:')])
def test_a_run_needs_three_sides(request, split, said):
  made = tiny(request.config.rootpath)
  given = build.changed(made, (('data.split', {**made.data.split.to_dict(), **split} if 'by' not in split else split),))
  with pytest.raises(MedtlError, match=said):
    build.parts(given)


def test_folds_need_one_validation_fold(request):
  with pytest.raises(MedtlError, match=r'each example must stand once: data.split.val is 2, set it to 1'):
    check.folds(tiny(request.config.rootpath, '--config.data.split.val=2'))


@pytest.mark.parametrize(('word', 'said'), [
  ("--config.phases=(('depth(1.0)', 0), ('none', '1 epochs'))", 'a duration of 0; expected at least 1 step'),
  ('--config.every=0', "a duration of '0'"), ('--config.every=1.2.3 epochs', "cannot read the duration '1.2.3 epochs'"),
  ('--config.seed=-1', 'config.seed is -1; expected a number 0 or more'), ('--config.seeds=3', 'config.seeds is 3: how many runs a study'),
])
def test_durations_and_seeds_are_checked_before_anything(request, word, said):
  with pytest.raises(MedtlError, match=said):
    build.parts(tiny(request.config.rootpath, word))


def sides(train):
  return {'train': train, 'val': train, 'test': train}


def test_names_of_predictions_stay_inside_the_run_folder():
  assert check.name('hospital_b-2.1') == 'hospital_b-2.1'
  for word in ('../x', 'a/b', '', '.hidden'):
    with pytest.raises(MedtlError, match='becomes part of file names'):
      check.name(word)
