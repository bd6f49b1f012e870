"""Every number of a report on a set small enough to count by hand."""

import inspect
import re

import numpy as np
import pytest

from medtl.core.types import MedtlError, Predictions
from medtl.evaluation import intervals, metrics, summary
from tests.evaluation.test_metrics import case

QUICK = dict(resamples=20)


def binary(p, y, **measures):
  """Predictions of class 1 with probability p."""
  p = np.asarray(p, float)
  return Predictions(
    np.arange(len(p)), np.asarray(y), {'score': np.stack([1 - p, p], 1)} | (measures or {})
  )


# two images of each of four patients; validation separates the classes between .4 and .6
TEST = binary([0.1, 0.3, 0.7, 0.2, 0.6, 0.8, 0.9, 0.4], [0, 0, 0, 0, 1, 1, 1, 1])
VAL = binary([0.2, 0.4, 0.6, 0.9], [0, 0, 1, 1])
TABLE = {'row': np.arange(8), 'patient': np.repeat(['a', 'b', 'c', 'd'], 2)}
VAL_TABLE = {'row': np.arange(4), 'patient': np.array(['e', 'f', 'g', 'h'])}
TABLES = {'test': TABLE, 'val': VAL_TABLE}


def test_the_counts_of_a_class_at_its_threshold():
  found = summary.summarise(
    {'test': TEST, 'val': VAL}, TABLES, ('no', 'yes'), kind='binary', **QUICK
  )
  (row,) = found['per_class']
  at_the_cut = binary([0.1, 0.3, 0.7, 0.2, 0.6, 0.8, 0.9, 0.5], TEST.y)
  (own,) = summary.summarise(
    {'test': at_the_cut, 'val': VAL}, TABLES, ('no', 'yes'), kind='binary', **QUICK
  )['per_class']
  assert (own['threshold'], own['found'], own['sensitivity']['value']) == (0.5, 4, 1.0)
  assert (row['class'], row['images'], row['patients']) == ('yes', 4, 2)
  assert (row['threshold'], row['found'], row['false']) == (0.5, 3, 1)
  assert (row['sensitivity']['value'], row['specificity']['value']) == (0.75, 0.75)
  assert row['auroc']['value'] == metrics.auroc(TEST.score[:, 1:], TEST.y[:, None])
  assert found['confusion'] == [[3, 1], [1, 3]]
  expected = {'patients': 4, 'images': 8, 'level': 0.95, 'resamples': 20, 'threshold': 'youden'}
  assert {name: found[name] for name in expected} == expected
  assert found['val'] == metrics.monitor(VAL.score, VAL.y, 'binary')
  assert (found['kind'], found['classes']) == ('binary', ['no', 'yes'])


def test_images_of_unknown_patients_are_counted_alone():
  tables = {'test': {'row': np.arange(8)}}
  found = summary.summarise({'test': TEST}, tables, ('no', 'yes'), kind='binary', **QUICK)
  (row,) = found['per_class']
  assert row['patients'] is None and row['threshold'] is None and row['images'] == 4
  assert found['metrics']['auroc']['unit'] == 'image' and found['metrics']['auroc']['n'] == 8
  assert 'Few images in the test set (no 4, yes 4)' in found['warnings'][1]
  assert found['by_patient'] is None and 'Patients are not known' in found['by_patient_note']


def test_numbers_by_patient_are_those_of_the_mean_scores():
  found = summary.summarise(
    {'test': TEST, 'val': VAL}, TABLES, ('no', 'yes'), kind='binary', **QUICK
  )
  by_patient = found['by_patient']  # means .2 .45 | .7 .65 at a threshold of .5
  assert by_patient['sensitivity']['value'] == by_patient['specificity']['value'] == 1
  assert (by_patient['accuracy']['unit'], by_patient['accuracy']['n']) == ('patient', 4)
  assert found['by_patient_note'] == ''


def test_one_image_a_patient_needs_no_second_table():
  tables = {'test': TABLE | {'patient': np.arange(8).astype(str)}, 'val': VAL_TABLE}
  found = summary.summarise(
    {'test': TEST, 'val': VAL}, tables, ('no', 'yes'), kind='binary', **QUICK
  )
  assert found['by_patient'] is None and 'Each patient is tested once' in found['by_patient_note']


