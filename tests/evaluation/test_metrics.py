"""Metrics against scikit-learn, on scores with ties; what is undefined is nan."""

import math
import warnings

import chex
import numpy as np
import pytest
import sklearn.metrics as reference
from sklearn.calibration import calibration_curve

from medtl.core.types import MedtlError
from medtl.evaluation import metrics
from medtl.tasks import classification


def case(n=120, k=4, seed=0, many=False, ties=True):
  """Scores that know something about y; rounded, so that many are equal."""
  random = np.random.RandomState(seed)
  y = (random.rand(n, k) < 0.3).astype(int) if many else random.randint(0, k, n)
  logits = random.randn(n, k) + 1.5 * (y if many else np.eye(k)[y])
  if many:
    score = 1 / (1 + np.exp(-logits))
    return (score.round(1) if ties else score), y
  score = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  if ties:
    score = (score + 0.05).round(1)
    score /= score.sum(1, keepdims=True)
  return score, y


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('seed', [0, 1])
def test_multiclass_equals_scikit_learn(seed, ties):
  score, y = case(seed=seed, ties=ties)
  found = metrics.monitor(score, y, 'ordinal')
  one_hot, said = np.eye(4, dtype=int)[y], score.argmax(1)
  expected = dict(
    auroc=reference.roc_auc_score(y, score, multi_class='ovr', average='macro'),
    auprc=reference.average_precision_score(one_hot, score, average='macro'),
    accuracy=reference.accuracy_score(y, said),
    balanced_accuracy=reference.balanced_accuracy_score(y, said),
    f1=reference.f1_score(y, said, average='macro'),
    brier=reference.brier_score_loss(y, score, scale_by_half=False, labels=range(4)),
    log_loss=reference.log_loss(y, score.astype('f4')),
    quadratic_kappa=reference.cohen_kappa_score(y, said, weights='quadratic'),
  )
  ece = found.pop('ece')
  if not ties:  # scikit-learn puts an edge into the bin above, Guo et al. into the one below
    assert np.isclose(ece, guo(said == y, score.max(1)))
  chex.assert_trees_all_close(
    found, {name: float(value) for name, value in expected.items()}, atol=1e-6
  )
  assert (metrics.confusion(score, y) == reference.confusion_matrix(y, said)).all()


def guo(right, confidence):
  share, mean = calibration_curve(right, confidence, strategy='uniform', n_bins=15)
  count = np.histogram(confidence, np.linspace(0, 1, 16))[0]
  return (count[count > 0] * np.abs(share - mean)).sum() / len(right)


@pytest.mark.parametrize('ties', [False, True])
def test_multilabel_equals_scikit_learn(ties):
  score, y = case(many=True, ties=ties)
  found = metrics.monitor(score, y, 'multilabel')
  said = (score >= 0.5).astype(int)
  per_label = lambda f: float(np.mean([f(y[:, j], said[:, j], score[:, j]) for j in range(4)]))
  expected = dict(
    auroc=reference.roc_auc_score(y, score, average='macro'),
    auprc=reference.average_precision_score(y, score, average='macro'),
    accuracy=per_label(lambda t, d, p: reference.accuracy_score(t, d)),
    balanced_accuracy=per_label(lambda t, d, p: reference.balanced_accuracy_score(t, d)),
    f1=reference.f1_score(y, said, average='macro'),
    brier=per_label(lambda t, d, p: reference.brier_score_loss(t, p)),
    log_loss=per_label(lambda t, d, p: reference.log_loss(t, p.astype('f4'))),
  )
  ece = found.pop('ece')
  chex.assert_trees_all_close(
    found, {name: float(value) for name, value in expected.items()}, atol=1e-6
  )
  if not ties:
    assert np.isclose(ece, guo(y.ravel(), score.ravel()))


def test_binary_speaks_of_class_1():
  score, y = case(k=2)
  found = metrics.monitor(score, y, 'binary')
  p = score[:, 1]
  assert np.isclose(found['auroc'], reference.roc_auc_score(y, p))
  assert np.isclose(found['auprc'], reference.average_precision_score(y, p))
  assert np.isclose(found['brier'], reference.brier_score_loss(y, p))
  assert np.isclose(found['quadratic_kappa'], reference.cohen_kappa_score(y, score.argmax(1)))
  same = metrics.monitor(score, y, 'multiclass')
  shared = ('auroc', 'accuracy', 'balanced_accuracy', 'f1', 'log_loss', 'ece')
  assert all(np.isclose(found[name], same[name]) for name in shared)


def test_sensitivity_and_specificity_at_a_threshold():
  score, y = case()
  cut = np.array([0.3, 0.4, 0.2, 0.5])
  found = metrics.class_sensitivity(score - cut, y), metrics.class_specificity(score - cut, y)
  chex.assert_shape(found, (4,))
  for j in range(4):
    assert np.isclose(found[0][j], reference.recall_score(y == j, score[:, j] >= cut[j]))
    assert np.isclose(found[1][j], reference.recall_score(y != j, score[:, j] < cut[j]))
  unknown = metrics.class_sensitivity(score - np.array([0.3, math.nan, 0.2, 0.5]), y)
  assert np.isnan(unknown[1]) and np.isfinite(unknown[[0, 2, 3]]).all()


