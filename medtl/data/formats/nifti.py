"""NIfTI-1 and -2 files → arrays and their place, and masks back into files on the same grid.

nibabel reads them (Brett et al., https://nipy.org/nibabel). A header is read without its voxels.
"""

import gzip
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medtl.core.frames import Frame
from medtl.core.types import MedtlError

SUFFIXES = ('.nii.gz', '.nii')
MILLIMETRES = {'meter': 1000.0, 'mm': 1.0, 'micron': 0.001}  # of xyzt_units; others are taken as mm
GZIP_LEVEL = 6


class Header(NamedTuple):
  """What a file says of its voxels, without them."""

  frame: Frame
  channels: int
  unit: str  # 'mm' | 'meter' | 'micron' | 'unknown'
  forms_differ: bool  # both sform and qform are set, and they place the volume differently


def belongs(path: Path) -> bool:
  """Return whether a file is called a NIfTI file: .nii or .nii.gz."""
  return path.name.lower().endswith(SUFFIXES)


def stem(name: str) -> str:
  """Return a name without .nii or .nii.gz.

  >>> stem('a/x.nii.gz'), stem('x.1.nii')
  ('a/x', 'x.1')
  """
  for suffix in SUFFIXES:
    if name.lower().endswith(suffix):
      return name[: -len(suffix)]
  return name


def opened(path: Path) -> Any:
  """Return nibabel's image of a file: its header is read, its voxels are not.

  Raises OSError where the file is no NIfTI file, or its header is damaged.
  """
  import nibabel

  try:
    image = nibabel.load(path)
  except (FileNotFoundError, PermissionError):
    raise
  except Exception as error:  # nibabel, zlib and gzip raise many types
    raise OSError(f'cannot read the header of {path}: {_reason(error)}') from error
  if not isinstance(image, nibabel.Nifti1Image):  # of which Nifti2Image is one
    raise OSError(f'{path} is no NIfTI file; found {type(image).__name__}')
  return image


def read_header(path: Path) -> Header:
  """Return what a file's header says; its voxels are not read.

  The place is that of the sform, else of the qform (NIfTI-1, methods 3 and 2): nibabel's choice.
  Where neither is set nothing is known but indices, and the frame is not in millimetres.

  Raises OSError for a damaged header, and for an affine that is not finite or flattens the volume,
  and MedtlError for a file that is no volume.
  """
  return _described(opened(path), path)


def read(path: Path) -> tuple[np.ndarray, Frame]:
  """Return (x [*s, c] float32, its frame); scl_slope and scl_inter are applied, NIfTI-1's rule.

  Raises as `read_header` does, and OSError where voxels cannot be read or a gzip file's checksum
  does not hold.
  """
  image = _checked(path)
  header = _described(image, path)
  values = _voxels(image, path)
  x = values.reshape(*header.frame.shape, header.channels)
  return np.asarray(x, np.float32), header.frame


def read_mask(path: Path, classes: int) -> np.ndarray:
  """Return a mask [*s] of numbers of classes, 0 … classes − 1.

  Raises MedtlError for other values, and OSError where the file cannot be read.
  """
  image = _checked(path)
  header = _described(image, path)
  if header.channels > 1:
    raise MedtlError(f'the mask {path} holds {header.channels} volumes; expected one')
  values = _voxels(image, path).reshape(header.frame.shape)
  numbers = np.round(values)
  outside = (np.abs(values - numbers) > 1e-3) | (numbers < 0) | (numbers >= classes)
  outside |= ~np.isfinite(values)
  if outside.any():
    strange = np.unique(values[outside])
    shown = ', '.join(f'{value:g}' for value in strange[:6])
    raise MedtlError(
      f'the mask {path} holds {shown} in {int(outside.sum())} voxels; expected the numbers of '
      f'classes, 0 … {classes - 1}: name every class in data.classes, the background first'
    )
  return numbers.astype(np.uint8 if classes <= 256 else np.int32)


def write_mask(aside: Path, mask: np.ndarray, like: Path, name: str) -> None:
  """Write a mask [*s] of whole numbers to the file `aside` with shape, affine and codes of `like`.

  It is compressed where `name`, what the file will be called, ends in .gz.
  """
  image = opened(like)
  header = image.header.copy()
  header.set_data_dtype(mask.dtype)
  header.set_slope_inter(1.0, 0.0)
  header['cal_min'] = 0
  header['cal_max'] = 0
  header['descrip'] = b'predicted mask'
  data = type(image)(mask, image.affine, header).to_bytes()
  if name.lower().endswith('.gz'):
    data = gzip.compress(data, GZIP_LEVEL, mtime=0)
  aside.write_bytes(data)


def _described(image: Any, path: Path) -> Header:
  shape = tuple(int(length) for length in image.shape)
  spatial = shape[:3]
  rest = [length for length in shape[3:] if length > 1]
  if len(spatial) < 3 or len(rest) > 1 or min(shape) < 1:
    raise MedtlError(
      f'{path} has the shape {shape}; expected a volume of three axes, or four with channels last'
    )
  unit = image.header.get_xyzt_units()[0]
  scale = np.diag([*[MILLIMETRES.get(unit, 1.0)] * 3, 1.0])
  affine = scale @ np.asarray(image.affine, float)
  if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
    raise OSError(
      f'the affine of {path} places no volume: {affine[:3].round(4).tolist()}; expected finite '
      'numbers, and three axes that span space. Mend its sform or qform'
    )
  codes = (int(image.header['sform_code']), int(image.header['qform_code']))
  differ = all(codes) and _forms_differ(image, spatial)
  frame = Frame(spatial, affine, any(codes))
  return Header(frame, rest[0] if rest else 1, unit, differ)


def _forms_differ(image: Any, shape: tuple[int, ...]) -> bool:
  """Return whether sform and qform place a corner more than 0.1 mm apart, or the qform is none."""
  try:
    qform = image.get_qform()
  except ValueError:  # a quaternion that is no rotation
    return True
  return farthest(image.get_sform(), qform, shape) > 0.1


def farthest(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
  """Return how far apart, in mm, two affines place the same corner of a volume at most."""
  ends = np.array(shape) - 1
  corners = np.array([(*(ends * np.array(corner)), 1) for corner in np.ndindex(2, 2, 2)])
  apart = corners @ (np.asarray(affine) - np.asarray(other)).T
  return float(np.linalg.norm(apart[:, :3], axis=1).max())


def _voxels(image: Any, path: Path) -> np.ndarray:
  """Return the numbers of a file, scaled as its header says."""
  kind = image.get_data_dtype()
  if kind.kind not in 'iuf':
    raise OSError(f'{path} holds {kind}, such as colours or complex numbers; expected one number')
  try:
    return np.asanyarray(image.dataobj)
  except Exception as error:  # nibabel, zlib and gzip raise many types
    raise OSError(f'cannot read the voxels of {path}: {_reason(error)}') from error


def _checked(path: Path) -> Any:
  """Return nibabel's image of a file; of a gzip file the checksum, which nibabel skips, holds.

  It stands behind the voxels, so that the file is read to its end.
  """
  if not path.name.lower().endswith('.gz'):
    return opened(path)
  packed = path.read_bytes()
  try:
    data = gzip.decompress(packed)
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise OSError(
      f'cannot read {path}: the gzip file is damaged or cut off ({_reason(error)}); copy or '
      'download it again'
    ) from error
  return type(opened(path)).from_bytes(data)


def _reason(error: Exception) -> str:
  return ' '.join(str(error).split()) or type(error).__name__
