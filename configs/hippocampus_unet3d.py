"""Both parts of the hippocampus in MRI (Medical Segmentation Decathlon, 4): a 3-D U-Net.

python -m medtl.main --config=configs/hippocampus_unet3d.py --config.data.root=FOLDER
    FOLDER/images/x.nii.gz and FOLDER/labels/x.nii.gz: 0 background, 1 anterior, 2 posterior.
python -m medtl.main --config=configs/hippocampus_unet3d.py:short --config.data.root=FOLDER
    A short fold: 120 steps on 60 of 100 volumes; of how many people the files do not say. On the 20
    that test, one seed, 95 % intervals over volumes: Dice of the anterior part 0.828 (0.804 to
    0.851), of the posterior part 0.833 (0.817 to 0.849). The whole run took four minutes of
    processor time (AMD EPYC), two fifths of it for the evaluations. `predict` wrote masks with the
    shapes and affines of the files.
"""

from configs import base


def published(config):
  config.data = dict(
    name='nifti.load',
    root='',
    images='images',
    masks='labels',
    classes=('background', 'anterior', 'posterior'),
    ops="orient('RAS') | standardise",
    draw='patch(32, 32, 32, foreground=0.33)',
    # Whose volume it is the file names do not say. Both sides of one person may be among them.
    split=dict(by='image', folds=5, fold=0, seed=0),
    licence='CC BY-SA 4.0',
    citation='Antonelli et al. 2022, Nature Communications 13:4128',
  )
  config.model = dict(name='unet_encoder.unet_encoder', weights='', widths=(16, 32, 64, 128))
  config.head = dict(name='decoders.unet', widths=(16, 16, 32, 64))
  config.mean = (0.0,)  # `standardise` scaled each volume
  config.std = (1.0,)
  config.task = dict(name='segmentation', loss='dice + softmax')
  config.phases = (('none', '100 epochs'),)
  config.every = '10 epochs'
  config.batch = 4
  config.lr = 2e-3
  config.monitor = 'dice'


def short(config):
  published(config)
  config.model.widths = (8, 16, 32, 64)
  config.head.widths = (8, 8, 16, 32)
  config.phases = (('none', '4 epochs'),)
  config.every = '4 epochs'
  config.batch = 2
  config.lr = 4e-3


def get_config(variant=''):
  return base.variant(variant, published=published, short=short)
