"""How deep a checkpoint sees: linear probes after every child, and fine-tunes of the last few.

python -m medtl.main ablate --config=configs/oct_vit.py:kermany --config.data.root=FOLDER \\
  --config.model.weights=FILE --sweep=experiments/depth_of_features.py --folds \\
  --config.data.split.folds=3 --config.phases="(('none', '5 epochs'),)"

A probe after child k stands on the first k children alone (Ke et al. 2021, CheXtransfer); what is
computed for one serves them all. The full fine-tunes take longer than all others together: leave
them out with --only, or train them by themselves later. 'full' has the rate of the others.
'layerwise' keeps 0.65 of it from child to child downwards, as is usual for such nets (Bao et al.
2022, arXiv 2106.08254). 'random' is the control: a probe of the same backbone, frozen as chance
drew it.
"""

from medtl.run import assemble
from medtl.studies import controls

AXIS = 'children below the probe, or live'
AGAINST = ('full', 'layerwise', 'probe')
LIVE = (1, 2, 4)


def sweep(config):
  """Yield (name, overrides).

  'probe3' stands on three children, 'probe' on all of them; 'last2' has two of them live.
  """
  *_, (_, duration) = config.phases
  count = assemble.count_children(config)
  frozen = ('phases', (('depth(1.0)', duration),))
  for kept in range(1, count):
    yield f'probe{kept}', (('truncate', kept), frozen)
  yield 'probe', (frozen,)
  for live in LIVE:
    yield f'last{live}', (('phases', ((f'depth({count - live})', duration),)),)
  yield 'full', (('phases', (('none', duration),)),)
  yield 'layerwise', (('phases', (('none', duration),)), ('lr_decay', 0.65))
  yield 'random', controls.random_frozen(config)


def control(name):
  """Return the variant that says what the checkpoint was worth to another."""
  return 'random'
