"""Losses against scikit-learn and torch-independent arithmetic by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from medtl.core import expressions
from medtl.core.types import MedtlError
from medtl.evaluation import metrics
from medtl.tasks import classification
from medtl.training import losses

logits = np.random.RandomState(0).randn(6, 4).astype('f4')
y = np.array([0, 1, 2, 3, 1, 2])


def test_softmax_is_the_log_loss():
  found = losses.softmax(jnp.asarray(logits), jnp.asarray(y))
  chex.assert_shape(found, (6,))
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  assert np.isclose(found.mean(), log_loss(y, p, labels=range(4)), atol=1e-6)


@pytest.mark.parametrize('loss', [losses.softmax, losses.focal, losses.mse])
def test_hard_and_one_hot_targets_agree(loss):
  chex.assert_trees_all_close(
    loss(jnp.asarray(logits), jnp.asarray(y)),
    loss(jnp.asarray(logits), jnp.asarray(np.eye(4)[y])),
    atol=1e-6,
  )


def test_smoothing_mixes_with_the_uniform_loss():
  plain, uniform = (
    losses.softmax(jnp.asarray(logits), target)
    for target in (jnp.asarray(y), jnp.full((6, 4), 0.25))
  )
  chex.assert_trees_all_close(
    losses.softmax(jnp.asarray(logits), jnp.asarray(y), smoothing=0.2),
    0.8 * plain + 0.2 * uniform,
    atol=1e-6,
  )


def test_focal_without_focus_is_softmax_and_focus_forgives_the_easy():
  x = jnp.asarray(logits)
  chex.assert_trees_all_close(
    losses.focal(x, jnp.asarray(y), gamma=0.0), losses.softmax(x, jnp.asarray(y)), atol=1e-6
  )
  easy, hard = losses.focal(jnp.asarray([[4.0, 0.0], [0.0, 4.0]]), jnp.array([0, 0]))
  plain = losses.softmax(jnp.asarray([[4.0, 0.0], [0.0, 4.0]]), jnp.array([0, 0]))
  assert easy / plain[0] < 1e-3 < 0.9 < hard / plain[1]


def test_sigmoid_is_the_mean_binary_log_loss():
  targets = np.array([[1, 0, 0, 1]] * 6)
  p = 1 / (1 + np.exp(-logits))
  by_hand = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(1)
  chex.assert_trees_all_close(
    losses.sigmoid(jnp.asarray(logits), jnp.asarray(targets)),
    jnp.asarray(by_hand, jnp.float32),
    atol=1e-5,
  )


@pytest.mark.parametrize('targets', [y, np.array([[1, 0, 0, 1]] * 6)])
def test_sigmoid_smoothing_mixes_with_the_loss_of_one_half(targets):
  x = jnp.asarray(logits)
  plain = losses.sigmoid(x, jnp.asarray(targets))
  undecided = losses.sigmoid(x, jnp.full((6, 4), 0.5))
  chex.assert_trees_all_close(
    losses.sigmoid(x, jnp.asarray(targets), smoothing=0.2), 0.8 * plain + 0.2 * undecided, atol=1e-6
  )


def test_mse_is_a_mean_over_the_outputs():
  """Outputs .5, −1 and 2 against class 0: (.5² + 1² + 2²) ÷ 3."""
  found = losses.mse(jnp.array([[0.5, -1.0, 2.0]]), jnp.array([0]))
  assert float(found[0]) == pytest.approx((0.25 + 1 + 4) / 3)


def test_ordinal_by_hand():
  """Grade 1 of 3: task 'above 0' is yes, task 'above 1' (reached) is no."""
  x = np.array([[0.3, -0.7]], 'f4')
  s = 1 / (1 + np.exp(-x))
  assert np.isclose(
    losses.ordinal(jnp.asarray(x), jnp.array([1]))[0],
    -(np.log(s[0, 0]) + np.log(1 - s[0, 1])) / 2,
    atol=1e-6,
  )
  assert np.isclose(
    losses.ordinal(jnp.asarray(x), jnp.array([0]))[0], -np.log(1 - s[0, 0]) / 2, atol=1e-6
  )
  with pytest.raises(MedtlError, match='soft targets'):
    losses.ordinal(jnp.asarray(x), jnp.ones((1, 3)))


@pytest.mark.parametrize('kind', classification.KINDS)
def test_probabilities_are_probabilities(kind):
  classes = 2 if kind == 'binary' else 4
  x = jnp.asarray(
    np.random.RandomState(1).randn(5, classification.outputs(kind, classes)) * 5, jnp.float32
  )
  p = np.asarray(classification.probabilities(x, kind))
  chex.assert_shape(p, (5, classes))
  assert (p >= 0).all() and (p <= 1).all()
  if kind != 'multilabel':
    assert np.allclose(p.sum(1), 1, atol=1e-6)


def test_ordinal_probabilities_by_hand():
  x = jnp.asarray([[1.0, -1.0]])
  a, b = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))
  assert np.allclose(
    classification.probabilities(x, 'ordinal')[0], [1 - a, a - a * b, a * b], atol=1e-6
  )


DECLARED = {
  name: function.learns
  for name, function in expressions.public(losses).items()
  if hasattr(function, 'learns')
}
PAIRS = [(name, kind) for name, kinds in DECLARED.items() for kind in kinds]


def answers(name: str, kind: str) -> np.ndarray:
  """Return [n, k] bool: what each example's own logits decide after descent on the loss."""
  classes = 2 if kind == 'binary' else 3
  wanted = truth_of(kind)
  loss = getattr(losses, name)
  slope = jax.jit(jax.grad(lambda x: loss(x, jnp.asarray(wanted)).sum()))
  x = jnp.full((len(wanted), classification.outputs(kind, classes)), 0.1)
  for _ in range(200):
    x = x - 0.3 * slope(x)
  return metrics.decided(np.asarray(classification.probabilities(x, kind)), wanted)


