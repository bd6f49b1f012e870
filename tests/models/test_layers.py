"""Each lowering equals Linen's own function in value and gradient, or PyTorch's in value.

PyTorch's numbers are of fixtures/make_layers.py.
"""

import json
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.models.layers import convolution, spatial
from medtl.models.layers.activation import gelu, hard_swish, joined, relu, relu6, silu
from medtl.models.layers.batch_norm import BatchNorm
from medtl.models.layers.layer_norm import LayerNorm
from medtl.models.layers.matmul import biased, product
from medtl.models.layers.transformer import attend
from tests.fixtures import seeded

TORCH = np.load(Path(__file__).parents[1] / 'fixtures' / 'layers.npz')


def numbers(*shape, seed=0):
  return jnp.asarray(np.random.RandomState(seed).randn(*shape), jnp.float32)


def same(f, g, *arguments, tolerance=1e-5):
  """Assert equal values, and equal gradients of a weighted sum."""
  weight = numbers(*jax.eval_shape(f, *arguments).shape, seed=1)
  both = [
    jax.jit(
      lambda *a, h=h: (
        h(*a),
        jax.grad(lambda *b: jnp.sum(weight * h(*b)), argnums=tuple(range(len(a))))(*a),
      )
    )(*arguments)
    for h in (f, g)
  ]
  for a, b in zip(*map(jax.tree.leaves, both), strict=True):
    np.testing.assert_allclose(
      np.float32(a), np.float32(b), rtol=0, atol=tolerance * float(jnp.abs(b).max())
    )


