"""A config that cannot work is refused before anything is read or trained, in one sentence."""

import re

import numpy as np
import pytest

from medtl import cli
from medtl.core.types import Dataset, MedtlError
from medtl.data import splits
from medtl.evaluation import metrics
from medtl.run import assemble, run_folder, validate
from medtl.tasks import classification


def tiny(root, *words):
  return cli.parse('train', [f'--config={root}/tests/tiny.py', *words])[1]


@pytest.mark.parametrize(
  'words, said',
  [
    ('--config.batch=0', r'config.batch is 0; expected a number at least 1'),
    ('--config.accumulate=0', r'config.accumulate is 0'),
    ('--config.lr=-1.0', r'config.lr is -1.0; expected a number above 0'),
    ('--config.ema=1.5', r'config.ema is 1.5; .* below 1'),
    ('--config.resamples=0', r'config.resamples is 0'),
    ('--config.cache=maybe', r"config.cache is 'maybe'; there are: 'auto', 'head'"),
    ('--config.sampling=balancd', r"config.sampling is 'balancd'; did you mean \"'balanced'\""),
    ('--config.dtype=float16', r"config.dtype is 'float16'"),
    (
      "--config.phases=('none', '1 epochs')",
      r'config.phases is .*; expected a tuple of at least one of \(freeze, duration\)',
    ),
    ('--config.phases=()', r'config.phases is \(\)'),
    ("--config.rules=(('head/(', 0.1, 0.0),)", r"config.rules 'head/\(' is not a regex"),
    (
      "--config.rules=(('head/.*', 0.1),)",
      r'config.rules is .*\(regex, learning-rate factor, weight decay\)',
    ),
    ('--config.std=(0.0,)', r'config.std is \(0.0,\); expected numbers above 0'),
    ('--config.every=often', r"cannot read the duration 'often'"),
    ('--config.threshold=yuden', r"unknown operation 'yuden' in 'yuden'; did you mean 'youden'"),
    ('--config.threshold=columns', r'there are: at_sensitivity, youden$'),
    ('--config.monitor=aurok', r"config.monitor is 'aurok'.*did you mean 'auroc'"),
    ('--config.task.lss=mean', r"config.task has no key 'lss'; did you mean 'loss'"),
    (
      '--config.task.kind=ordinal',
      r"the loss 'softmax' cannot learn a task of kind 'ordinal'; choose a loss for ordinal, "
      r"such as 'ordinal'",
    ),
    (
      '--config.task.loss=ordinal',
      r"the loss 'ordinal' cannot learn .* set task.kind='ordinal' or choose",
    ),
    ('--config.task.loss=sigmoid', r"the loss 'sigmoid' cannot learn a task of kind 'multiclass'"),
  ],
)
def test_refused(request, words, said):
  with pytest.raises(MedtlError, match=said):
    validate.check_config(tiny(request.config.rootpath, words))


VIT = '--config.model.name=vit.vit_ti16'
MANY = ('--config.task.kind=multilabel', '--config.task.loss=sigmoid')
GRADES = ('--config.task.kind=ordinal', '--config.task.loss=ordinal')


