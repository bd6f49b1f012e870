"""Every key of a component is checked against its function before anything is read."""

import csv
import math

import numpy as np
import pytest
from PIL import Image

from medtl import cli, data
from medtl.core import expressions
from medtl.core.types import Dataset, MedtlError
from medtl.data import splits
from medtl.run import assemble, components, validate


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  """Return a folder of 12 pictures, the last two equal, with m.csv: id, grade (0 1 2), note."""
  root = tmp_path_factory.mktemp('pictures')
  random = np.random.RandomState(0)
  rows = [('id', 'grade', 'note')]
  drawn = random.randint(0, 255, (11, 8, 8)).astype(np.uint8)
  for number in range(12):
    Image.fromarray(drawn[min(number, 10)]).save(root / f'{number}.png')
    rows.append((f'{number}.png', number % 3, 'a' if number % 2 else 'b'))
  with open(root / 'm.csv', 'w', newline='') as file:
    csv.writer(file).writerows(rows)
  return root


def parsed(request, *words):
  config = f'--config={request.config.rootpath}/tests/tiny.py'
  return cli.parse('train', [config, *words])[1]


@pytest.mark.parametrize(
  ('words', 'said'),
  [
    (
      'data.skip_unreadble=1',
      r"config.data \(phantom.load\) has no key 'skip_unreadble'; did you mean 'skip_unreadable'",
    ),
    ('data.scaner=source', "did you mean 'scanner'"),
    ('data.split.fodls=3', "config.data.split has no key 'fodls'; did you mean 'folds'"),
    (
      'data.skip_unreadable=all',
      'skip_unreadable is .all.; expected a whole number, for instance 1$',
    ),
    ('data.skip_unreadable=-1', 'skip_unreadable is -1; expected 0 or more'),
    ('data.keep_gb=-1', 'keep_gb is -1.0; expected 0 or more'),
    ('data.keep_gb=lots', 'expected a number, for instance 4.0'),
    ('data.keep_gb=nan', "keep_gb is 'nan'"),
    ('data.allow_leak=maybe', "allow_leak is 'maybe'; expected True or False"),
    ('data.allow_leak=', "allow_leak is ''"),
    ('data.classes=CNV,DME', r"classes is 'CNV,DME'; expected .*\('CNV', 'DME'\)"),
    ('data.size=32', r'size is 32; expected a sequence of whole numbers, for instance \(32, 32\)'),
    ('data.patients=many', 'patients is .many.; expected a whole number, for instance 200'),
    ('data.seed=1.0', 'for instance 1$'),
    ('data.seed=-1', 'seed is -1; expected 0 or more'),
    ('data.split=publisher', 'config.data: split is .publisher.; expected its keys, for instance'),
    (
      'data.split.fold=1.0',
      'config.data.split: fold is 1.0; expected a whole number, for instance 1',
    ),
    ('data.split.val=True', 'val is True; expected a whole number'),
    ('data.split.labels=5%', 'labels is .5%.; expected a number'),
    ('data.split.seed=None', 'seed is None'),
    ('data.ops=resize("a")', "resize: size is 'a'; expected a whole number"),
    ('data.ops=resise(8)', "did you mean 'resize'"),
    ('data.name=fodler', "did you mean 'folder'"),
    ('data.name=folder', r"config.data \(folder\) lacks the key 'root'; set it to text"),
    (
      'model.width=w',
      r"config.model \(resnet.resnet18\): width is 'w'; expected a whole number above 0, for "
      r'instance 64',
    ),
    ('model.wdith=8', "did you mean 'width'"),
    ('model.epsilon=tiny', 'epsilon is .tiny.; expected a number'),
    ('model.name=resnet.resnet19', "did you mean 'resnet"),
    (
      'head.norm=maybe',
      r"config.head \(linear\): norm is .maybe.; expected '' or 'batch' or 'layer'",
    ),
    ('head.norm=True', "norm is True; expected '' or 'batch' or 'layer'"),
    ('head.dropout=half', 'dropout is .half.; expected a number'),
    ('head.pol=max', "did you mean 'pool'"),
    ('head.classes=3', "has no key 'classes'"),
    ('task.lss=focal', "config.task has no key 'lss'; did you mean 'loss'"),
    (
      'schedule=cosine(warmup=0.1)',
      'cosine: warmup is 0.1; expected text or a whole number, for instance 1',
    ),
    ("schedule=step(at='50%')", "at is '50%'; expected a sequence of text or whole numbers"),
    ("optimizer=sgd(nesterov='yes')", 'expected True or False'),
    ("augment=rotate('10')", 'degrees is .10.; expected a number 0 or more, for instance 10'),
    ("phases=(('depth(None)', '1 epochs'),)", 'd is None; expected a number'),
    ("threshold=at_sensitivity('high')", 'expected a number'),
  ],
)
def test_a_key_of_another_kind_is_refused_before_anything_is_read(
  request, words, said, monkeypatch
):
  monkeypatch.setattr(data.store, 'prepare', lambda *_, **__: pytest.fail('data were read'))
  with pytest.raises(MedtlError, match=said) as error:
    assemble.run_context(parsed(request, f'--config.{words}'))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('part', 'keys', 'said'),
  [
    ('data', {'allow_leak': 'false'}, 'allow_leak is .false.; expected True or False'),
    ('data', {'split': 'image'}, 'split is'),
    (
      'data',
      {'split': {'by': 'image', 'folds': '5'}},
      "config.data.split: folds is '5'; expected a whole number, for instance 5",
    ),
    ('data', {'split': {'by': None}}, "by is None; expected text, for instance 'patient'"),
    ('data', {'name': 3}, 'name is 3'),
    ('data', {'scanner': 1}, 'scanner is 1; expected text'),
    ('model', {'width': '64'}, "width is '64'; .* for instance 64"),
    ('model', {'weights': None}, 'weights is None; expected text'),
    ('head', {'name': None}, 'config.head: name is None'),
    ('task', {'loss': 3}, 'config.task: loss is 3; expected text'),
    (
      'data',
      {'split': {'fold': 1}},
      "config.data.split lacks the key 'by'; set it to one of: 'patient'",
    ),
    ('data', {'split': {'by': 'Patient'}}, "by='Patient'; expected 'patient', 'image'"),
    ('data', {'split': {'by': 'image', 'fold': 5}}, 'fold=5, folds=5, val=1; expected 0 <= fold'),
    ('data', {'split': {'by': 'image', 'seed': -1}}, 'seed=-1; expected a whole number from 0'),
    ('data', {'split': {'by': 'image', 'labels': 0.0}}, 'labels=0.0; expected a share'),
    ('data', {'keep_gb': math.nan}, 'keep_gb is nan'),
  ],
)
def test_so_is_a_key_of_a_config_file(request, part, keys, said):
  config = parsed(request)
  made = assemble.with_changes(config, ((part, {**config[part].to_dict(), **keys}),))
  with pytest.raises(MedtlError, match=said):
    validate.check_config(made)


