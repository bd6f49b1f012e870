"""Intervals: what they cover and refuse, patients are drawn, not pictures; thresholds; curves."""

import re
import time

import chex
import numpy as np
import pytest
import sklearn.metrics as reference
from scipy import stats

from medtl.core.types import MedtlError, Predictions
from medtl.evaluation import curves, metrics, operating_points, thresholds
from medtl.evaluation.intervals import bootstrap, difference, holm, intervals, presence
from tests.evaluation.test_metrics import case

ACCURACY = dict(accuracy=metrics.accuracy)


def answers(right):
  """Scores of two classes, right or wrong as asked, y alternating."""
  y = np.arange(len(right)) % 2
  return np.eye(2)[np.where(right, y, 1 - y)], y


def test_close_to_the_published_interval():
  """Wilson's 95 % interval for 81 of 100 is .722 to .875; a bootstrap must be near."""
  found = intervals(*answers(np.arange(100) < 81), ACCURACY, resamples=4000)['accuracy']
  assert found.value == 0.81 and found.unit == 'image' and found.n == 100
  assert np.allclose((found.low, found.high), (0.73, 0.88), atol=0.012)


def test_covers_the_truth_as_often_as_it_says():
  random = np.random.RandomState(0)
  inside = 0
  for seed in range(200):
    found = intervals(*answers(random.rand(80) < 0.8), ACCURACY, resamples=200, seed=seed)[
      'accuracy'
    ]
    inside += found.low <= 0.8 <= found.high
  assert 0.90 <= inside / 200 <= 0.985


def test_copies_of_a_patients_picture_tell_nothing_new():
  """Four copies of each picture leave the interval by patient alone, and halve that by image."""
  score, y = case(n=60, k=3)
  copies, patient = (np.repeat(score, 4, 0), np.repeat(y, 4)), np.repeat(np.arange(60), 4)
  single = intervals(score, y, metrics.of('multiclass'), np.arange(60))
  cluster = intervals(*copies, metrics.of('multiclass'), patient)
  naive = intervals(*copies, ACCURACY)['accuracy']
  for name, item in single.items():
    assert np.allclose(item[:3], cluster[name][:3], atol=1e-9), name
  assert cluster['accuracy'].n == 60 and naive.n == 240
  assert (naive.high - naive.low) / (
    cluster['accuracy'].high - cluster['accuracy'].low
  ) == pytest.approx(0.5, abs=0.06)


def test_the_order_of_rows_and_the_patients_names_do_not_matter():
  score, y = case(n=40, k=2)
  patient = np.arange(40) // 4
  order = np.random.RandomState(1).permutation(40)
  loss = dict(log_loss=metrics.log_loss)
  first = intervals(score, y, loss, patient)
  assert first == intervals(score, y, loss, np.array([f'person {p}' for p in patient]))
  again = intervals(score[order], y[order], loss, patient[order])
  assert np.allclose(first['log_loss'][:3], again['log_loss'][:3])
  assert first != intervals(score, y, loss, patient, seed=2)


def test_resamples_without_a_class_are_drawn_again():
  """With two of 40 patients ill, a resample has none with probability (38/40)^40 = 12.9 %."""
  score, y = case(n=40, k=2, ties=False)
  y = (np.arange(40) < 2).astype(int)
  found = intervals(score, y, metrics.of('binary'), np.arange(40), resamples=3000)
  assert found['auroc'].redrawn == pytest.approx(0.1285, abs=0.02)
  assert all(np.isfinite(item[:3]).all() for item in found.values())


def test_one_patient_of_a_class_is_no_interval():
  score, y = case(n=30, k=2, ties=False)
  found = intervals(score, y, metrics.of('binary'), patient=np.where(y == 1, 99, np.arange(30)))
  for item in found.values():
    assert np.isfinite(item.value) and np.isnan(item.low) and np.isnan(item.high)
    assert 'a class has 1 patient, at least 2 are needed' in item.reason


def test_a_class_that_is_missing_altogether_leaves_the_others_their_interval():
  score, y = case(n=60, k=3)
  score, y = score[y != 1], y[y != 1]
  found = intervals(
    score, y, dict(auroc=metrics.auroc, each=metrics.class_auroc, accuracy=metrics.accuracy)
  )
  assert (
    np.isnan(found['auroc'].value)
    and np.isnan(found['each/1'].low)
    and 'no example' in found['auroc'].reason
  )
  assert all(np.isfinite(found[name][:3]).all() for name in ('each/0', 'each/2', 'accuracy'))


def test_a_class_that_is_hardly_ever_drawn_ends_in_words():
  y = np.repeat(np.arange(40), 2)
  found = intervals(np.eye(40)[y], y, ACCURACY, resamples=10)['accuracy']
  assert (
    found.value == 1 and np.isnan(found.low) and 'resamples' in found.reason and found.redrawn > 0.9
  )


