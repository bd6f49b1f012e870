"""JPEG (ITU-T T.81): no checksum, so a changed bit of the coded data is another picture.

What can be noticed: data that end before the last block or go on after it, scans that are missing,
markers and lengths that do not fit.
"""

import io
import random
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.fuzz.files import EVERYTHING, NOTHING, PIXELS, Lie, Original, Outputs, Region, picture

SOI, EOI, SOS, DQT, DHT, APP1 = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xE1
FRAMES = (0xC0, 0xC1, 0xC2)
ORIENTATION = 0x0112
END = bytes([0xFF, EOI])


class Segment(NamedTuple):
  """One marker with its body; `data` ends behind the coded data that follow a start of scan."""

  marker: int
  start: int  # of the marker
  body: int  # of what follows the length
  end: int  # of the body
  stop: int  # of the coded data, if any


def originals() -> Iterator[Original]:
  """Give JPEGs: baseline and progressive, grey and coloured, with restart markers, with EXIF."""
  grey = picture((41, 58), 255).astype(np.uint8)
  colour = picture((40, 56, 3), 255).astype(np.uint8)
  turned = Image.Exif()
  turned[ORIENTATION] = 6
  yield _original('grey baseline', _encode(grey), grey.shape)
  yield _original('colour 4:2:0', _encode(colour, subsampling=2), colour.shape)
  yield _original(
    'colour 4:4:4 with restarts',
    _encode(colour, subsampling=0, restart_marker_rows=1),
    colour.shape,
  )
  yield _original('grey progressive', _encode(grey, progressive=True), grey.shape)
  yield _original('colour progressive', _encode(colour, progressive=True), colour.shape)
  yield _original('grey, stored turned', _encode(grey, exif=turned), grey.shape[::-1])


def _encode(values: np.ndarray, **keys) -> bytes:
  file = io.BytesIO()
  Image.fromarray(values).save(file, 'JPEG', quality=90, **keys)
  return file.getvalue()


def _original(name: str, data: bytes, shape: tuple[int, ...]) -> Original:
  channels = 3 if len(shape) == 3 else 1
  exif = 'apply' if 'turned' in name else 'stop'
  truth = {'shapes': np.array([str((*shape[:2], channels))])}
  options = dict(channels=channels, exif=exif)
  return Original(
    'jpg',
    name,
    data,
    'picture',
    '.jpg',
    options,
    truth,
    regions=_regions(data),
    lies=lambda dice: _lies(data, dice),
  )


def segments(data: bytes) -> list[Segment]:
  """Return the segments between start and end of the picture."""
  found = []
  place = 2
  while data[place + 1] != EOI:
    end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
    stop = end
    if data[place + 1] == SOS:
      stop = _next_marker(data, end)
    found.append(Segment(data[place + 1], place, place + 4, end, stop))
    place = stop
  return found


def _next_marker(data: bytes, place: int) -> int:
  """Return where the coded data end: stuffed zeros and restart markers are part of them."""
  while data[place] != 0xFF or data[place + 1] == 0 or 0xD0 <= data[place + 1] <= 0xD7:
    place += 1
  return place


def _regions(data: bytes) -> list[Region]:
  found = []
  for part in segments(data):
    if part.marker in (DQT, DHT):
      found.append(Region(part.body, part.end, PIXELS))
    elif part.marker == SOS:
      found.append(Region(part.body + 1, part.end - 3, PIXELS))  # which tables
      found.append(Region(part.end, part.stop, PIXELS, grows=True, shrinks=True))
    elif part.marker in FRAMES:
      for component in range(data[part.body + 5]):
        place = part.body + 6 + 3 * component
        found += [Region(place, place + 1, PIXELS), Region(place + 2, place + 3, PIXELS)]
    elif part.marker == APP1:
      tag = _orientation(data, part)
      named = part.body + len(b'Exif\0\0')
      found += [
        Region(part.start + 1, part.start + 2, EVERYTHING),  # then no EXIF but unknown
        Region(part.body, named, EVERYTHING),
        Region(tag, tag + 2, EVERYTHING),
        Region(tag + 8, tag + 10, EVERYTHING),
      ]
  return found


def _orientation(data: bytes, part: Segment) -> int:
  """Return where the EXIF entry that says how the picture is turned begins."""
  return data.index(struct.pack('>H', ORIENTATION), part.body, part.end)


