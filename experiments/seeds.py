"""How much is chance: the same run from five seeds (weights of the head, order of the examples, augmentation).

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER --sweep=experiments/seeds.py --folds

Intervals over patients do not hold this chance: a difference between two variants that is no larger than that between two seeds is none.
"""

AXIS = 'seed'
AGAINST = ('seed0',)
COUNT = 5


def sweep(config):
  """Yield (name, overrides)."""
  for number in range(COUNT):
    yield f'seed{number}', (('seed', config.seed + number),)
