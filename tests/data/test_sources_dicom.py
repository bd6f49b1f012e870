"""pydicom's own files, and three real MR studies where they lie beside the checkout."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_windowing

from medtl import data
from medtl.core.types import MedtlError
from medtl.data.sources import dicom

REAL = Path(__file__).parents[3] / 'shared/data/dicom_mr_hippo'


def file(name):
  return Path(get_testdata_file(name))


def changed(path, name='CT_small.dcm', **elements):
  """Write a copy of one of pydicom's files with some elements changed."""
  found = pydicom.dcmread(file(name))
  for key, value in elements.items():
    setattr(found, key, value)
  path.parent.mkdir(parents=True, exist_ok=True)
  found.save_as(path)
  return path


def test_modality_values_of_ct_are_hounsfield_units():
  stored = np.frombuffer(pydicom.dcmread(file('CT_small.dcm')).PixelData, '<i2').reshape(128, 128)
  x, spacing = dicom.read(file('CT_small.dcm'), 'modality', 1)
  np.testing.assert_array_equal(x[..., 0], stored - 1024.0)
  assert x.dtype == np.float32 and spacing == (0.661468, 0.661468)


@pytest.mark.parametrize(
  'other',
  ['MR_small_RLE', 'MR_small_jp2klossless', 'MR_small_jpeg_ls_lossless', 'MR_small_bigendian'],
)
def test_lossless_compression_and_byte_order_change_nothing(other):
  np.testing.assert_array_equal(
    dicom.read(file('MR_small.dcm'), 'modality', 1)[0],
    dicom.read(file(f'{other}.dcm'), 'modality', 1)[0],
  )


@pytest.mark.parametrize('form', ['LINEAR', 'LINEAR_EXACT', 'SIGMOID'])
def test_display_is_the_first_window_of_the_header(form, tmp_path):
  path = changed(tmp_path / 'a', 'examples_overlay.dcm', VOILUTFunction=form)
  header = pydicom.dcmread(path)
  x, _ = dicom.read(path, 'display', 1)
  np.testing.assert_allclose(
    x[..., 0], apply_windowing(header.pixel_array, header) / 4095, atol=2e-7
  )
  assert 0.05 < x.mean() < 0.95
  negative = changed(
    tmp_path / 'b',
    'examples_overlay.dcm',
    VOILUTFunction=form,
    PhotometricInterpretation='MONOCHROME1',
  )
  inverted, _ = dicom.read(negative, 'display', 1)
  np.testing.assert_allclose(inverted, 1 - x, atol=1e-6)
  np.testing.assert_array_equal(*(dicom.read(tmp_path / name, 'modality', 1)[0] for name in 'ab'))


def test_display_without_a_window_is_all_that_the_stored_bits_hold():
  x, _ = dicom.read(file('CT_small.dcm'), 'display', 1)
  hu, _ = dicom.read(file('CT_small.dcm'), 'modality', 1)
  np.testing.assert_allclose(x, (hu + 1024 + 32768) / 65535, atol=1e-6)


@pytest.mark.parametrize('kind', ['US', 'OW'])
def test_display_by_a_lookup_table(tmp_path, kind):
  table, entries = pydicom.Dataset(), [0, 51, 255, 102]
  table.LUTDescriptor = [4, 160, 8]  # 4 entries, the first for 160 and all below, of 8 bits
  table.add_new('LUTData', kind, entries if kind == 'US' else np.array(entries, '<u2').tobytes())
  x, _ = dicom.read(
    changed(tmp_path / 'a', 'examples_overlay.dcm', VOILUTSequence=[table]), 'display', 1
  )
  stored = pydicom.dcmread(file('examples_overlay.dcm')).pixel_array.astype(int)
  np.testing.assert_allclose(
    x[..., 0], np.array([0, 0.2, 1, 0.4])[np.clip(stored - 160, 0, 3)], atol=1e-6
  )
  assert len(np.unique(x)) == 4


def test_colour_is_red_green_blue():
  """What one program compressed from the same picture as RGB and as YBR is the same picture.

  Grey takes its luma.
  """
  x, _ = dicom.read(file('SC_rgb_rle.dcm'), 'display', 3)
  np.testing.assert_array_equal(x[5, 50], [1, 0, 0])  # the first bar is red
  ybr, _ = dicom.read(file('SC_rgb_jpeg_dcmtk.dcm'), 'display', 3)
  np.testing.assert_allclose(ybr[5, 50], [1, 0, 0], atol=0.02)
  assert dicom.read(file('SC_rgb_rle.dcm'), 'display', 1)[0][5, 50, 0] == np.float32(0.299)
  palette, _ = dicom.read(file('examples_palette.dcm'), 'display', 3)
  assert (
    palette.shape == (350, 800, 3)
    and 0.9 < palette.max() <= 1
    and (palette[..., 0] != palette[..., 2]).any()
  )
  with pytest.raises(MedtlError, match=r'colour picture.*display'):
    dicom.read(file('SC_rgb_rle.dcm'), 'modality', 3)


