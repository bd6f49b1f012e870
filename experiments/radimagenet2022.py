"""The settings of RadImageNet for one backbone: nothing, all but the top, or all of it frozen, at two learning rates.

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER --sweep=experiments/radimagenet2022.py --folds

Mei et al. 2022 (RadImageNet, Radiology: Artificial Intelligence 4(5)) tried six settings for each of four backbones, 24 in all: run it
with a config for each backbone at hand. Their top ten layers are the last child here.
"""

from medtl.run import assemble

AXIS = 'what is live, learning rate'
AGAINST = ('all 1e-3',)
RATES = {'1e-3': 1e-3, '1e-4': 1e-4}


def sweep(config):
  """Yield (name, overrides)."""
  *_, (_, duration) = config.phases
  live = {
    'all': 'none',
    'top': f'depth({assemble.count_children(config) - 1})',
    'head': 'depth(1.0)',
  }
  for name, freeze in live.items():
    for word, rate in RATES.items():
      yield f'{name} {word}', (('phases', ((freeze, duration),)), ('lr', rate), ('head_lr', 1.0))
