"""Files of every kind, whole, broken and hostile."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from medtl.models import weights
from medtl.types import MedtlError, Weights

FIXTURES = Path(__file__).parent / 'fixtures'
TORCH = [FIXTURES / 'weights_zip.pth', FIXTURES / 'weights_legacy.pth']


@pytest.mark.parametrize('path', TORCH, ids=lambda path: path.stem)
def test_torch_tensors_without_torch(path):
  said = []
  arrays = weights.read(path, said.append)
  assert said == [f"{path.name}: reading 'state_dict', ignoring epoch, kind",
                  f"{path.name}: every name begins with 'module.', which is taken off"]
  whole = np.arange(24)
  expected = {'whole': whole, 'shared': whole[4:10], 'turned': whole.reshape(4, 6).T, 'empty': np.zeros((0, 3)),
              'parameter': np.ones((2, 3)), 'count': np.asarray(7), 'half': [0.5, -2], 'brain': [1.5, -3], 'double': [np.float32(1 / 3)],
              'small': [-5, 5], 'flag': [1, 0]}
  assert list(arrays) == list(expected)
  for name, value in expected.items():
    assert arrays[name].dtype == np.float32
    np.testing.assert_array_equal(arrays[name], value)


@pytest.mark.parametrize('name', ['weights_keras2.h5', 'weights_keras3.weights.h5'])
def test_keras_files_say_layer_and_variable(name):
  arrays = weights.read(FIXTURES / name)
  found = {name: (array.shape, array.flat[0]) for name, array in arrays.items()}
  assert found == {'first/kernel': ((3, 3, 3, 4), 0), 'first/bias': ((4,), 1), 'norm/gamma': ((4,), 2), 'norm/beta': ((4,), 3),
                   'norm/moving_mean': ((4,), 4), 'norm/moving_variance': ((4,), 5), 'depth/kernel': ((3, 3, 4, 1), 6),
                   'last/kernel': ((4, 5), 7), 'last/bias': ((5,), 8)}


def safetensor(dtype, shape, data):
  """A file of one array w: length of the header, header, data (the format's own page)."""
  header = json.dumps({'w': {'dtype': dtype, 'shape': shape, 'data_offsets': [0, len(data)]}}).encode()
  return len(header).to_bytes(8, 'little') + header + data


def test_npz_and_safetensors(tmp_path):
  np.savez(tmp_path / 'a.npz', **{'layer/kernel': np.ones((2, 3), np.float16), 'step': np.int64(3)})
  arrays = weights.read(tmp_path / 'a.npz')
  assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
    'layer/kernel': (np.float32, (2, 3)), 'step': (np.float32, ())}
  values = np.asarray([1.5, -3.0], ml_dtypes.bfloat16)
  (tmp_path / 'b.bin').write_bytes(safetensor('BF16', [2], values.tobytes()))
  np.testing.assert_array_equal(weights.read(tmp_path / 'b.bin')['w'], [1.5, -3])


class Call:
  """Unpickles as a call of `function`."""

  def __init__(self, function, *arguments):
    self.function, self.arguments = function, arguments

  def __reduce__(self):
    return self.function, self.arguments


def zipped(path, pickled, **storages):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', pickled)
    for key, data in storages.items():
      archive.writestr(f'archive/data/{key}', data)
  return path


@pytest.mark.parametrize('function, name', [
  (os.system, r'(posix|nt)\.system'), (eval, 'builtins.eval'), (__import__, 'builtins.__import__'), (getattr, 'builtins.getattr'),
])
def test_hostile_pickles_are_refused_unexecuted(tmp_path, function, name):
  trace = tmp_path / 'trace'
  stream = pickle.dumps({'w': Call(function, f'open({str(trace)!r}, "w")')})
  (tmp_path / 'plain.pth').write_bytes(stream)
  for path in (zipped(tmp_path / 'zip.pth', stream), tmp_path / 'plain.pth'):
    with pytest.raises(MedtlError, match=f'refused: the pickle in .* asks for {name}'):
      weights.read(path)
  assert not trace.exists()


def test_objects_in_npz_are_refused(tmp_path):
  np.savez(tmp_path / 'a.npz', w=np.asarray([Call(eval, '1')], object))
  with pytest.raises(MedtlError, match='refused'):
    weights.read(tmp_path / 'a.npz')


