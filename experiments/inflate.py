"""How a network of pictures learns to see volumes: ACS, inflated kernels, slices; and scratch.

python -m medtl.main ablate --config=configs/adrenal_volumes.py --sweep=experiments/inflate.py

'acs': kernels of pictures, a third of the outputs across each axis (Yang et al. 2021). 'mean':
kernels repeated along the third axis and divided (I3D, Carreira & Zisserman 2017). 'centre':
kernels in the middle of the third axis. 'slices': each slice with its two neighbours as channels,
the features averaged. 'scratch': the 3-D network from chance. 'random': that of ACS, frozen as
chance drew it.
"""

from medtl.run import assemble
from medtl.studies import controls

AXIS = 'how volumes are seen'
AGAINST = ('scratch', 'slices')


def sweep(config):
  """Yield (name, overrides)."""
  flat = {key: value for key, value in config.model.to_dict().items() if key not in ('ndim', 'acs')}
  in_planes = (('model', {**flat, 'ndim': 3, 'acs': True}),)
  whole = (('model', {**flat, 'ndim': 3}),)
  yield 'acs', in_planes
  yield 'mean', (*whole, ('inflate', 'mean'))
  yield 'centre', (*whole, ('inflate', 'centre'))
  yield 'slices', (('model', flat), ('slices', 3))
  yield 'scratch', (*whole, *controls.scratch())
  yield 'random', (*in_planes, *controls.random_frozen(assemble.with_changes(config, in_planes)))


def control(name):
  """Return the variant that says what the checkpoint was worth to another."""
  return 'random'
