"""Laws of splitting: nobody on two sides, all tested once, classes spread, in any order."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from medtl.core.types import MedtlError
from medtl.data import dealing, splits


def table(patients: int = 60, classes: int = 3, seed: int = 0, **columns) -> dict[str, np.ndarray]:
  """A patient has one class and 1 … 9 pictures."""
  random = np.random.RandomState(seed)
  images = random.randint(1, 10, patients)
  patient = np.repeat([f'p{number}' for number in range(patients)], images)
  y = np.repeat(
    random.choice(classes, patients, p=np.arange(1, classes + 1) / sum(range(classes + 1))), images
  )
  return dict(row=np.arange(len(y)), y=y, patient=patient, **columns)


@settings(max_examples=25, deadline=None)
@given(
  patients=st.integers(6, 40),
  folds=st.integers(3, 6),
  seed=st.integers(0, 99),
  val=st.integers(0, 1),
)
def test_each_example_is_tested_once_and_no_patient_sits_on_two_sides(patients, folds, seed, val):
  data = table(patients, seed=seed)
  tested = []
  for fold in range(folds):
    index = splits.split(data, folds=folds, fold=fold, seed=seed, val=val)
    assert list(index) == (['train', 'val', 'test'] if val else ['train', 'test'])
    assert sorted(np.concatenate(list(index.values()))) == list(range(len(data['y'])))
    owners = [set(data['patient'][rows]) for rows in index.values()]
    assert len(set().union(*owners)) == sum(map(len, owners)) and splits.leaks(data, index) == []
    tested.append(index['test'])
  assert sorted(np.concatenate(tested)) == list(range(len(data['y'])))


def test_the_order_of_examples_and_of_columns_changes_nothing():
  data = table()
  data['file'] = np.array([f'{number}.png' for number in data['row']])
  order = np.random.RandomState(1).permutation(len(data['y']))
  mixed = {name: column[order] for name, column in reversed(data.items())}
  a, b = splits.split(data, fold=2, seed=3), splits.split(mixed, fold=2, seed=3)
  for side in a:
    assert set(data['file'][a[side]]) == set(mixed['file'][b[side]])
  assert splits.split_hash(data, a) == splits.split_hash(mixed, b)
  assert splits.split_hash(data, a) != splits.split_hash(data, splits.split(data, fold=2, seed=4))


def test_a_deal_worked_by_hand_stays_as_it_is():
  """Pictures and patients as even as can be: 3 | 1 1, then 3 1 | 1 1.

  The numbers are a snapshot: seeds are written into papers.
  """
  for owners, sizes in (('aaabc', {(3, 1), (2, 2)}), ('aaabcd', {(4, 2), (2, 2)})):
    data = dict(
      row=np.arange(len(owners)), y=np.zeros(len(owners), int), patient=np.array(list(owners))
    )
    number = dealing.deal(data, 'patient', 2, 0)
    assert {
      ((number == fold).sum(), len(set(data['patient'][number == fold]))) for fold in (0, 1)
    } == sizes
  assert splits.split_hash(table(), splits.split(table(), seed=7)).startswith('db3cd4c56410')


def test_classes_are_spread_as_evenly_as_scikit_learn_does():
  data = table(120, classes=4, seed=5)
  share = np.bincount(data['y']) / 5

  def worst(tests) -> float:
    return max(
      np.abs(np.bincount(data['y'][rows], minlength=4) / share - 1).max() for rows in tests
    )

  tests = [splits.split(data, fold=fold)['test'] for fold in range(5)]
  theirs = worst(
    rows for _, rows in StratifiedGroupKFold(5).split(data['y'], data['y'], data['patient'])
  )
  assert worst(tests) < 0.15 and worst(tests) <= theirs + 0.05
  for kind in range(4):
    owners = [len(set(data['patient'][rows][data['y'][rows] == kind])) for rows in tests]
    assert max(owners) - min(owners) <= 2


def test_equal_pictures_stay_together_also_across_patients():
  data = table()
  data['content'] = np.array([f'{number}' for number in data['row']])
  owned = [np.flatnonzero(data['patient'] == f'p{number}') for number in range(1, 7)]
  for one, other in pairwise(owned):  # a chain p1 ~ p2 ~ … ~ p6 by different pictures
    data['content'][other[0]] = data['content'][one[-1]]
  for by in ('patient', 'image'):
    for fold in range(5):
      assert (
        splits.leaks(
          {'row': data['row'], 'content': data['content']}, splits.split(data, by=by, fold=fold)
        )
        == []
      )
  homes = dealing.deal(data, 'patient', 5, 0)
  assert len({homes[rows[0]] for rows in owned}) == 1


def test_many_labels_are_each_spread_the_rare_ones_too():
  random = np.random.RandomState(3)
  y = (random.rand(600, 3) < [0.6, 0.5, 0.05]).astype(np.float32)
  data = dict(row=np.arange(600), y=y, patient=np.repeat(np.arange(150).astype(str), 4))
  shares = np.array([y[splits.split(data, fold=fold)['test']].sum(0) for fold in range(5)]) / (
    y.sum(0) / 5
  )
  assert np.abs(shares - 1).max() < 0.06


def test_the_publishers_split_is_honoured_and_its_train_gives_the_missing_val():
  data = table()
  side = np.where(np.isin(data['patient'], [f'p{number}' for number in range(12)]), 'test', 'train')
  index = splits.split(data | {'split': side}, by='publisher')
  np.testing.assert_array_equal(index['test'], np.flatnonzero(side == 'test'))
  assert splits.leaks(data, index) == [] and 0.1 < len(index['val']) / (side == 'train').sum() < 0.3
  side[side == 'train'] = np.where(data['y'][side == 'train'] == 0, 'val', 'train')
  np.testing.assert_array_equal(
    splits.split(data | {'split': side}, by='publisher')['val'], np.flatnonzero(side == 'val')
  )


def test_a_leak_stops_and_is_named_unless_it_is_allowed():
  data = table() | {'split': np.where(np.arange(len(table()['y'])) % 2, 'train', 'test')}
  index = splits.split(data, by='publisher')
  with pytest.raises(MedtlError, match=r'patient p0 in train and.* test.*allow_leak'):
    splits.check(data, index)
  assert len(splits.check(data, index, allow_leak=True)) >= 50
  with pytest.raises(MedtlError, match='patient'):
    splits.check(data, splits.split(data, by='image'))


def with_sites(names: str, seed: int = 0) -> dict[str, np.ndarray]:
  """The patients of `table`, each at one of the sites."""
  made = table(90, seed=seed)
  number = np.array([int(name[1:]) for name in made['patient']])
  return made | {'site': np.array(list(names))[number % len(names)]}


@settings(max_examples=15, deadline=None)
@given(sites=st.integers(2, 6), seed=st.integers(0, 99), folds=st.integers(2, 5))
def test_a_site_that_tests_has_no_part_in_training_or_choice(sites, seed, folds):
  data = with_sites('abcdef'[:sites], seed)
  chosen = []
  for fold in range(sites):
    index = splits.split(data, by='site', fold=fold, folds=folds, seed=seed)
    assert sorted(np.concatenate(list(index.values()))) == list(range(len(data['y'])))
    assert set(data['site'][index['test']]) == {'abcdef'[fold]}
    assert 'abcdef'[fold] not in {*data['site'][index['train']], *data['site'][index['val']]}
    assert splits.leaks(data, index) == []
    named = splits.split(data, by='site', test=('abcdef'[fold],), folds=folds, seed=seed)
    assert all(np.array_equal(index[side], named[side]) for side in index)
    # every other site has its share in the choice
    assert set(data['site'][index['val']]) == set('abcdef'[:sites]) - {'abcdef'[fold]}
    chosen.append(index['val'])
  # so that out-of-fold validation can be pooled
  assert len(np.unique(np.concatenate(chosen))) == sum(map(len, chosen))


def test_several_sites_test_and_a_share_of_labels_touches_training_alone():
  data = with_sites('abcd')
  index = splits.split(data, by='site', test=('a', 'c'), labels=0.5)
  whole = splits.split(data, by='site', test=('a', 'c'))
  assert set(data['site'][index['test']]) == {'a', 'c'}
  assert set(index['train']) < set(whole['train'])
  assert np.array_equal(index['val'], whole['val'])
  assert 'val' not in splits.split(data, by='site', val=0)


def of_sites(patients: dict[str, int]) -> dict[str, np.ndarray]:
  """A table of so many patients of each site, who have one or two rows and one of two classes."""
  random = np.random.RandomState(0)
  count = sum(patients.values())
  rows = random.randint(1, 3, count)
  site = np.repeat(np.repeat(list(patients), list(patients.values())), rows)
  patient = np.repeat([f'p{number}' for number in range(count)], rows)
  y = np.repeat(random.randint(0, 2, count), rows)
  return dict(row=np.arange(len(y)), y=y, patient=patient, site=site)


def share_of_val(data, index) -> float:
  """Return the share of the patients who do not test that validates."""
  val = len(np.unique(data['patient'][index['val']]))
  return val / (val + len(np.unique(data['patient'][index['train']])))


@pytest.mark.parametrize('sites', [7, 40, 186])
@pytest.mark.parametrize(('folds', 'val'), [(5, 1), (5, 2), (10, 1)])
def test_a_share_of_the_patients_validates_however_many_sites_there_are(sites, folds, val):
  sizes = np.random.RandomState(1).randint(1, 31, sites)
  data = of_sites({f's{number:03}': size for number, size in enumerate(sizes)})
  names = np.unique(data['site'])
  for fold in (0, sites // 2, sites - 1):
    index = splits.split(data, by='site', fold=fold, folds=folds, val=val)
    assert share_of_val(data, index) == pytest.approx(val / folds, rel=0.2)
    assert sorted(np.concatenate(list(index.values()))) == list(range(len(data['y'])))
    np.testing.assert_array_equal(index['test'], np.flatnonzero(data['site'] == names[fold]))
    assert splits.leaks(data, index) == []
  # the last site tests; each other one with patients enough has its share in the choice
  assert set(names[:-1][sizes[:-1] >= folds]) <= set(data['site'][index['val']])


def test_what_is_left_of_each_site_does_not_add_up():
  """Six patients in five folds: two of them are in one fold, which is another one at each site."""
  data = of_sites({f's{number:02}': 6 for number in range(41)})
  data['y'] = np.zeros(len(data['y']))
  for fold in range(5):
    index = splits.split(data, by='site', fold=fold)
    assert share_of_val(data, index) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize('tested', ['ae', 'ea', 'bc', 'ce'])
def test_every_site_that_tests_only_tests(tested):
  data = of_sites(dict(a=20, b=25, c=30, d=4, e=4, f=4))
  index = splits.split(data, by='site', test=tuple(tested))
  assert set(data['site'][index['test']]) == set(tested)
  assert not set(tested) & {*data['site'][index['train']], *data['site'][index['val']]}
  assert sorted(np.concatenate(list(index.values()))) == list(range(len(data['y'])))
  turned = splits.split(data, by='site', test=tuple(tested[::-1]))
  np.testing.assert_array_equal(index['test'], turned['test'])
  # what stands at a site that tests changes nothing
  changed = data | {'y': np.where(np.isin(data['site'], list(tested)), 0, data['y'])}
  again = splits.split(changed, by='site', test=tuple(tested))
  np.testing.assert_array_equal(index['val'], again['val'])


def test_a_site_of_few_patients_trains_and_several_are_dealt_together():
  data = of_sites(dict(a=20, b=25, c=30, d=3))
  index = splits.split(data, by='site', fold=0)
  assert set(data['site'][index['val']]) == {'b', 'c'}
  assert np.isin(np.flatnonzero(data['site'] == 'd'), index['train']).all()
  data = of_sites(dict(a=20, b=4, c=3, d=3))
  index = splits.split(data, by='site', fold=0)
  assert share_of_val(data, index) == pytest.approx(0.2)
  with pytest.raises(MedtlError, match='4 groups for 5 folds'):
    splits.split(of_sites(dict(a=20, b=4)), by='site', fold=0)
  assert 'val' not in splits.split(of_sites(dict(a=20, b=4)), by='site', val=0)


@pytest.mark.parametrize('of_d, are_dealt', [(3, True), (2, False)])
def test_small_sites_that_together_have_a_patient_a_fold_are_dealt(of_d, are_dealt):
  data = of_sites(dict(a=20, b=30, c=2, d=of_d))
  index = splits.split(data, by='site', fold=0, folds=5)
  assert np.isin(data['site'][index['val']], ['c', 'd']).any() == are_dealt


@pytest.mark.parametrize('fold', [0, 1])
def test_the_fold_of_small_sites_that_validates_is_that_of_the_site_that_tests(fold):
  data = of_sites(dict(a=20, b=30, c=6, d=4))
  small = np.flatnonzero(np.isin(data['site'], ['c', 'd']))
  together = {name: column[small] for name, column in data.items()}
  # nine parts: sites c and d have fewer patients than that
  dealt = dealing.deal(together, 'patient', 9, 0)
  index = splits.split(data, by='site', fold=fold, folds=9)
  validates = np.intersect1d(index['val'], small)
  np.testing.assert_array_equal(validates, small[dealt == fold])


def test_the_rows_of_few_sites_stay_as_they_are():
  """A snapshot: numbers of such splits are published."""
  data = of_sites(dict(a=30, b=29, c=12, d=20))
  index = splits.split(data, by='site', fold=2)
  assert splits.split_hash(data, index).startswith('83807081a6b8')


@pytest.mark.parametrize(
  'sites, keys, words',
  [
    ('a', dict(), "of one site, 'a'"),
    ('ab', dict(fold=2), r'fold=2, but there are 2 sites \(a, b\).*0 … 1'),
    ('ab', dict(test=('c',)), "no site 'c'"),
    ('ab', dict(test=('a', 'b')), 'all sites'),
    ('ab', dict(test=('a',), fold=1), 'either test or fold'),
    ('ab', dict(by='patient', test=('a',)), "by='patient'"),
    ('ab', dict(fold=-1), 'number of a site'),
  ],
)
def test_wrong_sites_say_what_is_right(sites, keys, words):
  with pytest.raises(MedtlError, match=words):
    splits.split(with_sites(sites), **{'by': 'site', **keys})


@pytest.mark.parametrize(
  'keys, without, words',
  [
    (dict(by='patient'), 'patient', "by='image'"),
    (dict(by='publisher'), 'split', 'no column'),
    (dict(by='hospital'), '', 'expected'),
    (dict(by='site'), '', 'data.site'),
    (dict(fold=5), '', 'fold < folds'),
    (dict(folds=2), '', 'folds - 2'),
    (dict(seed=-1), '', 'seed=-1; expected a whole number from 0'),
    (dict(seed=2**32), '', 'seed=4294967296'),
    (dict(by='publisher'), '', "holds .'extra'"),
  ],
)
def test_wrong_splits_say_what_is_right(keys, without, words):
  data = table() | {'split': np.full(len(table()['y']), 'extra')}
  with pytest.raises(MedtlError, match=words):
    splits.split({name: column for name, column in data.items() if name != without}, **keys)


def test_an_example_without_patient_is_named():
  data = table()
  data['patient'][4] = ''
  with pytest.raises(MedtlError, match=r'1 example has no patient: row 4'):
    splits.split(data)
  data['patient'][7] = ''
  with pytest.raises(MedtlError, match=r'2 examples .*row 4'):
    splits.split(data)


def test_fewer_groups_than_folds_are_told():
  data = table(4)
  with pytest.raises(MedtlError, match='4 groups for 5 folds'):
    splits.split(data)
  with pytest.raises(MedtlError, match=r'1 groups for 5 folds.*duplicates'):
    splits.split(data | {'content': np.full(len(data['y']), 'same')}, by='image')


def test_none_is_everything():
  np.testing.assert_array_equal(
    splits.split(table(), by='none')['test'], np.arange(len(table()['y']))
  )


def test_a_share_of_the_labels_is_nested_stratified_and_of_whole_patients():
  data = table(120, classes=4, seed=2)
  whole = splits.split(data, fold=1, seed=3)
  before = whole['train']
  for share in (0.6, 0.3, 0.1):
    index = splits.split(data, fold=1, seed=3, labels=share)
    assert set(index['train']) < set(before) and all(
      np.array_equal(index[side], whole[side]) for side in ('val', 'test')
    )
    for kind in range(4):
      owners, kept = (
        set(data['patient'][rows][data['y'][rows] == kind])
        for rows in (whole['train'], index['train'])
      )
      assert len(kept) == max(1, round(share * len(owners)))
      assert all(
        set(np.flatnonzero(data['patient'] == name)) <= set(index['train']) for name in kept
      )
    before = index['train']
  assert set(splits.split(data, fold=1, seed=4, labels=0.3)['train']) != set(
    splits.split(data, fold=1, seed=3, labels=0.3)['train']
  )


def test_a_share_of_a_publishers_training_set_and_a_share_that_is_none():
  data = table(40, seed=1)
  data['split'] = np.where(np.char.endswith(data['patient'], '3'), 'test', 'train')
  index = splits.split(data, by='publisher', labels=0.5)
  assert len(index['train']) < len(splits.split(data, by='publisher')['train'])
  for share in (0, 1.5):
    with pytest.raises(MedtlError, match=r'labels=.* above 0 and at most 1'):
      splits.split(data, labels=share)


def test_a_patient_with_two_classes_counts_as_the_rarer_when_labels_are_few():
  """All ten have an image of class 0, two also one of class 1: half of these and of the rest."""
  owner = np.array([*range(10), 3, 8])
  data = dict(row=np.arange(12), y=np.repeat([0, 1], [10, 2]), patient=owner.astype(str))
  data['split'] = np.full(12, 'train')
  for seed in range(8):
    kept = splits.split(data, by='publisher', val=0, labels=0.5, seed=seed)['train']
    patients = set(owner[kept])
    assert len(patients & {3, 8}) == 1 and len(patients) == 5


@pytest.mark.parametrize(
  'keys',
  [
    dict(fold=0),
    dict(fold=4),
    dict(val=0),
    dict(val=3),
    dict(folds=3, val=1),
    dict(seed=0),
    dict(seed=2**32 - 1),
    dict(labels=1.0),
    dict(labels=1e-9),
  ],
)
def test_keys_at_their_bounds_are_accepted(keys):
  index = splits.split(table(), **keys)
  assert all(len(rows) for rows in index.values())


@pytest.mark.parametrize(
  ('keys', 'words'),
  [
    (dict(fold=-1), 'fold=-1, folds=5, val=1; expected 0 <= fold < folds and val <= folds - 2'),
    (dict(fold=5), 'fold=5, folds=5'),
    (dict(val=-1), 'val=-1'),
    (dict(val=4), 'val=4'),
    (dict(labels=0.0), 'labels=0.0; expected a share'),
    (dict(labels=1.01), 'labels=1.01'),
  ],
)
def test_keys_beyond_their_bounds_are_refused_but_none_needs_no_key(keys, words):
  with pytest.raises(MedtlError, match=words):
    splits.split(table(), **keys)
  everything = splits.split(table(), by='none', **keys)
  assert list(everything) == ['test'] and len(everything['test']) == len(table()['y'])


def test_folds_follow_each_other_test_first_then_val():
  data = table()
  number = dealing.deal(data, 'patient', 5, 3)
  for fold in range(5):
    index = splits.split(data, fold=fold, val=2, seed=3)
    turn = (number - fold) % 5
    for side, turns in (('test', [0]), ('val', [1, 2]), ('train', [3, 4])):
      np.testing.assert_array_equal(index[side], np.flatnonzero(np.isin(turn, turns)))


def test_defaults_are_the_first_of_five_folds_by_patient_with_one_to_validate():
  found = splits.split(table())
  expected = splits.split(table(), by='patient', folds=5, fold=0, seed=0, val=1, labels=1.0)
  assert list(found) == ['train', 'val', 'test']
  for side, rows in expected.items():
    np.testing.assert_array_equal(found[side], rows)


@pytest.mark.parametrize(('val', 'share'), [(1, 0.2), (2, 0.4)])
def test_as_many_folds_of_a_publishers_train_validate_as_are_asked_for(val, share):
  data = table(100)
  sides = np.where(np.char.endswith(data['patient'], '7'), 'test', 'train')
  index = splits.split(data | {'split': sides}, by='publisher', val=val)
  assert list(index) == ['train', 'val', 'test']
  trains = (sides == 'train').sum()
  assert len(index['val']) / trains == pytest.approx(share, abs=0.03)
  assert len(index['train']) + len(index['val']) == trains
  folds = [splits.split(data | {'split': sides}, by='publisher', fold=fold) for fold in range(5)]
  rows = np.concatenate([fold['val'] for fold in folds])
  np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(sides == 'train'))


def test_a_publisher_without_train_or_with_val_0_gets_no_val():
  data = table(20)
  sides = np.full(len(data['y']), 'test')
  assert list(splits.split(data | {'split': sides}, by='publisher')) == ['test']
  sides = np.where(np.arange(len(sides)) < 30, 'train', 'test')
  assert list(splits.split(data | {'split': sides}, by='publisher', val=0)) == ['train', 'test']
  images = {'row': data['row'], 'y': data['y'], 'split': sides}
  assert len(splits.split(images, by='publisher')['val']) == 6, 'a fifth of 30 images'


def test_as_many_groups_as_folds_are_one_in_each():
  data = dict(row=np.arange(5), y=np.zeros(5, int), patient=np.array(list('abcde')))
  assert sorted(dealing.deal(data, 'patient', 5, 0)) == [0, 1, 2, 3, 4]


def test_a_label_that_nobody_has_and_a_number_to_predict_are_dealt_too():
  y = np.zeros((40, 2))
  y[::2, 0] = 1
  data = dict(row=np.arange(40), y=y)
  number = dealing.deal(data, 'image', 5, 0)
  assert np.bincount(number).tolist() == [8] * 5
  assert [int(y[number == fold, 0].sum()) for fold in range(5)] == [4] * 5
  data['y'] = np.linspace(0, 1, 40)
  assert np.bincount(dealing.deal(data, 'image', 5, 0)).tolist() == [8] * 5


def test_images_go_by_file_and_rows_without_one_alone():
  files = np.array(['a', 'a', 'b', '', ''])
  data = dict(row=np.arange(5), y=np.zeros(5, int), file=files)
  number = dealing.deal(data, 'image', 4, 0)
  assert number[0] == number[1] and len(set(number)) == 4
  empty = dict(row=np.arange(5), y=np.zeros(5, int), content=np.full(5, ''))
  assert len(set(dealing.deal(empty, 'image', 5, 0))) == 5, 'an unknown content links nothing'


@pytest.mark.parametrize(('labels', 'kept'), [(0.05, 1), (0.25, 2), (0.35, 4), (0.95, 10)])
def test_a_share_of_ten_patients_is_rounded_and_never_none(labels, kept):
  data = dict(row=np.arange(10), y=np.zeros(10, int), patient=np.arange(10).astype(str))
  data['split'] = np.full(10, 'train')
  index = splits.split(data, by='publisher', val=0, labels=labels)
  assert len(index['train']) == kept, 'halves go to the even number'


LEAKING = dict(
  row=np.arange(5),
  y=np.zeros(5, int),
  file=np.array(list('abcde')),
  patient=np.array(['p', 'q', 'p', '', '']),
  content=np.array(['x', 'y', 'z', 'y', '']),
)
SIDES = {'train': np.array([0, 1]), 'test': np.array([2, 3, 4])}


def test_leaks_are_told_in_words_patients_first():
  assert splits.leaks(LEAKING, SIDES) == ['patient p in train and test', 'b = d in train and test']
  nameless = {name: column for name, column in LEAKING.items() if name not in ('file', 'patient')}
  assert splits.leaks(nameless, SIDES) == ['row 1 = row 3 in train and test']
  assert splits.leaks({'row': np.arange(5)}, SIDES) == []


def test_a_check_shows_twelve_leaks_and_what_to_do():
  for count, more in ((12, False), (14, True)):
    names = np.tile([f'p{number:02}' for number in range(count)], 2)
    data = dict(row=np.arange(2 * count), patient=names)
    index = {'train': np.arange(count), 'test': np.arange(count, 2 * count)}
    with pytest.raises(MedtlError, match=f'{count} leaks between') as error:
      splits.check(data, index)
    text = str(error.value)
    assert text.count(' in train and test') == 12
    assert ('; … and 2 more. Expected' in text) == more
    assert "on one side; set data.split.by='patient', or" in text
  with pytest.raises(MedtlError, match=r"fill in the 2 missing patients and set .*by='patient'"):
    splits.check(LEAKING, SIDES)
  images = {name: column for name, column in LEAKING.items() if name != 'patient'}
  with pytest.raises(MedtlError, match=r"1 leaks .*one side; set data.split.by='image'"):
    splits.check(images, SIDES)
  assert splits.check(images, {'train': np.array([0])}) == []


def test_the_hash_of_a_split_is_of_sides_and_files():
  data = dict(row=np.arange(4), file=np.array(list('badc')))
  found = splits.split_hash(data, {'train': np.array([0, 1]), 'test': np.array([2, 3])})
  text = 'test\tc\ntest\td\ntrain\ta\ntrain\tb'
  assert found == hashlib.sha256(text.encode()).hexdigest()


def test_a_picture_of_its_own_ties_no_one_to_another():
  table = {
    'row': np.arange(4),
    'patient': np.array(['a', 'b', 'c', 'a']),
    'content': np.array(['1', '2', '3', '4']),
  }
  group = dealing.groups(table, 'patient')
  assert len(np.unique(group)) == 3 and group[0] == group[3]
  table['content'] = np.array(['1', '2', '2', '4'])  # b and c have one picture in common
  group = dealing.groups(table, 'patient')
  assert group[1] == group[2] != group[0] == group[3]
