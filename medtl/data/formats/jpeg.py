"""Checks that a JPEG (ITU-T T.81) holds all of its picture, and no more.

A JPEG has no checksum. libjpeg paints grey what is missing and ignores what is too much, and Pillow
drops its warnings. So the file is parsed here, and Pillow's decoder is fed scan by scan: a scan is
whole if the decoder needs its last bytes, and none beyond them.

Some damage cannot be noticed:
- changes within coded data and tables
- data missing at the end of a scan, if they hold no more than its last two blocks
- up to 24 bytes too many at the end of a scan
- data lost between two restart markers
- another size with as many blocks: less than a block more or less, or width and height exchanged
"""

import io
import itertools
import math
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

SOI, EOI, SOS, DRI, ADOBE = 0xD8, 0xD9, 0xDA, 0xDD, 0xEE
START = b'\xff\xd8'
ADOBE_COLOURS = {3: (0, 1), 4: (0, 2)}  # components: RGB or YCbCr, CMYK or YCCK
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
HUFFMAN, PROGRESSIVE = (0xC0, 0xC1, 0xC2), 0xC2  # frames that are coded by Huffman
NOTES = {*range(0xE2, 0xEE), 0xEF, 0xFE}  # APP2 … APP13, APP15, COM: they say nothing of pixels
MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')  # the first that is not part of coded data
RESTARTS = range(0xD0, 0xD8)  # markers within coded data
RESTART = re.compile(rb'\xff[\xd0-\xd7]')
UNIT = re.compile(rb'\xff+.|.', re.DOTALL)  # of coded data: bytes that belong together
TAIL = 32  # bytes at the end of a scan, of which some are needed
ONES = b'\xff\0'  # eight bits 1 in coded data; no code has only these
AHEAD = 8  # bytes that libjpeg reads ahead
COEFFICIENTS = 64  # of a block
NOT_SENT = -1
DAMAGED = (
  'it is damaged: its segments (header, tables, scans) are cut short, or contradict each other'
)
MISSING = 'it is not whole: it ends before its picture does, or says a size that is too large'


class Segment(NamedTuple):
  """A marker and what follows it."""

  marker: int
  body: bytes  # without its length
  end: int  # of the body; coded data may begin here …
  stop: int  # … and end here


class Frame(NamedTuple):
  """The size of a picture, and of its components."""

  marker: int
  height: int
  width: int
  sampling: dict[int, tuple[int, int]]  # component: its factors across and down


class Scan(NamedTuple):
  """Which coefficients of a picture a scan sends, and where its coded data lie."""

  components: tuple[int, ...]
  first: int  # coefficient
  last: int
  before: int  # the lowest bit that was sent of them, or NOT_SENT …
  now: int  # … and the lowest one after this scan
  start: int
  stop: int


def check(data: bytes) -> None:
  """Raise ValueError, or Pillow's OSError, unless a JPEG holds all of its picture and no more."""
  scans = read_scans(data)
  load(Image.open(io.BytesIO(data), formats=['JPEG']), data, scans)


def read_scans(data: bytes) -> list[Scan]:
  """Return the scans of a JPEG's first picture, [] where they are coded in a way unknown here.

  Raises ValueError where the file is cut off or contradicts itself.
  """
  try:
    return _read_scans(data)
  except (IndexError, KeyError, ZeroDivisionError, struct.error) as error:
    raise ValueError(DAMAGED) from error


def _read_scans(data: bytes) -> list[Scan]:
  frame: Frame | None = None
  transform = interval = 0
  scans: list[Scan] = []
  for part in _segments(data):
    if part.marker in FRAMES:
      if frame is not None:
        raise ValueError(DAMAGED)
      frame = _frame(part)
    elif part.marker == ADOBE and part.body.startswith(b'Adobe'):
      transform = part.body[11] if len(part.body) > 11 else 0
    elif part.marker == DRI:
      (interval,) = struct.unpack('>H', part.body)
    elif part.marker == SOS:
      if frame is None:
        raise ValueError(DAMAGED)
      if transform not in ADOBE_COLOURS.get(len(frame.sampling), (transform,)):
        raise ValueError(DAMAGED)
      if frame.marker not in HUFFMAN or len(frame.sampling) < part.body[0]:
        return []
      scan = _scan(part, frame)
      _check_length(data, scan, frame, interval)
      scans.append(scan)
  if frame is None or not scans:
    raise ValueError('it is damaged: it holds no picture')
  _check_script(scans, frame)
  return scans


def _segments(data: bytes) -> Iterator[Segment]:
  """Give the segments between start and end of the first picture."""
  place = 2
  marker = SOI
  while True:
    if data[place] != 0xFF:
      if marker not in NOTES:
        raise ValueError(DAMAGED)
      place = _next_marker(data, place)  # some programs write a wrong length of a note
    while data[place + 1] == 0xFF:  # fill bytes
      place += 1
    marker = data[place + 1]
    if marker == EOI:
      return
    if marker in RESTARTS:
      raise ValueError(DAMAGED)
    (length,) = struct.unpack_from('>H', data, place + 2)
    end = place + 2 + length
    stop = _next_marker(data, end) if marker == SOS else end
    yield Segment(marker, data[place + 4 : end], end, stop)
    place = stop


def _next_marker(data: bytes, place: int) -> int:
  """Return where the next marker after coded data begins, with the fill bytes before it."""
  marker = MARKER.search(data, place)
  if marker is None:
    raise ValueError('it is cut off: its end (EOI) is missing')
  start = marker.start()
  while data[start - 1] == 0xFF:
    start -= 1
  return start


