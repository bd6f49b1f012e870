"""PNG (ISO/IEC 15948): every chunk has a CRC, the pixels a length and an Adler-32 beside it.

So every change that reaches a pixel can be noticed, also where the CRCs were computed anew.
"""

import math
import random
import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from tests.fuzz.files import EVERYTHING, NOTHING, PIXELS, Lie, Original, Outputs, picture

SIGNATURE = b'\x89PNG\r\n\x1a\n'
GREY, RGB, PALETTE, GREY_ALPHA = 0, 2, 3, 4
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2}
WHOLE = [(0, 0, 1, 1)]
ADAM7 = [
  (0, 0, 8, 8),
  (0, 4, 8, 8),
  (4, 0, 8, 4),
  (0, 2, 4, 4),
  (2, 0, 4, 2),
  (0, 1, 2, 2),
  (1, 0, 2, 1),
]  # first row, first column, step of rows, step of columns
Chunks = list[tuple[bytes, bytes]]


def originals() -> Iterator[Original]:
  """Give PNGs of 1, 8 and 16 bits, grey, coloured, by palette and interlaced."""
  palette = picture((16, 16, 3), 255, 7).astype(np.uint8).reshape(-1, 3)
  grey, deep = picture((20, 28, 1), 255), picture((18, 26, 1), 65535)
  colour, index = picture((20, 28, 3), 255), picture((20, 28, 1), 199)
  bit = picture((19, 29, 1), 1)
  alpha = np.concatenate([grey, np.full_like(grey, 255)], axis=2)
  yield _original('grey 8 bit', encode(grey, 8, GREY), grey / 255)
  yield _original('grey 16 bit', encode(deep, 16, GREY), deep / 65535)
  yield _original('grey 16 bit interlaced', encode(deep, 16, GREY, ADAM7), deep / 65535)
  yield _original('grey 1 bit', encode(bit, 1, GREY), bit.astype(float))
  yield _original('grey with alpha', encode(alpha, 8, GREY_ALPHA), grey / 255)
  yield _original('RGB', encode(colour, 8, RGB), colour / 255)
  yield _original('RGB interlaced', encode(colour, 8, RGB, ADAM7), colour / 255)
  yield _original(
    'palette', encode(index, 8, PALETTE, palette=palette[:200]), palette[index[..., 0]] / 255
  )


def _original(name: str, chunks: Chunks, truth: np.ndarray) -> Original:
  data = join(chunks)
  return Original(
    'png',
    name,
    data,
    'picture',
    '.png',
    dict(channels=truth.shape[2]),
    {'x': truth.astype(np.float32)},
    1e-6,
    lies=lambda dice: _lies(chunks, dice),
  )


def encode(
  values: np.ndarray,
  depth: int,
  colour: int,
  passes: list = WHOLE,
  palette: np.ndarray | None = None,
) -> Chunks:
  """Return the chunks of a PNG of whole numbers [h, w, c]; rows use the filters 0, 1 and 2."""
  height, width = values.shape[:2]
  header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, int(passes != WHOLE))
  rows = b''.join(_rows(values[y::dy, x::dx], depth) for y, x, dy, dx in passes)
  packed = zlib.compress(rows, 9)
  half = len(packed) // 2
  table = [] if palette is None else [(b'PLTE', palette.tobytes())]
  return [
    (b'IHDR', header),
    (b'pHYs', struct.pack('>IIB', 3780, 3780, 1)),
    *table,
    (b'tEXt', b'Comment\0left lung'),
    (b'IDAT', packed[:half]),
    (b'IDAT', packed[half:]),
    (b'IEND', b''),
  ]


def _rows(values: np.ndarray, depth: int) -> bytes:
  """Return the filtered rows of one pass; a pass without pixels has none."""
  if not values.size:
    return b''
  flat = values.reshape(len(values), -1)
  if depth == 1:
    lines = np.packbits(flat.astype(np.uint8), axis=1)
    step = 1
  else:
    lines = flat.astype('>u2' if depth == 16 else 'u1')
    lines = np.ascontiguousarray(lines).view(np.uint8)
    step = values.shape[2] * depth // 8
  found = b''
  above = np.zeros_like(lines[0])
  for number, line in enumerate(lines):
    left = np.concatenate([np.zeros(step, np.uint8), line[:-step]])
    filtered = (line, line - left, line - above)[number % 3]
    found += bytes([number % 3]) + filtered.tobytes()
    above = line
  return found


def join(chunks: Chunks) -> bytes:
  """Return a file of chunks, with their lengths and CRCs."""
  parts = [SIGNATURE]
  for kind, body in chunks:
    checksum = zlib.crc32(kind + body)
    parts += [struct.pack('>I', len(body)), kind, body, struct.pack('>I', checksum)]
  return b''.join(parts)


def _stream(chunks: Chunks) -> bytes:
  return b''.join(body for kind, body in chunks if kind == b'IDAT')


def _with_stream(chunks: Chunks, stream: bytes) -> bytes:
  """Return a file with all pixels in one chunk."""
  before = [chunk for chunk in chunks if chunk[0] not in (b'IDAT', b'IEND')]
  return join([*before, (b'IDAT', stream), (b'IEND', b'')])


