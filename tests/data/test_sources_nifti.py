"""NIfTI volumes keep their place: from the file through operations and back onto its grid."""

import gzip

import nibabel
import numpy as np
import pytest

from medtl.core import expressions
from medtl.core.types import MedtlError
from medtl.data import transforms
from medtl.data.formats import nifti as files
from medtl.data.sources import nifti
from medtl.run import masks

# Oblique: the first axis runs to the left, the second up, the third to the front.
AFFINE = np.array([[-0.8, 0.1, 0, 30], [0.05, 0, 3.0, -20], [0.1, 1.2, 0.2, 5], [0, 0, 0, 1.0]])
SHAPE = (6, 7, 5)
CLASSES = ('background', 'anterior', 'posterior')


def store(path, values, affine=AFFINE, **codes):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = nibabel.Nifti1Image(values, affine)
  image.header.set_xyzt_units('mm')
  for name, code in codes.items():
    image.header[name] = code
  nibabel.save(image, path)


@pytest.fixture
def root(tmp_path):
  """Two volumes with masks, one of them not compressed."""
  random = np.random.RandomState(0)
  for name in ('p1_a.nii.gz', 'p2_b.nii'):
    values = random.randint(0, 900, SHAPE).astype(np.int16)
    store(tmp_path / 'images' / name, values, sform_code=1)
    store(tmp_path / 'labels' / name, random.randint(0, 3, SHAPE).astype(np.uint8))
  return tmp_path


def load(root, **keys):
  return nifti.load(
    str(root), **{'images': 'images', 'masks': 'labels', 'classes': CLASSES, **keys}
  )


def test_volumes_and_masks_lie_where_their_files_say(root):
  data = load(root, pattern=r'(p\d)_')
  assert data.size == 2 and data.masks and data.classes == CLASSES
  assert data.table['file'].tolist() == ['images/p1_a.nii.gz', 'images/p2_b.nii']
  assert data.table['patient'].tolist() == ['p1', 'p2']
  case = data.fetch(1)
  stored = nibabel.load(root / 'images' / 'p2_b.nii')
  np.testing.assert_array_equal(case.x[..., 0], stored.get_fdata())
  np.testing.assert_array_equal(case.y, nibabel.load(root / 'labels' / 'p2_b.nii').get_fdata())
  assert case.x.shape == (*SHAPE, 1) and case.x.dtype == np.float32 and case.y.dtype == np.uint8
  assert case.frame.millimetres
  np.testing.assert_allclose(case.frame.affine, AFFINE, atol=1e-5)


def test_a_mask_comes_back_to_the_files_grid_and_codes(root, tmp_path):
  case = load(root).fetch(0)
  file_frame = case.frame
  for operation in expressions.functions("orient('RAS')", transforms, given=('example',)):
    case = operation(case)
  assert case.y.shape != SHAPE
  back = masks.on_file_grid(case.y, case._replace(file_frame=file_frame))
  like = root / 'images' / 'p1_a.nii.gz'
  files.write_mask(tmp_path / 'aside', back, like, 'm.nii.gz')
  (tmp_path / 'aside').rename(tmp_path / 'm.nii.gz')
  written, image = nibabel.load(tmp_path / 'm.nii.gz'), nibabel.load(like)
  assert written.shape == image.shape and np.allclose(written.affine, image.affine)
  for code in ('sform_code', 'qform_code'):
    assert written.header[code] == image.header[code]
  np.testing.assert_array_equal(
    written.get_fdata(), nibabel.load(root / 'labels' / 'p1_a.nii.gz').get_fdata()
  )


def test_numbers_are_scaled_as_the_header_says(tmp_path):
  stored = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
  path = tmp_path / 'x.nii'
  store(path, stored)
  raw = bytearray(path.read_bytes())
  raw[112:120] = np.array([0.5, -3.0], '<f4').tobytes()  # scl_slope and scl_inter
  path.write_bytes(raw)
  np.testing.assert_allclose(files.read(path)[0][..., 0], stored * 0.5 - 3)


def test_a_file_without_sform_and_qform_has_no_millimetres(root):
  path = root / 'images' / 'p1_a.nii.gz'
  image = nibabel.load(path)
  image.header['sform_code'] = 0
  image.header['qform_code'] = 0
  nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
  data = nifti.load(str(root / 'images'))
  assert any('1 of 2 volumes have neither sform nor qform' in note for note in data.facts['notes'])
  assert not data.fetch(0).frame.millimetres and data.fetch(1).frame.millimetres
  with pytest.raises(MedtlError, match='whose file says how it lies'):
    transforms.orient(data.fetch(0))


def test_metres_become_millimetres(tmp_path):
  store(tmp_path / 'x.nii', np.zeros(SHAPE, np.uint8), np.diag([0.001, 0.002, 0.003, 1]))
  image = nibabel.load(tmp_path / 'x.nii')
  image.header.set_xyzt_units('meter')
  nibabel.save(image, tmp_path / 'y.nii')
  spacing = nifti.load(str(tmp_path / 'y.nii')).fetch(0).spacing
  np.testing.assert_allclose(spacing, (1, 2, 3), rtol=1e-5)


