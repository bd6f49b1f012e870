"""Reads the numbers of a PNG at every bit depth (PNG Specification 1.2, 1999).

Pillow unpacks the pixels, but cuts 16-bit colour to 8 bits, so the second bytes are read once more.
Pillow also takes missing rows for black and ignores further ones, so their number is checked here.
"""

import io
import math
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

START = 8  # bytes of the signature
PALETTE = 3  # a colour type (IHDR)
SAMPLES = {0: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}  # colour type: samples a pixel (4, 6: alpha)
PASSES = (
  (0, 0, 8, 8),
  (0, 4, 8, 8),
  (4, 0, 8, 4),
  (0, 2, 4, 4),
  (2, 0, 4, 2),
  (0, 1, 2, 2),
  (1, 0, 2, 1),
)  # of Adam7: first row and column, steps down and across
LARGEST_RATIO = 1032  # of Deflate: 258 bytes for 2 bits
CHECKSUM = 4  # bytes at the end of a zlib stream (Adler-32)
UNLIKELY = 165  # value of a sample
LOW_BYTES = {2: 'RGB;16L', 6: 'RGBA;16L'}  # Pillow's raw modes that take the second byte of two


def read_chunks(data: bytes) -> dict[str, bytes]:
  """Return {name: content} of a PNG's chunks: the first of each name, but of IDAT all, joined.

  Raises ValueError where the file is cut off, or a checksum is wrong. Pillow ignores the checksums
  of the pixels' chunks.
  """
  contents: dict[str, bytes] = {}
  pixels = []
  view = memoryview(data)
  place = START
  while 'IEND' not in contents:
    if place + 12 > len(data):
      raise ValueError('it is cut off: its last chunk (IEND) is missing')
    length, code = struct.unpack_from('>I4s', data, place)
    name = code.decode('latin-1')
    content = place + 8
    end = content + length
    if end + 4 > len(data):
      raise ValueError(f'it is cut off within its chunk {name}')
    (checksum,) = struct.unpack_from('>I', data, end)
    if zlib.crc32(view[place + 4 : end]) != checksum:
      raise ValueError(f'it is damaged: the checksum (CRC) of its chunk {name} is wrong')
    if name == 'IDAT':
      pixels.append(view[content:end])
    elif name not in contents:
      contents[name] = bytes(view[content:end])
    place = end + 4
  contents['IDAT'] = b''.join(pixels)
  if len(contents.get('IHDR', b'')) != 13:
    raise ValueError('it is damaged: it has no header (IHDR)')
  return contents


def load(image: PngImageFile, chunks: Mapping[str, bytes]) -> np.ndarray:
  """Return an opened PNG's pixels as Pillow unpacks them, not turned: [h, w] or [h, w, samples].

  Raises ValueError unless the file holds all its rows undamaged, and no others.

  Pillow's decoder gets room for one row more than the picture has. It then reads the checksum
  behind the last row, and finishes before it only if there are further rows. The spare row has an
  unlikely colour; a last row of that same colour may be missing.
  """
  stream = chunks['IDAT']
  expected = _length(chunks['IHDR'])
  if expected > LARGEST_RATIO * len(stream):
    raise ValueError(
      f'it is not whole: its {len(stream)} bytes of compressed pixels cannot hold '
      f'the {expected} that its size asks for'
    )
  if image.info.get('interlace'):
    _check_length(stream, expected)
    return np.asarray(image)
  width, height = image.size
  bands = len(image.getbands())
  colour = UNLIKELY if bands == 1 else (UNLIKELY,) * bands
  canvas = Image.new(image.mode, (width, height + 1), colour)
  codec, _, _, arguments = image.tile[0]
  decoder = Image._getdecoder(image.mode, codec, arguments)
  decoder.setimage(canvas.im, (0, 0, width, height + 1))
  used, error = decoder.decode(stream[:-CHECKSUM])
  ended = used < 0
  if not ended:
    _, error = decoder.decode(stream[-CHECKSUM:])
  if error:
    raise ValueError(
      'it is damaged: its pixels cannot be decompressed, or differ from their checksum (Adler-32)'
    )
  stored = np.asarray(canvas)
  if ended or (stored[-2] == stored[-1]).all():
    _check_length(stream, expected)
  # Pillow takes the picture for loaded, and reads the chunks that follow the pixels
  image.im = canvas.im
  image.tile = []
  image.load_prepare()
  image.load_end()
  return stored[:-1]


def _length(header: bytes) -> int:
  """Return how many bytes the rows of a PNG have, each with a filter byte before it."""
  width, height, depth, colour, _, _, interlaced = struct.unpack('>IIBBBBB', header)
  pixel_bits = SAMPLES[colour] * depth
  passes = PASSES if interlaced else ((0, 0, 1, 1),)
  length = 0
  for top, left, down, across in passes:
    rows = math.ceil((height - top) / down)
    columns = math.ceil((width - left) / across)
    if rows > 0 and columns > 0:
      length += rows * (1 + math.ceil(columns * pixel_bits / 8))
  return length


def _check_length(stream: bytes, expected: int) -> None:
  """Raise ValueError unless a zlib stream holds as many bytes as expected."""
  length = len(zlib.decompressobj().decompress(stream, expected + 1))
  if length < expected:
    raise ValueError(
      f'it is not whole: it holds {length} bytes of pixels; expected {expected}, as its size says'
    )
  if length > expected:
    raise ValueError(
      f'it is damaged: it holds more than the {expected} bytes of pixels that its size asks for'
    )


