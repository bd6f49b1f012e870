"""DenseNets against torchvision, Keras, MONAI and TorchXRayVision on seeded weights."""

import functools
import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.models import Net, describe_levels, heads
from medtl.models.backbones import densenet
from medtl.models.pretrained import checkpoint_files, find_network, port
from medtl.models.pretrained.densenet import CHEST_LABELS
from tests.fixtures import conv_seeds, seeded

FIXTURES = Path(__file__).parents[1] / 'fixtures'
REFERENCE = np.load(FIXTURES / 'densenet.npz')
SMALL = dict(depths=conv_seeds.DEPTHS, growth=8, width=16)
CASES = {
  'torchvision': ('torchvision', SMALL, (*conv_seeds.PICTURE, 3)),
  'keras': ('keras', dict(depths=SMALL['depths'], epsilon=1.001e-5), (*conv_seeds.PICTURE, 3)),
  'monai2': ('monai', SMALL, (*conv_seeds.PICTURE, 1)),
  'monai3': ('monai', {**SMALL, 'ndim': 3}, (*conv_seeds.VOLUME, 1)),
}


def shapes_of(net, *shape):
  return jax.eval_shape(lambda key: net.init(key, jnp.zeros(shape), train=False), jax.random.key(0))


def outputs(net, variables, x):
  """Return each stage's maps, and the logits."""
  names = [f'stage{stage}' for stage in range(1, 5)]

  def run(variables, x):
    bare = {name: tree['backbone'] for name, tree in variables.items()}
    value, taken = net.backbone.apply(bare, x, train=False, levels=names)
    logits = net.apply(variables, value, train=False, start_child=5)
    return [taken[name] for name in names], logits

  return jax.jit(run)(variables, x)


def compare(case, net, variables, x, tolerance):
  """Assert max |a − b| ≤ tolerance · max |b| after each stage and for the logits."""
  stages, logits = outputs(net, variables, x)
  ours = [conv_seeds.pick(np.asarray(y[0])) for y in stages] + [np.asarray(logits[0])]
  theirs = [REFERENCE[f'{case}/{name}'] for name in ('stage1', 'stage2', 'stage3', 'stage4')]
  for a, b in zip(ours, [*theirs, REFERENCE[f'{case}/logits']], strict=True):
    chex.assert_equal_shape((a, b))
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize(
  ('case', 'dtype', 'tolerance'),
  [
    *((case, 'float32', 1e-5) for case in CASES),
    pytest.param('torchvision', 'float64', 1e-9, marks=pytest.mark.slow),
  ],
)
def test_parity(case, dtype, tolerance):
  dialect, keys, size = CASES[case]
  arrays = conv_seeds.weights(json.loads(str(REFERENCE[f'{case}/shapes'])), case == 'keras')
  with jax.enable_x64(dtype == 'float64'):
    backbone = densenet.densenet121(**keys, dtype=jnp.dtype(dtype))
    net = Net(backbone, heads.linear(len(REFERENCE[f'{case}/logits'])))
    grey = dict(mean=(0.5,), std=(0.5,)) if size[-1] == 1 else {}  # no publisher says them
    variables, report = port.port(arrays, shapes_of(net, *size), densenet.RENAMES, **grey)
    assert report.dialect == dialect and not report.fresh
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    compare(case, net, variables, jnp.asarray(seeded.picture(*size), dtype), tolerance)


def test_a_pickled_module_of_torchxrayvision_is_read():
  """Its operating points are left out; the net normalises to −1024 … 1024 by itself."""
  entry = densenet.WEIGHTS['xrv_densenet121_all']
  arrays = checkpoint_files.read(FIXTURES / 'densenet_xrv.pt', densenet.RENAMES)
  net = Net(
    densenet.densenet121(depths=SMALL['depths'], growth=4, width=8), heads.linear(entry.classes)
  )
  size = (*conv_seeds.PICTURE, entry.channels)
  variables, report = port.port(
    arrays, shapes_of(net, *size), densenet.RENAMES, mean=entry.mean, std=entry.std
  )
  left_out = [name for name in report.ignored if not name.endswith('num_batches_tracked')]
  assert left_out == ['op_threshs']
  compare('xrv', net, variables, jnp.asarray(seeded.picture(*size)), 1e-5)
  net = net.clone(mean=report.mean, std=report.std)
  normalise = lambda x: net.apply(variables, x, end_child=0, method='features')
  pictures = jnp.asarray([[[0.0, 0.5, 1.0]]])[..., None]
  np.testing.assert_allclose(normalise(pictures).ravel(), [-1024, 0, 1024])


PUBLISHED = json.loads(str(REFERENCE['published']))
COUNTS = {121: (7978856, 8062504), 161: (28681000, 28900936), 169: (14149480, 14307880)}
COUNTS[201] = (20013928, 20242984)  # parameters, and with the statistics of norms


