"""The verb `weights`: what publishers give, and what a file is."""

import hashlib
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from medtl import main
from medtl.core import pytrees
from medtl.core.types import MedtlError, Weights
from medtl.models import Net, catalogue, heads, identification
from medtl.models.backbones import resnet
from medtl.run import public_weights
from tests.models import test_resnet

LEAVES = dict(kernel='weight', scale='weight', mean='running_mean', var='running_var')


@pytest.fixture(scope='module')
def arrays():
  """Return a ResNet-18 of 10 classes in torchvision's names, every number 0."""
  net = Net(resnet.resnet18(), heads.linear(10))
  x = jnp.zeros((1, 64, 64, 3))
  shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))
  leaves = pytrees.flatten(shapes).items()
  return {theirs(path): np.zeros(turned(leaf.shape), 'f4') for path, leaf in leaves}


def theirs(path):
  """Return torchvision's name of a path of ours, written down here by itself."""
  _, part, *inner, leaf = path.split('/')
  leaf = LEAVES.get(leaf, leaf)
  if part == 'head':
    return f'fc.{leaf}'
  child, *rest = inner
  if child == 'stem':
    return f'{dict(conv="conv1", norm="bn1")[rest[0]]}.{leaf}'
  block, layer = rest
  layer = layer.replace('shortcut_conv', 'downsample.0').replace('shortcut_norm', 'downsample.1')
  layer = layer.replace('norm', 'bn')
  return f'{child.replace("stage", "layer")}.{block.removeprefix("block")}.{layer}.{leaf}'


def turned(shape):
  """Return a kernel's shape as torch has it."""
  return (shape[-1], shape[-2], *shape[:-2]) if len(shape) > 1 else shape


def told(path):
  lines, fits = public_weights.check(path)
  return '\n'.join(lines), fits


@pytest.mark.parametrize('dtype', ['float32', 'float16', ml_dtypes.bfloat16])
def test_a_file_is_known_by_its_names_and_shapes(arrays, tmp_path, dtype):
  path = tmp_path / 'any.safetensors'
  wrapped = {f'module.{name}': array.astype(dtype) for name, array in arrays.items()}
  safetensors.numpy.save_file(wrapped, path)
  said, fits = told(path)
  assert fits
  assert "reading what lies below 'module'" in said
  assert "fits resnet.resnet18, in the names of 'torchvision'" in said
  assert f"config.model = dict(name='resnet.resnet18', weights='{path}')" in said
  assert 'input: 3 channels; mean 0.485, 0.456, 0.406' in said
  assert 'its own head tells 10 classes apart' in said
  assert hashlib.sha256(path.read_bytes()).hexdigest() in said and 'licence: not known' in said


def test_a_grey_stem_and_another_head_are_seen(arrays, tmp_path):
  grey = {**arrays, 'conv1.weight': np.zeros((64, 1, 7, 7), 'f4')}
  grey = {name: array for name, array in grey.items() if not name.startswith('fc.')}
  np.savez(tmp_path / 'grey.npz', **grey)
  said, fits = told(tmp_path / 'grey.npz')
  assert fits and 'input: 1 channel;' in said and 'it has no head of its own' in said


def test_a_file_without_the_last_children_fits_a_truncated_network(arrays):
  begun = {name: array for name, array in arrays.items() if not name.startswith(('layer4', 'fc'))}
  finding = identification.identify(begun)
  assert (finding.network, finding.faults) == ('resnet.resnet18', ())
  assert (finding.truncate, finding.classes) == (4, 0)


@pytest.mark.slow  # every ResNet is tried
def test_what_does_not_fit_is_listed(arrays, tmp_path, capsys):
  damaged = {**arrays, 'layer1.0.conv1.weight': np.zeros((64, 64, 5, 5), 'f4')}
  damaged['layer2.0.extra.weight'] = damaged.pop('layer2.0.conv1.weight')
  path = tmp_path / 'damaged.npz'
  np.savez(path, **damaged)
  assert main.main(['weights', '--check', str(path)]) == 1
  said = capsys.readouterr().out
  assert 'is nearest to resnet.resnet18' in said and 'config.model' not in said
  assert 'missing: params/backbone/stage2/block0/conv1/kernel (3, 3, 64, 128)' in said
  assert 'unexpected: layer2.0.extra.weight' in said
  assert 'found (5, 5, 64, 64), expected (3, 3, 64, 64)' in said


