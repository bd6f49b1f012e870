"""Vision transformers against transformers and timm.

Seeded weights (fixtures/make_vit.py), and laws of tokens and maps.
"""

import json
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import expressions, pytrees
from medtl.core.types import MedtlError
from medtl.models import Net, heads
from medtl.models.backbones import vit
from medtl.models.pretrained import port
from medtl.models.pretrained.vit_names import resize_positions
from tests.fixtures import seeded

FIXTURES = Path(__file__).parents[1] / 'fixtures'
TINY = dict(width=32, depth=2, heads=4)


@pytest.fixture(scope='module')
def reference():
  with np.load(FIXTURES / 'vit.npz') as file:
    return dict(file)


def ported(reference, case, backbone, classes=0):
  """Return the net (the backbone where there are no classes) and the seeded weights in it."""
  net = Net(backbone, heads.linear(max(1, classes)))
  shapes = jax.eval_shape(
    lambda: net.init(jax.random.key(0), jnp.zeros((1, *backbone.size, 3)), train=False)
  )
  arrays = seeded.weights(json.loads(str(reference[f'{case}/shapes'])))
  found, report = port.port(
    arrays, shapes, vit.RENAMES, adapt=vit.ADAPT, fresh=() if classes else ('head/.*',)
  )
  found['params'].setdefault(
    'head', {'dense': {'kernel': np.zeros((backbone.width, 1)), 'bias': np.zeros(1)}}
  )
  return net, jax.tree.map(lambda leaf: jnp.asarray(leaf, backbone.dtype), found), report


def parameters(backbone, channels=3):
  """Return the shapes of a backbone's parameters, as a port wants them."""
  shapes = jax.eval_shape(
    lambda: backbone.init(jax.random.key(0), jnp.zeros((1, *backbone.size, channels)), train=False)
  )
  return {'params': {'backbone': shapes['params']}}


