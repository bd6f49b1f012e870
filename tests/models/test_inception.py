"""Inception-v3 and its auxiliary head against torchvision and Keras on seeded weights."""

import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.core.types import MedtlError
from medtl.models import Net, describe_levels, heads
from medtl.models.backbones import inception
from medtl.models.pretrained import port
from tests.fixtures import conv_seeds, seeded

REFERENCE = np.load(Path(__file__).parents[1] / 'fixtures' / 'inception.npz')
STAGES = [f'stage{number}' for number in range(1, 12)]
PART = 1 / 16  # of the channels, in the fixture
PICTURE = (1, 299, 331, 3)


def shapes_of(net, *shape):
  return jax.eval_shape(lambda key: net.init(key, jnp.zeros(shape), train=False), jax.random.key(0))


def near(a, name, tolerance):
  """Assert max |a − b| ≤ tolerance · max |b|, b of the fixture."""
  b = REFERENCE[name]
  chex.assert_equal_shape((a, b))
  assert np.abs(np.asarray(a) - b).max() <= tolerance * np.abs(b).max(), name


def ported(publisher, net, size, **keys):
  shapes = json.loads(str(REFERENCE[f'{publisher}/shapes']))
  arrays = conv_seeds.weights(shapes, publisher == 'keras')
  return port.port(arrays, shapes_of(net, *size), inception.RENAMES, **keys)


@pytest.fixture(
  scope='module',
  params=[('float32', 2e-5), pytest.param(('float64', 1e-9), marks=pytest.mark.slow)],
)
def torchvision(request):
  """Return (tolerance, report, maps, what the head says in training) of pictures of 0 … 1."""
  dtype, tolerance = request.param
  with jax.enable_x64(dtype == 'float64'):
    backbone = inception.inception_v3(PART, dtype=jnp.dtype(dtype))
    net = Net(backbone, heads.auxiliary(7, widths=(8, 48)))
    variables, report = ported('torchvision', net, PICTURE)
    net = net.clone(mean=report.mean, std=report.std)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    x = jnp.asarray(seeded.picture(*PICTURE), dtype)

    def run(variables, x):
      bare = {name: tree['backbone'] for name, tree in variables.items()}
      x, _ = net.apply(variables, x, end_child=0, method='features')  # normalised
      value, taken = backbone.apply(bare, x, train=False, levels=STAGES)
      reduced = net.head.reduce((value, taken), backbone)
      head = {name: tree['head'] for name, tree in variables.items()}
      logits = net.head.apply(head, reduced, train=False)
      early = heads.Early(7, (8, 48))
      auxiliary = {name: tree['auxiliary'] for name, tree in head.items()}
      return taken, logits, early.apply(auxiliary, reduced['windows'], False)

    return tolerance, report, *jax.device_get(jax.jit(run)(variables, x))


def test_parity_with_torchvision_and_both_of_its_logits(torchvision):
  """Its transform_input makes of pictures normalised by ImageNet's numbers what our 0.5 makes."""
  tolerance, report, maps, logits, auxiliary = torchvision
  assert (report.dialect, report.mean, report.std) == ('torchvision', (0.5,) * 3, (0.5,) * 3)
  for name in STAGES:
    near(conv_seeds.pick(maps[name][0]), f'torchvision/{name}', tolerance)
  near(logits[0], 'torchvision/logits', tolerance)
  near(auxiliary[0], 'torchvision/auxiliary', tolerance)


def test_parity_with_keras_whose_norms_have_no_scale():
  size = (1, 80, 112, 3)
  net = Net(inception.inception_v3(PART, pool_counts_padding=False), heads.linear(7))
  variables, report = ported('keras', net, size)
  assert report.dialect == 'keras'
  assert report.notes == ('94 norms of the checkpoint have no scale: ours is 1',)

  def run(variables, x):
    bare = {name: tree['backbone'] for name, tree in variables.items()}
    value, taken = net.backbone.apply(bare, x, train=False, levels=STAGES)
    return taken, net.apply(variables, value, train=False, start_child=12)

  maps, logits = jax.jit(run)(variables, seeded.picture(*size))
  for name in STAGES:
    near(conv_seeds.pick(maps[name][0]), f'keras/{name}', 2e-5)
  near(logits[0], 'keras/logits', 2e-5)


PUBLISHED = json.loads(str(REFERENCE['published']))


