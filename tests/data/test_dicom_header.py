"""Headers as they are met: elements absent, empty, illegal, oddly written, against their pixels."""

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame

from medtl import data
from medtl.core.types import MedtlError
from medtl.data.formats import dicom_codestream
from medtl.data.sources import dicom
from tests.dicom_file import STORED, WINDOW, encoded, seen, spliced, start_of, written

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')  # pydicom's, on what is written
EMPTY_ITEM = pydicom.Dataset()
HALF_ITEM = pydicom.Dataset()
HALF_ITEM.add_new('LUTDescriptor', 'US', [4, 0, 8])
ONE_TABLE = pydicom.Dataset()
ONE_TABLE.add_new('LUTDescriptor', 'US', [2, 0, 16])
ONE_TABLE.add_new('LUTData', 'US', [0, 65535])
WHITE = np.full((4, 4, 3), 255, np.uint8)


@pytest.mark.parametrize(
  'keyword',
  [
    'RescaleSlope',
    'RescaleIntercept',
    'PixelSpacing',
    'NumberOfFrames',
    'VOILUTFunction',
  ],
)
def test_a_value_that_is_empty_is_absent(tmp_path, keyword):
  expected = seen(written(tmp_path / 'a', **WINDOW))
  for value in (b'', b'  ', b'\\ '):
    path = written(tmp_path / 'b', **WINDOW, **{keyword: value})
    np.testing.assert_array_equal(seen(path), expected)
    np.testing.assert_array_equal(seen(path, 'modality'), STORED)
    assert dicom.read(path, 'modality', 1)[1] == ()


@pytest.mark.parametrize(
  'elements',
  [
    dict(WindowCenter=b'', WindowWidth=b''),
    dict(WindowCenter=b' '),
    dict(WindowCenter='40'),
    dict(WindowWidth='40'),
    dict(WindowCenter='40', WindowWidth=b''),
    dict(VOILUTSequence=[]),
    dict(VOILUTSequence=[EMPTY_ITEM]),
    dict(VOILUTSequence=[HALF_ITEM]),
    dict(ModalityLUTSequence=[]),
    dict(ModalityLUTSequence=[EMPTY_ITEM]),
  ],
  ids=str,
)
def test_without_a_whole_window_or_table_all_stored_bits_are_seen(tmp_path, elements):
  path = written(tmp_path / 'a', **elements)
  np.testing.assert_allclose(seen(path), STORED / 4095, atol=1e-7)
  np.testing.assert_array_equal(seen(path, 'modality'), STORED)
  if 'VOILUTSequence' in elements:  # then the window counts
    both = written(tmp_path / 'b', **elements, **WINDOW)
    np.testing.assert_array_equal(seen(both), seen(written(tmp_path / 'c', **WINDOW)))


def test_slope_and_intercept_count_each_alone(tmp_path):
  shifted = written(tmp_path / 'a', RescaleIntercept='-1024')
  np.testing.assert_array_equal(seen(shifted, 'modality'), STORED - 1024.0)
  falling = written(tmp_path / 'b', RescaleSlope='-2')
  np.testing.assert_array_equal(seen(falling, 'modality'), STORED * -2.0)
  np.testing.assert_allclose(seen(falling), 1 - STORED / 4095, atol=1e-6)  # larger is brighter


@pytest.mark.parametrize(
  'keyword, value, said',
  [
    ('WindowWidth', b'0', "WindowWidth is '0.0'; expected at least 1 for LINEAR"),
    ('WindowWidth', b'-5', "WindowWidth is '-5.0'"),
    ('WindowWidth', b'0.5', "WindowWidth is '0.5'"),
    ('WindowWidth', b'1,5', "WindowWidth is '1,5'"),
    ('WindowWidth', b'NaN', "WindowWidth is 'NaN'; expected a finite number"),
    ('WindowCenter', b'inf', "WindowCenter is 'inf'"),
    ('WindowCenter', b'abc', "WindowCenter is 'abc'"),
    ('WindowCenter', b'\\40', r"WindowCenter is '\40'"),
    ('VOILUTFunction', b'CUBIC', "VOILUTFunction is 'CUBIC'; expected a VOI LUT function"),
  ],
)
def test_an_illegal_window_is_an_error_where_it_is_needed(tmp_path, keyword, value, said):
  broken = WINDOW | {keyword: value}
  path = written(tmp_path / 'broken.dcm', **broken)
  with pytest.raises(OSError) as error:
    seen(path)
  assert str(error.value).startswith(f'cannot decode {path}: {said}')
  if 'LINEAR' in str(error.value):
    assert "data.values='modality' reads a grey picture without it" in str(error.value)
  np.testing.assert_array_equal(seen(path, 'modality'), STORED)  # and so it does
  assert seen(written(tmp_path / 'a', VOILUTSequence=[ONE_TABLE], **broken)).max() == 1
  assert (seen(written(tmp_path / 'b', WHITE, **broken)) == 1).all()


