"""One contract for all backbones.

Whatever stands in medtl/models is found, made tiny and held to it.
"""

import functools
import importlib
import inspect
import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import expressions, pytrees
from medtl.models import Backbone, Net, child_name, describe_levels, heads
from medtl.models.backbones import resnet, vit
from medtl.models.layers.style import Style
from medtl.models.pretrained.dialects import Dialect
from medtl.training import parameter_groups
from tests.fixtures import seeded

SHAPE = (2, 64, 32, 3)
LARGER = {'alexnet': (2, 96, 64, 3)}  # of what is too small for a network
TINY = {
  'densenet': dict(depths=(1, 2), growth=4, width=8),
  'alexnet': dict(width=8, dense=16),
  'resnet': dict(width=8, ndim=2),
  'efficientnet': dict(width=0.25),
  'convnext': dict(width=8),
  'swin': dict(width=8, head_width=4, window=4),
  'mobilenet': dict(width=0.25),
  'inception': dict(width=1 / 16, padding='SAME'),
  'nasnet': dict(filters=8, repeats=1),
  'unet_encoder': dict(widths=(4, 8, 8)),
  'vgg': dict(width=8, dense=16),
  'vit': dict(size=SHAPE[1:3], patch=16, width=16, heads=2, depth=3),
  'sam': dict(size=SHAPE[1:3], width=16, heads=2, depth=3, window=3, neck=8),
}  # a family that is not named here is made whole
FAMILIES = {
  name: module
  for name in expressions.siblings('medtl.models.backbones')
  if hasattr(module := importlib.import_module(f'medtl.models.backbones.{name}'), 'RENAMES')
  and hasattr(module, 'WEIGHTS')
  and any(
    isinstance(value, type) and issubclass(value, Backbone) for value in vars(module).values()
  )
}
FACTORIES = {
  f'{family}.{name}': (family, function)
  for family, module in FAMILIES.items()
  for name, function in expressions.public(module).items()
  if all(p.default is not p.empty for p in inspect.signature(function).parameters.values())
}
SMALL = {  # compiled and run, so as shallow as they can be
  'resnet': lambda module: module.ResNet(module.Bottleneck, (1, 1), 8),
  'bit': lambda _: resnet.ResNet(
    resnet.PreActivation, (1, 1), 8, Style(norm='group', standardised=True)
  ),
  'vgg': lambda module: module.VGG((1, 1, 1, 1, 1), normed=True, width=4, dense=16),
  'vit': lambda module: module.vit_ti16(**{**TINY['vit'], 'depth': 2}),
  'siglip': lambda _: vit.siglip_vit_b16(**{**TINY['vit'], 'depth': 1}),
  'dinov3': lambda _: vit.dinov3_vit_s16plus(**{**TINY['vit'], 'depth': 1}),
  'sam': lambda module: module.sam_vit_b(**{**TINY['sam'], 'depth': 2, 'global_every': 2}),
  'efficientnet': lambda module: module.efficientnet_lite0(width=0.25, depth=0.25),
  'convnext': lambda module: module.ConvNeXt((1, 1), 8),
  'swin': lambda module: module.Swin((2, 1), 8, head_width=4, window=4),
  'mobilenet': lambda module: module.MobileNet(
    module.V3_LARGE[1:3], 8, 'hard_swish', 24, width=0.25, dense=16
  ),
  'inception': lambda module: module.Inception(
    module.Form(1 / 16, 'SAME'), (module.BLOCKS[3], module.BLOCKS[10])
  ),
  'nasnet': lambda module: module.NASNet((module.Kind(True, 2), module.Kind(False, 2)), 4),
}


def make(name):
  family, function = FACTORIES[name]
  return function(**tiny_keys(family, function))


def tiny_keys(family, function):
  known = inspect.signature(function).parameters
  return {key: value for key, value in TINY.get(family, {}).items() if key in known}


def shape_of(family):
  return LARGER.get(family, SHAPE)


def test_each_family_is_found():
  assert set(FAMILIES) >= {'resnet', 'vit', 'efficientnet'} and len(FACTORIES) > 20
  for module in FAMILIES.values():
    assert all(
      isinstance(dialect, Dialect) and dialect.layout in ('torch', 'keras', 'flax')
      for dialect in module.RENAMES.values()
    )
    assert all(weights.note for weights in module.WEIGHTS.values()), (
      'cite where URL, checksum and licence were read'
    )


def read_by_a_head(net, x, train):
  """Return what a head reads of pictures, and the logits, in one trace."""
  value = net.features(x, train=train)
  logits = net.head(net.head.reduce(value, net.reading), train=train)
  return net.backbone.maps(value), net.backbone.token(value), logits


@pytest.mark.parametrize('name', FACTORIES)
def test_children_shapes_and_names(name):
  backbone = make(name)
  assert isinstance(backbone, Backbone)
  net = Net(backbone, heads.linear(3))
  shape = shape_of(FACTORIES[name][0])
  init = lambda key, x: net.init_with_output(key, x, False, method=read_by_a_head)
  pictures = jax.ShapeDtypeStruct(shape, jnp.float32)
  (maps, token, logits), variables = jax.eval_shape(init, jax.random.key(0), pictures)
  children = [child_name(i) for i in range(backbone.stages + 1)]
  assert parameter_groups.children(variables['params']) == children
  assert set(variables['params']['backbone']) - set(children) <= {'norm'}
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
  chex.assert_shape(maps, (shape[0], None, None, backbone.channels))
  if token is not None:
    chex.assert_shape(token, (shape[0], backbone.channels))
  chex.assert_shape(logits, (shape[0], 3))