@pytest.mark.parametrize(
  'kernel, stride',
  [
    ((1, 1), 1),
    ((1, 1), 2),
    ((3, 3), 1),
    ((3, 3), 2),
    ((7, 7), 2),
    ((3,), 2),
    ((1, 1, 1), 2),
    ((3, 3, 3), 1),
  ],
)
def test_conv_is_linens(kernel, stride):
  x = numbers(2, *(7, 8, 6)[: len(kernel)], 4)
  ours = spatial.Conv(5, kernel, stride, bias=True)
  theirs = nn.Conv(5, kernel, stride, padding=[(k // 2, k // 2) for k in kernel])
  params = theirs.init(jax.random.key(0), x)['params']
  params['bias'] = numbers(5)
  assert jax.tree.structure(ours.init(jax.random.key(0), x)['params']) == jax.tree.structure(params)
  same(
    lambda p, x: ours.apply({'params': p}, x),
    lambda p, x: theirs.apply({'params': p}, x),
    params,
    x,
  )


PADDINGS = [  # of ours, and what Linen calls it; the kernel, its stride and its dilation
  (None, [(2, 2), (2, 2)], 3, 1, 2),
  (0, [(0, 0), (0, 0)], 4, 1, 1),
  (2, [(2, 2), (2, 2)], 3, 2, 1),
  ('SAME', 'SAME', 3, 1, 2),
  ('VALID', 'VALID', 4, 3, 1),
]


@pytest.mark.parametrize(('padding', 'theirs', 'size', 'stride', 'dilation'), PADDINGS)
def test_convolutions_are_linens_with_each_padding(padding, theirs, size, stride, dilation):
  x = numbers(2, 9, 8, 4)
  ours = spatial.Conv(5, (size, size), stride, padding=padding, dilation=dilation)
  conv = nn.Conv(5, (size, size), stride, theirs, kernel_dilation=dilation, use_bias=False)
  params = conv.init(jax.random.key(0), x)
  same(ours.apply, conv.apply, params, x)


def test_a_stride_of_each_axis_is_linens():
  x = numbers(2, 5, 8, 9, 3)
  ours = spatial.Conv(4, (3, 5, 5), (1, 2, 2))
  conv = nn.Conv(4, (3, 5, 5), (1, 2, 2), [(1, 1), (2, 2), (2, 2)], use_bias=False)
  params = conv.init(jax.random.key(0), x)
  same(ours.apply, conv.apply, params, x)


EDGES = pytest.mark.parametrize(  # as PADDINGS, of windows that are not dilated
  ('padding', 'theirs', 'size', 'stride'),
  [
    (None, [(1, 1), (1, 1)], 3, 2),
    (0, [(0, 0), (0, 0)], 2, 2),
    (2, [(2, 2), (2, 2)], 4, 1),
    ('SAME', 'SAME', 3, 2),
    ('VALID', 'VALID', 3, 2),
  ],
)


@EDGES
def test_depthwise_convolutions_are_linens_with_each_padding(padding, theirs, size, stride):
  x = numbers(2, 9, 8, 4)
  ours = spatial.Depthwise((size, size), stride, padding=padding)
  conv = nn.Conv(4, (size, size), stride, theirs, feature_group_count=4, use_bias=False)
  params = conv.init(jax.random.key(0), x)
  same(ours.apply, conv.apply, params, x)


PLANES = list(enumerate(json.loads(str(TORCH['planes']))))


@pytest.mark.parametrize(('index', 'case'), PLANES)
def test_kernels_of_pictures_convolve_volumes_plane_by_plane(index, case):
  """Against three conv3d of PyTorch, each of kernels of which one plane is there."""
  size, stride, padding, dilation, outputs = case
  x = seeded.picture(1, 9, 8, 11, 2)
  kernel = seeded.picture(size, size, 2, outputs, seed=2)
  conv = spatial.Conv(outputs, (size, size), stride, padding=padding, dilation=dilation)
  found = conv.apply({'params': {'kernel': kernel}}, x)
  chex.assert_equal_shape((found, TORCH[f'planes{index}']))
  np.testing.assert_allclose(found, TORCH[f'planes{index}'], rtol=0, atol=1e-4)


def test_channels_see_volumes_plane_by_plane_too():
  """A third of the channels sees the planes across each axis, as dense kernels would."""
  x = numbers(1, 4, 5, 6, 7)
  kernel = numbers(3, 3, 1, 7, seed=2)
  found = spatial.Depthwise((3, 3)).apply({'params': {'kernel': kernel}}, x)
  dense = kernel * jnp.eye(7)
  expected = spatial.Conv(7, (3, 3)).apply({'params': {'kernel': dense}}, x)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


DTYPES = pytest.mark.parametrize(
  'dtype, tolerance', [('float32', 1e-5), ('bfloat16', 2e-2)]
)  # what may differ, of the largest


@DTYPES
@pytest.mark.parametrize(
  'taps, stride, sides, channels, padding',
  [
    ((3, 3), 1, (9, 8), 40, 'SAME'),
    ((2, 2), 2, (8, 8), 70, [(1, 1), (0, 0)]),
    ((3, 3), 1, (70, 3), 3, 'VALID'),
    ((3, 3), 2, (9, 8), 40, 'SAME'),
    ((3, 3), 2, (8, 9), 40, [(1, 1), (1, 1)]),
    ((2,), 3, (11,), 200, [(0, 1)]),
    ((5,), 3, (11,), 90, 'VALID'),
    ((1, 1), 2, (7, 8), 300, [(1, 0), (0, 1)]),
    ((3, 2, 3), 2, (5, 6, 7), 30, [(1, 1), (0, 1), (2, 0)]),
    ((1, 3, 3), 1, (4, 6, 5), 8, [(0, 0), (1, 1), (1, 1)]),
    ((3, 1, 1), 3, (7, 6, 5), 8, 'SAME'),
    ((7, 7), 2, (12, 9), 3, 'SAME'),
    ((3, 4), 1, (3, 4), 30, 'VALID'),  # of the whole maps, a dense layer
    ((5,), 1, (5,), 3, [(0, 0)]),
  ],
)
def test_convolutions_and_their_gradients_are_those_of_xla_in_float32(
  taps, stride, sides, channels, padding, dtype, tolerance
):
  """Kernels of many and of few channels, and pads that differ.

  Phases that see no tap, and sides that the stride does not divide.
  """
  x, kernel = (
    leaf.astype(dtype) for leaf in (numbers(2, *sides, channels), numbers(*taps, channels, 5))
  )
  axes = 'DHW'[-len(taps) :]
  same(
    lambda x, k: convolution.convolve(x, k, stride, padding),
    lambda x, k: jax.lax.conv_general_dilated(
      x.astype('float32'),
      k.astype('float32'),
      (stride,) * len(taps),
      padding,
      dimension_numbers=(f'N{axes}C', f'{axes}IO', f'N{axes}C'),
    ),
    x,
    kernel,
    tolerance=tolerance,
  )


@DTYPES
@pytest.mark.parametrize('way', ['pieces', 'whole'])
@pytest.mark.parametrize('rows', [(3, 7), (4, 1200), (1, 1), (1, 197)])
def test_product_and_bias_have_the_gradients_of_a_matrix_product(dtype, tolerance, way, rows):
  x, kernel, bias = (
    leaf.astype(dtype) for leaf in (numbers(*rows, 6), numbers(6, 5, seed=2), numbers(5, seed=3))
  )
  same(
    lambda x, k, b: biased(product(way, x, k), b),
    lambda x, k, b: x.astype('float32') @ k.astype('float32') + b,
    x,
    kernel,
    bias,
    tolerance=tolerance,
  )


@pytest.mark.parametrize('sign', [-1, 1])
def test_the_end_of_a_residual_block_is_the_relu_of_a_sum_in_either_branch(sign):
  x, shortcut = numbers(2, 3, 4), sign * jnp.abs(numbers(2, 3, 4, seed=2))
  same(joined, lambda x, shortcut: nn.relu(x + shortcut), x, shortcut)


@DTYPES
def test_gelu_is_linens_without_the_tanh(dtype, tolerance):
  x = jnp.concatenate([jnp.linspace(-12, 12, 500), numbers(100)]).astype(dtype)
  same(gelu, lambda x: nn.gelu(x.astype('float32'), approximate=False), x, tolerance=tolerance / 4)
  assert (
    gelu(x).dtype == x.dtype and abs(float(gelu(jnp.float32(1.0))) - 0.8413447) < 1e-6
  )  # Φ(1), from tables


@DTYPES
@pytest.mark.parametrize('ours, theirs', [(silu, nn.silu), (hard_swish, nn.hard_swish)])
def test_silu_and_hard_swish_are_linens(ours, theirs, dtype, tolerance):
  """But for the points where a hard swish bends."""
  x = jnp.concatenate([jnp.linspace(-11.9, 12, 500), numbers(100)]).astype(dtype)
  x = x[jnp.abs(jnp.abs(x) - 3) > 0]
  same(ours, lambda x: theirs(x.astype('float32')), x, tolerance=tolerance)
  assert ours(x).dtype == x.dtype


@DTYPES
@pytest.mark.parametrize('loud', [1, 30])
def test_attention_is_linens(dtype, tolerance, loud):
  """With logits up to hundreds too; heads before tokens."""
  query, key, value = (
    (numbers(2, 3, 7, 8, seed=seed) * scale).astype(dtype)
    for seed, scale in ((0, loud), (2, 1), (3, 1))
  )
  turned = lambda x: jnp.swapaxes(x.astype('float32'), 1, 2)
  same(
    attend,
    lambda q, k, v: turned(nn.dot_product_attention(*map(turned, (q, k, v)))),
    query,
    key,
    value,
    tolerance=tolerance * (1 if dtype == 'float32' else 2),
  )


def test_attention_in_windows_with_a_bias_is_linens():
  """Linen wants one batch axis: each window is an example of its own there."""
  query, key, value = (numbers(2, 3, 4, 5, 6, seed=seed) for seed in (0, 2, 3))
  bias = numbers(3, 1, 5, 5, seed=4)

  def by_linen(query, key, value, bias):
    flat = lambda x: jnp.swapaxes(x.reshape(6, 4, 5, 6), 1, 2)
    biases = jnp.tile(bias, (2, 4, 1, 1))
    y = nn.dot_product_attention(flat(query), flat(key), flat(value), bias=biases)
    return jnp.swapaxes(y, 1, 2).reshape(query.shape)

  same(attend, by_linen, query, key, value, bias)


@pytest.mark.parametrize('far', [0.0, 90.0])
def test_layer_norm_is_linens(far):
  x = numbers(4, 9, 48) * 2 + far
  params = {'scale': numbers(48, seed=2), 'bias': numbers(48, seed=3)}
  ours, theirs = LayerNorm(1e-5), nn.LayerNorm(1e-5, use_fast_variance=False)
  assert jax.tree.structure(ours.init(jax.random.key(0), x)['params']) == jax.tree.structure(params)
  same(
    lambda p, x: ours.apply({'params': p}, x),
    lambda p, x: theirs.apply({'params': p}, x),
    params,
    x,
    tolerance=2e-5,
  )


def test_relu6_has_no_gradient_at_its_ends():
  x = jnp.asarray([-1.0, 0.0, 3.0, 6.0, 7.0])
  np.testing.assert_array_equal(relu6(x), [0, 0, 3, 6, 6])
  np.testing.assert_array_equal(jax.grad(lambda x: relu6(x).sum())(x), [0, 0, 1, 0, 0])


@DTYPES
@pytest.mark.parametrize('shape', [(9,), (8, 7), (6, 5, 8)])
def test_max_pool_is_linens(shape, dtype, tolerance):
  n, size = len(shape), 2 * 3 * np.prod(shape)
  bits = np.random.RandomState(0).permutation(np.arange(size, dtype='u2')) + np.uint16(
    0x3C00
  )  # no two numbers equal, in bfloat16 too
  x = jnp.asarray(bits.view(jnp.bfloat16).reshape(2, *shape, 3), dtype)
  same(
    spatial.max_pool,
    lambda x: nn.max_pool(x, (3,) * n, (2,) * n, [(1, 1)] * n),
    x,
    tolerance=tolerance,
  )


@EDGES
def test_pools_are_linens_with_each_padding(padding, theirs, size, stride):
  x = numbers(2, 9, 8, 3)
  keys = dict(window_shape=(size, size), strides=(stride, stride), padding=theirs)
  found = spatial.max_pool(x, size, stride, padding=padding)
  np.testing.assert_array_equal(found, nn.max_pool(x, **keys))
  for counted in (True, False):
    found = spatial.mean_pool(x, size, stride, padding, counted)
    expected = nn.avg_pool(x, **keys, count_include_pad=counted)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('shape', [(9,), (6, 5, 8)])
def test_mean_pool_is_linens_for_other_axes_and_sums_half_precision_in_float32(shape):
  n = len(shape)
  x = numbers(2, *shape, 3).astype('bfloat16')
  found = spatial.mean_pool(x, 3, 2, count_padding=False)
  whole = x.astype('float32')
  expected = nn.avg_pool(whole, (3,) * n, (2,) * n, [(1, 1)] * n, count_include_pad=False)
  np.testing.assert_array_equal(found, expected.astype('bfloat16'))


ADAPTIVE = list(enumerate(json.loads(str(TORCH['adaptive']))))


@pytest.mark.parametrize(('index', 'case'), ADAPTIVE)
def test_adaptive_mean_pool_is_pytorch_s(index, case):
  sides, wanted = case
  found = spatial.adaptive_mean_pool(seeded.picture(2, *sides, 3), wanted)
  chex.assert_equal_shape((found, TORCH[f'adaptive{index}']))
  np.testing.assert_allclose(found, TORCH[f'adaptive{index}'], rtol=0, atol=1e-6)


def test_max_pool_with_zeros_around():
  x = -jnp.abs(numbers(1, 4, 4, 1)) - 1
  y = spatial.max_pool(x, fill=0.0)
  assert y[0, 0, 0, 0] == 0 and y[0, 1, 1, 0] == x[0, 1:4, 1:4, 0].max()


@pytest.mark.parametrize('train', [False, True])
def test_batch_norm_is_linens_and_keeps_its_statistics_when_it_is_told_to(train):
  class Both(nn.Module):
    @nn.compact
    def __call__(self, x):
      return spatial.norm(x, train, 'a', 'batch', 1e-3), nn.BatchNorm(
        not train, momentum=0.9, epsilon=1e-3, name='b'
      )(x)

  x = numbers(4, 5, 3) + 2
  variables = Both().init(jax.random.key(0), x)
  (a, b), changed = jax.jit(
    lambda variables, x: Both().apply(variables, x, mutable=['batch_stats'])
  )(variables, x)
  np.testing.assert_array_equal(a, b)
  moved = [
    float(jnp.abs(p - q).max())
    for p, q in zip(
      *(jax.tree.leaves(v['batch_stats']['a']) for v in (changed, variables)), strict=True
    )
  ]
  assert (min(moved) > 0) == train and (max(moved) > 0) == train


def test_group_norm_of_each_example_has_mean_zero_and_variance_one():
  class Group(nn.Module):
    @nn.compact
    def __call__(self, x):
      return spatial.norm(x, True, 'a', 'group')

  x = numbers(2, 9, 64) * 3 + 50
  y = Group().apply(Group().init(jax.random.key(0), x), x).reshape(2, 9, 32, 2)
  np.testing.assert_allclose(y.mean((1, 3)), 0, atol=1e-4)
  np.testing.assert_allclose(y.var((1, 3)), 1, atol=1e-3)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_batch_norm_is_linens(dtype):
  """Values, statistics and gradients, of maps whose mean lies far from zero.

  With running averages too.
  """
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(3, 2, (4, 6, 5, 8)), dtype)
  ours, theirs = (
    kind(momentum=0.9, epsilon=1e-5, dtype=jnp.dtype(dtype)) for kind in (BatchNorm, nn.BatchNorm)
  )
  variables = ours.init(jax.random.key(0), x, use_running_average=False)
  chex.assert_trees_all_equal_shapes_and_dtypes(
    variables, theirs.init(jax.random.key(0), x, use_running_average=False)
  )
  variables['params'] = {
    'scale': jnp.asarray(rng.normal(1, 0.3, 8), jnp.float32),
    'bias': jnp.asarray(rng.normal(size=8), jnp.float32),
  }
  weight = jnp.asarray(rng.normal(size=x.shape), jnp.float32)

  def loss(params, x, norm):
    y, changed = norm.apply(
      {**variables, 'params': params}, x, use_running_average=False, mutable=['batch_stats']
    )
    return jnp.sum(weight * relu(y).astype(jnp.float32)), (y, changed)

  found, expected = (
    jax.value_and_grad(loss, (0, 1), has_aux=True)(variables['params'], x, norm)
    for norm in (ours, theirs)
  )
  near = dict(rtol=1e-4, atol=1e-4) if dtype == 'float32' else dict(rtol=0.02, atol=0.05)
  chex.assert_trees_all_equal_dtypes(found, expected)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      np.asarray(a, np.float32), np.asarray(b, np.float32), **near
    ),
    found,
    expected,
  )
  averaged = [norm.apply(variables, x, use_running_average=True) for norm in (ours, theirs)]
  np.testing.assert_array_equal(*averaged)


