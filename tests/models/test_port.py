"""A port is strict both ways, and what it changes computes the same."""

import ast
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from medtl.core import pytrees
from medtl.core.types import MedtlError
from medtl.models import Net, heads
from medtl.models.backbones import efficientnet, resnet, vit
from medtl.models.pretrained import dialects, port
from medtl.models.pretrained.dialects import Dialect
from medtl.run import initial_weights

TARGET = {
  'params/backbone/stem/conv/kernel': (3, 3, 3, 8),
  'params/backbone/stem/norm/scale': (8,),
  'batch_stats/backbone/stem/norm/mean': (8,),
  'params/backbone/stage1/query/kernel': (8, 8),
  'params/backbone/stage1/key/kernel': (8, 8),
  'params/backbone/stage1/query/bias': (8,),
  'params/backbone/stage1/key/bias': (8,),
  'params/head/dense/kernel': (8, 2),
}
THEIRS = {
  'conv.weight': (8, 3, 3, 3),
  'bn.weight': (8,),
  'bn.running_mean': (8,),
  'bn.num_batches_tracked': (),
  'qk.weight': (16, 8),
  'qk.bias': (16,),
  'fc.weight': (10, 8),
}
DIALECT = Dialect(
  'torch',
  (
    (r'^conv\.weight$', 'params/backbone/stem/conv/kernel'),
    (r'^bn\.weight$', 'params/backbone/stem/norm/scale'),
    (r'^bn\.running_mean$', 'batch_stats/backbone/stem/norm/mean'),
    (r'.*num_batches_tracked$', ''),
    (r'^qk\.weight$', 'params/backbone/stage1/{query,key}/kernel'),
    (r'^qk\.bias$', 'params/backbone/stage1/{query,key}/bias'),
    (r'^fc\.weight$', 'params/head/dense/kernel'),
  ),
)
OTHER = Dialect('torch', ((r'^(.*)$', r'params/\1'),))


def numbers(shapes):
  random = np.random.RandomState(0)
  return {name: np.asarray(random.standard_normal(shape), 'f4') for name, shape in shapes.items()}


def target(**changes):
  return pytrees.unflatten(
    {path: jax.ShapeDtypeStruct(shape, 'f4') for path, shape in {**TARGET, **changes}.items()}
  )


def test_arrays_arrive_renamed_transposed_and_cut_and_the_head_stays_fresh():
  arrays = numbers(THEIRS)
  found, report = port.port(
    arrays, target(), {'other': OTHER, 'right': DIALECT}, fresh=('head/.*',)
  )
  leaves = pytrees.flatten(found)
  assert set(leaves) == set(TARGET) - {'params/head/dense/kernel'}
  assert report == (
    'right',
    7,
    ('params/head/dense/kernel',),
    ('bn.num_batches_tracked', 'fc.weight'),
    DIALECT.mean,
    DIALECT.std,
    (),
  )
  np.testing.assert_array_equal(
    leaves['params/backbone/stem/conv/kernel'][1, 2], arrays['conv.weight'][:, :, 1, 2].T
  )
  np.testing.assert_array_equal(
    leaves['params/backbone/stage1/key/kernel'], arrays['qk.weight'][8:].T
  )
  np.testing.assert_array_equal(leaves['params/backbone/stage1/query/bias'], arrays['qk.bias'][:8])
  assert all(leaf.dtype == np.float32 and leaf.flags.c_contiguous for leaf in leaves.values())


