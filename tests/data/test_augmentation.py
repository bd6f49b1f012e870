import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from medtl.core.types import Batch, MedtlError
from medtl.data import augmentation as room
from medtl.data.augmentation import augment

KEY = jax.random.key(3)
GEOMETRY = 'flip | rotate(25) | zoom(0.8, 1.25) | shift(0.1) | elastic(2, 5)'
IDENTITY = (
  'rotate(0) | zoom(1, 1) | shift(0) | elastic(0, 5) | gamma(1, 1) | brightness(0) | '
  'contrast(1, 1) | noise(0)'
)


def batch_of(size=(12, 17), count=6, channels=2, y=None, valid=None):
  x = np.random.default_rng(0).random((count, *size, channels), np.float32)
  return Batch(
    jnp.asarray(x),
    jnp.arange(count) % 3 if y is None else jnp.asarray(y),
    jnp.arange(count) < (count if valid is None else valid),
    jnp.arange(count, dtype=jnp.int32) + 40,
  )


def still(size):
  return room.Field(jnp.eye(len(size)), jnp.zeros(len(size)), jnp.zeros((len(size), *size)))


def run(text, batch, classes=0, key=KEY):
  return jax.jit(augment(text, batch.x.ndim - 2, classes))(key, batch)


def same(a, b):
  chex.assert_trees_all_equal(a, b)


@pytest.mark.parametrize('size', [(12, 17), (6, 7, 8)])
def test_identity_changes_nothing(size):
  batch = batch_of(size, y=np.random.default_rng(1).integers(0, 4, (6, *size)))
  done = run(IDENTITY, batch)
  np.testing.assert_allclose(done.x, batch.x, atol=1e-6)
  same((done.y, done.mask, done.row), (batch.y, batch.mask, batch.row))
  same(run('', batch), batch)


@pytest.mark.parametrize('axis, size', [(-1, (12, 17)), (0, (12, 17)), (1, (5, 6, 7))])
def test_a_flip_is_the_exact_reversal_of_some_pictures(axis, size):
  batch = batch_of(size, count=16)
  done = np.asarray(run(f'flip({axis})', batch).x)
  turned = np.flip(batch.x, range(1, len(size) + 1)[axis])
  flipped = np.array([np.array_equal(a, b) for a, b in zip(done, turned, strict=True)])
  kept = np.array([np.array_equal(a, b) for a, b in zip(done, np.asarray(batch.x), strict=True)])
  assert (flipped ^ kept).all() and 3 <= flipped.sum() <= 13


def test_flip_is_left_and_right_by_default():
  batch = batch_of(count=12)
  same(run('flip', batch), run('flip(1)', batch))


@pytest.mark.parametrize('quarters', [-1, 1, 2])
def test_right_angles_are_those_of_numpy(quarters):
  x = batch_of((11, 11)).x[0]
  field = room._rotated(still((11, 11)), jnp.pi / 2 * quarters, (-2, -1))
  np.testing.assert_allclose(room._read(x, field), np.rot90(x, quarters), atol=2e-5)
  volume = batch_of((7, 7, 7)).x[0]
  field = room._rotated(still((7, 7, 7)), jnp.pi / 2 * quarters, (0, 2))
  np.testing.assert_allclose(
    room._read(volume, field), np.rot90(volume, quarters, axes=(0, 2)), atol=2e-5
  )


@pytest.mark.parametrize('size', [(12, 17), (7, 9, 8)])
@pytest.mark.parametrize(
  'order',
  ['rotate(40) | shift(0.2) | zoom(0.7, 1.4) | flip', 'shift(0.2) | zoom(0.7, 1.4) | rotate(40)'],
)
def test_composed_affine_operations_are_scipys(size, order):
  x = batch_of(size).x[0]
  operations = room._steps(order, 0)['field']
  field = room._compose(operations, KEY, size)
  centre = (np.array(size) - 1) / 2
  offset = centre - np.asarray(field.matrix) @ centre + np.asarray(field.translation)
  expected = [
    ndimage.affine_transform(x[..., c], field.matrix, offset, order=1, mode='grid-constant')
    for c in range(2)
  ]
  np.testing.assert_allclose(room._read(x, field), np.stack(expected, -1), atol=1e-4)


def test_one_field_is_the_operations_one_after_the_other():
  place = np.indices((61, 71)) - np.array([[[27]], [[39]]])
  blob = jnp.asarray(
    np.exp(-(place[0] ** 2 + 2 * place[1] ** 2) / 60)[..., None].astype(np.float32)
  )
  for text in (
    'rotate(60) | shift(0.15) | zoom(0.7, 1.4) | flip',
    'shift(0.15) | flip | zoom(0.7, 1.4) | rotate(60)',
  ):
    operations = room._steps(text, 0)['field']
    slow = blob
    for operation in operations:
      slow = room._read(slow, room._compose([operation], KEY, (61, 71)))
    np.testing.assert_allclose(
      room._read(blob, room._compose(operations, KEY, (61, 71))), slow, atol=0.04
    )


