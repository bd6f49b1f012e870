"""The spinal cord in four kinds of MRI, slices 1 to 17 mm apart: a 3-D U-Net on one grid in mm.

python -m medtl.main --config=configs/spine_unet3d.py --config.data.root=FOLDER --folds
    FOLDER/images/x.nii.gz and FOLDER/labels/x.nii.gz: 0 background, 1 cord.

github.com/spinalcordtoolbox/sct_testing_data, MIT. Copy t1/t1w, t2/t2, t2s/t2s and mt/mt1 to
images/ and, under the same names, t1w_seg-manual, t2_seg-manual, t2s_seg and mt1_seg to labels/.
These are four volumes of one person: they test that files of any axes and spacing meet on one grid,
and say nothing about patients.

Two volumes train for 100 steps, one validates and the fourth tests, each in turn: Dice 0.86 for T2*
(0.5 × 0.5 × 7.5 mm), 0.50 for MT (0.84 × 0.84 × 17 mm), 0.38 for T2 and 0.14 for T1 (1 mm), one
seed. No net learns from two contrasts what the cord looks like in others: in T1 it is brighter than
what surrounds it, in T2 darker. All four folds took 2½ minutes of processor time (AMD EPYC).
`predict` wrote masks with the shapes and affines of the files, also of 320 × 320 × 11 voxels.
"""

from configs import base


def get_config():
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='nifti.load',
      root='',
      images='images',
      masks='labels',
      classes=('background', 'cord'),
      # The files lie along other axes, and their voxels are 0.5 × 0.5 × 7.5 to 1 × 1 × 1 mm.
      ops="orient('RAS') | resample(1.0, 1.0, 2.0) | standardise",
      draw='patch(24, 24, 16, foreground=0.5)',
      split=dict(by='image', folds=4, fold=0, seed=0),
      licence='MIT',
      citation='De Leener et al. (2017), Spinal Cord Toolbox, NeuroImage 145:24',
    )
    config.model = dict(name='unet_encoder.unet_encoder', weights='', widths=(8, 16, 32))
    config.head = dict(name='decoders.unet', widths=(8, 8, 16))
    config.mean = (0.0,)  # `standardise` scaled each volume
    config.std = (1.0,)
    config.task = dict(name='segmentation', loss='dice + softmax')
    config.phases = (('none', '100 steps'),)
    config.every = '50 steps'
    config.batch = 2
    config.lr = 4e-3
    config.monitor = 'dice'
  return config
