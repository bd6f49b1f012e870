"""The right numbers in other wrapping.

Files that PyTorch itself wrote (fixtures/make_wrapped.py), and files written by hand.
"""

import gzip
import hashlib
import io
import json
import pickle
import pickletools
import tarfile
import types
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from medtl.core import pytrees
from medtl.core.types import MedtlError
from medtl.models.backbones import resnet, vit
from medtl.models.pretrained import (
  checkpoint_files,
  find_network,
  nested_contents,
  pickle_reader,
)
from medtl.models.pretrained.dialects import Dialect, rename
from medtl.run import initial_weights

FIXTURES = Path(__file__).parents[1] / 'fixtures'
SHAPES = {
  'conv1.weight': (2, 1, 3, 3),
  'bn1.weight': (2,),
  'bn1.bias': (2,),
  'bn1.running_mean': (2,),
  'bn1.running_var': (2,),
  'bn1.num_batches_tracked': (),
  'layer1.0.conv1.weight': (2, 2, 1, 1),
  'fc.weight': (3, 2),
  'fc.bias': (3,),
}
STATE = {
  name: 100 * index + np.arange(np.prod(shape)).reshape(shape).astype('f4')
  for index, (name, shape) in enumerate(SHAPES.items())
}
DIALECTS = {
  'tiny': Dialect(
    'torch',
    (
      (r'^conv1\.', 'params/backbone/stem/conv.'),
      (r'^bn1\.', 'params/backbone/stem/norm.'),
      (r'^layer1\.0\.', 'params/backbone/stage1/'),
      (r'^fc\.', 'params/head/dense.'),
    ),
  )
}

LAID_OUT = DIALECTS['tiny']._replace(
  renames=(*DIALECTS['tiny'].renames, ('.*num_batches_tracked$', ''), (r'\.', '/'))
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('wrapped')
  with zipfile.ZipFile(FIXTURES / 'wrapped.zip') as archive:
    archive.extractall(path)
  return path


def read(path, **keys):
  said = []
  return checkpoint_files.read(path, DIALECTS, say=said.append, **keys), '\n'.join(said)


def check(arrays, more=0.0, without=()):
  expected = {name: value + more for name, value in STATE.items() if name not in without}
  expected = {
    name: np.trunc(value) if 'num_batches' in name else value for name, value in expected.items()
  }
  assert set(arrays) == set(expected)
  for name, value in expected.items():
    assert arrays[name].dtype == np.float32
    np.testing.assert_array_equal(arrays[name], value, err_msg=name)


WRAPPED = {
  'namespace': "reading what lies below 'model'; left out: epoch (int), optimizer (optimizer's "
  'state), args (argparse.Namespace), '
  'config (omegaconf.dictconfig.DictConfig)',
  'net': "reading what lies below 'net'; left out: acc (float)",
  'lightning': "reading what lies below 'state_dict.model'; left out: optimizer_states (list), "
  'hyper_parameters (omegaconf.dictconfig.'
  'DictConfig), loops (dict), state_dict.criterion (an array), state_dict.loss (an array), '
  'callbacks (an array)',
  'nested': "reading what lies below 'state_dict.module.model.net'; nothing is left out",
  'both': "reading what lies below 'model'; left out: model_ema (9 arrays)\n",
  'dino': "reading what lies below 'teacher.backbone'; left out: args (argparse.Namespace), "
  'student (9 arrays), teacher.head (an array), '
  'dino_loss (an array)\n',
  'averaged': "reading what lies below 'module'; left out: n_averaged (an array)",
  'several': "reading what lies below '0'; left out: 1 (9 arrays)\n",
  'numbers': 'left out: bn1.num_batches_tracked (int), epoch (int), '
  'best (numpy._core.multiarray.scalar), layer1.total_ops (an array)',
  'module': '',
  'modules': "reading what lies below 'ema.module'; left out: epoch (int)",
  'subclass': '',
  'arrays': '',
  'dictionaries': "reading what lies below 'model'; nothing is left out",
}


@pytest.mark.parametrize('form', ['.pth', '.legacy.pth'])
@pytest.mark.parametrize('name', WRAPPED)
def test_the_network_is_found_and_the_rest_is_named(folder, name, form):
  path = folder / (name + form)
  arrays, said = read(path)
  check(arrays, without=('bn1.num_batches_tracked',) if name == 'numbers' else ())
  assert said.startswith(f'{path.name}: {WRAPPED[name]}' if WRAPPED[name] else '')
  assert bool(said) == bool(WRAPPED[name])


@pytest.mark.parametrize('protocol', [2, 4, 5])
@pytest.mark.parametrize('name', ['namespace', 'module', 'arrays'])
def test_plain_pickles_hold_tensors_and_numpy_arrays(folder, name, protocol):
  check(read(folder / f'{name}.{protocol}.pkl')[0])


@pytest.mark.parametrize('protocol', range(6))
def test_numpy_arrays_of_every_order_and_type_come_out_of_a_pickle(tmp_path, protocol):
  numbers = np.arange(24)
  arrays = {
    'turned': np.asfortranarray(numbers.reshape(4, 6)),
    'big': numbers.astype('>f8'),
    'half': numbers.astype('f2'),
    'flag': numbers > 3,
    'one': np.asarray(7),
    'none': np.zeros((0, 3)),
    'step': numbers[::3],
    'u4': numbers.astype('u4'),
  }
  beside = {
    'scalar': np.float32(1),
    'text': np.asarray(['a']),
    'things': np.asarray([{}], object),
    'date': np.datetime64('2020-01-01'),
  }
  (tmp_path / 'a.pkl').write_bytes(pickle.dumps({**arrays, **beside}, protocol))
  found, said = read(tmp_path / 'a.pkl')
  assert list(found) == list(arrays) and all(name in said for name in beside)
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)


