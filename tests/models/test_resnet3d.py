"""MedicalNet's and Merlin's ResNets of volumes on seeded weights (fixtures/make_resnet3d.py)."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.models import Net, heads
from medtl.models.backbones import resnet
from medtl.models.layers.style import Style
from medtl.models.pretrained import checkpoint_files, port
from tests.fixtures import seeded
from tests.models.published import flat_shapes, port_of_shapes, shapes_of

FIXTURES = Path(__file__).parents[1] / 'fixtures'
REFERENCE = np.load(FIXTURES / 'resnet3d.npz')
SIDES = (24, 40, 32)
DILATED = resnet.medicalnet().dilations
HEAD = dict(fresh=('head/.*',))


def backbone(block, depths, form, dilations=(1, 1, 1, 1), dtype=jnp.float32):
  return resnet.ResNet(block, depths, 2, Style(3, dtype=dtype), form, dilations)


def compare(case, net, variables, channels, bound):
  """Assert max |a − b| ≤ bound · max |b| after each stage; return the logits."""
  dtype = net.backbone.style.dtype
  variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
  x = jnp.asarray(seeded.picture(1, *SIDES, channels), dtype)
  names = tuple(f'stage{index}' for index in range(1, 5))

  def run(variables, x):
    value, taken = net.backbone.apply(variables, x, train=False, levels=names)
    return taken, value

  bare = {name: tree['backbone'] for name, tree in variables.items()}
  found, value = jax.jit(run)(bare, x)
  found['stage1'] = found['stage1'][:, ::2, ::2, ::2, ::2]
  for name in names:
    near(found[name][0], REFERENCE[f'{case}/{name}'], bound)
  return value


def near(found, expected, bound):
  assert found.shape == expected.shape
  assert np.abs(np.asarray(found) - expected).max() <= bound * np.abs(expected).max()


MONAI = {
  'A': (resnet.Basic, (2, 1, 1, 1)),
  'B': (resnet.Bottleneck, (1, 2, 1, 1)),
}


@pytest.mark.parametrize(
  ('shortcut', 'dtype', 'bound'),
  [
    ('A', 'float32', 1e-5),
    pytest.param('B', 'float32', 1e-5, marks=pytest.mark.slow),
    pytest.param('B', 'float64', 1e-9, marks=pytest.mark.slow),
  ],
)
def test_features_are_monai_s_with_both_shortcuts(shortcut, dtype, bound):
  with jax.enable_x64(dtype == 'float64'):
    form = resnet.Form(shortcut=shortcut)
    net = Net(backbone(*MONAI[shortcut], form, dtype=jnp.dtype(dtype)), heads.linear(3))
    arrays = seeded.weights(json.loads(str(REFERENCE[f'monai_{shortcut}/shapes'])))
    target = shapes_of(net, 1, *SIDES, 1)
    variables, report = port.port(arrays, target, resnet.RENAMES, **HEAD)
    assert (report.dialect, report.mean, report.std) == ('medicalnet', (0.0,), (1.0,))
    compare(f'monai_{shortcut}', net, variables, 1, bound)


def test_a_file_of_medicalnet_gives_its_features():
  arrays = checkpoint_files.read(FIXTURES / 'medicalnet.pth', resnet.RENAMES)
  form = resnet.medicalnet(18).form
  net = Net(backbone(resnet.Basic, (1, 1, 1, 1), form, DILATED), heads.linear(3))
  variables, report = port.port(arrays, shapes_of(net, 1, *SIDES, 1), resnet.RENAMES, **HEAD)
  assert report.dialect == 'medicalnet'
  assert {name.split('.')[0] for name in report.ignored if 'tracked' not in name} == {'conv_seg'}
  compare('medicalnet_A', net, variables, 1, 1e-5)


@pytest.mark.parametrize(
  ('dtype', 'bound'),
  [('float32', 1e-5), pytest.param('float64', 1e-9, marks=pytest.mark.slow)],
)
def test_dilated_bottlenecks_are_medicalnet_s(dtype, bound):
  with jax.enable_x64(dtype == 'float64'):
    form = resnet.medicalnet(50).form
    dilated = backbone(resnet.Bottleneck, (1, 1, 1, 1), form, DILATED, jnp.dtype(dtype))
    net = Net(dilated, heads.linear(3))
    arrays = seeded.weights(json.loads(str(REFERENCE['medicalnet_B/shapes'])))
    variables, _ = port.port(arrays, shapes_of(net, 1, *SIDES, 1), resnet.RENAMES, **HEAD)
    compare('medicalnet_B', net, variables, 1, bound)


def test_a_file_of_merlin_gives_its_features_and_diagnoses():
  arrays = checkpoint_files.read(FIXTURES / 'merlin.pth', resnet.RENAMES)
  form = resnet.merlin152().form
  net = Net(backbone(resnet.Bottleneck, (1, 1, 1, 1), form), heads.linear(5))
  target = shapes_of(net, 1, *SIDES, 3)
  variables, report = port.port(arrays, target, resnet.RENAMES)
  assert (report.dialect, report.mean, report.std) == ('merlin', (0.0,), (1.0,))
  value = compare('merlin', net, variables, 3, 1e-5)
  dense = variables['params']['head']['dense']
  logits = value.mean((1, 2, 3)) @ dense['kernel'] + dense['bias']
  near(logits[0], REFERENCE['merlin/logits'], 1e-5)


@pytest.mark.parametrize(
  ('depth', 'millions'),  # in MedicalNet's README.md, statistics of norms included
  [
    (10, 14.36),
    (18, 32.99),
    (34, 63.31),
    (50, 46.21),
    pytest.param(101, 85.31, marks=pytest.mark.slow),
    pytest.param(152, 117.51, marks=pytest.mark.slow),
    pytest.param(200, 126.74, marks=pytest.mark.slow),
  ],
)
def test_the_full_size_has_medicalnet_s_arrays_and_number_of_parameters(depth, millions):
  net = Net(resnet.medicalnet(depth), heads.linear(2))
  target = shapes_of(net, 1, 16, 16, 16, 1)
  wanted = {path: shape for path, shape in flat_shapes(target).items() if '/head/' not in path}
  shapes = json.loads(str(REFERENCE[f'medicalnet{depth}/full']))
  found, dropped = port_of_shapes(shapes, target, resnet.RENAMES['medicalnet'])
  assert found == wanted and all(name.endswith('num_batches_tracked') for name in dropped)
  parameters = [math.prod(shape) for path, shape in wanted.items() if path.startswith('params/')]
  assert sum(parameters) == REFERENCE[f'medicalnet{depth}/parameters']
  assert round(sum(map(math.prod, wanted.values())) / 1e6, 2) == millions


@pytest.mark.slow
def test_the_full_size_has_merlin_s_arrays():
  target = shapes_of(Net(resnet.merlin152(), heads.linear(1692)), 1, 16, 32, 32, 3)
  shapes = json.loads(str(REFERENCE['merlin/full']))
  shapes |= {'classifier.weight': (1692, 2048, 1, 1, 1), 'classifier.bias': (1692,)}
  found, _ = port_of_shapes(shapes, target, resnet.RENAMES['merlin'])
  assert found == flat_shapes(target)


def test_a_mean_of_other_channels_than_the_checkpoint_s_is_refused_in_words():
  """As of TorchXRayVision's ResNet-50, which has torchvision's names and sees one channel."""
  shapes = json.loads(str(REFERENCE['monai_B/shapes']))
  arrays = seeded.weights({**shapes, 'fc.weight': (3, 64), 'fc.bias': (3,)})
  net = Net(backbone(*MONAI['B'], resnet.Form()), heads.linear(3))
  target = shapes_of(net, 1, *SIDES, 1)
  with pytest.raises(MedtlError, match=r'pictures of 1, but .* are of 3: set config.mean'):
    port.port(arrays, target, resnet.RENAMES)
  entry = resnet.WEIGHTS['txrv_resnet50']
  _, report = port.port(arrays, target, resnet.RENAMES, mean=entry.mean, std=entry.std)
  assert (report.dialect, report.mean, report.std) == ('torchvision', (0.5,), (1 / 2048,))


def test_depths_that_medicalnet_has_not_are_named():
  with pytest.raises(MedtlError, match='depth=20; MedicalNet has 10, 18, 34'):
    resnet.medicalnet(20)
