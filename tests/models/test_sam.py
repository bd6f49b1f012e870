"""SAM's image encoder against transformers, seeded weights (make_sam.py), and laws of windows."""

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
from medtl.models.backbones import sam
from medtl.models.layers import window_attention
from medtl.models.pretrained import checkpoint_files, port
from tests.fixtures import seeded

FIXTURES = Path(__file__).parents[1] / 'fixtures'
TINY = dict(size=(80, 64), width=16, depth=2, heads=2, window=3, global_every=2, neck=8)


@pytest.fixture(scope='module')
def reference():
  with np.load(FIXTURES / 'sam.npz') as file:
    return dict(file)


def shapes_of(backbone):
  """Return the shapes of a backbone's parameters, as a port wants them."""
  x = jnp.zeros((1, *backbone.size, 3))
  shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), x, train=False))
  return {'params': {'backbone': shapes['params']}}


def near(found, expected, bound):
  chex.assert_shape(found, expected.shape)
  assert np.abs(np.asarray(found) - expected).max() <= bound * np.abs(expected).max()


def theirs(reference):
  return seeded.weights(json.loads(str(reference['shapes'])))


@pytest.mark.parametrize(
  ('dtype', 'bound'), [pytest.param('float32', 1e-5, marks=pytest.mark.slow), ('float64', 1e-9)]
)
def test_maps_are_the_reference_s(reference, dtype, bound):
  """The grid is 5 × 4, windows of 3 × 3 do not divide it, and a table is resized for it."""
  with jax.enable_x64(dtype == 'float64'):
    backbone = sam.sam_vit_b(**TINY, dtype=jnp.dtype(dtype))
    found, report = port.port(theirs(reference), shapes_of(backbone), sam.RENAMES, adapt=sam.ADAPT)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), found['params']['backbone'])
    if dtype == 'float64':  # the port's table is in float32
      wide = theirs(reference)['layers.1.attn.rel_pos_w'].astype('f8')
      columns = jax.image.resize(wide, (7, 8), 'linear', antialias=False)
      params['stage2']['attention']['columns'] = columns
    run = jax.jit(lambda params, x: backbone.apply({'params': params}, x, train=False))
    maps = run(params, jnp.asarray(seeded.picture(2, 80, 64, 3), dtype))
  near(maps, reference['maps'], bound)
  assert report.dialect == 'sam_hf'
  assert report.notes == ('backbone/stage2/attention/columns from (9, 8) to (7, 8)',)


def test_sam_s_own_file_says_the_same_and_the_rest_is_left_out(reference):
  said = []
  arrays = checkpoint_files.read(FIXTURES / 'sam.pth', sam.RENAMES, say=said.append)
  (words,) = said
  assert "below 'image_encoder'" in words
  assert 'prompt_encoder' in words and 'mask_decoder' in words
  shapes = shapes_of(sam.sam_vit_b(**TINY))
  first, report = port.port(arrays, shapes, sam.RENAMES, adapt=sam.ADAPT)
  second, _ = port.port(theirs(reference), shapes, sam.RENAMES, adapt=sam.ADAPT)
  assert report.dialect == 'sam'
  chex.assert_trees_all_equal(first, second)


@pytest.mark.parametrize('count', [5, 15])
def test_tables_of_differences_are_resized_as_sam_does(reference, count):
  table = seeded.picture(9, 8)
  found = sam.ADAPT[r'backbone/stage\d+/attention/(rows|columns)'](table, (count, 8))
  np.testing.assert_allclose(found, reference[f'resized/{count}'], atol=2e-6)


