"""Checks that the strips or tiles of a TIFF hold as many rows as its tags say (TIFF 6.0).

libtiff and Pillow leave missing rows black and ignore further ones, so that a wrong width, height,
depth or compression would give another picture. What is compressed by JPEG, CCITT, Zstandard or
LZMA is not checked.
"""

import io
import itertools
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

UNCOMPRESSED, LZW, DEFLATE, PACK_BITS = 1, 5, (8, 32946), 32773
LARGEST_RATIO = 4096  # bytes that one byte can stand for; LZW's longest strings are shorter
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262  # tags
OFFSETS, SAMPLES, ROWS_PER_STRIP, BYTE_COUNTS = 273, 277, 278, 279
YCBCR = 6  # photometric interpretation
CLEAR, END = 256, 257  # codes of LZW
LONGEST_ENTRY = 200  # bytes; up to here all codes have 9 bits
LONGEST_RUN = 128  # bytes, of PackBits
OURS = 165  # the byte that is appended to find out where a part ends


HEADER = b'II*\0\x08\0\0\0'  # of a little-endian TIFF whose tags follow at byte 8


class Part(NamedTuple):
  """A strip or a tile."""

  start: int  # in the file
  packed: bytes
  row: int  # bytes in a row, once decompressed
  rows: int


def check(
  data: bytes,
  tags: Mapping[str, Any],
  pixel_bits: int,
  planes: int,
  heads: Iterable[tuple[int, int]],
) -> None:
  """Raise ValueError where strips or tiles are missing or too many, too short or too long.

  `tags` are the page's, by name. `pixel_bits` are the bits of a pixel in one plane. `heads` are
  (start, end) of everything else that is known to lie in the file.
  """
  parts = _parts(data, tags, pixel_bits, planes)
  places = [(part.start, part.start + len(part.packed)) for part in parts]
  _check_apart([*heads, *places])
  compression = tags.get('Compression', UNCOMPRESSED)
  if tags['PhotometricInterpretation'] == YCBCR:  # colours may have fewer rows than brightness
    sound = True
  elif compression == UNCOMPRESSED:
    sound = all(_is_plain(part) for part in parts)
  elif compression in DEFLATE:
    sound = all(_is_inflated(part) for part in parts)
  elif compression in (LZW, PACK_BITS):
    fill_order = tags.get('FillOrder', 1)
    checked = parts if len(parts) < 2 else [parts[0], parts[-1]]  # a wrong size shows there
    sound = all(_ends(part, compression, fill_order) for part in checked)
  else:
    sound = True
  if not sound:
    raise ValueError(
      'it is damaged: its strips or tiles hold more or less than its width, height, '
      'bits and compression ask for'
    )


def _parts(data: bytes, tags: Mapping[str, Any], pixel_bits: int, planes: int) -> list[Part]:
  """Return all strips or tiles; ValueError unless they are as many as needed, and in the file."""
  width = tags.get('ImageWidth', 0)
  height = tags.get('ImageLength', 0)
  if not width or not height:
    raise ValueError(f'it is damaged: {width} columns and {height} rows')
  if 'TileOffsets' in tags:
    kind = 'Tile'
    columns = tags['TileWidth']
    rows = tags['TileLength']
    rows_of_last = rows
  else:
    kind = 'Strip'
    columns = width
    rows = min(tags.get('RowsPerStrip', height), height)
    rows_of_last = height % rows or rows
  across = math.ceil(width / columns)
  down = math.ceil(height / rows)
  expected = across * down * planes
  offsets = tags.get(f'{kind}Offsets', ())
  if len(offsets) != expected:
    raise ValueError(f'it is damaged: {len(offsets)} of its {expected} strips or tiles are there')
  sizes = tags.get(f'{kind}ByteCounts', ())
  if len(sizes) != len(offsets):
    raise ValueError(
      f'it is damaged: it has {len(offsets)} strips or tiles, but {len(sizes)} '
      f'lengths of them ({kind}ByteCounts)'
    )
  row = math.ceil(columns * pixel_bits / 8)
  parts = []
  for number, (start, size) in enumerate(zip(offsets, sizes, strict=True)):
    if start + size > len(data):
      raise ValueError('it is cut off or damaged: a strip or tile lies outside of the file')
    is_last = number // across % down == down - 1
    packed = data[start : start + size]
    own_rows = rows_of_last if is_last else rows
    parts.append(Part(start, packed, row, own_rows))
  return parts


