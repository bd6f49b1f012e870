"""One contract for all backbones.

Whatever stands in medtl/models is found, made tiny and held to it.
"""

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
from medtl.models.backbones import resnet
from medtl.models.layers.style import Style
from medtl.models.pretrained.dialects import Dialect
from medtl.training import parameter_groups
from tests.fixtures import seeded

SHAPE = (2, 64, 32, 3)
TINY = {
  'resnet': dict(width=8),
  'efficientnet': dict(width=0.25),
  'mobilenet': dict(width=0.25),
  'nasnet': dict(filters=8, repeats=1),
  'unet_encoder': dict(widths=(4, 8, 8)),
  'vit': dict(size=SHAPE[1:3], patch=16, width=16, heads=2, depth=3),
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
  'vit': lambda module: module.vit_ti16(**{**TINY['vit'], 'depth': 2}),
  'efficientnet': lambda module: module.efficientnet_lite0(width=0.25, depth=0.25),
  'mobilenet': lambda module: module.MobileNet(
    module.V3_LARGE[1:3], 8, 'hard_swish', 24, width=0.25, dense=16
  ),
  'nasnet': lambda module: module.NASNet((module.Kind(True, 2), module.Kind(False, 2)), 4),
}


def make(name):
  family, function = FACTORIES[name]
  return function(**tiny_keys(family, function))


def tiny_keys(family, function):
  known = inspect.signature(function).parameters
  return {key: value for key, value in TINY.get(family, {}).items() if key in known}


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


@pytest.mark.parametrize('name', FACTORIES)
def test_children_shapes_and_names(name):
  backbone = make(name)
  assert isinstance(backbone, Backbone)
  net = Net(backbone, heads.linear(3))
  variables = jax.eval_shape(
    lambda key: net.init(key, jnp.zeros(SHAPE), train=False), jax.random.key(0)
  )
  children = [child_name(i) for i in range(backbone.stages + 1)]
  assert parameter_groups.children(variables['params']) == children
  assert set(variables['params']['backbone']) - set(children) <= {'norm'}
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
  value = jax.eval_shape(
    lambda v, x: net.apply(v, x, method='features'), variables, jnp.zeros(SHAPE)
  )
  maps, token = jax.eval_shape(lambda value: (backbone.maps(value), backbone.token(value)), value)
  chex.assert_shape(maps, (SHAPE[0], None, None, backbone.channels))
  if token is not None:
    chex.assert_shape(token, (SHAPE[0], backbone.channels))
  assert jax.eval_shape(
    lambda v, x: net.apply(v, x, train=False), variables, jnp.zeros(SHAPE)
  ).shape == (SHAPE[0], 3)


@pytest.mark.parametrize('ndim', [1, 3])
@pytest.mark.parametrize('name', FACTORIES)
def test_other_axes_where_the_factory_has_them(name, ndim):
  family, function = FACTORIES[name]
  if 'ndim' not in inspect.signature(function).parameters:
    pytest.skip('this family knows one number of axes')
  backbone = function(**{**tiny_keys(family, function), 'ndim': ndim})
  levels = describe_levels(backbone, (*[32] * ndim, 1))
  assert {len(level.sides) for level in levels} == {ndim}
  assert levels[-1].channels == backbone.channels


@pytest.fixture(scope='module', params=sorted({*FAMILIES, 'bit'}))
def made(request):
  first = next((name for name, (family, _) in FACTORIES.items() if family == request.param), '')
  backbone = (
    SMALL[request.param](FAMILIES.get(request.param)) if request.param in SMALL else make(first)
  )
  net = Net(backbone, heads.linear(3), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
  x = jnp.asarray(np.random.RandomState(0).rand(*SHAPE), jnp.float32)
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
  described = describe_levels(net.backbone, SHAPE[1:])
  assert [level.name for level in described] == names
  finest = (1, 1)
  for level in described:
    maps = taken[level.name]
    assert (maps.shape[1:-1], maps.shape[-1]) == (level.sides, level.channels)
    strides = tuple(side / small for side, small in zip(SHAPE[1:], level.sides, strict=False))
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

  for path, gradient in pytrees.flatten(jax.jit(jax.grad(loss))(variables['params'])).items():
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, path


def test_slice_after_slice_is_the_whole_at_every_cut(made):
  net, variables, x = made
  step = jax.jit(
    lambda variables, value, i: net.apply(
      variables, value, start_child=i, end_child=i + 1, method='features'
    ),
    static_argnums=2,
  )
  values, count = [x], net.backbone.stages + 1
  for i in range(count):
    values.append(step(variables, values[-1], i))
  run = jax.jit(lambda v, x: (net.apply(v, x, method='features'), net.apply(v, x, train=False)))
  whole, logits = run(variables, x)
  close(values[-1], whole)
  cut = count // 2
  lower, upper = jax.jit(
    lambda v, x, value: (
      net.apply(v, x, end_child=cut, method='features'),
      net.apply(v, value, train=False, start_child=cut),
    )
  )(variables, x, values[cut])
  close(lower, values[cut])
  close(upper, logits)


def close(a, b):
  np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max()))


def test_only_children_in_training_mode_move_their_statistics(made):
  net, variables, x = made
  statistics = pytrees.flatten(variables.get('batch_stats', {}))
  live = {child_name(net.backbone.stages), 'head'}
  run = jax.jit(
    lambda v, x: net.apply(
      v, x, train=live, mutable=['batch_stats'], rngs={'dropout': jax.random.key(1)}
    )[1]
  )
  after = pytrees.flatten(run(variables, x).get('batch_stats', {}))
  moved = {path for path in statistics if not np.array_equal(after[path], statistics[path])}
  assert moved == {path for path in statistics if path.split('/')[1] in live}


def test_slices_that_do_not_exist_are_named(made):
  net, variables, x = made
  with pytest.raises(ValueError, match='no slice'):
    net.apply(variables, x, end_child=net.reduced + 1, method='features')