def _lies(data: bytes, dice: random.Random) -> Iterator[Lie]:
  parts = segments(data)
  frame = next(part for part in parts if part.marker in FRAMES)
  yield from _sizes(data, frame, dice)
  yield from _scans(data, parts, dice)
  for name, marker in (
    ('quantization tables', DQT),
    ('Huffman tables', DHT),
    ('frame', FRAMES[0]),
    ('frame', FRAMES[2]),
  ):
    kept = _without(data, [part for part in parts if part.marker == marker])
    if kept != data:
      yield Lie(f'{name} missing', kept)
  arithmetic = data[: frame.start + 1] + b'\xc9' + data[frame.start + 2 :]
  yield Lie('arithmetic coding claimed', arithmetic, PIXELS)
  yield Lie('two pictures in a file', data + data)
  yield Lie('no start', data[2:])
  yield from _exif(data, parts)


def _sizes(data: bytes, frame: Segment, dice: random.Random) -> Iterator[Lie]:
  """Give frames that say another size than the coded data have."""
  height, width = struct.unpack('>HH', data[frame.body + 1 : frame.body + 5])
  less, more = dice.choice([16, 24, 32]), dice.choice([16, 24, 32])

  def said(name: str, high: int, wide: int, free: Outputs = NOTHING) -> Lie:
    size = struct.pack('>HH', high, wide)
    return Lie(name, data[: frame.body + 1] + size + data[frame.body + 5 :], free)

  yield said('height smaller', height - less, width)
  yield said('height larger', height + more, width)
  yield said('width smaller', height, width - less)
  yield said('width larger', height, width + more)
  # as many blocks as before, so that nothing in the file contradicts it
  yield said('width and height swapped', width, height, EVERYTHING)
  yield said('height 0', 0, width)
  yield said('width 0', height, 0)
  yield said('declared gigabytes', 65500, 65500)
  yield said('declared 160 megapixels', 10000, 16000)
  yield Lie('precision 12', data[: frame.body] + b'\x0c' + data[frame.body + 1 :])
  count = data[frame.body + 5]
  yield Lie(
    'other number of components',
    data[: frame.body + 5] + bytes([4 - count]) + data[frame.body + 6 :],
  )
  yield Lie('frame too long', data[: frame.body - 2] + b'\xff\xff' + data[frame.body :])


def _scans(data: bytes, parts: list[Segment], dice: random.Random) -> Iterator[Lie]:
  """Give coded data that end early but have their end marker."""
  scans = [part for part in parts if part.marker == SOS]
  last = scans[-1]
  for share in (0.2, 0.5, 0.9):
    place = last.end + int(share * (last.stop - last.end))
    place -= data[place - 1] == 0xFF  # not between a 0xff and its zero
    yield Lie(f'{share:.0%} of the coded data, end marker kept', data[:place] + END)
  middle = dice.randrange(last.end, last.stop - 40)
  yield Lie('coded data without a part', data[:middle] + data[middle + 32 :], PIXELS)
  zeros = bytes(last.stop - middle)
  yield Lie('coded data end in zeros', data[:middle] + zeros + data[last.stop :], PIXELS)
  yield Lie('zeros from there to the end of the file', data[:middle] + bytes(len(data) - middle))
  yield Lie('no scan', _without(data, scans))
  if len(scans) > 1:
    yield Lie('last scan missing', _without(data, scans[-1:]))
    yield Lie('first scan only', _without(data, scans[1:]))
    yield Lie('first scan missing', _without(data, scans[:1]))


def _exif(data: bytes, parts: list[Segment]) -> Iterator[Lie]:
  """Give EXIF that is broken; what it then says of the orientation is no longer known."""
  tags = [part for part in parts if part.marker == APP1]
  if not tags:
    return
  value = _orientation(data, tags[0]) + 8
  for name, said in (
    ('orientation 1', 1),
    ('orientation 0', 0),
    ('orientation 9', 9),
    ('orientation 3', 3),
  ):
    yield Lie(name, data[:value] + struct.pack('>H', said) + data[value + 2 :], EVERYTHING)
  first = tags[0].body + 10  # the offset of the first directory
  yield Lie('EXIF points outside', data[:first] + b'\xff\xff\xff\xf0' + data[first + 4 :])
  yield Lie('EXIF cut', _shorter(data, tags[0]))


def _shorter(data: bytes, part: Segment) -> bytes:
  """Return the file with half of a segment's body, its length corrected."""
  half = (part.end - part.body) // 2
  length = struct.pack('>H', half + 2)
  kept = data[part.body : part.body + half]
  return data[: part.start + 2] + length + kept + data[part.end :]


def _without(data: bytes, parts: list[Segment]) -> bytes:
  for part in reversed(parts):
    data = data[: part.start] + data[part.stop :]
  return data