@pytest.mark.parametrize(
  'keyword, value',
  [
    ('RescaleSlope', b'0'),
    ('RescaleSlope', b'1,0'),
    ('RescaleSlope', b'1\\2'),
    ('RescaleIntercept', b'nan'),
    ('Rows', 0),
    ('Columns', [4, 4]),
    ('BitsAllocated', 12),
    ('BitsStored', 17),
    ('BitsStored', 0),
    ('BitsStored', b'\x0c'),
    ('PixelRepresentation', 2),
    ('SamplesPerPixel', 3),
    ('PhotometricInterpretation', b'YBR_PARTIAL_422'),
    ('PhotometricInterpretation', b'CMYK'),
    ('NumberOfFrames', b'1A'),
    ('NumberOfFrames', b'-1'),
    ('NumberOfFrames', b'1.5'),
  ],
)
def test_an_illegal_value_names_file_element_and_value(tmp_path, keyword, value):
  for values in ('modality', 'display'):
    with pytest.raises(OSError, match=f'^cannot decode .*broken.dcm: {keyword} is .*; expected'):
      seen(written(tmp_path / 'broken.dcm', **{keyword: value}), values)
  if keyword.startswith('Rescale'):  # no colour needs it
    assert seen(written(tmp_path / 'a', WHITE, **{keyword: value})).all()


@pytest.mark.parametrize('keyword', ['Rows', 'Columns', 'BitsAllocated', 'PixelData'])
def test_what_there_is_no_picture_without(tmp_path, keyword):
  for value in (None, b''):
    with pytest.raises(OSError, match=rf'broken.dcm: .*{keyword} is (absent|empty)'):
      seen(written(tmp_path / 'broken.dcm', **{keyword: value}))


@pytest.mark.parametrize(
  'elements',
  [
    dict(PixelRepresentation=None),
    dict(SamplesPerPixel=None),
    dict(HighBit=None),
    dict(HighBit=b'x'),
    dict(HighBit=3),
    dict(HighBit=16),
    dict(PhotometricInterpretation=None),
    dict(PhotometricInterpretation=b''),
    dict(PhotometricInterpretation=b' monochrome2'),
    dict(NumberOfFrames=0),
    dict(NumberOfFrames='1'),
    dict(StudyInstanceUID=b'not a uid'),
    dict(PatientAge=b'old'),
  ],
  ids=str,
)
def test_grey_with_less_of_a_header(tmp_path, elements):
  path = written(tmp_path / 'a', **elements)
  np.testing.assert_allclose(seen(path), STORED / 4095, atol=1e-7)
  np.testing.assert_array_equal(seen(path, 'modality'), STORED)


def test_bits_beside_the_number_are_no_part_of_it(tmp_path):
  overlay = written(tmp_path / 'a', STORED | np.uint16(0xA000))
  np.testing.assert_array_equal(seen(overlay, 'modality'), STORED)
  upper = (STORED << 4 | 7).astype('<u2')
  for syntax in (uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian):
    path = written(tmp_path / 'b', upper, syntax, HighBit=15)
    np.testing.assert_array_equal(seen(path, 'modality'), STORED)
  signed = (STORED.astype(int) - 2048).astype('<i2')
  masked = (signed & 0x0FFF | 0x5000).astype('<i2')
  np.testing.assert_array_equal(seen(written(tmp_path / 'c', masked), 'modality'), signed)
  np.testing.assert_allclose(seen(written(tmp_path / 'd', signed)), STORED / 4095, atol=1e-7)
  whole = written(tmp_path / 'e', (STORED * 16).astype('<u2'), BitsStored=None, HighBit=None)
  np.testing.assert_allclose(seen(whole), STORED * 16 / 65535, atol=1e-7)