def test_what_was_read_and_not_used_is_said_and_kept_as_facts(folder, capsys):
  config = ConfigDict(
    {
      'model': {
        'name': 'resnet.resnet18',
        'weights': f'{folder}/model.safetensors.index.json',
      },
      'fresh': ('head/.*',),
      'inflate': '',
      'mean': (),
      'std': (),
    }
  )
  wanted = pytrees.unflatten(
    {
      rename(name, LAID_OUT): jax.ShapeDtypeStruct(value.shape, 'f4')
      for name, value in STATE.items()
      if rename(name, LAID_OUT)
    }
  )
  ported, facts = initial_weights.from_publisher(
    wanted, config, types.SimpleNamespace(WEIGHTS={}, RENAMES={'tiny': LAID_OUT})
  )
  assert pytrees.flatten(ported)['params/backbone/stem/conv/weight'].shape == (2, 1, 3, 3)
  parts = [f'model-0000{number}-of-00002.safetensors' for number in (1, 2)]
  assert facts['file'] == ', '.join(parts)
  assert facts['sha256'] == ', '.join(
    hashlib.sha256((folder / part).read_bytes()).hexdigest() for part in parts
  )
  assert facts['read'].endswith(
    '2 in all; model.safetensors.index.json: not used by this network: fc (2 arrays)'
  )
  assert capsys.readouterr().out.splitlines() == facts['read'].split('; ')


@pytest.mark.parametrize('name', ['script.pt', 'trace.pt', 'metadata.safetensors'])
def test_torchscript_and_safetensors_are_read_too(folder, name):
  arrays, said = read(folder / name)
  check(
    {name: array for name, array in arrays.items() if name != 'passing'}
  )  # TorchScript keeps every buffer
  assert said == (
    f"{name}: reading what lies below 'model'; nothing is left out"
    if name.startswith('meta')
    else ''
  )


@pytest.mark.parametrize(
  'name, other', [('both', 'model_ema'), ('dino', 'student.module.backbone'), ('several', '1')]
)
def test_the_other_network_is_said_and_read_as_the_message_says(folder, name, other):
  path = folder / f'{name}.pth'
  said = read(path)[1].splitlines()[-1]
  advice = f"config.model.weights='{path}::{other}'"
  assert said == f'{path.name}: {other!r} is such a network too; {advice} reads that one'
  source = checkpoint_files.locate(advice.partition("'")[2].rstrip("'"), {})
  arrays, said = read(source.path, part=source.part)
  check(arrays, 0.5)
  assert said == f'{path.name}: reading what lies below {other!r}; nothing is left out'


def test_a_part_may_be_the_outermost_name_or_one_of_a_publishers_checkpoint(folder):
  check(read(folder / 'dino.pth', part='student')[0], 0.5)
  with pytest.raises(
    MedtlError,
    match=r"dino.pth holds nothing below 'studnet'; its names begin with: student \(9 arrays\), "
    r'teacher',
  ):
    read(folder / 'dino.pth', part='studnet')
  file = folder / 'odd::name.pth'
  file.write_bytes((folder / 'net.pth').read_bytes())
  assert checkpoint_files.locate(str(file), {}) == (file, None, '')


