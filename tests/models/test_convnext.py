"""ConvNeXt against torchvision, timm, transformers and Keras (fixtures/make_convnext.py)."""

import functools
import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.core.types import MedtlError
from medtl.models import Net, heads
from medtl.models.backbones import convnext
from medtl.models.layers.style import Style
from medtl.models.pretrained import checkpoint_files, port
from tests.fixtures import seeded

FIXTURES = Path(__file__).parents[1] / 'fixtures'
SHAPE = (2, 70, 96, 3)
# torchvision's meta['num_params'] of the networks with their heads
COUNTS = {'tiny': 28_589_128, 'small': 50_223_688, 'base': 88_591_464}
PUBLISHERS = ('torchvision', 'hf', 'timm', 'meta', 'keras')


def tiny(dtype='float32', norm='layer'):
  style = Style(bias=True, dtype=jnp.dtype(dtype))
  return Net(convnext.ConvNeXt((1, 2, 1, 1), 8, style=style), heads.linear(5, norm=norm))


@functools.cache
def shapes_of(net, *shape):
  init = functools.partial(net.init, train=False)
  return jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))


@pytest.fixture(scope='module')
def reference():
  with np.load(FIXTURES / 'convnext.npz') as file:
    return dict(file)


def arrays_of(reference, publisher):
  if publisher == 'keras':
    return checkpoint_files.read(FIXTURES / 'convnext_keras.h5', convnext.RENAMES)
  return seeded.weights(json.loads(str(reference[f'{publisher}/shapes'])))


@pytest.mark.parametrize(
  ('publisher', 'dtype', 'bound'),
  [
    ('torchvision', 'float32', 1e-5),
    ('timm', 'float32', 1e-5),
    ('hf', 'float32', 1e-5),
    ('keras', 'float32', 1e-5),
    pytest.param('torchvision', 'float64', 1e-9, marks=pytest.mark.slow),
  ],
)
def test_maps_and_logits_are_the_publisher_s(reference, publisher, dtype, bound):
  with jax.enable_x64(dtype == 'float64'):
    arrays = arrays_of(reference, publisher)
    ported, report = port.port(arrays, shapes_of(tiny(), *SHAPE[1:]), convnext.RENAMES)
    assert report.dialect == publisher and not report.ignored
    ported = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), ported)
    x = jnp.asarray(seeded.picture(*SHAPE), dtype)
    stages, logits = program(dtype)(ported, x)
    for index, maps in enumerate(stages, 1):
      near(maps[0, ::2, ::2], reference[f'{publisher}/stage{index}'], bound)
    near(logits, reference[f'{publisher}/logits'], bound)


@functools.cache
def program(dtype):
  """Return the compiled function of (variables, pictures) to the maps of stages and the logits."""
  net = tiny(dtype)
  names = [f'stage{index}' for index in range(1, 5)]

  def maps_and_logits(variables, x):
    bare = {'params': variables['params']['backbone']}
    value, taken = net.backbone.apply(bare, x, train=False, levels=names)
    logits = net.head.apply(
      {'params': variables['params']['head']}, net.head.reduce(value, net.backbone), train=False
    )
    return list(taken.values()), logits

  return jax.jit(maps_and_logits)


