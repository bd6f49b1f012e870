"""Keras' ImageNet ResNet-50 on BreastMNIST at 28 px, resized to 224, probed.

It is the config of experiments/batch_norm.py.

python -m medtl.main --config=configs/breast_resnet.py \
  --config.data.root=FOLDER --config.model.weights=FILE
python -m medtl.main ablate --config=configs/breast_resnet.py \
  --config.data.root=FOLDER --config.model.weights=FILE --sweep=experiments/batch_norm.py
"""

from configs import base, breast_clip, oct_resnet


def get_config():
  config = base.get_config()
  with config.unlocked():
    oct_resnet.keras(config)
    config.data = breast_clip.get_config().data
    config.head = dict(name='linear')
    config.task = dict(name='classification', kind='binary', loss='softmax')
    config.phases = (('depth(1.0)', '10 epochs'),)
    config.batch = 32
    config.lr = 1e-3
    config.head_lr = 1.0
  return config
