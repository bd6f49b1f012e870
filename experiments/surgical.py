"""Which part to move: one child of the backbone live with the head, each in turn.

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER \
  --sweep=experiments/surgical.py --folds

Lee et al. 2023 (arXiv 2210.11466): which layers are worth tuning depends on what differs: early
ones for another camera, late ones for other labels. 'random' is the control: a probe of the same
backbone, frozen as chance drew it.
"""

from medtl.run import assemble
from medtl.studies import controls

AXIS = 'the child that is live'
AGAINST = ('full', 'probe')


def sweep(config):
  """Yield (name, overrides): 'only3' moves child 3 and the head."""
  *before, (_, duration) = config.phases
  phases = lambda freeze: (('phases', (*before, (freeze, duration))),)
  yield 'full', phases('none')
  yield 'probe', phases('depth(1.0)')
  for child in range(assemble.count_children(config)):
    yield f'only{child}', phases(f'only({child})')
  yield 'random', controls.random_frozen(config)


def control(name):
  """Return the variant that says what the checkpoint was worth to another."""
  return 'random'