def test_what_cannot_be_read_says_so(tmp_path):
  with pytest.raises(MedtlError, match='2 frames; expected one'):
    dicom.read(file('SC_rgb_rle_2frame.dcm'), 'display', 3)
  for name in ('MR_truncated.dcm', 'rtplan.dcm'):  # cut short; no pixels
    with pytest.raises(OSError, match='cannot decode.*' + name):
      dicom.read(file(name), 'modality', 1)
  with pytest.raises(OSError, match=r'VOI LUT function'):
    dicom.read(
      changed(tmp_path / 'a', 'examples_overlay.dcm', VOILUTFunction='CUBIC'), 'display', 1
    )
  with pytest.raises(MedtlError, match=r"data.values='modality'.*'display'"):
    dicom.load(str(tmp_path))


@pytest.fixture
def archive(tmp_path):
  """Two classes, four patients of two pictures each, names without suffixes."""
  for number in range(8):
    patient = f'P{number // 2}'
    pixels = np.random.RandomState(number).randint(0, 2000, (128, 128)).astype('<i2').tobytes()
    changed(
      tmp_path / ('sick' if number < 4 else 'well') / f'IM{number}',
      PatientID=patient,
      PixelData=pixels,
      PatientAge=['050Y', '018M', '', '003W'][number // 2],
      PatientSex='F',
    )
  (tmp_path / 'sick/notes.txt').write_text('no picture')
  shutil.copy(file('DICOMDIR'), tmp_path / 'sick/DICOMDIR')
  return tmp_path


def test_patients_are_the_headers(archive):
  found = dicom.load(str(archive), values='modality')
  assert (
    found.size == 8 and found.classes == ('sick', 'well') and found.table['file'][0] == 'sick/IM0'
  )
  expected = [hashlib.sha256(f'P{number // 2}'.encode()).hexdigest()[:12] for number in range(8)]
  assert found.table['patient'].tolist() == expected
  np.testing.assert_allclose(found.table['age'][::2], [50, 1.5, np.nan, 3 * 7 / 365.25])
  assert (
    set(found.table['sex']) == {'F'}
    and set(found.table['modality']) == {'CT'}
    and 'GE' in found.table['manufacturer'][0]
  )
  split = dict(by='patient', folds=2, val=0)
  sides = data.load(
    'dicom',
    root=str(archive),
    values='modality',
    ops='window(-1000, 400) | resize(16)',
    split=split,
  )
  assert {side: one.size for side, one in sides.items()} == {'train': 4, 'test': 4}
  assert not set(sides['train'].table['patient']) & set(sides['test'].table['patient'])
  named = dicom.load(str(archive), values='modality', pattern=r'IM(\d)')
  assert named.table['patient'].tolist() == [str(number) for number in range(8)]


def test_without_a_patient_a_split_by_patient_stops(archive):
  changed(archive / 'well/IM7', PatientID='', PixelData=bytes(128 * 128 * 2 - 2) + b'\1\0')
  with pytest.raises(MedtlError, match=r'1 example has no patient: well/IM7; fill it in, leave'):
    data.load(
      'dicom', root=str(archive), values='modality', split=dict(by='patient', folds=2, val=0)
    )


def test_patients_of_dicom_files_are_not_guessed_from_their_names(archive):
  for number in range(8):
    folder = archive / ('sick' if number < 4 else 'well')
    (folder / f'IM{number}').rename(folder / f'NORMAL-7-{number}.dcm')
  assert len(set(dicom.load(str(archive), values='modality').table['patient'])) == 4


def test_a_patient_called_na_is_no_patient(archive):
  for number in (6, 7):
    changed(
      archive / f'well/IM{number}', PatientID='NA', PixelData=bytes([number]) * (128 * 128 * 2)
    )
  with pytest.raises(MedtlError, match=r'2 examples have no patient.*well/IM6'):
    data.load(
      'dicom', root=str(archive), values='modality', split=dict(by='patient', folds=2, val=0)
    )
  assert (
    '2 of 8 DICOM files: PatientID is a word for a missing value (first well/IM6: NA)'
    in (dicom.load(str(archive), values='modality').facts['notes'])
  )
  assert dicom.load(str(archive), values='modality', missing=()).table['patient'][6]


def test_a_file_that_is_named_dicom_and_is_not_is_not_passed_over(archive):
  (archive / 'well/empty.dcm').write_bytes(b'')
  with pytest.raises(MedtlError, match=r'1 of 9 pictures.*well/empty.dcm'):
    data.load(
      'dicom', root=str(archive), values='modality', split=dict(by='patient', folds=2, val=0)
    )


@pytest.mark.skipif(not REAL.is_dir(), reason='needs real data beside the checkout')
def test_real_mr_studies():
  found = dicom.load(str(REAL), values='display', label='')
  assert found.size == 107 and set(found.table['modality']) == {'MR'}
  assert len(set(found.table['study'])) == 3
  x = found.fetch(50)
  assert x.x.ndim == 3 and x.spacing and 0 <= x.x.min() < x.x.max() <= 1
