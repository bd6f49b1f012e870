"""ResNets against torch, transformers and Keras on seeded weights.

Laws of slices, axes and versions.
"""

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
from medtl.models.backbones import resnet
from medtl.models.layers.spatial import standardise
from medtl.models.layers.style import Style
from medtl.models.pretrained import checkpoint_files, dialects, port
from tests.fixtures import resnet_seeds, seeded

REFERENCE = np.load(Path(__file__).parents[1] / 'fixtures' / 'resnet.npz')
V1, V15 = dict(version='v1'), dict(version='v1.5')
CASES = {
  'torchvision': (lambda dtype: resnet.resnet50(dtype=dtype), 'torchvision', 1.0),
  'hf_v1': (lambda dtype: resnet.resnet50(version='v1', dtype=dtype), 'hf', 1.0),
  'hf_basic': (lambda dtype: resnet.resnet18(width=16, dtype=dtype), 'hf', 1.0),
  'bit_hf': (lambda dtype: resnet.bit50(width=32, dtype=dtype), 'bit_hf', 100.0),
  'keras': (
    lambda dtype: resnet.resnet50(version='v1', bias=True, epsilon=1.001e-5, dtype=dtype),
    'keras',
    1.0,
  ),
}


def published(case, gain=1.0):
  shapes = json.loads(str(REFERENCE[f'{case}/shapes']))
  return (
    resnet_seeds.keras_weights(shapes)
    if case == 'keras'
    else resnet_seeds.torch_weights(shapes, gain)
  )


def shapes_of(net, *shape):
  return jax.eval_shape(lambda key: net.init(key, jnp.zeros(shape), train=False), jax.random.key(0))


def outputs(net, variables, x):
  """Each stage's maps, and the logits, from slices of one stage."""

  def run(variables, x):
    value, found = x, []
    for i in range(net.backbone.stages + 1):
      value = net.apply(variables, value, start_child=i, end_child=i + 1, method='features')
      found.append(value)
    return found[1:], net.apply(variables, x, train=False)

  return jax.jit(run)(variables, x)


def compare(case, dtype, tolerances):
  """Assert max |a − b| ≤ tolerance · max |b| after each stage and for the logits."""
  factory, dialect, gain = CASES[case]
  classes = len(REFERENCE[f'{case}/logits'])
  net = Net(factory(dtype), heads.linear(classes))
  variables, report = port.port(published(case, gain), shapes_of(net, 1, 32, 32, 3), resnet.RENAMES)
  assert report.dialect == dialect and not report.fresh
  x = seeded.picture(*resnet_seeds.SIZE)
  x = x[..., ::-1] if case == 'keras' else x  # ours takes RGB, theirs BGR
  stages, logits = outputs(
    net, jax.tree.map(lambda leaf: leaf.astype(dtype), variables), jnp.asarray(x, dtype)
  )
  assert logits.dtype == dtype
  ours = [resnet_seeds.pick(np.asarray(y[0])) for y in stages] + [np.asarray(logits[0])]
  theirs = [REFERENCE[f'{case}/stage{i}'] for i in range(1, 5)] + [REFERENCE[f'{case}/logits']]
  for a, b, tolerance in zip(ours, theirs, tolerances, strict=True):
    chex.assert_equal_shape((a, b))
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize('case', [case for case in CASES if case != 'bit_hf'])
def test_parity_in_float32(case):
  compare(
    case, jnp.float32, (1e-5, 1e-5, 2e-5, 2e-5, 2e-5)
  )  # from stage 3 on the ResNet-50s are deeper than 20 layers


@pytest.mark.parametrize('case', ['torchvision', 'bit_hf'])
def test_parity_in_float64_tells_a_wrong_epsilon_from_rounding(case):
  with jax.enable_x64(True):
    compare(case, jnp.float64, (1e-9,) * 5)


def test_versions_differ_in_stride_alone():
  x = jnp.asarray(seeded.picture(1, 64, 64, 3))
  nets = [Net(resnet.resnet50(width=4, **version), heads.linear(2)) for version in (V1, V15)]
  first, second = (shapes_of(net, *x.shape) for net in nets)
  chex.assert_trees_all_equal_shapes(first, second)
  arrays = pytrees.unflatten(
    seeded.weights({path: leaf.shape for path, leaf in pytrees.flatten(first).items()})
  )
  a, b = (
    jax.jit(lambda x, net=net: net.apply(arrays, x, end_child=3, method='features'))(x)
    for net in nets
  )
  chex.assert_shape((a, b), (1, 8, 8, 32))
  assert jnp.abs(a - b).max() > 1e-2


