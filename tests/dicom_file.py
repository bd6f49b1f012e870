"""Writes small DICOM files, also such as pydicom would not write."""

import struct

import numpy as np
import pydicom
from pydicom import uid
from pydicom.datadict import dictionary_VR, tag_for_keyword

from medtl.data.sources import dicom

STORED = np.arange(16, dtype='<u2').reshape(4, 4) * 273  # 0 … 4095
WINDOW = dict(WindowCenter='2048', WindowWidth='1000')


def written(path, pixels=STORED, syntax=uid.ExplicitVRLittleEndian, **elements):
  """Write a picture, numbers of 16 bits as of 12, with some elements changed; return its path.

  None leaves an element out, and bytes stand in the file as they are, be they legal or not.
  """
  found = _dataset(pixels, syntax)
  raw = b''
  for keyword, value in elements.items():
    found.pop(tag_for_keyword(keyword), None)
    if isinstance(value, bytes) and 'PixelData' not in keyword:
      raw += encoded(keyword, value, syntax)
    elif value is not None:
      setattr(found, keyword, value)
  path.parent.mkdir(parents=True, exist_ok=True)
  found.save_as(path, enforce_file_format=True)
  return spliced(path, raw)


def _dataset(pixels, syntax):
  found = pydicom.Dataset()
  found.file_meta = pydicom.dataset.FileMetaDataset()
  found.file_meta.TransferSyntaxUID = syntax
  found.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
  found.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
  found.SOPInstanceUID = '1.2.3'
  found.Rows, found.Columns = pixels.shape[:2]
  found.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
  found.PhotometricInterpretation = 'MONOCHROME2' if pixels.ndim == 2 else 'RGB'
  if pixels.ndim == 3:
    found.PlanarConfiguration = 0
  found.BitsAllocated = 8 * pixels.itemsize
  found.BitsStored = 12 if pixels.itemsize == 2 else found.BitsAllocated
  found.HighBit = found.BitsStored - 1
  found.PixelRepresentation = int(pixels.dtype.kind == 'i')
  order = '<' if syntax.is_little_endian else '>'
  found.add_new('PixelData', 'OW', pixels.astype(pixels.dtype.newbyteorder(order)).tobytes())
  return found


def encoded(keyword, value, syntax):
  """Return an element as it lies in a file (PS3.5 7.1), whatever it holds."""
  tag, order = tag_for_keyword(keyword), '<' if syntax.is_little_endian else '>'
  value += b' ' * (len(value) % 2)
  kind = dictionary_VR(tag)[:2].encode()
  head = struct.pack(order + 'HH', tag >> 16, tag & 0xFFFF)
  if syntax.is_implicit_VR:
    return head + struct.pack(order + 'I', len(value)) + value
  if kind in (b'SQ', b'OW'):
    return head + kind + b'\0\0' + struct.pack(order + 'I', len(value)) + value
  return head + kind + struct.pack(order + 'H', len(value)) + value


def spliced(path, raw):
  """Put elements right behind a file's meta header: pydicom does not ask for an order."""
  whole = path.read_bytes()
  path.write_bytes(whole[: start_of(whole)] + raw + whole[start_of(whole) :])
  return path


def start_of(whole):
  """Return where the meta header of a file ends."""
  return 132 + 12 + struct.unpack_from('<I', whole, 140)[0]


def seen(path, values='display', channels=1):
  """Return the picture that `dicom` reads, without the axis of one channel."""
  return dicom.read(path, values, channels)[0].squeeze()