@pytest.mark.parametrize(
  ('factory', 'count'),
  [
    ('sam_vit_b', 89_670_912),
    pytest.param('sam_vit_l', 308_278_272, marks=pytest.mark.slow),
    pytest.param('sam_vit_h', 637_026_048, marks=pytest.mark.slow),
  ],
)
def test_the_published_names_at_full_size_are_all_there_is(reference, factory, count, monkeypatch):
  monkeypatch.setattr(port, '_check_numbers', lambda ported: None)
  monkeypatch.setattr(
    port, '_tree', lambda ported: {path: piece.array.shape for path, piece in ported.items()}
  )
  published = json.loads(str(reference[f'full/{factory}']))
  shapes = shapes_of(getattr(sam, factory)())
  arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in published.items()}
  found, report = port.port(arrays, shapes, sam.RENAMES, adapt=sam.ADAPT)
  assert not report.ignored and not report.notes
  assert found == {path: leaf.shape for path, leaf in pytrees.flatten(shapes).items()}
  assert pytrees.count_parameters(shapes) == count


def test_windows_fit_together_again_and_zeros_fill_the_far_ones():
  x = np.random.RandomState(0).rand(2, 5, 4, 1).astype('f4') + 1
  cut = window_attention.windows(x, 3)
  chex.assert_shape(cut, (2 * 2 * 2, 3, 3, 1))
  np.testing.assert_array_equal(cut[0], x[0, :3, :3])
  assert not cut[1, :, 1:].any() and not cut[2, 2].any() and (np.asarray(cut[0]) > 0).all()
  np.testing.assert_array_equal(window_attention.joined_windows(cut, 5, 4), x)


def test_attention_by_place_is_softmax_of_all_three_terms():
  random = np.random.RandomState(0)
  query, key, value = random.standard_normal((3, 2, 2, 6, 4))
  rows, columns = random.standard_normal((5, 4)), random.standard_normal((3, 4))
  expected = np.zeros(value.shape)
  for place in range(6):
    logits = np.zeros((2, 2, 6))
    for other in range(6):
      row = place // 2 - other // 2 + 2
      column = place % 2 - other % 2 + 1
      term = key[:, :, other] / 2 + rows[row] + columns[column]
      logits[..., other] = (query[:, :, place] * term).sum(-1)
    weight = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected[:, :, place] = (weight[..., None] * value).sum(2)
  with jax.enable_x64():
    tables = (rows[window_attention.differences(3)], columns[window_attention.differences(2)])
    found = window_attention.attend_by_place(query, key, value, *tables)
  near(found, expected, 1e-12)


def test_a_window_does_not_see_beyond_itself():
  backbone = sam.sam_vit_b(**{**TINY, 'global_every': 3})
  shapes = pytrees.flatten(shapes_of(backbone)['params']['backbone'])
  arrays = seeded.weights({path: leaf.shape for path, leaf in shapes.items()})
  params = {'params': pytrees.unflatten(arrays)}
  x = seeded.picture(1, 80, 64, 3)
  other = x.copy()
  other[:, 0, 0] += 1  # in the first window, which the first three rows and columns are
  run = jax.jit(lambda x: backbone.apply(params, x, train=False, end_child=3))
  moved = np.abs(run(x) - run(other)).max((0, -1)) > 1e-6
  assert moved[:3, :3].all() and not moved[3:].any() and not moved[:, 3:].any()


def test_sizes_that_do_not_fit_are_refused():
  with pytest.raises(MedtlError, match=r'\(80, 60\) do not divide into patches of 16 × 16'):
    shapes_of(sam.sam_vit_b(**{**TINY, 'size': (80, 60)}))
  backbone = sam.sam_vit_b(**TINY)
  with pytest.raises(MedtlError, match=r'made for pictures of size \(80, 64\), found \(64, 64\)'):
    jax.eval_shape(lambda: backbone.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))


def test_checkpoints_say_where_they_were_read():
  for entry in sam.WEIGHTS.values():
    assert entry.note and entry.licence and (entry.url or entry.page).startswith('https://')
  assert sam.WEIGHTS['sam_b'].mean == pytest.approx(np.array([123.675, 116.28, 103.53]) / 255)
  assert sam.WEIGHTS['sam_b'].std == pytest.approx(np.array([58.395, 57.12, 57.375]) / 255)


def test_the_neck_is_a_stage_of_its_own():
  backbone = sam.sam_vit_b(**TINY)
  net = Net(backbone, heads.linear(3))
  assert net.children == ('stem', 'stage1', 'stage2', 'stage3') and backbone.channels == 8
