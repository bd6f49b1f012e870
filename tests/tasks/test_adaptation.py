"""DANN: a reversed gradient, two streams, and no label of the target's anywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import Batch, Forward, MedtlError
from medtl.models import branches
from medtl.run import assemble, run_data, train
from medtl.tasks import adaptation
from tests import tiny

TARGET = dict(
  name='phantom.load',
  patients=40,
  scans=1,
  scanner='source',
  size=(32, 32),
  seed=1,
  ops='',
  split=dict(by='patient', folds=4, fold=0, seed=0),
)


def config(**changes):
  base = dict(
    task=dict(name='adaptation', ramp=10),
    head=dict(name='branches.domain', hidden=8),
    streams=dict(target=TARGET),
    phases=(('none', '1 epochs'),),
  )
  return assemble.with_changes(tiny.get_config(), tuple((base | changes).items()))


def test_a_gradient_is_turned_round():
  x = jnp.array([1.0, -2.0])
  loss = lambda x, strength: jnp.sum(branches.reverse(x, strength) ** 2)
  assert loss(x, 0.3) == 5.0
  np.testing.assert_allclose(jax.grad(loss)(x, 0.3), -0.3 * 2 * x)


def test_the_target_s_labels_are_hidden_and_its_pictures_are_seen():
  context = assemble.run_context(config())
  steps = run_data.step_batches(context, context.data['train'])
  batch = next(steps)
  assert set(batch) == {'train', 'target'} and batch['target'].x.shape == batch['train'].x.shape
  assert (np.asarray(batch['target'].y) == -1).all() and (np.asarray(batch['train'].y) >= 0).all()
  resumed = run_data.step_batches(context, context.data['train'], 3)
  for _ in range(3):
    later = next(steps)
  np.testing.assert_array_equal(later['target'].row, next(resumed)['target'].row)


def test_the_adversary_begins_weak_and_is_told_from_the_class():
  context = assemble.run_context(config())
  batch = next(run_data.step_batches(context, context.data['train']))
  state = context.start()
  key = jax.random.key(0)
  strengths = []
  for number in (0, 10):
    terms, extra = context.loss(0)(state.params, state.extra, batch, key, number)
    strengths.append(float(extra['adversary']['head']['strength']))
  assert strengths[0] == 0 and strengths[1] == pytest.approx(1, abs=1e-3)
  assert set(terms) == {'class', 'domain'}
  counts = context.task.counts(batch)
  assert (int(counts['class']), int(counts['domain'])) == (16, 32)


def test_a_run_is_chosen_and_tested_on_the_labelled_side(tmp_path):
  numbers = train.train(config(), tmp_path / 'run')
  assert numbers['headline'][0] == 'auroc'
  assert 'report.html' in {path.name for path in (tmp_path / 'run').iterdir()}


def test_streams_that_no_task_reads_are_refused():
  with pytest.raises(
    MedtlError, match=r"holds nothing, and the task adaptation reads \['target'\]"
  ):
    assemble.run_context(config(streams={}))
  with pytest.raises(MedtlError, match=r'reads no other data than config.data'):
    changes = (('streams', dict(target=TARGET)),)
    assemble.run_context(assemble.with_changes(tiny.get_config(), changes))


def test_a_head_that_does_not_serve_is_told_from_one_that_does():
  context = assemble.run_context(config(head=dict(name='linear')))
  with pytest.raises(MedtlError, match=r'has no domain classifier.*set config.head=dict'):
    context.lowered(0)


def test_norms_are_estimated_for_an_evaluation_on_what_a_step_normalises_together():
  context = assemble.run_context(config())
  x = next(run_data.norm_pictures(context, context.data['train']))
  source = next(run_data.train_batches(context.data['train'], context.config)).x
  target = next(run_data.train_batches(context.streams['target'], context.config)).x
  np.testing.assert_array_equal(x, jnp.concatenate([source, target]))


def test_the_ramp_is_a_thousand_steps_where_the_config_says_nothing():
  assert adaptation.task().keys['ramp'] == 1000


def test_the_domain_s_loss_is_the_cross_entropy_of_where_each_real_picture_is_from():
  logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, -1.0], [0.5, 0.5]], 'f4')
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))

  def applied(params, extra, x, key):
    return {'logits': jnp.zeros((4, 2)), 'domain': jnp.asarray(logits)}, extra

  row = jnp.arange(2)
  source = Batch(jnp.zeros((2, 1)), jnp.array([0, 1]), jnp.array([True, True]), row)
  target = Batch(jnp.zeros((2, 1)), jnp.array([-1, -1]), jnp.array([True, False]), row)
  adversary = {'adversary': {'head': {'strength': jnp.zeros(())}}}
  forward = Forward(applied, lambda *_: None)

  def terms_of(source, number=0, **keys):
    batch = {'train': source, 'target': target}
    task = adaptation.task(**keys)
    return task.loss(forward, {}, adversary, batch, jax.random.key(0), number)

  terms, _ = terms_of(source)
  expected = -(log_p[0, 0] + log_p[1, 0] + log_p[2, 1])  # the fourth picture is padding
  assert float(terms['domain'].sum) == pytest.approx(expected, rel=1e-6)
  assert float(terms['class'].sum) == pytest.approx(2 * np.log(2), rel=1e-6)
  terms, extra = terms_of(source._replace(mask=jnp.array([True, False])), 50, ramp=100)
  assert float(terms['class'].sum) == pytest.approx(np.log(2), rel=1e-6)
  # Ganin et al. 2016, section 5.2.2: 2 / (1 + exp(−10 p)) − 1 at p = 1/2
  reached = 2 / (1 + np.exp(-5)) - 1
  assert float(extra['adversary']['head']['strength']) == pytest.approx(reached, rel=1e-6)
