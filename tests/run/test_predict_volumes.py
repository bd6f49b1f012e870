"""Volumes of several shapes and places: predicted by windows, masks lie on their files' grids."""

import csv
from pathlib import Path

import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from PIL import Image

from medtl.core.types import Dataset, Example, Forward, MedtlError, Predictions
from medtl.evaluation import predictions
from medtl.run import context, other_data, predict, run_folder
from medtl.tasks import segmentation

OBLIQUE = np.array([[-0.8, 0.1, 0, 30], [0.05, 0, 3.0, -20], [0.1, 1.2, 0.2, 5], [0, 0, 0, 1.0]])
STORED = {
  'a.nii.gz': ((9, 12, 7), OBLIQUE),
  'sub/b.nii': ((5, 6, 10), np.diag([2.0, 1, 1, 1])),
}
ROOT = Path(__file__).parents[2]
CLASSES = ['background', 'lesion']


def bright(params, extra, x):
  """Return logits of a net that calls every voxel above 0.5 a lesion."""
  return jnp.concatenate([0.5 - x, x - 0.5], -1)


@pytest.fixture
def run(tmp_path, monkeypatch):
  """Return the folder of a run whose net is `bright`, on windows of 4 voxels."""
  folder = tmp_path / 'run'
  config = run_folder.load_config(f'{ROOT}/tests/tiny.py')
  with config.unlocked():
    config.task = dict(name='segmentation', loss='dice')
    config.data = dict(
      name='nifti.load',
      root='elsewhere',
      images='images',
      masks='labels',
      classes=tuple(CLASSES),
      ops="orient('RAS')",
      draw='patch(4)',
      split=dict(by='image'),
    )
  run_folder.open_or_verify(folder, config)
  val = Dataset(
    lambda i: Example(np.zeros((4, 4, 1)), 0, i),
    1,
    tuple(CLASSES),
    {'row': np.arange(1), 'y': np.zeros(1, int)},
  )
  known = Predictions(np.arange(1), np.zeros(1), {'pixels': np.ones((1, 2))})
  predictions.save(folder / 'predictions' / 'val.npz', known, val)
  task = segmentation.task('dice')
  forward = Forward(bright, bright)
  functions = [context.measured(part, forward, (4, 4, 4)) for part in (task.measure, task.dense)]
  plan = {
    'classes': CLASSES,
    'task': dict(task.keys),
    'shape': [4, 4, 4, 1],
    'label_columns': False,
  }
  monkeypatch.setattr(predict, 'load_trained', lambda *_: (task, tuple(functions), {}, {}, plan))
  return folder


def store(folder):
  random = np.random.RandomState(0)
  for name, (shape, affine) in STORED.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(random.rand(*shape).astype(np.float32), affine)
    image.header.set_xyzt_units('mm')
    nibabel.save(image, path)


def test_masks_lie_on_the_grids_of_their_volumes(run, tmp_path):
  images, output = tmp_path / 'in', tmp_path / 'out.csv'
  store(images)
  predict.predict(run_folder.read_config(run), run, images, output)
  with open(output, newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert [row['file'] for row in rows] == list(STORED)
  for row in rows:
    volume = nibabel.load(images / row['file'])
    mask = nibabel.load(tmp_path / 'out_masks' / row['file'])
    assert mask.shape == volume.shape and np.allclose(mask.affine, volume.affine)
    assert mask.header['sform_code'] == volume.header['sform_code']
    expected = volume.get_fdata() > 0.5
    np.testing.assert_array_equal(mask.get_fdata(), expected)
    assert int(row['lesion: pixels']) == expected.sum()
  notes = (tmp_path / 'out.csv.notes.txt').read_text()
  assert "NIfTI files on the volumes' own grids: 0 background, 1 lesion" in notes


def test_one_file_is_predicted_alone(run, tmp_path):
  store(tmp_path / 'in')
  predict.predict(
    run_folder.read_config(run), run, tmp_path / 'in' / 'a.nii.gz', tmp_path / 'out.csv'
  )
  written = sorted(path.name for path in (tmp_path / 'out_masks').rglob('*.nii*'))
  assert written == ['a.nii.gz']


def test_pictures_are_no_volumes(run, tmp_path):
  (tmp_path / 'in').mkdir()
  Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / 'in' / 'x.png')
  with pytest.raises(MedtlError, match='trained on volumes in NIfTI files'):
    predict.predict(run_folder.read_config(run), run, tmp_path / 'in', tmp_path / 'out.csv')
  store(tmp_path / 'in')
  with pytest.raises(MedtlError, match=r'holds 1 pictures \(first: x.png\) and 2 NIfTI files'):
    predict.predict(run_folder.read_config(run), run, tmp_path / 'in', tmp_path / 'out.csv')


def test_other_volumes_are_read_with_their_masks_whatever_their_size(run, tmp_path):
  own = run_folder.read_config(run).data.to_dict()
  store(tmp_path / 'other' / 'images')
  for name, (shape, affine) in STORED.items():
    path = tmp_path / 'other' / 'labels' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.uint8), affine), path)
  plan = {'classes': CLASSES, 'shape': [4, 4, 4, 1], 'label_columns': False}
  other, keys = other_data.load({**own, 'root': str(tmp_path / 'other')}, own, plan)
  assert other.masks and keys['draw'] == own['draw']
  shapes = [other.fetch(place).y.shape for place in range(other.size)]
  assert sorted(map(sorted, shapes)) == sorted(sorted(shape) for shape, _ in STORED.values())
  with pytest.raises(MedtlError, match='the run knows the classes background, lesion'):
    other_data.load(
      {**own, 'root': str(tmp_path / 'other'), 'classes': ('nothing', 'something')}, own, plan
    )
