"""Reads how the pixels of a DICOM file are stored, and the stored numbers.

PS3.3 C.7.6.3 and PS3.5 section 8. Every function raises ValueError where an element that it needs
is illegal (see `dicom_header`).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from medtl.data.formats import dicom_codestream
from medtl.data.formats import jpeg as jpeg_file
from medtl.data.formats.dicom_header import (
  Header,
  illegal,
  integer,
  remark,
  required,
  shown,
  text,
  value_of,
)

GREY = ('MONOCHROME1', 'MONOCHROME2')
PALETTE = 'PALETTE COLOR'
COLOUR = ('RGB', 'YBR_FULL', 'YBR_FULL_422')
JPEG_2000_COLOUR = ('YBR_RCT', 'YBR_ICT')
FLOATS = ('FloatPixelData', 'DoubleFloatPixelData')
OVERLAY_BIT, OVERLAY_DATA = 0x60000102, 0x60003000  # overlays once lay in free bits (PS3.5 8.1.2)
LARGEST_SIDE = 65535  # Rows and Columns have 16 bits


class Layout(NamedTuple):
  """How pixels are stored."""

  photometric: str  # in capitals: MONOCHROME1, RGB …
  samples: int  # numbers in a pixel
  allocated: int  # bits that a number takes in the file
  stored: int  # how many of these bits are the number
  high: int  # place of the number's highest bit, counted from 0
  signed: bool
  floats: bool  # the numbers are floats; then the four fields above mean nothing

  @property
  def grey(self) -> bool:
    return self.photometric in GREY

  @property
  def inverted(self) -> bool:
    """Whether large numbers are dark."""
    return self.photometric == 'MONOCHROME1'

  @property
  def ends(self) -> tuple[float, float]:
    """The least and the largest number that can be stored; NaN for floats."""
    if self.floats:
      return math.nan, math.nan
    if self.signed:
      half = 1 << (self.stored - 1)
      return -half, half - 1
    return 0, (1 << self.stored) - 1


def read_layout(header: Header) -> Layout:
  """Return how pixels are stored.

  What was absent or oddly written is also corrected in the header, since pydicom decodes by it.
  """
  elements = header.elements
  photometric, samples = _photometric(header)
  elements.Rows = _whole(header, 'Rows', range(1, LARGEST_SIDE + 1))
  elements.Columns = _whole(header, 'Columns', range(1, LARGEST_SIDE + 1))
  allocated = _whole(header, 'BitsAllocated', (1, 8, 16, 32, 64))
  if value_of(header, 'BitsStored') is None:
    remark(header, 'BitsStored is absent; all of BitsAllocated count')
    elements.BitsStored = allocated
  stored = _whole(header, 'BitsStored', range(1, allocated + 1))
  high = _high_bit(header, stored, allocated)
  signed = samples == 1 and _signed(header)  # colours are never below 0
  elements.BitsAllocated = allocated
  elements.BitsStored = stored
  elements.PhotometricInterpretation = photometric
  elements.SamplesPerPixel = samples
  elements.PixelRepresentation = int(signed)
  elements.NumberOfFrames = frames(header)
  floats = any(keyword in elements for keyword in FLOATS)
  return Layout(photometric, samples, allocated, stored, high, signed, floats)


def _whole(header: Header, keyword: str, legal: range | tuple[int, ...]) -> int:
  """Return an element's whole number; ValueError unless it is a legal one."""
  required(header, keyword)
  value = integer(header, keyword)
  if value is None or value not in legal:
    if isinstance(legal, range):
      raise illegal(keyword, value, f'{legal[0]} … {legal[-1]}')
    raise illegal(keyword, value, ', '.join(map(str, legal)))
  return value


def frames(header: Header) -> int:
  """Return how many frames a file says it holds; 0 and no value mean one."""
  count = integer(header, 'NumberOfFrames') or 1
  if count < 0:
    raise illegal('NumberOfFrames', count, 'at least 1')
  return count


def _photometric(header: Header) -> tuple[str, int]:
  """Return (PhotometricInterpretation, SamplesPerPixel); if one is absent, the other says it."""
  from pydicom.uid import JPEG2000TransferSyntaxes

  syntax = header.elements.file_meta.TransferSyntaxUID
  if not syntax.is_transfer_syntax:
    raise illegal('TransferSyntaxUID', syntax, 'a transfer syntax')
  samples = integer(header, 'SamplesPerPixel')
  photometric = ' '.join(text(header, 'PhotometricInterpretation').upper().split())
  if not photometric and samples == 3 and syntax.is_compressed:
    raise ValueError('PhotometricInterpretation is absent; expected it with compressed colours')
  if not photometric:
    photometric = 'RGB' if samples == 3 else 'MONOCHROME2'
    remark(header, f'PhotometricInterpretation is absent, taken as {photometric}')
  extra = JPEG_2000_COLOUR if syntax in JPEG2000TransferSyntaxes else ()
  known = (*GREY, PALETTE, *COLOUR, *extra)
  if photometric not in known:
    raise illegal('PhotometricInterpretation', photometric, ', '.join(known))
  expected = 1 if photometric in (*GREY, PALETTE) else 3
  if samples not in (None, expected):
    raise illegal('SamplesPerPixel', samples, f'{expected} for {photometric}')
  if expected == 3:
    _set_planes(header, syntax.is_compressed)
  return photometric, expected