def test_pixels_have_the_length_that_the_header_says(tmp_path):
  raw = STORED.tobytes()
  for zeros in (1, 2, 64):  # 64 would be two frames more
    path = written(tmp_path / 'a', PixelData=raw + bytes(zeros))
    np.testing.assert_array_equal(seen(path, 'modality'), STORED)
  odd = np.arange(9, dtype='u1').reshape(3, 3)
  path = written(tmp_path / 'a', odd, PixelData=odd.tobytes() + b'\7')
  np.testing.assert_array_equal(seen(path, 'modality'), odd)
  with pytest.raises(OSError, match='PixelData is cut short: 30 bytes; expected 32'):
    seen(written(tmp_path / 'a', PixelData=raw[:-2]))
  with pytest.raises(OSError, match='PixelData is longer than the picture: 64 bytes; expected 32'):
    seen(written(tmp_path / 'a', PixelData=raw + raw))
  with pytest.raises(OSError, match='PixelData is longer'):
    seen(written(tmp_path / 'a', Rows=3))


def test_numbers_of_1_bit_of_32_and_with_a_point(tmp_path):
  bits = np.unpackbits(np.frombuffer(b'\xa5\x0f', np.uint8), bitorder='little').reshape(4, 4)
  one = dict(BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=b'\xa5\x0f')
  np.testing.assert_array_equal(seen(written(tmp_path / 'a', **one)), bits)
  dose = seen(get_testdata_file('rtdose_1frame.dcm'))
  assert 0 < dose.max() <= 1
  real = np.linspace(-1, 1, 16, dtype='<f4').reshape(4, 4)
  bare = dict(PixelData=None, BitsStored=None, HighBit=None, PixelRepresentation=None)
  single = dict(BitsAllocated=32, FloatPixelData=real.tobytes()) | bare
  path = written(tmp_path / 'b', **single)
  np.testing.assert_array_equal(seen(path, 'modality'), real)
  with pytest.raises(OSError, match='WindowWidth is absent'):
    seen(path)
  window = dict(WindowCenter='0', WindowWidth='2', VOILUTFunction='LINEAR_EXACT')
  path = written(tmp_path / 'c', **single, **window)
  np.testing.assert_allclose(seen(path), (real + 1) / 2, atol=1e-7)
  double = dict(BitsAllocated=64, DoubleFloatPixelData=real.astype('<f8').tobytes()) | bare
  np.testing.assert_array_equal(seen(written(tmp_path / 'd', **double), 'modality'), real)


def nest(keyword, **elements):
  """Return an item whose sequence has one item with some elements."""
  inner, outer = pydicom.Dataset(), pydicom.Dataset()
  inner.update(elements)
  setattr(outer, keyword, [inner])
  return outer


def test_objects_made_for_many_frames_keep_values_in_groups(tmp_path):
  shared = nest('PixelValueTransformationSequence', RescaleSlope='2', RescaleIntercept='-1000')
  shared.update(nest('PixelMeasuresSequence', PixelSpacing=[0.5, 0.25]))
  window = dict(WindowCenter='3000', WindowWidth='1000', VOILUTFunction='LINEAR_EXACT')
  groups = dict(
    SharedFunctionalGroupsSequence=[shared],
    PerFrameFunctionalGroupsSequence=[nest('FrameVOILUTSequence', **window)],
  )
  path = written(tmp_path / 'a', NumberOfFrames=1, **groups)
  values = STORED * 2.0 - 1000
  np.testing.assert_array_equal(seen(path, 'modality'), values)
  np.testing.assert_allclose(seen(path), np.clip((values - 2500) / 1000, 0, 1), atol=1e-6)
  assert dicom.read(path, 'modality', 1)[1] == (0.5, 0.25)


@pytest.mark.parametrize(
  'name, kind',
  [
    ('test-SR.dcm', 'Comprehensive SR Storage'),
    ('rtstruct.dcm', 'RT Structure Set Storage'),
    ('DICOMDIR', 'Media Storage Directory'),
  ],
)
def test_a_file_without_a_picture_says_what_it_is(name, kind):
  said = rf'{name}: it holds no picture: PixelData is absent \({kind}'
  with pytest.raises(OSError, match=said):
    seen(get_testdata_file(name))


def test_a_file_without_its_first_132_bytes_or_meta_header(tmp_path):
  whole = written(tmp_path / 'whole.dcm').read_bytes()
  (tmp_path / 'bare.dcm').write_bytes(whole[start_of(whole) :])
  np.testing.assert_array_equal(seen(tmp_path / 'bare.dcm', 'modality'), STORED)
  (tmp_path / 'text.dcm').write_text('a text, by mistake')
  with pytest.raises(OSError, match='it is no DICOM file: no DICM at byte 128'):
    seen(tmp_path / 'text.dcm')
  notes = dicom.load(str(tmp_path), values='modality', label='').facts['notes']
  bare = '1 of 3 DICOM files: no DICM at byte 128, read as a bare data set (first bare.dcm)'
  assert bare in notes