@pytest.mark.parametrize(
  'change, words',
  [
    (dict(missing='bn.weight'), r'missing: params/backbone/stem/norm/scale \(8,\)'),
    (dict(extra={'surplus': (3,)}), r'unexpected: surplus \(3,\)'),
    (
      dict(extra={'conv.weight': (8, 3, 5, 5)}),
      r'conv.weight → .*/stem/conv/kernel: found \(5, 5, 3, 8\), expected \(3, 3, 3, 8\)',
    ),
    (dict(extra={'qk.weight': (15, 8)}), 'missing: params/backbone/stage1/query/kernel'),
    (
      dict(extra={'params/backbone/stem/norm/scale': (8,)}),
      'twice: bn.weight and params/backbone/stem/norm/scale both become',
    ),
  ],
)
def test_each_difference_is_an_error_that_names_it(change, words):
  shapes = {
    name: shape for name, shape in THEIRS.items() if name != change.get('missing')
  } | change.get('extra', {})
  with pytest.raises(MedtlError, match=words) as error:
    port.port(numbers(shapes), target(), {'other': OTHER, 'right': DIALECT}, fresh=('head/.*',))
  assert "read as 'right' (which fits best of: other, right)" in str(error.value)


def test_the_checkpoints_head_is_an_error_unless_it_is_fresh():
  with pytest.raises(
    MedtlError, match=r'fc.weight → params/head/dense/kernel: found \(8, 10\), expected \(8, 2\)'
  ):
    port.port(numbers(THEIRS), target(), {'right': DIALECT})
  with pytest.raises(
    MedtlError,
    match=r"fresh rule 'haed/\.\*' matches nothing; the paths begin backbone/stem/norm/mean",
  ):
    port.port(numbers(THEIRS), target(), {'right': DIALECT}, fresh=('haed/.*',))


def advised(arrays, wanted, dialects=None, **keys):
  """Return the advice of the error of a port, and the config.fresh that it names."""
  with pytest.raises(MedtlError) as error:
    port.port(arrays, wanted, dialects or {'right': DIALECT}, **keys)
  advice = str(error.value).splitlines()[-1]
  rules = re.search(r'config\.fresh=(\(.*\))', advice)
  return advice, ast.literal_eval(rules[1]) if rules else ()


def test_the_advice_for_another_head_fits():
  advice, rules = advised(numbers(THEIRS), target())
  assert 'all but the head fits' in advice
  assert port.port(numbers(THEIRS), target(), {'right': DIALECT}, fresh=rules)[1].ported == 7
  headless = {name: shape for name, shape in THEIRS.items() if name != 'fc.weight'}
  assert advised(numbers(headless), target())[1] == rules


def test_the_advice_for_one_part_of_a_checkpoint_fits():
  stem = {name: shape for name, shape in THEIRS.items() if not name.startswith('qk')}
  advice, rules = advised(numbers(stem), target(), fresh=('head/.*',))
  assert 'it lacks 4 of 7 arrays and fits otherwise. Is it one part of several?' in advice
  assert (
    port.port(numbers(stem), target(), {'right': DIALECT}, fresh=('head/.*', *rules))[1].ported == 3
  )


def test_norms_without_a_scale_get_one_of_1_where_the_publisher_has_none():
  """Only beside a bias that has arrived; a lacking scale of another publisher is an error."""
  theirs = {name: shape for name, shape in THEIRS.items() if name != 'bn.weight'}
  theirs['bn.bias'] = (8,)
  renames = (*DIALECT.renames, (r'^bn\.bias$', 'params/backbone/stem/norm/bias'))
  dialect = Dialect('torch', renames, unscaled_norms=True)
  wanted = target(**{'params/backbone/stem/norm/bias': (8,)})
  keys = dict(fresh=('head/.*',))
  tree, report = port.port(numbers(theirs), wanted, {'a': dialect}, **keys)
  np.testing.assert_array_equal(tree['params']['backbone']['stem']['norm']['scale'], np.ones(8))
  assert report.notes == ('1 norms of the checkpoint have no scale: ours is 1',)
  with pytest.raises(MedtlError, match='missing: params/backbone/stem/norm/scale'):
    port.port(numbers(theirs), wanted, {'a': dialect._replace(unscaled_norms=False)}, **keys)
  del theirs['bn.bias']
  with pytest.raises(MedtlError, match='missing: params/backbone/stem/norm/scale'):
    port.port(numbers(theirs), wanted, {'a': dialect}, **keys)


