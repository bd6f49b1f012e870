"""Foot ulcers in photographs (FUSeg 2021): a U-Net's decoder on an ImageNet EfficientNet-Lite0.

python -m medtl.main --config=configs/foot_ulcer_unet.py --config.data.root=FOLDER
    FOLDER/labels.csv with columns image and split, FOLDER/images/x.jpg, FOLDER/masks/x.png.

Wang et al. 2020, Scientific Reports 10:21897; CC BY-NC. With --folds all photographs are tested.
Fold 0 alone, 72 of 360 at 128 px, one seed, 95 % interval over photographs: Dice 0.632 (0.580 to
0.680). The encoder frozen reached 0.546 on validation, six epochs with all live 0.628. Two minutes
of processor time (AMD EPYC). The files do not say whose foot it is, and several photographs may
show one: a random split is too kind. The median ulcer covers 0.7 % of a photograph, here 115
pixels.
"""

from configs import base


def get_config():
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='folder.load',
      root='',
      manifest='labels.csv',
      file='image',
      label='',
      partition='split',
      masks='target',
      channels=3,
      ops='resize(128, 128)',
      split=dict(by='image', folds=5, fold=0, seed=0),  # whose foot it is, the files do not say
      licence='CC BY-NC',
      citation='Wang C. et al. (2020), Scientific Reports 10:21897, doi:10.1038/s41598-020-78799-w',
    )
    config.model = dict(name='efficientnet.efficientnet_lite0', weights='imagenet')
    config.head = dict(name='decoders.unet', widths=(8, 16, 24, 32, 48))
    config.task = dict(name='segmentation', loss='dice + softmax')
    config.phases = (('depth(1.0)', '4 epochs'), ('none', '6 epochs'))
    config.augment = 'flip'
    config.batch = 8
    config.cache = 'head'
    config.lr = 1e-3
    config.lr_decay = 0.8
    config.monitor = 'dice'
  return config
