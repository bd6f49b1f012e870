"""Real ImageNet weights, transferred to retinal phantoms in two minutes on two cores.

python -m medtl.main --config=configs/quickstart.py
"""

from configs import base


def get_config():
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='phantom.load',
      patients=240,
      scans=2,
      scanner='source',
      size=(128, 128),
      seed=0,
      ops='',
      split=dict(by='patient', folds=5, fold=0, seed=0),
    )
    config.model = dict(name='efficientnet.efficientnet_lite0', weights='imagenet')
    config.head = dict(name='linear', norm='batch', dropout=0.2)
    config.phases = (('depth(1.0)', '5 epochs'), ('depth(4)', '6 epochs'))
    config.augment = 'flip'
    config.cache = 'head'
    config.lr = 1e-3
  return config
