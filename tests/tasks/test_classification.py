"""A task's loss, probabilities and measures by hand, on logits that are handed through."""

import re
from contextlib import nullcontext

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import Batch, Dataset, Example, MedtlError
from medtl.data.listing import labels
from medtl.tasks import classification
from medtl.training import losses
from tests.conftest import supervised


class Identity:
  """A net whose logits are its input; it notes how it was applied."""

  def __init__(self):
    self.calls = []

  def apply(self, variables, x, *, train, start_child, mutable=None, rngs=None):
    self.calls.append((train, start_child, mutable, rngs))
    return x if mutable is None else (x, {name: {'moved': jnp.ones(1)} for name in mutable})


LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 0.0], [-1.0, -1.0, 3.0], [9.0, 9.0, 9.0]], 'f4')
LIVE = {'backbone': {'stem': {'w': False}, 'stage1': {'w': True}}, 'head': {'w': True}}


def batch_of(y, real=4):
  mask = jnp.arange(4) < real
  return Batch(jnp.asarray(LOGITS), jnp.asarray(y), mask, jnp.arange(4))


def loss_of(task, batch):
  value, (_, logs) = task.mean({}, {}, batch, jax.random.key(0))
  assert float(logs['loss']) == float(value)
  return float(value)


def test_the_loss_is_the_mean_over_real_rows():
  y = jnp.array([0, 1, 2, 0])
  task = supervised(Identity(), losses.softmax, kind='multiclass')
  each = np.asarray(losses.softmax(jnp.asarray(LOGITS), y))
  assert loss_of(task, batch_of(y)) == pytest.approx(each.mean())
  assert loss_of(task, batch_of(y, real=3)) == pytest.approx(each[:3].mean())
  assert loss_of(task, batch_of(y, real=0)) == 0, 'a batch of padding alone'


def test_an_auxiliary_classifier_adds_a_part_of_its_loss_in_training():
  y = jnp.array([0, 1, 2, 0])
  outputs = {'logits': jnp.asarray(LOGITS), 'auxiliary': jnp.asarray(LOGITS[::-1])}
  each = classification.training_losses(losses.softmax, outputs, y)
  main, auxiliary = (losses.softmax(jnp.asarray(logits), y) for logits in (LOGITS, LOGITS[::-1]))
  np.testing.assert_allclose(each, main + 0.4 * auxiliary, rtol=1e-6)
  alone = classification.training_losses(losses.softmax, outputs['logits'], y)
  np.testing.assert_array_equal(alone, main)
  with pytest.raises(MedtlError, match=r'gives logits, domain.*linear'):
    domain = {'logits': outputs['logits'], 'domain': outputs['logits']}
    classification.training_losses(losses.softmax, domain, y)


def test_class_weights_multiply_a_row_by_its_class_and_by_the_mean_of_its_labels():
  weights = (0.5, 1.0, 4.0)
  y = jnp.array([0, 1, 2, 0])
  task = supervised(Identity(), losses.softmax, kind='multiclass', class_weights=weights)
  each = np.asarray(losses.softmax(jnp.asarray(LOGITS), y))
  expected = (each * [0.5, 1, 4, 0.5]).mean()
  assert loss_of(task, batch_of(y)) == pytest.approx(expected, rel=1e-6)
  many = jnp.array([[1.0, 0, 1], [0, 1, 0], [0, 0, 0], [0.5, 0, 0]])
  task = supervised(Identity(), losses.sigmoid, kind='multilabel', class_weights=weights)
  each = np.asarray(losses.sigmoid(jnp.asarray(LOGITS), many))
  expected = (each * [2.25, 1, 1, 0.5]).mean()
  assert loss_of(task, batch_of(many)) == pytest.approx(expected, rel=1e-6)


def test_training_mode_is_for_live_children_and_dropout_has_the_steps_key():
  net = Identity()
  task = supervised(net, losses.softmax, kind='multiclass', live=LIVE, start_child=1)
  key = jax.random.key(5)
  extra = {'batch_stats': {'mean': jnp.zeros(1)}, 'kept': {}}
  _, (after, _) = task.mean({}, extra, batch_of(jnp.zeros(4, int)), key)
  train, start_child, mutable, rngs = net.calls[0]
  assert set(train) == {'stage1', 'head'} and start_child == 1
  assert mutable == ['batch_stats', 'kept'] and rngs == {'dropout': key}
  assert set(after) == {'batch_stats', 'kept'} and 'moved' in after['batch_stats']
  task.measure({}, extra, batch_of(jnp.zeros(4, int)))
  assert net.calls[1] == (False, 1, None, None)
  plain = Identity()
  supervised(plain, losses.softmax, kind='multiclass').measure({}, {}, batch_of(jnp.zeros(4, int)))
  assert plain.calls == [(False, 0, None, None)]


@pytest.mark.parametrize('kind', ['multiclass', 'multilabel', 'ordinal'])
def test_a_measure_is_probabilities_and_the_unweighted_loss_of_each_row(kind):
  name = classification.DEFAULT[kind]
  y = jnp.array([[1, 0, 1]] * 4) if kind == 'multilabel' else jnp.array([0, 1, 2, 0])
  loss = classification.loss_of(kind, name)
  task = supervised(Identity(), loss, kind=kind, class_weights=(9.0, 9.0, 9.0))
  found = task.measure({}, {}, batch_of(y, real=2))
  chex.assert_trees_all_close(found['score'], classification.probabilities(LOGITS, kind))
  chex.assert_trees_all_close(found['loss'], loss(jnp.asarray(LOGITS), y))


