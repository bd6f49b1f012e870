"""An EfficientNet-Lite0 with real ImageNet weights, transferred to retinal OCT.

It is small enough for studies on a CPU.

python -m medtl.main --config=configs/oct_efficientnet.py --config.data.root=FOLDER
python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER \
  --sweep=experiments/freeze_depth.py --folds
    OCT2017 in a folder.
python -m medtl.main ablate --config=configs/oct_efficientnet.py:phantoms \
  --sweep=experiments/worth.py --folds
    Generated phantoms: no download but the weights.
"""

from configs import base


def get_config(variant=''):
  return base.variant(variant, published=published, phantoms=phantoms)


def published(config):
  config.data = dict(
    name='folder.load',
    root='',
    ops='resize(128, 128)',
    split=dict(by='patient', folds=5, fold=0, seed=0),
  )
  config.model = dict(name='efficientnet.efficientnet_lite0', weights='imagenet')
  config.head = dict(name='linear', norm='batch')
  config.phases = (('none', '10 epochs'),)
  config.batch = 16
  config.lr = 3e-4
  config.head_lr = 10.0


def phantoms(config):
  published(config)
  config.data = dict(
    name='phantom.load',
    patients=120,
    scans=2,
    scanner='target',
    size=(128, 128),
    seed=0,
    ops='',
    split=dict(by='patient', folds=3, fold=0, seed=0),
  )
  config.phases = (('none', '6 epochs'),)
  config.batch = 8
