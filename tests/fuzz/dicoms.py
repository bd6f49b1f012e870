"""DICOM files of one picture (PS3.10): no checksum, but sizes, bits and lengths agree.

Native pixels have the length that rows, columns, samples and bits ask for; compressed ones lie in
items that say their length, and JPEG-LS and JPEG say their own size.
"""

import contextlib
import io
import random
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
  ExplicitVRBigEndian,
  ExplicitVRLittleEndian,
  ImplicitVRLittleEndian,
  JPEGBaseline8Bit,
  RLELossless,
)

from tests.fuzz.files import EVERYTHING, NOTHING, PIXELS, Lie, Original, Outputs, Region, picture

LONG = (b'OB', b'OW', b'SQ', b'UN', b'UT', b'OF', b'OD', b'OL', b'UC', b'UR', b'SV', b'UV', b'OV')
UNDEFINED = 0xFFFFFFFF
PIXEL_DATA = 0x7FE00010
ITEM, END_OF_ITEMS = b'\xfe\xff\x00\xe0', b'\xfe\xff\xdd\xe0'
HEADER = {
  0x00100020: 'patient',
  0x0020000D: 'study',
  0x00080060: 'modality',
  0x00080070: 'manufacturer',
  0x00100040: 'sex',
  0x00101010: 'age',
}
SPACING = (0x00280030, 0x00181164)
SHOWN = (0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056, 0x00283010, 0x00280103)


class Element(NamedTuple):
  """One element of the data set or of the file's meta information."""

  tag: int
  start: int  # of the tag
  value: int
  stop: int


def originals() -> Iterator[Original]:
  """Give DICOM files, native and compressed, grey and coloured, with windows and tables."""
  deep, colour = picture((18, 26), 4095), picture((18, 26, 3), 255)
  ct = dict(
    RescaleSlope='2',
    RescaleIntercept='-1024',
    WindowCenter='40',
    WindowWidth='400',
    PixelSpacing=['0.5', '0.75'],
  )
  window = dict(
    WindowCenter=['2000', '40'], WindowWidth=['3000', '80'], VOILUTFunction='LINEAR_EXACT'
  )
  hounsfield = deep * 2.0 - 1024
  shown = np.clip((deep - 2000) / 3000 + 0.5, 0, 1)
  table = _table(picture((1, 64), 255)[0])
  low = np.clip(deep - 1000, 0, 63)
  looked_up = picture((1, 64), 255)[0][low] / 255
  modality, display = dict(values='modality'), dict(values='display')
  yield _original('CT', write(deep, **ct), hounsfield, modality)
  yield _original('CT, implicit', write(deep, ImplicitVRLittleEndian, **ct), hounsfield, modality)
  yield _original('CT, big-endian', write(deep, ExplicitVRBigEndian, **ct), hounsfield, modality)
  yield _original('CT, RLE', _rle(deep, **ct), hounsfield, modality)
  yield _original('MR, JPEG-LS', _pydicoms('MR_small_jpeg_ls_lossless.dcm'), _mr(), modality)
  yield _original('MR, JPEG 2000', _pydicoms('MR_small_jp2klossless.dcm'), _mr(), modality)
  yield _original('X-ray, window', write(deep, Modality='DX', **window), shown, display)
  yield _original(
    'X-ray, MONOCHROME1', write(deep, photometric='MONOCHROME1', **window), 1 - shown, display
  )
  yield _original('X-ray, VOI LUT', write(deep, VOILUTSequence=[table]), looked_up, display)
  yield _original('X-ray, no window', write(deep), deep / 4095, display)
  yield _original('ultrasound, RGB', write(colour), colour / 255, display)
  yield _original('photograph, JPEG', _jpeg(colour), colour / 255, display, near=0.5)