@pytest.mark.parametrize(
  'name',
  [
    'SC_rgb_jpeg_dcmtk.dcm',
    'SC_rgb_jpeg_gdcm.dcm',
    'SC_rgb_jls_lossy_line.dcm',
    'SC_rgb_gdcm_KY.dcm',
    'SC_rgb_rle.dcm',
  ],
)
@pytest.mark.parametrize(
  'keyword, elements',
  [
    ('Rows', dict(Rows=50)),
    ('Rows', dict(Rows=200)),
    ('Columns', dict(Columns=50)),
    ('BitsAllocated', dict(BitsAllocated=1, BitsStored=1)),
    ('SamplesPerPixel', dict(SamplesPerPixel=1, PhotometricInterpretation='MONOCHROME2')),
  ],
)
def test_a_header_that_contradicts_its_compressed_picture(tmp_path, name, keyword, elements):
  """For some of these GDCM would end the process; others came out scrambled or cut."""
  found = pydicom.dcmread(get_testdata_file(name))
  found.update(elements)
  found.save_as(tmp_path / 'a.dcm')
  said = '' if 'rle' in name else f'{keyword} is .*compressed picture'
  with pytest.raises(OSError, match='cannot decode .*' + said):
    seen(tmp_path / 'a.dcm')


def test_bits_stored_are_no_more_than_a_codestream_has(tmp_path):
  found = pydicom.dcmread(get_testdata_file('SC_rgb_jpeg_gdcm.dcm'))
  found.update(dict(BitsAllocated=16, BitsStored=12, HighBit=11))
  found.save_as(tmp_path / 'a.dcm')
  expected = seen(get_testdata_file('SC_rgb_jpeg_gdcm.dcm'))
  np.testing.assert_array_equal(seen(tmp_path / 'a.dcm'), expected)


@pytest.mark.parametrize(
  'name, parse',
  [
    ('J2K_pixelrep_mismatch.dcm', dicom_codestream.jpeg_2000),
    ('JPGExtended.dcm', dicom_codestream.jpeg),
    ('SC_rgb_jpeg_dcmtk.dcm', dicom_codestream.jpeg),
    ('JPEGLSNearLossless_16.dcm', dicom_codestream.jpeg),
  ],
)
def test_codestreams_say_their_size(name, parse):
  found = pydicom.dcmread(get_testdata_file(name))
  frame = get_frame(found.PixelData, 0, number_of_frames=1)
  said = parse(frame)
  assert said == (found.Rows, found.Columns, found.SamplesPerPixel, found.BitsStored)
  for cut in range(40):  # and no error when broken
    assert parse(frame[:cut]) in (None, said)


@pytest.mark.parametrize(
  'said, spacing, note',
  [
    (dict(PixelSpacing=b'0.5\\0.25'), (0.5, 0.25), ''),
    (
      dict(PixelSpacing=b'0.5'),
      (0.5, 0.5),
      'the one number of PixelSpacing counts for rows and columns (first a.dcm: 0.5)',
    ),
    (dict(PixelSpacing=b'0\\0 '), (), r'PixelSpacing is illegal and left out (first a.dcm: 0\0)'),
    (dict(PixelSpacing=b'-1\\1'), (), 'PixelSpacing is illegal'),
    (dict(PixelSpacing=b'0,5\\0,5'), (), 'PixelSpacing is illegal'),
    (dict(PixelSpacing=b'nan\\1'), (), 'PixelSpacing is illegal'),
    (dict(PixelSpacing=b'1\\1\\1'), (), 'PixelSpacing is illegal'),
    (
      dict(PixelSpacing=b'x', ImagerPixelSpacing=b'0.2\\0.2'),
      (0.2, 0.2),
      'PixelSpacing is illegal',
    ),
    (dict(PixelSpacing=b'', ImagerPixelSpacing=b'0.2\\0.1'), (0.2, 0.1), ''),
    (dict(NominalScannedPixelSpacing=b'0.3\\0.1'), (0.3, 0.1), ''),
  ],
)
def test_spacing_never_stops_a_picture(tmp_path, said, spacing, note):
  written(tmp_path / 'a.dcm', **said)
  found = dicom.load(str(tmp_path), values='modality', label='')
  assert found.fetch(0).spacing == spacing
  assert len(found.facts['notes']) == bool(note)
  assert not note or found.facts['notes'][0].startswith(f'1 of 1 DICOM files: {note}')


