"""A vision transformer, transferred to retinal OCT.

python -m medtl.main --config=configs/oct_vit.py
    OCTMNIST at 224 px and the AugReg ViT-B/16, both fetched from their publishers. Published for
    OCTMNIST at 28 px, from scratch (ResNet-18, Yang et al. 2023): AUC .943, accuracy .743.
python -m medtl.main --config=configs/oct_vit.py:kermany \
  --config.data.root=FOLDER --config.model.weights=FILE
    OCT2017 in a folder, CLIP ViT-B/16 in a file: the head, then the last two blocks.
python -m medtl.main --config=configs/oct_vit.py:offline
    No download: a small ViT learns the source scanner's phantoms, then the target scanner's with
    few labels.
"""

from configs import base


def get_config(variant=''):
  return base.variant(variant, published=published, kermany=kermany, offline=offline, source=source)


def published(config):
  config.hint = 'configs/oct_vit.py:offline needs no download'
  config.data = dict(
    name='medmnist.load', flag='octmnist', size=224, root='', ops='', split=dict(by='publisher')
  )
  config.model = dict(name='vit.vit_b16', weights='augreg_b16')
  config.phases = (('depth(1.0)', '1 epochs'), ('depth(11)', '4 epochs'))
  config.augment = 'flip | rotate(10) | shift(0.05)'
  config.dtype = 'bfloat16'
  config.batch = 128
  config.lr = 3e-4


def folder(config):
  config.data = dict(
    name='folder.load',
    root='',
    ops='resize(224, 224)',
    split=dict(by='patient', folds=5, fold=0, seed=0),
  )


def kermany(config):
  folder(config)
  config.model = dict(name='vit.clip_vit_b16', weights='')
  config.head = dict(name='linear', norm='batch')
  config.phases = (('depth(1.0)', '3 epochs'), ('depth(11)', '3 epochs'))
  config.batch = 4
  config.lr = 2e-4
  config.head_lr = 10.0
  config.norm_images = 0  # chosen with the running averages of the head's norm, the only one here


def source(config):
  config.data = dict(
    name='phantom.load',
    patients=2000,
    scans=2,
    scanner='source',
    size=(64, 64),
    seed=0,
    ops='',
    split=dict(by='patient', folds=10, fold=0, seed=0),
  )
  config.model = dict(
    name='vit.vit_ti16', width=128, depth=3, heads=4, early=(32, 64, 128, 128), weights=''
  )
  config.head = dict(name='linear', pool='mean')
  config.phases = (('none', '12 epochs'),)
  config.augment = 'flip'


def offline(config):
  source(config)
  config.data.update(
    patients=320, scanner='target', split=dict(by='patient', folds=5, fold=0, seed=0, labels=0.25)
  )
  config.model.weights = 'run:configs/oct_vit.py:source'
  config.phases = (('depth(1.0)', '5 epochs'), ('depth(1)', '15 epochs'))
  config.batch = 16
  config.lr = 3e-4
  config.head_lr = 3.0
  config.every = '5 epochs'
  config.compare = (
    (
      'from scratch',
      (('model.weights', ''), ('lr', 1e-3), ('head_lr', 1.0), ('phases', (('none', '20 epochs'),))),
    ),
  )