def numbers(
  stored: np.ndarray, data: bytes, chunks: Mapping[str, bytes]
) -> tuple[np.ndarray, np.ndarray | None]:
  """Return (x [h, w] or [h, w, 3] float32 in 0 … 1, which pixels are transparent [h, w] or None).

  `stored` are the pixels as `load` returns them, `data` are the file's bytes. 1 is the largest
  number that the bit depth can hold, or the significant bits where sBIT says that they are fewer.
  gAMA, cHRM, sRGB and iCCP say how a screen shows the numbers, and change none.
  """
  depth, colour = chunks['IHDR'][8:10]
  stored = _integers(stored, data, depth, colour)
  if colour == PALETTE:
    return _looked_up(stored, chunks)
  transparent = None
  if SAMPLES[colour] in (2, 4):
    transparent = stored[..., -1] < 2**depth - 1
    stored = stored[..., :-1]
  elif 'tRNS' in chunks:
    key = np.frombuffer(chunks['tRNS'], '>u2', SAMPLES[colour])
    transparent = (stored == key).all(axis=-1)
  x = _scaled(stored, depth, chunks.get('sBIT', b''))
  return (x if x.shape[-1] > 1 else x[..., 0]), transparent


def _integers(stored: np.ndarray, data: bytes, depth: int, colour: int) -> np.ndarray:
  """Return the integers [h, w, samples] that the file stores."""
  if depth == 16 and colour == 4:  # four bytes a pixel; Pillow would drop two
    pairs = _raw(data, 'RGBA')
    return pairs[..., 0::2].astype(np.uint16) << 8 | pairs[..., 1::2]
  if depth == 16 and colour in LOW_BYTES:
    return stored.astype(np.uint16) << 8 | _raw(data, LOW_BYTES[colour])
  if stored.ndim == 2:
    stored = stored[..., None]
  if depth == 1:
    return stored.astype(np.uint8)
  if depth < 8 and colour != PALETTE:  # Pillow has stretched 0 … 3 and 0 … 15 to 0 … 255
    return stored // (255 // (2**depth - 1))
  return stored


def _raw(data: bytes, mode: str) -> np.ndarray:
  """Return the pixels' bytes [h, w, samples] as Pillow's raw mode takes them out."""
  image = Image.open(io.BytesIO(data), formats=['PNG'])
  image.tile = [tile._replace(args=mode) for tile in image.tile]  # type: ignore[attr-defined]
  return np.asarray(image)


def _looked_up(
  index: np.ndarray, chunks: Mapping[str, bytes]
) -> tuple[np.ndarray, np.ndarray | None]:
  """Return (colours [h, w, 3] float32, transparent pixels or None) of palette indices [h, w, 1]."""
  palette = np.frombuffer(chunks.get('PLTE', b''), np.uint8).reshape(-1, 3)
  index = index[..., 0]
  if index.max() >= len(palette):
    raise ValueError(f'a pixel has colour {index.max()} of a palette of {len(palette)} colours')
  x = _scaled(palette[index], 8, chunks.get('sBIT', b''))
  if 'tRNS' not in chunks:
    return x, None
  opacity = np.full(256, 255, np.uint8)  # colours that tRNS does not list are opaque
  listed = np.frombuffer(chunks['tRNS'], np.uint8)
  opacity[: len(listed)] = listed
  return x, opacity[index] < 255


def _scaled(stored: np.ndarray, depth: int, significant: Sequence[int]) -> np.ndarray:
  """Return float32 in 0 … 1 of stored integers [h, w, samples].

  `significant` is the content of sBIT: the number of significant bits of each sample.
  """
  samples = stored.shape[-1]
  bits = list(significant[:samples])
  if len(bits) < samples or bits == [depth] * samples:
    return stored.astype(np.float32) / np.float32(2**depth - 1)
  planes = [_significant(stored[..., i], depth, bits[i]) for i in range(samples)]
  return np.stack(planes, axis=-1)


def _significant(stored: np.ndarray, depth: int, bits: int) -> np.ndarray:
  """Return float32 in 0 … 1 of samples of which `bits` bits are significant.

  These should be the high bits: a program shifts or stretches its numbers up to the depth, and a
  shift back recovers them (chunk sBIT). Some programs leave their numbers in the low bits. Such a
  file can be recognised: no number needs more than `bits` bits, and some are none that a shift or
  a stretch gives.
  """
  if not 1 <= bits <= depth:
    raise ValueError(
      f'its chunk sBIT says that {bits} of {depth} bits are significant; expected 1 … {depth}'
    )
  most = 2**bits - 1
  largest = 2**depth - 1
  numbers = np.arange(most + 1)
  shifted = numbers << depth - bits
  stretched = np.rint(numbers * (largest / most)).astype(np.int64)
  raised = np.concatenate([shifted, stretched, _repeated(numbers, depth, bits)])
  present = np.unique(stored)
  in_low_bits = present[-1] <= most and not np.isin(present, raised).all()
  original = stored if in_low_bits else stored >> depth - bits
  return original.astype(np.float32) / np.float32(most)


def _repeated(numbers: np.ndarray, depth: int, bits: int) -> np.ndarray:
  """Return numbers of `bits` bits, stretched to `depth` bits by repeating their bits.

  PNG Specification 1.2, section 9.1.
  """
  result = np.zeros_like(numbers)
  for shift in range(depth - bits, -bits, -bits):
    result |= numbers << shift if shift >= 0 else numbers >> -shift
  return result