def _lies(chunks: Chunks, dice: random.Random) -> Iterator[Lie]:
  """Give files whose CRCs are right and whose chunks contradict each other."""
  for name, header, free in _headers(chunks[0][1], dice):
    yield Lie(name, join([(b'IHDR', header), *chunks[1:]]), free)
  yield from _streams(chunks, dice)
  yield from _orders(chunks)


def _headers(header: bytes, dice: random.Random) -> Iterable[tuple[str, bytes, Outputs]]:
  width, height, depth, colour, _, _, interlace = struct.unpack('>IIBBBBB', header)

  def said(
    width: int = width,
    height: int = height,
    depth: int = depth,
    colour: int = colour,
    methods: tuple[int, int] = (0, 0),
    interlace: int = interlace,
  ) -> bytes:
    return struct.pack('>IIBBBBB', width, height, depth, colour, *methods, interlace)

  def same_rows(other: int) -> Outputs:
    bits = depth * CHANNELS[colour]
    same = math.ceil(other * bits / 8) == math.ceil(width * bits / 8)
    return EVERYTHING if same and not interlace else NOTHING

  less, more = dice.randint(1, 9), dice.randint(1, 9)
  yield 'width smaller', said(width=width - less), same_rows(width - less)
  yield 'width larger', said(width=width + more), same_rows(width + more)
  yield 'height smaller', said(height=height - less), NOTHING
  yield 'height larger', said(height=height + more), NOTHING
  yield 'width and height swapped', said(height, width), NOTHING
  yield 'width 0', said(width=0), NOTHING
  yield 'height 0', said(height=0), NOTHING
  yield 'width 2 ** 31 - 1', said(width=2**31 - 1), NOTHING
  yield 'declared gigabytes', said(60000, 60000), NOTHING
  yield 'declared 160 megapixels', said(16000, 10000), NOTHING
  yield 'other depth', said(depth=16 if depth == 8 else 8), NOTHING
  yield 'depth 3', said(depth=3), NOTHING
  other = {GREY: RGB, RGB: GREY, PALETTE: GREY, GREY_ALPHA: RGB}[colour]
  same_length = PIXELS if colour == PALETTE else NOTHING
  yield 'other colour type', said(colour=other), same_length
  yield 'colour type 5', said(colour=5), NOTHING
  yield 'interlacing denied or claimed', said(interlace=1 - interlace), NOTHING
  yield 'unknown compression', said(methods=(1, 0)), NOTHING
  yield 'header short', header[:-1], NOTHING


def _streams(chunks: Chunks, dice: random.Random) -> Iterator[Lie]:
  """Give pixels that do not fit the header or their own checksum."""
  stream = _stream(chunks)
  rows = zlib.decompress(stream)
  place = dice.randrange(len(stream) // 2, len(stream) - 4)
  bent = stream[:place] + bytes([stream[place] ^ 1 << dice.randrange(8)]) + stream[place + 1 :]
  changed = bytearray(rows)
  changed[dice.randrange(1, len(rows))] ^= 1 << dice.randrange(8)
  other_pixels = zlib.compress(bytes(changed), 9)[:-4] + stream[-4:]
  wrong_filter = b'\x07' + rows[1:]
  half = len(rows) // 2
  yield Lie('pixels bent, CRC right', _with_stream(chunks, bent))
  yield Lie('pixels against their Adler-32, CRC right', _with_stream(chunks, other_pixels))
  yield Lie('half of the rows', _with_stream(chunks, zlib.compress(rows[:half], 9)))
  yield Lie('rows twice', _with_stream(chunks, zlib.compress(rows * 2, 9)))
  yield Lie('an unknown filter', _with_stream(chunks, zlib.compress(wrong_filter, 9)))
  yield Lie('stream without its end', _with_stream(chunks, stream[:-9]))
  yield Lie('no pixels', _with_stream(chunks, b''))
  yield Lie('a bomb of zeros', _with_stream(chunks, zlib.compress(bytes(1 << 22), 9)))


def _orders(chunks: Chunks) -> Iterator[Lie]:
  """Give chunks that are missing, repeated or in another order."""
  first = next(place for place, chunk in enumerate(chunks) if chunk[0] == b'IDAT')
  swapped = [*chunks[:first], chunks[first + 1], chunks[first], *chunks[first + 2 :]]
  narrower = struct.pack('>I', 9) + chunks[0][1][4:]
  yield Lie('pixel chunks swapped', join(swapped))
  yield Lie('first pixel chunk missing', join(chunks[:first] + chunks[first + 1 :]))
  yield Lie('second pixel chunk missing', join(chunks[: first + 1] + chunks[first + 2 :]))
  yield Lie('no end chunk', join(chunks[:-1]))
  yield Lie('no header', join(chunks[1:]))
  yield Lie('a second header', join([chunks[0], (b'IHDR', narrower), *chunks[1:]]))
  yield Lie('an unknown critical chunk', join([chunks[0], (b'ABCD', b'1'), *chunks[1:]]))
  table = [place for place, chunk in enumerate(chunks) if chunk[0] == b'PLTE']
  if table:
    colours = chunks[table[0]][1]
    rest = chunks[table[0] + 1 :]
    yield Lie('palette missing', join([*chunks[: table[0]], *rest]))
    for name, body in (('palette short', colours[:90]), ('palette cut', colours[:-1])):
      yield Lie(name, join([*chunks[: table[0]], (b'PLTE', body), *rest]))