def test_probabilities_are_in_full_precision_whatever_the_logits_are():
  for kind in classification.KINDS:
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    found = classification.probabilities(half, kind)
    assert found.dtype == jnp.float32
    chex.assert_trees_all_equal(found, classification.probabilities(half.astype('f4'), kind))


def test_multilabel_probabilities_are_sigmoids_and_the_others_by_hand():
  sigmoid = 1 / (1 + np.exp(-LOGITS.astype(float)))
  found = classification.probabilities(jnp.asarray(LOGITS), 'multilabel')
  np.testing.assert_allclose(found, sigmoid, rtol=1e-5)
  above = np.cumprod(sigmoid, 1)
  expected = -np.diff(np.concatenate([np.ones((4, 1)), above, np.zeros((4, 1))], 1))
  found = classification.probabilities(jnp.asarray(LOGITS), 'ordinal')
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
  ('kind', 'classes', 'logits'),
  [('multiclass', 5, 5), ('binary', 2, 2), ('multilabel', 7, 7), ('ordinal', 5, 4)],
)
def test_a_head_has_as_many_logits_as_the_kind_needs(kind, classes, logits):
  assert classification.outputs(kind, classes) == logits


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (
      lambda: classification.outputs('regression', 2),
      "unknown kind of task 'regression'; there are: multiclass, binary, multilabel, ordinal",
    ),
    (
      lambda: classification.outputs('binary', 3),
      "kind='binary' expects 2 classes, the data has 3; choose kind='multiclass'",
    ),
    (
      lambda: classification.loss_of('regression', 'softmax'),
      "unknown kind of task 'regression'",
    ),
    (
      lambda: classification.loss_of('ordinal', 'softmax'),
      "cannot learn a task of kind 'ordinal'; choose a loss for ordinal, such as 'ordinal'",
    ),
    (
      lambda: classification.loss_of('binary', 'sigmoid'),
      "set task.kind='multilabel' or choose a loss for binary, such as 'softmax' or",
    ),
  ],
)
def test_what_cannot_be_is_refused_with_what_can(call, words):
  with pytest.raises(MedtlError, match=re.escape(words)):
    call()


@pytest.mark.parametrize('kind', classification.KINDS)
def test_probabilities_are_of_each_position_by_itself(kind):
  """Leading axes are only places: [2, 2, k] logits give the numbers of [4, k]."""
  found = classification.probabilities(jnp.asarray(LOGITS).reshape(2, 2, 3), kind)
  flat = classification.probabilities(jnp.asarray(LOGITS), kind)
  chex.assert_trees_all_close(found, flat.reshape(2, 2, -1), atol=1e-6)


def test_an_example_without_labels_divides_nothing_by_0():
  many = jnp.array([[1.0, 0.0], [0.0, 0.0]])
  with jax.debug_nans(True):
    values = classification.weighted(jnp.array([2.0, 3.0]), many, (0.5, 4.0))
  np.testing.assert_allclose(values, [1.0, 3.0])


@pytest.mark.parametrize('kind', classification.KINDS)
def test_only_of_several_labels_can_an_example_have_more_than_one(kind):
  loss = {'multilabel': 'sigmoid', 'ordinal': 'ordinal'}.get(kind, 'softmax')
  assert classification.task(kind, loss).one_class == (kind != 'multilabel')


@pytest.mark.parametrize(
  'kind, sampling, refused',
  [('multilabel', 'balanced', True), ('multilabel', '', False), ('multiclass', 'balanced', False)],
)
def test_classes_are_drawn_evenly_where_an_example_has_one(kind, sampling, refused):
  keys = {'monitor': 'loss', 'data': {}, 'sampling': sampling, 'augment': ''}
  with pytest.raises(MedtlError, match="sampling is 'balanced'") if refused else nullcontext():
    classification.check(kind, keys)


@pytest.mark.parametrize(
  'kind, order, refused',
  [
    ('ordinal', labels.ALPHABET, True),
    ('ordinal', labels.GIVEN, False),
    ('multiclass', labels.ALPHABET, False),
  ],
)
def test_grades_need_an_order_that_is_not_the_alphabet_s(kind, order, refused):
  table = {'row': np.arange(3), 'y': np.array([0, 1, 2])}
  facts = {'order': order}
  dataset = Dataset(lambda row: Example(None, 0, 0), 3, ('a', 'b', 'c'), table, facts=facts)
  with pytest.raises(MedtlError, match='order of the alphabet') if refused else nullcontext():
    classification.accepts(kind, {'train': dataset}, {'monitor': 'loss'})


@pytest.mark.parametrize(
  'classes, ends', [('abc', 'as in all 8'), ('abcd', '; and 1 more'), ('abcde', '; and 2 more')]
)
def test_of_many_labels_that_never_vary_three_are_named_and_the_others_counted(classes, ends):
  y = np.ones((4, len(classes)), np.float32)
  table = {'row': np.arange(4), 'y': y}
  side = Dataset(lambda row: Example(None, y[row], row), 4, tuple(classes), table, facts={})
  with pytest.raises(MedtlError) as error:
    classification.accepts(
      'multilabel', {'train': side, 'val': side}, {'monitor': 'auroc', 'data': {}}
    )
  reasons, _, _ = str(error.value).partition('. You can')
  named = [name for name in classes if f"label '{name}' is 1" in reasons]
  assert named == ['a', 'b', 'c'] and reasons.endswith(ends)