def near(found, expected, bound):
  chex.assert_shape(found, expected.shape)
  assert np.abs(np.asarray(found) - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize(
  ('case', 'dtype', 'bound', 'size', 'keys'),
  [
    ('vit_b16', 'float32', 1e-5, 224, {}),
    ('clip_vit_b16', 'float32', 1e-5, 224, {}),
    ('dinov2_vit_s14', 'float32', 1e-5, 224, {}),
    ('dinov2_vit_s14', 'float64', 1e-9, 224, {}),
    ('dinov2_registers', 'float64', 1e-9, 56, dict(TINY, registers=4)),
  ],
)
def test_every_block_is_the_reference_s(reference, case, dtype, bound, size, keys):
  with jax.enable_x64(dtype == 'float64'):
    factory = getattr(vit, 'dinov2_vit_s14' if keys else case)
    backbone = factory(size=(size, size), dtype=jnp.dtype(dtype), **keys)
    net, variables, report = ported(reference, case, backbone, 10 if case == 'vit_b16' else 0)
    value, hidden = (
      jnp.asarray(seeded.picture(1, size, size, 3), dtype),
      reference[f'{case}/hidden'],
    )
    for child in range(backbone.stages + 1):
      value = net.apply(
        variables, value, train=False, start_child=child, end_child=child + 1, method='features'
      )
      if child < backbone.stages:  # the last child ends with the norm
        near(value[0, ::7, ::13], hidden[child], bound)
    near(backbone.token(value)[0], reference[f'{case}/token'], bound)
    if case == 'vit_b16':
      near(
        net.apply(variables, value, train=False, start_child=backbone.stages + 1)[0],
        reference[f'{case}/logits'],
        bound,
      )
  expected = {'vit_b16': 'hf', 'clip_vit_b16': 'clip_hf'}.get(case, 'dinov2_hf')
  assert report.dialect == expected and report.mean == vit.RENAMES[expected].mean


@pytest.mark.parametrize(('dtype', 'bound'), [('float32', 1e-5), ('float64', 1e-9)])
@pytest.mark.parametrize('case', ['timm', 'augreg'])
def test_rectangular_grids_and_other_names_against_timm(reference, case, dtype, bound):
  with jax.enable_x64(dtype == 'float64'):
    backbone = vit.vit_ti16(size=(48, 32), dtype=jnp.dtype(dtype), **TINY)
    net, variables, report = ported(reference, case, backbone, 5)
    x = jnp.asarray(seeded.picture(2, 48, 32, 3), dtype)
    near(
      net.apply(variables, x, train=False, method='features'), reference[f'{case}/tokens'], bound
    )
    near(net.apply(variables, x, train=False), reference[f'{case}/logits'], bound)
  assert report.dialect == case


def test_openai_s_names_say_the_same_as_hugging_face_s():
  backbone = vit.clip_vit_b16(size=(32, 48), patch=16, **TINY)
  layer = {
    'layer_norm1': 'ln_1',
    'layer_norm2': 'ln_2',
    'self_attn.out_proj': 'attn.out_proj',
    'mlp.fc1': 'mlp.c_fc',
    'mlp.fc2': 'mlp.c_proj',
  }
  square = seeded.weights(clip_shapes(32, 2, 4 * 4))
  other = {
    'visual.class_embedding': square['vision_model.embeddings.class_embedding'],
    'visual.positional_embedding': square['vision_model.embeddings.position_embedding.weight'],
    'visual.conv1.weight': square['vision_model.embeddings.patch_embedding.weight'],
    'visual.proj': square['visual_projection.weight'].T,
    'logit_scale': np.zeros((), 'f4'),
    'positional_embedding': np.zeros((77, 8), 'f4'),
    'transformer.resblocks.0.ln_1.bias': np.zeros(8, 'f4'),
  }
  for part in ('weight', 'bias'):
    other |= {
      f'visual.{ours}.{part}': square[f'vision_model.{theirs}.{part}']
      for ours, theirs in (('ln_pre', 'pre_layrnorm'), ('ln_post', 'post_layernorm'))
    }
    for i in range(2):
      there, here = f'vision_model.encoder.layers.{i}', f'visual.transformer.resblocks.{i}'
      other |= {
        f'{here}.{ours}.{part}': square[f'{there}.{theirs}.{part}']
        for theirs, ours in layer.items()
      }
      other[f'{here}.attn.in_proj_{part}'] = np.concatenate(
        [square[f'{there}.self_attn.{name}_proj.{part}'] for name in 'qkv']
      )
  first, _ = port.port(square, parameters(backbone), vit.RENAMES, adapt=vit.ADAPT)
  second, report = port.port(other, parameters(backbone), vit.RENAMES, adapt=vit.ADAPT)
  assert report.dialect == 'clip_openai'
  chex.assert_trees_all_equal(first, second)


DINOV2_NAMES = (  # Hugging Face's names, and Meta's own
  (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
  (r'^embeddings\.position_embeddings$', 'pos_embed'),
  (r'^embeddings\.', ''),
  (r'^layernorm\.', 'norm.'),
  (r'^encoder\.layer\.', 'blocks.'),
  (r'attention\.output\.dense\.', 'attn.proj.'),
  (r'layer_scale(\d)\.lambda1$', r'ls\1.gamma'),
)


def test_meta_s_names_of_dinov2_say_the_same_as_hugging_face_s(reference):
  backbone = vit.dinov2_vit_s14(size=(56, 56), registers=4, **TINY)
  theirs = seeded.weights(json.loads(str(reference['dinov2_registers/shapes'])))
  meta = {}
  for name, array in theirs.items():
    for pattern, word in DINOV2_NAMES:
      name = re.sub(pattern, word, name)
    meta[name] = array
  for block in range(TINY['depth']):
    for part in ('weight', 'bias'):
      names = [
        f'blocks.{block}.attention.attention.{word}.{part}' for word in ('query', 'key', 'value')
      ]
      meta[f'blocks.{block}.attn.qkv.{part}'] = np.concatenate([meta.pop(name) for name in names])
  first, _ = port.port(theirs, parameters(backbone), vit.RENAMES, adapt=vit.ADAPT)
  second, report = port.port(meta, parameters(backbone), vit.RENAMES, adapt=vit.ADAPT)
  assert report.dialect == 'timm'
  chex.assert_trees_all_equal(first, second)


def clip_shapes(width, depth, patches):
  """Return the published names and shapes of a CLIP image tower."""
  wide = {
    'self_attn.q_proj': (width, width),
    'self_attn.k_proj': (width, width),
    'self_attn.v_proj': (width, width),
    'self_attn.out_proj': (width, width),
    'mlp.fc1': (4 * width, width),
    'mlp.fc2': (width, 4 * width),
  }
  shapes = {
    'embeddings.class_embedding': (width,),
    'embeddings.patch_embedding.weight': (width, 3, 16, 16),
    'embeddings.position_embedding.weight': (1 + patches, width),
  }
  norms = [
    'pre_layrnorm',
    'post_layernorm',
    *(f'encoder.layers.{i}.layer_norm{j}' for i in range(depth) for j in (1, 2)),
  ]
  shapes |= {f'{norm}.{part}': (width,) for norm in norms for part in ('weight', 'bias')}
  for i in range(depth):
    shapes |= {f'encoder.layers.{i}.{name}.weight': shape for name, shape in wide.items()}
    shapes |= {f'encoder.layers.{i}.{name}.bias': shape[:1] for name, shape in wide.items()}
  return {f'vision_model.{name}': shape for name, shape in shapes.items()} | {
    'visual_projection.weight': (8, width)
  }


def test_grey_pictures_give_clip_what_three_copies_give():
  grey, tokens = np.random.RandomState(0).rand(2, 64, 64, 1).astype('f4'), []
  backbone = vit.clip_vit_b16(size=(64, 64), **TINY)
  for channels in (1, 3):
    found, report = port.port(
      seeded.weights(clip_shapes(32, 2, 4 * 4)),
      parameters(backbone, channels),
      vit.RENAMES,
      adapt=vit.ADAPT,
    )
    x = (np.repeat(grey, channels, -1) - np.float32(report.mean)) / np.float32(report.std)
    tokens.append(backbone.apply({'params': found['params']['backbone']}, x, train=False))
  near(tokens[0], np.asarray(tokens[1]), 1e-5)


def test_positions_are_resized_as_torch_does(reference):
  source = seeded.picture(1, 7, 5, 8)[0]
  assert resize_positions(source, (7, 5)) is source
  for name in ('14x10', '3x4', '10x3'):
    grid = tuple(map(int, name.split('x')))
    np.testing.assert_allclose(
      resize_positions(source, grid), reference[f'resized/{name}'], atol=2e-6
    )


def test_positions_of_no_square_grid_are_refused():
  with pytest.raises(
    MedtlError, match=r'12 position embeddings .* neither a square nor a grid of \(3, 3\)'
  ):
    vit.ADAPT['backbone/stem/positions'](np.zeros((1, 12, 8)), (3, 3, 8))


@pytest.mark.parametrize(
  ('size', 'patch', 'registers', 'token'),
  [((32, 48), 16, 0, True), ((24,), 4, 2, True), ((8, 8, 12), (4, 4, 2), 3, False)],
)
def test_a_patch_stays_at_its_place(size, patch, registers, token):
  net = vit.ViT(
    size=size, patch=patch, registers=registers, class_token=token, layer_scale=True, **TINY
  )
  x = np.zeros((2, *size, 1), 'f4')
  place = tuple(n // 2 for n in net.grid)
  x[(1, *(slice(i * p, i * p + p) for i, p in zip(place, net.patches, strict=True)))] = 1
  variables = net.init(jax.random.key(0), x, train=False)
  value = net.apply(variables, x, train=False, end_child=1)
  chex.assert_shape(value, (2, token + registers + np.prod(net.grid), 32))
  chex.assert_shape(net.maps(value), (2, *net.grid, 32))
  changed = np.any(net.maps(value)[0] != net.maps(value)[1], axis=-1)
  assert np.argwhere(changed).tolist() == [list(place)]
  assert (net.token(value) is None) is (not token)
  whole = net.apply(variables, x, train=False)
  rest = net.apply(variables, value, train=False, start_child=1)
  chex.assert_trees_all_equal(whole, rest)


def test_pictures_of_another_size_are_refused():
  with pytest.raises(MedtlError, match=r'\(30, 32\) do not divide .* \(16, 16\)'):
    vit.vit_ti16(size=(30, 32)).init(jax.random.key(0), jnp.zeros((1, 30, 32, 3)), train=False)
  with pytest.raises(MedtlError, match=r'size \(32, 32\), found \(48, 32\)'):
    vit.vit_ti16(size=(32, 32), **TINY).init(
      jax.random.key(0), jnp.zeros((1, 48, 32, 3)), train=False
    )


def test_a_factory_names_its_keys():
  with pytest.raises(MedtlError, match="did you mean 'registers'"):
    expressions.component(dict(name='vit.vit_ti16', register=4), 'medtl.models.backbones', 'model')
  factory, keys = expressions.component(
    dict(name='vit.dinov2_vit_s14', size=[28, 42], registers=4), 'medtl.models.backbones', 'model'
  )
  assert factory(**keys) == vit.ViT(
    size=(28, 42), width=384, heads=6, patch=14, layer_scale=True, registers=4
  )


def test_dropped_branches_leave_the_tokens_alone_in_training_and_never_otherwise():
  net = vit.ViT(size=(32, 32), drop_path=1 - 1e-6, **TINY)
  x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
  variables = net.init(jax.random.key(1), x, train=False)
  before = net.apply(variables, x, train=False, end_child=2)
  after = net.apply(
    variables, before, train=True, start_child=2, rngs={'dropout': jax.random.key(2)}
  )
  mean, var = before.mean(-1, keepdims=True), before.var(-1, keepdims=True)
  chex.assert_trees_all_close(after, (before - mean) / jnp.sqrt(var + 1e-6), atol=1e-5)
  assert np.any(net.apply(variables, before, train=False, start_child=2) != after)


def test_half_precision_is_near():
  x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
  net = vit.ViT(size=(32, 32), **TINY)
  variables = net.init(jax.random.key(1), x, train=False)
  half = net.clone(dtype=jnp.bfloat16).apply(variables, x, train=False)
  chex.assert_type(half, jnp.bfloat16)
  near(half.astype('f4'), net.apply(variables, x, train=False), 0.05)


def test_checkpoints_say_where_they_were_read_and_what_they_expect():
  dialects = [vit.RENAMES[name] for name in ('augreg', 'timm', 'clip_hf')]
  known = {(dialect.mean, dialect.std) for dialect in dialects}
  for name, entry in vit.WEIGHTS.items():
    own_statistics = name in ('rad_dino', 'rad_dino_meta', 'h_optimus_0', 'dinov3_l16_sat')
    assert own_statistics is ((entry.mean, entry.std) not in known)
    assert entry.licence and re.search(r'(github|huggingface|google)\.com?', entry.note)
    if entry.url:
      assert entry.url.startswith('https://') and entry.sha256 in entry.url
    else:
      assert entry.page.startswith('https://') and (entry.terms or name == 'h_optimus_0')


@pytest.mark.real
def test_real_clip_finds_two_crops_of_a_picture_alike(real):
  data = pytest.importorskip('skimage.data')
  backbone = vit.clip_vit_b16()
  arrays = packed(real / 'weights' / 'clip_vit_b16_vision_int8.npz')
  found, report = port.port(arrays, parameters(backbone), vit.RENAMES, adapt=vit.ADAPT)
  crops = [
    picture[top : top + 224, left : left + 224] / 255
    for picture in (data.chelsea(), data.coffee(), data.astronaut())
    for top, left in ((20, 120), (60, 160))
  ]
  x = (np.stack(crops).astype('f4') - np.float32(report.mean)) / np.float32(report.std)
  run = jax.jit(lambda params: backbone.token(backbone.apply({'params': params}, x, train=False)))
  tokens = np.asarray(run(found['params']['backbone']))
  tokens = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
  alike = (tokens @ tokens.T).reshape(3, 2, 3, 2)
  same = [alike[i, 0, i, 1] for i in range(3)]
  different = [
    alike[i, a, j, b]
    for i in range(3)
    for j in range(3)
    if i != j
    for a in range(2)
    for b in range(2)
  ]
  assert min(same) > max(different)
  assert pytrees.count_parameters(found) == 85_799_424


def packed(file):
  """Return float32 arrays of a file in which linear weights are int8 with a scale for each row."""
  with np.load(file) as arrays:
    names = [name for name in arrays.files if not name.endswith(('.int8', '.scale'))]
    whole = [name.removesuffix('.int8') for name in arrays.files if name.endswith('.int8')]
    return {name: arrays[name].astype('f4') for name in names} | {
      name: arrays[f'{name}.int8'].astype('f4') * arrays[f'{name}.scale'][:, None] for name in whole
    }


def test_early_convolutions_leave_the_grid_as_it_was_and_look_beyond_a_patch():
  plain, early = (
    vit.vit_ti16(size=(32, 16), patch=8, width=24, depth=1, heads=2, **keys)
    for keys in ({}, {'early': (4, 6)})
  )
  x = jax.random.normal(jax.random.key(0), (2, 32, 16, 1))
  variables = early.init(jax.random.key(1), x, train=False)
  chex.assert_shape(variables['params']['stem']['embedding']['kernel'], (2, 2, 6, 24))
  chex.assert_shape(
    early.apply(variables, x, train=False),
    plain.init_with_output(jax.random.key(1), x, train=False)[0].shape,
  )
  moved = early.apply(variables, x.at[:, 15, 7].add(1.0), train=False, end_child=1) - early.apply(
    variables, x, train=False, end_child=1
  )
  assert (
    np.abs(moved).max((0, 2)) > 1e-6
  ).sum() == 4  # four patches meet at that pixel, and no fifth sees it


def test_early_convolutions_that_do_not_divide_the_patch_are_refused():
  with pytest.raises(
    MedtlError, match=r'2 early convolutions halve a patch each time, which \(2, 2\) does not allow'
  ):
    vit.vit_ti16(size=(8, 8), patch=2, early=(4, 4)).init(
      jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False
    )
