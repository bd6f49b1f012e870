"""Advice in an error is followed here, as it is written: it must lead on."""

import ast
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl import cli, data
from medtl.core.types import Dataset, MedtlError
from medtl.run import validate

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'cache'))


def draw(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.random.RandomState(seed).randint(0, 256, size).astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
  """24 pictures of two classes and 12 patients."""
  for number in range(24):
    draw(tmp_path / 'root' / 'ab'[number % 2] / f'p{number // 2}_{number}.png', number)
  return tmp_path / 'root'


def load(root: Path, **keys) -> dict[str, Dataset]:
  return data.load(
    **{
      'name': 'folder',
      'root': str(root),
      'split': dict(by='patient', folds=3),
      'pattern': r'p(\d+)_',
    }
    | keys
  )


def said(root: Path, **keys) -> str:
  """The error's message."""
  with pytest.raises(MedtlError) as caught:
    load(root, **keys)
  return str(caught.value)


def advised(words: str, name: str) -> dict:
  """{'allow_leak': True} of a sentence that says 'set data.allow_leak=True'.

  One is taken where several are offered.
  """
  value = re.search(rf"data\.{re.escape(name)}=('[^']*'|[^\s,;:)]+)", words)
  assert value, f'no data.{name}=… in: {words}'
  return {name: ast.literal_eval(value[1])}


def test_patients_that_are_not_known(root):
  words = said(root, pattern='')
  assert 'data.pattern (a regex on file names)' in words and "by='image'" in words
  assert load(root, split=dict(by='image', folds=3), pattern='')['test'].size == 8
  assert load(root)['train'].facts['patients'] == 12


def test_a_leak_may_be_dealt_anew_or_allowed(root):
  for side, numbers in (('train', range(0, 12)), ('test', range(8, 24))):
    for number in numbers:
      draw(root.parent / 'sided' / side / 'ab'[number % 2] / f'p{number // 2}_{number}.png', number)
  for pattern in (r'p(\d+)_', ''):
    keys = dict(split=dict(by='publisher', val=0), pattern=pattern)
    words = said(root.parent / 'sided', **keys)
    assert load(root.parent / 'sided', **keys | advised(words, 'allow_leak'))['test'].facts['leak']
    by = advised(words, 'split.by')['split.by']
    assert by == ('patient' if pattern else 'image')
    assert not load(root.parent / 'sided', **keys | dict(split=dict(by=by, folds=3)))['test'].facts[
      'leak'
    ]


def test_pictures_that_cannot_be_read(root):
  (root / 'a' / 'p0_0.png').write_bytes(b'')
  words = said(root)
  assert sum(side.size for side in load(root, **advised(words, 'skip_unreadable')).values()) == 23
  for path in root.rglob('*.png'):
    path.write_bytes(b'')
  assert 'skip_unreadable' not in said(root)  # nothing would be left


def test_pictures_of_several_shapes(root):
  draw(root / 'a' / 'p0_0.png', 0, (8, 12))
  offered = re.findall(r"'(square[^']*|resize[^']*)'", said(root))
  assert offered == ['resize(224, 224)', 'square | resize(224)']
  for ops in offered:
    assert load(root, ops=ops)['train'].facts['shape'] == [224, 224, 1]


def test_a_cache_that_cannot_be_written_to(root, tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('no folder')
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'file'))
  words = said(root, keep_gb=0)
  assert 'a folder that can be written to in MEDTL_CACHE' in words and 'keep_gb' not in words
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'another'))
  assert load(root)['train'].size == 8


def test_a_class_without_an_example_on_a_side(root):
  for path in sorted((root / 'b').glob('*.png'))[2:]:
    path.unlink()
  words = said(root)
  assert (
    "class 'b' has no example in" in words
    and 'the class has 2 examples of 2 patients in all' in words
  )
  assert 'take fewer folds (data.split.folds=3)' in words
  assert load(root, split=dict(by='patient', folds=2, val=0))['test'].size


def test_a_tie_of_readers_and_a_row_without_a_box(root):
  votes = ['file,label,x,y,w,h', 'a/p0_0.png,a,0,0,4,4', 'a/p0_0.png,b,1,1,4,4', 'b/p0_1.png,b,,,,']
  (root / 'labels.csv').write_text('\n'.join(votes))
  none = dict(split=dict(by='none'), manifest='labels.csv')
  asked = said(root, **none)
  for meaning in ('majority', 'box'):
    assert f"'{meaning}'" in asked
    words = said(root, **none, repeated=meaning)
    assert load(root, **none, **advised(words, 'repeated'))['test'].table['y'].tolist() == [0, 1]


def test_grades_that_are_words_need_an_order_and_numbers_do_not(root):
  config = cli.parse(
    'train',
    [
      f'--config={ROOT}/tests/tiny.py',
      '--config.task.kind=ordinal',
      '--config.task.loss=ordinal',
      '--config.batch=4',
    ],
  )[1]
  sides = load(root)
  words = (
    r'order of the alphabet: a < b\. Say the right one, from the least to the most: '
    r'--config.data.classes='
  )
  with pytest.raises(MedtlError, match=words):
    validate.check_training(config, sides)
  ordered = load(root, classes=('b', 'a'))
  validate.check_training(config, ordered)
  assert ordered['train'].classes == ('b', 'a')
  with pytest.raises(MedtlError, match='order of the alphabet: a < b < c'):
    validate.check_training(
      config,
      {side: dataclasses.replace(one, classes=('a', 'b', 'c')) for side, one in sides.items()},
    )
  for name, number in (('a', '10'), ('b', '2')):
    (root / name).rename(root / number)
  numbers = load(root)
  validate.check_training(config, numbers)
  assert numbers['train'].classes == ('2', '10')
  assert numbers['train'].facts['notes'][0] == 'classes in the order of their numbers: 2, 10'


def test_patients_of_whom_some_are_missing(root):
  files = sorted(path.relative_to(root).as_posix() for path in root.rglob('*.png'))
  rows = [
    f'{name},{name[0]},{name[3:].partition("_")[0] if number else ""}'
    for number, name in enumerate(files)
  ]
  (root / 'labels.csv').write_text('\n'.join(['file,label,who', *rows]))
  keys = dict(manifest='labels.csv', patient='who', pattern='')
  assert 'fill it in, leave this example out' in said(root, **keys)
  words = said(root, **keys, split=dict(by='image', folds=3))
  assert 'fill in the 1 missing patient and set data.split.by' in words
  assert load(root, **keys, split=dict(by='image', folds=3), allow_leak=True)['test'].facts['leak']
  (root / 'labels.csv').write_text('\n'.join(['file,label,who', *rows[1:]]))
  assert not load(root, **keys)['test'].facts['leak']