@pytest.mark.parametrize('part', ['data', 'model', 'head'])
def test_a_component_without_a_name(request, part):
  config = parsed(request)
  left = {key: value for key, value in config[part].to_dict().items() if key != 'name'}
  with pytest.raises(
    MedtlError, match=rf'config.{part}: name is None; expected the name of a function'
  ):
    validate.check_config(assemble.with_changes(config, ((part, left),)))


def test_numpys_numbers_lists_and_whole_floats_are_taken(request):
  config = parsed(request)
  keys = config.data.to_dict() | {
    'patients': np.int64(24),
    'size': [16, 16],
    'scans': 1,
    'keep_gb': 1,
  }
  keys['split'] = {'by': 'patient', 'folds': np.int32(3), 'labels': 1}
  validate.check_config(
    assemble.with_changes(config, (('data', keys), ('head', {'name': 'linear', 'dropout': 0})))
  )
  assert data.load(**keys)['train'].fetch(0).x.shape == (16, 16, 1)


def test_every_component_names_its_parameters(request):
  config = parsed(request)
  assert {'root', 'name', 'split', 'skip_unreadable'} <= set(
    components.parameters(assemble.with_changes(config, (('data.name', 'folder'),)), 'data')
  )
  assert 'weights' in components.parameters(
    config, 'model'
  ) and 'classes' not in components.parameters(config, 'head')
  assert set(components.parameters(config, 'data.split')) == {
    'by',
    'folds',
    'fold',
    'seed',
    'val',
    'labels',
    'test',
  }


