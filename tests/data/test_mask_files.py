"""Masks find their pictures, and become what is learned."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl import data
from medtl.core.types import MedtlError
from medtl.data.sources import folder
from medtl.run import other_data

SPLIT = dict(by='image', folds=2, val=0)


def draw(path: Path, values: np.ndarray) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(values, np.uint8)).save(path)


def square(begin: int, value: int = 255) -> np.ndarray:
  """A mask [8, 10] of 3 × 3 pixels."""
  mask = np.zeros((8, 10), np.uint8)
  mask[begin : begin + 3, 2:5] = value
  return mask


PICTURE = np.arange(80).reshape(8, 10)


@pytest.mark.parametrize(
  'picture, masks',
  [
    ('benign/benign (1).png', ('benign/benign (1)_mask.png', 'benign/benign (1)_mask_1.png')),
    ('benign/images/x.png', ('benign/masks/x.png', 'benign/ISIC_GroundTruth/x_segmentation.png')),
  ],
)
def test_a_mask_is_the_union_of_a_picture_s_masks(tmp_path, picture, masks):
  draw(tmp_path / picture, PICTURE)
  draw(tmp_path / 'normal' / 'y.png', PICTURE)
  draw(tmp_path / masks[0], square(0))
  draw(tmp_path / masks[1], square(4, value=1))
  found = folder.load(str(tmp_path), masks='target', unmasked='zeros')
  assert (found.classes, found.strata) == (('background', 'lesion'), ('benign', 'normal'))
  assert found.masks and found.table['y'].tolist() == [0, 1]
  first, second = found.fetch(0), found.fetch(1)
  np.testing.assert_array_equal(first.y, (square(0) | square(4)) > 0)
  assert first.y.dtype.kind == 'u' and not second.y.any()
  notes = found.facts['notes']
  assert notes[0] == ('2 masks are learned, of 1 of 2 pictures; several of one picture are joined')
  assert notes[1].startswith('1 pictures without a mask count as empty, first normal/y.png')
  alone = folder.load(str(tmp_path), masks='target', unmasked='leave_out', label='')
  assert alone.size == 1 and alone.fetch(0).y.any()
  with pytest.raises(
    MedtlError, match=r"1 of 2 pictures have no mask, first normal/y.png.*'zeros'"
  ):
    folder.load(str(tmp_path), masks='target')
  draw(tmp_path / masks[0], square(1))
  changed = folder.load(str(tmp_path), masks='target', unmasked='zeros')
  assert changed.fingerprint != found.fingerprint


def manifest(root: Path) -> None:
  """Four pictures of BUSI, as labels.csv lists them."""
  lines = ['file,label']
  for number, label in enumerate(('benign', 'malignant', 'benign', 'malignant', 'normal')):
    draw(root / 'images' / f'{number}.png', (PICTURE * (number + 1)) % 256)
    draw(root / 'masks' / f'{number}.png', square(number))
    lines.append(f'images/{number}.png,{label}')
  (root / 'labels.csv').write_text('\n'.join(lines))


def test_masks_move_with_their_pictures_and_splits_are_balanced_by_the_label(tmp_path):
  manifest(tmp_path)
  keys = dict(root=str(tmp_path), manifest='labels.csv', masks='target', ops='resize(16, 20)')
  only = ('benign', 'malignant')
  sides = data.load('folder.load', split=SPLIT, only=only, **keys)
  assert all(sorted(side.table['y'].tolist()) == [0, 1] for side in sides.values())
  whole = data.load('folder.load', split={'by': 'none'}, only=only, **keys)['test']
  assert whole.fetch(0).y.sum() == 4 * 9 and whole.fetch(0).y.shape == (16, 20)
  assert any(
    words == 'left out by data.only: 1 pictures of normal' for words in whole.facts['notes']
  )
  assert not any('positive' in words for words in whole.facts['notes'])
  with pytest.raises(MedtlError, match="no picture has the label 'bening'; did you mean 'benign'"):
    data.load('folder.load', split=SPLIT, only=('bening',), **keys)


def test_other_data_bring_labels_of_their_own(tmp_path):
  manifest(tmp_path)
  keys = dict(name='folder.load', root=str(tmp_path), manifest='labels.csv', masks='target', ops='')
  plan = {'shape': [8, 10, 1], 'classes': ['background', 'lesion'], 'label_columns': False}
  other, _ = other_data.load(keys, keys, plan)
  assert other.size == 5 and other.strata == ('benign', 'malignant', 'normal')


@pytest.mark.parametrize(
  'mask, words',
  [
    (square(0)[:, :9], '8 × 9 pixels, and its picture 8 × 10'),
    (square(0) // 255 + square(4), r'holds the 3 values 0, 1, 255;.*expected 0 for the background'),
    (square(0) // 255 + square(4, value=7), 'holds the 3 values 0, 1, 7;'),
    (square(0) // 2 + square(2) // 2, 'holds the 3 values 0, 127, 254;'),
    (square(0, value=1) + 1, 'holds the 2 values 1, 2;.*expected 0 for the background'),
    (np.arange(80).reshape(8, 10), r'holds the 80 values 0, 1, 2, 3, 4, 5, …;'),
  ],
)
def test_a_mask_of_another_size_or_of_several_labels_is_an_error(tmp_path, mask, words):
  draw(tmp_path / 'x.png', PICTURE)
  draw(tmp_path / 'x_mask.png', mask)
  with pytest.raises(MedtlError, match=words):
    folder.load(str(tmp_path), masks='target', label='').fetch(0)


def test_a_mask_that_may_be_of_two_pictures_is_an_error(tmp_path):
  for name in ('images/x.png', 'more/x.png'):
    draw(tmp_path / name, PICTURE)
  draw(tmp_path / 'masks' / 'x.png', square(0))
  with pytest.raises(
    MedtlError, match=r'masks/x.png may be the mask of images/x.png or more/x.png'
  ):
    folder.load(str(tmp_path), masks='target', label='')


def learned(root: Path, mask: np.ndarray, name: str = 'x_mask.png') -> np.ndarray:
  """The mask of one picture, as it is learned."""
  draw(root / 'x.png', np.zeros(mask.shape))
  draw(root / name, mask)
  return folder.load(str(root), masks='target', label='').fetch(0).y


def disc(radius: float, values: int) -> np.ndarray:
  """A disc in 64 × 64 pixels whose edge is soft: the mean of `values` × `values` points a pixel."""
  points = (np.arange(64 * values) + 0.5) / values - 32
  inside = points[:, None] ** 2 + points[None] ** 2 < radius**2
  share = inside.reshape(64, values, 64, values).mean((1, 3))
  return np.round(255 * share).astype(np.uint8)


@pytest.mark.parametrize('name', ['x_mask.png', 'x_mask.tif', 'x_mask.bmp'])
def test_two_exact_values_are_background_and_lesion_however_near_they_are(tmp_path, name):
  np.testing.assert_array_equal(learned(tmp_path, square(2, value=1), name), square(2) > 0)


def test_an_edge_that_was_resized_is_cut_at_half(tmp_path):
  soft = disc(28, values=4)
  assert len(np.unique(soft)) > 8
  np.testing.assert_array_equal(learned(tmp_path, soft), soft >= 128)


def test_a_border_is_no_soft_edge_however_thin(tmp_path):
  mask = disc(28, values=1)
  mask[31:33, 31:33] = 1
  with pytest.raises(MedtlError, match='holds the 3 values 0, 1, 255;'):
    learned(tmp_path, mask)


def test_a_jpeg_is_cut_at_half_of_its_largest_value(tmp_path):
  """Its noise is none: neither what it adds to the background nor what it takes from the lesion."""
  mask = np.zeros((64, 64), np.uint8)
  mask[10:50, 13:51] = 200
  draw(tmp_path / 'x.png', np.zeros(mask.shape))
  Image.fromarray(mask).save(tmp_path / 'x_mask.jpg', quality=60)
  stored = np.asarray(Image.open(tmp_path / 'x_mask.jpg'))
  noise = stored[mask == 0]
  assert noise.max() > 0 and len(np.unique(stored)) > 8
  y = folder.load(str(tmp_path), masks='target', label='').fetch(0).y
  np.testing.assert_array_equal(y, mask > 0)


def test_a_jpeg_of_several_labels_is_an_error(tmp_path):
  mask = np.zeros((64, 64), np.uint8)
  mask[8:32] = 120
  mask[32:56] = 250
  draw(tmp_path / 'x.png', np.zeros(mask.shape))
  Image.fromarray(mask).save(tmp_path / 'x_mask.jpg')
  with pytest.raises(MedtlError, match='holds more than two values'):
    folder.load(str(tmp_path), masks='target', label='').fetch(0)


@pytest.mark.parametrize(
  'pictures, masks, strata, has_sides',
  [
    ('images/{}.png', 'masks/{}.png', (), False),
    ('{}.png', '{}_mask.png', (), False),
    ('{side}/images/{}.png', '{side}/masks/{}.png', (), True),
    ('images/{side}/{}.png', 'masks/{side}/{}.png', (), True),
    ('{label}/{}.png', 'masks/{}.png', ('a', 'b'), False),
  ],
)
def test_masks_need_no_label(tmp_path, pictures, masks, strata, has_sides):
  """Folders that are the same for all pictures are no classes; a publisher's sides are kept."""
  for number in range(12):
    parts = dict(label='ab'[number % 2], side='train' if number < 8 else 'test')
    draw(tmp_path / pictures.format(number, **parts), (PICTURE * (number + 1)) % 256)
    draw(tmp_path / masks.format(number, **parts), square(number % 5))
  keys = dict(root=str(tmp_path), masks='target')
  sides = data.load('folder.load', split=SPLIT, **keys)
  assert sum(side.size for side in sides.values()) == 12
  train = sides['train']
  assert train.strata == strata and train.fetch(0).y.sum() == 9
  unlabelled = any(note.startswith('masks alone are learned') for note in train.facts['notes'])
  assert unlabelled == (strata == ())
  if has_sides:
    sides = data.load('folder.load', split=dict(by='publisher', folds=3, val=1), **keys)
    assert sides['test'].size == 4