def test_zoom_enlarges_and_shift_moves_by_a_share_of_the_length():
  ball = (np.hypot(*(np.indices((41, 61)) - np.array([[[20]], [[30]]]))) < 8).astype(np.float32)[
    None, ..., None
  ]
  one = Batch(
    jnp.asarray(ball), jnp.zeros(1, jnp.int32), jnp.ones(1, bool), jnp.zeros(1, jnp.int32)
  )
  assert run('zoom(1.5, 1.5)', one).x.sum() == pytest.approx(1.5**2 * ball.sum(), rel=0.03)
  many = jax.tree.map(lambda value: jnp.repeat(value, 200, 0), one)
  moved = np.asarray(run('shift(0.25)', many).x[..., 0])
  ways = np.array([ndimage.center_of_mass(picture) for picture in moved]) - (20, 30)
  for way, length in zip(ways.T, (41, 61), strict=True):
    assert stats.kstest(way / length, stats.uniform(-0.25, 0.5).cdf).pvalue > 1e-3


def test_the_elastic_field_has_the_size_and_the_smoothness_asked_for():
  fields = jax.vmap(lambda key: room.elastic(still((64, 48)), key, 4.0, 6.0).displacement)(
    jax.random.split(KEY, 40)
  )
  chex.assert_shape(fields, (40, 2, 64, 48))
  assert float(fields.std()) == pytest.approx(2.0, rel=0.1)
  close = (fields[..., 1:] * fields[..., :-1]).mean() / fields.var()
  far = (fields[..., 6:] * fields[..., :-6]).mean() / fields.var()
  # noise smoothed with a Gaussian of s pixels has the correlation exp(-d² / 4 s²)
  assert float(close) == pytest.approx(np.exp(-1 / 144), abs=0.02) and float(far) == pytest.approx(
    np.exp(-0.25), abs=0.12
  )


@pytest.mark.parametrize('size', [(40, 48), (20, 22, 24)])
def test_picture_and_mask_move_together(size):
  centre = np.reshape((np.array(size) - 1) / 2 + 2, (len(size), *[1] * len(size)))
  blob = np.exp(-sum((np.indices(size) - centre) ** 2) / 60).astype(np.float32)
  x = jnp.repeat(jnp.asarray(blob)[None, ..., None], 5, 0)
  y = 3 * (x[..., 0] > 0.4).astype(jnp.int32)
  done = run(GEOMETRY + ' | noise(0.0)', Batch(x, y, jnp.ones(5, bool), jnp.arange(5)))
  assert done.y.dtype == y.dtype and set(np.unique(done.y)) == {0, 3}
  for before, after, moved in zip(y, done.y, done.x[..., 0], strict=True):
    inside, expected = np.asarray(after) == 3, np.asarray(moved) > 0.4
    assert 2 * (inside & expected).sum() / (inside.sum() + expected.sum()) > 0.93
    assert not np.array_equal(before, after)


def test_labels_that_are_no_mask_stay():
  for y in (jnp.arange(4), jnp.ones((4, 3)), jnp.ones((4, 9, 9))):  # classes, targets, a float map
    batch = Batch(jnp.ones((4, 9, 9, 1)), y, jnp.ones(4, bool), jnp.arange(4))
    same(run('rotate(25)', batch).y, y)


def test_the_same_key_gives_the_same_and_every_example_its_own():
  batch = batch_of(count=4)
  batch = batch._replace(x=jnp.repeat(batch.x[:1], 4, 0))
  f = jax.jit(
    augment(GEOMETRY + ' | gamma(0.5, 2) | brightness(0.1) | contrast(0.5, 1.5) | noise(0.05)')
  )
  same(f(KEY, batch), f(KEY, batch))
  assert not np.array_equal(f(KEY, batch).x, f(jax.random.key(4), batch).x)
  done = np.asarray(f(KEY, batch).x)
  assert all(not np.array_equal(done[i], done[j]) for i in range(4) for j in range(i))
  # an example's fate does not hang on how many others there are
  np.testing.assert_allclose(
    f(KEY, jax.tree.map(lambda value: value[:2], batch)).x, done[:2], atol=1e-4
  )


def test_it_compiles_once():
  f = augment('rotate(25) | elastic(2, 5) | gamma(0.5, 2) | mixup(0.3)', 2, 3)
  chex.clear_trace_counter()
  once = jax.jit(chex.assert_max_traces(lambda key, batch: f(key, batch), n=1))
  for seed in range(3):
    once(jax.random.key(seed), batch_of(valid=4 + seed % 2))


def test_no_geometry_no_resampling():
  text = str(jax.make_jaxpr(augment('gamma(0.8, 1.2) | noise(0.02)'))(KEY, batch_of()))
  assert 'gather' not in text and 'gather' in str(jax.make_jaxpr(augment('flip'))(KEY, batch_of()))
  assert (
    str(jax.make_jaxpr(augment(GEOMETRY))(KEY, batch_of(channels=1))).count(' gather[') == 4
  )  # one, of four corners