def write(
  values: np.ndarray,
  syntax: str = ExplicitVRLittleEndian,
  photometric: str = 'MONOCHROME2',
  **elements: Any,
) -> bytes:
  """Return a file of pixels [h, w] of 12 bits, or [h, w, 3] of 8 bits."""
  meta = FileMetaDataset()
  meta.MediaStorageSOPClassUID = '1.2.840.10008.5.1.4.1.1.7'
  meta.MediaStorageSOPInstanceUID = '1.2.826.0.1.3680043.8.498.1'
  meta.TransferSyntaxUID = syntax
  found = FileDataset('', {}, file_meta=meta, preamble=bytes(128))
  colour = values.ndim == 3
  bits = 8 if colour else 12
  order = '>' if syntax == ExplicitVRBigEndian else '<'
  told = dict(
    SOPClassUID=meta.MediaStorageSOPClassUID,
    Modality='CT',
    Manufacturer='Maker',
    SOPInstanceUID=meta.MediaStorageSOPInstanceUID,
    PatientID='P0017',
    PatientName='Doe^Jane',
    PatientSex='F',
    PatientAge='061Y',
    StudyInstanceUID='1.2.3.4',
    ImageComments='left lung',
    SamplesPerPixel=3 if colour else 1,
    PhotometricInterpretation='RGB' if colour else photometric,
    Rows=values.shape[0],
    Columns=values.shape[1],
    BitsAllocated=8 if colour else 16,
    BitsStored=bits,
    HighBit=bits - 1,
    PixelRepresentation=0,
  )
  if colour:
    told['PlanarConfiguration'] = 0
  for name, value in {**told, **elements}.items():
    setattr(found, name, value)
  packed = values.astype('u1' if colour else f'{order}u2').tobytes()
  found.add_new(PIXEL_DATA, 'OB' if colour else 'OW', packed)
  return _saved(found)


def _saved(found: FileDataset) -> bytes:
  """Return the file as pydicom writes it, also with values that the standard forbids."""
  file = io.BytesIO()
  syntax = found.file_meta.TransferSyntaxUID
  with _unchecked():
    pydicom.dcmwrite(
      file, found, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
    )
  return file.getvalue()


@contextlib.contextmanager
def _unchecked() -> Iterator[None]:
  """Let pydicom write what it would refuse."""
  settings = pydicom.config.settings
  reading, writing = settings.reading_validation_mode, settings.writing_validation_mode
  settings.reading_validation_mode = settings.writing_validation_mode = pydicom.config.IGNORE
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    settings.reading_validation_mode, settings.writing_validation_mode = reading, writing


def _table(entries: np.ndarray) -> pydicom.Dataset:
  """Return a VOI lookup table of 8-bit entries in words, the first for 1000 and all below."""
  table = pydicom.Dataset()
  table.add_new('LUTDescriptor', 'US', [len(entries), 1000, 8])
  table.add_new('LUTData', 'OW', entries.astype('<u2').tobytes())
  return table


def _rle(values: np.ndarray, **elements: Any) -> bytes:
  found = pydicom.dcmread(io.BytesIO(write(values, **elements)))
  found.compress(RLELossless, generate_instance_uid=False)
  return _saved(found)


def _pydicoms(name: str) -> bytes:
  """Return one of pydicom's own files."""
  return Path(get_testdata_file(name)).read_bytes()


def _mr() -> np.ndarray:
  """Return the pixels that pydicom's compressed files have in common."""
  return pydicom.dcmread(get_testdata_file('MR_small.dcm')).pixel_array


def _jpeg(values: np.ndarray) -> bytes:
  found = pydicom.dcmread(io.BytesIO(write(values)))
  found.PhotometricInterpretation = 'YBR_FULL_422'
  file = io.BytesIO()
  Image.fromarray(values.astype(np.uint8)).save(file, 'JPEG', quality=90, subsampling=1)
  return _encapsulated(found, JPEGBaseline8Bit, file.getvalue())


def _encapsulated(found: FileDataset, syntax: str, stream: bytes) -> bytes:
  found.file_meta.TransferSyntaxUID = syntax
  found.PixelData = encapsulate([stream])
  found['PixelData'].VR = 'OB'
  found['PixelData'].is_undefined_length = True
  return _saved(found)


def _original(
  name: str, data: bytes, truth: np.ndarray, keys: dict[str, Any], near: float = 1e-6
) -> Original:
  colour = truth.ndim == 3
  truth = truth.reshape(*truth.shape[:2], 3 if colour else 1).astype(np.float32)
  options = dict(keys, channels=truth.shape[2])
  return Original(
    'DICOM',
    name,
    data,
    'dicom',
    '.dcm',
    options,
    {'x': truth},
    near,
    regions=_regions(data, options['values']),
    lies=lambda dice: _lies(data, dice),
  )