@pytest.mark.parametrize(
  ('words', 'said'),
  [
    # the net
    (
      ['model.width=0'],
      'config.model (resnet.resnet18): width is 0; expected a whole number above 0, for instance '
      '64',
    ),
    (['model.width=-3'], 'width is -3; expected a whole number above 0'),
    (['model.epsilon=-1'], 'epsilon is -1; expected a number above 0'),
    (['model.ndim=4'], 'ndim is 4; expected a whole number from 1 to 3'),
    (
      [VIT, 'model.depth=0'],
      'config.model (vit.vit_ti16): depth is 0; expected a whole number above 0, for instance 12',
    ),
    ([VIT, 'model.heads=-1'], 'heads is -1; expected a whole number above 0'),
    ([VIT, 'model.heads=5'], 'heads is 5; expected a divisor of the width, 192'),
    (
      [VIT, 'model.patch=0'],
      'patch is 0; expected a whole number or a sequence of whole numbers above 0',
    ),
    ([VIT, 'model.patch=(8, 0)'], 'patch is (8, 0); expected'),
    ([VIT, 'model.early=(0,)'], 'early is (0,); expected a sequence of whole numbers above 0'),
    ([VIT, 'model.size=(0, 32)'], 'size is (0, 32); expected a sequence of whole numbers above 0'),
    ([VIT, 'model.ratio=0'], 'ratio is 0; expected a number above 0'),
    ([VIT, 'model.registers=-1'], 'registers is -1; expected a whole number 0 or more'),
    ([VIT, 'model.lora=-1'], 'lora is -1; expected a whole number 0 or more'),
    (
      [VIT, 'model.dropout=1'],
      'dropout is 1; expected a number 0 or more, below 1, for instance 0.0',
    ),
    ([VIT, 'model.drop_path=-1'], 'drop_path is -1; expected a number 0 or more, below 1'),
    (
      ['model.name=efficientnet.efficientnet_lite0', 'model.width=0.0'],
      'width is 0.0; expected a number above 0',
    ),
    (
      ['model.name=efficientnet.efficientnet_lite0', 'model.depth=1e999'],
      'depth is inf; expected a finite number above 0',
    ),
    (
      ['head.dropout=1.5'],
      'config.head (linear): dropout is 1.5; expected a number 0 or more, below 1',
    ),
    (
      ['head.name=attentive', 'head.heads=0'],
      'config.head (attentive): heads is 0; expected a whole number above 0',
    ),
    (['truncate=-1'], 'config.truncate is -1; expected a number 0 (all children) or more'),
    # numbers
    (['lr=inf'], 'config: lr is inf; expected a finite number, for instance 1'),
    (['lr=nan'], 'config: lr is nan; expected a finite number'),
    (['clip=1e999'], 'config: clip is inf; expected a finite number'),
    (['mean=(1e999,)'], 'config: mean is (inf,); expected a sequence of numbers'),
    (['std=(1e999,)'], 'config: std is (inf,); expected a sequence of numbers'),
    (
      ['seed=99999999999999999999'],
      'config.seed is 99999999999999999999; expected a number 0 or more, below 2³²',
    ),
    (
      ['accumulate=3'],
      'config.accumulate is 3, the parts that a batch is cut into; expected a divisor of '
      'config.batch, 16',
    ),
    (
      ["rules=(('.*/bias', -1.0, 0.0),)"],
      "config.rules is (('.*/bias', -1.0, 0.0),); expected a tuple of (regex, ",
    ),
    (["rules=(('.*/bias', 1.0, 1e999),)"], 'both numbers 0 or more'),
    # functions in texts
    (
      ['threshold=at_sensitivity(1.5)'],
      'at_sensitivity: least is 1.5; expected a number above 0 and at most 1, for instance 0.95',
    ),
    (['threshold=at_sensitivity(0)'], 'least is 0; expected'),
    (
      ['optimizer=adamw(b1=2)'],
      'adamw: b1 is 2; expected a number 0 or more, below 1, for instance 0.9',
    ),
    (['optimizer=adamw(b2=1)'], 'b2 is 1; expected'),
    (['optimizer=adamw(eps=-1)'], 'eps is -1; expected a number above 0'),
    (['optimizer=sgd(momentum=-1)'], 'sgd: momentum is -1; expected a number 0 or more, below 1'),
    (
      ['task.loss=softmax(smoothing=2)'],
      'softmax: smoothing is 2; expected a number 0 or more, below 1',
    ),
    (['task.loss=focal(gamma=-1)'], 'focal: gamma is -1; expected a number 0 or more'),
    ([MANY[0], 'task.loss=sigmoid(smoothing=-1)'], 'sigmoid: smoothing is -1; expected'),
    (['augment=noise(-1)'], 'noise: sigma is -1; expected a number 0 or more'),
    (['augment=flip | rotate(-10)'], 'rotate: degrees is -10; expected a number 0 or more'),
    (
      ['augment=rotate(1, axes=(1, 1))'],
      'rotate: axes=(1, 1); expected two different spatial axes',
    ),
    (['augment=mixup(0)'], 'mixup: alpha is 0; expected a number above 0'),
    (['augment=shift(2)'], 'shift: share is 2; expected a number from 0 to 1'),
    (['augment=brightness(-1)'], 'brightness: amount is -1; expected a number 0 or more'),
    (['augment=gamma(2, 1)'], 'gamma: low=2.0, high=1.0; expected 0 < low <= high'),
    (['augment=zoom(0, 1)'], 'zoom: low=0.0, high=1.0; expected 0 < low <= high'),
    (['augment=contrast(-1, 1)'], 'contrast: low=-1.0, high=1.0; expected 0 < low <= high'),
    (
      ['augment=elastic(0, 0)'],
      'elastic: amount=0.0, scale=0.0; expected 0 <= amount <= scale and 0 < scale',
    ),
    (
      ["schedule=cosine(warmup='150%')"],
      "config.schedule: '150%' is more than the whole run; expected at most 100%",
    ),
    (["schedule=constant(warmup='-5%')"], "config.schedule: cannot read the duration '-5%'"),
    (['schedule=cosine(warmup=-3)'], 'config.schedule: cannot read the duration -3'),
    (["schedule=step(at=('50%', '200%'))"], "config.schedule: '200%' is more than the whole run"),
    (['schedule=step(factor=-1)'], 'step: factor is -1; expected a number above 0'),
    (['schedule=cosine(end=-1)'], 'cosine: end is -1; expected a number 0 or more'),
    (['schedule=rising(start=0)'], 'rising: start is 0; expected a number above 0 and at most 1'),
    (["phases=(('none', '-3 epochs'),)"], "config.phases: cannot read the duration '-3 epochs'"),
    (['data.ops=resize(0)'], 'resize: size=(0,); expected positive whole numbers'),
    (['data.ops=crop(8) | pad(-1)'], 'pad: size=(-1,); expected positive whole numbers'),
    (['data.ops=window(1, 0)'], 'window: low=1.0, high=0.0; expected low < high'),
    (['data.ops=window(0, 1e999)'], 'window: high is inf; expected a finite number'),
    (
      ['data.ops=percentiles(low=99.5)'],
      'percentiles: low=99.5, high=99.0; expected 0 <= low < high <= 100',
    ),
    (
      ['data.ops=percentiles(-1, 140)'],
      'percentiles: low=-1.0, high=140.0; expected 0 <= low < high <= 100',
    ),
    # sequences of sequences
    (
      ['shards=x'],
      "config.shards is ('x',); expected a tuple of (regex, how), for instance (('.*', "
      "'largest'),)",
    ),
    (["shards=(('.*',),)"], "config.shards is (('.*',),); expected a tuple of (regex, how)"),
    (['compare=x'], "config.compare is ('x',); expected a tuple of (name, ((key, value), …))"),
    (["compare=(('x', 'lr'),)"], 'expected a tuple of (name, ((key, value), …))'),
    (
      ["compare=(('x', (('lr',),)),)"],
      "config.compare ('x') is (('lr',),); expected a tuple of (key, value)",
    ),
    (
      ["compare=(('x', (('lrr', 0.1),)),)"],
      "config.compare changes 'lrr', which is no key of the config; did you mean 'lr'?",
    ),
    (
      ["compare=(('x', (('model.width.x', 1),)),)"],
      "config.compare changes 'model.width.x', which is no key",
    ),
    (["compare=(('../x', ()),)"], "config.compare: the name '../x' becomes that of a folder"),
    (["compare=(('a b', ()), ('a_b', ()))"], "config.compare: the name 'a_b' is given to 2 runs"),
    # words that are no number; not in Python's words
    (['batch=abc'], "config: batch is 'abc'; expected a whole number, for instance 1"),
    (['batch=8.5'], 'config: batch is 8.5; expected a whole number'),
    (['batch='], "config: batch is ''; expected a whole number"),
    (['lr=fast'], "config: lr is 'fast'; expected a number"),
    (['random_frozen=maybe'], "config: random_frozen is 'maybe'; expected True or False"),
    (['mesh.data=x'], "config.mesh: data is 'x'; expected a whole number"),
    (['mesh=x'], "config.mesh is 'x'; expected its keys, each for itself: --config.mesh.data=…"),
    (['model=x'], "config.model is 'x'; expected its keys, each for itself: --config.model.name=…"),
    (['--folds=x'], "--folds is 'x'; expected True or False"),
    # what several keys say together
    (
      [*MANY, 'sampling=balanced'],
      "config.sampling is 'balanced', which draws a class and then one of its examples, but "
      "task.kind is 'multilabel'",
    ),
    (
      [*GRADES, 'augment=flip | mixup(0.2)'],
      "config.augment is 'flip | mixup(0.2)', which mixes labels, but task.kind is 'ordinal'",
    ),
    (
      [*MANY, 'data.name=folder', 'data.root=x', 'data.label=Effusion, Edema'],
      """config.data.label is 'Effusion, Edema', the name of one column, but task.kind is """
      "'multilabel'; several are written as a tuple: "
      """--config.data.label="('Effusion', 'Edema')\"""",
    ),
  ],
)
def test_a_value_of_an_impossible_size_is_refused_in_one_sentence(request, words, said):
  given = [word if word.startswith('--') else f'--config.{word}' for word in words]
  with pytest.raises(MedtlError, match=re.escape(said)) as error:
    validate.check_config(tiny(request.config.rootpath, *given))
  words_of_python = ('\n', 'literal', 'malformed', 'object at', 'convert', 'NoneType')
  assert not any(word in str(error.value) for word in words_of_python)