def test_light_changes_as_named():
  batch = batch_of(count=3)
  x = np.asarray(batch.x)
  np.testing.assert_allclose(run('gamma(2, 2)', batch).x, x**2, rtol=1e-5)
  more = np.asarray(run('brightness(0.2)', batch).x) - x
  np.testing.assert_allclose(more, np.broadcast_to(more[:, :1, :1, :1], more.shape), atol=1e-6)
  assert 0 < np.abs(more).max() <= 0.2
  mean = x.mean((1, 2, 3), keepdims=True)
  np.testing.assert_allclose(run('contrast(0.5, 0.5)', batch).x, mean + (x - mean) / 2, atol=1e-6)
  rest = np.asarray(run('noise(0.1)', batch_of((64, 64))).x) - np.asarray(batch_of((64, 64)).x)
  assert stats.kstest(rest.ravel(), stats.norm(scale=0.1).cdf).pvalue > 1e-3


def test_two_operations_of_a_chain_draw_independently():
  """Half the sum of two uniform numbers is triangular; a number drawn once stays uniform."""
  expected = stats.triang(0.5, -0.1, 0.2).cdf
  dark = batch_of((1, 1), count=500, channels=1)
  lighter = np.asarray(run('brightness(0.1) | brightness(0.1)', dark).x - dark.x) / 2
  assert stats.kstest(lighter.ravel(), expected).pvalue > 1e-3
  dot = jnp.zeros((500, 41, 1, 1)).at[:, 20].set(1)
  dots = Batch(dot, jnp.zeros(500, jnp.int32), jnp.ones(500, bool), jnp.arange(500))
  moved = np.asarray(run('shift(0.1) | shift(0.1)', dots).x[:, :, 0, 0])
  ways = (moved / moved.sum(1, keepdims=True)) @ np.arange(41) - 20
  assert stats.kstest(ways / 41 / 2, expected).pvalue > 1e-3


@pytest.mark.parametrize('soft', [False, True])
def test_mixup_is_a_convex_combination_of_valid_examples(soft):
  count, valid = 9, 6
  x = jnp.eye(count)[:, :, None, None] * jnp.ones(
    (1, 1, 2, 1)
  )  # example i is 1 in its row i, so that x tells the shares
  y = jax.nn.one_hot(jnp.arange(count) % 4, 4) if soft else jnp.arange(count) % 4
  batch = Batch(x, y, jnp.arange(count) < valid, jnp.arange(count))
  done = run('mixup(0.8)', batch, 4)
  shares = np.asarray(done.x[:, :, 0, 0])
  np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
  assert (shares >= 0).all() and (np.count_nonzero(shares[:valid], axis=1) == 2).all()
  assert (shares[:valid, valid:] == 0).all() and np.array_equal(
    shares[valid:], np.eye(count)[valid:]
  )
  assert sorted(np.argmax(np.where(np.eye(valid), 0, shares[:valid, :valid]), 1)) == list(
    range(valid)
  )  # each lent once
  np.testing.assert_allclose(done.y, shares @ np.eye(4)[np.arange(count) % 4], atol=1e-6)
  same((done.mask, done.row), (batch.mask, batch.row))


def test_mixups_shares_follow_the_beta_distribution():
  batch = batch_of((8, 8), count=600, y=np.arange(600) % 2)
  kept = np.asarray(run('mixup(0.4)', batch._replace(y=jnp.arange(600)), 600).y)[
    np.arange(600), np.arange(600)
  ]
  assert stats.kstest(kept, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
  'text, ndim, message',
  [
    ('rotat(10)', 2, "unknown operation 'rotat'.*did you mean 'rotate'"),
    ('augment(1)', 2, "unknown operation 'augment'"),
    ('zoom(0.9)', 2, "missing a required argument: 'high'"),
    ('zoom(1.2, 0.9)', 2, '0 < low <= high'),
    ('gamma(0, 1)', 2, '0 < low <= high'),
    ('flip(2)', 2, 'expected a spatial axis from -2 to 1'),
    ('rotate(10)', 1, 'two different spatial axes'),
    ('rotate(10, axes=(0, -2))', 2, 'two different spatial axes'),
    ('elastic(9, 8)', 2, 'amount <= scale'),
    ('noise(s=1)', 2, "no key 's'"),
    ('mixup(0.2)', 2, 'there are 0 classes'),
  ],
)
def test_a_mistake_is_named_before_the_run(text, ndim, message):
  with pytest.raises(MedtlError, match=message):
    augment(text, ndim)


def test_shapes_that_do_not_fit_are_named():
  with pytest.raises(MedtlError, match='expected 3 spatial axes'):
    augment('flip', 3)(KEY, batch_of())
  with pytest.raises(MedtlError, match='masks cannot be mixed'):
    augment('mixup(0.2)', 2, 3)(KEY, batch_of((6, 6), y=np.zeros((6, 6, 6), np.int32)))
