"""Reads the size of a compressed picture, to be compared with what the DICOM header says.

Decoders trust the header. Where the two differ, some return a wrong picture, and GDCM may abort the
whole process.
"""

import struct
from typing import NamedTuple

ITEM = b'\xfe\xff\x00\xe0'  # the tag FFFE,E000
RLE_HEADER = 64  # bytes
RLE_SEGMENTS = 15  # at most
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0 … SOF15, SOF55
START_OF_SCAN = 0xDA
FILL = 0xFF
JPEG_2000 = b'\xff\x4f\xff\x51'  # SOC and SIZ, which begin each codestream
RLE_NOTHING = 128  # a code that stands for no byte


class Codestream(NamedTuple):
  """The size of a compressed picture."""

  rows: int  # 0 where it is said later than in the first header
  columns: int
  samples: int  # numbers a pixel
  bits: int  # of a number


def check_items(pixels: bytes) -> None:
  """Raise ValueError unless compressed pixels consist of whole items (PS3.5 A.4).

  The first item is a table of offsets; the others are fragments of the picture. pydicom accepts an
  item that is cut short.
  """
  place = 0
  count = 0
  while place < len(pixels):
    head = pixels[place : place + 8].ljust(8, b'\0')
    tag, length = struct.unpack('<4sI', head)
    place += 8 + length
    if tag != ITEM or place > len(pixels):
      raise ValueError(
        'PixelData is damaged: its compressed fragments have other lengths than they say'
      )
    count += 1
  if count < 2:
    raise ValueError('PixelData holds no fragment of a compressed picture')


def jpeg(frame: bytes) -> Codestream | None:
  """Return what the frame header of a JPEG or JPEG-LS picture says, None where there is none.

  ITU-T T.81 B.2.2 and T.87 C.2.2.
  """
  place = frame.find(b'\xff\xd8') + 2  # after the start of the image
  while place + 10 <= len(frame) and frame[place] == 0xFF:
    marker = frame[place + 1]
    if marker == START_OF_SCAN:
      return None
    if marker in FRAME_MARKERS:
      bits, rows, columns, samples = struct.unpack_from('>BHHB', frame, place + 4)
      return Codestream(rows, columns, samples, bits)
    if marker == FILL:
      place += 1
    else:
      (length,) = struct.unpack_from('>H', frame, place + 2)
      place += 2 + length
  return None


def jpeg_2000(frame: bytes) -> Codestream | None:
  """Return what the header of a JPEG 2000 picture says, None where there is none.

  ITU-T T.800 A.5.1.
  """
  place = frame.find(JPEG_2000)
  if place < 0 or place + 43 > len(frame):
    return None
  right, bottom, left, top = struct.unpack_from('>4I', frame, place + 8)
  samples, depth = struct.unpack_from('>HB', frame, place + 40)
  return Codestream(bottom - top, right - left, samples, (depth & 0x7F) + 1)


def rle_length(frame: bytes) -> int:
  """Return how many bytes the first segment of an RLE picture decodes to (PS3.5 G.3 and G.5).

  The segment holds one byte of each pixel. Raises ValueError where the header, which says where the
  segments begin, is no RLE header.
  """
  segments, place, second = struct.unpack_from('<3I', frame.ljust(12, b'\0'))
  end = second if segments > 1 else len(frame)
  if not (1 <= segments <= RLE_SEGMENTS and RLE_HEADER == place < end <= len(frame)):
    raise ValueError('PixelData holds no RLE picture, as TransferSyntaxUID says, or a damaged one')
  length = 0
  while place + 1 < end:  # a single last byte is padding
    code = frame[place]
    if code < RLE_NOTHING:  # code + 1 bytes follow
      length += code + 1
      place += code + 2
    elif code > RLE_NOTHING:  # the next byte is repeated
      length += 257 - code
      place += 2
    else:
      place += 1
  return length