@pytest.mark.parametrize(
  'words',
  [
    ['model.width=1'],
    [
      VIT,
      'model.heads=1',
      'model.patch=(8, 4)',
      'model.dropout=0.99',
      'model.registers=0',
      'model.early=()',
    ],
    ['head.dropout=0'],
    ['seed=4294967295'],
    ['mean=0.5'],
    ['truncate=5'],
    ['optimizer=sgd(momentum=0)'],
    ['optimizer=adamw(b1=0)'],
    ['threshold=at_sensitivity(1)'],
    ['augment=rotate(0) | noise(0) | shift(1) | elastic(0, 4) | zoom(1, 1)'],
    ["schedule=cosine(warmup='100%')"],
    ['task.loss=focal(gamma=0)'],
    ['data.ops=rescale(1, 0) | resize(1)'],
    ["compare=(('last block, 2', (('lr', 1), ('model.weights', ''))),)"],
    ['accumulate=4'],
    [*MANY, 'sampling=', 'class_weights=balanced'],
    [*GRADES, 'augment=flip'],
    [
      *MANY,
      'data.name=folder',
      'data.root=x',
      "data.label=('Effusion', 'Edema')",
    ],  # what the sentences advise
  ],
)
def test_the_ends_of_the_ranges_pass(request, words):
  given = [word if word.startswith('--') else f'--config.{word}' for word in words]
  validate.check_config(tiny(request.config.rootpath, *given))