def _check_apart(places: Iterable[tuple[int, int]]) -> None:
  """Raise ValueError where parts of a file overlap; equal parts may be stored once."""
  for (_, end), (start, _) in itertools.pairwise(sorted(set(places))):
    if start < end:
      raise ValueError(
        'it is damaged: two of its strips or tiles overlap, or one lies where its tags do'
      )


def _is_plain(part: Part) -> bool:
  """Return whether an uncompressed part has the right length; one byte may pad it to even."""
  return len(part.packed) - part.row * part.rows in (0, 1)


def _is_inflated(part: Part) -> bool:
  """Return whether a part that Deflate compressed is undamaged and has the right length."""
  length = part.row * part.rows
  try:
    inflated = zlib.decompressobj().decompress(part.packed, length + 1)
    return len(inflated) == length
  except zlib.error:
    return False


def _ends(part: Part, compression: int, fill_order: int) -> bool:
  """Return whether a part ends with its last row; libtiff itself refuses one that ends before.

  A row of OURS is appended. If it comes out as the next row, the part had no further ones.
  """
  if fill_order != 1:  # rare, not checked
    return True
  longer = _lengthened_lzw(part) if compression == LZW else _lengthened_pack_bits(part)
  return not longer or _continues(longer, part.row, part.rows, compression)


def _lengthened_pack_bits(part: Part) -> bytes:
  """Return a part with one more row, of OURS (TIFF 6.0, section 9)."""
  run = bytes([257 - LONGEST_RUN, OURS])
  return part.packed + run * math.ceil(part.row / LONGEST_RUN)


def _lengthened_lzw(part: Part) -> bytes:
  """Return a part with one more row, of OURS (TIFF 6.0, section 13), b'' if its end is not found.

  The last bits of a part are 257, the end of information. 256 in their place clears the table. The
  codes after it have 9 bits: OURS, then entries of the table, each a byte longer than the last.
  """
  packed = part.packed.rstrip(b'\0')
  last = int.from_bytes(packed[-3:])
  bits = f'{last:0{8 * len(packed[-3:])}b}'.rstrip('0')
  if not bits.endswith(f'{END:09b}'):
    return b''
  codes = [CLEAR, OURS, *range(END + 1, END + LONGEST_ENTRY)]
  length = sum(range(LONGEST_ENTRY + 1))
  codes *= math.ceil(part.row / length)
  bits = bits[:-9] + ''.join(f'{code:09b}' for code in (*codes, END))
  bits += '0' * (-len(bits) % 8)
  return packed[:-3] + int(bits, 2).to_bytes(len(bits) // 8)


def _continues(packed: bytes, row: int, rows: int, compression: int) -> bool:
  """Return whether a row of OURS follows after `rows` rows; a padding byte may stand before it.

  Pillow reads it from a TIFF of one strip, which is written around the packed bytes.
  """
  if row * rows > LARGEST_RATIO * len(packed):
    return False
  tags = ImageFileDirectory_v2(HEADER)
  tags[WIDTH] = row
  tags[HEIGHT] = rows + 1
  tags[BITS] = 8
  tags[COMPRESSION] = compression
  tags[PHOTOMETRIC] = 1
  tags[OFFSETS] = 0  # Pillow adds where the tags end
  tags[SAMPLES] = 1
  tags[ROWS_PER_STRIP] = rows + 1
  tags[BYTE_COUNTS] = len(packed)
  file = io.BytesIO(HEADER + tags.tobytes(len(HEADER)) + packed)
  try:
    last_row = np.asarray(Image.open(file, formats=['TIFF']))[-1]
  except OSError:
    return False
  return bool((last_row[1:] == OURS).all())
