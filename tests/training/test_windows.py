"""Whole cases by windows: what a net that looks at one voxel says is what it says of the whole."""

import numpy as np
import pytest

from medtl.training import windows


@pytest.mark.parametrize('shape', [(8,), (9,), (5, 13), (6, 4, 11), (3, 3)])
def test_a_net_of_single_voxels_is_the_same_by_windows(shape):
  """Windows go through the net by fours: 3, 4, 12, 10 and 1 of them, the last group filled up."""
  x = np.random.RandomState(0).rand(1, *shape, 2).astype(np.float32)
  apply = lambda params, extra, x: params * x[..., :1] + x[..., 1:]
  size = (4,) * len(shape)
  whole = windows.windowed(apply, size)(3.0, {}, x)
  np.testing.assert_allclose(whole, apply(3.0, {}, x), rtol=1e-5)


def test_windows_cover_each_voxel_and_weigh_their_centres():
  seen = np.zeros(17)
  for start in windows.window_starts(17, 6):
    seen[start : start + 6] += 1
  assert seen.min() >= 1
  weight = windows.centre_weight((5, 8))
  assert weight.shape == (5, 8) and weight.min() > 0
  assert weight[2, 3] == weight.max() and np.allclose(weight, weight[::-1, ::-1])


def test_what_a_window_says_at_its_edge_counts_little():
  """A net that errs at the edge of what it sees is right in the whole case but at its own edges."""

  def apply(params, extra, x):
    outputs = np.ones_like(x)
    outputs[:, [0, -1]] = 100.0
    return outputs

  whole = windows.windowed(apply, (16,))({}, {}, np.zeros((1, 64, 1), np.float32))
  assert whole[0, 12:-12, 0].max() < 1.3 and whole[0, 0, 0] > 50