@pytest.mark.parametrize(
  ('duration', 'said'),
  [
    ('30 epochs', "'30 epochs' is 30 steps, but the phases have 6 in all"),
    (7, '7 is 7 steps'),
    (6, ''),
  ],
)
def test_a_schedule_is_no_longer_than_the_run(request, duration, said):
  made = tiny(request.config.rootpath, f'--config.schedule=cosine(warmup={duration!r})')
  dataset = Dataset(lambda i: None, 16, ('a', 'b'), {'row': np.arange(16), 'y': np.arange(16) % 2})
  if said:
    with pytest.raises(MedtlError, match=f'config.schedule: {said}'):
      validate.check_training(made, sides(dataset))
  else:
    validate.check_training(made, sides(dataset))


@pytest.mark.parametrize(
  'names',
  [['../x'], ['a/b'], [''], ['.x'], ['a\nb'], ['a '], ['a\\b'], [0.1], [None], ['a', 'b', 'a']],
)
def test_names_of_variants_are_those_of_folders(names):
  with pytest.raises(
    MedtlError, match=r'sweep.py: the name .* (becomes that of a folder|is given to 2 runs)'
  ):
    validate.variants(names, 'sweep.py')
  validate.variants(['last block', 'lr=0.1', 'l2-sp0.01', '_a', 'größer (2)', '3%'], 'sweep.py')


def test_every_config_of_the_project_passes(request, monkeypatch):
  monkeypatch.chdir(request.config.rootpath)
  for name in (
    'quickstart.py',
    'oct_vit.py',
    'oct_vit.py:kermany',
    'oct_vit.py:offline',
    'oct_resnet.py',
    'oct_resnet.py:keras',
  ):
    validate.check_config(run_folder.load_config(f'configs/{name}'))


