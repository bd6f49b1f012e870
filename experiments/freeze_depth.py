"""How deep to freeze: every depth, from the full fine-tune to the linear probe.

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER \
  --sweep=experiments/freeze_depth.py --folds

The last phase freezes each depth in turn; phases before it stay as they are. 'random' is the
control: a probe of the same backbone, frozen as chance drew it.
"""

from medtl.run import assemble
from medtl.studies import controls

AXIS = 'children frozen, counted from the stem'
AGAINST = ('full', 'probe')


def sweep(config):
  """Yield (name, overrides): 'full' freezes nothing, 'probe' the whole backbone."""
  *before, (_, duration) = config.phases
  count = assemble.count_children(config)
  names = {0: 'full', count: 'probe'}
  for depth in range(count + 1):
    phases = (*before, (f'depth({depth})', duration))
    yield names.get(depth, f'depth{depth}'), (('phases', phases),)
  yield 'random', controls.random_frozen(config)


def control(name):
  """Return the variant that says what the checkpoint was worth to another."""
  return 'random'