def test_what_not_every_network_has_is_dropped_where_ours_has_it_not():
  theirs = numbers({**THEIRS, 'early.weight': (2, 8)})
  renames = (*DIALECT.renames, (r'^early\.weight$', 'params/head/early/kernel'))
  dialect = Dialect('torch', renames, optional=r'head/early/.*')
  wanted = {'params/head/early/kernel': (8, 2), 'params/head/dense/kernel': (8, 10)}
  _, report = port.port(theirs, target(**wanted), {'a': dialect})
  assert 'early.weight' not in report.ignored
  _, report = port.port(theirs, target(**{'params/head/dense/kernel': (8, 10)}), {'a': dialect})
  assert 'early.weight' in report.ignored
  strict = dialect._replace(optional='')
  with pytest.raises(MedtlError, match=r'unexpected: early\.weight'):
    port.port(theirs, target(**{'params/head/dense/kernel': (8, 10)}), {'a': strict})


def test_another_architecture_is_called_one():
  advice, _ = advised(numbers({'features.0.weight': (8, 3), 'features.0.bias': (8,)}), target())
  assert advice.strip() == (
    'no name in it is one of this architecture: is it of another than config.model.name? '
    'Its names begin with: features.0.weight, features.0.bias'
  )
  assert (
    'unexpected: surplus'
    in advised(numbers({**THEIRS, 'surplus': (3,)}), target(), fresh=('head/.*',))[0]
  ), 'no advice'


def whole_and_kept(keep):
  """Return a tiny CLIP with `keep` of its three children, its shapes and those of the whole one."""
  backbone = vit.clip_vit_b16(size=(16, 16), width=8, depth=2, heads=2)
  x = jnp.zeros((1, 16, 16, 3))
  nets = [Net(backbone, heads.linear(2), num_children=number) for number in (keep, 0)]
  cut, whole = (
    jax.eval_shape(lambda key, net=net: net.init(key, x, train=False), jax.random.key(0))
    for net in nets
  )
  return nets[0], cut, whole


@pytest.mark.parametrize('keep', [1, 2, 3])
def test_a_checkpoint_fits_whatever_is_kept_of_the_net_and_the_norm_belongs_to_the_last_child(keep):
  net, cut, whole = whole_and_kept(keep)
  kept, paths = set(pytrees.flatten(cut)), set(pytrees.flatten(whole))
  arrays = {path: np.ones(leaf.shape) for path, leaf in pytrees.flatten(whole).items()}
  rules = initial_weights.left_out(net)
  report = port.port(arrays, cut, {'own': Dialect('flax', ())}, fresh=('head/.*',), without=rules)[
    1
  ]
  assert report.ported == len([path for path in kept if '/head/' not in path])
  lost = {path for path in paths if any(re.fullmatch(rule, dialects.bare(path)) for rule in rules)}
  assert lost == paths - kept
  assert net.truncated == ('params/backbone/norm/scale' not in kept) == (keep < 3)


def test_a_net_of_all_children_is_the_whole_one():
  net, _, whole = whole_and_kept(3)
  x = jnp.zeros((1, 16, 16, 3))
  program = lambda net: str(
    jax.make_jaxpr(lambda variables: net.apply(variables, x, train=False))(whole)
  )
  assert program(net) == program(net.clone(num_children=0)) != program(net.clone(num_children=2))
  for backbone in (resnet.bit50(), resnet.resnet18(), efficientnet.efficientnet_lite0()):
    count = backbone.stages + 1
    found = [
      initial_weights.left_out(Net(backbone, heads.linear(2), num_children=keep))
      for keep in (0, count, count - 1)
    ]
    assert found[:2] == [(), ()] and re.fullmatch(found[2][0], 'backbone/norm/scale')


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_numbers_that_are_none_are_an_error(value):
  arrays = numbers(THEIRS)
  arrays['bn.running_mean'][3] = value
  with pytest.raises(MedtlError, match=r'bn.running_mean → .*mean holds 1 NaN or infinite'):
    port.port(arrays, target(), {'right': DIALECT}, fresh=('head/.*',))


