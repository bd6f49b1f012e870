"""Windows, lookup tables, palettes and colours; pydicom's functions judge where they are right."""

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing

from tests.dicom_file import STORED, WINDOW, seen, written

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')  # pydicom's, on what is written


def table(entries, first=0, bits=16, data=None, kind='OW', count=None):
  """Return the item of a lookup table, its entries one in a word unless `data` are given."""
  item = pydicom.Dataset()
  count = len(entries) % 65536 if count is None else count
  item.add_new('LUTDescriptor', 'SS' if first < 0 else 'US', [count, first, bits])
  data = np.asarray(entries, '<u2').tobytes() if data is None else data
  item.add_new('LUTData', kind, data)
  return item


@pytest.mark.parametrize('form', ['LINEAR', 'LINEAR_EXACT', 'SIGMOID'])
@pytest.mark.parametrize(
  'centre, width',
  [
    (b'1911.5', b'1'),
    (b'1911', b'2.5'),
    (b'1000.00000000000001', b'1024.0000000000001'),
  ],
)
def test_windows_are_pydicoms(tmp_path, form, centre, width):
  window = dict(WindowCenter=centre, WindowWidth=width)
  path = written(tmp_path / 'a', **window, VOILUTFunction=form)
  x = seen(path)
  with np.errstate(over='ignore'):
    expected = apply_windowing(STORED, pydicom.dcmread(path)) / 4095
  np.testing.assert_allclose(x, expected, atol=2e-7)
  for other in (form.lower(), form.title() + ' ', form.replace('_', ' ')):
    odd = written(tmp_path / 'b', **window, VOILUTFunction=other.encode())
    np.testing.assert_array_equal(seen(odd), x)


@pytest.mark.parametrize('width', [b'1000\\2', b'1000'])
def test_of_several_windows_the_first_counts(tmp_path, width):
  path = written(tmp_path / 'a', WindowCenter=b'2048\\1', WindowWidth=width)
  np.testing.assert_array_equal(seen(path), seen(written(tmp_path / 'b', **WINDOW)))


@pytest.mark.parametrize('count', [4, 5])
@pytest.mark.parametrize(
  'syntax',
  [
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
  ],
)
@pytest.mark.parametrize('kind', ['US', 'OW'])
@pytest.mark.parametrize('packed', [False, True])
def test_tables_of_8_bits(tmp_path, count, syntax, kind, packed):
  """Two entries stand in a word, the first in the low byte, or one."""
  entries = np.array([5, 0, 255, 128, 77])[:count]
  words = entries.astype('<u2')
  if packed:
    even = entries.astype(np.uint8).tobytes() + bytes(count % 2)
    words = np.frombuffer(even, '<u2')
  order = '<u2' if syntax.is_little_endian else '>u2'
  given = words.tolist() if kind == 'US' else words.astype(order).tobytes()
  voi = [table(entries, 273, 8, given, kind)]
  path = written(tmp_path / 'a', syntax=syntax, VOILUTSequence=voi)
  places = np.clip(STORED.astype(int) - 273, 0, count - 1)
  np.testing.assert_allclose(seen(path), entries[places] / 255, atol=1e-7)


@pytest.mark.parametrize('bits', [10, 12, 14, 16])
def test_tables_of_more_bits_are_pydicoms(tmp_path, bits):
  entries = np.random.RandomState(0).randint(0, 1 << bits, 4096)
  most = (1 << bits) - 1
  path = written(tmp_path / 'a', VOILUTSequence=[table(entries, bits=bits)])
  expected = apply_voi(STORED, pydicom.dcmread(path)) / most
  np.testing.assert_allclose(seen(path), expected, atol=1e-7)
  path = written(tmp_path / 'b', ModalityLUTSequence=[table(entries, bits=bits)])
  x = seen(path, 'modality')
  np.testing.assert_array_equal(x, entries[STORED])
  if bits == 16:  # pydicom knows no uint10
    np.testing.assert_array_equal(x, apply_modality_lut(STORED, pydicom.dcmread(path)))
  np.testing.assert_allclose(seen(path), x / most, atol=1e-7)


def test_a_table_of_65536_entries_says_0(tmp_path):
  wide = (STORED * 16).astype('<u2')
  voi = [table(np.arange(65536)[::-1])]
  path = written(tmp_path / 'a', wide, BitsStored=16, HighBit=15, VOILUTSequence=voi)
  np.testing.assert_allclose(seen(path), 1 - wide / 65535, atol=1e-7)


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
@pytest.mark.parametrize('first', [-1024, 64512])
def test_the_first_number_of_a_table_is_signed_where_the_values_are(tmp_path, syntax, first):
  """-1024 as SS, as US by mistake (64512), and in implicit files, which do not say."""
  voi = [table(np.arange(4096) * 16, first)]
  path = written(tmp_path / 'a', syntax=syntax, RescaleIntercept='-1024', VOILUTSequence=voi)
  np.testing.assert_allclose(seen(path), STORED * 16 / 65535, atol=1e-6)
  high = (STORED.astype(int) + 60000).astype('<u2')  # values that are no negatives
  voi = [table(np.arange(4096) * 16, 60000)]
  path = written(tmp_path / 'b', high, syntax, BitsStored=16, HighBit=15, VOILUTSequence=voi)
  np.testing.assert_allclose(seen(path), STORED * 16 / 65535, atol=1e-6)