def test_options_reach_the_intervals():
  table = {'patient': np.arange(8)}
  chosen = dict(resamples=50, seed=3, level=0.5)
  found = summary.summarise({'test': TEST}, {'test': table}, ('no', 'yes'), kind='binary', **chosen)
  expected = intervals.intervals(
    TEST.score, TEST.y, metrics.of('binary'), table['patient'].astype(str), **chosen
  )
  assert found['metrics']['auroc'] == summary.plain(expected)['auroc']


FUNCTIONS = {
  'summarise': lambda **keys: summary.summarise(
    {'test': TEST, 'val': VAL}, TABLES, ('no', 'yes'), kind='binary', **keys
  ),
  'summarise_seeds': lambda **keys: summary.summarise_seeds(
    [(TEST, VAL)], TABLE, kind='binary', **keys
  ),
  'compare': lambda **keys: summary.compare(
    [(binary(1 - TEST.score[:, 1], TEST.y), VAL)], [(TEST, VAL)], TABLE, kind='binary', **keys
  ),
}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_each_summary_takes_the_same_options_with_the_same_defaults(name):
  usual = dict(threshold='youden', resamples=1000, seed=0, level=0.95)
  parameters = inspect.signature(getattr(summary, name)).parameters
  assert {option: parameters[option].default for option in usual} == usual
  quick = FUNCTIONS[name](resamples=30)
  others = dict(threshold='at_sensitivity(0.5)', resamples=31, seed=1, level=0.5)
  for option, value in others.items():
    assert FUNCTIONS[name](**{'resamples': 30, option: value}) != quick, option


def test_a_comparison_is_first_minus_second_also_at_the_thresholds():
  other = binary([0.1, 0.3, 0.3, 0.2, 0.6, 0.8, 0.9, 0.6], TEST.y)  # the two mistakes undone
  found = summary.compare([(other, VAL)], [(TEST, VAL)], TABLE, kind='binary', **QUICK)
  assert found['sensitivity']['value'] == found['specificity']['value'] == 0.25
  assert found['accuracy']['value'] == 0.25 and found['auroc']['value'] > 0
  assert found['accuracy']['unit'] == 'patient' and found['accuracy']['p'] is not None
  with pytest.raises(MedtlError, match='predicted different rows'):
    summary.summarise_seeds(
      [(TEST, VAL), (binary(TEST.score[:4, 1], TEST.y[:4]), VAL)], TABLE, kind='binary', **QUICK
    )


def test_warnings_name_rare_classes_redrawn_resamples_and_missing_intervals_once():
  y = (np.arange(40) < 2).astype(int)
  score = case(n=40, k=2, ties=False)[0]
  predictions = Predictions(np.arange(40), y, {'score': score})
  tables = {'test': {'patient': np.arange(40)}, 'val': {'patient': np.arange(40)}}
  sides = {'test': predictions, 'val': predictions}
  found = summary.summarise(sides, tables, ('no', 'yes'), kind='binary', resamples=300)
  few, redrawn = found['warnings']
  assert few.startswith('Few patients in the test set (yes 2): the intervals are rough')
  share = float(re.match(r'(\d+)% of the bootstrap resamples lacked a class', redrawn).group(1))
  assert share == pytest.approx(12.85, abs=6)
  enough = np.arange(40) % 4 == 0
  predictions = Predictions(np.arange(40), enough.astype(int), {'score': score})
  sides = {'test': predictions, 'val': predictions}
  found = summary.summarise(sides, tables, ('no', 'yes'), kind='binary', resamples=300)
  assert found['warnings'] == [], 'ten patients of a class are enough'
  alone = Predictions(np.arange(40), (np.arange(40) < 1).astype(int), {'score': score})
  sides = {'test': alone, 'val': predictions}
  found = summary.summarise(sides, tables, ('no', 'yes'), kind='binary', resamples=20)
  assert found['warnings'][1:] == ['No interval: a class has 1 patient, at least 2 are needed.']


