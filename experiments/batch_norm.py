"""Whose statistics a frozen backbone's BatchNorm should use: three policies.

They are the checkpoint's ('source'), the new pictures' ('target'), or each batch's own ('train').

python -m medtl.main ablate --config=configs/breast_resnet.py --config.data.root=FOLDER \
  --config.model.weights=FILE --sweep=experiments/batch_norm.py

'probe train' is a flaw found in published probes: the frozen backbone is left in training mode, so
that the head learns on features normalised by each batch, and is tested on others. 'affine' lets
scale and bias of the norms move beside the head.
"""

AXIS = 'statistics of the norms'
AGAINST = ('probe source',)


def sweep(config):
  """Yield (name, overrides): a probe and a tune of the norms, each under three policies."""
  *_, (_, duration) = config.phases
  for live, freeze in (('probe', 'depth(1.0)'), ('affine', 'all_but_norms')):
    phases = ('phases', ((freeze, duration),))
    for policy in ('source', 'target', 'train'):
      norms = ('norms', (('backbone/.*', policy),))
      yield f'{live} {policy}', (phases, norms, ('norm_images', 0))
