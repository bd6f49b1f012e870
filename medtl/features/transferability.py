"""Scores that predict, without training, how well a linear head would do on features: x [n, d] float, y [n] classes. More is better."""

import numpy as np

from medtl.core.types import MedtlError


def log_me(x: np.ndarray, y: np.ndarray, rounds: int = 100) -> float:
  """Return LogME: the evidence of Bayesian linear regression on one-hot targets, a mean over examples and classes.

  You et al. 2021 (arXiv 2102.11005), algorithm 1: per class the precisions α of the weights and β of the noise that maximise the
  evidence, found by a fixed point on the singular values of x.
  """
  _check(x, y)
  n, d = x.shape
  u, s, _ = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
  square = s**2
  return float(
    np.mean(
      [
        _evidence((u.T @ target) ** 2, target @ target, square, n, d, rounds)
        for target in _one_hot(y).T
      ]
    )
  )


def _evidence(
  z: np.ndarray, whole: float, square: np.ndarray, n: int, d: int, rounds: int
) -> float:
  """Return the largest log evidence ÷ n; z are the target's squared coordinates along the left singular vectors."""
  alpha, beta = 1.0, 1.0
  for _ in range(rounds):
    t, before = alpha / beta, (alpha, beta)
    gamma = np.sum(square / (square + t))
    weight, rest = _norms(z, whole, square, t)
    alpha, beta = gamma / max(weight, 1e-12), (n - gamma) / max(rest, 1e-12)
    if np.allclose((alpha, beta), before, rtol=1e-6):
      break
  weight, rest = _norms(z, whole, square, alpha / beta)
  log_det = np.sum(np.log(alpha + beta * square)) + (d - len(square)) * np.log(alpha)
  return float(
    (
      d * np.log(alpha)
      + n * np.log(beta)
      - log_det
      - beta * rest
      - alpha * weight
      - n * np.log(2 * np.pi)
    )
    / (2 * n)
  )


def _norms(z: np.ndarray, whole: float, square: np.ndarray, t: float) -> tuple[float, float]:
  """Return (|mean of the weights|², |residual|²)."""
  return np.sum(square * z / (square + t) ** 2), np.sum(z * (t / (square + t)) ** 2) + max(
    0.0, whole - np.sum(z)
  )


def h_score(x: np.ndarray, y: np.ndarray) -> float:
  """Return tr(cov(x)⁻¹ cov(E[x | y])), at most classes − 1, by the pseudo-inverse (Bao et al. 2019, An information-theoretic approach).

  >>> h_score(np.array([[-1.0], [-1.0], [1.0], [1.0]]), np.array([0, 0, 1, 1])).__round__(6)
  1.0
  """
  _check(x, y)
  centred = _centred(x)
  one_hot = _one_hot(y)
  means = (one_hot.T @ centred) / one_hot.sum(0)[:, None]
  between = one_hot @ means
  return float(
    np.trace(np.linalg.pinv(centred.T @ centred, hermitian=True) @ (between.T @ between))
  )


def trans_rate(x: np.ndarray, y: np.ndarray, epsilon: float = 1e-4) -> float:
  """Return TransRate: the coding rate of the features less that within the classes (Huang et al. 2022, arXiv 2106.09362).

  The rate is ½ log det(1 + xᵀx / (n ε)) of centred features; classes weigh by their number of examples.
  """
  _check(x, y)
  centred = _centred(x)
  within = sum(np.mean(y == kind) * _rate(centred[y == kind], epsilon) for kind in np.unique(y))
  return float(_rate(centred, epsilon) - within)


def _rate(x: np.ndarray, epsilon: float) -> float:
  square = np.linalg.svd(x, compute_uv=False) ** 2
  return float(np.sum(np.log1p(square / (len(x) * epsilon))) / 2)


def leep(source: np.ndarray, y: np.ndarray) -> float:
  """Return LEEP from the source classifier's probabilities [n, z] of the target pictures (Nguyen et al. 2020, arXiv 2002.12462).

  >>> leep(np.eye(2)[[0, 0, 1, 1]], np.array([5, 5, 7, 7]))           # source and target classes are one
  0.0
  """
  _check(source, y)
  joint = _one_hot(y).T @ source / len(y)  # [k, z]
  given = joint / np.maximum(joint.sum(0), 1e-300)
  found = np.sum((_one_hot(y) @ given) * source, 1)
  return float(np.mean(np.log(np.maximum(found, 1e-300))))


def nce(source: np.ndarray, y: np.ndarray) -> float:
  """Return the negative conditional entropy of y given the source's most probable class (Tran et al. 2019, arXiv 1908.08142)."""
  _check(source, y)
  joint = _one_hot(y).T @ np.eye(source.shape[1])[source.argmax(1)] / len(y)
  given = joint / np.maximum(joint.sum(0), 1e-300)
  return float(np.sum(joint * np.log(np.where(joint > 0, given, 1.0))))


def _centred(x: np.ndarray) -> np.ndarray:
  """Return x less its mean in float64: what a mean in float32 leaves over, a pseudo-inverse makes as large as any feature."""
  x = np.asarray(x, np.float64)
  return x - x.mean(0)


def _one_hot(y: np.ndarray) -> np.ndarray:
  return (np.asarray(y)[:, None] == np.unique(y)).astype(np.float64)


def _check(x: np.ndarray, y: np.ndarray) -> None:
  if x.ndim != 2 or y.shape != x.shape[:1] or len(np.unique(y)) < 2:
    raise MedtlError(
      f'transferability: x {x.shape}, y {y.shape} with {len(np.unique(y))} classes; expected [n, d], [n] and two classes'
    )