def view(offset, shape, stride, after=b''):
  """A pickle of {'w': tensor} as torch writes it, of a storage of four numbers, with opcodes `after` the tensor."""
  def text(word):
    return b'X' + len(word).to_bytes(4, 'little') + word.encode()

  def value(item):
    return pickle.dumps(item, 2)[2:-1]

  storage = b'(' + text('storage') + b'ctorch\nFloatStorage\n' + text('0') + text('cpu') + b'K\x04tQ'
  return (b'\x80\x02}' + text('w') + b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + value(offset) + value(shape) + value(stride)
          + b'tR' + after + b's.')


@pytest.mark.parametrize('offset, shape, stride', [
  (0, (5,), (1,)), (3, (2,), (1,)), (0, (2,), (-1,)), (0, (10**9,), (0,)), (0, (2, 2), (3, 1)), (-1, (1,), (1,)),
])
def test_tensors_outside_their_storage_are_refused(tmp_path, offset, shape, stride):
  with pytest.raises(MedtlError, match='does not lie inside its storage'):
    weights.read(zipped(tmp_path / 'a.pth', view(offset, shape, stride), **{'0': bytes(16)}))


def test_tensors_inside_their_storage_are_read_and_cannot_be_changed_afterwards(tmp_path):
  data = {'0': np.arange(4, dtype='f4').tobytes()}
  np.testing.assert_array_equal(weights.read(zipped(tmp_path / 'a.pth', view(1, (2,), (2,)), **data))['w'], [1, 3])
  build = pickle.dumps({'shape': (10**6,)}, 2)[2:-1] + b'b'
  with pytest.raises(MedtlError, match='changes a tensor after it was checked'):
    weights.read(zipped(tmp_path / 'b.pth', view(0, (2,), (1,), build), **data))
  with pytest.raises(MedtlError, match='lacks the storage 0'):
    weights.read(zipped(tmp_path / 'c.pth', view(0, (2,), (1,))))


@pytest.mark.parametrize('source', [*TORCH, FIXTURES / 'weights_keras2.h5', FIXTURES / 'resnet.npz'], ids=lambda path: path.name)
@pytest.mark.parametrize('share', [0.2, 0.6, 0.98])
def test_truncated_files_say_so(tmp_path, source, share):
  data = source.read_bytes()
  path = tmp_path / source.name
  path.write_bytes(data[:int(share * len(data))])
  with pytest.raises(MedtlError, match=r'truncated|damaged'):
    weights.read(path)


def test_truncated_safetensors(tmp_path):
  data = safetensor('F32', [4], bytes(16))
  (tmp_path / 'a.safetensors').write_bytes(data[:-3])
  with pytest.raises(MedtlError, match='truncated'):
    weights.read(tmp_path / 'a.safetensors')


@pytest.mark.parametrize('content, words', [
  (b'', 'is empty'), (b'\n<!DOCTYPE html><html>', 'web page'), (b'version https://git-lfs.github.com/spec/v1', 'Git LFS pointer'),
  (b'hello, this is no checkpoint', "begins with b'hello, t'"), (pickle.dumps([1, 2]), 'no PyTorch checkpoint|truncated'),
  (json.dumps({}).encode(), 'expected .npz'),
])
def test_what_is_no_checkpoint_is_named(tmp_path, content, words):
  (tmp_path / 'a.pth').write_bytes(content)
  with pytest.raises(MedtlError, match=words):
    weights.read(tmp_path / 'a.pth')


def test_a_file_without_arrays_or_with_other_things(tmp_path):
  with pytest.raises(MedtlError, match='holds no arrays'):
    weights.read(zipped(tmp_path / 'a.pth', pickle.dumps({})))
  with pytest.raises(MedtlError, match='best are no arrays'):
    weights.read(zipped(tmp_path / 'b.pth', pickle.dumps({'best': 0.9})))
  with pytest.raises(MedtlError, match='holds a list'):
    weights.read(zipped(tmp_path / 'c.pth', pickle.dumps([1])))
  with pytest.raises(MedtlError, match='cannot read'):
    weights.read(tmp_path)


def test_locate_names_paths_and_mistakes(tmp_path):
  file = tmp_path / 'mine.npz'
  file.write_bytes(b'x')
  table = {'imagenet': Weights(file.as_uri())}
  assert weights.locate('imagenet', table) == (file, table['imagenet'])
  assert weights.locate(str(file), table) == (file, None)
  with pytest.raises(MedtlError, match="did you mean 'imagenet'"):
    weights.locate('imagnet', table)
  with pytest.raises(MedtlError, match=r'no file .*missing\.npz; give the path of a checkpoint, or one of: imagenet'):
    weights.locate('missing.npz', table)
