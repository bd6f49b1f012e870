"""Foot ulcers in photographs (FUSeg challenge 2021): a U-Net's decoder on EfficientNet-Lite0, 128 px.

python -m medtl.main --config=configs/foot_ulcer_unet.py --config.data.root=FOLDER
    FOLDER/labels.csv with columns image and split, FOLDER/images/x.jpg, FOLDER/masks/x.png.
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