def elements(data: bytes) -> dict[int, Element]:
  """Return the elements of the outermost level by their tags."""
  found = {}
  place, order, explicit = 132, '<', True
  while place < len(data):
    group, number = struct.unpack_from(f'{order}HH', data, place)
    if group != 2 and 0x00020010 in found:
      order, explicit = _syntax(data, found[0x00020010])
      group, number = struct.unpack_from(f'{order}HH', data, place)
    value, length = _length(data, place, order, explicit)
    stop = len(data) if length == UNDEFINED else value + length
    tag = group << 16 | number
    found[tag] = Element(tag, place, value, stop)
    place = stop
  return found


def _syntax(data: bytes, element: Element) -> tuple[str, bool]:
  """Return the byte order of the data set and whether it says its types."""
  syntax = data[element.value : element.stop].rstrip(b'\0').decode()
  return '>' if syntax == ExplicitVRBigEndian else '<', syntax != ImplicitVRLittleEndian


def _length(data: bytes, place: int, order: str, explicit: bool) -> tuple[int, int]:
  """Return where an element's value begins, and its length."""
  if explicit and data[place + 4 : place + 6] in LONG:
    value, kind = place + 12, 'I'
  else:
    value, kind = place + 8, 'H' if explicit else 'I'
  (length,) = struct.unpack_from(order + kind, data, value - struct.calcsize(kind))
  return value, length


def _regions(data: bytes, values: str) -> list[Region]:
  """Return the values that nothing contradicts: pixels, windows, who the patient is."""
  found = []
  for element in elements(data).values():
    outputs = _outputs(element.tag, values)
    if element.tag == PIXEL_DATA:
      start, stop = _start_of_pixels(data, element), _end_of_pixels(data, element)
      found.append(Region(start, stop, PIXELS, grows=start == element.value))
    elif outputs:
      # another tag, or a representation that nobody knows, loses the element
      end = element.value if element.tag in HEADER else element.start + 4
      found.append(Region(element.start, end, outputs))
      if element.tag != 0x00283010:
        found.append(Region(element.value, element.stop, outputs))
  return found


def _start_of_pixels(data: bytes, element: Element) -> int:
  """Return where pixels begin: behind the table of offsets, an item's head and RLE's own table."""
  if data[element.value : element.value + 2] != ITEM[:2]:
    return element.value
  (table,) = struct.unpack_from('<I', data, element.value + 4)
  rle = RLELossless.encode() in data[: element.value]
  return element.value + 8 + table + 8 + (64 if rle else 0)


def _end_of_pixels(data: bytes, element: Element) -> int:
  """Return the end of the pixels, before the item that ends a sequence."""
  return element.stop - 8 if data[-8:-4] == END_OF_ITEMS else element.stop


def _outputs(tag: int, values: str) -> Outputs:
  """Return what an element decides, where any other value of it is as good."""
  if tag in HEADER:
    return frozenset({HEADER[tag]})
  if tag in SPACING:
    return frozenset({'spacing'})
  shown = tag in SHOWN and (values == 'display' or tag in (0x00281052, 0x00281053, 0x00280103))
  return PIXELS if shown else NOTHING


def put(data: bytes, keyword: str, value: bytes) -> bytes:
  """Return the file with these bytes as an element's value, whatever they mean."""
  tag = tag_for_keyword(keyword)
  found = elements(data)
  order, explicit = _syntax(data, found[0x00020010])
  value += b' ' * (len(value) % 2)
  head = struct.pack(f'{order}HH', tag >> 16, tag & 0xFFFF)
  kind = dictionary_VR(tag).split(' ')[0].encode()
  if not explicit:
    head += struct.pack(f'{order}I', len(value))
  elif kind in LONG:
    head += kind + struct.pack(f'{order}HI', 0, len(value))
  else:
    head += kind + struct.pack(f'{order}H', len(value))
  behind = min(element.start for element in found.values() if element.tag >= tag)
  stop = found[tag].stop if tag in found else behind
  return data[:behind] + head + value + data[stop:]


