"""Pixels of DICOM files that are cut, or that contradict their header, are refused in words."""

import io
import re
import struct

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame

from medtl.data.formats import dicom_pixels, jpeg
from tests.dicom_file import STORED, seen, written

equal = np.testing.assert_array_equal
PHOTOGRAPH = 'SC_rgb_jpeg_dcmtk.dcm'
COMPRESSED = (
  'MR_small_RLE.dcm',
  'MR_small_jp2klossless.dcm',
  'MR_small_jpeg_ls_lossless.dcm',
  PHOTOGRAPH,
)
FRAGMENTS = 'PixelData .*fragment'


def changed(path, name: str, pixels: bytes | None = None, **elements):
  """Write one of pydicom's files with other pixels or elements; return its path."""
  found = pydicom.dcmread(get_testdata_file(name))
  if pixels is not None:
    found.PixelData = pixels
  found.update(elements)
  found.save_as(path)
  return path


def refused(path, words: str) -> None:
  with pytest.raises(OSError, match=f'^cannot decode .*: .*{words}') as caught:
    seen(path)
  assert not re.search('NoneType|index out of range|requires a buffer', str(caught.value))


def frame_of(name: str) -> bytes:
  pixels = pydicom.dcmread(get_testdata_file(name)).PixelData
  return get_frame(pixels, 0, number_of_frames=1)


@pytest.mark.parametrize('name', COMPRESSED)
def test_fragments_that_do_not_have_the_length_that_they_say_are_refused(tmp_path, name):
  path = tmp_path / 'a.dcm'
  pixels = pydicom.dcmread(get_testdata_file(name)).PixelData
  table = 8 + struct.unpack_from('<I', pixels, 4)[0]  # of offsets, the first item
  frame = frame_of(name)
  expected = seen(get_testdata_file(name))
  equal(seen(changed(path, name, encapsulate([frame], has_bot=False))), expected)
  equal(seen(changed(path, name, encapsulate([frame], fragments_per_frame=2))), expected)
  for damaged in (
    pixels[:-64],
    pixels[:-2],
    pixels[: table + 80] + pixels[table + 144 :],
    pixels[: table + 4] + b'\xff\xff\xff\x7f' + pixels[table + 8 :],
    pixels[:table] + b'\1' + pixels[table + 1 :],
    pixels[:table],
    pixels[: table + 6],
  ):
    refused(changed(path, name, damaged), FRAGMENTS)


def test_a_jpeg_that_lacks_a_part_of_its_picture_is_refused(tmp_path):
  frame = frame_of(PHOTOGRAPH)
  scan = jpeg.read_scans(frame)[0]
  for share in (0.2, 0.5, 0.9):
    place = scan.start + int(share * (scan.stop - scan.start))
    place -= frame[place - 1] == 0xFF
    cut = encapsulate([frame[:place] + frame[scan.stop :]])
    refused(changed(tmp_path / 'a.dcm', PHOTOGRAPH, cut), 'it is not whole')
  table = frame.index(b'\xff\xdb') + 9
  lost = encapsulate([frame[:table] + frame[table + 1 :]])
  refused(
    changed(tmp_path / 'a.dcm', PHOTOGRAPH, lost), 'it is damaged: its segments|holds no picture'
  )


def test_a_lossless_jpeg_whose_segments_are_damaged_does_not_reach_gdcm(tmp_path):
  frame = frame_of('SC_rgb_jpeg_gdcm.dcm')
  place = frame.index(b'\xff\xc4')
  damaged = encapsulate([frame[:place] + b'\xbf' + frame[place + 1 :]])  # GDCM aborted here
  refused(changed(tmp_path / 'a.dcm', 'SC_rgb_jpeg_gdcm.dcm', damaged), 'its segments')