@pytest.mark.parametrize(
  'kind, loss, y, said',
  [
    (
      'multiclass',
      'softmax',
      np.zeros((40, 3), np.float32),
      r"several labels an example, but task.kind is 'multiclass'; set task.kind='multilabel'",
    ),
    (
      'multilabel',
      'sigmoid',
      np.zeros(40, int),
      r"one class an example, but task.kind is 'multilabel'; choose",
    ),
  ],
)
def test_labels_of_another_kind(request, kind, loss, y, said):
  made = tiny(request.config.rootpath, f'--config.task.kind={kind}', f'--config.task.loss={loss}')
  with pytest.raises(MedtlError, match=said):
    validate.check_training(
      made, sides(Dataset(lambda i: None, 40, ('a', 'b', 'c'), {'row': np.arange(40), 'y': y}))
    )


def test_a_batch_larger_than_the_training_side(request):
  made = tiny(request.config.rootpath)
  with pytest.raises(
    MedtlError, match=r'config.batch is 16, but the training side has 15 examples'
  ):
    validate.check_training(
      made,
      sides(
        Dataset(lambda i: None, 15, ('a', 'b'), {'row': np.arange(15), 'y': np.zeros(15, int)})
      ),
    )


@pytest.mark.parametrize(
  ('split', 'said'),
  [({'by': 'none'}, 'the split has no train and no val'), ({'val': 0}, 'the split has no val:')],
)
def test_a_run_needs_three_sides(request, split, said):
  made = tiny(request.config.rootpath)
  given = assemble.with_changes(
    made, (('data.split', {**made.data.split.to_dict(), **split} if 'by' not in split else split),)
  )
  with pytest.raises(MedtlError, match=said):
    assemble.run_context(given)


def test_folds_need_one_validation_fold(request):
  with pytest.raises(
    MedtlError, match=r'each example must stand once: data.split.val is 2, set it to 1'
  ):
    validate.count_folds(tiny(request.config.rootpath, '--config.data.split.val=2'))


@pytest.mark.parametrize(
  ('word', 'said'),
  [
    (
      "--config.phases=(('depth(1.0)', 0), ('none', '1 epochs'))",
      'a duration of 0; expected at least 1 step',
    ),
    ('--config.every=0', "a duration of '0'"),
    ('--config.every=1.2.3 epochs', "cannot read the duration '1.2.3 epochs'"),
    ('--config.seed=-1', 'config.seed is -1; expected a number 0 or more'),
    ('--config.seeds=3', 'config.seeds is 3: how many runs a study'),
  ],
)
def test_durations_and_seeds_are_checked_before_anything(request, word, said):
  with pytest.raises(MedtlError, match=said):
    assemble.run_context(tiny(request.config.rootpath, word))


def sides(train):
  return {'train': train, 'val': train, 'test': train}


def test_names_of_predictions_stay_inside_the_run_folder():
  assert validate.name('hospital_b-2.1') == 'hospital_b-2.1'
  for word in ('../x', 'a/b', '', '.hidden'):
    with pytest.raises(MedtlError, match='becomes part of file names'):
      validate.name(word)


LABELS = ('effusion', 'frontal', 'edema')


def many(request, *words):
  """Return a config of three labels an example, on pictures of a folder."""
  return tiny(
    request.config.rootpath,
    '--config.data.name=folder.load',
    '--config.data.root=x',
    f'--config.data.label={LABELS}',
    '--config.task.kind=multilabel',
    '--config.task.loss=sigmoid',
    '--config.batch=4',
    '--config.data.split.by=image',
    '--config.data.split.folds=3',
    *words,
  )


def dealt(config, y, **columns):
  """Return the sides, as the config splits them, of examples with those of y that it names."""
  kept = [LABELS.index(name) for name in config.data.label]
  table = {'row': np.arange(len(y)), 'y': y[:, kept], **columns}
  whole = Dataset(lambda i: None, len(y), tuple(config.data.label), table)
  return {
    side: whole.subset(rows) for side, rows in splits.split(table, **config.data.split).items()
  }


def labels(count=60):
  """Return [n, 3] labels, the second 1 everywhere."""
  y = (np.random.RandomState(0).rand(count, 3) < 0.5).astype(np.float32)
  y[:, 1] = 1
  return y


