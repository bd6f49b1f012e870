"""Breast ultrasound (BUSI) without labels: SimCLR, then a classifier on what it learned.

python -m medtl.main --config=configs/busi_simclr.py:views --config.data.root=FOLDER --workdir=VIEWS
    Two augmented views of each picture; labels are not read by the loss.
python -m medtl.main --config=configs/busi_simclr.py:vicreg \
  --config.data.root=FOLDER --workdir=VIEWS
    The same with VICReg, which has no negatives.
python -m medtl.main --config=configs/busi_simclr.py \
  --config.data.root=FOLDER --config.model.weights=run:VIEWS
    A classifier from there, beside the same net from ImageNet and from scratch.

FOLDER/labels.csv with columns file and label, FOLDER/images/x.jpg.

780 pictures of 64 px, three classes (normal, benign, malignant): 468 train, 156 choose, 156 are
tested (fold 0; patients are not known). One seed, 95 % intervals over images, differences paired:

weights of the classifier     AUROC                  balanced accuracy
SimCLR, on the same 468       0.739 (0.674, 0.799)   0.486 (0.427, 0.539)
ImageNet                      0.878 (0.825, 0.922)   0.716 (0.635, 0.795)
none (scratch)                0.740 (0.671, 0.802)   0.463 (0.397, 0.532)
SimCLR minus ImageNet        −0.139 (−0.201, −0.078) −0.230 (−0.321, −0.144)
SimCLR minus scratch         −0.001 (−0.055, 0.059)   0.023 (−0.054, 0.096)

So SimCLR did not help here, and ImageNet did: 468 pictures and 320 steps are little for it. The
small pictures and the 40 epochs keep all four runs to 11 minutes of processor time on two cores
(AMD EPYC, no GPU). VICReg was not run on these pictures.
"""

from configs import base


def get_config(variant=''):
  return base.variant(variant, published=published, views=views, vicreg=vicreg)


def pictures(config):
  config.data = dict(
    name='folder.load',
    root='',
    manifest='labels.csv',
    ops='square | resize(64)',
    split=dict(by='image', folds=5, fold=0, seed=0),  # whose picture it is, BUSI does not say
  )
  config.model = dict(name='efficientnet.efficientnet_lite0', weights='')


def views(config):
  pictures(config)
  config.task = dict(name='simclr', temperature=0.2)
  config.head = dict(name='projections.mlp')
  config.augment = 'flip | rotate(15) | zoom(0.7, 1.2) | shift(0.1) | gamma(0.6, 1.6) | noise(0.05)'
  config.monitor = 'loss'
  config.phases = (('none', '40 epochs'),)
  config.batch = 64
  config.lr = 1e-3


def vicreg(config):
  views(config)
  config.task = dict(name='vicreg')
  config.head = dict(name='projections.mlp', layers=3)


def published(config):
  pictures(config)
  config.phases = (('depth(1.0)', '3 epochs'), ('none', '10 epochs'))
  config.augment = 'flip | rotate(10) | shift(0.05)'
  config.batch = 32
  config.lr = 1e-3
  imagenet = (('model.weights', 'imagenet'),)
  scratch = (('model.weights', ''), ('phases', (('none', '13 epochs'),)))
  config.compare = (('from ImageNet', imagenet), ('from scratch', scratch))