@functools.cache
def whole(depth):
  """Return the shapes of a DenseNet of the published size."""
  net = Net(getattr(densenet, f'densenet{depth}')(), heads.linear(1000))
  return shapes_of(net, 1, 64, 64, 3)


@pytest.mark.parametrize(
  'depth', [121, *(pytest.param(n, marks=pytest.mark.slow) for n in (161, 169, 201))]
)
def test_published_names_shapes_and_counts(depth):
  target = whole(depth)
  sizes = {path: leaf.size for path, leaf in pytrees.flatten(target).items()}
  parameters = sum(size for path, size in sizes.items() if path.startswith('params/'))
  assert (parameters, sum(sizes.values())) == COUNTS[depth]
  for publisher in ('torchvision', 'keras'):
    if f'{publisher}{depth}' in PUBLISHED:
      fits(PUBLISHED[f'{publisher}{depth}'], publisher, target)


def fits(shapes, dialect, target, without=()):
  """Assert that arrays of these names and shapes port, and that the dialect is the first to do."""
  arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  grey = {}
  if pytrees.flatten(target)['params/backbone/stem/conv/kernel'].shape[-2] == 1:
    grey = dict(mean=(0.5,), std=(0.5,))  # no publisher of these names says them
  ported, report = port.port(arrays, target, densenet.RENAMES, fresh=without, **grey)
  assert report.dialect == dialect
  assert set(pytrees.flatten(ported)) | set(report.fresh) == set(pytrees.flatten(target))


def dotted(names):
  """Return the names as torchvision's files and CheXNet's have them."""
  for name in names:
    parent, _, leaf = name.rpartition('.')
    if 'denselayer' in parent:
      parent = f'{parent[:-1]}.{parent[-1]}'
    if not leaf.startswith('num_'):
      yield name, f'{parent}.{leaf}'


def test_names_of_other_publishers_are_ours():
  shapes = PUBLISHED['torchvision121']
  target = whole(121)
  old = {theirs: shapes[name] for name, theirs in dotted(shapes)}
  assert 'features.denseblock4.denselayer16.norm.2.running_var' in old
  fits(old, 'torchvision', target)
  chexnet = {name.replace('classifier.', 'classifier.0.'): shape for name, shape in old.items()}
  fits(chexnet, 'torchvision', target)
  wrapped = find_network.choose([f'module.densenet121.{name}' for name in old], densenet.RENAMES)
  assert wrapped.prefix == 'module.densenet121.'
  body = {name: shape for name, shape in shapes.items() if name.startswith('features.')}
  radimagenet = {name.replace('features.', '0.'): shape for name, shape in body.items()}
  fits(radimagenet, 'sequential', target, ['head/.*'])
  no_top = {name: s for name, s in PUBLISHED['keras121'].items() if 'predictions' not in name}
  fits(no_top, 'keras', target, ['head/.*'])


@pytest.mark.slow
def test_names_of_grey_pictures_and_volumes_are_ours():
  for name, keys, size, classes in (
    ('xrv121', {}, (1, 64, 64, 1), 18),
    ('monai121', dict(ndim=3), (1, 32, 32, 32, 1), 2),
  ):
    net = Net(densenet.densenet121(**keys), heads.linear(classes))
    dialect = 'monai' if keys else 'torchvision'
    fits(PUBLISHED[name], dialect, shapes_of(net, *size))


def test_acs_kernels_are_those_of_pictures():
  keys = dict(depths=(1, 2), growth=4, width=8)
  flat, deep = densenet.densenet121(**keys), densenet.densenet121(**keys, ndim=3, acs=True)
  chex.assert_trees_all_equal_shapes(
    shapes_of(Net(flat, heads.linear(2)), 1, 32, 32, 3),
    shapes_of(Net(deep, heads.linear(2)), 1, 32, 32, 32, 3),
  )
  assert [level.sides for level in describe_levels(deep, (32, 48, 64, 3))][1:] == [
    (8, 12, 16),
    (4, 6, 8),
  ]


def test_dropout_is_of_what_layers_add_and_for_training_alone():
  backbone = densenet.densenet121(depths=(2,), growth=4, width=8, dropout=0.9)
  x = jnp.asarray(seeded.picture(2, 32, 32, 3))
  variables = jax.jit(lambda key: backbone.init(key, x, train=False))(jax.random.key(0))

  @jax.jit
  def run(seed):
    dropped, _ = backbone.apply(
      variables, x, train={'stage1'}, rngs={'dropout': jax.random.key(seed)}, mutable=True
    )
    return dropped

  assert not np.array_equal(run(0), run(1))


def test_weights_are_cited():
  assert len(CHEST_LABELS) == 18
  for entry in densenet.WEIGHTS.values():
    assert entry.url.startswith('https://') or entry.page
    assert not entry.sha256 or entry.sha256 in entry.url