def drop(data: bytes, keyword: str) -> bytes:
  """Return the file without an element."""
  element = elements(data).get(tag_for_keyword(keyword))
  return data if element is None else data[: element.start] + data[element.stop :]


def _lies(data: bytes, dice: random.Random) -> Iterator[Lie]:
  """Give files that differ from this one and contradict themselves or the standard."""
  for lie in (
    *_sizes(data, dice),
    *_bits(data),
    *_shown(data),
    *_said(data),
    *_syntaxes(data),
    *_pixels(data, dice),
    *_dropped(data),
  ):
    if lie.data != data:
      yield lie


def _number(data: bytes, *values: int) -> bytes:
  """Return whole numbers of 16 bits in the file's byte order."""
  order, _ = _syntax(data, elements(data)[0x00020010])
  return struct.pack(f'{order}{len(values)}H', *values)


def _read(data: bytes, keyword: str) -> int:
  """Return the first number of 16 bits of an element."""
  order, _ = _syntax(data, elements(data)[0x00020010])
  return struct.unpack_from(f'{order}H', data, elements(data)[tag_for_keyword(keyword)].value)[0]


def _has_own_size(data: bytes) -> bool:
  """Return whether the compressed stream says rows and columns itself."""
  syntax = elements(data)[0x00020010]
  return b'1.2.840.10008.1.2.4' in data[syntax.value : syntax.stop]


def _sizes(data: bytes, dice: random.Random) -> Iterator[Lie]:
  """Give sizes that do not fit the pixels."""
  rows, columns = _read(data, 'Rows'), _read(data, 'Columns')
  less, more = dice.randint(1, 9), dice.randint(1, 9)
  for name, high, wide in (
    ('rows smaller', rows - less, columns),
    ('rows larger', rows + more, columns),
    ('columns smaller', rows, columns - less),
    ('columns larger', rows, columns + more),
    ('rows 0', 0, columns),
    ('columns 0', rows, 0),
    ('declared gigabytes', 65535, 65535),
  ):
    yield Lie(name, _sized(data, high, wide))
  swapped = NOTHING if _has_own_size(data) else EVERYTHING
  yield Lie('rows and columns swapped', _sized(data, columns, rows), swapped)
  for text in (b'2', b'0', b'-1', b'one', b'99999999999', b''):
    yield Lie(f'frames {text.decode()!r}', put(data, 'NumberOfFrames', text))
  yield Lie('rows as text', put(data, 'Rows', b'256'))
  yield Lie('rows without a value', put(data, 'Rows', b''))
  yield Lie('two values of rows', put(data, 'Rows', _number(data, rows, rows + 1)))


def _sized(data: bytes, rows: int, columns: int) -> bytes:
  return put(put(data, 'Rows', _number(data, rows)), 'Columns', _number(data, columns))


def _bits(data: bytes) -> Iterator[Lie]:
  """Give pixels of another type than the data hold."""
  allocated = _read(data, 'BitsAllocated')
  stored = _read(data, 'BitsStored')
  colour = _read(data, 'SamplesPerPixel') == 3
  other = 16 if allocated == 8 else 8
  yield Lie('other bits allocated', put(data, 'BitsAllocated', _number(data, other)))
  yield Lie('32 bits allocated', put(data, 'BitsAllocated', _number(data, 32)))
  yield Lie('7 bits allocated', put(data, 'BitsAllocated', _number(data, 7)))
  yield Lie('more bits stored than allocated', put(data, 'BitsStored', _number(data, 33)))
  yield Lie('0 bits stored', put(data, 'BitsStored', _number(data, 0)))
  yield Lie('bits stored against the high bit', put(data, 'BitsStored', _number(data, stored - 2)))
  samples = _number(data, 1 if colour else 3)
  yield Lie('other number of samples', put(data, 'SamplesPerPixel', samples))
  yield Lie('2 samples', put(data, 'SamplesPerPixel', _number(data, 2)))
  yield Lie('pixel representation 7', put(data, 'PixelRepresentation', _number(data, 7)))
  yield Lie(
    'unknown photometric interpretation', put(data, 'PhotometricInterpretation', b'MONOCHROME3 ')
  )
  yield Lie(
    'other photometric interpretation',
    put(data, 'PhotometricInterpretation', b'MONOCHROME2 ' if colour else b'RGB '),
  )
  # taken as MONOCHROME2 where one sample is grey, which a note says
  yield Lie(
    'photometric interpretation without a value',
    put(data, 'PhotometricInterpretation', b''),
    PIXELS,
  )
  yield Lie('palette claimed', put(data, 'PhotometricInterpretation', b'PALETTE COLOR '))