def test_a_set_without_thresholds_is_not_blamed_for_lacking_them():
  found = summary.summarise({'test': TEST}, {'test': TABLE}, ('no', 'yes'), kind='binary', **QUICK)
  assert found['metrics']['sensitivity']['value'] is None and found['val'] == {}
  assert not any('not defined' in text.lower() for text in found['warnings'])
  lacking = binary(VAL.score[:, 1], [0, 0, 0, 0])
  sides = {'test': TEST, 'val': lacking}
  found = summary.summarise(sides, TABLES, ('no', 'yes'), kind='binary', **QUICK)
  assert any('its threshold was to be chosen' in text for text in found['warnings'])


@pytest.mark.parametrize('name', ['', 'nan', 'None'])
def test_an_image_without_a_patient_leaves_all_of_them_unknown(name):
  patient, warnings = summary.patients({'patient': np.array(['a', name, 'b', name])})
  assert patient is None and warnings[0].startswith('2 of 4 images name no patient')
  patient, warnings = summary.patients({'patient': np.array([3, 4])})
  assert patient.tolist() == ['3', '4'] and warnings == []


def test_thresholds_of_each_row_go_before_those_of_validation():
  own = np.full((8, 1), 0.65)
  test = binary(TEST.score[:, 1], TEST.y, threshold=own)
  assert summary.thresholds_of(test, VAL, 'youden', 'binary') is own
  assert summary.thresholds_of(TEST, VAL, 'youden', 'binary').tolist() == [0.5]
  assert np.isnan(summary.thresholds_of(TEST, None, 'youden', 'binary')).tolist() == [True]
  found = summary.summarise({'test': test}, {'test': TABLE}, ('no', 'yes'), kind='binary', **QUICK)
  (row,) = found['per_class']
  assert (row['threshold'], row['found'], row['false']) == (None, 2, 1)


def test_pooling_takes_the_first_row_the_mean_score_and_the_threshold_by_patient():
  cut = np.linspace(0.1, 0.8, 8)[:, None]
  test = binary(TEST.score[:, 1], TEST.y, patient_threshold=cut, threshold=cut + 1)
  found = summary.pool_by_patient(test, TABLE)
  assert found.row.tolist() == [0, 2, 4, 6] and found.y.tolist() == [0, 0, 1, 1]
  np.testing.assert_allclose(found.score[:, 1], [0.2, 0.45, 0.7, 0.65])
  assert set(found.values) == {'score', 'threshold'}
  np.testing.assert_allclose(found.values['threshold'], cut[[0, 2, 4, 6]])
  assert set(summary.pool_by_patient(TEST, TABLE).values) == {'score'}
  many = Predictions(np.arange(2), np.array([[1, 0], [1, 1]]), {'score': np.zeros((2, 2))})
  with pytest.raises(MedtlError, match='1 of 1 patients have images of several labels'):
    summary.pool_by_patient(many, {'patient': np.array(['a', 'a'])})
  with pytest.raises(MedtlError, match='Patients are not known'):
    summary.pool_by_patient(TEST, {})
  assert set(summary.sides_by_patient(TEST, {})) == {'threshold'}


def test_worst_errors_are_as_many_as_asked_and_twelve_by_default():
  p = np.linspace(0.51, 0.99, 20)
  wrong = binary(p, np.zeros(20, int))
  found = summary.worst_errors(wrong, 'binary')
  assert [item['index'] for item in found] == list(range(19, 7, -1))
  assert found[0]['p'] == pytest.approx(0.99) and found[0]['p_true'] == pytest.approx(0.01)
  many = Predictions(np.arange(20), np.zeros((20, 1), int), {'score': p[:, None]})
  found = summary.worst_errors(many, 'multilabel')
  assert [item['index'] for item in found] == list(range(19, 7, -1))
  assert found[0]['p_true'] == pytest.approx(0.01) and found[0]['true'] == 0
  half = Predictions(np.arange(2), np.array([[1], [0]]), {'score': np.array([[0.5], [0.5]])})
  assert summary.worst_errors(half, 'multilabel') == [], 'one half is not confident'
