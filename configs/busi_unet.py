"""Lesions in breast ultrasound (BUSI): a U-Net's decoder on an ImageNet EfficientNet-Lite0, 128 px.

python -m medtl.main --config=configs/busi_unet.py --config.data.root=FOLDER
    FOLDER/labels.csv with columns file and label, FOLDER/images/x.jpg, FOLDER/masks/x.png.
python -m medtl.main --config=configs/busi_unet.py --config.data.root=FOLDER --config.data.manifest=
    As published: FOLDER/{benign,malignant,normal}/x.png beside x_mask.png.

With --folds all 647 pictures with a lesion are tested. Fold 0 alone, 129 pictures, one seed, 95 %
intervals over images (patients are not known): Dice 0.670 (0.630 to 0.712), from scratch 0.635
(0.595 to 0.671), paired difference 0.036 (0.002 to 0.072). The frozen encoder's four epochs gave
the best checkpoint: with the encoder live, three more epochs did not improve validation. Both runs
together took 425 s of processor time.
"""

from configs import base


def get_config():
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='folder.load',
      root='',
      manifest='labels.csv',
      masks='target',
      only=('benign', 'malignant'),  # 'normal' shows no lesion
      ops='resize(128, 128)',
      split=dict(by='image', folds=5, fold=0, seed=0),  # whose picture it is, BUSI does not say
    )
    config.model = dict(name='efficientnet.efficientnet_lite0', weights='imagenet')
    config.head = dict(name='decoders.unet', widths=(8, 16, 24, 32, 48))
    config.task = dict(name='segmentation', loss='dice + softmax')
    config.phases = (('depth(1.0)', '3 epochs'), ('none', '2 epochs'))
    # Batches of 8 give the frozen encoder other statistics, which lost all that it had gained.
    config.norms = (('.*', 'source'),)
    config.augment = 'flip'
    config.batch = 8
    config.cache = 'head'
    config.lr = 3e-4  # the encoder's, before lr_decay
    config.head_lr = 3.3
    config.lr_decay = 0.8
    config.monitor = 'dice'
    config.compare = (
      (
        'from scratch',
        (
          ('model.weights', ''),
          ('norms', ()),
          ('lr', 1e-3),
          ('head_lr', 1.0),
          ('lr_decay', 1.0),
          ('phases', (('none', '5 epochs'),)),
        ),
      ),
    )
  return config
