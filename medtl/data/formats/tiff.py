"""Reads the numbers of a TIFF (TIFF 6.0, Adobe 1992), whatever its compression.

Pillow decompresses, joins strips and tiles, and turns the picture upright. What the bytes of a
pixel mean is decided here: Pillow 13.0 alone cuts 16-bit colour to 8 bits, and misreads 16-bit
white-is-zero, int8, uint32 and compressed big-endian samples.
"""

import io
import struct
import sys
from typing import NamedTuple

import numpy as np
from PIL import ImageOps, TiffTags
from PIL.TiffImagePlugin import (
  BITSPERSAMPLE,
  COMPRESSION_INFO,
  EXTRASAMPLES,
  PHOTOMETRIC_INTERPRETATION,
  SAMPLEFORMAT,
  SAMPLESPERPIXEL,
  ImageFileDirectory_v2,
  TiffImageFile,
)

from medtl.data.formats import tiff_strips

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
PHOTOMETRIC = {
  WHITE_IS_ZERO: 'grey (white is 0)',
  BLACK_IS_ZERO: 'grey',
  RGB: 'RGB',
  PALETTE: 'palette',
  4: 'transparency mask',
  CMYK: 'CMYK',
  YCBCR: 'YCbCr',
  8: 'CIELab',
  9: 'ICCLab',
  32803: 'colour filter array',
  34892: 'linear raw',
}
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}  # samples
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # SampleFormat
LETTERS = {UNSIGNED: 'u', SIGNED: 'i', FLOAT: 'f'}  # of NumPy's types
WORDS = {UNSIGNED: 'unsigned', SIGNED: 'signed', FLOAT: 'floating-point'}
READ = {  # (photometric, sample format): bits a sample
  (WHITE_IS_ZERO, UNSIGNED): (1, 2, 4, 8, 12, 16),
  (BLACK_IS_ZERO, UNSIGNED): (1, 2, 4, 8, 12, 16, 32, 64),
  (BLACK_IS_ZERO, SIGNED): (8, 16, 32, 64),
  (BLACK_IS_ZERO, FLOAT): (16, 32, 64),
  (RGB, UNSIGNED): (8, 16),
  (PALETTE, UNSIGNED): (1, 2, 4, 8),
  (CMYK, UNSIGNED): (8, 16),
  (YCBCR, UNSIGNED): (8,),
}
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2  # ExtraSamples; 1 and 2 are alpha
UNCOMPRESSED, SEPARATE_PLANES = 1, 2
USED = {
  256,
  257,
  258,
  259,
  262,
  266,
  273,
  274,
  277,
  278,
  279,
  284,
  317,
  320,
  322,
  323,
  324,
  325,
  338,
  339,
}  # the tags that a picture is read by
TYPES = {*range(1, 14), 16, 17, 18}  # of a tag's values; the last three are BigTIFF's
PIXEL_BYTES = (1, 2, 3, 4, 6, 8)  # that a pixel may have
ADVICE = 'store it as 8- or 16-bit grey or RGB, or as 32-bit float grey (uncompressed or LZW)'


class Layout(NamedTuple):
  """How a pixel is stored, as the tags say."""

  photometric: int
  format: int  # SampleFormat
  bits: int  # of one sample
  samples: int  # of one pixel
  extra: int | None  # what a sample beyond the colours is, if there is one
  palette: tuple[int, ...]  # ColorMap
  compression: int
  planar: bool  # the samples of a pixel lie apart
  order: str  # of a sample's bytes, once decompressed: < or >

  @property
  def in_bytes(self) -> bool:
    """Whether Pillow is asked for a pixel's bytes: not where it unpacks bits or converts YCbCr."""
    return self.bits % 8 == 0 and self.photometric != YCBCR

  @property
  def pixel_bytes(self) -> int:
    return self.samples * self.bits // 8

  @property
  def words(self) -> str:
    """What the file is, for messages."""
    kind = WORDS.get(self.format, f'(SampleFormat {self.format})')
    colour = PHOTOMETRIC.get(self.photometric, f'photometric interpretation {self.photometric}')
    planes = ', in separate planes' if self.planar else ''
    return (
      f'a TIFF of {self.bits}-bit {kind} samples, {self.samples} a pixel, {colour}, '
      f'compression {self.compression}{planes}'
    )


