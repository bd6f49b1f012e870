"""CLIP ViT-B/16 on BreastMNIST at 28 px, resized to 224: as experiments/probe_medmnist.py runs it.

python -m experiments.probe_medmnist --config=configs/breast_clip.py \
  --config.data.root=FOLDER --config.model.weights=FILE
python -m medtl.main --config=configs/breast_clip.py \
  --config.data.root=FOLDER --config.model.weights=FILE
"""

from configs import base


def get_config():
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='medmnist.load',
      flag='breastmnist',
      size=28,
      root='',
      ops="resize(224, 224, method='cubic')",
      split=dict(by='publisher'),
      allow_leak=True,
    )  # rows 115 (train) and 700 (test) are one picture
    config.model = dict(name='vit.clip_vit_b16', weights='')
    config.head = dict(name='linear', norm='batch')
    config.task = dict(name='classification', kind='binary', loss='softmax')
    config.phases = (('depth(1.0)', '10 epochs'),)
    config.batch = 12
  return config
