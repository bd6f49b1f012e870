"""Scores that predict, without training, how well a linear head would do; more is better.

All but `leep` and `nce` are of features x [n, d] float and classes y [n]. Each raises a MedtlError
for other shapes, and where y holds fewer than two classes.
"""

import numpy as np

from medtl.core.types import MedtlError


def log_me(x: np.ndarray, y: np.ndarray, rounds: int = 100) -> float:
  """Return LogME: the log evidence of Bayesian linear regression on one-hot targets.

  It is a mean over examples and classes (You et al. 2021, arXiv 2102.11005, algorithm 1): per class
  a fixed point on the singular values of x finds the precisions α of the weights and β of the noise
  that maximise the evidence, in `rounds` rounds at most.
  """
  _check(x, y)
  n, d = x.shape
  u, s, _ = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
  square = s**2
  evidence = []
  for target in _one_hot(y).T:
    z = (u.T @ target) ** 2
    evidence.append(_evidence(z, target @ target, square, n, d, rounds))
  return float(np.mean(evidence))


def _evidence(
  z: np.ndarray, whole: float, square: np.ndarray, n: int, d: int, rounds: int
) -> float:
  """Return the largest log evidence ÷ n.

  z are the target's squared coordinates along the left singular vectors, `whole` is its squared
  length, and `square` are the squared singular values.
  """
  alpha = 1.0
  beta = 1.0
  for _ in range(rounds):
    before = (alpha, beta)
    t = alpha / beta
    gamma = np.sum(square / (square + t))
    weight, rest = _squared_lengths(z, whole, square, t)
    alpha = gamma / max(weight, 1e-12)
    beta = (n - gamma) / max(rest, 1e-12)
    if np.allclose((alpha, beta), before, rtol=1e-6):
      break
  weight, rest = _squared_lengths(z, whole, square, alpha / beta)
  along_features = np.sum(np.log(alpha + beta * square))
  log_det = along_features + (d - len(square)) * np.log(alpha)
  log_precisions = d * np.log(alpha) + n * np.log(beta)
  fit = beta * rest
  penalty = alpha * weight
  log_evidence = log_precisions - log_det - fit - penalty - n * np.log(2 * np.pi)
  return float(log_evidence / (2 * n))


def _squared_lengths(
  z: np.ndarray, whole: float, square: np.ndarray, t: float
) -> tuple[float, float]:
  """Return (|mean of the weights|², |residual|²)."""
  weight = np.sum(square * z / (square + t) ** 2)
  outside = max(0.0, whole - np.sum(z))  # the part of the target that no feature reaches
  rest = np.sum(z * (t / (square + t)) ** 2) + outside
  return weight, rest


def h_score(x: np.ndarray, y: np.ndarray) -> float:
  """Return tr(cov(x)⁻¹ cov(E[x | y])), at most classes − 1, by the pseudo-inverse.

  Bao et al. 2019, "An information-theoretic approach to transferability in task transfer learning".

  >>> h_score(np.array([[-1.0], [-1.0], [1.0], [1.0]]), np.array([0, 0, 1, 1])).__round__(6)
  1.0
  """
  _check(x, y)
  centred = _centred(x)
  one_hot = _one_hot(y)
  means = (one_hot.T @ centred) / one_hot.sum(0)[:, None]
  between = one_hot @ means
  inverse = np.linalg.pinv(centred.T @ centred, hermitian=True)
  return float(np.trace(inverse @ (between.T @ between)))


def trans_rate(x: np.ndarray, y: np.ndarray, epsilon: float = 1e-4) -> float:
  """Return TransRate: the coding rate of the features less that within the classes.

  Huang et al. 2022, arXiv 2106.09362. The rate is ½ log det(1 + xᵀx / (n ε)) of centred features;
  classes weigh by their number of examples.
  """
  _check(x, y)
  centred = _centred(x)
  within = 0.0
  for label in np.unique(y):
    in_class = y == label
    within += np.mean(in_class) * _rate(centred[in_class], epsilon)
  return float(_rate(centred, epsilon) - within)


def _rate(x: np.ndarray, epsilon: float) -> float:
  square = np.linalg.svd(x, compute_uv=False) ** 2
  return float(np.sum(np.log1p(square / (len(x) * epsilon))) / 2)


def leep(source: np.ndarray, y: np.ndarray) -> float:
  """Return LEEP from the source classifier's probabilities [n, z] of the target pictures.

  Nguyen et al. 2020, arXiv 2002.12462. It is 0 where source and target classes are the same:

  >>> leep(np.eye(2)[[0, 0, 1, 1]], np.array([5, 5, 7, 7]))
  0.0
  """
  _check(source, y)
  one_hot = _one_hot(y)
  _, conditional = _joint_and_conditional(source, one_hot)
  likelihood = np.sum((one_hot @ conditional) * source, 1)
  return float(np.mean(np.log(np.maximum(likelihood, 1e-300))))


def nce(source: np.ndarray, y: np.ndarray) -> float:
  """Return the negative conditional entropy of y given the source's most probable class.

  `source` [n, z] as for `leep` (Tran et al. 2019, arXiv 1908.08142).
  """
  _check(source, y)
  decided = np.eye(source.shape[1])[source.argmax(1)]
  joint, conditional = _joint_and_conditional(decided, _one_hot(y))
  log_conditional = np.log(np.where(joint > 0, conditional, 1.0))
  return float(np.sum(joint * log_conditional))


def _joint_and_conditional(
  source: np.ndarray, one_hot: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Return the empirical (P(y, z), P(y | z)), both [k, z]."""
  joint = one_hot.T @ source / len(one_hot)
  return joint, joint / np.maximum(joint.sum(0), 1e-300)


def _centred(x: np.ndarray) -> np.ndarray:
  """Return x less its mean, in float64.

  A mean in float32 leaves a remainder, which a pseudo-inverse makes as large as any feature.
  """
  x = np.asarray(x, np.float64)
  return x - x.mean(0)


def _one_hot(y: np.ndarray) -> np.ndarray:
  return (np.asarray(y)[:, None] == np.unique(y)).astype(np.float64)


def _check(x: np.ndarray, y: np.ndarray) -> None:
  count = len(np.unique(y))
  if x.ndim != 2 or y.shape != x.shape[:1] or count < 2:
    raise MedtlError(
      f'transferability: x {x.shape}, y {y.shape} with {count} classes; expected [n, d], [n] and '
      'two classes'
    )
