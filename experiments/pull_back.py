"""How hard to hold on to the checkpoint: weight decay towards it (L2-SP), and layer-wise decay of the learning rate.

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER --sweep=experiments/pull_back.py --folds

L2-SP: Li et al. 2018 (arXiv 1802.01483); layer-wise decay: Clark et al. 2020 (2003.10555), Bao et al. 2022 (2106.08254).
"""

AXIS = 'pull towards the checkpoint, rate kept from stage to stage'
AGAINST = ('plain',)


def sweep(config):
  """Yield (name, overrides) of full fine-tunes."""
  *_, (_, duration) = config.phases
  full, head = (
    ('phases', (('none', duration),)),
    ('head/.*kernel', config.head_lr, config.decay),
  )  # new leaves still decay to zero
  yield 'plain', (full,)
  for strength in (1e-3, 1e-2, 1e-1):
    yield (
      f'l2-sp{strength:g}',
      (full, ('l2_sp', strength), ('decay', 0.0), ('rules', (head,))),
    )  # to the checkpoint instead of to zero
  for factor in (0.9, 0.75, 0.5):
    yield f'layer{factor:g}', (full, ('lr_decay', factor))
