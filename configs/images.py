"""Your own pictures: a folder of class folders, or a csv beside them.

ImageNet's EfficientNet-Lite0 is transferred to them.

python -m medtl.main --config=configs/images.py --config.data.root=FOLDER
    FOLDER/CLASS/*.png, or FOLDER/{train,val,test}/CLASS/*.png. The kind of task comes from the
    labels, and is printed.
python -m medtl.main --config=configs/images.py \
  --config.data.root=FOLDER --config.data.manifest=labels.csv
    labels.csv with columns file and label; --config.data.patient=COLUMN says who the patient is.

The head learns first, on activations that are computed once, then the upper half of the backbone
with it. Its BatchNorms keep ImageNet's statistics: those of eight pictures are too noisy to train
on. From scratch they have none to keep: --config.norms="()".

AUROC of that and of norms that train (--config.norms="()"), one seed, the first fold by patient,
by image where patients are not known, 95 % intervals, two shared cores without a GPU; the OCT scans
with --config.data.split.folds=3, as 15 of them are DRUSEN:

data                                        validation       test
                                            kept   trained   kept                  trained
1505 skin lesions (HAM10000), in colour     .906   .817      .907 (.881, .931)     .768 (.727, .811)
780 breast ultrasounds (BUSI), three        .953   .913      .930 (.889, .961)     .899 (.855, .938)
247 OCT scans (Kermany), four               .948   .899      .911 (.789, .981)     .962 (.897, .995)

The norms were chosen by the means over the three validation sides. Two test sides agree (302 images
of 203 lesions, 156 images); on the third, 88 scans of 31 patients, the order is the other, within
its intervals.
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
    config.head = dict(name='linear', norm='batch', dropout=0.2)
    config.task = dict(name='classification', kind='auto', loss='')
    config.phases = (('depth(1.0)', '5 epochs'), ('depth(0.5)', '5 epochs'))
    config.augment = 'rotate(10) | shift(0.05)'
    config.norms = (('head/norm', 'target'), ('.*', 'source'))
    config.batch = 8
    config.cache = 'head'
    config.lr = 3e-4
    config.head_lr = 10.0
  return config
