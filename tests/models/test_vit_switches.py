"""Each switch of a ViT against transformers and timm, seeded weights (make_vit_switches.py).

And the published names at full size, and files in their publishers' formats.
"""

import functools
import json
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.core.types import MedtlError
from medtl.models import Net, heads
from medtl.models.backbones import vit
from medtl.models.layers import rotary
from medtl.models.layers.activation import gelu_tanh, swiglu
from medtl.models.pretrained import checkpoint_files, port
from tests.fixtures import seeded

FIXTURES = Path(__file__).parents[1] / 'fixtures'
TINY = dict(width=32, depth=2, heads=4, size=(48, 32))
FOURTEENTHS = dict(TINY, width=40, size=(42, 28))
SIGLIP = dict(TINY, ratio=60 / 32)
SMALL_GATED = dict(TINY, patch=16)


@pytest.fixture(scope='module')
def reference():
  with np.load(FIXTURES / 'vit_switches.npz') as file:
    return dict(file)


def shapes_of(net):
  """Return the shapes of a net's variables."""
  x = jnp.zeros((1, *net.backbone.size, 3))
  return jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))


def taken_in(backbone, arrays, classes=0):
  """Return a net, the arrays of a publisher in it, and the port's report."""
  net = Net(backbone, heads.linear(max(1, classes)))
  fresh = () if classes else ('head/.*',)
  found, report = port.port(arrays, shapes_of(net), vit.RENAMES, adapt=vit.ADAPT, fresh=fresh)
  if not classes:
    kernel = np.zeros((backbone.channels, 1))
    found['params']['head'] = {'dense': {'kernel': kernel, 'bias': np.zeros(1)}}
  return net, jax.tree.map(lambda leaf: jnp.asarray(leaf, backbone.dtype), found), report


def features(net, variables, size):
  """Return what a backbone makes of seeded pictures."""
  run = jax.jit(lambda variables, x: net.apply(variables, x, train=False, method='features'))
  return run(variables, seeded.picture(2, *size, 3))


def near(found, expected, bound):
  chex.assert_shape(found, expected.shape)
  assert np.abs(np.asarray(found) - expected).max() <= bound * np.abs(expected).max()


CASES = [  # name, factory, keys, dialect
  ('siglip_hf', 'siglip_vit_b16', SIGLIP, 'siglip_hf'),
  ('siglip_timm', 'siglip_vit_b16', SIGLIP, 'siglip_timm'),
  ('big_vision', 'siglip_vit_b16', SIGLIP, 'siglip_big_vision'),
  ('big_vision_stacked', 'siglip_vit_b16', SIGLIP, 'siglip_big_vision'),
  ('dinov2_gated', 'dinov2_vit_g14', FOURTEENTHS, 'dinov2_hf'),
  ('dinov3', 'dinov3_vit_s16', TINY, 'dinov3_hf'),
  ('dinov3_gated', 'dinov3_vit_h16plus', TINY, 'dinov3_hf'),
  ('fine_tuned', 'vit_l16', dict(TINY, pool='mean'), 'timm'),
  ('uni', 'uni', TINY, 'timm'),
  ('uni2_h', 'uni2_h', SMALL_GATED, 'timm_patches_gated'),
  ('virchow2', 'virchow2', SMALL_GATED, 'timm_all_gated'),
  ('gigapath_tile', 'gigapath_tile', TINY, 'timm_gated'),
]


QUICK = (
  'siglip_timm-float32',
  'big_vision-float32',
  'dinov3-float64',
  'dinov3_gated-float32',
  'virchow2-float32',
)


def dtypes():
  """Yield each case in float32 and in float64; some are quick."""
  for case in CASES:
    for dtype, bound in (('float32', 1e-5), ('float64', 1e-9)):
      name = f'{case[0]}-{dtype}'
      marks = () if name in QUICK else pytest.mark.slow
      yield pytest.param(*case, dtype, bound, marks=marks, id=name)