def _frame(part: Segment) -> Frame:
  """Return what a frame header says (T.81 B.2.2)."""
  _, height, width, count = struct.unpack_from('>BHHB', part.body)
  sampling = {}
  for place in range(6, 6 + 3 * count, 3):
    factors = part.body[place + 1]
    sampling[part.body[place]] = factors >> 4, factors & 15
  return Frame(part.marker, height, width, sampling)


def _scan(part: Segment, frame: Frame) -> Scan:
  """Return what a scan header says (T.81 B.2.3)."""
  count = part.body[0]
  components = tuple(part.body[1 : 1 + 2 * count : 2])
  first, last, bits = struct.unpack('3B', part.body[1 + 2 * count :])
  if frame.marker != PROGRESSIVE and (first, last, bits) == (0, 0, 0):
    last = COEFFICIENTS - 1  # some programs leave it out, since it tells nothing here
  return Scan(components, first, last, bits >> 4 or NOT_SENT, bits & 15, part.end, part.stop)


def _check_length(data: bytes, scan: Scan, frame: Frame, interval: int) -> None:
  """Raise where a scan has less data than its blocks need, or a wrong number of restart markers."""
  units, blocks = _units(scan.components, frame)
  bits = 8 * (scan.stop - scan.start)
  if scan.first == 0 and bits < units * blocks:  # the first coefficient has a bit in each block
    raise ValueError(MISSING)
  if interval:
    restarts = len(RESTART.findall(data, scan.start, scan.stop))
    expected = math.ceil(units / interval) - 1
    if restarts not in (expected, expected + 1):  # some programs close the last interval too
      raise ValueError(f'it is damaged: a scan has {restarts} restart markers; expected {expected}')


def _units(components: tuple[int, ...], frame: Frame) -> tuple[int, int]:
  """Return (how many units a scan has, blocks in each).

  All components of a scan share a unit (minimum coded unit, T.81 A.2).
  """
  factors = frame.sampling.values()
  across = max(h for h, _ in factors)
  down = max(v for _, v in factors)
  if len(components) > 1:
    blocks = sum(math.prod(frame.sampling[component]) for component in components)
    columns = math.ceil(frame.width / across / 8)
    rows = math.ceil(frame.height / down / 8)
    return columns * rows, blocks
  h, v = frame.sampling[components[0]]
  width = math.ceil(frame.width * h / across)
  height = math.ceil(frame.height * v / down)
  return math.ceil(width / 8) * math.ceil(height / 8), 1


def _check_script(scans: list[Scan], frame: Frame) -> None:
  """Raise unless the scans send all bits of all coefficients, in order (T.81 G.1.1.1)."""
  sent = {component: [NOT_SENT] * COEFFICIENTS for component in frame.sampling}
  for scan in scans:
    for component in scan.components:
      levels = sent[component]
      chosen = slice(scan.first, scan.last + 1)
      if set(levels[chosen]) != {scan.before}:
        raise ValueError('it is damaged: one of its scans is missing, or there twice')
      levels[chosen] = [scan.now] * len(levels[chosen])
  if any(itertools.chain(*sent.values())):
    raise ValueError('it is not whole: its last scans are missing')


class _Decoder:
  """Pillow's decoder of one picture, fed with the file in pieces."""

  def __init__(self, image: Image.Image) -> None:
    codec, extents, _, arguments = image.tile[0]  # type: ignore[attr-defined]
    image.load_prepare()  # type: ignore[attr-defined]
    self.decoder = Image._getdecoder(image.mode, codec, arguments)
    self.decoder.setimage(image.im, extents)
    self.rest = b''
    self.finished = False

  def waits(self, piece: bytes) -> bool:
    """Decode a piece; return whether the decoder keeps part of it and waits for more."""
    if self.finished:
      return False
    self.rest += piece
    used, error = self.decoder.decode(self.rest)
    if error:
      raise ValueError('it is damaged: its coded data cannot be decoded')
    self.finished = used < 0
    self.rest = b'' if self.finished else self.rest[used:]
    return len(self.rest) > 0


def load(image: Image.Image, data: bytes, scans: list[Scan]) -> None:
  """Decode an opened JPEG scan by scan; ValueError unless each scan holds exactly its blocks.

  Without scans nothing is done: Pillow decodes the picture when its pixels are asked for.

  libjpeg decodes a unit of blocks once all its bits are there, and 57 bits at least. While it waits
  for them, it leaves a part of its input unused. Between scans it leaves nothing, but skips
  everything up to the next marker.
  """
  if not scans:
    return
  decoder = _Decoder(image)
  done = 0
  for scan in scans:
    tail = max(scan.start, scan.stop - TAIL)
    while data[tail - 1] == 0xFF:  # belongs together with the next byte
      tail += 1
    waits = decoder.waits(data[done:tail])
    units = UNIT.findall(data, tail, scan.stop)
    while units and not waits:  # byte by byte: the decoder may just have used all it was given
      waits = decoder.waits(units.pop(0))
    if not waits and any(data[tail : scan.stop]):  # zeros may be padding
      raise ValueError(
        'it is damaged: it holds more than its picture, or says a size that is too small'
      )
    waits = decoder.waits(b''.join(units) + ONES * AHEAD)
    if len(scans) == 1:  # libjpeg then finishes with the picture, otherwise with the file
      waits = not decoder.finished
    if waits or decoder.waits(ONES) or decoder.waits(ONES):
      raise ValueError(MISSING)
    done = scan.stop
  decoder.waits(data[done:])
  if not decoder.finished:
    raise ValueError(MISSING)
  image.tile = []  # type: ignore[attr-defined]