@pytest.mark.parametrize('name', ['MR_small_jpeg_ls_lossless.dcm', 'MR_small_jp2klossless.dcm'])
def test_what_no_decoder_reads_is_refused_in_plain_words(tmp_path, name):
  frame = frame_of(name)
  for place in range(len(frame) // 2, len(frame) // 2 + 40, 8):
    damaged = frame[:place] + b'\xff' * 8 + frame[place + 8 :]
    try:
      seen(changed(tmp_path / 'a.dcm', name, encapsulate([damaged])))
    except OSError as error:
      assert re.search(r'its compressed pixels \(JPEG.*\) are damaged', str(error))
  gone = frame[: len(frame) // 3] + b'\xff' * (len(frame) - len(frame) // 3)
  refused(changed(tmp_path / 'a.dcm', name, encapsulate([gone])), 'its compressed pixels')


@pytest.mark.parametrize(
  'frame',
  [
    b'',
    b'\1\0\0\0',
    bytes(64) + b'\0\1',
    b'\xff\xd8\xff\xe0' * 40,
    struct.pack('<16I', 1, 60, *[0] * 14) + b'\0\1',
    struct.pack('<16I', 2, 64, 9999, *[0] * 13),
    struct.pack('<16I', 99, 64, 70, *[0] * 13) + bytes(9),
  ],
  ids=range(7),
)
def test_what_is_no_rle_picture_is_refused(tmp_path, frame):
  pixels = encapsulate([frame]) if frame else b'\xfe\xff\0\xe0\0\0\0\0'
  path = changed(tmp_path / 'a.dcm', 'MR_small_RLE.dcm', pixels)
  refused(path, 'no RLE picture|no fragment')


def test_bits_stored_against_the_high_bit_are_refused_where_the_bits_are_in_use(tmp_path):
  for values in (STORED, np.arange(48, dtype='u1').reshape(4, 4, 3)):
    bits = 12 if values.ndim == 2 else 8
    wrong = dict(BitsStored=bits - 2, HighBit=bits - 1)
    words = f"BitsStored is '{bits - 2}'; expected {bits}, as HighBit says, or HighBit {bits - 3}"
    refused(written(tmp_path / 'a', values, **wrong), words)
  equal(
    seen(written(tmp_path / 'a', BitsStored=12, HighBit=11), 'modality'), STORED
  )  # the advice …
  low = STORED // 4
  equal(seen(written(tmp_path / 'a', low, BitsStored=10, HighBit=9), 'modality'), low)
  upper = (low << 2).astype('<u2')  # free bits may hold a constant
  for free in (0, 1, 3):
    path = written(tmp_path / 'a', upper | np.uint16(free), BitsStored=10, HighBit=11)
    equal(seen(path, 'modality'), low)


def test_an_overlay_in_the_free_bits_is_no_part_of_the_number(tmp_path):
  path = written(tmp_path / 'a', STORED, BitsStored=10, HighBit=11)
  found = pydicom.dcmread(path)
  found.add_new(dicom_pixels.OVERLAY_BIT, 'US', 0)
  found.save_as(path)
  equal(seen(path, 'modality'), STORED // 4)


@pytest.mark.parametrize('name', [PHOTOGRAPH, 'SC_rgb_jpeg_gdcm.dcm'])
def test_a_jpeg_whose_numbers_need_more_bits_than_stored_is_refused(tmp_path, name):
  """With the second GDCM ended the process."""
  for bits, high in ((6, 5), (6, 7), (1, 0)):
    path = changed(tmp_path / 'a.dcm', name, BitsStored=bits, HighBit=high)
    refused(path, f"BitsStored is '{bits}'; expected 8, which the compressed numbers need")


@pytest.mark.filterwarnings('ignore::UserWarning')  # pydicom's, of the long UID
def test_a_file_without_pixels_says_what_it_is_in_a_few_words(tmp_path):
  path = written(tmp_path / 'a', PixelData=None, SOPClassUID=b'1.2' + b'\7 garbage' * 40)
  refused(path, 'it holds no picture: PixelData is absent')
  with pytest.raises(OSError, match='cannot decode') as caught:
    seen(path)
  assert len(str(caught.value).removeprefix(f'cannot decode {path}')) < 120


def test_jpeg_decodes_as_pydicom_does(tmp_path):
  file = io.BytesIO()
  Image.fromarray(np.arange(1024, dtype='u1').reshape(32, 32)).save(file, 'JPEG')
  found = pydicom.dcmread(written(tmp_path / 'a', np.zeros((32, 32), 'u1')))
  found.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
  found.PixelData = encapsulate([file.getvalue()])
  found['PixelData'].VR = 'OB'
  found.save_as(tmp_path / 'b')
  equal(seen(tmp_path / 'b', 'modality'), pydicom.dcmread(tmp_path / 'b').pixel_array)
