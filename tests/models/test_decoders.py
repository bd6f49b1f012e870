"""Decoders read the maps of every resolution, on any backbone, in any number of dimensions."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.features import packing
from medtl.models import Backbone, Net, decoders
from medtl.models.backbones import vit


class Pyramid(Backbone):
  """Children of half, half, a quarter and a quarter of the picture's size; each adds a channel."""

  strides = (2, 1, 2, 1)

  @property
  def stages(self):
    return 3

  def child(self, index, value, train):
    strides = (self.strides[index],) * (value.ndim - 2)
    kernel = (3,) * (value.ndim - 2)
    return nn.Conv(value.shape[-1] + 1, kernel, strides, name=f'stage{index}' if index else 'stem')(
      value
    )


def shapes(net, x):
  """The shapes of outputs and variables, without computing them."""
  return jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x, train=False), x)


@pytest.mark.parametrize('size', [(16,), (8, 12), (4, 8, 4)])
def test_every_pixel_has_logits_whatever_the_number_of_axes(size):
  net = Net(Pyramid(), decoders.unet(3, size, widths=(4, 6)))
  found, variables = shapes(net, jnp.zeros((2, *size, 1)))
  assert found.shape == (2, *size, 3) and found.dtype == jnp.float32
  kernel = variables['params']['head']['level1']['conv1']['kernel']
  assert kernel.shape[-2:] == (5 + 3, 6)  # the coarsest maps, and the last of the finer ones
  assert set(variables['params']['head']) == {'level1', 'level0', 'dense'}


def test_what_is_kept_of_a_frozen_backbone_gives_the_same_outputs_and_no_more_than_is_read():
  net = Net(Pyramid(), decoders.unet(2, (8, 8), widths=(4,)), mean=(0.5,))
  x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
  variables = jax.jit(functools.partial(net.init, train=False))(jax.random.key(0), x)
  live = jax.jit(functools.partial(net.apply, train=False))(variables, x)
  for cut in (2, net.reduced):
    features = functools.partial(net.apply, end_child=cut, method='features')
    kept = jax.jit(features)(variables, x)
    again = packing.unpack(packing.pack(kept), kept)
    above = functools.partial(net.apply, train=False, start_child=cut)
    np.testing.assert_allclose(jax.jit(above)(variables, again), live, atol=1e-5)
  assert [level.shape[1:] for level in kept] == [(4, 4, 3), (2, 2, 5)]


def test_where_all_children_have_one_resolution_maps_are_enlarged():
  backbone = vit.vit_ti16(size=(16, 16), patch=4, width=8, depth=2, heads=2)
  net = Net(backbone, decoders.unet(2, (16, 16), widths=(4,)))
  found, variables = shapes(net, jnp.zeros((1, 16, 16, 3)))
  assert found.shape == (1, 16, 16, 2) and set(variables['params']['head']) == {'level0', 'dense'}


def test_a_level_without_channels_is_an_error():
  with pytest.raises(MedtlError, match=r'unet: widths=\(4, 0\); expected channels'):
    decoders.unet(2, (8, 8), widths=(4, 0))
