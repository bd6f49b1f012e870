"""Laws of the host operations, and resize against Pillow."""

import chex
import numpy as np
import pytest
from PIL import Image

from medtl.core import expressions
from medtl.core.types import Example, MedtlError
from medtl.data import transforms


def picture(*shape: int) -> np.ndarray:
  return np.random.RandomState(0).rand(*shape).astype(np.float32)


def on(operation, x: np.ndarray, *values, **keys) -> np.ndarray:
  """Return what an operation makes of a picture."""
  return operation(Example(x, -1, 0), *values, **keys).x


def run(text: str, x: np.ndarray) -> np.ndarray:
  example = Example(x, -1, 0)
  for operation in expressions.functions(text, transforms, given=('example',)):
    example = operation(example)
  return example.x


@pytest.mark.parametrize(
  'method, filter', [('linear', Image.Resampling.BILINEAR), ('cubic', Image.Resampling.BICUBIC)]
)
@pytest.mark.parametrize('size', [(9, 31), (64, 20), (40, 90)])
def test_resize_equals_pillow(method, filter, size):
  x = picture(40, 57, 1)
  expected = np.asarray(Image.fromarray(x[..., 0]).resize(size[::-1], filter))
  found = on(transforms.resize, x, *size, method=method)
  chex.assert_shape(found, (*size, 1))
  np.testing.assert_allclose(found[..., 0], np.clip(expected, x.min(), x.max()), atol=2e-6)


@pytest.mark.parametrize('shape', [(12,), (12, 9), (12, 9, 6)])
def test_resize_keeps_constants_range_and_identity(shape):
  x = picture(*shape, 2)
  half = on(transforms.resize, x, *(side // 2 for side in shape), method='cubic')
  chex.assert_shape(half, (*(side // 2 for side in shape), 2))
  assert x.min() <= half.min() and half.max() <= x.max() and half.dtype == np.float32
  np.testing.assert_array_equal(on(transforms.resize, x, *shape), x)
  np.testing.assert_allclose(on(transforms.resize, np.full_like(x, 0.25), 7), 0.25, rtol=1e-6)


def test_resize_by_a_whole_factor_keeps_the_mean_of_a_ramp_and_mirrors():
  x = np.linspace(0, 1, 32, dtype=np.float32)[:, None]
  small = on(transforms.resize, x, 8)
  np.testing.assert_allclose(small.mean(), x.mean(), atol=1e-6)
  np.testing.assert_allclose(on(transforms.resize, x[::-1], 8), small[::-1], atol=1e-6)


def test_window_and_rescale_by_hand():
  x = np.array([[-1024], [-1000], [-300], [400], [3000]], np.int16)
  np.testing.assert_allclose(run('window(-1000, 400)', x)[:, 0], [0, 0, 0.5, 1, 1], atol=1e-7)
  np.testing.assert_allclose(
    run('rescale(-1, 1)', x)[:, 0], 2 * (x[:, 0] + 1024) / 4024 - 1, atol=1e-6
  )
  np.testing.assert_array_equal(on(transforms.rescale, np.full((3, 1), 7.0)), 0)


def test_percentiles_clip_only_the_tails():
  x = np.arange(101, dtype=np.float32)[:, None]
  found = run('percentiles(5, 90)', x)
  assert found.min() == 5 and found.max() == 90
  np.testing.assert_array_equal(found[5:91], x[5:91])


@pytest.mark.parametrize('size', [(11, 14), (10, 15)])
def test_crop_undoes_pad(size):
  x = picture(8, 9, 1)
  padded = on(transforms.pad, x, *size, value=0.5)
  chex.assert_shape(padded, (*size, 1))
  np.testing.assert_allclose(padded.sum() - x.sum(), 0.5 * (padded.size - x.size), rtol=1e-5)
  np.testing.assert_array_equal(on(transforms.crop, padded, 8, 9), x)
  np.testing.assert_array_equal(on(transforms.crop, on(transforms.pad, x, 5), 99), x)


def test_square_keeps_the_picture_in_the_middle():
  found = run('square | resize(12)', picture(4, 12, 3))
  chex.assert_shape(found, (12, 12, 3))
  assert not found[:4].any() and not found[8:].any() and found[4:8].all()


@pytest.mark.parametrize(
  'text, words',
  [
    ('resize(0)', 'positive'),
    ('resize(3, 3, 3)', '1 or 2'),
    ('crop(2.5)', 'whole'),
    ('resize(4, method="sinc")', 'cubic'),
    ('window(3, 3)', 'low < high'),
    ('percentiles(60, 40)', 'low < high'),
    ('resise(4)', "did you mean 'resize'"),
  ],
)
def test_wrong_operations_say_what_is_right(text, words):
  with pytest.raises(MedtlError, match=words.replace('<', '.').replace('(', '.')):
    run(text, picture(8, 9, 1))


def test_an_operation_checks_its_arguments_at_its_own_door():
  x = picture(4, 4, 1)
  for operation, arguments in (
    (transforms.window, (1, 0)),
    (transforms.percentiles, (99.5,)),
    (transforms.resize, (0,)),
    (transforms.pad, (4, -1)),
  ):
    with pytest.raises(MedtlError, match=f'{operation.__name__}: .*expected (positive|low <|0 <=)'):
      on(operation, x, *arguments)
