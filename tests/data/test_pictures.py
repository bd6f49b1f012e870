"""What is read of pictures that were written here byte by byte, by Pillow and by tifffile."""

import contextlib
import io
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from medtl.core.types import MedtlError
from medtl.data.formats import pictures
from medtl.data.sources import dicom, folder

equal, close = np.testing.assert_array_equal, np.testing.assert_allclose
HEIGHT, WIDTH = 5, 7
TURNED = {  # EXIF orientation: what makes the picture upright
  1: lambda x: x,
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: x[::-1].swapaxes(0, 1),
  7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
  8: lambda x: x.swapaxes(0, 1)[::-1],
}


def tiff(
  samples: np.ndarray,
  photometric: int,
  *,
  order: str = '<',
  bits: int = 0,
  deflate: bool = False,
  planar: bool = False,
  extra: tuple[int, ...] = (),
  rows: int = 3,
  **more,
) -> bytes:
  """Return a TIFF of samples [h, w, c] in strips of `rows` rows; `more` are tags tN=numbers."""
  height, width, count = samples.shape
  kind = {'u': 1, 'i': 2, 'f': 3}[samples.dtype.kind]
  size = bits or 8 * samples.itemsize
  strips = []
  for plane in np.moveaxis(samples, -1, 0)[..., None] if planar else [samples]:
    for top in range(0, height, rows):
      strips.append(packed(plane[top : top + rows], size, order))
  if deflate:
    strips = [zlib.compress(strip) for strip in strips]
  tags = {
    256: width,
    257: height,
    258: (size,) * count,
    259: 8 if deflate else 1,
    262: photometric,
    277: count,
    278: rows,
    284: 2 if planar else 1,
    339: (kind,) * count,
  }
  if extra:
    tags[338] = extra
  return tiff_of(tags | {int(name[1:]): value for name, value in more.items()}, strips, order)


def packed(samples: np.ndarray, bits: int, order: str) -> bytes:
  """Return rows of samples [h, w, c] as a TIFF or a PNG packs them."""
  if bits % 8 == 0:
    return samples.astype(samples.dtype.newbyteorder(order)).tobytes()
  result = b''
  for row in samples:
    text = ''.join(f'{value:0{bits}b}' for value in row.ravel())
    text += '0' * (-len(text) % 8)
    result += int(text, 2).to_bytes(len(text) // 8, 'big')
  return result


def tiff_of(tags: dict, strips: list[bytes], order: str) -> bytes:
  offsets = 8 + np.cumsum([0, *map(len, strips)])
  tags = {number: value for number, value in tags.items() if value is not None}
  tags |= {273: tuple(offsets[:-1].tolist()), 279: tuple(map(len, strips))}
  values_at = offsets[-1] + 2 + 12 * len(tags) + 4
  entries, values = struct.pack(f'{order}H', len(tags)), b''
  for number in sorted(tags):
    numbers = tags[number] if isinstance(tags[number], tuple) else (tags[number],)
    letter, kind = ('I', 4) if number in (273, 279) else ('H', 3)
    field = struct.pack(f'{order}{len(numbers)}{letter}', *numbers)
    if len(field) > 4:
      field, values = struct.pack(f'{order}I', values_at + len(values)), values + field
    entries += struct.pack(f'{order}HHI', number, kind, len(numbers)) + field.ljust(4, b'\0')
  head = (b'II*\0' if order == '<' else b'MM\0*') + struct.pack(f'{order}I', offsets[-1])
  return head + b''.join(strips) + entries + bytes(4) + values


def chunk(name: bytes, content: bytes) -> bytes:
  checksum = struct.pack('>I', zlib.crc32(name + content))
  return struct.pack('>I4s', len(content), name) + content + checksum


def png(
  samples: np.ndarray,
  depth: int,
  colour: int,
  before: bytes = b'',
  after: bytes = b'',
  interlaced: bool = False,
) -> bytes:
  """Return a PNG of samples [h, w, c], with chunks before and after its pixels."""
  height, width, _ = samples.shape
  passes = [
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
  ]  # Adam7
  lines = b''
  for top, left, down, right in passes if interlaced else [(0, 0, 1, 1)]:
    for row in samples[top::down, left::right]:
      if len(row):
        lines += b'\0' + packed(row[None], depth, '>')
  header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, interlaced)
  pixels = chunk(b'IDAT', zlib.compress(lines))
  start = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
  return start + before + pixels + after + chunk(b'IEND', b'')


