"""What a config leaves open is settled by the data, said, and kept by a run that has begun."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl.core.types import Dataset, MedtlError
from medtl.run import assemble, initial_weights, open_keys, run_folder
from medtl.tasks import classification
from tests import tiny


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'cache'))


def folder(root, names):
  for number, name in enumerate(names):
    path = root / f'{name}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(number).randint(0, 256, (8, 8)).astype(np.uint8)).save(
      path
    )
  return root


def asked(root, **data):
  config = tiny.get_config()
  with config.unlocked():
    config.data = dict(
      name='folder.load',
      root=str(root),
      ops='',
      split=dict(by='auto', folds=3, fold=0, seed=0),
      **data,
    )
    config.task = dict(name='classification', kind='auto', loss='')
  return config


def test_two_folders_are_a_binary_task_by_image_with_a_word(tmp_path, capsys):
  config = asked(folder(tmp_path / 'in', [f'{"ab"[i % 2]}/{i}' for i in range(8)]))
  found = open_keys.settle(config, tmp_path / 'run')
  assert (found.task.kind, found.task.loss, found.data.split.by) == ('binary', 'softmax', 'image')
  said = capsys.readouterr().out
  assert "task.kind='auto' is 'binary': two classes" in said
  assert (
    "data.split.by='auto' is 'image': patients are not known" in said and 'data.pattern' in said
  )
  assert (
    open_keys.settle(asked(tmp_path / 'in', pattern=r'(\d+)'), tmp_path / 'run').data.split.by
    == 'patient'
  )
  nobody = Dataset(
    lambda i: None, 2, ('a', 'b'), {'row': np.arange(2), 'patient': np.array(['', ''])}
  )  # DICOM without ids
  assert open_keys.split_kind(nobody, folds=False) == 'image'


def test_the_publishers_sides_are_kept_but_not_over_folds(tmp_path):
  names = [f'{side}/{"abc"[i % 3]}/{i}' for side in ('train', 'test') for i in range(6)]
  config = asked(folder(tmp_path / 'in', names))
  found = open_keys.settle(config, tmp_path / 'run')
  assert (found.task.kind, found.data.split.by) == ('multiclass', 'publisher')
  assert open_keys.settle(config, tmp_path / 'run', folds=True).data.split.by == 'image'


def test_label_columns_are_a_multilabel_task(tmp_path):
  folder(tmp_path / 'in', ['0', '1'])
  (tmp_path / 'in' / 'labels.csv').write_text('file,mass,cyst\n0.png,1,0\n1.png,1,1\n')
  found = open_keys.settle(
    asked(tmp_path / 'in', manifest='labels.csv', label=('mass', 'cyst')), tmp_path / 'run'
  )
  assert (found.task.kind, found.task.loss) == ('multilabel', 'sigmoid')


def test_a_run_that_has_begun_keeps_what_it_found(tmp_path):
  config = asked(folder(tmp_path / 'in', [f'{"ab"[i % 2]}/{i}' for i in range(8)]))
  found = open_keys.settle(config, tmp_path / 'run')
  run_folder.open_or_verify(tmp_path / 'run', found)
  folder(tmp_path / 'in', ['c/9'])  # a third class came later
  assert open_keys.settle(config, tmp_path / 'run').task.kind == 'multiclass'  # nothing had begun
  (tmp_path / 'run' / 'plan.json').write_text('{}')
  again = open_keys.settle(config, tmp_path / 'run')
  assert again.to_dict() == found.to_dict()
  run_folder.open_or_verify(tmp_path / 'run', again)  # and is no other config's folder


def test_what_is_given_is_left_alone():
  config = tiny.get_config()
  assert open_keys.settle(config, Path('nowhere')).to_dict() == config.to_dict()


@pytest.fixture(scope='module')
def context():
  """A net as chance drew it, of which nothing is frozen."""
  return assemble.run_context(
    assemble.with_changes(
      tiny.get_config(), (('random_frozen', False), ('phases', (('none', '10 epochs'),)))
    )
  )


def test_children_as_chance_drew_them_are_not_frozen_unless_that_is_meant(context):
  def frozen(*phases, **changes):
    return assemble.run_context(
      assemble.with_changes(context.config, (('phases', phases), *changes.items())), like=context
    )

  said = (
    r'phase 1 freezes depth\(2\), but nothing was transferred to parameters of backbone/stem, '
    r'backbone/stage1: frozen, they '
    r'would stay as chance drew them.*random_frozen=True for the control'
  )
  with pytest.raises(MedtlError, match=said):
    frozen(('depth(2)', '1 epochs'))
  with pytest.raises(MedtlError, match=r'phase 2 freezes depth\(1.0\)'):
    frozen(('none', '1 epochs'), ('depth(1.0)', '1 epochs'))
  with pytest.raises(MedtlError, match='of head: frozen'):
    frozen(('match("head/.*")', '1 epochs'))
  frozen(('none', '10 epochs'))  # the message's advice, and its other one
  assert 'head/dense/kernel' in context.drawn and 'drawn' not in context.source
  frozen(('depth(2)', '1 epochs'), random_frozen=True)


def test_statistics_that_no_checkpoint_gave_are_not_kept_unless_that_is_meant(context):
  def begun(norms, **changes):
    changed = (('norms', norms), *changes.items())
    return assemble.run_context(assemble.with_changes(context.config, changed))

  kept = (('backbone/stage1/.*', 'train'), ('.*', 'source'))
  with pytest.raises(
    MedtlError, match=r'config.norms keeps the statistics of 16 norms \(first backbone/stage2/'
  ) as error:
    begun(kept)
  assert '--config.norms="()"' in str(error.value)
  begun(())  # the message's advice, and its other one
  with_norms = begun(kept, random_frozen=True)
  # what a checkpoint gave may be kept
  given = dataclasses.replace(
    with_norms, config=assemble.with_changes(with_norms.config, (('random_frozen', False),))
  )
  assemble._stop_random_statistics(dataclasses.replace(given, drawn=frozenset({'head/norm/scale'})))


def test_what_a_checkpoint_fills_may_be_frozen_and_what_is_left_fresh_may_not(context):
  def frozen(depth, *fresh):
    config = assemble.with_changes(
      context.config, (('phases', ((f'depth({depth})', '1 epochs'),)),)
    )
    drawn = frozenset(
      path for path in context.drawn if any(re.fullmatch(pattern, path) for pattern in fresh)
    )
    assemble._stop_random_frozen(
      dataclasses.replace(context, drawn=drawn, phases=assemble.phases(config, context.params, 20))
    )

  frozen(2, 'head/.*', 'backbone/stage2/.*')
  with pytest.raises(MedtlError, match='parameters of backbone/stage2: frozen'):
    frozen(3, 'head/.*', 'backbone/stage2/.*')
  with pytest.raises(
    MedtlError, match='parameters of backbone/stem, backbone/stage1: frozen'
  ):  # one leaf of a child is enough
    frozen(2, 'head/.*', 'backbone/.*/kernel')


def test_scale_alone_is_no_transfer(context):
  """transfer='mean_var' brings means and variances: what is frozen is as chance drew it."""
  begun = {
    'params': {'backbone': {'stem': {'kernel': 0, 'lora_a': 0}}, 'head': {'bias': 0}},
    'batch_stats': {'backbone': 0},
  }
  assert initial_weights._by_chance(
    begun, {'params': {'backbone': {'stem': {'kernel': 1}}}}, ['.*/lora_[ab]']
  ) == {'head/bias'}
  assert initial_weights._by_chance(begun, {}, []) == {
    'backbone/stem/kernel',
    'backbone/stem/lora_a',
    'head/bias',
  }


def test_kinds_of_labels():
  def of(y, classes):
    return classification.kind_of(
      Dataset(lambda i: None, len(y), classes, {'row': np.arange(len(y)), 'y': np.array(y)})
    )

  assert [of([0, 1], ('a', 'b')), of([0, 2], ('a', 'b', 'c')), of([[0.0, 1.0]], ('a', 'b'))] == [
    'binary',
    'multiclass',
    'multilabel',
  ]
