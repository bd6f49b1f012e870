"""Picture files that hold less than they say, or more, are refused; sound ones never are."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from medtl.data.formats import jpeg, pictures, png
from tests.data.test_pictures import chunk, read, refused, saved, tiff
from tests.data.test_pictures import png as png_of

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')  # Pillow's, of what it skips
equal = np.testing.assert_array_equal
SOF, DHT, DQT, SOS, APP1 = b'\xff\xc0', b'\xff\xc4', b'\xff\xdb', b'\xff\xda', b'\xff\xe1'
END = b'\xff\xd9'
WHOLE, SCAN = 'it is not whole', 'one of its scans is missing, or there twice'


def noise(height: int, width: int, *samples: int) -> np.ndarray:
  """Return a slope with noise [h, w, …], no row of which is like another."""
  generator = np.random.default_rng(0)
  slope = np.add.outer(np.arange(height), np.arange(width)).reshape(
    height, width, *samples and (1,)
  )
  return (
    slope * 100 // (height + width) + generator.integers(0, 99, (height, width, *samples))
  ).astype(np.uint8)


def compressed(values: np.ndarray, **options) -> bytes:
  return saved(Image.fromarray(values), 'JPEG', **options)


def plain(data: bytes) -> np.ndarray:
  """Return what Pillow makes of a file that is sound."""
  return np.asarray(Image.open(io.BytesIO(data)).convert('RGB'), np.float32) / np.float32(255)


GREY, COLOUR = noise(41, 58), noise(40, 56, 3)
JPEGS = {
  'grey': compressed(GREY),
  'colour': compressed(COLOUR, subsampling=2),
  'restarts': compressed(COLOUR, subsampling=0, restart_marker_rows=1),
  'progressive': compressed(GREY, progressive=True),
  'progressive colour': compressed(COLOUR, progressive=True),
}


def scans_of(data: bytes) -> list[tuple[int, int]]:
  """Return where each scan begins, with the tables before it, and ends."""
  ends = [scan.stop for scan in jpeg.read_scans(data)]
  starts = [data.index(SOS), *ends[:-1]]
  return list(zip(starts, ends, strict=True))


def resized(data: bytes, down: int, across: int) -> bytes:
  """Return a JPEG that says another size."""
  place = max(data.find(SOF), data.find(b'\xff\xc2')) + 5
  height, width = struct.unpack_from('>HH', data, place)
  size = struct.pack('>HH', height + down, width + across)
  return data[:place] + size + data[place + 4 :]


# JPEG


@pytest.mark.parametrize('name', JPEGS)
def test_a_jpeg_that_lacks_coded_data_is_refused(name):
  data = JPEGS[name]
  for scan in jpeg.read_scans(data):
    for share in (0, 0.2, 0.5, 0.9):
      place = scan.start + int(share * (scan.stop - scan.start - 9))
      place -= data[place - 1] == 0xFF
      refused(data[:place] + data[scan.stop :], f'{WHOLE}|restart markers|{SCAN}', 3)
    refused(data[: scan.stop - 20], 'cut', 3)
    refused(data[: scan.stop - 20] + bytes(len(data) - scan.stop), '', 3)


@pytest.mark.parametrize('name', JPEGS)
def test_a_jpeg_that_says_another_size_is_refused(name):
  data = JPEGS[name]
  equal(read(data, 3), plain(data))
  for down, across in ((-16, 0), (0, -16), (16, 0), (0, 16), (4000, 0), (16000, 10000)):
    refused(resized(data, down, across), f'{WHOLE}|size that is too small|restart markers', 3)


def test_a_jpeg_that_cannot_hold_its_size_costs_no_memory(monkeypatch):
  monkeypatch.setattr(pictures, '_opened', None)
  for data in JPEGS.values():
    refused(resized(data, 10000, 12000), f'{WHOLE}|restart markers', 3)


@pytest.mark.parametrize('name', ['progressive', 'progressive colour'])
def test_a_progressive_jpeg_without_one_of_its_scans_is_refused(name):
  data = JPEGS[name]
  for start, end in scans_of(data):
    refused(data[:start] + data[end:], f'{SCAN}|its last scans are missing', 3)
    refused(data[:end] + data[start:], SCAN, 3)


def test_a_jpeg_with_bytes_lost_from_its_tables_or_put_into_them_is_refused():
  for data in JPEGS.values():
    for marker in (DQT, DHT, SOS):
      place = data.index(marker) + 6
      for damaged in (data[:place] + data[place + 1 :], data[:place] + b'\1' + data[place:]):
        refused(damaged, f'its segments|{SCAN}', 3)
  grey = JPEGS['grey']
  frame = grey[grey.index(SOF) : grey.index(DHT)]
  refused(grey.replace(frame, b''), 'its segments')
  refused(grey.replace(frame, frame * 2), 'its segments')
  place = grey.index(DHT) + 1
  refused(grey[:place] + b'\xd4' + grey[place + 1 :], 'its segments')  # a restart marker
  for place in (grey.index(SOS), grey.index(SOF) + 6):
    refused(grey[:place], 'its segments')
    refused(grey[:place] + END, 'its segments|holds no picture')


def test_a_jpeg_whose_adobe_marker_tells_of_no_known_colours_is_refused():
  for values, known in ((COLOUR, (0, 1)), (np.dstack([COLOUR, GREY[:40, :56]]), (0, 2))):
    data = saved(Image.fromarray(values, 'CMYK' if values.shape[2] == 4 else 'RGB'), 'JPEG')
    for transform in range(5):
      content = b'Adobe\0\x64\0\0\0\0' + bytes([transform])
      marked = data[:2] + b'\xff\xee\0\x0e' + content + data[2:].replace(b'\xff\xee', b'\xff\xed')
      if transform in known:
        equal(read(marked, 3), plain(marked))
      else:
        refused(marked, 'its segments', 3)


def test_a_jpeg_with_other_restart_markers_than_it_says_is_refused():
  data = JPEGS['restarts']
  place = data.index(b'\xff\xdd') + 5
  refused(data[:place] + b'\6' + data[place + 1 :], '4 restart markers; expected 5', 3)
  refused(data.replace(b'\xff\xd2', b''), '3 restart markers; expected 4', 3)
  refused(data.replace(data[place - 5 : place + 1], b''), 'size that is too small', 3)


def test_a_sound_jpeg_is_read_whatever_its_size_and_its_encoder():
  generator = np.random.default_rng(0)
  options = itertools.product((False, True), (False, True), (0, 1, 2), (0, 1, 3), (10, 95))
  for number, (progressive, flat, subsampling, restarts, quality) in enumerate(options):
    height, width = generator.integers(1, 70, 2)
    values = noise(height, width, 3) // (99 if flat else 1)
    how = dict(restart_marker_blocks=restarts) if restarts else {}
    data = compressed(
      values if number % 3 else values[..., 0],
      progressive=progressive,
      subsampling=subsampling,
      quality=quality,
      **how,
    )
    equal(read(data, 3), plain(data))


def test_what_writers_add_to_a_sound_jpeg_is_passed_over():
  for data in JPEGS.values():
    known = plain(data)
    start, end = data[:2], data[2:]
    coded = jpeg.read_scans(data)[-1].stop
    note = b'\xff\xfe\0\5abc'
    for added in (
      start + b'\xff\xff' + end,
      start + note + b'junk' + end,
      start + note + end,
      data[:coded] + b'\xff\xff' + data[coded:],
      data[:coded] + bytes(99) + data[coded:],
      data[:coded] + b'\x5a' * 16 + data[coded:],
      data + b'behind',
      data + data,
    ):
      equal(read(added, 3), known)
    refused(data[:coded] + b'\x5a' * 64 + data[coded:], 'more than its picture', 3)


# EXIF


def with_exif(block: bytes) -> bytes:
  data = JPEGS['grey']
  content = b'Exif\0\0' + block
  return data[:2] + APP1 + struct.pack('>H', len(content) + 2) + content + data[2:]


def directory(kind: int = 3, count: int = 1, entries: int = 1, place: int = 8) -> bytes:
  """Return an EXIF block that says orientation 6, but for what is changed."""
  entry = struct.pack('<HHIHH', 0x0112, kind, count, 6, 0)
  return b'II*\0' + struct.pack('<IH', place, entries) + entry + bytes(4)


def test_exif_that_is_cut_or_points_outside_is_refused_and_works_when_removed():
  upright = read(JPEGS['grey'])
  for kind in (3, 4, 6, 8, 9):
    equal(read(with_exif(directory(kind)), exif='apply'), upright[::-1].T)
  for block in (
    directory(1),
    directory(2),
    directory(7),
    directory(count=0),
    directory(count=2),
    directory(place=4000),
    directory(place=22),
    directory()[:20],
    directory()[:6],
    b'AB' + directory()[2:],
    b'II+' + directory()[3:],
  ):
    for exif in ('stop', 'apply'):
      with pytest.raises(OSError, match=r'its EXIF block, .*damaged; remove or repair it'):
        read(with_exif(block), exif=exif)
  for block in (b'', directory(entries=0)):  # as Pillow writes without tags
    equal(read(with_exif(block)), upright)


# PNG

PASSES = [
  (0, 0, 8, 8),
  (0, 4, 8, 8),
  (4, 0, 8, 4),
  (0, 2, 4, 4),
  (2, 0, 4, 2),
  (0, 1, 2, 2),
  (1, 0, 2, 1),
]
KINDS = [(1, 0, 1), (4, 0, 1), (8, 0, 1), (16, 0, 1), (8, 4, 2), (8, 2, 3), (16, 2, 3), (8, 6, 4)]


def samples(depth: int, count: int, height: int = 9) -> np.ndarray:
  found = noise(height, 11, count).astype(np.uint16) * 257 >> 16 - depth
  found = found.astype(np.uint16 if depth == 16 else np.uint8)
  if count in (2, 4):
    found[..., -1] = 2**depth - 1  # opaque
  return found


def rewritten(data: bytes, rows: bytes | None = None, **said) -> bytes:
  """Return a PNG with other rows, or another height or width, and checksums that fit."""
  found = png.read_chunks(data)
  width, height = struct.unpack_from('>II', found['IHDR'])
  size = struct.pack('>II', said.get('width', width), said.get('height', height))
  stream = found['IDAT'] if rows is None else zlib.compress(rows)
  return (
    data[:8]
    + chunk(b'IHDR', size + found['IHDR'][8:])
    + chunk(b'IDAT', stream)
    + chunk(b'IEND', b'')
  )


@pytest.mark.parametrize('interlaced', [False, True])
@pytest.mark.parametrize('depth, colour, count', KINDS)
def test_a_png_of_less_rows_than_it_says_or_more_is_refused(depth, colour, count, interlaced):
  channels = 3 if count > 2 else 1
  data = png_of(samples(depth, count), depth, colour, interlaced=interlaced)
  rows = zlib.decompress(png.read_chunks(data)['IDAT'])
  read(rewritten(data), channels)
  row = len(rows) // 9
  for fewer in (rows[: row * 4], rows[:-1], rows[:row], b''):
    refused(rewritten(data, fewer), WHOLE, channels)
  for more in (rows * 2, rows + bytes(row), rows + bytes(1 << 16)):
    refused(rewritten(data, more), 'more than the', channels)
  for height in (1, 7, 8):
    refused(rewritten(data, height=height), 'more than the', channels)
  for height in (10, 99, 60000):
    refused(rewritten(data, height=height), WHOLE, channels)


def test_a_png_against_the_checksum_of_its_pixels_is_refused():
  for interlaced in (False, True):
    data = png_of(samples(8, 1), 8, 0, interlaced=interlaced)
    stream = png.read_chunks(data)['IDAT']
    for damaged in (stream[:-1] + bytes([stream[-1] ^ 1]), stream[:-4] + bytes(4)):
      refused(data.replace(chunk(b'IDAT', stream), chunk(b'IDAT', damaged)), 'damaged')


def test_a_png_that_cannot_hold_its_size_costs_no_memory(monkeypatch):
  monkeypatch.setattr(Image, 'new', None)
  data = png_of(samples(8, 1), 8, 0)
  refused(rewritten(data, height=9000, width=9000), 'cannot hold the 81009000 that')


def test_a_sound_png_is_read_also_where_its_rows_are_as_if_they_were_missing():
  for value in (0, png.UNLIKELY, 255):
    flat = np.full((9, 11, 1), value, np.uint8)
    equal(read(png_of(flat, 8, 0)), flat[..., 0] / np.float32(255))
  data = png_of(samples(8, 3), 8, 2)
  stream = png.read_chunks(data)['IDAT']
  whole = chunk(b'IDAT', stream)
  split = chunk(b'IDAT', b'') + b''.join(chunk(b'IDAT', bytes([byte])) for byte in stream)
  for other in (split, chunk(b'IDAT', stream + bytes(3)), chunk(b'IDAT', stream + bytes(30))):
    equal(read(data.replace(whole, other), 3), read(data, 3))


# TIFF


def tag_of(data: bytes, tag: int) -> int:
  """Return where the entry of a tag lies in a little-endian TIFF."""
  (place,) = struct.unpack_from('<I', data, 4)
  (count,) = struct.unpack_from('<H', data, place)
  entries = range(place + 2, place + 2 + 12 * count, 12)
  return next(entry for entry in entries if struct.unpack_from('<H', data, entry)[0] == tag)


def changed(data: bytes, tag: int, value: int | None = None, kind: int | None = None) -> bytes:
  """Return a TIFF with another value of a tag (SHORT or LONG, one number) or another type."""
  entry = tag_of(data, tag)
  found, count, number = struct.unpack_from('<HII', data, entry + 2)
  number = number if value is None else value
  packed = struct.pack('<HII', found if kind is None else kind, count, number)
  return data[: entry + 2] + packed + data[entry + 12 :]


def written(values: np.ndarray, **options) -> bytes:
  file = io.BytesIO()
  tifffile.imwrite(file, values, metadata=None, **dict(photometric='minisblack') | options)
  return file.getvalue()


def tiffs() -> dict[str, bytes]:
  pages = {
    'plain': written(GREY),
    'deep': written(GREY.astype(np.uint16)),
    'strips': written(GREY, rowsperstrip=10),
    'tiles': written(GREY, tile=(16, 16)),
    'Deflate': written(GREY, compression='zlib'),
    'Deflate strips': written(GREY, compression='zlib', rowsperstrip=10),
    'Deflate tiles': written(GREY, compression='zlib', tile=(16, 16)),
  }
  for name in ('tiff_lzw', 'packbits'):
    pages[name] = saved(Image.fromarray(GREY), 'TIFF', compression=name)
    pages[f'{name} strips'] = saved(Image.fromarray(GREY), 'TIFF', compression=name, strip_size=580)
    pages[f'{name} RGB'] = saved(Image.fromarray(COLOUR), 'TIFF', compression=name)
  return pages


@pytest.mark.parametrize('name', tiffs())
def test_a_tiff_whose_strips_or_tiles_do_not_fit_its_size_is_refused(name):
  data = tiffs()[name]
  channels = 3 if 'RGB' in name else 1
  known = COLOUR if 'RGB' in name else GREY
  equal(read(data, channels), known / np.float32(65535 if name == 'deep' else 255))
  words = 'hold more or less than|strips or tiles are there|damaged, cut off or not read'
  height, width = known.shape[:2]
  more = 16 if 'tiles' in name else 1  # less needs the same tiles
  for tag, value in (
    (256, width - more),
    (256, width + more),
    (257, height - more),
    (257, height + more),
    (257, 51928),
  ):
    refused(changed(data, tag, value), words, channels)
  if 'RGB' not in name:
    refused(changed(data, 258, 8 if name == 'deep' else 16), words)
    refused(changed(data, 258, kind=2), 'tag 258 .BitsPerSample. holds no whole numbers')
    refused(changed(data, 258, 1), words)
  if name not in ('plain', 'deep', 'strips', 'tiles'):
    refused(changed(data, 259, 1), words, channels)  # compressed bytes are no pixels


def test_a_tiff_against_the_checksum_of_its_pixels_is_refused():
  data = bytearray(tiffs()['Deflate'])
  place = struct.unpack_from('<I', data, tag_of(data, 273) + 8)[0]
  data[place + 900] ^= 4
  refused(bytes(data), 'hold more or less than')


def test_a_tiff_whose_tags_are_damaged_is_refused():
  data = tiffs()['plain']
  refused(changed(data, 273, len(data)), 'lies outside of the file')
  refused(changed(data, 273, 4), 'one lies where its tags do')
  refused(changed(data, 279, 7), 'hold more or less than')
  refused(changed(data, 256, kind=2), 'tag 256 .ImageWidth. holds no whole numbers')
  refused(changed(data, 262, kind=99), 'tag 262 is of an unknown type, 99')
  missing = struct.pack('<H', 65000)
  entry = tag_of(data, 279)
  refused(data[:entry] + missing + data[entry + 2 :], '1 strips or tiles, but 0 lengths of them')
  refused(data[:4] + b'\xff\xff\xff\xf0' + data[8:], 'what its parts say does not fit together')
  strips = bytearray(tiffs()['strips'])
  place = struct.unpack_from('<I', strips, tag_of(strips, 273) + 8)[0]
  strips[place] += 5
  refused(bytes(strips), 'two of its strips or tiles overlap')
  turned = tiff(GREY[..., None], 1, t274=6)
  equal(read(turned, exif='apply'), GREY[::-1].T / np.float32(255))
  refused(changed(turned, 274, kind=2), 'tag 274 .Orientation. holds no whole numbers')


@pytest.mark.parametrize('compression', ['tiff_lzw', 'packbits', 'tiff_adobe_deflate'])
def test_a_sound_tiff_is_read_whatever_its_strips_hold(compression):
  generator = np.random.default_rng(0)
  for number in range(12):
    height, width = generator.integers(1, 60, 2)
    values = noise(height, width) // (1, 99)[number % 2]
    rows = int(generator.integers(1, height + 1))
    data = saved(Image.fromarray(values), 'TIFF', compression=compression, tiffinfo={278: rows})
    equal(read(data), values / np.float32(255))
  long = np.zeros((2, 50000), np.uint8)  # a row longer than LZW's codes lasted
  long[1, ::7] = 165
  equal(read(saved(Image.fromarray(long), 'TIFF', compression=compression)), long / np.float32(255))