@pytest.mark.parametrize(('case', 'factory', 'keys', 'dialect', 'dtype', 'bound'), dtypes())
def test_tokens_and_logits_are_the_reference_s(
  reference, case, factory, keys, dialect, dtype, bound
):
  arrays = seeded.weights(json.loads(str(reference[f'{case}/shapes'])))
  if 'params/t' in arrays:  # below params/ in the file
    arrays = {name.removeprefix('params/'): array for name, array in arrays.items()}
  has_logits = f'{case}/logits' in reference
  with jax.enable_x64(dtype == 'float64'):
    backbone = getattr(vit, factory)(dtype=jnp.dtype(dtype), **keys)
    net, variables, report = taken_in(backbone, arrays, 5 if has_logits else 0)
    x = jnp.asarray(seeded.picture(2, *keys['size'], 3), dtype)

    @jax.jit
    def run(variables, x):
      value = net.apply(variables, x, train=False, method='features')
      logits = net.apply(variables, value, train=False, start_child=backbone.stages + 1)
      return value, logits

    value, logits = run(variables, x)
  first = 1 if backbone.pool else 0
  near(value[:, first:], reference[f'{case}/tokens'], bound)
  if f'{case}/pooled' in reference:
    near(backbone.token(value), reference[f'{case}/pooled'], bound)
  if has_logits:
    near(logits, reference[f'{case}/logits'], bound)
  assert report.dialect == dialect and report.mean == vit.RENAMES[dialect].mean


def drawn(backbone):
  """Return seeded parameters of a backbone alone."""
  shapes = pytrees.flatten(shapes_of(Net(backbone, heads.linear(2)))['params']['backbone'])
  arrays = seeded.weights({path: leaf.shape for path, leaf in shapes.items()})
  return {'params': pytrees.unflatten(arrays)}


def test_the_pool_is_a_stage_of_its_own_and_the_norm_belongs_to_it():
  backbone = vit.siglip_vit_b16(**{**TINY, 'depth': 1})
  assert backbone.stages == 2
  x = jnp.asarray(seeded.picture(2, 48, 32, 3))
  variables = drawn(backbone)
  assert set(variables['params']) == {'stem', 'stage1', 'stage2', 'norm'}
  variables['params']['norm'] = {'scale': np.ones(32, 'f4'), 'bias': np.zeros(32, 'f4')}

  @jax.jit
  def run(variables, x):
    before = backbone.apply(variables, x, train=False, end_child=2)
    return before, backbone.apply(variables, before, train=False, start_child=2)

  before, after = run(variables, x)
  chex.assert_shape([before, after], [(2, 6, 32), (2, 7, 32)])
  assert backbone.token(before) is None
  np.testing.assert_array_equal(backbone.token(after), after[:, 0])
  maps = np.asarray(backbone.maps(before))
  standardised = (maps - maps.mean(-1, keepdims=True)) / maps.std(-1, keepdims=True)
  np.testing.assert_allclose(backbone.maps(after), standardised, atol=1e-4)


def test_a_pool_beside_a_class_token_and_registers():
  backbone = vit.vit_ti16(**TINY, registers=1, pool='attention')
  value = np.random.RandomState(0).rand(2, 3 + 6, 32)
  np.testing.assert_array_equal(backbone.token(value), value[:, 0])
  np.testing.assert_array_equal(backbone.maps(value), value[:, 3:].reshape(2, 3, 2, 32))
  np.testing.assert_array_equal(backbone.maps(value[:, 1:]), value[:, 3:].reshape(2, 3, 2, 32))


@pytest.mark.parametrize(
  ('keys', 'words'),
  [
    (dict(pool='max'), "pool='max'; expected 'attention' or 'mean'"),
    (dict(positions='none'), r"positions='none'; expected one of: token\+patches, patches"),
    (dict(positions='rotary', heads=16), '2 axes do not share the 1 pairs of a head of 2'),
  ],
)
def test_what_is_no_switch_is_refused(keys, words):
  backbone = vit.vit_ti16(**{**TINY, **keys})
  with pytest.raises(MedtlError, match=words):
    shapes_of(Net(backbone, heads.linear(2)))


def test_rotary_positions_turn_by_differences_alone():
  """Products of turned queries and keys depend on where they lie to each other, not on where."""
  row = np.random.RandomState(0).standard_normal((2, 1, 1, 1, 16))
  same = np.broadcast_to(row, (2, 1, 1, 2 + 15, 16))  # the same query, and key, at every place
  with jax.enable_x64():
    query, key = (np.asarray(rotary.rotate(jnp.asarray(x), (3, 5))[0, 0]) for x in same)
  np.testing.assert_array_equal(query[:2], same[0, 0, 0, :2])  # class token and registers
  products = (query[2:] @ key[2:].T).reshape(3, 5, 3, 5)
  assert products[0, 1, 1, 3] == pytest.approx(products[1, 2, 2, 4], rel=1e-9)
  assert abs(products[0, 1, 1, 3] - products[0, 1, 1, 4]) > 1e-3
  assert abs(products[0, 1, 1, 3] - products[0, 1, 2, 3]) > 1e-3