def _shown(data: bytes) -> Iterator[Lie]:
  """Give windows, rescalings and tables that are no numbers, or none that the standard allows."""
  for keyword in ('WindowWidth', 'WindowCenter', 'RescaleSlope', 'RescaleIntercept'):
    if tag_for_keyword(keyword) in elements(data):
      for text in (b'4o0', b'nan', b'inf', b'1e999', b'40,5', b'\xff\xfe'):
        yield Lie(f'{keyword} {text!r}', put(data, keyword, text))
      for text in (b'\\', b'40\\'):
        yield Lie(f'{keyword} {text!r}', put(data, keyword, text), PIXELS)
      yield Lie(f'{keyword} without a value', put(data, keyword, b''), PIXELS)
  if 0x00281051 in elements(data):
    for text in (b'0', b'-400', b'0.5'):
      exact = text == b'0.5' and b'LINEAR_EXACT' in data  # of which any width above 0 is legal
      yield Lie(
        f'WindowWidth {text.decode()}', put(data, 'WindowWidth', text), PIXELS if exact else NOTHING
      )
    yield Lie('window without its width', drop(data, 'WindowWidth'), PIXELS)
    yield Lie('two centres, one width', put(data, 'WindowWidth', b'3000'), PIXELS)
  if 0x00281056 in elements(data):
    yield Lie('VOI LUT function unknown', put(data, 'VOILUTFunction', b'CUBIC '))
    yield Lie('VOI LUT function of bytes', put(data, 'VOILUTFunction', b'\xff\0'))
  if 0x00283010 in elements(data):
    yield from _tables(data)


def _tables(data: bytes) -> Iterator[Lie]:
  """Give lookup tables whose descriptor does not fit their entries."""
  for name, numbers in (
    ('of 65536 entries', (0, 1000, 8)),
    ('longer than its data', (512, 1000, 8)),
    ('of 0 bits', (64, 1000, 0)),
    ('of 2 bits', (64, 1000, 2)),
    ('of 99 bits', (64, 1000, 99)),
  ):
    yield Lie(f'VOI LUT {name}', _described(data, numbers))
  yield Lie('VOI LUT of one number', _described(data, (64,)))
  yield Lie('VOI LUT without entries', put(data, 'VOILUTSequence', b''), PIXELS)
  item = ITEM + struct.pack('<I', 0)
  yield Lie('VOI LUT of an empty item', put(data, 'VOILUTSequence', item), PIXELS)


def _described(data: bytes, numbers: tuple[int, ...]) -> bytes:
  """Return the file with another descriptor in its VOI LUT, which has 64 entries from 1000 on."""
  found = pydicom.dcmread(io.BytesIO(data))
  table = _table(picture((1, 64), 255)[0])
  table['LUTDescriptor'].value = list(numbers) if len(numbers) > 1 else numbers[0]
  found.VOILUTSequence = [table]
  return _saved(found)


def _said(data: bytes) -> Iterator[Lie]:
  """Give headers that say what cannot be of the patient and the size of a pixel."""
  for text in (b'0x1Y', b'61', b'-01Y', b'061y', b'Y061', b'\xb2\xb21Y', b'999Y', b''):
    yield Lie(f'age {text!r}', put(data, 'PatientAge', text), frozenset({'age'}))
  for text in (b'0.5', b'0.5\\', b'0.5\\x', b'-1\\-1', b'0\\0', b'nan\\nan', b'1\\2\\3', b''):
    yield Lie(f'spacing {text!r}', put(data, 'PixelSpacing', text), frozenset({'spacing'}))
  for text in (b'P\xff\xfe', b'P1\\P2', b'', b'\0\0', b'P' * 200):
    name = f'patient {text[:8]!r}'
    yield Lie(name, put(data, 'PatientID', text), frozenset({'patient'}))
  for text in (b'ISO_IR 999', b'\\ISO 2022 IR 87', b'nonsense', b'\xff\xff'):
    yield Lie(f'character set {text!r}', put(data, 'SpecificCharacterSet', text))
  yield Lie('study of two', put(data, 'StudyInstanceUID', b'1.2\\3.4'), frozenset({'study'}))


