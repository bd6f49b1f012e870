"""VICReg: the loss as the paper's pseudo code has it, and a run that does not collapse unseen."""

import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.run import assemble, train
from medtl.tasks import vicreg
from tests import tiny

WEIGHTS = dict(invariance=25.0, variance=25.0, covariance=1.0)


def algorithm_1(z_a, z_b, lambda_, mu, nu):
  """Bardes et al. 2022, algorithm 1, line by line in numpy."""
  n, d = z_a.shape
  sim_loss = np.mean((z_a - z_b) ** 2)
  std_z_a = np.sqrt(z_a.var(axis=0, ddof=1) + 1e-4)
  std_z_b = np.sqrt(z_b.var(axis=0, ddof=1) + 1e-4)
  std_loss = np.mean(np.maximum(0, 1 - std_z_a)) + np.mean(np.maximum(0, 1 - std_z_b))
  z_a = z_a - z_a.mean(axis=0)
  z_b = z_b - z_b.mean(axis=0)
  cov_z_a = (z_a.T @ z_a) / (n - 1)
  cov_z_b = (z_b.T @ z_b) / (n - 1)
  off_diagonal = ~np.eye(d, dtype=bool)
  cov_loss = (cov_z_a[off_diagonal] ** 2).sum() / d + (cov_z_b[off_diagonal] ** 2).sum() / d
  return lambda_ * sim_loss + mu * std_loss + nu * cov_loss


@pytest.mark.parametrize('weights', [(25, 25, 1), (1, 0, 0), (1, 7, 0), (1, 0, 3)])
def test_the_loss_is_that_of_the_paper_s_algorithm(weights):
  z_a, z_b = 0.8 * np.random.RandomState(0).randn(2, 6, 4)
  losses = vicreg.vicreg(jnp.stack([z_a, z_b]), jnp.ones(6, bool), *weights)
  assert losses.shape == (6,)
  assert float(losses.mean()) == pytest.approx(algorithm_1(z_a, z_b, *weights), rel=1e-5)


def test_padding_changes_nothing():
  views = jnp.asarray(np.random.RandomState(1).randn(2, 5, 4))
  alone = vicreg.vicreg(views, jnp.ones(5, bool), **WEIGHTS)
  padded = jnp.concatenate([views, 9 * jnp.ones((2, 3, 4))], axis=1)
  masked = vicreg.vicreg(padded, jnp.arange(8) < 5, **WEIGHTS)
  np.testing.assert_allclose(masked[:5], alone, rtol=1e-5)


def test_features_that_are_all_the_same_cost_their_lack_of_variance():
  collapsed = jnp.ones((2, 6, 4))
  losses = vicreg.vicreg(collapsed, jnp.ones(6, bool), **WEIGHTS)
  np.testing.assert_allclose(losses, 2 * 25 * (1 - 0.01), rtol=1e-5)  # √ε = 0.01
  single = vicreg.vicreg(collapsed[:, :1], jnp.ones(1, bool), **WEIGHTS)
  assert np.isfinite(single).all()


def config(**changes):
  base = dict(
    task=dict(name='vicreg'),
    head=dict(name='projections.mlp', width=8, hidden=16, layers=3),
    augment='flip | shift(0.1)',
    monitor='loss',
    phases=(('none', '1 epochs'),),
  )
  return assemble.with_changes(tiny.get_config(), tuple((base | changes).items()))


def test_a_run_says_on_its_page_what_it_learned(tmp_path):
  numbers = train.train(config(), tmp_path / 'run')
  assert numbers['headline'] == ['loss'] and numbers['metrics']['loss']['low'] > 0
  assert vicreg.aim(()) in (tmp_path / 'run' / 'report.html').read_text()


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'augment': ''}, 'the task vicreg learns from two augmented views'),
    ({'accumulate': 2}, 'a batch cannot be cut into parts'),
    ({'task': dict(name='vicreg', invariance=0.0)}, 'invariance'),
  ],
)
def test_what_it_cannot_do_is_said_before_anything_is_read(changes, words):
  with pytest.raises(MedtlError, match=words):
    assemble.run_context(config(**changes))


def test_the_weights_of_the_terms_are_the_paper_s_where_the_config_says_nothing():
  keys = vicreg.task().keys
  assert [keys[name] for name in ('variance', 'invariance', 'covariance')] == [25, 25, 1]