def test_what_no_shape_shows_comes_from_the_publisher_s_names():
  shapes = json.loads(str(test_resnet.REFERENCE['keras/shapes']))
  zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
  finding = identification.identify(zeros)
  assert (finding.network, finding.faults, finding.classes) == ('resnet.resnet50', (), 1000)
  assert finding.keys == dict(version='v1', bias=True, epsilon=1.001e-5)


@pytest.mark.parametrize('digits', [dict(sha256=8), dict(sha256=64), dict(md5=32)])
def test_a_published_file_is_known_by_its_checksum(arrays, tmp_path, monkeypatch, digits):
  path = tmp_path / 'x.npz'
  np.savez(path, **arrays)
  data = path.read_bytes()
  sums = {kind: getattr(hashlib, kind)(data).hexdigest()[:count] for kind, count in digits.items()}
  entry = Weights(
    'https://host/x.npz',
    **sums,
    network='resnet18',
    licence='CC BY-NC 4.0',
    terms='gated',
    trained_on='eyes',
    mean=(0.1,) * 3,
  )
  monkeypatch.setitem(resnet.WEIGHTS, 'eyes', entry)
  said, _ = told(path)
  assert 'it is the file of eyes by its checksum; trained on eyes' in said
  assert 'licence: CC BY-NC 4.0; gated' in said and 'mean 0.1, 0.1, 0.1' in said
  older = (sums.get('sha256', 'f' * 8),)
  other = Weights('https://host/y.npz', '0' * 64, network='resnet18', older=older)
  monkeypatch.setitem(resnet.WEIGHTS, 'eyes', other)
  said, _ = told(path)
  assert ('an earlier file of eyes' in said) == ('sha256' in sums)


def test_files_that_are_no_checkpoint_are_refused_in_words(arrays, tmp_path, capsys):
  page = tmp_path / 'login.pth'
  page.write_text('<!DOCTYPE html><html>Please sign in</html>')
  whole = tmp_path / 'whole.npz'
  np.savez(whole, **arrays)
  cut = tmp_path / 'cut.npz'
  cut.write_bytes(whole.read_bytes()[:100_000])
  other = tmp_path / 'other.npz'
  np.savez(other, **{'decoder.weight': np.zeros(3)})
  part = tmp_path / 'model-00001-of-00002.safetensors'
  safetensors.numpy.save_file(arrays, part)
  wanted = {
    page: 'web page, not a checkpoint; was it saved from a page that asks for a login',
    cut: 'truncated',
    other: 'its names are those of no network here',
    part: 'model-00002-of-00002.safetensors',
  }
  for path, words in wanted.items():
    assert main.main(['weights', '--check', str(path)]) == 1
    assert words in capsys.readouterr().err


def test_the_table_lists_what_a_pattern_is_found_in(capsys):
  assert main.main(['weights', 'deit_b16']) == 0
  header, row, _, config, *_ = capsys.readouterr().out.splitlines()
  assert header.split()[:3] == ['name', 'config.model.name', 'parameters']
  assert row.split()[:3] == ['deit_b16', 'vit.vit_b16', '86,567,656']
  assert config == "config.model = dict(name='vit.vit_b16', weights='deit_b16')"
  assert main.main(['weights', 'NoSuchThing']) == 1
  assert 'no public checkpoint fits' in capsys.readouterr().err


def test_whether_a_file_is_here_is_seen(monkeypatch, tmp_path):
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path))
  by_hand = Weights('', page='https://host/form', network='resnet18', trained_on='x', note='y')
  monkeypatch.setitem(resnet.WEIGHTS, 'asked', by_hand)
  assert public_weights.listing('asked')[1].split()[-2:] == ['by', 'hand']
  (tmp_path / 'by_hand').mkdir()
  (tmp_path / 'by_hand' / 'asked').write_bytes(b'x')
  assert public_weights.listing('asked')[1].split()[-1] == 'yes'


@pytest.mark.parametrize('words', [['--check'], ['a', 'b'], ['--chek=x'], ['a', '--check=b']])
def test_words_that_mean_nothing_are_refused(words, capsys):
  assert main.main(['weights', *words]) == 1
  assert 'weights takes' in capsys.readouterr().err


def test_every_public_checkpoint_is_listed_once():
  names = [(entry.family, entry.name) for entry in catalogue.entries()]
  assert len(names) == len(set(names)) > 20
  with pytest.raises(MedtlError, match='did you mean'):
    catalogue.entries('torchvision_resnet51')
