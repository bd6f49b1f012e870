"""Laws of frames: what moves a picture moves its place, and one resampling brings a mask back."""

import numpy as np
import pytest

from medtl.core import expressions, frames
from medtl.core.frames import Frame
from medtl.core.types import Example, MedtlError
from medtl.data import transforms

# A volume that lies obliquely: its axes run to the left, up and to the front.
AFFINE = np.array([[-0.8, 0.1, 0, 30], [0.05, 0, 3.0, -20], [0.1, 1.2, 0.2, 5], [0, 0, 0, 1.0]])


def volume(shape=(9, 7, 5)):
  random = np.random.RandomState(0)
  x = random.rand(*shape, 1).astype(np.float32)
  mask = (x[..., 0] > 0.5).astype(np.uint8)
  return Example(x, mask, 0, Frame(shape, AFFINE, True))


def run(text, example):
  for operation in expressions.functions(text, transforms, given=('example',)):
    example = operation(example)
  return example


@pytest.mark.parametrize(
  'text', ["orient('RAS')", "orient('LPI') | crop(4)", 'pad(11) | crop(6, 5, 3)']
)
def test_a_voxel_that_moves_keeps_its_place_in_space(text):
  case = volume()
  moved = run(text, case)
  assert moved.x.shape[:-1] == moved.y.shape == moved.frame.shape
  inside = np.argwhere(moved.x[..., 0] > 0)
  back = np.linalg.inv(case.frame.affine) @ moved.frame.affine
  places = np.c_[inside, np.ones(len(inside))] @ back.T
  indices = np.round(places[:, :3]).astype(int)
  np.testing.assert_allclose(places[:, :3], indices, atol=1e-6)
  np.testing.assert_array_equal(case.x[tuple(indices.T)], moved.x[tuple(inside.T)])
  np.testing.assert_array_equal(case.y[tuple(indices.T)], moved.y[tuple(inside.T)])


def test_axes_run_where_orient_says():
  turned = run("orient('RAS')", volume())
  directions = turned.frame.affine[:3, :3]
  assert (np.abs(directions).argmax(axis=0) == np.arange(3)).all()
  assert (directions[np.arange(3), np.arange(3)] > 0).all()


def test_a_mask_comes_back_to_the_files_own_grid():
  case = volume()
  turned = run("orient('RAS') | pad(12)", case)
  back = frames.resampled(turned.y, turned.frame, case.frame, order=0)
  np.testing.assert_array_equal(back, case.y)
  finer = run('resample(0.4, 0.6, 1.5)', case)
  back = frames.resampled(finer.y, finer.frame, case.frame, order=0)
  assert finer.x.shape[0] > case.x.shape[0] and (back == case.y).mean() > 0.95


def test_resize_keeps_the_edges_of_the_space():
  case = volume()
  small = run('resize(3)', case)
  corners = [frame.affine @ [-0.5, -0.5, -0.5, 1] for frame in (case.frame, small.frame)]
  ends = [frame.affine @ [*np.array(frame.shape) - 0.5, 1] for frame in (case.frame, small.frame)]
  np.testing.assert_allclose(corners[0], corners[1], atol=1e-6)
  np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)


def test_what_needs_millimetres_says_so():
  bare = Example(np.zeros((4, 4, 4, 1), np.float32), -1, 0)
  for text in ('resample(1.0)', "orient('RAS')"):
    with pytest.raises(MedtlError, match=r'file does not say|whose file says how it lies'):
      run(text, bare)
