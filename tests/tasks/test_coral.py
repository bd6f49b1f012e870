"""Deep CORAL: the distance of two covariances, of which the target's labels are no part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import Batch, Forward, MedtlError
from medtl.run import assemble, run_data, train
from medtl.tasks import coral
from medtl.training import losses, step
from tests import tiny
from tests.tasks.test_adaptation import TARGET


def equation_1(source, target):
  """Sun & Saenko 2016, equations 1 to 3, entry by entry."""
  d = source.shape[1]

  def covariance(rows):
    n = len(rows)
    ones = np.ones((1, n))
    return (rows.T @ rows - (ones @ rows).T @ (ones @ rows) / n) / (n - 1)

  total = 0.0
  for i in range(d):
    for j in range(d):
      total += (covariance(source)[i, j] - covariance(target)[i, j]) ** 2
  return total / (4 * d**2)


def test_the_distance_is_the_paper_s_and_padding_changes_nothing():
  random = np.random.RandomState(0)
  source = random.randn(6, 3)
  target = 2 * random.randn(4, 3) + 5
  expected = equation_1(source, target)
  distance = coral.coral(source, jnp.ones(6, bool), target, jnp.ones(4, bool))
  assert float(distance) == pytest.approx(expected, rel=1e-5)
  padded = jnp.concatenate([target, 9 * jnp.ones((2, 3))])
  masked = coral.coral(source, jnp.ones(6, bool), padded, jnp.arange(6) < 4)
  assert float(masked) == pytest.approx(expected, rel=1e-5)


def test_one_picture_has_no_covariance_and_does_no_harm():
  rows = jnp.ones((4, 3)).at[0].set(2.0)
  distance, slope = jax.value_and_grad(coral.coral)(
    rows, jnp.arange(4) < 1, rows, jnp.ones(4, bool)
  )
  assert np.isfinite(distance) and np.isfinite(slope).all()


def test_the_distance_weighs_as_much_as_the_class_where_the_config_says_nothing():
  assert coral.task().keys['weight'] == 1


def config(**changes):
  base = dict(
    task=dict(name='coral', weight=2.0), streams=dict(target=TARGET), phases=(('none', '1 epochs'),)
  )
  return assemble.with_changes(tiny.get_config(), tuple((base | changes).items()))


def test_both_domains_are_seen_and_the_source_alone_is_classified():
  context = assemble.run_context(config())
  batch = next(run_data.step_batches(context, context.data['train']))
  state = context.start()
  terms, _ = context.loss(0)(state.params, state.extra, batch, jax.random.key(0), 0)
  counts = context.task.counts(batch)
  assert (int(counts['class']), int(counts['coral'])) == (16, 1)
  total, logs = step.weighted(terms, counts)
  assert float(total) == pytest.approx(float(logs['class'] + 2 * logs['coral']))
  dark = batch['target']._replace(x=jnp.zeros_like(batch['target'].x))
  others, _ = context.loss(0)(
    state.params, state.extra, {**batch, 'target': dark}, jax.random.key(0), 0
  )
  assert float(others['coral'].sum) != float(terms['coral'].sum)


def test_the_classifier_s_loss_is_that_of_the_source_s_own_rows():
  """A net that returns its input says which rows each term took."""
  random = np.random.RandomState(0)
  logits = random.randn(2, 4, 3).astype(np.float32)
  labels = jnp.array([0, 1, 2, 1])
  source = Batch(logits[0], labels, jnp.arange(4) < 3, jnp.arange(4))
  target = Batch(3 * logits[1], labels, jnp.arange(4) > 0, jnp.arange(4))
  same = Forward(lambda params, extra, x, key: (x, extra), lambda params, extra, x: x)
  terms, _ = coral.task(weight=2.0).loss(
    same, {}, {}, {'train': source, 'target': target}, jax.random.key(0), 0
  )
  expected = losses.softmax(source.x, labels)[:3].sum()
  np.testing.assert_allclose(terms['class'].sum, expected, rtol=1e-5)
  np.testing.assert_allclose(terms['coral'].sum, equation_1(source.x[:3], target.x[1:]), rtol=1e-4)


def test_a_run_is_chosen_and_tested_on_the_labelled_side(tmp_path):
  numbers = train.train(config(), tmp_path / 'run')
  assert numbers['headline'][0] == 'auroc'


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'streams': {}}, r"holds nothing, and the task coral reads \['target'\]"),
    ({'accumulate': 2}, 'a batch cannot be cut into parts'),
    ({'task': dict(name='coral', weight=-1.0)}, 'weight'),
  ],
)
def test_what_it_cannot_do_is_said(changes, words):
  with pytest.raises(MedtlError, match=words):
    assemble.run_context(config(**changes))


def test_a_head_that_does_not_serve_is_told_from_one_that_does():
  context = assemble.run_context(config(head=dict(name='branches.domain')))
  with pytest.raises(MedtlError, match=r'gives more than logits.*set config.head=dict'):
    context.lowered(0)