def pages(data: bytes) -> int:
  """Return how many pages a TIFF holds."""
  directory, file = _directory(data)
  places = []
  while directory.next and directory.next not in places:
    places.append(directory.next)
    file.seek(places[-1])
    directory.load(file)
  return len(places)


def read_layout(data: bytes) -> Layout:
  """Return how the pixels of a TIFF's first page are stored; ValueError if that is not read here.

  MinSampleValue, MaxSampleValue, SMinSampleValue and SMaxSampleValue are ignored: they are
  statistics of the pixels and "not to be used to affect the visual appearance" (TIFF 6.0, section
  8). Colour profiles are not applied either.
  """
  directory, file = _directory(data)
  written, end = _written(data, directory.next)
  heads = [(0, 8), (directory.next, end)]
  file.seek(directory.next)
  directory.load(file)
  lost = sorted(written & USED - set(directory))
  if lost:
    raise ValueError(f'it is damaged or cut off: its tag {lost[0]} is not whole')
  tags = {TiffTags.lookup(number).name: value for number, value in directory.items()}
  for number in sorted(USED & set(directory)):
    value = directory[number]
    values = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(item, int) for item in values):
      raise ValueError(
        f'it is damaged: its tag {number} ({TiffTags.lookup(number).name}) holds no whole numbers'
      )
  if 'PhotometricInterpretation' not in tags:
    raise ValueError(
      'it does not say whether 0 is black or white; store it anew with tag 262 '
      '(PhotometricInterpretation)'
    )
  photometric = tags['PhotometricInterpretation']
  samples = tags.get('SamplesPerPixel', 1)
  compression = tags.get('Compression', UNCOMPRESSED)
  if compression == UNCOMPRESSED:
    is_little_endian = data.startswith(b'II')
  else:  # what was compressed comes out in this machine's order
    is_little_endian = sys.byteorder == 'little'
  layout = Layout(
    photometric=photometric,
    format=_shared(tags.get('SampleFormat', (UNSIGNED,)), 'sample format'),
    bits=_shared(tags.get('BitsPerSample', (1,)), 'bits'),
    samples=samples,
    extra=_extra(photometric, samples, tags.get('ExtraSamples', ())),
    palette=tags.get('ColorMap', ()),
    compression=compression,
    planar=tags.get('PlanarConfiguration', 1) == SEPARATE_PLANES,
    order='<' if is_little_endian else '>',
  )
  if not _is_read(layout):
    raise ValueError(f'it is {layout.words}, which is not read; {ADVICE}')
  planes = samples if layout.planar else 1
  pixel_bits = layout.bits * samples // planes
  tiff_strips.check(data, tags, pixel_bits, planes, heads)
  return layout


def _directory(data: bytes) -> tuple[ImageFileDirectory_v2, io.BytesIO]:
  """Return (the directory of tags, not loaded yet; the file to load it from)."""
  if data.startswith(b'MM\0+'):
    raise ValueError(f'it is a big-endian BigTIFF, which is not read; {ADVICE}')
  header = data[:16] if data.startswith(b'II+') else data[:8]
  return ImageFileDirectory_v2(header), io.BytesIO(data)


def _written(data: bytes, place: int) -> tuple[set[int], int]:
  """Return (the numbers of the tags listed at `place`, where the list ends).

  Pillow silently skips broken tags, so they are listed here again.
  """
  order = '<' if data.startswith(b'II') else '>'
  count_type, entry_size = ('Q', 20) if data.startswith(b'II+') else ('H', 12)  # II+ is BigTIFF
  (count,) = struct.unpack_from(order + count_type, data, place)
  first = place + struct.calcsize(order + count_type)
  end = first + count * entry_size
  if end > len(data):
    raise ValueError('it is cut off within its tags')
  tags = set()
  for entry in range(first, end, entry_size):
    tag, kind = struct.unpack_from(order + 'HH', data, entry)
    if kind not in TYPES:
      raise ValueError(f'it is damaged: its tag {tag} is of an unknown type, {kind}')
    tags.add(tag)
  return tags, end + 4  # the place of the next page follows the tags


