"""Scores of transferability against their definitions, worked by hand or by scikit-learn."""

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import BayesianRidge

from medtl.core.types import MedtlError
from medtl.features import transferability as scores


@pytest.fixture(scope='module')
def wine():
  x, y = load_wine(return_X_y=True)
  return (x - x.mean(0)) / x.std(0), y


def test_log_me_is_the_evidence_that_bayesian_ridge_maximises(wine):
  x, y = wine
  theirs = [
    BayesianRidge(
      max_iter=1000,
      tol=1e-10,
      alpha_1=0,
      alpha_2=0,
      lambda_1=0,
      lambda_2=0,
      fit_intercept=False,
      compute_score=True,
    )
    .fit(x, (y == kind).astype(float))
    .scores_[-1]
    / len(y)
    for kind in range(3)
  ]
  assert scores.log_me(x, y) == pytest.approx(np.mean(theirs), abs=1e-5)


def test_log_me_with_more_features_than_examples(wine):
  x, y = wine
  wide = np.concatenate([x, np.random.RandomState(0).randn(len(x), 200)], 1)
  theirs = [
    BayesianRidge(
      max_iter=3000,
      tol=1e-12,
      alpha_1=0,
      alpha_2=0,
      lambda_1=0,
      lambda_2=0,
      fit_intercept=False,
      compute_score=True,
    )
    .fit(wide, (y == kind).astype(float))
    .scores_[-1]
    / len(y)
    for kind in range(3)
  ]
  assert scores.log_me(wide, y, rounds=3000) == pytest.approx(np.mean(theirs), abs=1e-3)


def test_h_score_is_the_sum_of_the_discriminants(wine):
  """tr(S_t⁻¹ S_b) = Σ λ / (1 + λ), λ the eigenvalues of S_w⁻¹ S_b in discriminant analysis."""
  x, y = wine
  found = LinearDiscriminantAnalysis(solver='eigen').fit(x, y)
  means = np.stack([x[y == kind].mean(0) for kind in range(3)])
  between = sum((y == kind).sum() * np.outer(mean, mean) for kind, mean in enumerate(means))
  within = sum(((x[y == kind] - means[kind]).T @ (x[y == kind] - means[kind])) for kind in range(3))
  eigen = np.linalg.eigvals(np.linalg.solve(within, between)).real
  assert scores.h_score(x, y) == pytest.approx(
    np.sum(eigen / (1 + eigen))
  ) and found.classes_.size - 1 > scores.h_score(x, y)


def test_trans_rate_by_hand():
  """x = ±1 in one dimension, ε = 1.

  ½ log(1 + 1) in all, and the same in each class, where every |x| is 1.
  """
  x, y = np.array([[-1.0], [1.0], [-1.0], [1.0]]), np.array([0, 0, 1, 1])
  assert scores.trans_rate(x, y, epsilon=1.0) == pytest.approx(0)
  far = np.array([[-1.0, 0], [-1, 0], [1, 0], [1, 0]])
  assert scores.trans_rate(far, y, epsilon=1.0) == pytest.approx(
    0
  )  # centred by the whole mean alone, as the paper has it
  both = np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]])
  assert scores.trans_rate(both, y, epsilon=1.0) == pytest.approx(
    (np.log(3) + np.log(1.5)) / 2 - (np.log(5) + np.log(2)) / 4
  )


def test_leep_and_nce_of_a_source_that_says_nothing_are_minus_the_entropy():
  y = np.array([0, 0, 0, 1])
  entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
  assert (
    scores.leep(np.full((4, 5), 0.2), y)
    == pytest.approx(-entropy)
    == scores.nce(np.full((4, 5), 0.2), y)
  )


def test_leep_by_hand_and_its_bound():
  """P(y=0 | z) = (.9 + .2) / (.9 + .2 + .3) for z = 0, and so on.

  LEEP ≥ NCE + mean log of the largest probability (property 2).
  """
  source, y = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]), np.array([0, 0, 1])
  a, b = 1.1 / 1.4, 0.9 / 1.6
  expected = np.mean(np.log([0.9 * a + 0.1 * b, 0.2 * a + 0.8 * b, 0.3 * (1 - a) + 0.7 * (1 - b)]))
  assert scores.leep(source, y) == pytest.approx(expected)
  random = np.random.RandomState(1)
  source, y = random.dirichlet(np.ones(6), 40), random.randint(0, 3, 40)
  assert scores.leep(source, y) >= scores.nce(source, y) + np.mean(np.log(source.max(1)))


@pytest.mark.parametrize('score', [scores.log_me, scores.h_score, scores.trans_rate])
def test_features_that_tell_classes_apart_score_higher(wine, score):
  x, y = wine
  assert score(x, y) > score(x, np.random.RandomState(0).permutation(y))


def test_one_class_alone_is_refused():
  with pytest.raises(MedtlError, match=r'1 classes; expected'):
    scores.h_score(np.ones((3, 2)), np.zeros(3, int))


def test_h_score_of_more_features_than_examples_is_classes_less_one_in_float32_too():
  """All classes can be told apart there.

  A mean taken in float32 once added a direction of its own.
  """
  random = np.random.RandomState(0)
  x, y = (5 + random.randn(40, 300)).astype(np.float32), np.arange(40) % 4
  assert scores.h_score(x, y) == pytest.approx(3, abs=1e-6)
  few = (50 + random.randn(40, 8)).astype(np.float32)
  assert scores.h_score(few, y) == pytest.approx(
    scores.h_score(few.astype(np.float64), y), rel=1e-4
  )