def _set_planes(header: Header, compressed: bool) -> None:
  """Set PlanarConfiguration to 0 where it is absent or not needed: for compressed pixels."""
  if compressed:
    header.elements.PlanarConfiguration = 0
  elif value_of(header, 'PlanarConfiguration') is None:
    remark(header, 'PlanarConfiguration is absent; a pixel’s colours are taken to stand together')
    header.elements.PlanarConfiguration = 0
  else:
    _whole(header, 'PlanarConfiguration', (0, 1))


def _signed(header: Header) -> bool:
  """Return whether PixelRepresentation says that the numbers are signed."""
  if value_of(header, 'PixelRepresentation') is None:
    remark(header, 'PixelRepresentation is absent; whole numbers are taken as unsigned')
    return False
  return _whole(header, 'PixelRepresentation', (0, 1)) == 1


def _high_bit(header: Header, stored: int, allocated: int) -> int:
  """Return HighBit, which is BitsStored - 1 (PS3.5 8.1.1), or higher in older files.

  JPEG codestreams store the number alone, without the bits around it.
  """
  from pydicom.uid import RLELossless

  usual = stored - 1
  syntax = header.elements.file_meta.TransferSyntaxUID
  if syntax.is_encapsulated and syntax != RLELossless:
    return usual
  try:
    high = integer(header, 'HighBit')
  except ValueError:
    high = -1
  if high is None or high == usual:
    return usual
  if usual < high < allocated:
    remark(header, 'the numbers stand in the upper bits, as HighBit says', high)
    return high
  remark(header, 'HighBit is illegal, taken as BitsStored - 1', high)
  return usual


def pixel_keyword(header: Header) -> str:
  """Return the keyword of the element that holds the pixels; ValueError if there is no picture."""
  keywords = [keyword for keyword in ('PixelData', *FLOATS) if keyword in header.elements]
  if not keywords:
    raise ValueError(f'it holds no picture: PixelData is absent ({_kind(header)})')
  if len(keywords) > 1:
    raise ValueError(f'it holds {" and ".join(keywords)}; expected one of them')
  required(header, keywords[0])
  return keywords[0]


def _kind(header: Header) -> str:
  """Return what kind of object a file says it is, for instance RT Plan Storage."""
  from pydicom.uid import UID

  meta = header._replace(elements=header.elements.file_meta)
  kind = text(header, 'SOPClassUID') or text(meta, 'MediaStorageSOPClassUID')
  return shown(UID(kind).name) if kind else 'and SOPClassUID too'


def agree(header: Header, layout: Layout) -> Layout:
  """Return the layout after a comparison with the pixels: their length, or their codestream.

  A codestream may have fewer bits than the header says. Raises ValueError where the two contradict
  each other.
  """
  from pydicom.uid import RLELossless

  syntax = header.elements.file_meta.TransferSyntaxUID
  keyword = pixel_keyword(header)
  encapsulated = header.elements[keyword].is_undefined_length
  if encapsulated and not syntax.is_encapsulated:
    raise ValueError(f'TransferSyntaxUID says {syntax.name}, but {keyword} is compressed')
  if not syntax.is_encapsulated:
    _check_length(header, layout, keyword)
    return layout
  dicom_codestream.check_items(header.elements[keyword].value)
  if syntax == RLELossless:
    _check_rle(header)
  else:
    layout = _agree_with_codestream(header, layout)
  return layout


def _check_length(header: Header, layout: Layout, keyword: str) -> None:
  """Raise ValueError unless there are as many bytes as the header says; zeros may follow."""
  elements = header.elements
  pixels = elements[keyword].value
  bits = elements.Rows * elements.Columns * layout.samples * layout.allocated
  expected = math.ceil(bits / 8)
  if layout.photometric == 'YBR_FULL_422':  # two pixels share a pair of colours
    expected = expected // 3 * 2
  lengths = (
    f'{len(pixels)} bytes; expected {expected}, '
    'as Rows, Columns, SamplesPerPixel and BitsAllocated say'
  )
  if len(pixels) < expected:
    raise ValueError(f'{keyword} is cut short: {lengths}')
  even = expected + expected % 2  # PS3.5 8.1.1: a pad byte makes the length even
  if pixels[even:].strip(b'\0'):
    raise ValueError(f'{keyword} is longer than the picture: {lengths}')