def truth_of(kind: str) -> np.ndarray:
  """Return labels in which every class is met, or every combination of labels."""
  if kind == 'multilabel':
    return np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
  return np.arange(2 if kind == 'binary' else 3)


@pytest.mark.parametrize(('name', 'kind'), [pair for pair in PAIRS if pair[1] != losses.MASKS])
def test_a_loss_learns_what_it_declares(name, kind):
  decided, wanted = answers(name, kind), truth_of(kind)
  assert (decided == metrics.truth(decided, wanted)).all() and kind in classification.KINDS


@pytest.mark.parametrize('name', [name for name, kind in PAIRS if kind == losses.MASKS])
def test_a_loss_that_learns_masks_finds_every_pixel(name):
  wanted = jnp.asarray(np.random.RandomState(3).randint(0, 3, (2, 4, 5)))
  loss = getattr(losses, name)
  slope = jax.jit(jax.grad(lambda x: loss(x, wanted).sum()))
  x = jnp.full((2, 4, 5, 3), 0.1)
  for _ in range(200):
    x = x - 3 * slope(x)
  np.testing.assert_array_equal(x.argmax(-1), wanted)


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    ('softmax', 'ordinal'),
    ('focal', 'ordinal'),
    ('mse', 'ordinal'),
    ('mse', 'multilabel'),
    ('softmax', 'multilabel'),
  ],
)
def test_what_it_does_not_declare_it_may_never_learn(name, kind):
  decided, wanted = answers(name, kind), truth_of(kind)
  assert kind not in DECLARED[name] and (decided != metrics.truth(decided, wanted)).any()


@pytest.mark.parametrize('kind', classification.KINDS)
@pytest.mark.parametrize('name', DECLARED)
def test_a_loss_is_used_for_what_it_declares_and_the_advice_works(name, kind):
  if kind in DECLARED[name]:
    classification.loss_of(kind, name)
    return
  with pytest.raises(
    MedtlError, match=f"the loss '{name}' cannot learn a task of kind '{kind}'"
  ) as error:
    classification.loss_of(kind, name)
  advised = [
    other for other in DECLARED if f'{other!r}' in str(error.value).partition('such as')[2]
  ]
  assert advised == [other for other, kinds in DECLARED.items() if kind in kinds]
  if 'set task.kind=' in str(error.value):
    assert f'set task.kind={DECLARED[name][0]!r}' in str(error.value)


@pytest.fixture
def new(monkeypatch):
  """Put a function into losses.py as a researcher would write it."""

  def write(text: str):
    made = dict(vars(losses))
    exec(text, made)
    monkeypatch.setattr(losses, 'huber', made['huber'], raising=False)

  return write


HUBER = 'def huber(outputs, y):\n  return jnp.abs(outputs - _target(outputs, y)).sum(-1)\n'


def test_a_new_loss_must_say_what_it_learns(new):
  new(HUBER)
  for kind in classification.KINDS:
    with pytest.raises(
      MedtlError,
      match=rf"the loss 'huber' does not say what it learns; .*losses.py.*@learns\('{kind}'\)",
    ):
      classification.loss_of(kind, 'huber')
  with pytest.raises(MedtlError, match='unknown operation') as error:
    classification.loss_of('multiclass', 'hubert')
  assert 'huber' not in str(error.value).partition('here are: ')[2]
  new(f"@learns('multiclass')\n{HUBER}")
  assert classification.loss_of('multiclass', 'huber')(
    jnp.zeros((2, 3)), jnp.array([0, 1])
  ).shape == (2,)
  with pytest.raises(
    MedtlError,
    match=r"'huber' cannot learn a task of kind 'ordinal'; set task.kind='multiclass' or choose",
  ):
    classification.loss_of('ordinal', 'huber')


