"""What each child of a net makes, and how two of such are compared."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from medtl.models import child_name


def shapes_of(net, *size):
  """Return the shapes of a net's variables for a picture of `size` [*s, c]."""
  example = jax.ShapeDtypeStruct((1, *size), jnp.float32)
  return jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), example)


def outputs(net, variables, x):
  """Return the maps of each child and the logits, of the first picture of x."""
  names = [child_name(index) for index in range(net.backbone.stages + 1)]

  @jax.jit
  def run(variables, x):
    backbone = {name: tree['backbone'] for name, tree in variables.items()}
    value, taken = net.backbone.apply(backbone, x, train=False, levels=names)
    reduced = net.head.reduce(value, net.backbone)
    logits = net.head.apply({'params': variables['params']['head']}, reduced, train=False)
    return taken, logits

  taken, logits = run(variables, x)
  return [*(np.asarray(taken[name][0]) for name in names), np.asarray(logits[0])]


def distance(found, expected):
  """Return max |found − expected| / max |expected| of arrays of one shape."""
  chex.assert_equal_shape((found, expected))
  return float(np.abs(found - expected).max() / np.abs(expected).max())
