"""Each lowering equals Linen's own function in value and gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.models import layers


def numbers(*shape, seed=0):
  return jnp.asarray(np.random.RandomState(seed).randn(*shape), jnp.float32)


def same(f, g, *arguments):
  """Assert equal values, and equal gradients of a weighted sum, to 1e-5."""
  weight = numbers(*jax.eval_shape(f, *arguments).shape, seed=1)
  both = [jax.jit(lambda *a, h=h: (h(*a), jax.grad(lambda *b: jnp.sum(weight * h(*b)), argnums=tuple(range(len(a))))(*a)))(*arguments)
          for h in (f, g)]
  for a, b in zip(*map(jax.tree.leaves, both), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize('kernel, stride', [((1, 1), 1), ((1, 1), 2), ((3, 3), 1), ((3, 3), 2), ((7, 7), 2), ((3,), 2), ((1, 1, 1), 2),
                                            ((3, 3, 3), 1)])
def test_conv_is_linens(kernel, stride):
  x = numbers(2, *(7, 8, 6)[:len(kernel)], 4)
  ours = layers.Conv(5, kernel, stride, bias=True)
  theirs = nn.Conv(5, kernel, stride, padding=[(k // 2, k // 2) for k in kernel])
  params = theirs.init(jax.random.key(0), x)['params']
  params['bias'] = numbers(5)
  assert jax.tree.structure(ours.init(jax.random.key(0), x)['params']) == jax.tree.structure(params)
  same(lambda p, x: ours.apply({'params': p}, x), lambda p, x: theirs.apply({'params': p}, x), params, x)


@pytest.mark.parametrize('shape', [(9,), (8, 7), (6, 5, 8)])
def test_max_pool_is_linens(shape):
  n = len(shape)
  same(layers.max_pool, lambda x: nn.max_pool(x, (3,) * n, (2,) * n, [(1, 1)] * n), numbers(2, *shape, 3))


def test_max_pool_with_zeros_around():
  x = -jnp.abs(numbers(1, 4, 4, 1)) - 1
  y = layers.max_pool(x, fill=0.0)
  assert y[0, 0, 0, 0] == 0 and y[0, 1, 1, 0] == x[0, 1:4, 1:4, 0].max()


@pytest.mark.parametrize('train', [False, True])
def test_batch_norm_is_linens_and_keeps_its_statistics_when_it_is_told_to(train):
  class Both(nn.Module):
    @nn.compact
    def __call__(self, x):
      return layers.norm(x, train, 'a', 'batch', 1e-3), nn.BatchNorm(not train, momentum=0.9, epsilon=1e-3, name='b')(x)

  x = numbers(4, 5, 3) + 2
  variables = Both().init(jax.random.key(0), x)
  (a, b), changed = Both().apply(variables, x, mutable=['batch_stats'])
  np.testing.assert_array_equal(a, b)
  moved = [float(jnp.abs(p - q).max()) for p, q in
           zip(*(jax.tree.leaves(v['batch_stats']['a']) for v in (changed, variables)), strict=True)]
  assert (min(moved) > 0) == train and (max(moved) > 0) == train


def test_group_norm_of_each_example_has_mean_zero_and_variance_one():
  class Group(nn.Module):
    @nn.compact
    def __call__(self, x):
      return layers.norm(x, True, 'a', 'group')

  x = numbers(2, 9, 64) * 3 + 50
  y = Group().apply(Group().init(jax.random.key(0), x), x).reshape(2, 9, 32, 2)
  np.testing.assert_allclose(y.mean((1, 3)), 0, atol=1e-4)
  np.testing.assert_allclose(y.var((1, 3)), 1, atol=1e-3)