@pytest.mark.parametrize(
  'layout, theirs, ours, how',
  [
    ('keras', (3, 3, 4, 1), (3, 3, 1, 4), lambda a: np.swapaxes(a, 2, 3)),  # depthwise
    ('torch', (4, 1, 3, 3), (3, 3, 1, 4), lambda a: a.transpose(2, 3, 1, 0)),
    ('torch', (7, 5, 3), (3, 5, 7), lambda a: a.transpose(2, 1, 0)),  # one dimension
    (
      'torch',
      (7, 5, 1, 1),
      (5, 7),
      lambda a: a[:, :, 0, 0].T,
    ),  # a 1×1 convolution that is a dense layer here
    ('flax', (6, 2, 3), (6, 6), lambda a: a.reshape(6, 6)),  # heads
    ('flax', (2, 3, 6), (6, 6), lambda a: a.reshape(6, 6)),
  ],
)
def test_layouts(layout, theirs, ours, how):
  array = np.random.RandomState(0).randn(*theirs)
  wanted = {'params': {'backbone': {'a': {'kernel': jax.ShapeDtypeStruct(ours, 'f4')}}}}
  found, _ = port.port(
    {'w': array}, wanted, {'d': Dialect(layout, (('^w$', 'params/backbone/a/kernel'),))}
  )
  np.testing.assert_array_equal(found['params']['backbone']['a']['kernel'], how(array).astype('f4'))


def test_a_shape_with_several_readings_is_refused():
  wanted = {'params': {'backbone': {'a': {'kernel': jax.ShapeDtypeStruct((4, 6), 'f4')}}}}
  for layout in ('flax', 'torch', 'keras'):
    with pytest.raises(MedtlError, match='shape: w'):
      port.port(
        {'w': np.zeros((3, 8))},
        wanted,
        {'d': Dialect(layout, (('^w$', 'params/backbone/a/kernel'),))},
      )


def deal(theirs, path, adapt=None, inflate='', **ours):
  """Return our stem, and what was noted, of one array that a publisher calls w."""
  shapes = {name: jax.ShapeDtypeStruct(shape, 'f4') for name, shape in ours.items()}
  found, report = port.port(
    {'w': theirs},
    {'params': {'backbone': {'stem': shapes}}},
    {'d': Dialect('torch', (('^w$', f'params/backbone/stem/{path}'),))},
    adapt=adapt,
    inflate=inflate,
  )
  return found['params']['backbone']['stem'], report


def test_rows_of_an_array_become_several_and_rules_see_their_own():
  whole = np.random.RandomState(0).randn(1, 5, 4).astype('f4')
  adapt = {'backbone/stem/rest': lambda rows, shape: rows[0, ::2].reshape(shape)}
  found, report = deal(whole, '{first[:1],rest[1:]}', adapt, first=(4,), rest=(2, 4))
  np.testing.assert_array_equal(found['first'], whole[0, 0])
  np.testing.assert_array_equal(found['rest'], whole[0, 1::2])
  assert report.notes == ('backbone/stem/rest from (1, 4, 4) to (2, 4)',)


def test_rows_in_the_middle():
  whole = np.random.RandomState(0).randn(6, 4).astype('f4')
  found, _ = deal(
    whole, '{first[:1],second[1:4],third[4:]}', first=(4,), second=(3, 4), third=(2, 4)
  )
  np.testing.assert_array_equal(np.vstack([found['first'], found['second'], found['third']]), whole)


def test_a_part_without_a_name_is_dropped():
  whole = np.arange(6, dtype='f4')
  found, report = deal(whole, '{query,,value}', query=(2,), value=(2,))
  chex.assert_trees_all_equal(found, {'query': whole[:2], 'value': whole[4:]})
  assert not report.ignored


