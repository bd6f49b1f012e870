"""What a PNG says that its numbers are, at every bit depth (PNG Specification 1.2, 1999).

Pillow unpacks the pixels, but cuts 16-bit colour to 8 bits: its second bytes are read once more.
"""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageOps

START = 8                                  # bytes of the signature
PALETTE = 3                                # a colour type (IHDR)
SAMPLES = {0: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}       # colour type: samples a pixel (4, 6: alpha)
LOW_BYTES = {2: 'RGB;16L', 6: 'RGBA;16L'}  # Pillow's raw modes that take the second byte of two


def chunks(data: bytes) -> dict[str, bytes]:
  """Return {name: content} of a PNG's chunks, the first of each name.

  ValueError where the file is cut off, or a checksum is wrong: Pillow does not look at those of the
  pixels' chunks.
  """
  found: dict[str, bytes] = {}
  view = memoryview(data)
  place = START
  while 'IEND' not in found:
    if place + 12 > len(data):
      raise ValueError('it is cut off: its last chunk (IEND) is missing')
    length, code = struct.unpack_from('>I4s', data, place)
    name = code.decode('latin-1')
    content, end = place + 8, place + 8 + length
    if end + 4 > len(data):
      raise ValueError(f'it is cut off within its chunk {name}')
    (checksum,) = struct.unpack_from('>I', data, end)
    if zlib.crc32(view[place + 4:end]) != checksum:
      raise ValueError(f'it is damaged: the checksum (CRC) of its chunk {name} is wrong')
    if name not in found:
      found[name] = bytes(view[content:end])
    place = end + 4
  if len(found.get('IHDR', b'')) != 13:
    raise ValueError('it is damaged: it has no header (IHDR)')
  return found


def numbers(image: Image.Image, data: bytes,
            said: Mapping[str, bytes]) -> tuple[np.ndarray, np.ndarray | None]:
  """Return (x [h, w] or [h, w, 3] float32 in 0 … 1, which pixels are transparent [h, w] or None).

  `image` is the opened file, `data` its bytes and `said` its chunks. 1 is what the bit depth can
  hold at most, or what the significant bits can hold where sBIT says that they are fewer. gAMA,
  cHRM, sRGB and iCCP say how a screen shows the numbers, and change none.
  """
  depth, colour = said['IHDR'][8:10]
  stored = _stored(image, data, depth, colour)
  if colour == PALETTE:
    return _looked_up(stored, said)
  transparent = None
  if SAMPLES[colour] in (2, 4):
    transparent = stored[..., -1] < 2 ** depth - 1
    stored = stored[..., :-1]
  elif 'tRNS' in said:
    key = np.frombuffer(said['tRNS'], '>u2', SAMPLES[colour])
    transparent = (stored == key).all(axis=-1)
  x = _scaled(stored, depth, said.get('sBIT', b''))
  return (x if x.shape[-1] > 1 else x[..., 0]), transparent


def _stored(image: Image.Image, data: bytes, depth: int, colour: int) -> np.ndarray:
  """Return the integers that the file stores, upright [h, w, samples]."""
  if depth == 16 and colour == 4:          # four bytes a pixel; Pillow would drop two
    pairs = _raw(data, 'RGBA')
    return pairs[..., 0::2].astype(np.uint16) << 8 | pairs[..., 1::2]
  ImageOps.exif_transpose(image, in_place=True)
  stored = np.asarray(image)
  if depth == 16 and colour in LOW_BYTES:
    return stored.astype(np.uint16) << 8 | _raw(data, LOW_BYTES[colour])
  if stored.ndim == 2:
    stored = stored[..., None]
  if depth == 1:
    return stored.astype(np.uint8)
  if depth < 8 and colour != PALETTE:      # Pillow has stretched 0 … 3 and 0 … 15 to 0 … 255
    return stored // (255 // (2 ** depth - 1))
  return stored


def _raw(data: bytes, mode: str) -> np.ndarray:
  """Return the pixels' bytes [h, w, samples], upright, as Pillow's raw mode takes them out."""
  image = Image.open(io.BytesIO(data), formats=['PNG'])
  image.tile = [tile._replace(args=mode) for tile in image.tile]      # type: ignore[attr-defined]
  ImageOps.exif_transpose(image, in_place=True)
  return np.asarray(image)


def _looked_up(index: np.ndarray,
               said: Mapping[str, bytes]) -> tuple[np.ndarray, np.ndarray | None]:
  """Return (colours [h, w, 3] float32, transparent pixels or None) of palette indices [h, w, 1]."""
  palette = np.frombuffer(said.get('PLTE', b''), np.uint8).reshape(-1, 3)
  index = index[..., 0]
  if index.max() >= len(palette):
    raise ValueError(f'a pixel has colour {index.max()} of a palette of {len(palette)} colours')
  x = _scaled(palette[index], 8, said.get('sBIT', b''))
  if 'tRNS' not in said:
    return x, None
  opacity = np.full(256, 255, np.uint8)
  given = np.frombuffer(said['tRNS'], np.uint8)
  opacity[:len(given)] = given
  return x, opacity[index] < 255


def _scaled(stored: np.ndarray, depth: int, significant: Sequence[int]) -> np.ndarray:
  """Return float32 in 0 … 1 of stored integers [h, w, samples].

  `significant` is the content of sBIT: the number of significant bits of each sample.
  """
  samples = stored.shape[-1]
  bits = list(significant[:samples])
  if len(bits) < samples or bits == [depth] * samples:
    return stored.astype(np.float32) / np.float32(2 ** depth - 1)
  planes = [_significant(stored[..., i], depth, bits[i]) for i in range(samples)]
  return np.stack(planes, axis=-1)


def _significant(stored: np.ndarray, depth: int, bits: int) -> np.ndarray:
  """Return float32 in 0 … 1 of samples of which `bits` bits are significant.

  These are the high bits: a writer shifts or stretches its numbers up to the depth, and a shift
  back recovers them (chunk sBIT). Some writers leave their numbers in the low bits. Such a file
  tells itself: no number needs more than `bits` bits, and not all are what a shift or a stretch
  gives.
  """
  if not 1 <= bits <= depth:
    raise ValueError(f'its chunk sBIT says that {bits} of {depth} bits are significant; expected '
                     f'1 … {depth}')
  most, largest = 2 ** bits - 1, 2 ** depth - 1
  numbers = np.arange(most + 1)
  shifted = numbers << depth - bits
  stretched = np.rint(numbers * (largest / most)).astype(np.int64)
  raised = np.concatenate([shifted, stretched, _repeated(numbers, depth, bits)])
  present = np.unique(stored)
  in_low_bits = present[-1] <= most and not np.isin(present, raised).all()
  original = stored if in_low_bits else stored >> depth - bits
  return original.astype(np.float32) / np.float32(most)


def _repeated(numbers: np.ndarray, depth: int, bits: int) -> np.ndarray:
  """Return numbers of `bits` bits stretched to `depth` bits by repeating them (section 9.1)."""
  result = np.zeros_like(numbers)
  for shift in range(depth - bits, -bits, -bits):
    result |= numbers << shift if shift >= 0 else numbers >> -shift
  return result
