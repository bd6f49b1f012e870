"""Head first or all at once: probing then fine-tuning (LP-FT) against each alone, as many steps.

python -m medtl.main ablate --config=configs/oct_efficientnet.py --config.data.root=FOLDER \
  --sweep=experiments/lp_ft.py --folds

Kumar et al. 2022 (arXiv 2202.10054): a fine-tune from a random head distorts features before the
head is of use.
"""

from medtl.core import expressions

AXIS = 'what is live, in turn'
AGAINST = ('fine-tune', 'probe')


def sweep(config):
  """Yield (name, overrides); probing and fine-tuning share the duration of the last phase."""
  *_, (_, duration) = config.phases
  head = expressions.scaled_duration(duration, 0.4)
  rest = expressions.scaled_duration(duration, 0.6)
  yield 'fine-tune', (('phases', (('none', duration),)),)
  yield 'probe', (('phases', (('depth(1.0)', duration),)),)
  yield 'lp-ft', (('phases', (('depth(1.0)', head), ('none', rest))),)
  yield 'gradual', (('phases', (('depth(1.0)', head), ('depth(0.5)', rest))),)