def test_one_array_of_all_stages_is_dealt_out_to_them():
  whole = np.random.RandomState(0).randn(3, 4, 6).astype('f4')
  shapes = {
    f'stage{number}': {'kernel': jax.ShapeDtypeStruct((4, 6), 'f4')} for number in (1, 2, 3)
  }
  renames = (('^w$', 'params/backbone/stage_each/kernel'),)
  found, _ = port.port(
    {'w': whole}, {'params': {'backbone': shapes}}, {'d': Dialect('flax', renames)}
  )
  for number in (1, 2, 3):
    kernel = found['params']['backbone'][f'stage{number}']['kernel']
    np.testing.assert_array_equal(kernel, whole[number - 1])


@pytest.mark.parametrize('count', [2, 11])
def test_the_last_stage_is_found_whatever_its_number(count):
  leaves = {'bias': jax.ShapeDtypeStruct((4,), 'f4'), 'scale': jax.ShapeDtypeStruct((4,), 'f4')}
  shapes = {'params': {'backbone': {f'stage{n}': leaves for n in range(1, count + 1)}}}
  arrays = {'end.bias': np.zeros(4, 'f4'), 'end.scale': np.ones(4, 'f4')}
  for number in range(1, count):
    arrays |= {f'{number}.bias': np.full(4, number, 'f4'), f'{number}.scale': np.ones(4, 'f4')}
  renames = (
    (r'^(\d+)\.', r'params/backbone/stage\1/'),
    (r'^end\.', 'params/backbone/stage_last/'),
  )
  dialects = {'d': Dialect('torch', renames)}
  found, _ = port.port(arrays, shapes, dialects)
  assert not found['params']['backbone'][f'stage{count}']['bias'].any()
  del shapes['params']['backbone'][f'stage{count}']  # a truncated net has no such stage
  others = '|'.join(shapes['params']['backbone'])
  _, report = port.port(arrays, shapes, dialects, without=(f'backbone/(?!(?:{others})/).*',))
  assert report.ignored == ('end.bias', 'end.scale')


def test_positions_are_no_dense_kernel_on_flattened_maps():
  whole = np.arange(24, dtype='f4').reshape(6, 4)
  found, _ = deal(whole, 'positions', vit.ADAPT, positions=(2, 3, 4))
  np.testing.assert_array_equal(found['positions'], whole.reshape(2, 3, 4))


def test_positions_of_volumes_are_a_cube_whatever_is_said_of_pictures():
  """64 is 4 · 4 · 4 and 8 · 8: it is a square where the kernels are those of pictures alone."""
  whole = np.random.RandomState(0).randn(1, 64, 4).astype('f4')
  for way in ('', 'mean'):
    found, _ = deal(whole, 'positions', vit.ADAPT, way, positions=(4, 4, 4, 4))
    np.testing.assert_array_equal(found['positions'], whole.reshape(4, 4, 4, 4))


def stems(channels, bias=False):
  net = Net(
    resnet.resnet50(width=4, bias=True) if bias else resnet.resnet18(width=4), heads.linear(2)
  )
  return net, jax.eval_shape(
    lambda key: net.init(key, jnp.zeros((1, 32, 32, channels)), train=False), jax.random.key(0)
  )


def test_one_number_for_mean_and_std_means_all_channels():
  (_, shapes), (_, wanted) = stems(1), stems(3)
  arrays = {path: np.ones(leaf.shape) for path, leaf in pytrees.flatten(wanted).items()}
  found, report = port.port(arrays, shapes, {'own': Dialect('flax', ())}, mean=(0.4,), std=(0.2,))
  assert report.mean == pytest.approx((0.4,)) and report.std == pytest.approx((0.2,))
  np.testing.assert_allclose(found['params']['backbone']['stem']['conv']['kernel'], 3, rtol=1e-6)


