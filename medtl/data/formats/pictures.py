"""Reads one picture file: PNG, JPEG, TIFF, BMP and WebP → x [h, w, c].

Unsigned numbers of up to 16 bits are divided by the largest that their bits can hold, so that they
become 0 … 1. Signed, 32- and 64-bit and float TIFFs keep their numbers (then `window` or `rescale`
them). Whatever a file says of its numbers is followed, or the file is refused with the reason:
orientation, white-is-zero, significant bits, sample format, palette, transparency. Gamma and colour
profiles change no number, since they say how a screen shows it. The range of the numbers in a file
is never taken for its number of bits.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from medtl.core.types import MedtlError
from medtl.data.formats import jpeg, png, signature

SUFFIXES = ('.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.tif', '.tiff', '.bmp', '.webp')
RED, BLUE = np.float32(0.299), np.float32(0.114)  # shares of luma, ITU-R BT.601; green has the rest
UPRIGHT, ORIENTATION = 1, 0x0112  # EXIF
WHOLE_NUMBERS = (3, 4, 6, 8, 9)  # types of a TIFF's tags that Pillow reads as such
WORDED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # say what is wrong
BROKEN = (*WORDED, ArithmeticError, EOFError, LookupError, TypeError, struct.error, zlib.error)

Numbers = tuple[np.ndarray, np.ndarray | None]  # x [h, w] or [h, w, 3]; transparent [h, w]


def recognised(path: Path) -> bool:
  """Return whether a file is a picture that is read here: by its suffix, or by its first bytes.

  The first bytes decide where the name says no type: it has no suffix, or one of digits (x.001, a
  DICOM UID). A file with the suffix of another type is no picture, whatever it holds.

  Raises OSError where a file must be opened but cannot be.
  """
  suffix = path.suffix.lower()
  if suffix in SUFFIXES:
    return not path.is_dir()
  if suffix and not suffix[1:].isdigit():
    return False
  if not path.is_file():  # a folder, or a pipe that would never end
    return False
  return signature.picture_format(signature.head(path)) != ''


def read(path: Path | BinaryIO, channels: int, exif: str) -> np.ndarray:
  """Return the picture [h, w, channels] float32.

  The content decides the format, not the suffix. `channels`: 1 (colour → BT.601 luma) or 3 (grey →
  three equal). Transparency is dropped where all pixels are opaque.

  Raises OSError ("cannot decode …: reason") for a file that cannot be read as it says, and for one
  with transparent pixels: what lies behind them is not in the file. Raises MedtlError for a file of
  several pages or frames, and for one that is stored turned, unless exif='apply' turns it upright.
  """
  name = str(path) if isinstance(path, Path) else 'the picture'
  data = path.read_bytes() if isinstance(path, Path) else path.read()
  try:
    x, transparent = _numbers(data, name, exif)
    if transparent is not None and transparent.any():
      raise ValueError(
        f'{transparent.sum()} of its {transparent.size} pixels are (partly) transparent, and what '
        'lies behind them is not in the file; lay it on a background and store it without '
        'transparency (alpha)'
      )
  except WORDED as error:
    raise OSError(f'cannot decode {name}: {error}') from error
  except BROKEN as error:  # whose words speak of Python, not of the file
    raise OSError(
      f'cannot decode {name}: it is damaged or cut off: what its parts say does not fit together'
    ) from error
  return grey_or_colour(x, channels)


def grey_or_colour(x: np.ndarray, channels: int) -> np.ndarray:
  """Return [h, w, channels] of a picture [h, w] or [h, w, 3]."""
  if x.ndim == 3 and channels == 3:
    return x
  if x.ndim == 3:
    red, green, blue = np.moveaxis(x, -1, 0)
    x = green + RED * (red - green) + BLUE * (blue - green)  # exactly grey where all are equal
  return np.repeat(x[..., None], channels, axis=2)


def _numbers(data: bytes, name: str, exif: str) -> Numbers:
  """Return (x [h, w] or [h, w, 3], transparent pixels or None) of a file's bytes."""
  kind = signature.picture_format(data)
  if not kind:
    raise ValueError(signature.what_it_is(data[: signature.HEAD]))
  if kind == 'TIFF':
    from medtl.data.formats import tiff  # takes 35 ms, which other pictures do not need

    _check_one(tiff.pages(data), 'pages', name)
    layout = tiff.read_layout(data)
    page = tiff.opened(data, layout)
    _checked_orientation(page, name, exif)  # Pillow turns it
    return tiff.numbers(page, data, layout)
  scans = jpeg.read_scans(data) if kind == 'JPEG' else []
  chunks = png.read_chunks(data) if kind == 'PNG' else {}
  image = _opened(data, kind)
  if kind != 'JPEG':  # a JPEG is its first picture: phones append others (MPO)
    _check_one(getattr(image, 'n_frames', 1), 'frames', name)
  if isinstance(image, PngImageFile):
    stored = png.load(image, chunks)  # EXIF may follow the pixels
    turn = _checked_orientation(image, name, exif)
    x, transparent = png.numbers(stored, data, chunks)
  else:
    turn = _checked_orientation(image, name, exif)
    jpeg.load(image, data, scans)
    x, transparent = _eight_bits(image)
  return _upright(x, turn), transparent