@pytest.mark.slow
@pytest.mark.parametrize('ndim', [1, 3])
@pytest.mark.parametrize('name', FACTORIES)
def test_other_axes_where_the_factory_has_them(name, ndim):
  family, function = FACTORIES[name]
  if 'ndim' not in inspect.signature(function).parameters:
    pytest.skip('this family knows one number of axes')
  backbone = function(**{**tiny_keys(family, function), 'ndim': ndim})
  side = min(shape_of(family)[1:3])
  levels = describe_levels(backbone, (*[side] * ndim, 1))
  assert {len(level.sides) for level in levels} == {ndim}
  assert levels[-1].channels == backbone.channels


@pytest.fixture(scope='module', params=sorted({*FAMILIES, *SMALL}))
def made(request):
  first = next((name for name, (family, _) in FACTORIES.items() if family == request.param), '')
  backbone = (
    SMALL[request.param](FAMILIES.get(request.param)) if request.param in SMALL else make(first)
  )
  net = Net(backbone, heads.linear(3), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
  x = jnp.asarray(np.random.RandomState(0).rand(*shape_of(request.param)), jnp.float32)
  shapes = pytrees.flatten(
    jax.eval_shape(lambda key: net.init(key, x, train=False), jax.random.key(0))
  )
  return (
    net,
    pytrees.unflatten(seeded.weights({path: leaf.shape for path, leaf in shapes.items()})),
    x,
  )


def test_levels_are_maps_of_true_strides(made):
  """Each child's maps cover the picture evenly, never finer than those before it."""
  net, variables, x = made
  names = [child_name(i) for i in range(net.backbone.stages + 1)]
  run = lambda v, x: net.backbone.apply(bare(v), x, train=False, levels=names)
  _, taken = jax.eval_shape(run, variables, x)
  described = describe_levels(net.backbone, x.shape[1:])
  assert [level.name for level in described] == names
  finest = (1, 1)
  for level in described:
    maps = taken[level.name]
    assert (maps.shape[1:-1], maps.shape[-1]) == (level.sides, level.channels)
    strides = tuple(side / small for side, small in zip(x.shape[1:], level.sides, strict=False))
    assert all(map(operator.ge, strides, finest))
    finest = strides


def bare(variables):
  """Return a net's variables as those of its backbone."""
  return {name: tree['backbone'] for name, tree in variables.items() if 'backbone' in tree}


def test_every_leaf_learns(made):
  """The gradient of each leaf is finite and not zero in training mode."""
  net, variables, x = made

  def loss(params):
    outputs, _ = net.apply(
      {**variables, 'params': params},
      x,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': jax.random.key(2)},
    )
    return jnp.square(outputs - jnp.arange(3.0)).sum()

  gradients = jax.jit(jax.grad(loss))(variables['params'])
  for path, gradient in pytrees.flatten(gradients).items():
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, path


@pytest.fixture(scope='module')
def applied(made):
  """Return what the slices of a net make of pictures, and what trains with the last child alone."""
  net, variables, x = made
  count = net.backbone.stages + 1
  cut = count // 2
  live = {child_name(net.backbone.stages), 'head'}

  def run(variables, x):
    features = functools.partial(net.apply, variables, method='features')
    values = [x]
    for i in range(count):
      values.append(features(values[-1], start_child=i, end_child=i + 1))
    _, moved = net.apply(
      variables, x, train=live, mutable=['batch_stats'], rngs={'dropout': jax.random.key(1)}
    )
    return {
      'values': values,
      'whole': features(x),
      'lower': features(x, end_child=cut),
      'logits': net.apply(variables, x, train=False),
      'upper': net.apply(variables, values[cut], train=False, start_child=cut),
      'moved': moved,
    }

  return jax.jit(run)(variables, x), cut


def test_slice_after_slice_is_the_whole_at_every_cut(applied):
  found, cut = applied
  close(found['values'][-1], found['whole'])
  close(found['lower'], found['values'][cut])
  close(found['upper'], found['logits'])


def close(a, b):
  chex.assert_trees_all_equal_shapes(a, b)
  for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6 * float(jnp.abs(other).max()))


def test_only_children_in_training_mode_move_their_statistics(made, applied):
  net, variables, _ = made
  found, _ = applied
  live = {child_name(net.backbone.stages), 'head', 'norm'}  # the norm goes with the last stage
  statistics = pytrees.flatten(variables.get('batch_stats', {}))
  after = pytrees.flatten(found['moved'].get('batch_stats', {}))
  moved = {path for path in statistics if not np.array_equal(after[path], statistics[path])}
  assert moved == {path for path in statistics if path.split('/')[1] in live}


def test_slices_that_do_not_exist_are_named(made):
  net, variables, x = made
  with pytest.raises(ValueError, match='no slice'):
    net.apply(variables, x, end_child=net.reduced + 1, method='features')
