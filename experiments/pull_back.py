"""How hard to hold on to the checkpoint: weight decay towards it, or layer-wise learning rates.

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER \
  --sweep=experiments/pull_back.py --folds

Weight decay towards the checkpoint is L2-SP: Li et al. 2018 (arXiv 1802.01483). Layer-wise decay of
the learning rate: Clark et al. 2020 (2003.10555), Bao et al. 2022 (2106.08254).
"""

AXIS = 'pull towards the checkpoint, rate kept from stage to stage'
AGAINST = ('plain',)


def sweep(config):
  """Yield (name, overrides) of full fine-tunes."""
  *_, (_, duration) = config.phases
  full = ('phases', (('none', duration),))
  yield 'plain', (full,)
  # Decay is to the checkpoint instead of to zero, but for new leaves.
  to_zero = ('rules', (('head/.*kernel', config.head_lr, config.decay),))
  for strength in (1e-3, 1e-2, 1e-1):
    yield f'l2-sp{strength:g}', (full, ('l2_sp', strength), ('decay', 0.0), to_zero)
  for factor in (0.9, 0.75, 0.5):
    yield f'layer{factor:g}', (full, ('lr_decay', factor))
