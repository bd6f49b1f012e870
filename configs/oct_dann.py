"""Another scanner without labels: a classifier of one scanner's phantoms that serves the other's.

python -m medtl.main --config=configs/oct_dann.py
    DANN, beside the same net that never saw the other scanner; both tested on both scanners.
python -m medtl.main --config=configs/oct_dann.py:coral
    The same with Deep CORAL instead of DANN.

No label of the other scanner's is used in training, nor to choose the checkpoint.
"""

from configs import base

TARGET = dict(
  name='phantom.load',
  patients=800,
  scans=1,
  scanner='target',
  size=(48, 48),
  seed=5,
  ops='',
  split=dict(by='patient', folds=5, fold=0, seed=0),
)


def get_config(variant=''):
  return base.variant(variant, published=published, coral=coral)


def two_scanners(config):
  config.data = dict(TARGET, scanner='source', seed=0)
  config.streams = dict(target=TARGET)
  config.tests = dict(target=TARGET)
  config.model = dict(name='resnet.resnet18', width=16, weights='')
  config.phases = (('none', '20 epochs'),)
  config.augment = 'flip | shift(0.05)'
  config.batch = 32
  config.lr = 1e-3
  classifier = dict(name='classification', kind='multiclass', loss='softmax')
  alone = (('task', classifier), ('head', dict(name='linear')), ('streams', {}))
  config.compare = (('without adaptation', alone),)


def published(config):
  two_scanners(config)
  config.head = dict(name='branches.domain')
  config.task = dict(name='adaptation', strength=1.0)


def coral(config):
  two_scanners(config)
  config.task = dict(name='coral', weight=1.0)
