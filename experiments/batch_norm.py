"""Whose statistics a frozen backbone's BatchNorm should use: the checkpoint's, the new pictures', or each batch's own.

python -m medtl.main ablate --config=configs/breast_resnet.py --config.data.root=FOLDER --config.model.weights=FILE \
  --sweep=experiments/batch_norm.py

'probe train' is a flaw found in published probes: the frozen backbone is left in training mode, so that the head learns on features
normalised by each batch, and is tested on others. 'affine' lets scale and bias of the norms move beside the head.
"""

AXIS = 'statistics of the norms'
AGAINST = ('probe source',)


def sweep(config):
  """Yield (name, overrides): a linear probe and a tune of the norms' scale and bias, each under three policies."""
  *_, (_, duration) = config.phases
  for live, freeze in (('probe', 'depth(1.0)'), ('affine', 'all_but_norms')):
    for policy in ('source', 'target', 'train'):
      yield (
        f'{live} {policy}',
        (
          ('phases', ((freeze, duration),)),
          ('norms', (('backbone/.*', policy),)),
          ('norm_images', 0),
        ),
      )
