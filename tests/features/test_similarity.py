"""CKA: what it must not see, and what it must."""

import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.features.similarity import cka

RANDOM = np.random.RandomState(0)
X = RANDOM.randn(40, 6)
Y = RANDOM.randn(40, 9)


def test_rotation_scale_and_shift_are_not_seen():
  rotation, _ = np.linalg.qr(RANDOM.randn(6, 6))
  assert cka(X, 3 * X @ rotation + 5) == pytest.approx(1, abs=1e-12)
  assert cka(X, Y) == pytest.approx(cka(2 * Y - 1, X))


def test_it_is_the_formula_of_the_paper_on_features():
  x = X - X.mean(0)
  y = Y - Y.mean(0)
  cross = np.linalg.norm(y.T @ x) ** 2
  expected = cross / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
  assert cka(X, Y) == pytest.approx(expected)
  assert cka(X.reshape(40, 2, 3), Y) == pytest.approx(expected)


def test_a_stretched_axis_is_seen():
  assert cka(X, X * np.array([10, 1, 1, 1, 1, 1])) < 0.9


@pytest.mark.parametrize(('y', 'words'), [(Y[:-1], 'found 40 and 39'), (Y * 0 + 1, 'the same')])
def test_what_cannot_be_compared_is_refused(y, words):
  with pytest.raises(MedtlError, match=words):
    cka(X, y)