def test_a_label_that_is_1_everywhere_is_named_before_training_and_each_advice_works(request):
  made, y = many(request), labels()
  with pytest.raises(
    MedtlError,
    match=r"config.monitor is 'auroc', which has no value on validation: label 'frontal' is 1 in "
    'all 20 validation examples, as in all 60. You can set config.monitor to one that has',
  ) as error:
    validate.check_training(made, dealt(made, y))
  said = str(error.value)
  assert 'effusion' not in said and 'fold' not in said  # no other split helps
  advised = said.partition('one that has: ')[2].partition(', or leave')[0].split(', ')
  assert advised == ['accuracy', 'f1', 'brier', 'log_loss', 'ece', 'loss']
  for name in advised:
    validate.check_training(many(request, f'--config.monitor={name}'), dealt(made, y))
  for name in set(metrics.names('multilabel')) - set(advised):
    with pytest.raises(MedtlError, match=f"config.monitor is '{name}'"):
      validate.check_training(many(request, f'--config.monitor={name}'), dealt(made, y))
  assert 'or leave the label out of data.label' in str(error.value)
  left = many(request, "--config.data.label=('effusion', 'edema')")
  validate.check_training(left, dealt(left, y))
  alone = many(request, "--config.data.label=('edema',)")
  validate.check_training(alone, dealt(alone, y))
  with pytest.raises(MedtlError, match=r'loss$'):  # nothing would be left
    useless = many(request, "--config.data.label=('frontal',)")
    validate.check_training(useless, dealt(useless, y))


def test_a_label_that_varies_elsewhere_may_be_met_by_another_split(request):
  made, y = many(request), labels()
  train = dealt(made, y)['train'].table['row']
  y[train[:2], 1] = 0
  with pytest.raises(
    MedtlError, match=r'frontal. is 1 in all 20 validation examples, but not in 2 of all 60'
  ) as error:
    validate.check_training(made, dealt(made, y))
  assert str(error.value).endswith(
    'or take another data.split.fold or data.split.seed, or fewer data.split.folds'
  )

  def works(word):
    other = many(request, f'--config.data.split.{word}')
    try:
      validate.check_training(other, dealt(other, y))
    except MedtlError:
      return False
    return True

  assert any(works(f'fold={number}') for number in (1, 2)) and any(
    works(f'seed={number}') for number in range(1, 5)
  )


def test_a_label_that_is_0_everywhere_and_several_labels(request):
  y = labels()
  y[:, 0], y[:, 2] = 0, 0
  with pytest.raises(
    MedtlError,
    match=r"'effusion' is 0 in all 20 .*as in all 60; label 'frontal' is 1 .*; label 'edema' is 0",
  ):
    validate.check_training(many(request), dealt(many(request), y))
  f1 = many(request, '--config.monitor=f1')
  with pytest.raises(MedtlError) as error:
    validate.check_training(f1, dealt(f1, y))
  assert 'effusion' in str(error.value) and 'frontal' not in str(error.value)


def test_a_publishers_side_is_left_for_one_that_is_dealt(request):
  y = labels()
  y[:20, 1] = 0
  side = np.repeat(['train', 'val', 'test'], 20)
  published = many(request, '--config.data.split.by=publisher')
  for columns, by in (({}, 'image'), ({'patient': np.arange(60).astype(str)}, 'patient')):
    with pytest.raises(
      MedtlError, match=f"or set data.split.by='{by}', which deals the publisher's sides anew$"
    ):
      validate.check_training(published, dealt(published, y, split=side, **columns))
    other = many(request, f'--config.data.split.by={by}')
    validate.check_training(other, dealt(other, y, split=side, **columns))
  side[:] = np.where(
    side == 'val', 'train', side
  )  # the publisher has no 'val': a fold of 'train' is it
  y[:, 1], y[45, 1] = 1, 0
  with pytest.raises(MedtlError, match=r'take another data.split.fold'):
    validate.check_training(published, dealt(published, y, split=side))


