"""Whether the strips or tiles of a TIFF hold as many rows as its tags say (TIFF 6.0).

libtiff and Pillow leave missing rows black and pass over further ones, so that a wrong width,
height, depth or compression would give another picture. What JPEG, CCITT, Zstandard and LZMA hold
is not known here.
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
LARGEST_RATIO = 4096  # of any of them: LZW's longest strings are shorter
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262  # tags
OFFSETS, SAMPLES, ROWS_PER_STRIP, BYTE_COUNTS = 273, 277, 278, 279
YCBCR = 6  # photometric interpretation
CLEAR, END = 256, 257  # codes of LZW
LONGEST_ENTRY = 200  # bytes; so few entries have codes of 9 bits
LONGEST_RUN = 128  # bytes, of PackBits
OURS = 165  # a byte


class Part(NamedTuple):
  """A strip or a tile."""

  start: int  # in the file
  packed: bytes
  row: int  # bytes of a row, once decompressed
  rows: int


def check(
  data: bytes,
  tags: Mapping[str, Any],
  pixel_bits: int,
  planes: int,
  heads: Iterable[tuple[int, int]],
) -> None:
  """Raise ValueError where strips or tiles are missing or too many, too short or too long.

  `tags` are the page's, by name; `pixel_bits` is what a pixel takes in one plane; `heads` are start
  and end of what else is known to lie in the file.
  """
  parts = _parts(data, tags, pixel_bits, planes)
  _check_apart([*heads, *((part.start, part.start + len(part.packed)) for part in parts)])
  compression = tags.get('Compression', UNCOMPRESSED)
  if tags['PhotometricInterpretation'] == YCBCR:  # its colours may have fewer rows
    sound = True
  elif compression == UNCOMPRESSED:
    sound = all(_is_plain(part) for part in parts)
  elif compression in DEFLATE:
    sound = all(_is_inflated(part) for part in parts)
  elif compression in (LZW, PACK_BITS):
    fill_order = tags.get('FillOrder', 1)
    ends = parts if len(parts) < 2 else [parts[0], parts[-1]]  # a wrong size shows there
    sound = all(_ends(part, compression, fill_order) for part in ends)
  else:
    sound = True
  if not sound:
    raise ValueError(
      'it is damaged: its strips or tiles hold more or less than its width, height, '
      'bits and compression ask for'
    )


def _parts(data: bytes, tags: Mapping[str, Any], pixel_bits: int, planes: int) -> list[Part]:
  """Return all strips or tiles, if they are as many as the size needs and lie in the file."""
  width, height = tags.get('ImageWidth', 0), tags.get('ImageLength', 0)
  if not width or not height:
    raise ValueError(f'it is damaged: {width} columns and {height} rows')
  if 'TileOffsets' in tags:
    kind = 'Tile'
    columns, rows = tags['TileWidth'], tags['TileLength']
    rows_of_last = rows
  else:
    kind = 'Strip'
    columns, rows = width, min(tags.get('RowsPerStrip', height), height)
    rows_of_last = height % rows or rows
  across, down = math.ceil(width / columns), math.ceil(height / rows)
  offsets = tags.get(f'{kind}Offsets', ())
  if len(offsets) != across * down * planes:
    raise ValueError(
      f'it is damaged: {len(offsets)} of its {across * down * planes} strips or tiles are there'
    )
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
    parts.append(Part(start, packed, row, rows_of_last if is_last else rows))
  return parts


def _check_apart(places: Iterable[tuple[int, int]]) -> None:
  """Raise where two parts of a file overlap; two that are the same may be written once."""
  for (_, end), (start, _) in itertools.pairwise(sorted(set(places))):
    if start < end:
      raise ValueError(
        'it is damaged: two of its strips or tiles overlap, or one lies where its tags do'
      )


def _is_plain(part: Part) -> bool:
  """Return whether an uncompressed part has the right length; one byte may make it even."""
  return len(part.packed) - part.row * part.rows in (0, 1)


def _is_inflated(part: Part) -> bool:
  """Return whether a part that Deflate compressed is undamaged and has the right length."""
  length = part.row * part.rows
  try:
    return len(zlib.decompressobj().decompress(part.packed, length + 1)) == length
  except zlib.error:
    return False


def _ends(part: Part, compression: int, fill_order: int) -> bool:
  """Return whether a part ends with its last row: libtiff itself refuses one that ends before it.

  Bytes of our own are put behind its own. If they make up the next row, it had no further ones.
  """
  if fill_order != 1:  # rare; not looked at
    return True
  longer = _lengthened_lzw(part) if compression == LZW else _lengthened_pack_bits(part)
  return not longer or _continues(longer, part.row, part.rows, compression)


def _lengthened_pack_bits(part: Part) -> bytes:
  """Return a part with a row more of OURS (section 9)."""
  run = bytes([257 - LONGEST_RUN, OURS])
  return part.packed + run * math.ceil(part.row / LONGEST_RUN)


def _lengthened_lzw(part: Part) -> bytes:
  """Return a part with a row more of OURS (section 13), b'' where its end is not found.

  Its last bits are 257, the end of information. 256 in its place clears the table; the codes after
  it have 9 bits: OURS, and entries of the table, each a byte longer than the one before.
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
  """Return whether OURS follow behind so many rows; one byte before them may make a length even."""
  if row * rows > LARGEST_RATIO * len(packed):
    return False
  tags = ImageFileDirectory_v2(b'II*\0\x08\0\0\0')
  for tag, value in (
    (WIDTH, row),
    (HEIGHT, rows + 1),
    (BITS, 8),
    (COMPRESSION, compression),
    (PHOTOMETRIC, 1),
    (OFFSETS, 0),
    (SAMPLES, 1),
    (ROWS_PER_STRIP, rows + 1),
    (BYTE_COUNTS, len(packed)),
  ):
    tags[tag] = value  # Pillow adds to the offset where the tags end
  file = io.BytesIO(b'II*\0\x08\0\0\0' + tags.tobytes(8) + packed)
  try:
    last_row = np.asarray(Image.open(file, formats=['TIFF']))[-1]
  except OSError:
    return False
  return bool((last_row[1:] == OURS).all())
