"""Another scanner without labels: a classifier of one scanner's phantoms that serves the other's.

python -m medtl.main --config=configs/oct_dann.py --workdir=ADAPTED
python -m medtl.main --config=configs/oct_dann.py:alone --workdir=ALONE
    The same classifier without adaptation.
python -m medtl.main evaluate --workdir=ADAPTED \
  --config.data.scanner=target --config.data.seed=7 --name=target
    What either is worth at the other scanner: no label of it was seen, nor used to choose.
"""

from configs import base

TARGET = dict(
  name='phantom.load',
  patients=160,
  scans=1,
  scanner='target',
  size=(48, 48),
  seed=5,
  ops='',
  split=dict(by='patient', folds=5, fold=0, seed=0),
)


def get_config(variant=''):
  return base.variant(variant, published=published, alone=alone)


def alone(config):
  config.data = dict(TARGET, scanner='source', seed=0)
  config.model = dict(name='resnet.resnet18', width=16, weights='')
  config.head = dict(name='branches.domain')
  config.task = dict(name='adaptation', strength=0.0)
  config.streams = dict(target=TARGET)
  config.phases = (('none', '20 epochs'),)
  config.augment = 'flip | shift(0.05)'
  config.batch = 16
  config.lr = 1e-3


def published(config):
  alone(config)
  config.task.strength = 1.0