def test_rotary_nets_take_pictures_of_any_size_with_the_same_parameters():
  small, large = (vit.dinov3_vit_s16(**{**TINY, 'size': size}) for size in ((32, 32), (64, 48)))
  shapes = [shapes_of(Net(backbone, heads.linear(2))) for backbone in (small, large)]
  chex.assert_trees_all_equal_shapes(*shapes)


@pytest.mark.parametrize(('dtype', 'bound'), [('float64', 1e-12), ('bfloat16', 2e-2)])
def test_gradients_of_activations_are_those_of_their_formulas(dtype, bound):
  gate, x = np.random.RandomState(0).standard_normal((2, 4, 8)) * 3

  def outputs(tanh, gated):
    """Return a function of (gate, x): both activations, and the gradients of their sums."""

    def run(gate, x):
      slope = jax.grad(lambda x: tanh(x).astype('f8').sum())(x)
      slopes = jax.grad(lambda *both: gated(*both).astype('f8').sum(), (0, 1))(gate, x)
      return tanh(x), gated(gate, x), slope, *slopes

    return jax.jit(run)

  with jax.enable_x64():
    ours = outputs(gelu_tanh, swiglu)(jnp.asarray(gate, dtype), jnp.asarray(x, dtype))
    plain = lambda x: jax.nn.gelu(x, approximate=True)
    theirs = outputs(plain, lambda gate, x: jax.nn.silu(gate) * x)(gate, x)
  chex.assert_type(ours, dtype)
  for mine, expected in zip(ours, theirs, strict=True):
    near(np.asarray(mine).astype('f8'), np.asarray(expected), bound)


