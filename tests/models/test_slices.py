"""2.5-D: a network of pictures on the slices of volumes is that network on each slice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.core.types import MedtlError
from medtl.models import Net, decoders, heads, slices
from medtl.models.backbones import resnet, vit
from medtl.run import assemble, run_folder
from tests.fixtures import seeded

SIZE = (32, 48)
VOLUMES = jnp.asarray(np.random.RandomState(0).rand(2, 5, *SIZE, 1), jnp.float32)
BACKBONES = {
  'resnet': lambda: resnet.resnet18(width=4),
  'vit': lambda: vit.vit_ti16(size=SIZE, width=16, heads=2, depth=2),
}


def variables_of(net, x):
  shapes = pytrees.flatten(jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False)))
  arrays = seeded.weights({path: leaf.shape for path, leaf in shapes.items()})
  return pytrees.unflatten(arrays)


def test_neighbours_stand_beside_the_slice_and_the_ends_repeat():
  x = jnp.arange(4.0).reshape(1, 4, 1, 1, 1)
  found = slices.with_neighbours(x, 3)[0, :, 0, 0]
  np.testing.assert_array_equal(found, [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]])
  np.testing.assert_array_equal(slices.with_neighbours(x, 1), x)


@pytest.mark.parametrize('family', BACKBONES)
def test_each_slice_is_seen_as_a_picture_at_every_cut(family):
  backbone = BACKBONES[family]()
  net = Net(backbone, heads.linear(3), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), slices=3)
  flat = net.clone(slices=0)
  variables = variables_of(net, VOLUMES)
  pictures = slices.with_neighbours(VOLUMES, 3).reshape(10, *SIZE, 3)
  for cut in (1, 2):
    run = lambda v, x, net=net, cut=cut: net.apply(v, x, end_child=cut, method='features')
    value = jax.jit(run)(variables, VOLUMES)
    theirs = run(variables, pictures, flat)
    assert value.shape[:2] == (2, 5)
    close(value.reshape(theirs.shape), theirs)
    whole = net.apply(variables, VOLUMES, train=False)
    close(net.apply(variables, value, train=False, start_child=cut), whole)
  reduced = net.apply(variables, VOLUMES, end_child=net.reduced, method='features')
  of_slices = flat.apply(variables, pictures, end_child=net.reduced, method='features')
  close(reduced, of_slices.reshape(2, 5, -1).mean(1))


def close(a, b):
  np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_a_decoder_gives_a_mask_of_the_volume():
  head = decoders.unet(2, size=(5, *SIZE), widths=(4, 4))
  net = Net(BACKBONES['resnet'](), head, slices=1)
  shape = jax.eval_shape(
    lambda: net.init_with_output(jax.random.key(0), VOLUMES, train=False)[0]
  ).shape
  assert shape == (2, 5, *SIZE, 2)


def test_a_config_builds_it_for_volumes_alone():
  config = run_folder.load_config('tests/tiny.py')
  config = assemble.with_changes(config, (('slices', 3),))
  net, _ = assemble.build_net(config, (5, *SIZE, 1), ('a', 'b'))
  kernel = jax.eval_shape(lambda: net.init(jax.random.key(0), VOLUMES, train=False))
  assert kernel['params']['backbone']['stem']['conv']['kernel'].shape == (7, 7, 3, 4)
  with pytest.raises(MedtlError, match=r'config.slices=3 is for volumes, found pictures of 2 axes'):
    assemble.build_net(config, (*SIZE, 1), ('a', 'b'))
