"""Swin transformers against torchvision, timm and transformers (fixtures/make_swin.py)."""

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
from medtl.models.backbones import swin
from medtl.models.layers import windows
from medtl.models.pretrained import checkpoint_files, port
from tests.fixtures import seeded

FIXTURES = Path(__file__).parents[1] / 'fixtures'
SIZES = {'torchvision': (53, 76), 'hf': (52, 76), 'timm': (64, 96)}
# torchvision's meta['num_params'] of the networks with their heads
COUNTS = {'t': 28_288_354, 's': 49_606_258, 'b': 87_768_224}


def tiny(stages=2, window=4, ndim=2, dtype='float32'):
  depths = (2,) * stages
  backbone = swin.Swin(
    depths, width=8, head_width=4, window=window, ndim=ndim, dtype=jnp.dtype(dtype)
  )
  return Net(backbone, heads.linear(5))


@functools.cache
def shapes_of(net, *shape):
  init = functools.partial(net.init, train=False)
  return jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))


@pytest.fixture(scope='module')
def reference():
  with np.load(FIXTURES / 'swin.npz') as file:
    return dict(file)


@pytest.mark.parametrize(
  ('publisher', 'dtype', 'bound'),
  [
    ('torchvision', 'float32', 1e-5),
    ('hf', 'float32', 1e-5),
    ('timm', 'float32', 1e-5),
    pytest.param('torchvision', 'float64', 1e-9, marks=pytest.mark.slow),
  ],
)
def test_maps_and_logits_are_the_publisher_s(reference, publisher, dtype, bound):
  with jax.enable_x64(dtype == 'float64'):
    arrays = seeded.weights(json.loads(str(reference[f'{publisher}/shapes'])))
    count = 3 if publisher == 'torchvision' else 2
    ported, report = port.port(arrays, shapes_of(tiny(count), 64, 64, 3), swin.RENAMES)
    assert report.dialect == publisher
    assert all(name.endswith('relative_position_index') for name in report.ignored)
    ported = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), ported)
    x = jnp.asarray(seeded.picture(2, *SIZES[publisher], 3), dtype)
    stages, logits = program(count, dtype)(ported, x)
    for index, maps in enumerate(stages, 1):
      near(maps[0], reference[f'{publisher}/stage{index}'], bound)
    near(logits, reference[f'{publisher}/logits'], bound)


@functools.cache
def program(count, dtype):
  """Return the compiled function of (variables, pictures) to the maps of stages and the logits."""
  net = tiny(count, dtype=dtype)
  names = [f'stage{index + 1}' for index in range(count)]

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


def test_a_file_that_transformers_saved_has_the_same_numbers(reference):
  arrays = checkpoint_files.read(FIXTURES / 'swin_hf.safetensors', swin.RENAMES)
  target = shapes_of(tiny(), 64, 64, 3)
  found, report = port.port(arrays, target, swin.RENAMES)
  seeds = seeded.weights(json.loads(str(reference['hf/shapes'])))
  expected, _ = port.port(seeds, target, swin.RENAMES)
  assert report.dialect == 'hf'
  chex.assert_trees_all_equal(found, expected)


@pytest.mark.parametrize('publisher', ['torchvision', 'timm', 'microsoft', 'hf'])
@pytest.mark.parametrize('size', ['t', pytest.param('s', marks=pytest.mark.slow), 'b'])
def test_every_published_name_has_a_place(reference, publisher, size):
  net = Net(getattr(swin, f'swin_{size}')(), heads.linear(1000))
  target = shapes_of(net, 64, 64, 3)
  shapes = json.loads(str(reference['full']))[f'{publisher}/{size}']
  arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  ported, report = port.port(arrays, target, swin.RENAMES)
  assert report.dialect == publisher
  follow = ('relative_position_index', 'attn_mask')  # from the size of the window
  assert all(name.endswith(follow) for name in report.ignored)
  assert set(pytrees.flatten(ported)) == set(pytrees.flatten(target))
  assert sum(leaf.size for leaf in jax.tree.leaves(target)) == COUNTS[size]


def test_positions_of_another_window_are_resized_and_those_of_volumes_refused(reference):
  arrays = seeded.weights(json.loads(str(reference['timm/shapes'])))
  for name in arrays:
    if name.endswith('relative_position_bias_table'):
      arrays[name] = np.tile(np.float32([1, -2, 3, 4])[: arrays[name].shape[1]], (49, 1))
  for window in (3, 6):
    target = shapes_of(tiny(window=window), 64, 64, 3)
    ported, report = port.port(arrays, target, swin.RENAMES, adapt=swin.ADAPT)
    table = ported['params']['backbone']['stage1']['block0']['attention']['positions']
    np.testing.assert_allclose(table, np.tile([1, -2], ((2 * window - 1) ** 2, 1)), rtol=1e-6)
    assert any('attention/positions from (49, 2)' in note for note in report.notes)
  with pytest.raises(MedtlError, match='does not serve volumes'):
    volumes = shapes_of(tiny(window=4, ndim=3), 16, 16, 16, 3)
    port.port(arrays, volumes, swin.RENAMES, adapt=swin.ADAPT)


@pytest.mark.parametrize(('sides', 'window'), [((12,), 4), ((8, 12), 4), ((6, 3, 9), 3)])
def test_a_place_sees_its_neighbours_within_a_shifted_window_alone(sides, window):
  """What a place attends to, read off gradients, is what the coordinates of both say."""
  size = (window,) * len(sides)
  by = tuple(window // 2 for _ in sides)
  attention = windows.WindowAttention(1, size, by, jnp.float32)
  x = jnp.asarray(np.random.RandomState(0).randn(1, *sides, 2), jnp.float32)
  shapes = pytrees.flatten(jax.eval_shape(attention.init, jax.random.key(0), x))
  arrays = seeded.weights({path: leaf.shape for path, leaf in shapes.items()})
  variables = pytrees.unflatten(arrays)
  weight = jax.jit(jax.jacobian(lambda x: attention.apply(variables, x)[0].sum(-1)))(x)
  places = int(np.prod(sides))
  seen = np.abs(np.asarray(weight)).reshape(places, places, 2).sum(-1) > 1e-12
  coordinates = np.stack(np.unravel_index(np.arange(places), sides), -1)
  shift = np.array([0 if side <= window else window // 2 for side in sides])
  group = (coordinates - shift) // window  # -1 is what is left before the first whole window
  together = (group[:, None] == group[None]).all(-1)
  np.testing.assert_array_equal(seen, together)


def test_heads_that_do_not_divide_the_width_and_axes_that_there_are_not_are_refused():
  with pytest.raises(MedtlError, match='width=100, head_width=32'):
    swin.swin_t(width=100)
  with pytest.raises(MedtlError, match='ndim=4'):
    swin.swin_t(ndim=4)