def test_laws():
  score, y = case(ties=False)
  order = np.random.RandomState(3).permutation(len(y))
  for kind in metrics.KINDS:
    s, t = (
      case(k=2) if kind == 'binary' else case(many=True) if kind == 'multilabel' else (score, y)
    )
    chex.assert_trees_all_close(
      metrics.monitor(s, t, kind), metrics.monitor(s[order], t[order], kind), atol=1e-12
    )
  chex.assert_trees_all_close(
    metrics.class_auroc(np.log(score), y), metrics.class_auroc(score, y)
  )  # ranks only
  chex.assert_trees_all_close(metrics.class_auroc(-score, y), 1 - metrics.class_auroc(score, y))
  perfect = metrics.monitor(np.eye(4)[y], y, 'ordinal')
  assert all(
    np.isclose(value, 0 if name in metrics.LOWER else 1, atol=1e-6)
    for name, value in perfect.items()
  )
  assert np.allclose(metrics.class_auroc(np.full((len(y), 4), 0.25), y), 0.5)


NEEDS_EVERY_CLASS = {'auroc', 'auprc', 'balanced_accuracy', 'f1'}


@pytest.mark.parametrize('kind', ['multiclass', 'ordinal', 'multilabel'])
def test_a_missing_class_is_nan_and_no_error(kind):
  score, y = case(many=kind == 'multilabel')
  if y.ndim == 1:
    score, y = score[y != 2], y[y != 2]
  else:
    y[:, 2] = 0
  with warnings.catch_warnings():
    warnings.simplefilter('error')  # numpy warns of a division by 0
    found = metrics.monitor(score, y, kind)
  assert {name for name, value in found.items() if math.isnan(value)} == NEEDS_EVERY_CLASS
  for each in (metrics.class_auroc, metrics.class_auprc, metrics.class_f1):
    assert np.isnan(each(score, y)).tolist() == [False, False, True, False]
  alone = metrics.monitor(score[:1], y[:1], kind)
  assert not any(math.isnan(alone[name]) for name in ('accuracy', 'brier', 'log_loss', 'ece'))


def test_calibration_error_by_hand():
  """Four answers at .80 (edge of the bin ].733, .8]), three right.

  One at .95, right: 4/5 · .05 + 1/5 · .05.
  """
  p = np.array([0.8, 0.8, 0.8, 0.8, 0.95])
  score, y = np.stack([1 - p, p], 1), np.array([1, 1, 1, 0, 1])
  assert np.isclose(metrics.ece(score, y), 0.05)
  count, mean, share = metrics.reliability(score, y)
  chex.assert_shape((count, mean, share), (15,))
  assert (
    (count[11], count[14], count.sum()) == (4, 1, 5) and share[11] == 0.75 and np.isnan(mean[0])
  )


def test_certain_and_wrong_costs_much_but_not_everything():
  assert np.isclose(
    metrics.log_loss(np.array([[1.0, 0.0]]), np.array([1])), -np.log(np.finfo(np.float32).eps)
  )


def test_every_task_has_metrics_and_mistakes_are_named():
  assert tuple(metrics.KINDS) == classification.KINDS
  with pytest.raises(MedtlError, match="did you mean 'binary'"):
    metrics.names('binar')
  with pytest.raises(MedtlError, match="did you mean 'auroc'"):
    metrics.chosen({'auroc': 1.0, 'loss': 0.2}, 'auc')


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('kind', ['multiclass', 'ordinal', 'binary', 'multilabel'])
def test_undefined_says_for_which_classes_no_scores_give_a_value(kind, seed):
  """Few examples, so that classes are missing or alone: random scores agree with the claim."""
  random = np.random.RandomState(seed)
  k = 2 if kind == 'binary' else 3
  y = (
    random.randint(0, 2, (3, k))
    if kind == 'multilabel'
    else random.randint(0, k, 3 if seed % 2 else 2)
  )
  if seed == 0:
    y = np.ones_like(y)
  score = random.dirichlet(np.ones(k), len(y))
  for name, value in metrics.monitor(score, y, kind).items():
    found = metrics.undefined(name, y, k, kind)
    constant = (
      name == 'quadratic_kappa' and len(set(y.tolist())) == 1
    )  # 0 whatever the scores, or nan
    assert bool(found) == (math.isnan(value) or constant)
    if kind == 'multilabel':
      kept = [label for label in range(k) if label not in found]
      assert not kept or not math.isnan(metrics.of(kind)[name](score[:, kept], y[:, kept]))
    else:
      assert set(found) <= set(range(k)) - set(y.tolist())