def _shared(values: tuple[int, ...], words: str) -> int:
  """Return the value that all samples share; ValueError where they differ in it."""
  if len(set(values)) != 1:
    shown = str(values) if len(values) <= 8 else f'{len(values)} of them'
    raise ValueError(f'its samples differ in {words}: {shown}; {ADVICE}')
  return values[0]


def _extra(photometric: int, samples: int, extra: tuple[int, ...]) -> int | None:
  """Return what the one sample beyond the colours is, None where there is none."""
  further = samples - COLOURS.get(photometric, samples)
  if further <= 0:
    return None
  if photometric == RGB and further == 1 and not extra:
    return UNASSOCIATED  # every reader takes a fourth sample without a tag for that
  if further != 1 or extra not in ((UNSPECIFIED,), (ASSOCIATED,), (UNASSOCIATED,)):
    raise ValueError(
      f'it has {samples} samples a pixel, and not all are explained '
      f'(ExtraSamples {extra}); store one picture a channel'
    )
  return extra[0]


def _is_read(layout: Layout) -> bool:
  """Return whether a layout is understood here, and Pillow can deliver its pixels."""
  known = layout.bits in READ.get((layout.photometric, layout.format), ())
  if not known or layout.compression not in COMPRESSION_INFO:
    return False
  if layout.samples < COLOURS[layout.photometric]:
    return False
  if layout.photometric == YCBCR:
    return layout.samples == 3 and layout.compression != UNCOMPRESSED
  if layout.samples == 1:
    return True
  planes_are_read = layout.bits == 8 and layout.samples > 2
  if layout.planar and not planes_are_read:
    return False
  return layout.in_bytes and layout.bits <= 16 and layout.pixel_bytes in PIXEL_BYTES


