"""A publisher's names and shapes, read as ours; nothing of their size is allocated."""

import jax
import numpy as np

from medtl.core import pytrees
from medtl.models.pretrained import dialects


def port_of_shapes(shapes, target, dialect):
  """Return {our path: the shape their array has there}, and the names that are dropped.

  `shapes` are {their name: shape}, `target` is {collection: {…: leaf}} of ours. Two of their arrays
  that become one of ours are an error.
  """
  wanted = {path: leaf.shape for path, leaf in pytrees.flatten(target).items()}
  arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  pieces, dropped = dialects.renamed(arrays, dialect, ())
  found = {}
  for piece in pieces:
    assert piece.path not in found, piece
    found[piece.path] = dialects.fitted(piece, wanted.get(piece.path, ()), dialect).shape
  return found, dropped


def shapes_of(net, *size):
  """Return the variables' shapes of a net for pictures [b, *s, c]."""
  example = jax.ShapeDtypeStruct(size, 'float32')
  init = lambda x: net.init(jax.random.key(0), x, train=False)
  return jax.eval_shape(init, example)


def flat_shapes(target):
  """Return {path: shape} of a tree."""
  return {path: leaf.shape for path, leaf in pytrees.flatten(target).items()}