@pytest.mark.parametrize(
  'item, said',
  [
    (
      table([1, 2, 3, 4], bits=12, count=5),
      'LUTData has 4 words of 16 bits; expected 5 entries of 12 bits, as LUTDescriptor says',
    ),
    (table([1, 2, 3, 4], bits=12, count=3), 'LUTData has 4 words of 16 bits; expected 3 entries'),
    (table([1, 2, 3, 4], bits=8, count=5), 'LUTData has 4 words'),
    (table([1, 2], bits=8, count=5), 'LUTData has 2 words'),
    (table([1, 2], bits=16, count=4), 'LUTData has 2 words'),
    (table([1, 300], bits=8), "LUTData is '300'; expected at most 255"),
    (table([1, 2], bits=0), r"LUTDescriptor is '2\0\0'"),
    (table([1, 2], bits=17), r"LUTDescriptor is '2\0\17'"),
  ],
)
def test_tables_that_contradict_themselves(tmp_path, item, said):
  path = written(tmp_path / 'broken.dcm', VOILUTSequence=[item])
  with pytest.raises(OSError) as error:
    seen(path)
  assert str(error.value).startswith(f'cannot decode {path}: {said}')
  np.testing.assert_array_equal(seen(path, 'modality'), STORED)


def test_half_a_modality_table_is_an_error(tmp_path):
  half = table([0, 1])
  del half.LUTData
  for values in ('modality', 'display'):
    with pytest.raises(OSError, match='LUTData is absent'):
      seen(written(tmp_path / 'a', ModalityLUTSequence=[half]), values)


def palette(tables, bits, data, prefix='', count=None):
  """Return the elements of three tables."""
  found = dict(PhotometricInterpretation='PALETTE COLOR')
  for name, entries in zip(('Red', 'Green', 'Blue'), tables, strict=True):
    count = len(entries) if count is None else count
    found[f'{name}PaletteColorLookupTableDescriptor'] = [count, 0, bits]
    found[f'{prefix}{name}PaletteColorLookupTableData'] = data(entries)
  return found


def in_bytes(entries):
  return entries.astype(np.uint8).tobytes() + bytes(len(entries) % 2)


def in_words(entries):
  return entries.astype('<u2').tobytes()


@pytest.mark.parametrize('bits, data', [(8, in_bytes), (8, in_words), (16, in_words)])
@pytest.mark.parametrize('count', [300, 16, 15])
def test_palettes(tmp_path, bits, data, count):
  """pydicom fails at a pad byte, and its places wrap at 256 entries of 8 bits."""
  most = (1 << bits) - 1
  tables = np.random.RandomState(0).randint(0, most + 1, (3, count))
  numbers = np.arange(16, dtype='<u2').reshape(4, 4) * (20 if count == 300 else 17)
  path = written(tmp_path / 'a', numbers, **palette(tables, bits, data))
  x = seen(path, channels=3)
  expected = tables[:, np.clip(numbers, 0, count - 1)] / most
  np.testing.assert_allclose(x, np.moveaxis(expected, 0, 2), atol=1e-6)
  if count == 16 and (bits, data) != (8, in_words):
    header = pydicom.dcmread(path)
    np.testing.assert_allclose(x, apply_color_lut(header.pixel_array, header) / most, atol=1e-6)


@pytest.mark.parametrize('bits, data', [(8, in_bytes), (16, in_words)])
def test_palettes_in_segments(tmp_path, bits, data):
  segments = np.array([0, 2, 10, 20, 1, 6, 200])  # 10, 20, then a line to 200
  numbers = np.arange(16, dtype='u1').reshape(4, 4)
  path = written(tmp_path / 'a', numbers, **palette([segments] * 3, bits, data, 'Segmented', 8))
  header = pydicom.dcmread(path)
  most = (1 << bits) - 1
  x = seen(path, channels=3)
  np.testing.assert_allclose(x, apply_color_lut(header.pixel_array, header) / most, atol=1e-6)
  np.testing.assert_allclose(x[0, :3, 0] * most, [10, 20, 50], atol=1e-3)


def test_an_absent_palette_is_named(tmp_path):
  with pytest.raises(OSError, match='RedPaletteColorLookupTableDescriptor is absent'):
    seen(written(tmp_path / 'a', PhotometricInterpretation='PALETTE COLOR'))


COLOURS = np.random.RandomState(0).randint(0, 4096, (4, 4, 3)).astype('<u2')


def test_colours_are_fractions_of_what_their_bits_hold(tmp_path):
  overlay = (COLOURS | 0x8000).astype('<u2')  # a bit that is no colour
  planes = np.ascontiguousarray(np.moveaxis(COLOURS, 2, 0)).tobytes()
  paths = [
    written(tmp_path / 'a', COLOURS),
    written(tmp_path / 'b', overlay),
    written(tmp_path / 'c', COLOURS, PlanarConfiguration=1, PixelData=planes),
  ]
  for path in paths:
    np.testing.assert_allclose(seen(path, channels=3), COLOURS / 4095, atol=1e-7)
  wide = COLOURS.astype('<u4') << 20
  path = written(tmp_path / 'd', wide)
  np.testing.assert_allclose(seen(path, channels=3), wide / (2**32 - 1), atol=1e-7)


@pytest.mark.parametrize(
  'elements',
  [
    dict(PixelRepresentation=None),
    dict(PixelRepresentation=1),
    dict(SamplesPerPixel=None),
    dict(PhotometricInterpretation=None),
    dict(PhotometricInterpretation=b'rgb '),
    dict(PlanarConfiguration=None),
    dict(HighBit=None),
    dict(HighBit=3),
    dict(HighBit=77),
  ],
  ids=str,
)
def test_colours_with_less_of_a_header(tmp_path, elements):
  path = written(tmp_path / 'a', COLOURS, **elements)
  np.testing.assert_allclose(seen(path, channels=3), COLOURS / 4095, atol=1e-7)
