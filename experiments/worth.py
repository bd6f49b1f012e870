"""What the transfer was worth: four initialisations at five shares of the labels.

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER \
  --sweep=experiments/worth.py --folds

The initialisations are pretrained, mean-variance, scratch (all trained from chance) and random (the
backbone frozen as chance drew it, only the head trained). Mean-variance keeps of each pretrained
leaf its mean and variance alone (Raghu et al. 2019). A smaller share of the training patients is
part of a larger one; shares are rounded class by class, so that of few patients two of them may be
the same. Every variant takes as many steps, and as many looks at validation, as with all labels
(but for epochs rounded up to whole steps), so that fewer labels are not also fewer steps. Without
a checkpoint pictures are scaled by 0.5 and 0.5, whatever the share, so that nothing but the first
weights differs.
"""

from medtl.core import expressions
from medtl.studies import controls

AXIS = 'share of the training patients, %'
UNIT = ' %'
AGAINST = ('scratch100', 'pretrained100')
SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)


def sweep(config):
  """Yield (name, overrides): 'pretrained10' is the checkpoint with a tenth of the patients."""
  random = dict(controls.random_frozen(config))
  starts = {
    'pretrained': {},
    'meanvar': {'transfer': 'mean_var', 'random_frozen': True},
    'scratch': dict(controls.scratch()),
    'random': random,
  }
  for start, changes in starts.items():
    for share in SHARES:
      own = changes.get('phases', config.phases)
      phases = tuple((freeze, longer(duration, share)) for freeze, duration in own)
      split = {**config.data.split.to_dict(), 'labels': share}
      every = longer(config.every, share)
      overrides = {'data.split': split, 'phases': phases, 'every': every}
      yield f'{start}{round(100 * share)}', tuple((changes | overrides).items())


def longer(duration, share):
  """Return a duration that takes as many steps on a share of the data as this one on all.

  '10 epochs' become more epochs; durations that are not in epochs stay the same.
  """
  if 'epoch' not in str(duration):
    return duration
  return expressions.scaled_duration(duration, 1 / share)


def place(name):
  """Return (family, amount): ('pretrained', 10.0) of 'pretrained10'."""
  family = name.rstrip('0123456789')
  return family, float(name.removeprefix(family))


def control(name):
  """Return the variant of a random frozen backbone with as many labels."""
  _, amount = place(name)
  return f'random{amount:g}'