@pytest.mark.parametrize('many', [False, True])
def test_a_paired_difference(many):
  score, y = case(many=many)
  kind = 'multilabel' if many else 'multiclass'
  other = np.roll(score, 1, 1)
  patient = np.arange(len(y)) // 2
  same = difference(score, score, y, metrics.of(kind), patient, resamples=20)
  assert all(item[:3] == (0, 0, 0) for item in same.values())
  found = difference(score, other, y, metrics.of(kind), patient, resamples=300)
  back = difference(other, score, y, metrics.of(kind), patient, resamples=300)
  alone = metrics.monitor(score, y, kind), metrics.monitor(other, y, kind)
  for name, item in found.items():
    assert np.isclose(item.value, alone[0][name] - alone[1][name])
    assert np.allclose(item[:3], (-back[name].value, -back[name].high, -back[name].low))
  assert found['auroc'].low > 0
  with pytest.raises(MedtlError, match='same predictions'):
    difference(score, other[:-1], y, ACCURACY)


def test_p_counts_the_observed_difference_as_one_more_resample_and_is_at_most_1():
  """Davison and Hinkley 1997, equation 4.11: one model is always right, the other always wrong."""
  right = np.arange(40) >= 0
  best, y = answers(right)
  worst, _ = answers(~right)
  for first, second in ((best, worst), (worst, best)):
    found = difference(first, second, y, ACCURACY, resamples=99)['accuracy']
    assert found.p == pytest.approx(2 * (0 + 1) / (99 + 1))
  assert difference(best, best, y, ACCURACY, resamples=99)['accuracy'].p == 1


def test_p_is_twice_the_share_of_resamples_on_the_rarer_side_of_0():
  """One answer of 20 differs: the share of resamples without it, where the difference is 0."""
  first, y = answers(np.arange(20) >= 0)
  second, _ = answers(np.arange(20) > 0)
  found = difference(first, second, y, ACCURACY, resamples=4000)['accuracy']
  assert found.p == pytest.approx(2 * (19 / 20) ** 20, rel=0.1)
  back = difference(second, first, y, ACCURACY, resamples=4000)['accuracy']
  assert back.p == found.p


def test_a_shift_of_both_models_cancels_in_the_pair():
  """Two models that differ in one answer of 100.

  The paired interval is far narrower than either's own.
  """
  right = np.arange(100) < 70
  first, y = answers(right)
  second, _ = answers(right ^ (np.arange(100) == 80))
  pair = difference(second, first, y, ACCURACY)['accuracy']
  own = intervals(first, y, ACCURACY)['accuracy']
  assert (
    pair.value == pytest.approx(0.01)
    and pair.low >= 0
    and pair.high - pair.low < (own.high - own.low) / 4
  )


