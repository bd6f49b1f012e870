"""TIFF 6.0: no checksum but Deflate's own; lengths of strips are said and follow from the size too.

Written by tifffile and Pillow, so that directories lie before and behind the pixels.
"""

import io
import math
import random
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from tests.fuzz.files import EVERYTHING, NOTHING, PIXELS, Lie, Original, Outputs, Region, picture

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
OFFSETS, ORIENTATION, SAMPLES, ROWS, COUNTS = 273, 274, 277, 278, 279
PREDICTOR, TILE_OFFSETS, TILE_COUNTS, SAMPLE_FORMAT, FILL_ORDER = 317, 324, 325, 339, 266
NONE, LZW, DEFLATE = 1, 5, (8, 32946)
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 12: 8, 16: 8}
NEEDED = (
  WIDTH,
  LENGTH,
  BITS,
  COMPRESSION,
  OFFSETS,
  SAMPLES,
  ROWS,
  COUNTS,
  TILE_OFFSETS,
  TILE_COUNTS,
)
SAID = (PHOTOMETRIC, PREDICTOR, SAMPLE_FORMAT, FILL_ORDER)  # another value is another picture


class Entry(NamedTuple):
  """One field of a directory."""

  tag: int
  start: int  # of its 12 bytes: tag, type, count, value or its offset
  values: tuple[int, ...]
  value: int  # where the values lie
  size: int  # bytes of each


def originals() -> Iterator[Original]:
  """Give TIFFs of both byte orders, 8, 16 and 32 bits, strips and tiles, packed and turned."""
  grey, deep = picture((20, 32), 255).astype(np.uint8), picture((18, 26), 65535).astype(np.uint16)
  colour = picture((20, 28, 3), 255).astype(np.uint8)
  numbers = (picture((15, 21), 4000) - 1000).astype(np.float32)
  turned = np.rot90(grey, -1)
  yield _original('8 bit', _tifffile(grey, rowsperstrip=20), grey / 255)
  yield _original('16 bit', _pillow(deep), deep / 65535)
  yield _original('16 bit big-endian', _tifffile(deep, byteorder='>', rowsperstrip=5), deep / 65535)
  yield _original(
    '16 bit big-endian Deflate',
    _tifffile(deep, byteorder='>', compression='zlib', rowsperstrip=9),
    deep / 65535,
  )
  yield _original('8 bit LZW', _pillow(grey, compression='tiff_lzw'), grey / 255)
  yield _original('RGB LZW', _pillow(colour, compression='tiff_lzw'), colour / 255)
  yield _original('RGB Deflate', _pillow(colour, compression='tiff_adobe_deflate'), colour / 255)
  yield _original(
    'RGB big-endian', _tifffile(colour, byteorder='>', photometric='rgb'), colour / 255
  )
  yield _original('8 bit tiles', _tifffile(grey, tile=(16, 16)), grey / 255)
  yield _original('32 bit numbers', _tifffile(numbers), numbers)
  yield _original(
    '8 bit, stored turned', _tifffile(grey, extratags=[(ORIENTATION, 3, 1, 6, True)]), turned / 255
  )
  yield _original(
    '8 bit LZW, stored turned',
    _pillow(grey, compression='tiff_lzw', tiffinfo={ORIENTATION: 6}),
    turned / 255,
  )


def _tifffile(values: np.ndarray, **keys: Any) -> bytes:
  file = io.BytesIO()
  keys = dict(photometric='minisblack', metadata=None, software='scanner') | keys
  tifffile.imwrite(file, values, **keys)
  return file.getvalue()


def _pillow(values: np.ndarray, **keys: Any) -> bytes:
  file = io.BytesIO()
  Image.fromarray(values).save(file, 'TIFF', **keys)
  return file.getvalue()


def _original(name: str, data: bytes, truth: np.ndarray) -> Original:
  channels = truth.shape[2] if truth.ndim == 3 else 1
  x = truth.reshape(*truth.shape[:2], channels).astype(np.float32)
  options = dict(channels=channels, exif='apply' if 'turned' in name else 'stop')
  return Original(
    'tiff',
    name,
    data,
    'picture',
    '.tif',
    options,
    {'x': x},
    1e-6,
    regions=_regions(data),
    lies=lambda dice: _lies(data, dice),
  )


def order(data: bytes) -> str:
  """Return the byte order as `struct` writes it."""
  return '<' if data[:2] == b'II' else '>'