def test_a_declaration_that_means_nothing_is_refused(new):
  new(f"@learns('multiclas')\n{HUBER}")
  with pytest.raises(
    MedtlError,
    match="'huber' names 'multiclas', which is no kind of task; did you mean 'multiclass'",
  ):
    classification.loss_of('multiclass', 'huber')
  with pytest.raises(MedtlError, match=r"expected some, such as @learns\('multiclass', 'binary'\)"):
    new(f'@learns\n{HUBER}')
  new(f'@learns()\n{HUBER}')
  with pytest.raises(MedtlError, match='does not say what it learns'):
    classification.loss_of('multiclass', 'huber')


@pytest.mark.parametrize('name', ['target', '_target', 'learns', 'jnp', 'soft'])
def test_helpers_are_no_losses(name):
  with pytest.raises(MedtlError, match='unknown operation') as error:
    classification.loss_of('multiclass', name)
  assert str(error.value).lower().endswith('there are: focal, mse, ordinal, sigmoid, softmax')


@pytest.mark.parametrize(
  'text', ['', 'softmax | focal', 'softmax(smoothing="much")', 'focal(1.0, 2.0)']
)
def test_a_task_has_one_loss_with_its_own_keys(text):
  with pytest.raises(MedtlError, match='expected'):
    classification.loss_of('multiclass', text)


@pytest.mark.parametrize('name', ['softmax', 'focal', 'mse', 'sigmoid'])
def test_a_loss_is_of_each_position_by_itself(name):
  """Leading axes are only places: [2, 3, k] outputs give the numbers of [6, k]."""
  loss = getattr(losses, name)
  flat = loss(jnp.asarray(logits), jnp.asarray(y))
  folded = loss(jnp.asarray(logits).reshape(2, 3, 4), jnp.asarray(y).reshape(2, 3))
  chex.assert_trees_all_close(folded, flat.reshape(2, 3), atol=1e-6)
  soft = jnp.asarray(np.eye(4)[y]).reshape(2, 3, 4)
  chex.assert_trees_all_close(
    loss(jnp.asarray(logits).reshape(2, 3, 4), soft), flat.reshape(2, 3), atol=1e-6
  )


@pytest.mark.parametrize('name', ['softmax', 'sigmoid'])
def test_no_smoothing_by_default(name):
  loss = getattr(losses, name)
  plain = loss(jnp.asarray(logits), jnp.asarray(y))
  chex.assert_trees_all_equal(plain, loss(jnp.asarray(logits), jnp.asarray(y), smoothing=0.0))


def test_focal_by_hand_with_a_gamma_of_two_by_default():
  """Logits log 3 and 0: p = 3/4 of the class that is there."""
  x = jnp.log(jnp.array([[3.0, 1.0], [3.0, 1.0]]))
  found = losses.focal(x, jnp.array([0, 1]))
  expected = [-(0.25**2) * np.log(0.75), -(0.75**2) * np.log(0.25)]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  np.testing.assert_allclose(
    losses.focal(x, jnp.array([0, 1]), gamma=1.0)[0], expected[0] * 4, rtol=1e-5
  )


def test_the_ordinal_loss_of_each_grade_of_four():
  x = np.array([[0.3, -0.7, 1.1]] * 4, 'f4')
  yes = np.log(1 / (1 + np.exp(-x[0])))
  no = np.log(1 / (1 + np.exp(x[0])))
  expected = [
    -no[0] / 3,
    -(yes[0] + no[1]) / 3,
    -(yes[0] + yes[1] + no[2]) / 3,
    -yes.sum() / 3,
  ]
  found = losses.ordinal(jnp.asarray(x), jnp.arange(4))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize('smooth', [0.5, 1.0])
def test_dice_of_a_class_that_is_not_there_costs_what_is_predicted_of_it(smooth):
  outputs = jnp.log(jnp.array([[[0.8, 0.2], [0.6, 0.4]]]))  # two pixels, p of the class .2 and .4
  absent = losses.dice(outputs, jnp.array([[0, 0]]), smooth=smooth)
  squares = 0.2**2 + 0.4**2
  np.testing.assert_allclose(absent, [1 - smooth / (squares + smooth)], rtol=1e-5)
  present = losses.dice(outputs, jnp.array([[0, 1]]), smooth=smooth)
  expected = 1 - (2 * 0.4 + smooth) / (squares + 1 + smooth)
  np.testing.assert_allclose(present, [expected], rtol=1e-5)