@pytest.fixture(scope='module')
def whole():
  """Return the shapes of Inception-v3 with each of two heads."""
  linear = shapes_of(Net(inception.inception_v3(), heads.linear(1000)), 1, 75, 75, 3)
  reduced = {'features': jnp.zeros((1, 2048)), 'windows': jnp.zeros((1, 5, 5, 768))}
  head = jax.eval_shape(
    lambda key: heads.auxiliary(1000).init(key, reduced, train=False), jax.random.key(0)
  )
  auxiliary = {
    name: {'backbone': linear[name]['backbone'], 'head': tree} for name, tree in head.items()
  }
  return linear, auxiliary


def fits(shapes, target, fresh=()):
  """Return the report of a port of arrays of these names and shapes, which must be complete."""
  arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  tree, report = port.port(arrays, target, inception.RENAMES, fresh=fresh)
  assert set(pytrees.flatten(tree)) | set(report.fresh) == set(pytrees.flatten(target))
  return report


def count(target, collections):
  return sum(leaf.size for name in collections for leaf in jax.tree.leaves(target[name]))


def test_published_names_and_counts_of_torchvision(whole):
  """Where the net has no auxiliary classifier, that of the checkpoint is left out by name."""
  linear, auxiliary = whole
  assert count(auxiliary, ['params']) == 27161264
  report = fits(PUBLISHED['torchvision'], auxiliary)
  assert report.dialect == 'torchvision'
  assert all(name.endswith('num_batches_tracked') for name in report.ignored)
  report = fits(PUBLISHED['torchvision'], linear)
  dropped = {name for name in report.ignored if not name.endswith('num_batches_tracked')}
  assert len(dropped) == 12 and all(name.startswith('AuxLogits.') for name in dropped)
  assert fits(PUBLISHED['sequential'], linear, ['head/.*']).dialect == 'sequential'


def test_published_names_and_counts_of_keras(whole):
  """Layers are numbered in the order in which they were made, from 0 or from 1."""
  linear, _ = whole
  shapes = PUBLISHED['keras']
  assert sum(int(np.prod(shape)) for shape in shapes.values()) == 23851784
  scales = sum(
    leaf.size for path, leaf in pytrees.flatten(linear).items() if path.endswith('/scale')
  )
  assert count(linear, ['params', 'batch_stats']) - scales == 23851784
  assert fits(shapes, linear).dialect == 'keras'
  later = {}
  for name, shape in shapes.items():
    layer, _, leaf = name.partition('/')
    kind, _, number = layer.rpartition('_')
    if layer in ('conv2d', 'batch_normalization'):
      layer = f'{layer}_1'
    elif number.isdigit():
      layer = f'{kind}_{int(number) + 1}'
    later[f'{layer}/{leaf}'] = shape
  assert fits(later, linear).dialect == 'keras_from_1'
  no_top = {name: shape for name, shape in shapes.items() if 'predictions' not in name}
  assert fits(no_top, linear, ['head/.*']).dialect == 'keras'


def few(acs=False, padding='VALID'):
  """Return a net of three of the blocks."""
  blocks = (inception.BLOCKS[3], inception.BLOCKS[4], inception.BLOCKS[9])
  return inception.Inception(inception.inception_v3(PART, padding, acs=acs).form, blocks)


def test_small_pictures_and_volumes_are_told_what_to_do():
  with pytest.raises(MedtlError, match=r"32 × 80; Inception-v3 expects 75 .*padding='SAME'"):
    describe_levels(few(), (32, 80, 3))
  assert describe_levels(few(padding='SAME'), (32, 80, 3))[-1].sides == (2, 5)
  with pytest.raises(MedtlError, match='acs=True'):
    describe_levels(few(), (80, 80, 80, 3))
  with pytest.raises(MedtlError, match=r"did you mean 'SAME'"):
    inception.inception_v3(PART, padding='SAMES')


def test_acs_kernels_are_those_of_pictures():
  flat, deep = few(padding='SAME'), few(acs=True, padding='SAME')
  chex.assert_trees_all_equal_shapes(
    shapes_of(Net(flat, heads.linear(2)), 1, 32, 40, 3),
    shapes_of(Net(deep, heads.linear(2)), 1, 32, 40, 48, 3),
  )
  assert describe_levels(deep, (32, 40, 80, 3))[-1].sides == (2, 3, 5)


def test_weights_are_cited():
  for entry in inception.WEIGHTS.values():
    assert entry.url.startswith('https://') or entry.page
    assert not entry.sha256 or entry.sha256 in entry.url