def test_relu_has_no_gradient_at_zero():
  x = jnp.array([-1.0, 0.0, 2.0])
  np.testing.assert_array_equal(relu(x), [0, 0, 2])
  np.testing.assert_array_equal(jax.grad(lambda x: relu(x).sum())(x), [0, 0, 1])


@pytest.mark.parametrize(('sides', 'stride'), [((9, 8), 1), ((7, 9, 8), 1), ((7, 9, 8), 2)])
def test_taps_of_a_dilated_kernel_lie_apart(sides, stride):
  """A dilated kernel is one with zeros between its taps."""
  axes = len(sides)
  x = numbers(2, *sides, 3)
  kernel = numbers(*[3] * axes, 3, 4)
  spread = jnp.zeros((*[5] * axes, 3, 4)).at[(slice(None, None, 2),) * axes].set(kernel)
  pads = [(2, 2)] * axes
  same(
    lambda x: convolution.convolve(x, kernel, stride, pads, dilation=2),
    lambda x: convolution.convolve(x, spread, stride, pads),
    x,
  )


def test_volumes_are_pictures_on_a_cpu_alone():
  x = jax.ShapeDtypeStruct((2, 6, 6, 6, 4), 'float32')
  kernel = jax.ShapeDtypeStruct((3, 3, 3, 4, 4), 'float32')
  convolve = lambda x, k: convolution.convolve(x, k, 1, 'SAME').sum()
  update = jax.jit(jax.grad(convolve, argnums=(0, 1)))
  of_volumes = {}
  for platform in ('cpu', 'cuda'):
    text = jax.export.export(update, platforms=[platform])(x, kernel).mlir_module()
    of_volumes[platform] = '[b, 0, 1, 2, f]' in text
  assert of_volumes == {'cpu': False, 'cuda': True}
