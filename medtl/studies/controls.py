"""What stands beside a transfer, to say what it was worth: the same network without a checkpoint.

A random encoder that is frozen, with a trained head, matches pretraining on many medical tasks
(arXiv 2602.17531): features that any network makes are not yet worth the checkpoint.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from medtl.run import assemble

Changes = tuple[tuple[str, Any], ...]
# Pictures are scaled by 0.5 and 0.5, whatever the data, so that nothing but the weights differs.
_FROM_CHANCE: Changes = (
  ('model.weights', ''),
  ('random_frozen', True),
  ('mean', (0.5,)),
  ('std', (0.5,)),
)


def scratch() -> Changes:
  """Return the changes of a config that begins from chance and trains as the config says."""
  return (*_FROM_CHANCE, ('norms', ()))  # there are no statistics to keep


def random_frozen(config: ConfigDict) -> Changes:
  """Return the changes of a config whose backbone stays as chance drew it; the head is trained.

  The last phase alone is left. BatchNorms take their statistics from the training side: those of
  chance, 0 and 1, would let a deep network answer the same for all pictures.
  """
  *_, (_, duration) = config.phases
  norms = (('backbone/.*', 'target'),) if _has_statistics(config) else ()
  return (*_FROM_CHANCE, ('norms', norms), ('phases', (('depth(1.0)', duration),)))


def _has_statistics(config: ConfigDict) -> bool:
  """Return whether the config's backbone has norms with running statistics."""
  net, shape = assemble.blank_net(config)
  init = lambda key: net.init(key, jnp.zeros((1, *shape)), train=False)
  variables = jax.eval_shape(init, jax.random.key(0))
  return 'backbone' in variables.get('batch_stats', {})
