"""The settings of RadImageNet for one backbone: what is frozen, at two learning rates.

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER \
  --sweep=experiments/radimagenet2022.py --folds

Nothing, all but the top, or all of the backbone is frozen. Mei et al. 2022 (RadImageNet, Radiology:
Artificial Intelligence 4(5)) tried these six settings for each of four backbones, 24 in all: run it
with a config for each backbone at hand. Their top ten layers are the last child here.
"""

from medtl.run import assemble

AXIS = 'what is live, learning rate'
AGAINST = ('all 1e-3',)
RATES = {'1e-3': 1e-3, '1e-4': 1e-4}


def sweep(config):
  """Yield (name, overrides)."""
  *_, (_, duration) = config.phases
  top = assemble.count_children(config) - 1
  for live, freeze in (('all', 'none'), ('top', f'depth({top})'), ('head', 'depth(1.0)')):
    phases = ('phases', ((freeze, duration),))
    for word, rate in RATES.items():
      yield f'{live} {word}', (phases, ('lr', rate), ('head_lr', 1.0))