@pytest.mark.parametrize('ndim, shape', [(1, (64,)), (2, (64, 32)), (3, (32, 32, 64))])
def test_one_class_in_one_two_and_three_dimensions(ndim, shape):
  backbone = resnet.resnet18(ndim=ndim, width=4)
  found = jax.eval_shape(
    lambda key: backbone.init_with_output(key, jnp.zeros((2, *shape, 1)), train=False),
    jax.random.key(0),
  )
  chex.assert_shape(found[0], (2, *(side // 32 for side in shape), backbone.channels))
  chex.assert_shape(found[1]['params']['stem']['conv']['kernel'], ((7,) * ndim) + (1, 4))


def test_a_volume_that_is_the_same_along_an_axis_is_a_picture():
  """A 3-D net with 2-D kernels in its middle planes sees each plane as the 2-D net does."""
  flat, deep = (resnet.Bottleneck(4, 1, 1, resnet.Form(), Style(ndim=ndim)) for ndim in (2, 3))
  x = jnp.asarray(seeded.picture(2, 8, 8, 6))
  variables = jax.jit(lambda key: flat.init(key, x, False))(jax.random.key(0))
  middle = {1: lambda k: k[None], 3: lambda k: jnp.zeros((3, *k.shape)).at[1].set(k)}
  lifted = pytrees.unflatten(
    {
      path: middle[leaf.shape[0]](leaf) if leaf.ndim == 4 else leaf
      for path, leaf in pytrees.flatten(variables).items()
    }
  )
  volume = jnp.repeat(x[:, None], 4, axis=1)
  a, b = jax.jit(lambda: (flat.apply(variables, x, False), deep.apply(lifted, volume, False)))()
  chex.assert_trees_all_close(b, jnp.repeat(a[:, None], 4, axis=1), atol=1e-5)


def test_standardised_kernels_have_mean_zero_and_variance_one():
  kernel = standardise(jnp.asarray(np.random.RandomState(0).randn(3, 3, 4, 5) * 7 + 2))
  np.testing.assert_allclose(kernel.mean((0, 1, 2)), 0, atol=1e-6)
  np.testing.assert_allclose(kernel.var((0, 1, 2)), 1, rtol=1e-5)


def test_unknown_versions_and_norms_name_the_right_ones():
  with pytest.raises(MedtlError, match=r"'v2'.*v1, v1.5"):
    resnet.resnet50(version='v2')
  with pytest.raises(MedtlError, match=r"did you mean 'group'"):
    resnet.resnet18(norm='groups')
  with pytest.raises(MedtlError, match='ndim=4'):
    resnet.bit50(ndim=4)


def torchvision_names(depths, basic=False):
  """The names of a torchvision state dict, by torchvision/models/resnet.py."""
  convs = 2 if basic else 3
  names = ['conv1.weight', 'fc.weight', 'fc.bias', *batch_norm('bn1')]
  for stage, depth in enumerate(depths, 1):
    for block in range(depth):
      where = f'layer{stage}.{block}'
      names += [
        name
        for i in range(1, convs + 1)
        for name in (f'{where}.conv{i}.weight', *batch_norm(f'{where}.bn{i}'))
      ]
      if block == 0 and not (basic and stage == 1):
        names += [f'{where}.downsample.0.weight', *batch_norm(f'{where}.downsample.1')]
  return names


def batch_norm(name):
  return [
    f'{name}.{leaf}'
    for leaf in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
  ]


def keras_2015_names():
  names = [
    'conv1/kernel',
    'conv1/bias',
    'fc1000/kernel',
    'fc1000/bias',
    *[f'bn_conv1/{leaf}' for leaf in KERAS_NORM],
  ]
  for stage, letters in zip((2, 3, 4, 5), ('abc', 'abcd', 'abcdef', 'abc'), strict=True):
    for letter in letters:
      branches = ['2a', '2b', '2c'] + (['1'] if letter == 'a' else [])
      names += [
        f'res{stage}{letter}_branch{branch}/{leaf}'
        for branch in branches
        for leaf in ('kernel', 'bias')
      ]
      names += [
        f'bn{stage}{letter}_branch{branch}/{leaf}' for branch in branches for leaf in KERAS_NORM
      ]
  return names


KERAS_NORM = ('gamma', 'beta', 'moving_mean', 'moving_variance')


def bit_names(depths):
  """The names of BiT's .npz files, by bit_pytorch/models.py of google-research/big_transfer."""
  names = [
    'resnet/root_block/standardized_conv2d/kernel',
    'resnet/head/conv2d/kernel',
    'resnet/head/conv2d/bias',
    'resnet/group_norm/gamma',
    'resnet/group_norm/beta',
  ]
  for stage, depth in enumerate(depths, 1):
    for unit in range(1, depth + 1):
      where = f'resnet/block{stage}/unit{unit:02d}'
      names += [
        f'{where}/{letter}/{leaf}'
        for letter in 'abc'
        for leaf in ('standardized_conv2d/kernel', 'group_norm/gamma', 'group_norm/beta')
      ]
      names += [f'{where}/a/proj/standardized_conv2d/kernel'] if unit == 1 else []
  return names


def bit_timm_names(depths):
  names = ['stem.conv.weight', 'norm.weight', 'norm.bias', 'head.fc.weight', 'head.fc.bias']
  for stage, depth in enumerate(depths):
    for block in range(depth):
      where = f'stages.{stage}.blocks.{block}'
      names += [
        f'{where}.{leaf}'
        for i in (1, 2, 3)
        for leaf in (f'conv{i}.weight', f'norm{i}.weight', f'norm{i}.bias')
      ]
      names += [f'{where}.downsample.conv.weight'] if block == 0 else []
  return names


@pytest.mark.parametrize(
  'dialect, names, factory',
  [
    ('torchvision', torchvision_names((2, 2, 2, 2), basic=True), lambda: resnet.resnet18(width=4)),
    ('torchvision', torchvision_names((3, 8, 36, 3)), lambda: resnet.resnet152(width=4)),
    ('keras_2015', keras_2015_names(), lambda: resnet.resnet50(version='v1', bias=True, width=4)),
    ('bit', bit_names((3, 4, 6, 3)), lambda: resnet.bit50(width=4)),
    ('bit', bit_names((3, 4, 23, 3)), lambda: resnet.bit101(width=4)),
    ('bit_timm', bit_timm_names((3, 4, 6, 3)), lambda: resnet.bit50(width=4)),
  ],
)
def test_published_names_are_ours_one_to_one(dialect, names, factory):
  net = Net(factory(), heads.linear(7))
  wanted = set(pytrees.flatten(shapes_of(net, 1, 32, 32, 3)))
  arrays = {name: np.zeros((2, 2)) for name in names}
  pieces, ignored = dialects.renamed(arrays, resnet.RENAMES[dialect], ())
  assert sorted(piece.path for piece in pieces) == sorted(wanted)
  assert all(name.endswith('num_batches_tracked') for name in ignored)


def test_weights_are_cited():
  for entry in resnet.WEIGHTS.values():
    assert (entry.url or entry.page).startswith('https://') and 'github.com' in entry.note
    assert not entry.sha256 or entry.sha256 in entry.url


@pytest.mark.real
@pytest.mark.slow
def test_real_weights_know_a_cat_and_a_cup(real):
  from skimage import data, transform

  arrays = checkpoint_files.read(real / 'weights' / 'resnet50_keras_imagenet_fp16.npz')
  net = Net(resnet.resnet50(version='v1', bias=True, epsilon=1e-3), heads.linear(1000))
  variables, report = port.port(arrays, shapes_of(net, 1, 224, 224, 3), resnet.RENAMES)
  net = net.clone(mean=report.mean, std=report.std)
  pictures = [
    transform.resize(getattr(data, name)(), (224, 224), anti_aliasing=True)
    for name in ('chelsea', 'coffee')
  ]
  chance = jax.nn.softmax(
    jax.jit(lambda x: net.apply(variables, x, train=False))(
      jnp.asarray(np.stack(pictures), jnp.float32)
    )
  )
  cat, cup = np.asarray(chance)
  assert cat.argmax() in range(281, 286) and cat[281:286].sum() > 0.9
  assert cup.argmax() == 967 and cup[967] > 0.9