@pytest.mark.parametrize('kind', ['multiclass', 'binary', 'ordinal'])
def test_a_class_that_validation_lacks(request, kind):
  loss = 'ordinal' if kind == 'ordinal' else 'softmax'
  y = np.arange(40) % 2
  train = Dataset(lambda i: None, 40, ('a', 'b'), {'row': np.arange(40), 'y': y})
  val = train.subset(np.flatnonzero(y == 0))
  for name in (*metrics.names(kind), 'loss'):
    made = tiny(
      request.config.rootpath,
      f'--config.task.kind={kind}',
      f'--config.task.loss={loss}',
      f'--config.monitor={name}',
    )
    validate.check_training(made, sides(train))
    score = np.random.RandomState(0).dirichlet([1, 1], 20)
    if name == 'loss' or (
      name != 'quadratic_kappa' and np.isfinite(metrics.of(kind)[name](score, val.table['y']))
    ):
      validate.check_training(made, {**sides(train), 'val': val})
    else:
      with pytest.raises(
        MedtlError, match="label 'b' is 0 in all 20 validation examples, but not in 40 of all 100"
      ):
        validate.check_training(made, {**sides(train), 'val': val})


def test_pictures_without_labels_cannot_train(request):
  blank = Dataset(lambda i: None, 20, (), {'row': np.arange(20), 'y': np.full(20, -1)})
  with pytest.raises(
    MedtlError, match=r"have no labels \(data.label=''\): .* for instance data.label='label'"
  ):
    validate.check_training(tiny(request.config.rootpath), sides(blank))


@pytest.mark.parametrize(
  ('name', 'value', 'said'),
  [
    ('lr', '0.1', r"config: lr is '0.1'; expected a number, for instance 0.1"),
    ('lr', None, 'lr is None'),
    ('lr', np.nan, r'config: lr is nan; expected a finite number'),
    ('batch', 8.5, 'batch is 8.5; expected a whole number'),
    ('augment', None, 'augment is None; expected text'),
    ('mean', ('a',), 'mean is .*expected a sequence of numbers'),
    ('fresh', 'head/.*', r"expected a sequence of text, for instance \('head/\.\*',\)"),
    ('random_frozen', 'no', 'random_frozen is .no.; expected True or False'),
    ('phases', None, 'phases is None; expected a sequence'),
    ('mesh', {'dta': 2}, r"config.mesh has no key 'dta'; did you mean 'data'"),
  ],
)
def test_every_key_of_a_config_is_of_its_kind(request, name, value, said):
  made = assemble.with_changes(tiny(request.config.rootpath), ((name, value),))
  with pytest.raises(MedtlError, match=said):
    validate.check_config(made)
  validate.check_config(
    assemble.with_changes(tiny(request.config.rootpath), (('batch', np.int64(8)),))
  )


def test_every_key_of_the_base_config_has_a_kind_and_no_other_is_known(request, monkeypatch):
  monkeypatch.chdir(request.config.rootpath)
  made = run_folder.load_config('configs/base.py')
  assert set(validate.parameters()) == set(made)
  with made.unlocked():
    made.pateince = 3
  with pytest.raises(MedtlError, match=r"config has no key 'pateince'; did you mean 'patience'"):
    validate.check_config(made)
  with made.unlocked():
    del made['pateince'], made['hint']
  with pytest.raises(MedtlError, match=r"config lacks the key 'hint'; set it to text"):
    validate.check_config(made)


def test_a_config_file_that_sets_another_kind_says_so(tmp_path, request, monkeypatch):
  monkeypatch.chdir(request.config.rootpath)
  text = """
from configs import base
def get_config():
  config = base.get_config()
  with config.unlocked():
    config.lr = VALUE
  return config
"""
  (tmp_path / 'x.py').write_text(text.replace('VALUE', "'fast'"))
  with pytest.raises(MedtlError, match=r"x.py sets a key to .* another kind: .*'lr'.*fast"):
    run_folder.load_config(str(tmp_path / 'x.py'))
  (tmp_path / 'x.py').write_text(text.replace('VALUE', '1 + ()'))
  with pytest.raises(
    MedtlError, match=r'x.py.*line 6.*unsupported operand'
  ):  # a mistake in Python is shown with its line
    run_folder.load_config(str(tmp_path / 'x.py'))


@pytest.mark.parametrize('kind', classification.KINDS)
def test_every_kind_has_a_loss_that_passes(request, kind):
  with pytest.raises(MedtlError, match='unknown operation'):
    validate.check_config(
      tiny(request.config.rootpath, f'--config.task.kind={kind}', '--config.task.loss=none')
    )
  loss = {'multilabel': 'sigmoid', 'ordinal': 'ordinal'}.get(kind, 'softmax')
  validate.check_config(
    tiny(request.config.rootpath, f'--config.task.kind={kind}', f'--config.task.loss={loss}')
  )