class _Raw(TiffImageFile):
  """A TIFF that Pillow takes for unsigned grey or RGB, with as many bytes a pixel as the file has.

  Pillow decides by the tags, which are replaced here before it reads them.
  """

  def __init__(self, data: bytes, layout: Layout) -> None:
    self.layout = layout
    super().__init__(io.BytesIO(data))

  def _setup(self) -> None:
    tags = self.tag_v2
    layout = self.layout
    if layout.photometric == WHITE_IS_ZERO:
      tags[PHOTOMETRIC_INTERPRETATION] = BLACK_IS_ZERO
    if layout.in_bytes:
      size = layout.pixel_bytes
      samples, bits = (size, 8) if size <= 4 else (size // 2, 16)
      tags[PHOTOMETRIC_INTERPRETATION] = RGB if samples > 2 else BLACK_IS_ZERO
      tags[BITSPERSAMPLE] = (bits,) * samples
      tags[SAMPLESPERPIXEL] = samples
      tags[SAMPLEFORMAT] = (UNSIGNED,)
      tags.pop(EXTRASAMPLES, None)
      if samples in (2, 4):
        tags[EXTRASAMPLES] = (UNASSOCIATED,)
    super()._setup()


def opened(data: bytes, layout: Layout) -> TiffImageFile:
  """Return the file, opened by Pillow, its pixels not yet read."""
  try:
    return _Raw(data, layout)
  except SyntaxError as error:  # what Pillow raises: unknown pixel mode
    raise ValueError(f'it is {layout.words}, which is not read ({error}); {ADVICE}') from error


def numbers(
  image: TiffImageFile, data: bytes, layout: Layout
) -> tuple[np.ndarray, np.ndarray | None]:
  """Return (x [h, w] or [h, w, 3] float32, which pixels are transparent [h, w] or None).

  `image` is the opened file, `data` are its bytes. Unsigned samples of up to 16 bits are divided by
  the largest that their bits hold, so that they become 0 … 1, and larger is brighter. All others
  keep their numbers. CMYK becomes (1 − ink) (1 − black).
  """
  try:
    stored = _samples(image, data, layout) if layout.in_bytes else _unpacked(image, layout)
  except (OSError, ValueError) as error:  # Pillow's decoders say little: decoder error -2
    raise ValueError(f'it is damaged, cut off or not read: {layout.words} ({error})') from error
  transparent = None
  if layout.extra is not None:
    stored, transparent = _without_extra(stored, layout)
  if layout.photometric == PALETTE:
    return _looked_up(stored[..., 0], layout.palette), transparent
  most = 2**layout.bits - 1
  if layout.photometric == WHITE_IS_ZERO:
    stored = most - stored
  x = stored.astype(np.float32)
  if layout.format == UNSIGNED and layout.bits <= 16:
    x /= np.float32(most)
  if layout.photometric == CMYK:
    x = (1 - x[..., :3]) * (1 - x[..., 3:])
  return (x if x.shape[-1] > 1 else x[..., 0]), transparent


def _samples(image: TiffImageFile, data: bytes, layout: Layout) -> np.ndarray:
  """Return the numbers [h, w, samples] that the file stores, upright, in their own type."""
  if layout.pixel_bytes <= 4:
    pixels = _upright(image)
  else:  # of two bytes Pillow takes one: B the first, L the last
    mode = 'RGB' if layout.pixel_bytes == 6 else 'RGBA'
    first = _upright(image, f'{mode};16B')
    second = _upright(opened(data, layout), f'{mode};16L')
    pixels = np.stack([first, second], axis=-1)
  height, width = pixels.shape[:2]
  kind = f'{layout.order}{LETTERS[layout.format]}{layout.bits // 8}'
  return pixels.reshape(height, width, layout.pixel_bytes).view(kind)


def _unpacked(image: TiffImageFile, layout: Layout) -> np.ndarray:
  """Return the numbers [h, w, samples], upright, where Pillow unpacks bits or converts YCbCr."""
  stored = _upright(image)
  if image.mode == '1':
    stored = stored.astype(np.uint8)
  if image.mode == 'L':  # Pillow has stretched 0 … 3 and 0 … 15 to 0 … 255
    stored = stored // (255 // (2**layout.bits - 1))
  return stored if stored.ndim == 3 else stored[..., None]


def _upright(image: TiffImageFile, raw: str = '') -> np.ndarray:
  """Return the pixels, upright, in a raw mode of Pillow (default: the one that it chooses)."""
  if raw:
    image.tile = [tile._replace(args=(raw, *(tile.args or ())[1:])) for tile in image.tile]
  ImageOps.exif_transpose(image, in_place=True)
  return np.asarray(image)


def _without_extra(stored: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray | None]:
  """Return (the colours, transparent pixels [h, w] or None), without the last sample."""
  last = stored[..., -1]
  if layout.extra != UNSPECIFIED:
    return stored[..., :-1], last < 2**layout.bits - 1
  if (last != last[0, 0]).any():
    raise ValueError(
      f'what its sample {layout.samples} means is not said (ExtraSamples 0); store it without'
    )
  return stored[..., :-1], None


def _looked_up(index: np.ndarray, palette: tuple[int, ...]) -> np.ndarray:
  """Return colours [h, w, 3] float32 in 0 … 1 of palette indices [h, w]."""
  colours = np.array(palette, np.int64).reshape(3, -1).T
  if index.max() >= len(colours):
    raise ValueError(f'a pixel has colour {index.max()} of a palette of {len(colours)} colours')
  if 0 < colours.max() < 256:
    raise ValueError(
      f'its palette (ColorMap) has numbers below 256 only, where they go to 65535; {ADVICE}'
    )
  of_8_bits = (colours % 256 == 0).all()  # some writers store 255 as 65280, others as 65535
  scaled = colours // 256 / 255 if of_8_bits else colours / 65535
  return scaled.astype(np.float32)[index]