@pytest.mark.parametrize(
  'said, years',
  [
    ('050Y', 50),
    ('50Y', 50),
    ('050y', 50),
    ('018M', 1.5),
    ('003W', 3 * 7 / 365.25),
    ('', np.nan),
    ('50', np.nan),
    ('Y050', np.nan),
    ('-01Y', np.nan),
    ('fifty', np.nan),
  ],
)
def test_ages(tmp_path, said, years):
  written(tmp_path / 'a.dcm', PatientAge=said.encode(), PatientSex=b'f')
  found = dicom.load(str(tmp_path), values='modality', label='')
  np.testing.assert_allclose(found.table['age'], years)
  assert found.table['sex'].tolist() == ['F']
  note = f'1 of 1 DICOM files: PatientAge is illegal and left out (first a.dcm: {said})'
  assert found.facts['notes'] == ([note] if said and np.isnan(years) else [])


def test_notes_count_what_was_assumed(tmp_path, recwarn, caplog):
  """One line for a kind, and nothing of pydicom's own."""
  for number in range(6):
    folder, sex, width = ('sick', b'male', '2') if number < 3 else ('well', b'M', None)
    kind = None if number == 4 else 0
    width = b'0' if number == 5 else width
    written(
      tmp_path / folder / f'{number}.dcm',
      STORED + np.uint16(number),
      PatientSex=sex,
      PatientID=f'P{number}',
      StudyInstanceUID=b'no uid',
      PixelRepresentation=kind,
      RescaleSlope=b'1.0000000000000000000',
      WindowCenter='1',
      WindowWidth=width,
    )
  recwarn.clear()
  keys = dict(root=str(tmp_path), values='display', split=dict(by='patient', folds=3, val=0))
  said = r"1 of 6 pictures.*well/5.dcm.*WindowWidth is '0.0'.*data.skip_unreadable=1"
  with pytest.raises(MedtlError, match=said):
    data.load('dicom', **keys)
  sides = data.load('dicom', **keys, skip_unreadable=1)  # as the message says
  found = [note for note in sides['train'].facts['notes'] if 'DICOM files' in note]
  assert found == [
    '3 of 6 DICOM files: PatientSex is illegal and left out (first sick/0.dcm: male)',
    '2 of 6 DICOM files: WindowCenter or WindowWidth stands alone, taken as no window '
    '(first well/3.dcm)',
    '2 of 6 DICOM files: no window and no VOI LUT: 0 … 1 is all that the stored bits can hold '
    '(first well/3.dcm)',
    '1 of 6 DICOM files: PixelRepresentation is absent; whole numbers are taken as unsigned '
    '(first well/4.dcm)',
  ]
  assert not [one for one in recwarn if 'pydicom' in one.filename] and not caplog.records


def test_negatives_in_modality_values_are_announced(tmp_path):
  written(tmp_path / 'a.dcm', PhotometricInterpretation='MONOCHROME1')
  written(tmp_path / 'b.dcm')
  assert dicom.load(str(tmp_path), values='modality', label='').facts['notes'] == [
    '1 of 2 DICOM files: MONOCHROME1, whose modality values are larger where it is darker '
    '(first a.dcm)'
  ]


ODD = (
  b'',
  b' ',
  b'\0\0',
  b'0',
  b'-1',
  b'1,5',
  b'1\\2\\3',
  b'\xff\xfe\xfd',
  b'A' * 70,
  b'\\\\',
  b'\x1b\n',
  bytes(6),
)


@pytest.mark.parametrize('keyword', dicom.ELEMENTS)
def test_whatever_an_element_holds_there_is_a_picture_or_a_sentence(tmp_path, keyword):
  for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian):
    path = written(tmp_path / 'a.dcm', syntax=syntax, **(WINDOW | {keyword: None}))
    without = path.read_bytes()
    for value in ODD:
      path.write_bytes(without)
      spliced(path, encoded(keyword, value, syntax))
      notes = dicom.load(str(tmp_path), values='display', label='').facts['notes']
      assert ''.join(notes).isprintable()
      for values in ('modality', 'display'):
        try:
          x, spacing = dicom.read(path, values, 1)
          assert x.shape == (4, 4, 1) and np.isfinite(x).all() and len(spacing) in (0, 2)
        except MedtlError:
          assert keyword in ('PhotometricInterpretation', 'NumberOfFrames')
        except OSError as error:
          assert str(error).startswith(f'cannot decode {path}: ') and str(error).isprintable()
          assert keyword in str(error) or keyword.endswith('Sequence')