def _syntaxes(data: bytes) -> Iterator[Lie]:
  """Give another transfer syntax than the one that was used."""
  syntax = elements(data)[0x00020010]
  used = data[syntax.value : syntax.stop].rstrip(b'\0').decode()
  for name, other in (
    ('explicit', ExplicitVRLittleEndian),
    ('implicit', ImplicitVRLittleEndian),
    ('big-endian', ExplicitVRBigEndian),
    ('RLE', RLELossless),
    ('JPEG', JPEGBaseline8Bit),
    ('deflated', '1.2.840.10008.1.2.1.99'),
    ('an unknown syntax', '1.2.3'),
    ('no syntax', ''),
    ('no UID', 'little endian'),
  ):
    if other != used:
      yield Lie(f'{name} claimed', put(data, 'TransferSyntaxUID', other.encode()))
  yield Lie('no transfer syntax', drop(data, 'TransferSyntaxUID'))
  yield Lie('no preamble', data[132:])


def _pixels(data: bytes, dice: random.Random) -> Iterator[Lie]:
  """Give pixels that are shorter or longer than the header says, with a length that fits them."""
  element = elements(data)[PIXEL_DATA]
  start, stop = _start_of_pixels(data, element), _end_of_pixels(data, element)
  native = start == element.value
  if native:
    pixels = data[start:stop]
    for name, other in (
      ('half of the pixels', pixels[: len(pixels) // 4 * 2]),
      ('pixels twice', pixels * 2),
      ('one pixel short', pixels[:-2]),
      ('one row more', pixels + pixels[: len(pixels) // 18]),
    ):
      yield Lie(name, _with_pixels(data, other))
  else:
    middle = dice.randrange(start + 8, stop - 40) // 2 * 2
    yield Lie('compressed pixels cut, lengths right', _with_fragment(data, data[start:middle]))
    yield Lie('no fragment', data[: element.value + 8] + data[stop:])
    yield Lie('no end of fragments', data[:stop])
    length = struct.pack('<I', stop - start + 4096)
    yield Lie('fragment longer than the file', _with_length(data, length))
    yield Lie('fragment of gigabytes', _with_length(data, b'\xfe\xff\xff\xff'))


def _with_pixels(data: bytes, pixels: bytes) -> bytes:
  """Return the file with other native pixels and their length."""
  return put(data, 'PixelData', pixels)


def _fragment(data: bytes) -> int:
  """Return where the head of the first fragment begins."""
  value = elements(data)[PIXEL_DATA].value
  return value + 8 + struct.unpack_from('<I', data, value + 4)[0]


def _with_fragment(data: bytes, body: bytes) -> bytes:
  """Return the file with one fragment, which begins as the present one and ends in `body`."""
  element = elements(data)[PIXEL_DATA]
  head = _fragment(data)
  table = data[head + 8 : _start_of_pixels(data, element)]
  body = table + body
  length = struct.pack('<I', len(body))
  return data[: head + 4] + length + body + data[_end_of_pixels(data, element) :]


def _with_length(data: bytes, length: bytes) -> bytes:
  place = _fragment(data) + 4
  return data[:place] + length + data[place + 4 :]


def _dropped(data: bytes) -> Iterator[Lie]:
  """Give files without an element that a picture needs."""
  for keyword in (
    'Rows',
    'Columns',
    'BitsAllocated',
    'BitsStored',
    'HighBit',
    'SamplesPerPixel',
    'PixelRepresentation',
    'PhotometricInterpretation',
    'PixelData',
  ):
    yield Lie(f'{keyword} missing', drop(data, keyword))