def test_quick_enough():
  score, y = case(n=250, k=4)
  twelve = metrics.of('ordinal') | {
    name: getattr(metrics, name) for name in ('class_auroc', 'class_auprc', 'class_f1')
  }
  begin = time.process_time()
  intervals(score, y, twelve, np.arange(250) // 3)
  assert time.process_time() - begin < 3


@pytest.mark.parametrize('ties', [False, True])
def test_curves_and_youden_equal_scikit_learn(ties):
  score, y = case(ties=ties)
  s, has = score[:, 1], y == 1
  wrong, right, cut = curves.roc(s, has)
  expected = reference.roc_curve(has, s, drop_intermediate=False)
  chex.assert_trees_all_close((wrong, right, cut), expected)
  recall, precision = curves.precision_recall(s, has)
  p, r, _ = reference.precision_recall_curve(has, s)
  chex.assert_trees_all_close((recall, precision), (r[:-1][::-1], p[:-1][::-1]))
  margin = (s - thresholds.youden(s, has))[:, None]
  best = float(
    metrics.sensitivity(margin, has[:, None]) + metrics.specificity(margin, has[:, None]) - 1
  )
  assert best == pytest.approx(np.max(expected[1] - expected[0]))


def test_at_least_the_asked_sensitivity_and_no_lower_threshold_than_needed():
  score, y = case(n=200, k=2, ties=False)
  val = Predictions(np.arange(200), y, {'score': score})
  cut = operating_points.class_thresholds(val, 'at_sensitivity(0.9)', 'binary')
  chex.assert_shape(cut, (1,))
  margin, has = score[:, 1:] - cut, y[:, None]
  positives = has.sum()
  assert metrics.sensitivity(margin, has) == np.ceil(0.9 * positives) / positives
  assert (
    operating_points.class_thresholds(val, 'at_sensitivity(1.0)', 'binary') < score[y == 1, 1].min()
  )
  assert operating_points.class_thresholds(val, 'youden', 'multiclass').shape == (2,)
  with pytest.raises(MedtlError, match="did you mean 'youden'"):
    operating_points.class_thresholds(val, 'joude', 'binary')


def test_no_threshold_without_both_sides():
  score, y = case(n=30, k=3)
  cut = operating_points.class_thresholds(
    Predictions(np.arange(30), np.where(y == 2, 0, y), {'score': score}), 'youden', 'multiclass'
  )
  assert np.isnan(cut).tolist() == [False, False, True]
  for rule in (thresholds.youden, thresholds.at_sensitivity):
    for everyone in (True, False):
      assert np.isnan(rule(score[:, 0], np.full(30, everyone)))


def test_thresholds_lie_between_two_scores_and_the_sensitivity_is_at_least_95_percent_by_default():
  score, has = np.arange(40) / 40, np.arange(40) >= 20
  assert thresholds.youden(score, has) == pytest.approx(19.5 / 40)
  assert thresholds.at_sensitivity(score, has) == pytest.approx(20.5 / 40), '19 of 20'
  assert thresholds.at_sensitivity(score, has, 0.5) == pytest.approx(29.5 / 40)
  assert thresholds.at_sensitivity(score, has, 0.51) == pytest.approx(28.5 / 40)
  assert thresholds.at_sensitivity(np.zeros(4), np.arange(4) > 1) == 0, 'one score, no other below'


@pytest.mark.parametrize('runs', [2, 3, 5])
def test_intervals_over_seeds_cover_the_truth_as_often_as_they_say(runs):
  random, y = np.random.RandomState(runs), np.arange(20) % 2
  value = lambda score, y: score[:, 0].mean()
  hits = 0
  for trial in range(200):
    scores = np.stack([np.full((20, 2), offset) for offset in random.randn(runs)])
    found = intervals(scores, y, dict(value=value), resamples=400, seed=trial)['value']
    hits += found.low <= 0 <= found.high
  assert 0.90 <= hits / 200 <= 0.99


def test_a_difference_that_is_not_defined_has_no_p():
  y, score = np.arange(20) % 2, np.random.RandomState(0).rand(20, 2)
  found = difference(
    score, score[::-1], y, dict(none=lambda s, y: np.nan, auroc=metrics.auroc), resamples=50
  )
  assert found['none'].p is None and found['auroc'].p is not None


def test_the_mean_of_runs_from_several_seeds_has_their_chance_in_its_interval():
  y = np.arange(200) % 2
  random = np.random.RandomState(0)
  value = lambda score, y: score[:, 0].mean()

  def width(offsets):
    runs = np.stack([np.tile(random.randn(200, 1) * 0.01 + offset, 2) for offset in offsets])
    found = intervals(runs, y, dict(value=value), resamples=2000)['value']
    return found.high - found.low

  offsets = np.array([-1.0, 0.0, 1.0, 2.0])
  expected = (
    2 * stats.t.ppf(0.975, 3) * offsets.std(ddof=1) / 2
  )  # Student's interval of the mean of four
  assert width(offsets) == pytest.approx(expected, rel=0.1) and width(offsets * 0) < 0.01
  same = np.stack([y * 0.5 + random.rand(200)] * 2, 1)
  assert intervals(np.stack([same] * 3), y, dict(value=value)) == intervals(
    same, y, dict(value=value)
  )
  shifted = difference(
    np.stack([same + 1 + offset for offset in offsets]),
    np.stack([same + offset for offset in offsets]),
    y,
    dict(value=value),
    resamples=200,
  )['value']
  assert shifted.low == pytest.approx(1) and shifted.high == pytest.approx(1), 'paired by seed'


def test_level_seed_and_resamples_are_those_asked_for_and_the_defaults_are_one_set():
  score, y = case(n=60, k=2)
  patient = np.arange(60)
  usual = intervals(score, y, ACCURACY, patient)['accuracy']
  asked = dict(resamples=1000, seed=0, level=0.95)
  assert usual == intervals(score, y, ACCURACY, patient, **asked)['accuracy']
  half = intervals(score, y, ACCURACY, patient, level=0.5)['accuracy']
  ratio = (half.high - half.low) / (usual.high - usual.low)
  assert ratio == pytest.approx(stats.norm.ppf(0.75) / stats.norm.ppf(0.975), abs=0.06)
  has = presence(y, 2)
  value = lambda rows, runs: {'accuracy': metrics.accuracy(score[rows], y[rows])}
  assert bootstrap(value, has, patient)['accuracy'] == usual
  assert bootstrap(value, has, patient, **asked)['accuracy'] == usual
  other = np.roll(score, 1, 0)
  gap = difference(score, other, y, ACCURACY, patient)
  assert gap == difference(score, other, y, ACCURACY, patient, **asked)
  few = difference(score, other, y, ACCURACY, patient, resamples=9)['accuracy']
  assert few.p is not None and few.p >= 2 / 10


def test_two_patients_of_each_class_are_enough():
  score, y = case(n=12, k=2)
  y = (np.arange(12) < 2).astype(int)
  found = intervals(score, y, ACCURACY, np.arange(12), resamples=50)['accuracy']
  assert np.isfinite(found[:3]).all() and found.reason == ''
  lonely = intervals(score, y, ACCURACY, np.where(y == 1, 0, np.arange(12)), resamples=50)
  assert 'a class has 1 patient' in lonely['accuracy'].reason
  everyone = intervals(score, y, ACCURACY, None, resamples=50)['accuracy']
  assert (everyone.n, everyone.unit, everyone.p) == (12, 'image', None)


def test_presence_of_classes_and_of_labels_and_their_absence():
  assert presence(np.array([0, 2]), 3).tolist() == [[True, False, False], [False, False, True]]
  found = presence(np.array([[1, 0], [0, 0.5]]), 2)
  assert found.tolist() == [[True, False, False, True], [False, False, True, True]]


def test_a_label_that_all_patients_have_leaves_no_second_side_to_draw():
  """Of label 0 there is no absence, so none is asked of a resample."""
  y = np.stack([np.ones(20), np.arange(20) % 2], 1)
  found = intervals(y * 0.5, y, ACCURACY, resamples=40)['accuracy']
  assert np.isfinite(found[:3]).all() and found.redrawn == 0


def test_resamples_draw_each_patient_as_often_as_any_other_with_all_of_its_rows():
  """A statistic that counts: patients of 1, 2 and 3 images appear together, and evenly."""
  patient = np.array(['c', 'a', 'b', 'c', 'b', 'c'])
  drawn = []

  def statistic(rows, runs):
    drawn.append(np.bincount(rows, minlength=6))
    return {'size': np.asarray(float(len(rows)))}

  found = bootstrap(statistic, np.ones((6, 1), bool), patient, resamples=2000)['size']
  counts = np.array(drawn[1:])  # after the value itself
  assert found.value == 6 and found.n == 3 and len(counts) == 2000
  assert (counts[:, 0] == counts[:, 3]).all() and (counts[:, 2] == counts[:, 4]).all()
  owners = counts[:, [1, 2, 0]]
  assert (owners.sum(1) == 3).all() and owners.max() == 3
  np.testing.assert_allclose(owners.mean(0), 1, atol=0.08)


@pytest.mark.parametrize('classes', [27, 40])
def test_a_bootstrap_that_gives_up_says_how_many_resamples_it_found(classes):
  """Of 27 classes of two patients a resample in fifty has each, of 40 hardly one."""
  y = np.repeat(np.arange(classes), 2)
  found = intervals(np.eye(classes)[y], y, ACCURACY, resamples=60)['accuracy']
  number = int(re.search(r'only (\d+) of 1200 resamples of the images', found.reason).group(1))
  assert found.redrawn == pytest.approx(1 - number / 1200) and (number > 0) == (classes == 27)
  assert np.isnan(found.low) and found.p is None


def test_one_run_is_the_same_with_and_without_an_axis_of_runs():
  """Also where there are fewer rows than classes."""
  random = np.random.RandomState(0)
  y = np.array([6, 6, 0, 0])
  score = random.dirichlet(np.ones(7), 4)
  chosen = dict(accuracy=metrics.accuracy, loss=metrics.log_loss)
  single = intervals(score, y, chosen, resamples=40)
  assert single == intervals(score[None], y, chosen, resamples=40)
  gap = difference(score, score[::-1], y, chosen, resamples=40)
  assert gap == difference(score[None], score[None, ::-1], y, chosen, resamples=40)
  assert single['loss'].redrawn > 0


def test_the_standard_error_over_two_runs_is_half_their_gap():
  """Two runs at 0 and 2, patients all alike: Student's interval with one degree of freedom."""
  y = np.arange(40) % 2
  runs = np.stack([np.full((40, 2), offset) for offset in (0.0, 2.0)])
  value = dict(value=lambda score, y: score[:, 0].mean())
  found = intervals(runs, y, value, resamples=4000, level=0.5)['value']
  assert found.value == 1
  reach = stats.t.ppf(0.75, 1) * 1.0  # the standard error is (2 − 0) ÷ √2 ÷ √2
  assert (found.low, found.high) == pytest.approx((1 - reach, 1 + reach), abs=0.12)


def test_holm_stops_at_1_keeps_the_order_and_lets_nan_stand():
  assert holm([0.04, np.nan, 0.5, 0.01]) == pytest.approx([0.08, np.nan, 0.5, 0.03], nan_ok=True)
  assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