META = {  # their names of what transformers calls so
  'dinov2': (
    (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
    (r'^embeddings\.position_embeddings$', 'pos_embed'),
    (r'^embeddings\.', ''),
    (r'^layernorm\.', 'norm.'),
    (r'^encoder\.layer\.', 'blocks.'),
    (r'attention\.output\.dense\.', 'attn.proj.'),
    (r'attention\.attention\.(query|key|value)', r'attn.\1'),
    (r'weights_in', 'w12'),
    (r'weights_out', 'w3'),
    (r'layer_scale(\d)\.lambda1$', r'ls\1.gamma'),
  ),
  'dinov3': (
    (r'^embeddings\.patch_embeddings\.', 'patch_embed.proj.'),
    (r'^embeddings\.register_tokens$', 'storage_tokens'),
    (r'^embeddings\.', ''),
    (r'^layer\.', 'blocks.'),
    (r'attention\.o_proj\.', 'attn.proj.'),
    (r'attention\.q_proj', 'attn.query'),
    (r'attention\.k_proj', 'attn.key'),
    (r'attention\.v_proj', 'attn.value'),
    (r'layer_scale(\d)\.lambda1$', r'ls\1.gamma'),
  ),
}
PLAIN = (('up_proj', 'fc1'), ('down_proj', 'fc2'))
GATED = (('gate_proj', 'w1'), ('up_proj', 'w2'), ('down_proj', 'w3'))


def meta_s(theirs, words):
  """Return arrays under Meta's names: queries, keys and values are one array there."""
  meta = {}
  for name, array in theirs.items():
    for pattern, word in words:
      name = re.sub(pattern, word, name)
    meta[name] = array
  for block in range(TINY['depth']):
    for leaf in ('weight', 'bias'):
      parts = [
        meta.pop(f'blocks.{block}.attn.{word}.{leaf}', None) for word in ('query', 'key', 'value')
      ]
      if parts[1] is None:  # the keys' bias, which a mask takes away
        parts[1] = np.full_like(parts[0], 7)
        meta[f'blocks.{block}.attn.qkv.bias_mask'] = np.ones(3 * len(parts[0]), 'f4')
      meta[f'blocks.{block}.attn.qkv.{leaf}'] = np.concatenate(parts)
  return meta


@pytest.mark.parametrize(
  ('case', 'factory', 'keys', 'words', 'more', 'dialect'),
  [
    ('dinov2_gated', 'dinov2_vit_g14', FOURTEENTHS, META['dinov2'], (), 'timm'),
    ('dinov3', 'dinov3_vit_s16', TINY, META['dinov3'] + PLAIN, ('rope_embed.periods',), 'dinov3'),
    ('dinov3_gated', 'dinov3_vit_h16plus', TINY, META['dinov3'] + GATED, (), 'dinov3'),
  ],
)
def test_meta_s_names_say_the_same_as_hugging_face_s(
  reference, case, factory, keys, words, more, dialect
):
  theirs = seeded.weights(json.loads(str(reference[f'{case}/shapes'])))
  other = meta_s(theirs, words) | dict.fromkeys(more, np.zeros(4, 'f4'))
  backbone = getattr(vit, factory)(**keys)
  first = taken_in(backbone, theirs)
  second = taken_in(backbone, other)
  assert second[2].dialect == dialect
  chex.assert_trees_all_equal(first[1], second[1])


def test_a_whole_siglip_model_says_the_same_as_its_tower(reference):
  theirs = seeded.weights(json.loads(str(reference['siglip_hf/shapes'])))
  whole = {f'vision_model.{name}': array for name, array in theirs.items()}
  whole |= {
    'text_model.encoder.layers.0.mlp.fc1.bias': np.zeros(4, 'f4'),
    'logit_scale': np.zeros(1),
  }
  whole |= {'vision_model.embeddings.position_ids': np.zeros((1, 6))}
  backbone = vit.siglip_vit_b16(**SIGLIP)
  chex.assert_trees_all_equal(taken_in(backbone, theirs)[1], taken_in(backbone, whole)[1])


FULL = {  # factory → the size whose positions the published file holds
  'siglip_vit_b16': 224,
  'siglip_vit_b32': 256,
  'siglip_vit_l16': 256,
  'siglip_so400m14': 448,
  'siglip_so400m16': 256,
  'dinov2_vit_g14': 518,
  'dinov3_vit_s16': 224,
  'dinov3_vit_s16plus': 224,
  'dinov3_vit_b16': 224,
  'dinov3_vit_l16': 224,
  'dinov3_vit_h16plus': 224,
  'uni': 224,
  'uni2_h': 224,
  'virchow2': 224,
  'gigapath_tile': 224,
  'h_optimus_0': 224,
}


def quick_first(names, quick):
  """Yield the names as parameters, slow ones but for the quick."""
  for name in names:
    yield pytest.param(name, marks=() if name in quick else pytest.mark.slow)


@pytest.mark.parametrize('factory', quick_first(FULL, ('siglip_vit_b16', 'dinov3_vit_s16plus')))
def test_the_published_names_at_full_size_are_all_there_is(reference, factory, monkeypatch):
  """Every array finds its place, and there are as many numbers; none is made."""
  monkeypatch.setattr(port, '_check_numbers', lambda ported: None)
  monkeypatch.setattr(
    port, '_tree', lambda ported: {path: piece.array.shape for path, piece in ported.items()}
  )
  published = json.loads(str(reference[f'full/{factory}']))
  backbone = getattr(vit, factory)(size=(FULL[factory],) * 2)
  shapes = shapes_of(Net(backbone, heads.linear(2)))['params']['backbone']
  arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in published.items()}
  found, report = port.port(arrays, {'params': {'backbone': shapes}}, vit.RENAMES, adapt=vit.ADAPT)
  assert not report.ignored and all('stem/positions' in note for note in report.notes)
  assert found == {
    path: leaf.shape for path, leaf in pytrees.flatten({'params': {'backbone': shapes}}).items()
  }
  count = sum(int(np.prod(shape)) for shape in published.values())
  assert pytrees.count_parameters(shapes) == count


def test_open_clip_s_file_gives_the_image_tower_and_says_what_is_left_out(reference):
  said = []
  arrays = checkpoint_files.read(FIXTURES / 'open_clip.pth', vit.RENAMES, say=said.append)
  backbone = vit.vit_b16(width=16, depth=2, heads=2, patch=4, size=(12, 8))
  near(features(*taken_in(backbone, arrays)[:2], (12, 8)), reference['open_clip/tokens'], 1e-5)
  (words,) = said
  assert "below 'visual.trunk'" in words
  assert 'visual.head' in words and 'text' in words and 'logit_scale' in words
  assert vit.WEIGHTS['biomedclip_b16'].mean == vit.RENAMES['clip_hf'].mean


def test_a_masked_autoencoder_s_file_gives_its_encoder(reference):
  said = []
  arrays = checkpoint_files.read(FIXTURES / 'mae.pth', vit.RENAMES, say=said.append)
  backbone = vit.vit_b16(width=16, depth=2, heads=2, patch=4, size=(12, 8))
  net, variables, report = taken_in(backbone, arrays)
  near(features(net, variables, (12, 8)), reference['mae/tokens'], 1e-5)
  assert {name.split('_')[0] for name in report.ignored} == {'decoder', 'mask'}