def test_undefined_agrees_with_scikit_learn():
  y = np.array([[0, 1, 0], [1, 1, 0], [0, 1, 0]])
  score = np.random.RandomState(0).rand(3, 3)
  with pytest.warns(reference_warning()):
    theirs = [reference.roc_auc_score(y[:, label], score[:, label]) for label in range(3)]
  assert (
    metrics.undefined('auroc', y, 3, 'multilabel')
    == np.flatnonzero(np.isnan(theirs)).tolist()
    == [1, 2]
  )
  assert metrics.undefined('f1', y, 3, 'multilabel') == [2]


def reference_warning():
  from sklearn.exceptions import UndefinedMetricWarning

  return UndefinedMetricWarning


def test_a_score_that_is_no_number_has_no_metric_and_steers_nothing():
  score, y = case(ties=False)
  score[3, 1] = np.nan
  values = metrics.monitor(score, y, 'multiclass')
  assert all(map(math.isnan, values.values()))
  with pytest.raises(
    MedtlError,
    match=r"'auroc', and on validation it is nan: the net gives no number .* lower lr or clip=1.0",
  ):
    metrics.chosen({**values, 'loss': math.nan}, 'auroc')
  with pytest.raises(
    MedtlError, match=r'holds every example; set config.monitor to one that has a value: f1, loss$'
  ):
    metrics.chosen({'auroc': math.nan, 'f1': 0.5, 'loss': 0.2}, 'auroc')


def test_bins_of_calibration_are_open_below_and_closed_above():
  edges = np.arange(16) / 15
  many = edges[:, None]
  count, mean, _ = metrics.reliability(many, np.ones((16, 1)))
  assert count.tolist() == [2] + [1] * 14, 'probability 0 goes with the first bin'
  np.testing.assert_allclose(mean, [edges[:2].mean(), *edges[2:]])
  above = np.array([[1 + 1e-7]])  # a sum of probabilities may be rounded up
  assert metrics.reliability(above, np.ones((1, 1)))[0].tolist() == [0] * 14 + [1]


def test_what_is_better():
  assert metrics.better('loss', 0.1, 0.2) and not metrics.better('loss', 0.2, 0.1)
  assert metrics.better('auroc', 0.2, 0.1) and not metrics.better('auroc', 0.1, 0.2)
  for name in ('loss', 'auroc'):
    assert not metrics.better(name, 0.3, 0.3), 'as good is not better'
    assert not metrics.better(name, math.nan, math.nan)
  assert {'loss', 'brier', 'log_loss', 'ece'} == metrics.LOWER


def test_chosen_gives_the_value_and_says_which_others_there_are():
  assert metrics.chosen({'auroc': 0.25, 'loss': math.nan}, 'auroc') == 0.25
  words = 'a class is missing there, or holds every example; set config.monitor to one that has'
  with pytest.raises(MedtlError, match=words):
    metrics.chosen({'auroc': math.nan, 'f1': 0.0}, 'auroc')


def test_decisions_and_truth_by_hand():
  score = np.array([[0.5, 0.2], [0.49, 0.9]])
  many = np.array([[1.0, 0.5], [0.6, 0.0]])
  assert metrics.decided(score, many).tolist() == [[True, False], [False, True]]
  assert metrics.truth(score, many).tolist() == [[True, False], [True, False]]
  one = np.array([1, 0])
  assert metrics.decided(score, one).tolist() == [[True, False], [False, True]]
  assert metrics.truth(score, one).tolist() == [[False, True], [True, False]]
  assert metrics.confusion(score, one).tolist() == [[0, 1], [1, 0]]


def test_a_ratio_of_nothing_is_nan_and_keeps_the_shape():
  found = metrics.ratio(np.array([[1, 2], [0, 3]]), np.array([[2, 0], [4, 3]]))
  np.testing.assert_array_equal(found, [[0.5, np.nan], [0, 1]])


def test_certain_probabilities_cost_the_same_on_both_sides_with_many_labels():
  eps = np.finfo(np.float32).eps
  score = np.array([[1.0, 0.0]])
  assert np.isclose(metrics.log_loss(score, np.array([[0, 1]])), -np.log(eps))
  right = metrics.log_loss(score, np.array([[1, 0]]))
  assert right == pytest.approx(-np.log(1 - eps), rel=1e-3) and right > 0


def test_which_metrics_a_kind_has():
  many = ('auroc', 'auprc', 'accuracy', 'balanced_accuracy', 'f1', 'brier', 'log_loss', 'ece')
  for kind, more in (('multiclass', ()), ('multilabel', ()), ('ordinal', ('quadratic_kappa',))):
    assert metrics.names(kind) == many + more
  assert set(metrics.names('binary')) == {*many, 'quadratic_kappa'}


def test_kappa_of_one_class_alone_is_nan_and_of_chance_is_0():
  chance = np.eye(2)[[0, 1, 0, 1]]
  assert metrics.quadratic_kappa(chance, np.array([0, 0, 1, 1])) == pytest.approx(0)
  assert np.isnan(metrics.quadratic_kappa(np.eye(2)[[1, 1]], np.array([1, 1])))
