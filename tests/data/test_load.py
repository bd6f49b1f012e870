"""The door of room 1: splits that hold, files that do not, and pictures that are read only once."""

import time
from pathlib import Path

import chex
import numpy as np
import pytest
from PIL import Image

from medtl import data
from medtl.core import expressions, frames
from medtl.core.types import Dataset, Example, MedtlError
from medtl.data import batches, store, transforms
from medtl.data.listing import labels
from medtl.data.sources import folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'decoded'


@pytest.fixture
def clinic(tmp_path) -> Path:
  """Two classes, 10 patients each with 2 pictures of 8 by 6."""
  for number in range(40):
    name = 'AB'[number % 2]
    path = (
      tmp_path / 'clinic' / name / f'{name}-{number // 4 * 2 + number % 2}-{number // 2 % 2}.png'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(number).randint(0, 256, (8, 6)).astype(np.uint8)).save(
      path
    )
  return tmp_path / 'clinic'


def load(root: Path, **keys) -> dict[str, Dataset]:
  names = {} if 'manifest' in keys or 'label' in keys else {'pattern': r'-(\d+)-'}
  return data.load(
    **{'name': 'folder', 'split': dict(by='patient'), 'root': str(root)} | names | keys
  )


def test_sides_hold_everything_once_and_rows_join_the_source(clinic):
  sides = load(clinic, ops='resize(4)', split=dict(by='patient', fold=2))
  assert list(sides) == ['train', 'val', 'test'] and [side.size for side in sides.values()] == [
    24,
    8,
    8,
  ]
  everything = folder.load(str(clinic), pattern=r'-(\d+)-')
  rows = []
  for side in sides.values():
    for number in range(side.size):
      example = side.fetch(number)
      chex.assert_shape(example.x, (4, 4, 1))
      assert (
        example.row == side.table['row'][number] and example.y == everything.table['y'][example.row]
      )
      assert side.table['file'][number] == everything.table['file'][example.row]
      rows.append(example.row)
  assert sorted(rows) == list(range(40))
  facts = sides['val'].facts
  assert (
    facts['shape'] == [4, 4, 1]
    and facts['patients'] == 20
    and facts['leak'] == facts['unreadable'] == []
  )
  assert facts['ops'] == 'resize(4)' and len(facts['split_hash']) == len(facts['hash']) == 64
  assert facts['notes'] == [
    'classes in the order of the alphabet: A, B; data.classes says otherwise',
    "of the two classes 'B' is the positive one; data.classes turns them round",
  ]


def test_kept_and_streamed_pictures_are_the_same_and_files_are_read_once(
  clinic, cache, monkeypatch
):
  kept, streamed = load(clinic, ops='resize(5)'), load(clinic, ops='resize(5)', keep_gb=0)
  assert kept['train'].facts['kept'] and not streamed['train'].facts['kept']
  for a, b in zip(
    batches.eval_batches(kept['test'], 3), batches.eval_batches(streamed['test'], 3), strict=True
  ):
    chex.assert_trees_all_equal(a, b)
  monkeypatch.setattr(folder, 'read', lambda *_: pytest.fail('a picture was decoded again'))
  again = load(clinic, ops='resize(5)')
  chex.assert_trees_all_equal(again['val'].fetch(0), kept['val'].fetch(0))
  assert again['val'].facts == kept['val'].facts and len(list(cache.iterdir())) == 2


def test_a_changed_file_is_read_again_and_changes_the_hash(clinic):
  before = load(clinic)
  path = clinic / 'A' / 'A-0-0.png'
  time.sleep(0.01)
  Image.fromarray(np.zeros((8, 6), np.uint8)).save(path)
  after = load(clinic)
  assert after['train'].facts['hash'] != before['train'].facts['hash']
  assert after['train'].facts['split_hash'] == before['train'].facts['split_hash']
  side = next(side for side in after.values() if 'A/A-0-0.png' in side.table['file'])
  assert not side.fetch(side.table['file'].tolist().index('A/A-0-0.png')).x.any()


def test_the_cache_is_bounded_and_the_oldest_goes_first(clinic, cache):
  size = 40 * (8 * 6 * 4 + 4)
  held = []
  for ops in ('window(0, 1)', 'window(0, 2)', 'window(0, 3)'):
    assert load(clinic, ops=ops, keep_gb=2.9 * size / 1e9)['train'].facts['kept']
    held.append({path.name for path in cache.iterdir()})
    time.sleep(0.01)
  assert held[0] < held[1] and held[2] == held[2] - held[0] and len(held[2]) == 2
  assert sum(file.stat().st_size for file in cache.glob('*/?.bin')) < 2.9 * size
  assert not load(clinic, keep_gb=0.9 * size / 1e9)['train'].facts['kept']


def test_a_cache_folder_that_cannot_be_written_says_what_to_do(clinic, cache):
  cache.parent.write_text('a file where a folder should be')
  with pytest.raises(MedtlError, match='MEDTL_CACHE'):
    load(clinic)


