"""What a config says of its data fits files as its docstring describes them."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from medtl import data
from medtl.run import run_folder
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
  monkeypatch.chdir(ROOT)


def keys_of(config, root, **others):
  """Return config.data with the folder `root`, as a user gives it."""
  return {**run_folder.load_config(config).data.to_dict(), 'root': str(root), **others}


def test_foot_ulcers_are_photographs_with_a_mask_each(tmp_path):
  random = np.random.RandomState(0)
  for folder in ('images', 'masks'):
    (tmp_path / folder).mkdir()
  lines = ['image,mask,split']
  for number in range(10):
    name = f'{number:04d}'
    photograph = random.randint(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(photograph).save(tmp_path / 'images' / f'{name}.jpg')
    ulcer = np.zeros((40, 40), np.uint8)
    ulcer[8 : 8 + 2 * number, 8:24] = 1  # the first photograph shows none
    Image.fromarray(ulcer * 255).convert('1').save(tmp_path / 'masks' / f'{name}.png')
    lines.append(f'images/{name}.jpg,masks/{name}.png,{"validation" if number > 6 else "train"}')
  (tmp_path / 'labels.csv').write_text('\n'.join(lines) + '\n')
  sides = data.load(**keys_of('configs/foot_ulcer_unet.py', tmp_path))
  assert {name: side.size for name, side in sides.items()} == {'train': 6, 'val': 2, 'test': 2}
  areas = {}
  for side in sides.values():
    for row in range(side.size):
      example = side.fetch(row)
      assert example.x.shape == (128, 128, 3) and example.y.shape == (128, 128)
      areas[side.table['file'][row]] = example.y.mean()
  expected = {f'images/{n:04d}.jpg': 2 * n * 16 / 40**2 for n in range(10)}
  for name, share in expected.items():
    assert areas[name] == pytest.approx(share, abs=0.02)


def test_cords_come_on_one_grid_however_their_slices_lie(tmp_path):
  spacings = {'a': (1.0, 1.0, 1.0), 'b': (0.5, 0.5, 7.5), 'c': (0.84, 0.84, 17.0), 'd': (1, 1, 4)}
  axes = {'a': 'RAS', 'b': 'LAS', 'c': 'LPS', 'd': 'PSR'}
  for folder in ('images', 'labels'):
    (tmp_path / folder).mkdir()
  for name, spacing in spacings.items():
    shape = tuple(round(34 / length) for length in spacing)
    volume = np.random.RandomState(0).rand(*shape).astype(np.float32)
    frame = nibabel.Nifti1Image(volume, np.diag([*spacing, 1.0]))
    cord = nibabel.Nifti1Image((volume > 0.5).astype(np.uint8), frame.affine)
    turn = nibabel.orientations.axcodes2ornt(axes[name])
    for folder, image in (('images', frame), ('labels', cord)):
      turned = image.as_reoriented(turn)
      turned.header.set_xyzt_units('mm')
      nibabel.save(turned, tmp_path / folder / f'{name}.nii.gz')
  keys = keys_of('configs/spine_unet3d.py', tmp_path, split={'by': 'none'})
  cases = data.load(**keys)['test']
  for row in range(cases.size):
    case = cases.fetch(row)
    assert case.frame.spacing == pytest.approx((1, 1, 2), rel=0.05)
    assert (np.diag(case.frame.affine)[:3] > 0).all()  # RAS
    assert case.y.shape == case.x.shape[:-1] and 0.2 < case.y.mean() < 0.8
