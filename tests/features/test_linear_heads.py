"""Heads side by side are the heads one by one, and come to what scikit-learn finds exactly."""

import chex
import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression

from medtl.core.types import MedtlError
from medtl.evaluation import metrics
from medtl.features import linear_heads


@pytest.fixture(scope='module')
def wine():
  x, y = load_wine(return_X_y=True)
  return linear_heads.standardise(x)(x), y


SETTINGS = linear_heads.grid(lr=(0.03, 0.1), decay=(0.0, 0.02), balance=(0.0, 1.0), seed=(0, 1))


@pytest.fixture(scope='module')
def together(wine):
  return linear_heads.train(*wine, SETTINGS, 3)


def test_side_by_side_is_one_by_one(wine, together):
  chex.assert_shape(together.weight, (16, 13, 3))
  for index in (0, 6, 11, 15):
    alone = linear_heads.train(
      *wine, linear_heads.Settings(*(value[index : index + 1] for value in SETTINGS)), 3
    )
    chex.assert_trees_all_close(
      (together.weight[index], together.bias[index]), (alone.weight[0], alone.bias[0]), atol=2e-4
    )


@pytest.mark.parametrize('balance', [0.0, 1.0])
def test_a_converged_head_is_logistic_regression(wine, balance):
  x, y = wine
  decay = 0.02
  head = linear_heads.train(
    x, y, linear_heads.grid(lr=(0.1,), decay=(decay,), balance=(balance,)), 3, steps=3000
  )
  exact = LogisticRegression(
    C=1 / (decay * len(y)), tol=1e-8, max_iter=5000, class_weight='balanced' if balance else None
  ).fit(x, y)
  chex.assert_trees_all_close(np.asarray(head.weight[0]).T, exact.coef_, atol=2e-3)
  chex.assert_trees_all_close(linear_heads.predict(head, x)[0], exact.predict_proba(x), atol=2e-3)


def test_examples_that_a_head_does_not_use_change_nothing(wine):
  x, y = wine
  used = np.ones((1, len(y)), np.float32)
  used[0, ::3] = 0
  some = linear_heads.train(x, y, linear_heads.grid(decay=(0.02,), balance=(1.0,)), 3, used)
  kept = used[0] > 0
  alone = linear_heads.train(x[kept], y[kept], linear_heads.grid(decay=(0.02,), balance=(1.0,)), 3)
  chex.assert_trees_all_close(some, alone, atol=1e-4)


def test_standardised_features_have_mean_0_and_variance_1_and_constant_ones_say_nothing():
  x = np.random.RandomState(0).randn(50, 3) * [1, 100, 0] + [5, -3, 7]
  found = linear_heads.standardise(x)(x)
  assert np.allclose(found.mean(0), 0, atol=1e-6) and np.allclose(
    found.std(0), [1, 1, 0], atol=1e-6
  )


@pytest.mark.parametrize(
  'model', [linear_heads.logistic, linear_heads.ridge, linear_heads.neighbours, linear_heads.svm]
)
def test_exact_models_score_every_class(wine, model):
  x, y = wine
  found = linear_heads.score(model(x[::2], y[::2]), x[1::2])
  assert (
    found.shape == (89, 3)
    and np.allclose(found.sum(1), 1)
    and (found.argmax(1) == y[1::2]).mean() > 0.9
  )
  two = linear_heads.score(model(x[::2], (y[::2] > 0).astype(int)), x[1::2])
  assert two.shape == (89, 2) and ((two[:, 1] > 0.5) == (y[1::2] > 0)).mean() > 0.9


@pytest.mark.parametrize('classes', [2, 4])
def test_a_temperature_takes_back_the_scale_of_a_decision_function(classes):
  random = np.random.RandomState(0)
  logits = random.randn(20000, classes) * 2
  y = (logits + random.gumbel(size=logits.shape)).argmax(1)  # drawn from softmax(logits)

  class Margins:
    def decision_function(self, x):
      return 5 * x if classes > 2 else 5 * (x[:, 1] - x[:, 0]) / 2

  found = linear_heads.temperature(Margins(), logits, y)
  assert found == pytest.approx(5, rel=0.05)
  assert (
    metrics.ece(linear_heads.score(Margins(), logits, found), y)
    < 0.02
    < metrics.ece(linear_heads.score(Margins(), logits), y)
  )


def test_shapes_that_do_not_fit_are_named(wine):
  with pytest.raises(MedtlError, match=r'x \(178, 13\), y \(178,\), used \(2, 178\) for 1 heads'):
    linear_heads.train(*wine, linear_heads.grid(), 3, np.ones((2, 178)))
