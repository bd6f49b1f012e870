"""Your own pictures: a folder of class folders, or a csv beside them.

ImageNet's EfficientNet-Lite0 is transferred to them.

python -m medtl.main --config=configs/images.py --config.data.root=FOLDER
    FOLDER/CLASS/*.png, or FOLDER/{train,val,test}/CLASS/*.png. The kind of task comes from the
    labels, and is printed.
python -m medtl.main --config=configs/images.py \
  --config.data.root=FOLDER --config.data.manifest=labels.csv
    labels.csv with columns file and label; --config.data.patient=COLUMN says who the patient is.

The head learns first, on activations that are computed once, then the upper half of the backbone
with it.
"""

from configs import base


def get_config():
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='folder.load',
      root='',
      ops='resize(224, 224)',
      split=dict(by='auto', folds=5, fold=0, seed=0),
    )
    config.model = dict(name='efficientnet.efficientnet_lite0', weights='imagenet')
    config.head = dict(name='linear', norm=True, dropout=0.2)
    config.task = dict(name='classification', kind='auto', loss='')
    config.phases = (('depth(1.0)', '5 epochs'), ('depth(0.5)', '5 epochs'))
    config.augment = 'rotate(10) | shift(0.05)'
    config.batch = 8
    config.cache = 'head'
    config.lr = 3e-4
    config.head_lr = 10.0
  return config