@pytest.mark.parametrize('bias', [False, True])
def test_one_grey_channel_computes_what_three_copies_do(bias):
  """Not at the border, where the zeros of the padding stand for another grey.

  Compared where no tap covers them.
  """
  ours, theirs = stems(1, bias), stems(3, bias)
  random = np.random.RandomState(0)
  arrays = {
    path: np.abs(random.randn(*leaf.shape)) + 0.1
    for path, leaf in pytrees.flatten(theirs[1]).items()
  }
  own = {'own': Dialect('flax', ())}
  single, report = port.port(arrays, ours[1], own)
  triple, normal = port.port(arrays, theirs[1], own)
  assert len(report.mean) == len(report.std) == 1 and 'summed to one' in report.notes[0]
  grey = jnp.asarray(random.rand(2, 32, 32, 1), jnp.float32)
  a = (
    ours[0]
    .clone(mean=report.mean, std=report.std)
    .apply(single, grey, end_child=1, method='features')
  )
  b = (
    theirs[0]
    .clone(mean=normal.mean, std=normal.std)
    .apply(triple, jnp.repeat(grey, 3, -1), end_child=1, method='features')
  )
  np.testing.assert_allclose(a[:, 2:-2, 2:-2], b[:, 2:-2, 2:-2], rtol=1e-4)
  assert jnp.abs(a - b).max() > 1e-3  # the border is another thing, as documented


def test_one_grey_channel_is_exact_everywhere_when_the_means_are_equal():
  (ours, shapes), (theirs, wanted) = stems(1), stems(3)
  arrays = {
    path: np.abs(np.random.RandomState(1).randn(*leaf.shape)) + 0.1
    for path, leaf in pytrees.flatten(wanted).items()
  }
  half = {'own': Dialect('flax', (), (0.5,) * 3, (0.5, 0.25, 0.2))}
  (single, report), (triple, normal) = (
    port.port(arrays, shapes, half),
    port.port(arrays, wanted, half),
  )
  grey = jnp.asarray(np.random.RandomState(0).rand(1, 32, 32, 1), jnp.float32)
  a = ours.clone(mean=report.mean, std=report.std).apply(
    single, grey, end_child=1, method='features'
  )
  b = theirs.clone(mean=normal.mean, std=normal.std).apply(
    triple, jnp.repeat(grey, 3, -1), end_child=1, method='features'
  )
  np.testing.assert_allclose(a, b, rtol=1e-4)


def test_position_embeddings_take_the_constant_where_the_stem_has_no_bias():
  wanted = {
    'params': {
      'backbone': {
        'stem': {
          'embedding': {'kernel': jax.ShapeDtypeStruct((2, 2, 1, 4), 'f4')},
          'positions': jax.ShapeDtypeStruct((3, 3, 4), 'f4'),
        }
      }
    }
  }
  arrays = numbers(
    {
      'params/backbone/stem/embedding/kernel': (2, 2, 3, 4),
      'params/backbone/stem/positions': (3, 3, 4),
    }
  )
  found, report = port.port(arrays, wanted, {'own': Dialect('flax', ())})
  stem, grey = found['params']['backbone']['stem'], np.random.RandomState(2).rand(2, 2)
  kernel, positions = arrays.values()
  three = (
    np.einsum('hwc,hwco->o', (grey[..., None] - DIALECT.mean) / DIALECT.std, kernel) + positions
  )
  one = (
    np.einsum(
      'hw,hwo->o', (grey - report.mean[0]) / report.std[0], stem['embedding']['kernel'][:, :, 0]
    )
    + stem['positions']
  )
  np.testing.assert_allclose(one, three, atol=1e-5)


