"""Lesions in breast ultrasound (BUSI): a U-Net's decoder on an ImageNet EfficientNet-Lite0, 128 px.

python -m medtl.main --config=configs/busi_unet.py --config.data.root=FOLDER
    FOLDER/labels.csv with columns file and label, FOLDER/images/x.jpg, FOLDER/masks/x.png.
python -m medtl.main --config=configs/busi_unet.py --config.data.root=FOLDER --config.data.manifest=
    As published: FOLDER/{benign,malignant,normal}/x.png beside x_mask.png.

With --folds all 647 pictures with a lesion are tested. At 128 px, one seed, 95 % intervals over
images (patients are not known): Dice 0.666 (0.647 to 0.683), from scratch 0.596 (0.577 to 0.614),
paired difference 0.069 (0.056 to 0.083). Both took 21½ minutes of processor time (AMD EPYC).

Longer is better for both: on fold 0 four epochs with the encoder frozen and three with it live gave
0.685 (0.646 to 0.724), seven from scratch 0.635 (0.595 to 0.671). The live phase raises Dice on
validation in each fold (means 0.641 and 0.664). It did not while BatchNorm used batches of eight:
three live epochs then fell from 0.641 to 0.613, also at a tenth of the head's rate.
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
