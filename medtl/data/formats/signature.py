"""What the first bytes of a file say that it is, and what to do about a file that is no picture."""

from pathlib import Path

HEAD = 512  # bytes that tell every kind of file named here
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes of the header at a BMP's byte 14
UNPACK = 'unpack it and read the pictures in it'
EXPORT = 'export its pictures as PNG, TIFF or JPEG'
FOREIGN = (  # (offset, bytes there, what the file is, what to do)
  (
    128,
    b'DICM',
    'a DICOM file',
    'read it with --config.data.name=dicom --config.data.values=display (or modality)',
  ),
  (344, b'n+1\0', 'a NIfTI volume', EXPORT),
  (344, b'ni1\0', 'the header of a NIfTI volume', EXPORT),
  (4, b'n+2\0', 'a NIfTI volume', EXPORT),
  (0, b'\x1f\x8b', 'a gzip file, as NIfTI volumes (.nii.gz) are', 'unpack it or ' + EXPORT),
  (0, b'NRRD', 'a NRRD volume', EXPORT),
  (0, b'\x89HDF', 'an HDF5 or MATLAB file', EXPORT),
  (0, b'MATLAB', 'a MATLAB file', EXPORT),
  (0, b'\x93NUMPY', 'a NumPy array', EXPORT),
  (0, b'PK\x03\x04', 'a zip archive', UNPACK),
  (0, b'PK\x05\x06', 'an empty zip archive', 'download or copy it again'),
  (0, b'7z\xbc\xaf\x27\x1c', 'a 7z archive', UNPACK),
  (0, b'Rar!', 'a RAR archive', UNPACK),
  (0, b'BZh', 'a bzip2 file', UNPACK),
  (0, b'\xfd7zXZ', 'an xz file', UNPACK),
  (257, b'ustar', 'a tar archive', UNPACK),
  (0, b'GIF8', 'a GIF', 'store it as PNG'),
  (0, b'%PDF', 'a PDF document', EXPORT),
  (0, b'8BPS', 'a Photoshop file', 'store it as PNG or TIFF'),
  (0, b'\0\0\0\x0cjP  ', 'a JPEG 2000 picture', 'store it as PNG or TIFF'),
  (0, b'\xff\x4f\xff\x51', 'a JPEG 2000 picture', 'store it as PNG or TIFF'),
  (4, b'ftyp', 'a HEIC, AVIF or video file', 'store its picture as PNG or JPEG'),
  (0, b'\0\x05\x16\x07', "a Mac's resource file (AppleDouble), which is no picture", 'remove it'),
  (0, b'version https://git-lfs', 'a Git LFS pointer, not the picture itself', 'run: git lfs pull'),
  (0, b'/annex/objects/', 'a git-annex pointer, not the picture itself', 'run: git annex get .'),
  (
    0,
    b'\x89PNG',
    'a PNG whose first bytes were changed, as a transfer in text mode does',
    'copy it again in binary mode',
  ),
)
PAGES = (b'<!doctype html', b'<html', b'<head', b'<body')


def head(path: Path) -> bytes:
  """Return the first bytes of a file, enough to tell its kind; OSError if it cannot be opened."""
  with open(path, 'rb') as file:
    return file.read(HEAD)


def is_dicom(head: bytes) -> bool:
  """Return whether `head` begins a DICOM file: DICM at byte 128 (PS3.10, section 7.1)."""
  return head[128:132] == b'DICM'


def picture_format(head: bytes) -> str:
  """Return Pillow's name of the picture format that `head` begins, '' for one not read here.

  >>> picture_format(b'II*\\0'), picture_format(b'GIF89a')
  ('TIFF', '')
  """
  if head.startswith(b'\x89PNG\r\n\x1a\n'):
    return 'PNG'
  if head.startswith(b'\xff\xd8\xff') and head[3:4] != b'\xf7':  # FFF7 begins JPEG-LS
    return 'JPEG'
  if head.startswith((b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')):  # + is BigTIFF
    return '' if is_dicom(head) else 'TIFF'  # a DICOM file may begin as a TIFF
  if head.startswith(b'RIFF') and head[8:12] == b'WEBP':
    return 'WEBP'
  if head.startswith(b'BM') and int.from_bytes(head[14:18], 'little') in BMP_HEADERS:
    return 'BMP'
  return ''


def is_lossy(head: bytes) -> bool:
  """Return whether `head` begins a picture whose numbers are not exactly what was stored.

  >>> is_lossy(b'\\xff\\xd8\\xff\\xe0'), is_lossy(b'BM')
  (True, False)
  """
  kind = picture_format(head)
  return kind == 'JPEG' or (kind == 'WEBP' and b'VP8 ' in head)  # VP8L is exact


def what_it_is(head: bytes) -> str:
  """Return a sentence on a file that is no picture: what it is, and what to do about it."""
  if not head:
    return 'it is empty (0 bytes); copy or download it again'
  if not any(head):
    return 'it begins with zeros only, as a copy that broke off does; copy or download it again'
  for offset, mark, words, advice in FOREIGN:
    if head[offset : offset + len(mark)] == mark:
      return f'it is {words}; {advice}'
  text = head.removeprefix(b'\xef\xbb\xbf').lstrip()
  if text.lower().startswith(PAGES):
    return (
      'it is a web page (HTML), as a download that failed leaves behind; download the picture again'
    )
  line = text.partition(b'\n')[0].strip()[:32].decode('ascii', 'replace')
  if line.isascii() and line.isprintable():
    return f'it is a text that begins with {line!r}; expected a picture'
  return 'its first bytes are not those of a PNG, JPEG, TIFF, BMP or WebP; store it as one of them'
