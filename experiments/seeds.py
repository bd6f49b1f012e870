"""How much is chance: the same run from five seeds.

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER \
  --sweep=experiments/seeds.py --folds

A seed gives the weights of the head, the order of the examples and the augmentation. Here each seed
is a variant of its own; `--config.seeds=5` makes five runs of every variant of another study
instead, and puts their chance into its intervals. Intervals over patients alone do not hold it: a
difference between two variants that is no larger than that between two seeds is none.
"""

AXIS = 'seed'
AGAINST = ('seed0',)
COUNT = 5


def sweep(config):
  """Yield (name, overrides)."""
  for number in range(COUNT):
    yield f'seed{number}', (('seed', config.seed + number),)