def test_broken_files_are_named_counted_and_left_out_only_when_allowed(clinic, cache):
  (clinic / 'A' / 'A-0-1.png').write_bytes(b'')
  cut = (clinic / 'B' / 'B-3-0.png').read_bytes()
  (clinic / 'B' / 'B-3-0.png').write_bytes(cut[: len(cut) // 2])
  for allowed in (0, 1):
    with pytest.raises(
      MedtlError, match=r'2 of 40 .*A/A-0-1\.png.*B/B-3-0\.png.*skip_unreadable=2'
    ):
      load(clinic, skip_unreadable=allowed)
  for keys in (dict(), dict(), dict(keep_gb=0)):  # afresh, from the cache, streamed
    sides = load(clinic, skip_unreadable=2, **keys)
    assert (
      sum(side.size for side in sides.values())
      == 38
      == sum(side.fetch(0).x.any() * side.size for side in sides.values())
    )
    listed = sides['test'].facts['unreadable']
    assert len(listed) == 2 and listed[0].startswith('A/A-0-1.png: ')
    for name, side in sides.items():  # rows keep the numbers that they have in the source
      assert all(
        side.fetch(number).row == side.table['row'][number] for number in range(side.size)
      ), name
  with pytest.raises(MedtlError, match='2 of 40'):
    load(clinic, skip_unreadable=1)
  assert all(
    (path / 'index.npz').exists() for path in cache.iterdir()
  )  # nothing unfinished lies about


def test_a_listed_file_that_is_missing_is_unreadable(clinic):
  files = sorted(path.relative_to(clinic).as_posix() for path in clinic.rglob('*.png'))
  lines = [f'{name},{name[0]},{name[2:5]}' for name in files] + ['gone.png,A,9']
  (clinic / 'labels.csv').write_text('file,label,who\n' + '\n'.join(lines))
  with pytest.raises(MedtlError, match=r'1 of 41 .*gone\.png'):
    load(clinic, manifest='labels.csv', patient='who')


def test_a_file_that_breaks_later_stops_with_its_name(clinic):
  side = load(clinic, keep_gb=0)['train']
  for path in clinic.rglob('*.png'):
    path.unlink()
  with pytest.raises(MedtlError, match=r'png could be read when the run began'):
    side.fetch(0)


def test_equal_pictures_on_two_sides_are_a_leak(clinic):
  for side in ('train', 'test'):
    for name in 'AB':
      for path in list((clinic / name).glob('*.png'))[:8]:
        target = clinic.parent / 'published' / side / name / f'{side}{path.name[1:]}'
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(path)) // (1 if side == 'train' else 2)).save(target)
  twin = clinic.parent / 'published' / 'test' / 'A' / 'twin.png'
  twin.write_bytes(next((clinic.parent / 'published' / 'train' / 'A').glob('*.png')).read_bytes())
  root, split = clinic.parent / 'published', dict(by='publisher', val=0)
  keys = dict(split=split, pattern='')
  with pytest.raises(MedtlError, match=r'1 leaks.*train/A/.* = test/A/twin\.png in train and test'):
    load(root, **keys)
  assert len(load(root, **keys, allow_leak=True)['test'].facts['leak']) == 1


def source(x: np.ndarray, y: np.ndarray, spacing=None) -> Dataset:
  spacing = spacing or [()] * len(x)
  return Dataset(
    lambda i: Example(x[i], y[i], i, frames.plain(x[i].shape[:-1], spacing[i])),
    len(x),
    ('a', 'b'),
    {'row': np.arange(len(x)), 'y': y},
  )


def test_nan_is_named_and_so_are_shapes(clinic):
  x = np.random.RandomState(0).rand(6, 4, 5, 1).astype(np.float32)
  x[3, 0, 0, 0], x[5, 1, 1, 0] = np.nan, np.inf
  with pytest.raises(MedtlError, match=r'2 pictures hold NaN or infinity: row 3; row 5'):
    store.prepare(source(x, np.zeros(6, int)), [], {}, skip_unreadable=0, keep_gb=1)
  Image.fromarray(np.zeros((3, 4), np.uint8)).save(clinic / 'B' / 'B-77-0.png')
  with pytest.raises(
    MedtlError,
    match=r'(?s)2 shapes.*\(8, 6, 1\) \(40.*\(3, 4, 1\) \(1, first B/B-77-0.*resize\(224, 224\)',
  ):
    load(clinic)


def test_masks_spacings_and_volumes_survive_being_kept():
  random = np.random.RandomState(0)
  x, mask = (
    random.rand(3, 4, 5, 6, 1).astype(np.float32),
    random.randint(0, 3, (3, 4, 5, 6)).astype(np.uint8),
  )
  spacing = [(1.0, 0.5, 2.0), (), (3.0, 1.0, 1.0)]
  whole = source(x, mask, spacing)
  whole = Dataset(whole.fetch, 3, whole.classes, {'row': np.arange(3), 'y': np.zeros(3, int)})
  kept = store.prepare(whole, [], {}, skip_unreadable=0, keep_gb=1)
  assert kept.facts['kept']
  for number in range(3):
    case = kept.fetch(number)
    chex.assert_trees_all_equal((case.x, case.y, case.row), (x[number], mask[number], number))
    assert case.spacing == spacing[number] and case.frame.shape == (4, 5, 6)
  chain = expressions.functions('crop(2)', transforms, given=('example',))
  cropped = store.prepare(whole, chain, dict(ops='crop'), skip_unreadable=0, keep_gb=1).fetch(0)
  assert cropped.y.shape == (2, 2, 2) and cropped.file_frame.shape == (4, 5, 6)
  np.testing.assert_array_equal(cropped.y, mask[0, 1:3, 1:3, 2:4])
  np.testing.assert_allclose(cropped.frame.affine[:3, 3], (1.0, 0.5, 4.0))


def test_cases_of_several_shapes_are_kept_where_batches_cut_patches():
  random = np.random.RandomState(0)
  x = [random.rand(*shape, 1).astype(np.float32) for shape in ((4, 5), (7, 3), (2, 9))]
  masks = [(picture[..., 0] > 0.5).astype(np.uint8) for picture in x]
  table = {'row': np.arange(3), 'y': np.zeros(3, int)}
  whole = Dataset(source(x, masks).fetch, 3, ('background', 'lesion'), table)
  with pytest.raises(MedtlError, match='pictures of 3 shapes'):
    store.prepare(whole, [], {'keep': 0}, skip_unreadable=0, keep_gb=1)
  kept = store.prepare(whole, [], {'keep': 1}, skip_unreadable=0, keep_gb=1, many_shapes=True)
  for number in range(3):
    case = kept.fetch(number)
    chex.assert_trees_all_equal((case.x, case.y), (x[number], masks[number]))
  other = [1 - mask for mask in masks]
  again = Dataset(source(x, other).fetch, 3, whole.classes, table)
  changed = store.prepare(again, [], {'keep': 2}, skip_unreadable=0, keep_gb=1, many_shapes=True)
  assert changed.facts['hash'] != kept.facts['hash'], 'other masks are other data'


def test_labels_outside_the_classes_and_absent_classes_stop(clinic, monkeypatch):
  monkeypatch.setattr(
    labels, 'find', lambda raw, *_: labels.Labels(('A', 'B'), np.arange(len(raw)) % 3, 'given')
  )
  with pytest.raises(
    MedtlError,
    match=r'13 labels outside the classes, first 2 of A/A-10-0.png; expected 0 … 1 \(A, B\)',
  ):
    load(clinic)
  monkeypatch.undo()
  for path in list((clinic / 'B').glob('*.png')):
    if path.name != 'B-1-0.png':
      path.unlink()
  with pytest.raises(
    MedtlError, match=r"class 'B' has no example in 'train'|class 'B' has no example in 'val'"
  ):
    load(clinic)


def test_unlabelled_pictures_and_other_peoples_are_one_side(clinic):
  found = load(clinic, label='', classes=('A', 'B'), split=dict(by='none'))
  assert list(found) == ['test'] and found['test'].size == 40 and found['test'].fetch(0).y == -1
  assert found['test'].classes == ('A', 'B')
  assert load(clinic, classes=('A', 'B', 'C'), split=dict(by='none'))['test'].classes == (
    'A',
    'B',
    'C',
  )


@pytest.mark.parametrize(
  'keys, words',
  [
    (dict(name='foldr'), "did you mean 'folder'"),
    (dict(clases=()), "did you mean 'classes'"),
    (dict(split=dict(fods=3)), "did you mean 'folds'"),
    (dict(ops='resise(3)'), "did you mean 'resize'"),
  ],
)
def test_misspelt_names_are_answered_with_the_nearest(clinic, keys, words):
  with pytest.raises(MedtlError, match=words):
    load(clinic, **keys)


@pytest.mark.real
def test_six_patients_on_both_sides_of_the_kermany_split_are_found(real):
  keys = dict(
    manifest='labels.csv', patient='patient_id', partition='kermany_partition', ops='resize(32)'
  )
  with pytest.raises(
    MedtlError, match=r'6 leaks.*patient 12494 .*patient 15208 in train and test.*patient 9251'
  ):
    load(real / 'data/oct_kermany_subset', split=dict(by='publisher', val=0), **keys)
  tested = []
  for fold in range(5):
    sides = load(
      real / 'data/oct_kermany_subset', ops='resize(32)', split=dict(by='patient', fold=fold)
    )
    tested += sides['test'].table['row'].tolist()
    assert all(len(set(side.table['y'])) == 4 for side in sides.values())
  assert sorted(tested) == list(range(247))