def _opened(data: bytes, kind: str) -> Image.Image:
  """Return the file, opened by Pillow; ValueError with the reason where it does not."""
  try:
    return Image.open(io.BytesIO(data), formats=[kind])
  except UnidentifiedImageError:  # hides the reason, which the format's own reader tells
    read_format, _ = Image.OPEN[kind]
  try:
    return read_format(io.BytesIO(data), '')
  except SyntaxError as error:
    reason = '' if error.__cause__ else f' ({error})'  # with a cause it speaks of Python
    raise ValueError(
      f'it is a damaged {kind} file, or of a kind that is not read{reason}; store it as PNG'
    ) from error


def _check_one(count: int, word: str, name: str) -> None:
  if count > 1:
    raise MedtlError(f'{name} holds {count} {word}; expected one picture a file')


def _checked_orientation(image: Image.Image, name: str, exif: str) -> int:
  """Return the EXIF orientation of a picture, 1 … 8; MedtlError where it may not be turned."""
  turn = _orientation(image)
  if turn not in range(1, 9):
    raise ValueError(f'its orientation (EXIF) is {turn}; expected 1 … 8: store it upright, as 1')
  if turn != UPRIGHT and exif == 'stop':
    raise MedtlError(
      f"{name} is stored turned (EXIF orientation {turn}); set data.exif='apply' to turn such "
      'files upright, or store them upright: who drew masks or read them elsewhere may have seen '
      'either'
    )
  return turn


def _upright(x: np.ndarray, turn: int) -> np.ndarray:
  """Return a picture [h, w] or [h, w, 3] upright; `turn` is its EXIF orientation."""
  if turn in (3, 4, 6, 7):
    x = x[::-1]
  if turn in (2, 3, 7, 8):
    x = x[:, ::-1]
  return x.swapaxes(0, 1) if turn > 4 else x


def _orientation(image: Image.Image) -> Any:
  """Return the orientation that EXIF, XMP or a TIFF's tag states, be it legal or not."""
  try:
    _check_exif(image.info.get('exif', b''))
    return image.getexif().get(ORIENTATION, UPRIGHT)
  except BROKEN as error:
    raise ValueError(
      'its EXIF block, which says which side is up, is damaged; remove or repair it'
    ) from error


def _check_exif(block: bytes) -> None:
  """Raise where the orientation may lie in a part of an EXIF block that is cut off or elsewhere.

  Pillow ignores the orientation then. EXIF 2.32, section 4.6.2: the block is a TIFF, whose first
  directory says the orientation; files store it in several types of whole numbers.
  """
  block = block.removeprefix(b'Exif\0\0')
  if not block:
    return
  order = {b'II*\0': '<', b'MM\0*': '>'}[block[:4]]
  (place,) = struct.unpack_from(f'{order}I', block, 4)
  (count,) = struct.unpack_from(f'{order}H', block, place)
  if count == 0 and place != 8:  # Pillow writes empty directories, at 8
    raise ValueError('its directory lies elsewhere')
  for entry in range(place + 2, place + 2 + 12 * count, 12):
    tag, kind, number, _ = struct.unpack_from(f'{order}HHI4s', block, entry)
    if tag == ORIENTATION and kind in WHOLE_NUMBERS and number == 1:
      return
    if tag == ORIENTATION:
      raise ValueError('the orientation is not one whole number')


def _eight_bits(image: Image.Image) -> Numbers:
  """Return the numbers of a JPEG, BMP or WebP."""
  if image.mode == 'CMYK' and 'adobe' not in image.info:
    raise ValueError(
      'it is a CMYK JPEG without an Adobe marker, so that nobody knows whether 0 is no ink or all '
      'ink; store it as RGB'
    )
  transparent = None
  if image.mode == 'RGBA':
    transparent = np.asarray(image)[..., 3] < 255
  if image.mode not in ('L', 'RGB'):
    image = image.convert('L' if image.mode == '1' else 'RGB')
  return np.asarray(image, np.float32) / np.float32(255), transparent
