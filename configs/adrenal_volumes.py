"""AdrenalMNIST3D, volumes of 28 voxels a side: ImageNet's EfficientNet-Lite0 learns to see them.

python -m medtl.main --config=configs/adrenal_volumes.py
    fetched from the publisher; --config.data.root=FOLDER reads adrenalmnist3d.npz there
python -m medtl.main ablate --config=configs/adrenal_volumes.py --sweep=experiments/inflate.py
    ACS, inflated kernels, slices with their neighbours; beside scratch and random frozen weights

Published for these volumes, ResNet-18 (Yang et al. 2023): trained from scratch in 3-D AUC .827,
accuracy .721; with ACS .839, .754.
"""

from configs import base


def get_config():
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='medmnist.load',
      flag='adrenalmnist3d',
      size=28,
      root='',
      ops='resize(56, 56, 56)',
      split=dict(by='publisher'),
    )
    config.model = dict(
      name='efficientnet.efficientnet_lite0', weights='imagenet', ndim=3, acs=True
    )
    config.head = dict(name='linear', norm='batch', dropout=0.2)
    config.task = dict(name='classification', kind='binary', loss='softmax')
    config.phases = (('depth(1.0)', '5 epochs'), ('none', '10 epochs'))
    config.norms = (('head/norm', 'target'), ('.*', 'source'))
    config.augment = 'flip'
    config.batch = 16
    config.lr = 3e-4
    config.head_lr = 10.0
  return config
