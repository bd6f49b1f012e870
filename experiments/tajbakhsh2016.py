"""Layer by layer from the head down (Tajbakhsh 2016): the last child live, then two … then all.

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER \
  --sweep=experiments/tajbakhsh2016.py --folds

By SGD as published: Tajbakhsh et al. 2016 (arXiv 1706.00712): momentum 0.9, rate 0.001, ten times
that for the new head, × 0.95 an epoch. Their layers are AlexNet's; ours are the backbone's
children, and the batches are the config's. 'random' is the control: the head alone on the same
backbone, frozen as chance drew it.
"""

from medtl.run import assemble
from medtl.studies import controls

AXIS = 'children live, counted from the head'
AGAINST = ('live all', 'live 0')


def sweep(config):
  """Yield (name, overrides): 'live 2' moves the last two children and the head."""
  *_, (_, duration) = config.phases
  count = assemble.count_children(config)
  epochs = round(float(duration.split()[0])) if 'epoch' in str(duration) else 10
  ends = tuple(f'{100 * epoch / epochs:g}%' for epoch in range(1, epochs))
  fading = ('schedule', f'step(at={ends!r}, factor=0.95)')
  published = (('optimizer', 'sgd(momentum=0.9)'), ('lr', 1e-3), ('head_lr', 10.0), fading)
  for live in range(count + 1):
    name = 'live all' if live == count else f'live {live}'
    yield name, (*published, ('phases', ((f'depth({count - live})', duration),)))
  yield 'random', (*published, *controls.random_frozen(config))


def control(name):
  """Return the variant that says what the checkpoint was worth to another."""
  return 'random'