def test_numbers_in_classes_are_the_labels(pictures):
  keys = dict(
    name='folder',
    root=str(pictures),
    manifest='m.csv',
    file='id',
    label='grade',
    split={'by': 'none'},
  )
  found = data.load(**keys, classes=(2, 0, 1))['test']
  assert found.classes == ('2', '0', '1') and found.table['y'].tolist() == [1, 2, 0] * 4
  floats = data.load(**keys, classes=(0.0, 1.0, 2.0))['test']
  assert floats.classes == ('0', '1', '2') and floats.table['y'].tolist() == [0, 1, 2] * 4
  with pytest.raises(MedtlError, match=r"labels outside the classes, first '2'"):
    data.load(**keys, classes=(0, 1))
  with pytest.raises(MedtlError, match=r"m.csv has no column '1', which is what data.label says"):
    data.load(**{**keys, 'label': (1, 2)})


@pytest.mark.parametrize(
  'keys',
  [
    {'label': 1},
    {'classes': 'a,b'},
    {'skip_unreadable': 'all'},
    {'allow_leak': 'false'},
    {'splitt': {}},
    {'skip_unreadable': -1},
    {'split': {'by': 'image', 'fold': '0'}},
  ],
)
def test_the_door_of_the_data_checks_too(pictures, keys):
  given = (
    dict(root=str(pictures), manifest='m.csv', file='id', label='grade', split={'by': 'image'})
    | keys
  )
  with pytest.raises(MedtlError, match=r'expected|did you mean'):
    data.load('folder', **given)


@pytest.mark.parametrize(
  ('word', 'allowed'),
  [('false', False), ('no', False), ('0', False), ('False', False), ('true', True)],
)
def test_a_leak_is_allowed_only_by_a_word_that_means_true(request, pictures, word, allowed):
  made = parsed(
    request,
    '--config.data.name=folder.load',
    f'--config.data.root={pictures}',
    '--config.data.manifest=parted.csv',
    '--config.data.file=id',
    '--config.data.label=grade',
    '--config.data.partition=side',
    '--config.data.split.by=publisher',
    f'--config.data.allow_leak={word}',
  )
  rows = [('id', 'grade', 'side')] + [
    (f'{number}.png', number % 3, ('val', 'train', 'test')[number // 4]) for number in range(11)
  ]
  rows.append(('11.png', 2, 'train'))  # equal to 10.png, which is tested
  with open(pictures / 'parted.csv', 'w', newline='') as file:
    csv.writer(file).writerows(rows)
  if allowed:
    assert data.load(**made.data.to_dict())['test'].facts['leak'] == [
      '11.png = 10.png in train and test'
    ]
  else:
    with pytest.raises(MedtlError, match=r'1 leaks .*set data.allow_leak=True'):
      data.load(**made.data.to_dict())


def test_the_advice_for_a_word_on_the_command_line_works(request):
  for word, right in (
    ('data.classes=CNV,DME', "data.classes=('CNV', 'DME')"),
    ('data.size=32', 'data.size=(32, 32)'),
    ('data.split=patient', 'data.split.by=patient'),
    ('schedule=cosine(warmup=0.1)', 'schedule=cosine(warmup=1)'),
  ):
    with pytest.raises(MedtlError):
      validate.check_config(parsed(request, f'--config.{word}'))
    validate.check_config(parsed(request, f'--config.{right}'))


def test_an_example_in_quotes_is_text_also_where_a_text_alone_is_refused():
  with pytest.raises(MedtlError, match="for instance '1'"):
    expressions.checked_keys(
      'x',
      {'label': 1, 'name': 'folder', 'root': '', 'split': {}},
      components.arguments.parameters(data.load, 'folder'),
    )
  expressions.checked_keys(
    'x',
    {'label': '1', 'name': 'folder', 'root': '', 'split': {}},
    components.arguments.parameters(data.load, 'folder'),
  )


def test_a_share_of_the_labels_that_leaves_a_class_out_is_refused_and_a_larger_one_works():
  random = np.random.RandomState(96)
  table = {'row': np.arange(60), 'y': random.randint(0, 4, 60)}
  table['patient'] = random.randint(0, 15, 60).astype(str)
  whole = Dataset(lambda i: None, 60, ('a', 'b', 'c', 'd'), table)

  def check_share(share):
    keys = dict(by='patient', seed=96, labels=share)
    data._check_classes(whole, splits.split(table, **keys), keys)

  with pytest.raises(
    MedtlError, match=r"no example in 'train'.* a larger data.split.labels, fewer"
  ):
    check_share(0.1)
  check_share(0.6)
