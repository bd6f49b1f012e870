"""Laws of kernels of pictures in networks of volumes, on volumes that repeat one slice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.core.types import MedtlError
from medtl.models import Net, heads
from medtl.models.backbones import alexnet, resnet, vgg
from medtl.models.layers.spatial import Conv
from medtl.models.pretrained import port
from medtl.models.pretrained.dialects import Dialect
from tests.fixtures import seeded
from tests.models.published import flat_shapes, shapes_of

OURS = {'ours': Dialect('flax', ())}
NETS = {  # a net of so many axes, its children, and a picture's sides
  'resnet': (lambda **keys: resnet.resnet18(width=2, **keys), 3, (32, 48)),
  'vgg': (lambda **keys: vgg.vgg11(width=2, **keys), 5, (32, 64)),
  'alexnet': (lambda **keys: alexnet.alexnet(width=2, **keys), 5, (63, 71)),
}


def net_of(name, **keys):
  factory, children, _ = NETS[name]
  return Net(factory(**keys), heads.linear(2), num_children=children)


def variables_of(name, sides):
  """Return seeded variables of the net of pictures, {path: array}."""
  return seeded.weights(flat_shapes(shapes_of(net_of(name), 1, *sides, 3)))


def features(net, variables, x, children):
  run = lambda v, x: net.apply(v, x, end_child=children, method='features')
  return np.asarray(jax.jit(run)(variables, x))


def both(name, way, depth, children):
  """Return the features of a picture, and of a volume of so many of it by the inflated net."""
  sides = NETS[name][2]
  arrays = variables_of(name, sides)
  flat, deep = net_of(name), net_of(name, ndim=3)
  target = shapes_of(deep, 1, depth, *sides, 3)
  inflated, report = port.port(arrays, target, OURS, inflate=way)
  assert way in report.notes[0]
  x = jnp.asarray(seeded.picture(1, *sides, 3))
  volume = jnp.repeat(x[:, None], depth, axis=1)
  found = features(deep, inflated, volume, children)
  return features(flat, pytrees.unflatten(arrays), x, children), found


def assert_each_is(expected, slices):
  """Assert that each of the slices [b, d, h, w, c] is what is expected, [b, h, w, c]."""
  assert slices.shape[1] > 0 and slices.shape[2:] == expected.shape[1:]
  assert np.abs(slices - expected[:, None]).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize('name', NETS)
def test_in_the_centre_each_slice_has_the_features_of_the_picture(name):
  depth = 64 if name == 'alexnet' else 32
  expected, found = both(name, 'centre', depth, NETS[name][1])
  assert_each_is(expected, found)


@pytest.mark.parametrize(('name', 'depth', 'edge'), [('vgg', 32, 1), ('resnet', 64, 6)])
def test_repeated_kernels_do_so_in_the_inside_of_a_deep_volume(name, depth, edge):
  """Where the zeros around the volume are seen, they do not."""
  expected, found = both(name, 'mean', depth, 2)
  assert_each_is(expected, found[:, edge:-edge])
  with pytest.raises(AssertionError):
    assert_each_is(expected, found)


@pytest.mark.parametrize('name', NETS)
def test_kernels_in_planes_take_the_arrays_of_pictures_unchanged(name):
  sides = NETS[name][2]
  arrays = variables_of(name, sides)
  target = shapes_of(net_of(name, ndim=3, acs=True), 1, 64, *sides, 3)
  ported, report = port.port(arrays, target, OURS)
  assert not report.notes
  for path, array in pytrees.flatten(ported).items():
    np.testing.assert_array_equal(array, arrays[path])


def test_the_channels_of_pictures_are_no_taps_of_grey_volumes():
  """A first kernel of 3×3 taps and three channels has as many numbers as one of 3×3×3 taps."""
  arrays = variables_of('vgg', (32, 64))
  target = shapes_of(net_of('vgg', ndim=3), 1, 32, 32, 64, 1)
  with pytest.raises(MedtlError, match=r"stem/conv0/kernel: found \(3, 3, 3, 2\)[^~]*'centre'"):
    port.port(arrays, target, OURS)
  ported, report = port.port(arrays, target, OURS, inflate='centre')
  assert len(report.notes) == 2 and len(report.mean) == 1
  kernel = ported['params']['backbone']['stem']['conv0']['kernel']
  np.testing.assert_array_equal(kernel[[0, 2]], 0)


def test_a_third_of_the_kernels_in_planes_sees_each_slice_as_a_picture():
  x = seeded.picture(1, 8, 10, 3)
  kernel = {'params': {'kernel': seeded.picture(3, 3, 3, 7, seed=2)}}
  conv = Conv(7, (3, 3), 2)
  volume = np.repeat(x[:, None], 6, axis=1)
  assert_each_is(np.asarray(conv.apply(kernel, x))[..., :3], conv.apply(kernel, volume)[..., :3])