def saved(image: Image.Image, kind: str, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def read(data: bytes, channels: int = 1, exif: str = 'stop') -> np.ndarray:
  """Return [h, w] or [h, w, 3]."""
  x = pictures.read(io.BytesIO(data), channels, exif)
  assert x.dtype == np.float32 and x.shape[2] == channels
  return x if channels == 3 else x[..., 0]


def random(dtype, count: int, bits: int = 0) -> np.ndarray:
  """Return samples [h, w, count] that use all bits."""
  generator, dtype = np.random.default_rng(0), np.dtype(dtype)
  if dtype.kind == 'f':
    return generator.normal(size=(HEIGHT, WIDTH, count)).astype(dtype)
  limits = np.iinfo(dtype)
  high = 2**bits - 1 if bits else limits.max
  return generator.integers(limits.min, high, (HEIGHT, WIDTH, count), dtype, endpoint=True)


def share(samples: np.ndarray, bits: int) -> np.ndarray:
  """Return samples [h, w, c] as parts of the most that `bits` bits hold, [h, w] or [h, w, 3]."""
  x = samples.astype(np.float32) / np.float32(2**bits - 1)
  return x if x.shape[2] == 3 else x[..., 0]


def refused(data: bytes, words: str, channels: int = 1) -> None:
  with pytest.raises(OSError, match=f'^cannot decode the picture: .*{words}'):
    read(data, channels, 'apply')


# TIFF


@pytest.mark.parametrize('deflate', [False, True])
@pytest.mark.parametrize('order', '<>')
def test_grey_tiffs_of_every_type_say_the_same_in_both_byte_orders_and_compressed(order, deflate):
  how = dict(order=order, deflate=deflate)
  for dtype, bits in (('u1', 1), ('u1', 2), ('u1', 4), ('u1', 8), ('u2', 16)):
    samples = random(dtype, 1, bits)
    equal(read(tiff(samples, 1, bits=bits, **how)), share(samples, bits))
    negative = 2**bits - 1 - samples
    equal(read(tiff(samples, 0, bits=bits, **how)), share(negative, bits))
  for dtype in ('u4', 'u8', 'i1', 'i2', 'i4', 'i8', 'f2', 'f4', 'f8'):
    samples = random(dtype, 1)
    equal(read(tiff(samples, 1, **how)), samples[..., 0].astype(np.float32))


@pytest.mark.parametrize('deflate', [False, True])
@pytest.mark.parametrize('order', '<>')
def test_colour_tiffs_keep_all_their_bits(order, deflate):
  how = dict(order=order, deflate=deflate)
  for dtype, bits in (('u1', 8), ('u2', 16)):
    samples = random(dtype, 3)
    equal(read(tiff(samples, 2, **how), 3), share(samples, bits))
    opaque = np.concatenate([samples, np.full((HEIGHT, WIDTH, 1), 2**bits - 1, dtype)], axis=2)
    for extra in ((), (0,), (1,), (2,)):
      equal(read(tiff(opaque, 2, extra=extra, **how), 3), share(samples, bits))
    equal(read(tiff(opaque[..., 2:], 1, extra=(2,), **how)), share(samples[..., 2:], bits))
    inks = random(dtype, 4)
    left = 1 - inks / (2**bits - 1)
    close(read(tiff(inks, 5, **how), 3), left[..., :3] * left[..., 3:], atol=1e-6)
  planes = random('u1', 3)
  equal(read(tiff(planes, 2, planar=True, **how), 3), share(planes, 8))


def test_twelve_bits_are_what_the_file_says_and_no_tag_of_statistics_changes_a_number():
  samples = random('u2', 1, 12)
  equal(read(tiff(samples, 1, bits=12)), share(samples, 12))
  equal(read(tiff(samples, 0, bits=12)), share(4095 - samples, 12))
  told = dict(t280=0, t281=4095)  # MinSampleValue, MaxSampleValue
  equal(read(tiff(samples, 1, **told)), share(samples, 16))


def test_palettes_of_tiffs_are_looked_up_whichever_way_255_was_stored():
  samples = random('u1', 1, 2)
  colours = np.random.default_rng(1).integers(0, 256, (3, 4))
  for bits, most in ((2, 257), (2, 256), (8, 257)):
    table = np.zeros((3, 2**bits), int)
    table[:, :4] = colours * most
    found = read(tiff(samples, 3, bits=bits, t320=tuple(table.ravel().tolist())), 3)
    close(found, (colours.T / 255)[samples[..., 0]], atol=1e-7)
  refused(tiff(samples, 3, bits=2, t320=tuple(range(12))), 'below 256 only', 3)
  refused(tiff(samples, 3, bits=4, t320=(65535,) * 3), 'a palette of 1 colours', 3)


@pytest.mark.parametrize(
  'compression', [None, 'tiff_lzw', 'tiff_adobe_deflate', 'packbits', 'zstd', 'group4', 'jpeg']
)
def test_compressions_that_pillow_writes_read_as_it_was(compression):
  values = np.add.outer(np.arange(32), np.arange(40) * 5).astype(np.uint8)
  if compression == 'group4':
    values = np.where(values > 99, 255, 0).astype(np.uint8)
    data = saved(Image.fromarray(values > 0), 'TIFF', compression=compression)
  else:
    data = saved(Image.fromarray(values), 'TIFF', compression=compression)
  close(read(data), values / 255, atol=0.02 if compression == 'jpeg' else 1e-7)
  if compression == 'jpeg':
    colour = np.stack([values, values, 255 - values // 2], axis=2)
    stored = Image.fromarray(colour, 'RGB').convert('YCbCr')
    data = saved(stored, 'TIFF', compression='jpeg', quality=95)
    close(read(data, 3), colour / 255, atol=0.1)


def test_tifffile_reads_the_same(tmp_path):
  for dtype, count in (('u2', 1), ('f4', 1), ('f8', 1), ('u1', 3), ('u2', 3)):
    samples = random(dtype, count)
    for order in '<>':
      for options in (dict(), dict(tile=(16, 16)), dict(bigtiff=True), dict(rowsperstrip=2)):
        path = tmp_path / 'x.tif'
        colour = 'rgb' if count == 3 else 'minisblack'
        tifffile.imwrite(path, samples.squeeze(), byteorder=order, photometric=colour, **options)
        if 'bigtiff' in options and order == '>':
          refused(path.read_bytes(), 'big-endian BigTIFF', count)
          continue
        known = tifffile.imread(path).astype(np.float32)
        most = 1 if samples.dtype.kind == 'f' else np.iinfo(dtype).max
        equal(read(path.read_bytes(), count), known / np.float32(most))


@pytest.mark.parametrize(
  'data, words',
  [
    (tiff(random('u1', 1), 1, t262=None), 'not say whether 0 is black or white.*tag 262'),
    (tiff(random('i2', 1), 0), r'16-bit signed samples, 1 a pixel, grey \(white is 0\).*; store'),
    (tiff(random('f4', 1), 0), 'floating-point'),
    (tiff(random('f4', 3), 2), '32-bit floating-point samples, 3 a pixel, RGB'),
    (tiff(random('u2', 3), 2, planar=True), 'in separate planes'),
    (tiff(random('u1', 3), 8), 'CIELab'),
    (tiff(random('u1', 3), 6), 'YCbCr, compression 1'),
    (tiff(random('u1', 1), 32803), 'colour filter array'),
    (tiff(random('u1', 1), 1, t259=34712), 'compression 34712'),
    (
      tiff(random('u1', 3), 1),
      r'3 samples a pixel, and not all are explained \(ExtraSamples \(\)\)',
    ),
    (tiff(random('u1', 5), 2, extra=(0, 0)), '5 samples a pixel'),
    (tiff(random('u1', 4), 2, extra=(0,)), 'what its sample 4 means is not said'),
    (tiff(random('u1', 3), 2, t258=(8, 8, 4)), r'differ in bits: \(8, 8, 4\)'),
    (tiff(random('u2', 1, 10), 1, bits=10), '10-bit unsigned'),
    (tiff(random('u1', 1), 2), '1 a pixel, RGB'),
    (tiff(random('u1', 1), 1, t256=None), '0 columns and 5 rows'),
    (tiff(random('u1', 1), 1, t257=0), '7 columns and 0 rows'),
    (tiff(random('u1', 1), 1, t257=7), '2 of its 3 strips or tiles'),
    (tiff(random('u1', 1), 1, t257=7, deflate=True), '2 of its 3 strips or tiles'),
  ],
)
def test_tiffs_that_are_not_read_say_why(data, words):
  refused(data, words)


def test_the_advice_of_a_tiff_that_is_not_read_works():
  samples = random('f4', 1)
  refused(tiff(samples, 0), 'store it as 8- or 16-bit grey or RGB, or as 32-bit float grey')
  for stored, options in ((samples[..., 0], {}), (samples[..., 0], dict(compression='tiff_lzw'))):
    equal(read(saved(Image.fromarray(stored), 'TIFF', **options)), stored)


# PNG


@pytest.mark.parametrize('interlaced', [False, True])
def test_pngs_of_every_depth_and_colour_keep_all_their_bits(interlaced):
  for depth in (1, 2, 4, 8, 16):
    dtype = 'u2' if depth == 16 else 'u1'
    samples = random(dtype, 4, depth)
    grey, colour = samples[..., :1], samples[..., :3]
    how = dict(interlaced=interlaced)
    equal(read(png(grey, depth, 0, **how)), share(grey, depth))
    if depth >= 8:
      equal(read(png(colour, depth, 2, **how), 3), share(colour, depth))
      samples[..., 3] = 2**depth - 1
      equal(read(png(samples, depth, 6, **how), 3), share(colour, depth))
      equal(read(png(samples[..., 2:], depth, 4, **how)), share(samples[..., 2:3], depth))
    if depth <= 8:
      palette = np.random.default_rng(1).integers(0, 256, (2**depth, 3)).astype(np.uint8)
      data = png(grey, depth, 3, chunk(b'PLTE', palette.tobytes()), **how)
      equal(read(data, 3), share(palette[grey[..., 0]], 8))


def test_significant_bits_are_followed_wherever_they_lie():
  example = np.full((1, 1, 1), 222, np.uint8)  # 27 of 5 bits (PNG 1.2, section 9.1)
  assert read(png(example, 8, 0, chunk(b'sBIT', b'\5'))) == np.float32(27) / np.float32(31)
  for depth, bits in ((16, 12), (16, 10), (8, 5), (8, 7)):
    dtype = 'u2' if depth == 16 else 'u1'
    for colour, count in ((0, 1), (2, 3)):
      samples = random(dtype, count, bits)
      samples[0, 0] = 2**bits - 1
      said = chunk(b'sBIT', bytes([bits] * count))
      stretched = np.rint(samples * ((2**depth - 1) / (2**bits - 1))).astype(dtype)
      for stored in (samples << depth - bits, stretched, samples):
        found = read(png(stored, depth, colour, said), count)
        equal(found, share(samples, bits))
      equal(read(png(samples, depth, colour), count), share(samples, depth))  # no guess
  dark = np.full((HEIGHT, WIDTH, 1), 160, np.uint16)  # 10, shifted; 12 bits hold 160 too
  assert read(png(dark, 16, 0, chunk(b'sBIT', b'\x0c')))[0, 0] == np.float32(10) / np.float32(4095)
  refused(png(dark, 16, 0, chunk(b'sBIT', b'\x11')), '17 of 16 bits')


def test_gamma_and_profiles_change_no_number():
  samples = random('u1', 1)
  told = chunk(b'gAMA', struct.pack('>I', 45455)) + chunk(b'sRGB', b'\0')
  equal(read(png(samples, 8, 0, told)), share(samples, 8))


@pytest.mark.parametrize('place', [10, 40, -30])
def test_a_flipped_bit_of_a_png_is_found(place):
  data = bytearray(png(random('u1', 1), 8, 0))
  data[place] ^= 4
  refused(bytes(data), r'damaged: the checksum \(CRC\)|cut off|changed')


# transparency


def test_transparency_is_dropped_where_all_is_opaque_and_refused_elsewhere():
  samples = random('u1', 1)
  samples[samples == 7] = 8
  colour = np.repeat(samples, 3, axis=2)
  palette = chunk(b'PLTE', np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
  keys = {0: struct.pack('>H', 7), 2: struct.pack('>3H', 7, 7, 7), 3: b'\xff' * 7 + b'\0\xff'}
  for kind, stored, before in ((0, samples, b''), (2, colour, b''), (3, samples, palette)):
    data = png(stored, 8, kind, before + chunk(b'tRNS', keys[kind]))
    close(read(data), samples[..., 0] / 255, atol=1e-6)
    seen = stored.copy()
    seen[2, 3] = 7
    data = png(seen, 8, kind, before + chunk(b'tRNS', keys[kind]))
    refused(data, r'1 of its 35 pixels are \(partly\) transparent')
  fine = np.full((HEIGHT, WIDTH, 4), 65535, np.uint16)
  fine[0, 0, 3] -= 1  # seen in 16 bits only
  refused(png(fine, 16, 6), '1 of its 35 pixels')
  refused(tiff(fine, 2, extra=(1,)), '1 of its 35 pixels')
  half = Image.fromarray(np.full((HEIGHT, WIDTH, 4), 128, np.uint8), 'RGBA')
  for data in (saved(half, 'WEBP', lossless=True), saved(half, 'PNG'), saved(half, 'TIFF')):
    refused(data, '35 of its 35 pixels')
  background = Image.new('RGBA', half.size, 'black')  # the advice
  flat = Image.alpha_composite(background, half).convert('RGB')
  close(read(saved(flat, 'PNG')), 64 / 255, atol=1e-6)


# orientation


def turned(kind: str, samples: np.ndarray, orientation: int) -> bytes:
  exif = Image.Exif()
  exif[274] = orientation
  if kind in ('tiff', 'strips'):
    rows, photometric = (99 if kind == 'tiff' else 2), (1 if samples.ndim == 2 else 2)
    return tiff(
      samples.reshape(HEIGHT, WIDTH, -1),
      photometric,
      rows=rows,
      deflate=kind == 'strips',
      t274=orientation,
    )
  image = Image.fromarray(samples) if samples.dtype == np.uint8 or samples.ndim == 2 else None
  if kind == 'late':
    content = exif.tobytes().removeprefix(b'Exif\0\0')
    return png(samples[..., None], 16, 0, after=chunk(b'eXIf', content))
  if kind == 'xmp':
    return saved(image, 'PNG', pnginfo=xmp(orientation))
  options = dict(JPEG=dict(quality=100, subsampling=0), WEBP=dict(lossless=True), PNG={})[kind]
  return saved(image, kind, exif=exif, **options)


def xmp(orientation: int):
  from PIL.PngImagePlugin import PngInfo

  info = PngInfo()
  info.add_itxt('XML:com.adobe.xmp', f'<rdf:Description tiff:Orientation="{orientation}"/>')
  return info


@pytest.mark.parametrize('orientation', range(1, 9))
def test_every_orientation_of_every_format_is_upright(orientation):
  fine = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 1000
  coarse = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) * 7
  colour = np.stack([fine, fine // 3, 9 - fine], axis=2)
  upright = TURNED[orientation]
  cases = [
    ('tiff', fine, 0),
    ('strips', fine, 0),
    ('tiff', coarse, 0),
    ('tiff', colour, 0),
    ('strips', colour, 0),
    ('late', fine, 0),
    ('xmp', coarse, 0),
    ('PNG', fine, 0),
    ('JPEG', coarse, 0.02),
    ('WEBP', np.repeat(coarse[..., None], 3, 2), 0),
  ]
  for kind, samples, error in cases:
    data = turned(kind, samples, orientation)
    channels = 3 if samples.ndim == 3 else 1
    expected = upright(samples).astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)
    close(read(data, channels, 'apply'), expected, atol=error, err_msg=kind)
    if orientation > 1:
      with pytest.raises(MedtlError, match=f"orientation {orientation}.*data.exif='apply'"):
        read(data, channels)


@pytest.mark.parametrize('orientation', [0, 9])
@pytest.mark.parametrize('kind', ['tiff', 'strips', 'PNG', 'JPEG'])
def test_an_orientation_that_is_none_is_refused(kind, orientation):
  samples = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
  refused(turned(kind, samples, orientation), f'orientation .EXIF. is {orientation}; expected 1')


def test_a_turned_uncompressed_tiff_of_a_folder_comes_out_as_the_compressed_one(tmp_path):
  picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 32), np.uint8))
  for name, options in (('a', {}), ('b', dict(compression='tiff_lzw'))):
    (tmp_path / name).mkdir()
    picture.save(tmp_path / name / 'x.tif', tiffinfo={274: 6}, **options)
  data = folder.load(str(tmp_path), exif='apply')
  known = TURNED[6](np.asarray(picture)).astype(np.float32) / np.float32(255)
  for row in range(2):
    equal(data.fetch(row).x[..., 0], known)


# JPEG, BMP, WebP


def test_jpegs_of_every_kind():
  values = np.add.outer(np.arange(32), np.arange(40) * 5).astype(np.uint8)
  colour = np.stack([values, values, 255 - values // 2], axis=2)
  for options in ({}, dict(progressive=True), dict(icc_profile=b'a profile'), dict(subsampling=0)):
    data = saved(Image.fromarray(values), 'JPEG', quality=95, **options)
    close(read(data), values / 255, atol=0.02)
    data = saved(Image.fromarray(colour), 'JPEG', quality=95, **options)
    close(read(data, 3), colour / 255, atol=0.1)
  inks = Image.fromarray(colour).convert('CMYK')
  data = saved(inks, 'JPEG', quality=95)
  close(read(data, 3), colour / 255, atol=0.1)
  place = data.index(b'\xff\xee')  # the Adobe marker
  length = int.from_bytes(data[place + 2 : place + 4], 'big')
  refused(data[:place] + data[place + 2 + length :], 'CMYK JPEG without an Adobe marker')
  grey = bytearray(saved(Image.fromarray(values), 'JPEG'))
  grey[grey.index(b'\xff\xc0') + 4] = 12  # bits a sample
  refused(bytes(grey), r'cannot handle 12-bit layers\); store it as PNG')


def test_a_jpeg_with_another_behind_it_is_its_first(tmp_path):
  first, second = (Image.fromarray(np.full((16, 16), value, np.uint8)) for value in (200, 20))
  data = saved(first, 'MPO', save_all=True, append_images=[second])
  close(read(data), 200 / 255, atol=0.01)


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB'])
@pytest.mark.parametrize('kind', ['BMP', 'PNG', 'TIFF', 'WEBP'])
def test_pillows_modes_come_back(kind, mode):
  picture = Image.fromarray(random('u1', 3)).convert(mode)
  known = np.asarray(picture.convert('RGB'), np.float32) / np.float32(255)
  options = dict(lossless=True) if kind == 'WEBP' else {}
  equal(read(saved(picture, kind, **options), 3), known)


# several pictures, broken files, other files


@pytest.mark.parametrize(
  'kind, word', [('TIFF', '2 pages'), ('PNG', '2 frames'), ('WEBP', '2 frames')]
)
def test_several_pictures_in_a_file_stop(kind, word):
  one, two = (Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (9, 99))
  with pytest.raises(MedtlError, match=f'holds {word}; expected one picture a file'):
    read(saved(one, kind, save_all=True, append_images=[two]))


def small() -> list[bytes]:
  picture = Image.fromarray(random('u1', 3))
  return [
    *(saved(picture, kind) for kind in ('PNG', 'JPEG', 'BMP', 'WEBP', 'TIFF')),
    saved(picture, 'TIFF', compression='tiff_lzw'),
    tiff(random('u2', 3), 2),
    tiff(random('u1', 1, 4), 1, bits=4),
    png(random('u2', 2), 16, 4),
  ]


@pytest.mark.filterwarnings('ignore::UserWarning')  # Pillow's, of tags that it skips
def test_a_file_that_is_cut_off_is_never_read():
  for data in small():
    for length in [*range(0, len(data), max(1, len(data) // 12)), len(data) - 8, len(data) - 4]:
      refused(data[:length], '')


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_a_damaged_file_is_read_or_refused_and_nothing_else():
  generator = np.random.default_rng(0)
  for data in small():
    for _ in range(40):
      damaged = bytearray(data)
      damaged[generator.integers(min(len(data), 400))] = generator.integers(256)
      with contextlib.suppress(OSError, MedtlError):
        read(bytes(damaged), 1, 'apply')


def test_a_picture_that_claims_to_be_enormous_is_refused(monkeypatch):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
  for data in small():
    refused(data, 'exceeds limit of 20 pixels')


def test_pictures_of_one_pixel():
  for kind in ('PNG', 'JPEG', 'BMP', 'WEBP', 'TIFF'):
    assert read(saved(Image.new('RGB', (1, 1), 'white'), kind)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
  'data, words',
  [
    (b'', r'it is empty \(0 bytes\)'),
    (bytes(1000), 'begins with zeros only'),
    (b'\x5c\x01' + bytes(342) + b'n+1\0' + bytes(100), 'NIfTI volume; export its pictures'),
    (b'\x1f\x8b\x08' + bytes(99), 'gzip.*NIfTI'),
    (b'\n<!DOCTYPE HTML><html>', r'web page \(HTML\)'),
    (b'<html lang="en">', 'web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid', 'Git LFS pointer.*git lfs pull'),
    (b'/annex/objects/MD5E-s1--a.png', 'git annex get'),
    (b'%PDF-1.7', 'PDF'),
    (b'{"error": "not found"}', "text that begins with '{"),
    (b'a,b\r\n1,2\r\n', "with 'a,b'; "),
    (b'GIF89a' + bytes(9), 'a GIF; store it as PNG'),
    (b'\0\0\0\x18ftypheic' + bytes(9), 'HEIC'),
    (b'\x89PNG\n\x1a\n' + bytes(9), 'transfer in text mode'),
    (b'\xff\xd8\xff\xf7', 'not those'),
    (b'\0\0\0\x0cjP  \r\n', 'JPEG 2000'),
    (b'\xfe\xdc\xba', 'not those of a PNG, JPEG, TIFF, BMP or WebP; store it as one of them'),
  ],
)
def test_other_files_with_a_pictures_suffix_say_what_they_are(tmp_path, data, words):
  path = tmp_path / 'x.png'
  path.write_bytes(data)
  with pytest.raises(OSError, match=rf'^cannot decode .*x\.png: .*{words}'):
    pictures.read(path, 1, 'stop')


def test_the_advice_about_dicom_files_and_archives_works(tmp_path):
  import pydicom.examples

  path = tmp_path / 'x.png'
  path.write_bytes(Path(pydicom.examples.get_path('ct')).read_bytes())
  words = 'DICOM file; read it with --config.data.name=dicom --config.data.values=display'
  with pytest.raises(OSError, match=re.escape(words)):
    pictures.read(path, 1, 'stop')
  assert dicom.load(str(tmp_path), values='display', label='').fetch(0).x.shape == (128, 128, 1)
  inside = png(random('u1', 1), 8, 0)
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('a/x.png', inside)
  with pytest.raises(OSError, match='zip archive; unpack it and read the pictures in it'):
    pictures.read(path, 1, 'stop')
  zipfile.ZipFile(path).extractall(tmp_path)
  assert pictures.read(tmp_path / 'a/x.png', 1, 'stop').shape == (HEIGHT, WIDTH, 1)


@pytest.mark.parametrize(
  'name, content, expected',
  [
    ('x.png', b'', True),
    ('x.JFIF', b'', True),
    ('x.jpe', b'', True),
    ('x.WebP', b'', True),
    ('x', 'PNG', True),
    ('x.001', 'JPEG', True),
    ('1.2.840.10008.5', 'TIFF', True),
    ('x', 'BMP', True),
    ('x', 'WEBP', True),
    ('x', 'GIF', False),
    ('x', b'', False),
    ('x', b'BMI,age\n22,61\n', False),
    ('x.gif', 'GIF', False),
    ('x.txt', 'PNG', False),
    ('x.bak', 'PNG', False),
    ('notes', b'no picture', False),
  ],
)
def test_a_picture_is_recognised_by_its_name_or_its_content(tmp_path, name, content, expected):
  data = content if isinstance(content, bytes) else saved(Image.new('L', (3, 2)), content)
  (tmp_path / name).write_bytes(data)
  assert pictures.recognised(tmp_path / name) == expected
  (tmp_path / 'folder' / name).mkdir(parents=True)
  assert not pictures.recognised(tmp_path / 'folder' / name)
  assert not pictures.recognised(tmp_path / 'nothing')


def test_the_content_decides_and_not_the_suffix(tmp_path):
  samples = random('u1', 1)
  (tmp_path / 'x.jpg').write_bytes(png(samples, 8, 0))
  equal(pictures.read(tmp_path / 'x.jpg', 3, 'stop')[..., 2], share(samples, 8))
