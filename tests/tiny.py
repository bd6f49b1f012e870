"""A run of seconds: phantoms of 32 pixels, a narrow ResNet, two phases.

':long' takes long enough to be killed.
"""

from configs import base


def get_config(variant=''):
  config = base.get_config()
  with config.unlocked():
    config.random_frozen = True
    config.data = dict(
      name='phantom.load',
      patients=40,
      scans=2,
      scanner='target',
      size=(32, 32),
      seed=0,
      ops='',
      split=dict(by='patient', folds=4, fold=0, seed=0),
    )
    config.model = dict(name='resnet.resnet18', width=4, weights='')
    config.phases = (('depth(1.0)', '3 epochs'), ('depth(3)', '3 epochs'))
    config.batch = 16
    config.resamples = 50
    if variant == 'long':
      config.phases = (('depth(2)', '30 epochs'), ('none', '30 epochs'))
      config.augment = 'flip | shift(0.1) | noise(0.05)'
      config.every = '5 steps'
      config.patience = 6
      config.ema = 0.9
      config.norm_images = 32
  return config