def test_a_qform_that_places_a_volume_elsewhere_is_said_and_the_sform_holds(root):
  for quaternion in (0.3, 9.0):  # another place, and no rotation at all
    path = root / 'images' / 'p2_b.nii'
    raw = bytearray(path.read_bytes())
    raw[252:254] = np.array(1, '<i2').tobytes()  # qform_code
    raw[256:260] = np.array(quaternion, '<f4').tobytes()  # quatern_b
    path.write_bytes(raw)
    data = load(root)
    assert any('1 of 2 volumes have a sform and a qform' in note for note in data.facts['notes'])
    np.testing.assert_allclose(data.fetch(1).frame.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize('damage', ['header', 'cut', 'text', 'affine'])
def test_a_damaged_file_is_an_oserror_of_fetch(root, damage):
  path = root / 'images' / 'p1_a.nii.gz'
  plain = bytearray(gzip.decompress(path.read_bytes()))
  if damage == 'header':
    plain[40:56] = b'\xff' * 16  # dim
  elif damage == 'affine':
    plain[280:284] = np.array(np.nan, '<f4').tobytes()  # srow_x
  packed = gzip.compress(bytes(plain))
  path.write_bytes({'cut': packed[: len(packed) // 2], 'text': b'no volume'}.get(damage, packed))
  data = load(root)
  with pytest.raises(OSError, match='p1_a'):
    data.fetch(0)
  assert data.fetch(1).x.shape == (*SHAPE, 1)


def flipped(packed, bit):
  damaged = bytearray(packed)
  damaged[bit // 8] ^= 1 << bit % 8
  return bytes(damaged)


@pytest.mark.parametrize('folder', ['images', 'labels'])
def test_a_gzip_file_whose_checksum_does_not_hold_is_an_oserror(root, folder):
  """Values that a flipped bit changed are never learned; the checksum stands behind the voxels."""
  path = root / folder / 'p1_a.nii.gz'
  whole = path.read_bytes()
  data = load(root)
  packed_voxels = range(8 * (len(whole) // 2), 8 * (len(whole) - 8), 97)
  damaged = [flipped(whole, bit) for bit in packed_voxels]
  damaged += [whole[:-8], whole[:-1], flipped(whole, 8 * (len(whole) - 1))]
  assert len(damaged) > 8
  for packed in damaged:
    path.write_bytes(packed)
    with pytest.raises(OSError, match=r'p1_a.*damaged or cut off.*copy or download it again'):
      data.fetch(0)
  path.write_bytes(whole)
  assert data.fetch(0).x.shape == (*SHAPE, 1)


def test_a_gzip_file_of_several_members_is_read_whole(root):
  path = root / 'images' / 'p1_a.nii.gz'
  expected = load(root).fetch(0).x
  plain = gzip.decompress(path.read_bytes())
  path.write_bytes(gzip.compress(plain[:400]) + gzip.compress(plain[400:]))
  np.testing.assert_array_equal(load(root).fetch(0).x, expected)


def test_a_mask_on_another_grid_is_refused_with_both_grids(root):
  path = root / 'labels' / 'p2_b.nii'
  mask = np.asarray(nibabel.load(path).dataobj)
  near = AFFINE.copy()
  near[0, 3] += 5e-4
  store(path, mask, near)
  load(root)
  far = AFFINE.copy()
  far[0, 3] += 0.01
  store(path, mask, far)
  with pytest.raises(MedtlError, match=r'p2_b.nii lies on another grid.*30.01.*0.01 mm apart'):
    load(root)
  store(path, mask[1:])
  with pytest.raises(MedtlError, match=r'shape \(5, 7, 5\).*where the volume has \(6, 7, 5\)'):
    load(root)


def test_values_that_are_no_class_are_named(root):
  path = root / 'labels' / 'p2_b.nii'
  mask = np.asarray(nibabel.load(path).dataobj).copy()
  mask[0, 0, :2] = 7
  store(path, mask)
  with pytest.raises(MedtlError, match='holds 7 in 2 voxels'):
    load(root).fetch(1)


def test_mistakes_of_the_set_up_are_said(root):
  with pytest.raises(MedtlError, match='the classes of masks'):
    load(root, classes=())
  with pytest.raises(MedtlError, match='2 of 2 volumes have no mask'):
    load(root, suffix='_seg')
  with pytest.raises(MedtlError, match='are both'):
    load(root, masks='images')
  with pytest.raises(MedtlError, match='no folder'):
    load(root, images='imagesTr')
  (root / 'labels' / 'p2_b.nii').unlink()
  with pytest.raises(MedtlError, match=r'1 of 2 volumes have no mask.*images/p2_b.nii'):
    load(root)


def test_masks_may_lie_beside_their_volumes(tmp_path):
  store(tmp_path / 'x.nii.gz', np.zeros(SHAPE, np.int16))
  store(tmp_path / 'x_seg.nii.gz', np.ones(SHAPE, np.uint8))
  data = nifti.load(str(tmp_path), masks='.', suffix='_seg', classes=CLASSES)
  assert data.table['file'].tolist() == ['x.nii.gz'] and data.fetch(0).y.all()


def test_a_fourth_axis_is_channels_only_where_the_config_says_so(tmp_path):
  values = np.arange(np.prod(SHAPE) * 2, dtype=np.int16).reshape(*SHAPE, 2)
  store(tmp_path / 'x.nii.gz', values)
  with pytest.raises(MedtlError, match=r'holds 2 volumes.*data.channels=2; a time series'):
    nifti.load(str(tmp_path))
  case = nifti.load(str(tmp_path), channels=2).fetch(0)
  np.testing.assert_array_equal(case.x, values)
  store(tmp_path / 'x.nii.gz', values[..., 0, 0])
  with pytest.raises(MedtlError, match='expected a volume of three axes'):
    nifti.load(str(tmp_path))


def test_another_mask_or_volume_is_another_fingerprint(root):
  before = load(root).fingerprint
  assert before and before == load(root).fingerprint
  path = root / 'labels' / 'p2_b.nii'
  store(path, 1 - (np.asarray(nibabel.load(path).dataobj) > 0).astype(np.uint8))
  assert load(root).fingerprint != before