REFUSED = {
  'refused_quantised.pth': r'holds conv1.weight, which is quantised; make it float by '
  r'.dequantize\(\) in PyTorch',
  'refused_sparse.pth': r'conv1.weight, which is a sparse tensor; make it dense by .to_dense\(\)',
  'refused_meta.pth': 'conv1.weight, which is without numbers',
  'refused_complex.pth': 'conv1.weight, which is of complex numbers',
  'refused_float8.pth': 'conv1.weight, which is of float8_e4m3fn; multiply it by its scale',
  'refused_float8.safetensors': 'conv1.weight, which is of type F8_E5M2',
  'optimizer.pth': "holds no arrays of a network, only: optimizer's state",
  'optimizers.pth': r"holds no arrays of a network, only: optimizer \(optimizer's state\), epoch "
  r'\(int\)',
  'frozen.pt': r'is a TorchScript program with its numbers frozen into it; '
  r'.*torch.save\(model.state_dict\(\), FILE\)',
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_holds_no_numbers_says_what_it_is(folder, name):
  with pytest.raises(MedtlError, match=f'{name} .*{REFUSED[name]}'):
    read(folder / name)


@pytest.mark.parametrize(
  'name',
  [
    'pytorch_model-00001-of-00002.bin',
    'pytorch_model.bin.index.json',
    'model-00002-of-00002.safetensors',
    'model.safetensors.index.json',
  ],
)
def test_parts_are_read_as_one_from_any_of_them_and_from_their_index(folder, name):
  arrays, said = read(folder / name)
  check(arrays)
  assert said == f'{name}: read as one with the other parts, 2 in all'


def test_a_part_alone_is_called_one_and_is_read_once_the_other_lies_beside_it(folder, tmp_path):
  first, second = (f'model-0000{number}-of-00002.safetensors' for number in (1, 2))
  (tmp_path / first).write_bytes((folder / first).read_bytes())
  with pytest.raises(
    MedtlError,
    match=f'{first} is part 1 of 2 of a checkpoint, and {second} is not beside it; put all parts '
    f'into',
  ):
    read(tmp_path / first)
  index = tmp_path / 'model.safetensors.index.json'
  index.write_bytes((folder / index.name).read_bytes())
  with pytest.raises(MedtlError, match=f'is the index of 2 parts, and {second} is not beside it'):
    read(index)
  (tmp_path / second).write_bytes((folder / second).read_bytes())
  check(read(tmp_path / first)[0])
  index.write_text(json.dumps({'weight_map': {'conv1.weight': first, 'lost': second}}))
  with pytest.raises(MedtlError, match='lost is in none of them'):
    read(index)
  (tmp_path / second).write_bytes((folder / first).read_bytes())
  with pytest.raises(MedtlError, match='is in several files'):
    read(tmp_path / first)


@pytest.mark.parametrize(
  'content',
  [
    '[]',
    '{}',
    '{"weight_map": {}}',
    '{"weight_map": {"a": "../../etc/passwd"}}',
    '{"weight_map": {"a": 1}}',
    'no json',
    '[' * 10**5,
    '{"weight_map": {"a": ""}}',
    '{"weight_map": {"a": "' + 'x' * 256 + '"}}',
    r'{"weight_map": {"a": "\ud800"}}',
  ],
)
def test_an_index_that_is_none_is_refused(tmp_path, content):
  (tmp_path / 'a.index.json').write_text(content)
  with pytest.raises(MedtlError, match='is no index of a checkpoint'):
    checkpoint_files.read(tmp_path / 'a.index.json')


def test_a_packed_file_says_so_and_reads_once_it_is_unpacked(folder, tmp_path):
  data = (folder / 'net.pth').read_bytes()
  packed = tmp_path / 'net.pth.gz'
  packed.write_bytes(gzip.compress(data))
  with pytest.raises(
    MedtlError,
    match=r'net.pth.gz is compressed by gzip; unpack it and give the file that was inside',
  ):
    read(packed)
  with tarfile.open(tmp_path / 'net.tar', 'w') as archive:
    archive.add(folder / 'net.pth', 'inner/net.pth')
  with pytest.raises(
    MedtlError,
    match=r'net.tar is a tar archive; unpack it and give one of its files: inner/net.pth',
  ):
    read(tmp_path / 'net.tar')
  with zipfile.ZipFile(tmp_path / 'net.zip', 'w') as archive:
    archive.write(folder / 'net.pth', 'net.pth')
  with pytest.raises(
    MedtlError, match=r'net.zip is a zip archive; unpack it and give one of its files: net.pth'
  ):
    read(tmp_path / 'net.zip')
  with zipfile.ZipFile(tmp_path / 'net.zip') as archive:
    archive.extractall(tmp_path / 'out')
  check(read(tmp_path / 'out' / 'net.pth')[0])
  (tmp_path / 'model_best.pth.tar').write_bytes(data)  # a name alone makes no archive
  check(read(tmp_path / 'model_best.pth.tar')[0])


def test_pytorch_s_oldest_tar_is_named(tmp_path):
  with tarfile.open(tmp_path / 'old.pth', 'w') as archive:
    for name in ('sys_info', 'pickle', 'storages', 'tensors'):
      archive.addfile(tarfile.TarInfo(name), io.BytesIO())
  with pytest.raises(
    MedtlError,
    match=r'was written by PyTorch before 0.1.10; .*torch.save\(torch.load\(FILE\), NEW\)',
  ):
    read(tmp_path / 'old.pth')


def test_a_folder_says_what_to_give_instead(folder, tmp_path):
  with pytest.raises(MedtlError, match='is a folder without a checkpoint'):
    checkpoint_files.locate(str(tmp_path), {})
  (tmp_path / 'model.safetensors').write_bytes((folder / 'metadata.safetensors').read_bytes())
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(MedtlError, match=r'is a folder; give one of its files: model.safetensors$'):
    checkpoint_files.locate(str(tmp_path), {})
  check(read(checkpoint_files.locate(str(tmp_path / 'model.safetensors'), {}).path)[0])
  (tmp_path / 'plan.json').write_text('{}')
  with pytest.raises(
    MedtlError, match=rf'is the folder of a run; config.model.weights=run:{tmp_path} '
  ):
    checkpoint_files.locate(str(tmp_path), {})


def test_an_unpacked_pytorch_file_is_read_once_it_is_packed_again(folder, tmp_path):
  with zipfile.ZipFile(folder / 'net.pth') as archive:
    archive.extractall(tmp_path)
  (unpacked,) = tmp_path.iterdir()
  advice = f'zip -0 -r {unpacked.name}.pth {unpacked.name}'
  with pytest.raises(
    MedtlError, match=f'is a PyTorch file that was unpacked; pack it again .*{advice}'
  ):
    checkpoint_files.locate(str(unpacked), {})
  with zipfile.ZipFile(tmp_path / 'again.pth', 'w') as archive:  # what zip -0 -r does
    for file in unpacked.rglob('*'):
      archive.write(file, file.relative_to(tmp_path))
  check(read(tmp_path / 'again.pth')[0])


def test_arrays_that_are_no_numbers_are_left_out_of_an_npz(tmp_path):
  np.savez(
    tmp_path / 'a.npz', **STATE, note=np.asarray('from 2020'), things=np.asarray([{}], object)
  )
  arrays, said = read(tmp_path / 'a.npz')
  check(arrays)
  assert said == 'a.npz: left out: note (text), things (Python objects, refused)'


# Which prefix it is

NAMES = list(STATE)


@pytest.mark.parametrize(
  'prefixes, taken, rivals',
  [
    ([''], '', ()),
    (['model.'], 'model.', ()),
    (['params/net/'], 'params/net/', ()),
    (['encoder_q.', 'encoder_k.'], 'encoder_q.', ('encoder_k.',)),
    (['student.', 'a.teacher.'], 'a.teacher.', ('student.',)),
    (['0.', '1.', '2.'], '0.', ('1.', '2.')),
  ],
)
def test_most_names_of_the_architecture_decide_and_equals_are_named(prefixes, taken, rivals):
  names = ['queue', *(prefix + name for prefix in prefixes for name in NAMES), 'optimizer.lr']
  assert find_network.choose(names, DIALECTS) == (taken, rivals)


def test_a_prefix_that_the_architecture_knows_itself_stays():
  names = [
    'vit.embeddings.cls_token',
    *(f'vit.encoder.layer.{i}.output.dense.bias' for i in range(4)),
    'classifier.bias',
  ]
  assert find_network.choose(names, vit.RENAMES) == ('', ())
  both = [prefix + name for prefix in ('a.', 'b.') for name in names]
  assert find_network.choose(both, vit.RENAMES) == ('a.', ('b.',))


def test_other_architectures_and_their_blocks_have_no_prefix():
  densenet = [
    f'features.block{block}.layer{layer}.{name}.weight'
    for block in range(4)
    for layer in range(6)
    for name in ('conv1', 'bn1')
  ]
  assert find_network.choose(
    [*densenet, 'features.conv0.weight'], {**DIALECTS, **resnet.RENAMES}
  ) == ('', ())
  assert find_network.choose(NAMES, {}) == ('', ()) and find_network.choose([], DIALECTS) == (
    '',
    (),
  )


def test_sequential_names_of_a_resnet_are_torchvision_s():
  words = {'conv1': '0', 'bn1': '1', 'layer1': '4', 'layer2': '5', 'layer3': '6', 'layer4': '7'}
  names = [
    'conv1.weight',
    'bn1.running_mean',
    *(
      f'layer{n}.{b}.{leaf}'
      for n in range(1, 5)
      for b in range(2)
      for leaf in ('conv1.weight', 'bn2.bias', 'downsample.0.weight', 'downsample.1.running_var')
    ),
  ]
  for name in names:
    first, _, rest = name.partition('.')
    other = rename(f'{words[first]}.{rest}', resnet.RENAMES['sequential'])
    assert other == rename(name, resnet.RENAMES['torchvision']) and '.' not in other
  assert (
    find_network.choose(
      [f'backbone.{words[name.split(".")[0]]}.{name.partition(".")[2]}' for name in names],
      resnet.RENAMES,
    ).prefix
    == 'backbone.'
  )


def test_what_pretraining_adds_to_a_vision_transformer_is_dropped():
  ours = lambda name, dialect: rename(name, vit.RENAMES[dialect])
  for name in (
    'decoder_blocks.0.norm1.weight',
    'decoder_pos_embed',
    'decoder_pred.bias',
    'mask_token',
  ):  # MAE
    assert ours(name, 'timm') == ''
  assert (
    ours('blocks.2.7.norm1.weight', 'timm')
    == ours('blocks.7.norm1.weight', 'timm')
    == 'params/backbone/stage8/norm1/scale'
  )
  for name in (
    'conv1.weight',
    'ln_pre.bias',
    'transformer.resblocks.3.attn.in_proj_weight',
    'positional_embedding',
  ):
    assert ours(name, 'clip_visual') == ours(f'visual.{name}', 'clip_openai')
  for name in (
    'embeddings.class_embedding',
    'encoder.layers.3.mlp.fc1.bias',
    'post_layernorm.weight',
    'pre_layrnorm.bias',
  ):
    assert ours(name, 'clip_hf') == ours(f'vision_model.{name}', 'clip_hf')


# Pickles as data


def plain(stream):
  return pickle_reader.load(io.BytesIO(stream), {}, lambda pid: pid)


@pytest.mark.parametrize('protocol', range(6))
def test_plain_values_are_what_pickle_makes_of_them(protocol):
  shared = ['a', 1.5]
  value = {
    'text': 'é\x00' * 200,
    'numbers': [0, -1, 255, 70000, -(2**40), 2**2000, 1e300, True, None],
    'tuples': ((), (1,), (1, 2), (1, 2, 3, 4)),
    'long': list(range(2000)),
    3: shared,
    'again': [shared, shared],
    '': {},
    'nested': {'a': {'b': [[]]}},
  }
  found = plain(pickle.dumps(value, protocol))
  assert found == value and found['again'][0] is found[3]
  if protocol > 2:
    assert plain(pickle.dumps([b'\x80' * 300, b'', 'x' * 300], protocol)) == [
      b'\x80' * 300,
      b'',
      'x' * 300,
    ]


def test_every_opcode_is_followed():
  known = pickle_reader._VALUES | set(pickle_reader._CONSTANTS) | pickle_reader._IGNORED
  opcodes = {opcode.name for opcode in pickletools.opcodes}
  assert {
    name for name in opcodes - known if not hasattr(pickle_reader._Machine, f'op_{name.lower()}')
  } == set()
  assert known <= opcodes


def test_nests_without_end_are_refused(monkeypatch):
  value = {'w': np.ones(1)}
  for _ in range(60):
    value = {'a': value, 'b': value}
  monkeypatch.setattr(nested_contents, '_MANY', 1000)
  with pytest.raises(MedtlError, match='nested without end'):
    nested_contents.of(value)
  chain = []
  for _ in range(10**5):
    chain = [chain]
  with pytest.raises(MedtlError, match='nested without end'):
    nested_contents.of({'w': np.ones(1), 'chain': chain})
  circle = {'w': np.ones(1)}
  circle['self'] = circle
  assert list(nested_contents.of(circle).arrays) == ['w']