def entries(data: bytes) -> dict[int, Entry]:
  """Return the fields of the first directory by their tags."""
  mark = order(data)
  (place,) = struct.unpack_from(f'{mark}I', data, 4)
  (count,) = struct.unpack_from(f'{mark}H', data, place)
  found = {}
  for start in range(place + 2, place + 2 + 12 * count, 12):
    tag, kind, length = struct.unpack_from(f'{mark}HHI', data, start)
    size = SIZES[kind]
    value = start + 8
    if length * size > 4:
      (value,) = struct.unpack_from(f'{mark}I', data, value)
    raw = data[value : value + length * size]
    numbers = struct.unpack(f'{mark}{length}{"HI"[size == 4]}', raw) if kind in (3, 4) else ()
    found[tag] = Entry(tag, start, numbers, value, size)
  return found


def _parts(found: dict[int, Entry]) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Return where strips or tiles begin and how long they are."""
  if TILE_OFFSETS in found:
    return found[TILE_OFFSETS].values, found[TILE_COUNTS].values
  return found[OFFSETS].values, found[COUNTS].values


def _runs(offsets: tuple[int, ...], counts: tuple[int, ...]) -> list[tuple[int, int]]:
  """Return start and stop of strips or tiles that follow each other without a gap."""
  runs: list[tuple[int, int]] = []
  for start, count in sorted(zip(offsets, counts, strict=True)):
    stop = start + count
    if runs and runs[-1][1] == start:
      start, _ = runs.pop()
    runs.append((start, stop))
  return runs


def _regions(data: bytes) -> list[Region]:
  found = entries(data)
  regions = []
  if found[COMPRESSION].values[0] not in DEFLATE:
    for start, stop in _runs(*_parts(found)):
      regions.append(Region(start, stop, PIXELS, grows=stop == len(data)))
  for entry in found.values():
    stop = entry.value + entry.size * len(entry.values)
    if entry.tag not in NEEDED:
      outputs = EVERYTHING if entry.tag == ORIENTATION else PIXELS
      regions.append(Region(entry.start, entry.start + 2, outputs))
    if entry.tag == ORIENTATION:
      regions.append(Region(entry.value, stop, EVERYTHING))
    if entry.tag in SAID:
      regions.append(Region(entry.value, stop, PIXELS))
  return regions


def put(data: bytes, entry: Entry, *values: int) -> bytes:
  """Return the file with other values in one field."""
  packed = struct.pack(f'{order(data)}{len(values)}{"HI"[entry.size == 4]}', *values)
  return data[: entry.value] + packed + data[entry.value + len(packed) :]


def _lies(data: bytes, dice: random.Random) -> Iterator[Lie]:
  found = entries(data)
  yield from _sizes(data, found, dice)
  yield from _places(data, found)
  yield from _types(data, found)
  yield from _directory(data, found)


def _sizes(data: bytes, found: dict[int, Entry], dice: random.Random) -> Iterator[Lie]:
  """Give sizes that do not fit the pixels."""
  width, height = found[WIDTH].values[0], found[LENGTH].values[0]
  less, more = dice.randint(1, 7), dice.randint(1, 7)

  def sized(wide: int, high: int) -> bytes:
    return put(put(data, found[WIDTH], wide), found[LENGTH], high)

  yield Lie('width smaller', sized(width - less, height), _same_tiles(found, width - less, height))
  yield Lie('width larger', sized(width + more, height), _same_tiles(found, width + more, height))
  yield Lie('height smaller', sized(width, height - less), _same_tiles(found, width, height - less))
  yield Lie('height larger', sized(width, height + more), _same_tiles(found, width, height + more))
  yield Lie('width and height swapped', sized(height, width), _swapped(found, width, height))
  yield Lie('width 0', sized(0, height))
  yield Lie('height 0', sized(width, 0))
  yield Lie('declared gigabytes', sized(60000, 60000))
  yield Lie('declared 160 megapixels', sized(10000, 16000))


def _same_tiles(found: dict[int, Entry], width: int, height: int) -> Outputs:
  """Return EVERYTHING where a size needs the tiles that are there: then nothing contradicts it."""
  if TILE_OFFSETS not in found:
    return NOTHING
  needed = math.ceil(width / 16) * math.ceil(height / 16)
  return EVERYTHING if needed == len(found[TILE_OFFSETS].values) else NOTHING


def _swapped(found: dict[int, Entry], width: int, height: int) -> Outputs:
  """Return EVERYTHING where the swapped size needs the strips or tiles that are there."""
  if TILE_OFFSETS in found:
    return _same_tiles(found, height, width)
  rows = found[ROWS].values[0]
  return EVERYTHING if math.ceil(width / rows) == len(found[OFFSETS].values) == 1 else NOTHING


def _places(data: bytes, found: dict[int, Entry]) -> Iterator[Lie]:
  """Give strips that lie elsewhere or have another length."""
  offsets, counts = _parts(found)
  where = found.get(TILE_OFFSETS) or found[OFFSETS]
  lengths = found.get(TILE_COUNTS) or found[COUNTS]
  inside = PIXELS if found[COMPRESSION].values[0] not in DEFLATE else NOTHING
  yield Lie('strips outside the file', put(data, where, *[len(data) + 8] * len(offsets)))
  last = offsets[-1] + counts[-1] == len(data)
  shifted = [offset + 1 for offset in offsets]
  yield Lie('strips a byte later', put(data, where, *shifted), NOTHING if last else inside)
  halves = [count // 2 for count in counts]
  yield Lie('strips half as long', put(data, lengths, *halves))
  yield Lie('strips of no length', put(data, lengths, *[0] * len(counts)))
  yield Lie('strips longer than the file', put(data, lengths, *[len(data) * 2] * len(counts)))
  if len(offsets) > 1:
    yield Lie('first two strips swapped', put(data, where, offsets[1], offsets[0]), PIXELS)


def _types(data: bytes, found: dict[int, Entry]) -> Iterator[Lie]:
  """Give pixels of another type than the strips hold."""
  bits = found[BITS].values
  compression = found[COMPRESSION].values[0]
  other = {8: 16, 16: 8, 32: 16}[bits[0]]
  yield Lie('other depth', put(data, found[BITS], *[other] * len(bits)))
  yield Lie('depth 7', put(data, found[BITS], *[7] * len(bits)))
  yield Lie('depth 0', put(data, found[BITS], *[0] * len(bits)))
  if SAMPLES in found:
    yield Lie('other number of samples', put(data, found[SAMPLES], 4 - found[SAMPLES].values[0]))
    yield Lie('samples 0', put(data, found[SAMPLES], 0))
  for name, code in (
    ('no compression', NONE),
    ('LZW', LZW),
    ('Deflate', 8),
    ('JPEG', 7),
    ('Group 4', 4),
    ('an unknown compression', 4711),
  ):
    if code != compression:
      yield Lie(f'{name} claimed', put(data, found[COMPRESSION], code))
  yield Lie('photometric 77', put(data, found[PHOTOMETRIC], 77))
  other_order = (b'MM' if data[:2] == b'II' else b'II') + data[2:]
  yield Lie('other byte order claimed', other_order)


def _directory(data: bytes, found: dict[int, Entry]) -> Iterator[Lie]:
  """Give directories with missing, doubled or endless fields."""
  mark = order(data)
  (place,) = struct.unpack_from(f'{mark}I', data, 4)
  (count,) = struct.unpack_from(f'{mark}H', data, place)
  end = place + 2 + 12 * count
  own = struct.pack(f'{mark}I', place)
  yield Lie('directory follows itself', data[:end] + own + data[end + 4 :])
  yield Lie('directory outside the file', data[:4] + b'\xff\xff\xff\xf0' + data[8:])
  yield Lie('directory of 65535 fields', data[:place] + b'\xff\xff' + data[place + 2 :])
  yield Lie('directory of no field', data[:place] + b'\0\0' + data[place + 2 :])
  for name, tag in (
    ('width', WIDTH),
    ('depth', BITS),
    ('offsets', OFFSETS),
    ('lengths', COUNTS),
    ('compression', COMPRESSION),
  ):
    if tag in found:
      start = found[tag].start
      unknown = struct.pack(f'{mark}H', 65000)
      yield Lie(f'{name} missing', data[:start] + unknown + data[start + 2 :])
      endless = data[: start + 4] + b'\x7f\xff\xff\x7f' + data[start + 8 :]
      yield Lie(f'{name} with 2 ** 31 values', endless)
      text = struct.pack(f'{mark}H', 2)
      yield Lie(f'{name} as text', data[: start + 2] + text + data[start + 4 :])
  doubled = found[LENGTH].start
  again = data[doubled : doubled + 12]
  start = found[WIDTH].start
  yield Lie('height twice, width missing', data[:start] + again + data[start + 12 :])