def _check_rle(header: Header) -> None:
  """Raise ValueError where more pixels are stored than Rows and Columns say.

  pydicom raises where fewer are stored.
  """
  elements = header.elements
  expected = elements.Rows * elements.Columns
  length = dicom_codestream.rle_length(_frame(header))
  if length > expected + 1:  # an odd number may be padded
    raise ValueError(
      f'PixelData is longer than the picture: {length} pixels; expected {expected}, '
      'as Rows and Columns say'
    )


def _frame(header: Header) -> bytes:
  """Return the codestream of the first frame, without the items around it."""
  from pydicom.encaps import get_frame

  return get_frame(header.elements.PixelData, 0, number_of_frames=1)


def _agree_with_codestream(header: Header, layout: Layout) -> Layout:
  """Return the layout with no more bits than a JPEG picture has; ValueError where sizes differ."""
  from pydicom import uid

  elements = header.elements
  syntax = elements.file_meta.TransferSyntaxUID
  frame = _frame(header)
  if syntax in uid.JPEG2000TransferSyntaxes:
    codestream = dicom_codestream.jpeg_2000(frame)
    most = 32
  else:
    codestream = dicom_codestream.jpeg(frame)
    most = 8 if syntax == uid.JPEGBaseline8Bit else 16
  if codestream is None:
    raise ValueError(f'PixelData holds no picture of {syntax.name}')
  _check_same(header, 'Rows', codestream.rows or elements.Rows)
  _check_same(header, 'Columns', codestream.columns)
  _check_same(header, 'SamplesPerPixel', codestream.samples)
  if not codestream.bits <= layout.allocated <= most:
    legal = f'{codestream.bits} to {most} for this compressed picture'
    raise illegal('BitsAllocated', layout.allocated, legal)
  is_plain_jpeg = syntax in uid.JPEGTransferSyntaxes
  if is_plain_jpeg:  # on some broken ones GDCM aborts, and the process with it
    check = jpeg_file.check if syntax == uid.JPEGBaseline8Bit else jpeg_file.read_scans
    check(frame[frame.find(jpeg_file.START) :])
  stored = min(layout.stored, codestream.bits)  # no number of the picture has more
  # GDCM also aborts where the header says fewer bits than a plain JPEG has
  elements.BitsStored = codestream.bits if is_plain_jpeg else stored
  return layout._replace(stored=stored, high=stored - 1)


def _check_same(header: Header, keyword: str, inside: int) -> None:
  """Raise ValueError unless an element holds the number that the compressed picture says."""
  value = header.elements[keyword].value
  if value != inside:
    raise illegal(keyword, value, f'{inside}, as the compressed picture says')


def stored_numbers(header: Header, layout: Layout) -> np.ndarray:
  """Return the stored numbers [h, w], or [h, w, 3] where a pixel has three (YBR becomes RGB)."""
  from pydicom.pixels import pixel_array
  from pydicom.uid import JPEGBaseline8Bit

  syntax = header.elements.file_meta.TransferSyntaxUID
  options: dict[str, Any] = dict(allow_excess_frames=syntax.is_encapsulated)
  if syntax == JPEGBaseline8Bit:
    options['decoding_plugin'] = 'pillow'  # GDCM, pydicom's first choice, aborts on broken files
  header_bits = header.elements.BitsStored
  has_unused_bits = layout.high >= layout.stored or header_bits > layout.stored
  must_cut = has_unused_bits and not layout.floats
  if must_cut:
    options['correct_unused_bits'] = False
  try:
    x = pixel_array(header.elements, **options)
  except RuntimeError as error:  # it joins the words of several decoders
    if 'exceptions were raised' not in str(error):
      raise
    raise ValueError(
      f'its compressed pixels ({syntax.name}) are damaged, or of a kind that no decoder here reads'
    ) from error
  if x.ndim != (2 if layout.samples == 1 else 3):
    raise ValueError(f'PixelData holds {len(x)} frames; expected one, as NumberOfFrames says')
  return _cut(x, header, layout) if must_cut else x


def _cut(x: np.ndarray, header: Header, layout: Layout) -> np.ndarray:
  """Return the numbers without the bits above and below them; ValueError where these are used."""
  unused = layout.allocated - layout.stored
  above = layout.allocated - 1 - layout.high
  below = x & ((1 << unused - above) - 1)
  overlaid = OVERLAY_BIT in header.elements and OVERLAY_DATA not in header.elements
  if (below != below.flat[0]).any() and not overlaid:
    legal = (
      f'{layout.high + 1}, as HighBit says, or HighBit {layout.stored - 1}: '
      'the bits below the number are in use'
    )
    raise illegal('BitsStored', layout.stored, legal)
  header_bits = header.elements.BitsStored
  if layout.stored < header_bits <= 8 and x.max() > layout.ends[1]:
    legal = f'{header_bits}, which the compressed numbers need'
    raise illegal('BitsStored', layout.stored, legal)
  return np.right_shift(np.left_shift(x, above), unused)