def test_other_numbers_of_channels_repeat_the_kernel():
  (_, shapes), (_, wanted) = stems(5), stems(3)
  arrays = {
    path: np.random.RandomState(1).rand(*leaf.shape)
    for path, leaf in pytrees.flatten(wanted).items()
  }
  found, report = port.port(arrays, shapes, {'own': Dialect('flax', ())})
  kernel, before = (
    found['params']['backbone']['stem']['conv']['kernel'],
    arrays['params/backbone/stem/conv/kernel'],
  )
  np.testing.assert_allclose(kernel, before[:, :, [0, 1, 2, 0, 1]] * 0.6, rtol=1e-6)
  assert report.mean == tuple(DIALECT.mean[i] for i in (0, 1, 2, 0, 1))


def test_standardised_stems_keep_their_channels():
  net = Net(resnet.bit50(width=4), heads.linear(2))
  one, three = (
    jax.eval_shape(
      lambda key, c=c: net.init(key, jnp.zeros((1, 32, 32, c)), train=False), jax.random.key(0)
    )
    for c in (1, 3)
  )
  arrays = {path: np.ones(leaf.shape) for path, leaf in pytrees.flatten(three).items()}
  with pytest.raises(MedtlError, match='standardised over 3 input channels'):
    port.port(arrays, one, {'own': Dialect('flax', (), standardised=True)})


def test_blue_green_red_stems_are_turned():
  wanted = {
    'params': {'backbone': {'stem': {'conv': {'kernel': jax.ShapeDtypeStruct((1, 1, 3, 2), 'f4')}}}}
  }
  kernel = np.arange(6.0).reshape(1, 1, 3, 2)
  found, _ = port.port(
    {'w': kernel},
    wanted,
    {'d': Dialect('keras', (('^w$', 'params/backbone/stem/conv/kernel'),), order='bgr')},
  )
  np.testing.assert_array_equal(
    found['params']['backbone']['stem']['conv']['kernel'], kernel[:, :, ::-1]
  )


def test_mean_and_variance_alone_remain():
  random = np.random.RandomState(3)
  leaf = random.exponential(2.0, (40, 50)).astype(np.float32)
  arrived = {
    'params': {'backbone': {'stem': {'kernel': leaf}}},
    'batch_stats': {'backbone': {'stem': {'mean': leaf[0]}}},
  }
  found = initial_weights.resample_mean_var(arrived, 0)
  assert set(found) == {'params'}, 'statistics of norms do not come along'
  new = found['params']['backbone']['stem']['kernel']
  assert (
    new.shape == leaf.shape
    and new.dtype == leaf.dtype
    and not np.array_equal(np.sort(new, None), np.sort(leaf, None))
  )
  assert abs(new.mean() - leaf.mean()) < 0.15 and abs(new.std() - leaf.std()) < 0.15
  assert np.array_equal(
    new, initial_weights.resample_mean_var(arrived, 0)['params']['backbone']['stem']['kernel']
  )


@pytest.mark.parametrize(
  ('model', 'words'),
  [
    (dict(), r"names of 'keras_2015'.*has version='v1', and config.model has version='v1.5'"),
    (dict(version='v1', bias=True), r'has epsilon=0.001, and .* has epsilon=1e-05: the arrays fit'),
    (dict(version='v1', bias=True, epsilon=1e-3), ''),
  ],
)
def test_what_no_shape_shows_must_be_as_the_publisher_has_it(model, words):
  keys = resnet.RENAMES['keras_2015'].keys
  config = ConfigDict({'model': {'name': 'resnet.resnet50', 'weights': 'x', **model}})
  said = 'the checkpoint is in the names of ' + repr('keras_2015')
  if not words:
    initial_weights._check_unseen(config, keys, said)
    return
  with pytest.raises(MedtlError, match=words):
    initial_weights._check_unseen(config, keys, said)


def test_the_size_of_pictures_is_not_the_publisher_s():
  config = ConfigDict({'model': {'name': 'vit.vit_b16', 'weights': 'x', 'size': (32, 32)}})
  initial_weights._check_unseen(config, dict(size=(518, 518)), 'the checkpoint is x')