def near(found, expected, bound):
  chex.assert_shape(found, expected.shape)
  assert np.abs(np.asarray(found) - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize('publisher', PUBLISHERS)
@pytest.mark.parametrize('size', ['tiny', pytest.param('small', marks=pytest.mark.slow), 'base'])
def test_every_published_name_has_a_place(reference, publisher, size):
  net = Net(getattr(convnext, f'convnext_{size}')(), heads.linear(1000, norm='layer'))
  target = shapes_of(net, 64, 64, 3)
  shapes = json.loads(str(reference['full']))[f'{publisher}/{size}']
  arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  ported, report = port.port(arrays, target, convnext.RENAMES)
  assert report.dialect == publisher and not report.ignored
  assert set(pytrees.flatten(ported)) == set(pytrees.flatten(target))
  assert sum(leaf.size for leaf in jax.tree.leaves(target)) == COUNTS[size]


def test_what_keras_and_dinov3_keep_beside_the_network_is_dropped(reference):
  target = shapes_of(tiny(), *SHAPE[1:])
  mean = {'convnext_tiny_prestem_normalization/mean': np.zeros(3, 'f4')}
  _, report = port.port(arrays_of(reference, 'keras') | mean, target, convnext.RENAMES)
  assert report.ignored == (*mean,)
  full = json.loads(str(reference['full']))['meta/tiny']
  arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in full.items()}
  arrays = {name: array for name, array in arrays.items() if not name.startswith('head')}
  arrays['norms.3.weight'] = arrays['norm.weight']
  net = Net(convnext.convnext_tiny(), heads.linear(4, norm='layer'))
  _, report = port.port(
    arrays, shapes_of(net, 64, 64, 3), convnext.RENAMES, fresh=('head/dense/.*',)
  )
  assert report.ignored == ('norms.3.weight',)


def test_a_norm_of_the_head_that_one_side_lacks_says_what_to_do(reference):
  """The advice is tried: with it the port goes through."""
  arrays = arrays_of(reference, 'torchvision')
  without = shapes_of(tiny(norm=''), *SHAPE[1:])
  whole = shapes_of(tiny(), *SHAPE[1:])
  with pytest.raises(MedtlError, match=r"config\.head\.norm='layer' takes over; config\.fresh="):
    port.port(arrays, without, convnext.RENAMES)
  port.port(arrays, whole, convnext.RENAMES)
  _, report = port.port(arrays, without, convnext.RENAMES, fresh=('head/.*',))
  assert set(report.ignored) == {name for name in arrays if name.startswith('classifier')}
  lacking = {name: array for name, array in arrays.items() if not name.startswith('classifier.0')}
  with pytest.raises(MedtlError, match=r"config\.head\.norm='' leaves it out, or config\.fresh="):
    port.port(lacking, whole, convnext.RENAMES)
  port.port(lacking, without, convnext.RENAMES)


@pytest.mark.parametrize(
  ('acs', 'inflate'), [(True, ''), pytest.param(False, 'mean', marks=pytest.mark.slow)]
)
def test_a_checkpoint_of_pictures_serves_volumes(reference, acs, inflate):
  style = Style(3, acs, bias=True)
  net = Net(convnext.ConvNeXt((1, 2, 1, 1), 8, style=style), heads.linear(5, norm='layer'))
  target = shapes_of(net, 32, 32, 32, 3)
  arrays = arrays_of(reference, 'torchvision')
  ported, report = port.port(arrays, target, convnext.RENAMES, inflate=inflate)
  assert pytrees.flatten(ported).keys() == pytrees.flatten(target).keys()
  # inflated are the stem, three kernels that halve and five that are depthwise
  inflated = ('9 kernels of pictures became kernels of volumes: mean',)
  assert report.notes == (inflated if inflate else ())


def test_stochastic_depth_grows_to_that_of_the_last_block():
  net = convnext.ConvNeXt((1, 1), 4, drop_path=0.999)
  x = jnp.asarray(seeded.picture(8, 8, 8, 3))
  shapes = pytrees.flatten(shapes_of(net, 8, 8, 3))
  arrays = seeded.weights({path: leaf.shape for path, leaf in shapes.items()})
  apply = jax.jit(functools.partial(net.apply, train=True))

  def output(scale):
    arrays['params/stage2/block0/scale'] = np.full(8, scale, 'f4')
    rngs = {'dropout': jax.random.key(1)}
    return apply(pytrees.unflatten(arrays), x, rngs=rngs)

  np.testing.assert_array_equal(output(1.0), output(0.0))  # the last branch is left out
  still = jax.jit(functools.partial(net.apply, train=False))(pytrees.unflatten(arrays), x)
  np.testing.assert_allclose(output(0.0), still, atol=1e-6)  # the first never is