def test_a_fine_tuned_autoencoder_needs_the_pool_that_its_norm_follows(reference):
  arrays = seeded.weights(json.loads(str(reference['fine_tuned/shapes'])))
  with pytest.raises(MedtlError, match=r'missing: params/backbone/norm/.*(?s:.*)fc_norm'):
    taken_in(vit.vit_l16(**TINY), arrays, 5)


def test_positions_of_a_slice_are_those_of_every_depth():
  """A volume that repeats a slice has the picture's tokens, at all depths, before they mix."""
  keys = dict(width=32, depth=1, heads=4)
  flat = vit.vit_b16(size=(64, 32), patch=(8, 8), **keys)
  deep = vit.vit_b16(size=(12, 64, 32), patch=(4, 8, 8), **keys)
  x = jnp.asarray(seeded.picture(1, 64, 32, 3))
  volume = jnp.repeat(x[:, None], 12, axis=1)
  # 64 = 8 · 8 = 4 · 4 · 4 positions: of a square, since the patches are those of pictures
  square = vit.vit_b16(size=(64, 64), patch=(8, 8), **keys)
  shapes = [
    shapes_of(Net(backbone, heads.linear(2)))['params'] for backbone in (square, flat, deep)
  ]
  square_s = seeded.weights({k: v.shape for k, v in pytrees.flatten(shapes[0]['backbone']).items()})
  theirs = as_timm(square_s)
  tokens = []
  for backbone, pictures, way in ((flat, x, ''), (deep, volume, 'mean')):
    net = Net(backbone, heads.linear(2))
    found, report = port.port(
      theirs, shapes_of(net), vit.RENAMES, adapt=vit.ADAPT, fresh=('head/.*',), inflate=way
    )
    params = {'params': found['params']['backbone']}
    stem = jax.jit(functools.partial(backbone.apply, train=False, end_child=1))
    tokens.append(stem(params, pictures))
  maps = deep.maps(tokens[1])
  chex.assert_shape(maps, (1, 3, 8, 4, 32))
  for depth in range(3):
    near(maps[:, depth], np.asarray(flat.maps(tokens[0])), 1e-6)
  near(deep.token(tokens[1]), np.asarray(flat.token(tokens[0])), 1e-6)
  assert 'backbone/stem/positions from (1, 64, 32) to (3, 8, 4, 32)' in report.notes
  with pytest.raises(MedtlError, match=r'config\.inflate='):
    port.port(
      theirs,
      shapes_of(Net(deep, heads.linear(2))),
      vit.RENAMES,
      adapt=vit.ADAPT,
      fresh=('head/.*',),
    )


def as_timm(ours):
  """Return our arrays of a plain ViT under timm's names and in PyTorch's axes."""
  theirs = {
    'cls_token': ours['stem/class_token'][None, None],
    'pos_embed': np.concatenate(
      [ours['stem/class_position'][None], ours['stem/positions'].reshape(-1, 32)]
    )[None],
    'patch_embed.proj.weight': np.moveaxis(ours['stem/embedding/kernel'], (-1, -2), (0, 1)),
    'patch_embed.proj.bias': ours['stem/embedding/bias'],
    'norm.weight': ours['norm/scale'],
    'norm.bias': ours['norm/bias'],
  }
  block = 'stage1'
  for number in (1, 2):
    theirs[f'blocks.0.norm{number}.weight'] = ours[f'{block}/norm{number}/scale']
    theirs[f'blocks.0.norm{number}.bias'] = ours[f'{block}/norm{number}/bias']
  for name, words in (('attn.qkv', ('query', 'key', 'value')), ('attn.proj', ('out',))):
    kernels = [ours[f'{block}/attention/{word}/kernel'].T for word in words]
    biases = [ours[f'{block}/attention/{word}/bias'] for word in words]
    theirs[f'blocks.0.{name}.weight'] = np.concatenate(kernels)
    theirs[f'blocks.0.{name}.bias'] = np.concatenate(biases)
  for name, word in (('fc1', 'up'), ('fc2', 'down')):
    theirs[f'blocks.0.mlp.{name}.weight'] = ours[f'{block}/mlp/{word}/kernel'].T
    theirs[f'blocks.0.mlp.{name}.bias'] = ours[f'{block}/mlp/{word}/bias']
  return theirs
