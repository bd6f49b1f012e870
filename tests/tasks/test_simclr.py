"""SimCLR: the loss as the paper writes it, and a run whose features another task takes over."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.core.types import Batch, Forward, MedtlError
from medtl.run import assemble, predict, run_data, run_folder, run_report, train
from medtl.tasks import simclr
from medtl.training import step
from medtl.training.checkpoints import Checkpoints
from tests import tiny


def by_hand(one, other, temperature):
  """Equation 1 of Chen et al. 2020, sum by sum."""
  views = np.concatenate([one, other])
  unit = views / np.linalg.norm(views, axis=1, keepdims=True)
  similarity = np.exp(unit @ unit.T / temperature)
  count = len(one)
  losses = []
  for i in range(2 * count):
    j = (i + count) % (2 * count)
    others = sum(similarity[i, k] for k in range(2 * count) if k != i)
    losses.append(-np.log(similarity[i, j] / others))
  return (np.array(losses[:count]) + np.array(losses[count:])) / 2


def test_the_loss_is_the_paper_s_and_padding_is_nobody_s_negative():
  random = np.random.RandomState(0)
  one, other = random.randn(2, 5, 7).astype(np.float32)
  real = jnp.ones(5, bool)
  found = simclr.nt_xent(jnp.stack([one, other]), real, 0.5)
  np.testing.assert_allclose(found, by_hand(one, other, 0.5), rtol=1e-5)
  padded = jnp.concatenate([jnp.stack([one, other]), 9 * jnp.ones((2, 3, 7))], axis=1)
  masked = simclr.nt_xent(padded, jnp.arange(8) < 5, 0.5)
  np.testing.assert_allclose(masked[:5], found, rtol=1e-5)
  assert np.isfinite(simclr.nt_xent(jnp.zeros((2, 5, 7)), real, 0.5)).all()


def config(**changes):
  base = dict(
    task=dict(name='simclr', temperature=0.2),
    head=dict(name='projections.mlp', width=8, hidden=16),
    augment='flip | shift(0.1)',
    monitor='loss',
    phases=(('none', '2 epochs'),),
  )
  return assemble.with_changes(tiny.get_config(), tuple((base | changes).items()))


def test_two_copies_of_a_picture_are_augmented_apart():
  context = assemble.run_context(config())
  batch = next(run_data.train_batches(context.data['train'], context.config))
  one, other = step.augmented(jax.random.key(0), batch, context.augment, 2)
  assert not np.array_equal(one.x, other.x)
  np.testing.assert_array_equal(one.row, other.row)


@pytest.mark.parametrize('shape', [(4, 5), (3, 4, 5)])
def test_an_evaluation_compares_a_picture_with_itself_mirrored(shape):
  """The last axis of space is turned round, never the colours; the net here returns its input."""
  x = np.random.RandomState(0).rand(6, *shape, 3).astype(np.float32)
  real = jnp.arange(6) < 5
  flat = Forward(
    lambda params, extra, x, key: (x, extra), lambda params, extra, x: x.reshape(len(x), -1)
  )
  batch = Batch(jnp.asarray(x), jnp.zeros(6), real, jnp.arange(6))
  found = simclr.task(temperature=0.5).measure(flat, {}, {}, batch)['loss']
  mirrored = x[..., ::-1, :]
  expected = by_hand(x[:5].reshape(5, -1), mirrored[:5].reshape(5, -1), 0.5)
  np.testing.assert_allclose(found[:5], expected, rtol=1e-5)


def test_what_is_learned_without_labels_begins_a_classifier(tmp_path):
  numbers = train.train(config(), tmp_path / 'views')
  assert numbers['headline'] == ['loss'] and numbers['metrics']['loss']['low'] > 0
  assert 'All numbers' in (tmp_path / 'views' / 'report.html').read_text()
  again = json.loads((tmp_path / 'views' / 'numbers.json').read_text())
  assert run_report.write_report(tmp_path / 'views')['metrics'] == again['metrics']
  changes = (
    ('model.weights', f'run:{tmp_path / "views"}'),
    ('phases', (('depth(1.0)', '1 epochs'),)),
  )
  classifier = assemble.with_changes(tiny.get_config(), changes)
  context = train.prepare(classifier, tmp_path / 'views')
  saved = Checkpoints(tmp_path / 'views' / 'checkpoints')
  params, _ = saved.params('best')
  saved.close()
  ours, theirs = (pytrees.flatten(tree['backbone']) for tree in (context.params, params))
  assert ours.keys() == theirs.keys()
  for path, leaf in theirs.items():
    np.testing.assert_array_equal(ours[path], leaf)
  with pytest.raises(MedtlError, match=r"predicts nothing; train a classifier.*weights='run:"):
    predict.load_trained(run_folder.read_config(tmp_path / 'views'), tmp_path / 'views')[0].answers(
      None, [], []
    )


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'augment': ''}, 'learns from two augmented views'),
    ({'monitor': 'auroc'}, "set monitor='loss'"),
    ({'accumulate': 2}, 'a batch cannot be cut into parts'),
  ],
)
def test_what_two_views_cannot_do_is_said_before_anything_is_read(changes, said):
  with pytest.raises(MedtlError, match=said):
    assemble.run_context(config(**changes))


def test_a_head_that_does_not_serve_is_told_from_one_that_does():
  context = assemble.run_context(config(head=dict(name='linear')))
  with pytest.raises(MedtlError, match=r'gives no projection of a picture.*set config.head=dict'):
    context.lowered(0)
