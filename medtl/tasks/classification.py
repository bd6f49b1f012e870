"""Classification: one class of several, one of two, several labels, or a grade.

Net outputs are logits; what a report reads are probabilities.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medtl.core import expressions
from medtl.core.types import (
  Batch,
  Dataset,
  Forward,
  MedtlError,
  Page,
  Predictions,
  Summary,
  Table,
  Task,
  Term,
  Terms,
  Tree,
)
from medtl.data import augmentation
from medtl.data.listing import labels
from medtl.evaluation import decisions, metrics, summary
from medtl.report import classification as section
from medtl.training import losses

Loss = Callable[[jax.Array, jax.Array], jax.Array]
# The loss of each kind where none is named.
DEFAULT = {
  'multiclass': 'softmax',
  'binary': 'softmax',
  'multilabel': 'sigmoid',
  'ordinal': 'ordinal',
}
KINDS = tuple(DEFAULT)
AUXILIARY = 0.4  # of the loss of an auxiliary classifier, as in the authors' code for Inception-v3
AUTO = 'auto'  # what open_keys settles, as it needs the labels
REASONS = {
  'multilabel': ': several columns of 0 and 1',
  'binary': ': two classes',
  'multiclass': ": more than two classes; where they are grades, set task.kind='ordinal'",
}


def task(kind: str = 'multiclass', loss: str = 'softmax') -> Task:
  """Return the task of telling classes apart.

  `kind` is 'multiclass' | 'binary' | 'multilabel' | 'ordinal'; `loss` a function of
  medtl/training/losses.py with its arguments, such as 'softmax(smoothing=0.1)'.
  """
  device = objective(loss_of(kind, loss), kind)
  numbers = Summary(
    whole=partial(summary.summarise, kind=kind),
    seeds=partial(summary.summarise_seeds, kind=kind),
    difference=partial(summary.compare, kind=kind),
    pooled=partial(with_thresholds, kind),
  )
  page = Page('classification.html.j2', section.content, partial(shown, kind))
  return Task(
    outputs=lambda classes: outputs(kind, len(classes)),
    check=partial(check, kind),
    accepts=partial(accepts, kind),
    loss=device.loss,
    counts=device.counts,
    measure=device.measure,
    monitor=lambda predictions: metrics.monitor(predictions.score, predictions.y, kind),
    summary=numbers,
    page=page,
    answers=partial(decisions.answers, kind=kind),
    metrics=metrics.of(kind),
    one_class=kind != 'multilabel',
    keys={'name': 'classification', 'kind': kind, 'loss': loss},
  )


def outputs(kind: str, classes: int) -> int:
  """Return how many logits a head needs."""
  if kind not in KINDS:
    raise MedtlError(f'unknown kind of task {kind!r}; there are: {", ".join(KINDS)}')
  if kind == 'binary' and classes != 2:
    raise MedtlError(
      f"kind='binary' expects 2 classes, the data has {classes}; choose kind='multiclass'"
    )
  return classes - 1 if kind == 'ordinal' else classes


def loss_of(kind: str, loss: str) -> Loss:
  """Return the loss that a text such as 'softmax(smoothing=0.1)' names.

  One that cannot learn tasks of the kind, or does not say what it learns, is an error.
  """
  outputs(kind, 2)  # the kind is known
  written = expressions.operations(losses, given=('outputs', 'y'))
  learns = {name: getattr(function, 'learns', ()) for name, function in written.items()}
  for call in expressions.parse_chain(loss):
    if call.name in learns:
      _check_learns(call.name, learns, kind)
  declared = {}
  for name, function in written.items():
    if set(KINDS) & set(learns[name]):
      declared[name] = function
  return expressions.single_function(loss, declared, given=('outputs', 'y'))


def _check_learns(name: str, learns: Mapping[str, Sequence[str]], kind: str) -> None:
  """Raise where a loss does not declare that it can learn tasks of the kind."""
  own = learns[name]
  if not own:
    raise MedtlError(
      f'the loss {name!r} does not say what it learns; write above it in '
      f'medtl/training/losses.py the kinds of task that it can learn: @learns({kind!r})'
    )
  for word in own:
    if word not in (*KINDS, losses.MASKS):
      raise MedtlError(
        f'@learns above the loss {name!r} names {word!r}, which is no kind of task; '
        f'{expressions.did_you_mean(str(word), KINDS)}'
      )
  if kind not in own:
    other = ''
    if len(own) == 1:
      where = 'name' if own[0] == losses.MASKS else 'kind'
      word = 'segmentation' if own[0] == losses.MASKS else own[0]
      other = f'set task.{where}={word!r} or '
    fit = [repr(loss) for loss, kinds in learns.items() if kind in kinds]
    raise MedtlError(
      f'the loss {name!r} cannot learn a task of kind {kind!r}; {other}choose a '
      f'loss for {kind}, such as {" or ".join(fit)}'
    )


def probabilities(logits: jax.Array, kind: str) -> jax.Array:
  """Return probabilities [b, k]: softmax, or the sigmoid of each of several labels.

  For grades they are CORN's: P(y = j) = P(y ≥ j) − P(y ≥ j+1) (Shi et al. 2023, equation 2).
  """
  logits = logits.astype(jnp.float32)
  if kind == 'multilabel':
    return jax.nn.sigmoid(logits)
  if kind == 'ordinal':
    above = jnp.cumprod(jax.nn.sigmoid(logits), -1)
    return -jnp.diff(above, axis=-1, prepend=1.0, append=0.0)
  return jax.nn.softmax(logits)


def weighted(values: jax.Array, y: jax.Array, class_weights: Sequence[float] | None) -> jax.Array:
  """Return losses [b], each times the weight of its class, or the mean weight of its labels."""
  if class_weights is None:
    return values
  weights = jnp.asarray(class_weights, jnp.float32)
  if y.ndim == 1:
    return values * weights[y]
  count = jnp.sum(y, -1)  # an example without any label keeps its own weight
  mean = jnp.sum(weights * y, -1) / jnp.maximum(1e-9, count)
  return values * jnp.where(count > 0, mean, 1.0)


def training_losses(loss: Loss, outputs: Any, y: jax.Array) -> jax.Array:
  """Return losses [b] of a head's outputs in training.

  They are logits [b, k], or {'logits': …, 'auxiliary': …} of `heads.auxiliary`, whose losses are
  added up (Szegedy et al. 2016, arXiv 1512.00567, section 4), the second by a factor.
  """
  if not isinstance(outputs, Mapping):
    return loss(outputs.astype(jnp.float32), y)
  if set(outputs) != {'logits', 'auxiliary'}:
    raise MedtlError(
      f'the head gives {", ".join(outputs)}, of which classification learns nothing but logits; '
      "set config.head=dict(name='linear')"
    )
  auxiliary = loss(outputs['auxiliary'].astype(jnp.float32), y)
  return loss(outputs['logits'].astype(jnp.float32), y) + AUXILIARY * auxiliary


class Objective(NamedTuple):
  """A task's functions on the device."""

  loss: Callable[..., tuple[Terms, Tree]]
  counts: Callable[[Batch], dict[str, jax.Array]]
  measure: Callable[..., dict[str, jax.Array]]


def objective(loss: Loss, kind: str) -> Objective:
  """Return what a step and an evaluation compute.

  `class_weights` [k] multiply an example's loss; the mean is over examples, so weights that average
  one keep the loss's scale.
  """

  def sums(
    forward: Forward,
    params: Tree,
    extra: Tree,
    batch: Batch,
    key: jax.Array,
    step: jax.Array,
    class_weights: Sequence[float] | None = None,
  ) -> tuple[Terms, Tree]:
    outputs, extra = forward.train(params, extra, batch.x, key)
    values = training_losses(loss, outputs, batch.y)
    values = weighted(values, batch.y, class_weights)
    total = jnp.sum(jnp.where(batch.mask, values, 0.0))
    return {'loss': Term(total)}, extra

  def counts(batch: Batch) -> dict[str, jax.Array]:
    return {'loss': jnp.sum(batch.mask)}

  def measure(forward: Forward, params: Tree, extra: Tree, batch: Batch) -> dict[str, jax.Array]:
    logits = forward.eval(params, extra, batch.x)
    return {'score': probabilities(logits, kind), 'loss': loss(logits.astype(jnp.float32), batch.y)}

  return Objective(sums, counts, measure)


def check(kind: str, keys: Mapping[str, Any]) -> None:
  """Raise for a key of the run that does not go with this kind of labels."""
  known = dict.fromkeys([*metrics.names(kind), 'loss'], 0.0)
  metrics.chosen(known, keys['monitor'])
  label = keys['data'].get('label', '')
  if kind == 'multilabel' and isinstance(label, str) and ',' in label:
    columns = tuple(word.strip() for word in label.split(','))
    raise MedtlError(
      f'config.data.label is {label!r}, the name of one column, but task.kind is '
      f"'multilabel'; several are written as a tuple: "
      f'--config.data.label="{columns}"'
    )
  if keys['sampling'] == 'balanced' and kind == 'multilabel':
    raise MedtlError(
      "config.sampling is 'balanced', which draws a class and then one of its "
      "examples, but task.kind is 'multilabel', several labels an example; set "
      "sampling='' and class_weights='balanced'"
    )
  if augmentation.mixes(keys['augment']) and kind == 'ordinal':
    raise MedtlError(
      f'config.augment is {keys["augment"]!r}, which mixes labels, but task.kind is '
      "'ordinal', whose grades cannot be mixed; leave mixup out"
    )


def accepts(kind: str, sides: Mapping[str, Dataset], keys: Mapping[str, Any]) -> None:
  """Raise where the labels are none of this kind, or the monitor has no value on validation."""
  dataset = sides['train']
  y = np.asarray(dataset.table['y'])
  if (y < 0).all():
    raise MedtlError(
      "the pictures have no labels (data.label=''): they can be predicted, not "
      "trained on; say where the labels stand, for instance data.label='label'"
    )
  several = y.ndim == 2
  if several and kind != 'multilabel':
    raise MedtlError(
      f'the data have several labels an example, but task.kind is {kind!r}; '
      "set task.kind='multilabel' and task.loss='sigmoid'"
    )
  if kind == 'multilabel' and not several:
    raise MedtlError(
      f'the data have one class an example, but task.kind is {kind!r}; '
      'choose multiclass, binary or ordinal'
    )
  if kind == 'ordinal' and dataset.facts.get('order') == labels.ALPHABET:
    order = ' < '.join(dataset.classes)
    raise MedtlError(
      "task.kind='ordinal' learns an order, and the classes are words that were put in the order "
      f'of the alphabet: {order}. Say the right one, from the least to the most: '
      "--config.data.classes=\"('LEAST', …, 'MOST')\" with all of these words"
    )
  if keys['monitor'] != 'loss':
    _monitor(kind, sides, keys)


def _monitor(kind: str, sides: Mapping[str, Dataset], keys: Mapping[str, Any]) -> None:
  """Raise where config.monitor has no value on the validation labels, whatever the net says."""
  classes = sides['val'].classes
  y = {side: np.asarray(dataset.table['y']) for side, dataset in sides.items()}
  val = y['val']
  whole = np.concatenate(list(y.values()))
  lacking = metrics.undefined(keys['monitor'], val, len(classes), kind)
  if not lacking:
    return
  reasons = []
  varies = True  # each of these labels, over all sides
  for label in lacking:
    everywhere = _has(whole, label)
    reasons.append(_constant(classes[label], _has(val, label), everywhere))
    varies = varies and len(np.unique(everywhere)) == 2
  if len(reasons) > 3:
    reasons[3:] = [f'and {len(reasons) - 3} more']
  defined = ', '.join(_monitors(val, len(classes), kind))
  advice = [f'set config.monitor to one that has: {defined}']
  if 'label' in keys['data'] and len(lacking) < len(classes):
    advice.append('leave the label out of data.label')
  if varies:
    advice.append(_other_split(keys['data']['split'], sides['val']))
  raise MedtlError(
    f'config.monitor is {keys["monitor"]!r}, which has no value on validation: '
    f'{"; ".join(reasons)}. You can {", or ".join(advice)}'
  )


def _monitors(y: np.ndarray, classes: int, kind: str) -> list[str]:
  """Return what can be monitored on the labels y."""
  names = metrics.names(kind)
  defined = [name for name in names if not metrics.undefined(name, y, classes, kind)]
  return [*defined, 'loss']


def _has(y: np.ndarray, label: int) -> np.ndarray:
  """Return [n] bool: which examples have a label, or are of a class."""
  return y[:, label] > 0.5 if y.ndim == 2 else y == label


def _constant(name: str, val: np.ndarray, whole: np.ndarray) -> str:
  """Return in words that a label is the same in all validation examples."""
  same = bool(val.all())
  others = int((whole != same).sum())
  rest = f'but not in {others} of all {len(whole)}' if others else f'as in all {len(whole)}'
  return f'label {name!r} is {int(same)} in all {len(val)} validation examples, {rest}'


def _other_split(split: Mapping[str, Any], val: Dataset) -> str:
  """Return which keys of the split may put other examples on the validation side."""
  publishers = split['by'] == 'publisher' and set(val.table['split']) == {'val'}
  if publishers:
    by = 'patient' if 'patient' in val.table else 'image'
    return f"set data.split.by={by!r}, which deals the publisher's sides anew"
  return 'take another data.split.fold or data.split.seed, or fewer data.split.folds'


def settle(
  keys: Mapping[str, Any],
  everything: Callable[[], Dataset],
  begun: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], str]:
  """Return (the keys with a value for each open one, what was settled in words; '' where nothing).

  kind='auto' is multilabel for label columns, binary for two classes, else multiclass; loss='' is
  the kind's own. A run that has begun keeps the keys that it has.
  """
  settled = dict(keys)
  note = ''
  if settled['kind'] == AUTO:
    settled['kind'] = begun['kind'] if begun else kind_of(everything())
    reason = REASONS.get(settled['kind'], '')
    note = f"task.kind='auto' is {settled['kind']!r}{reason}"
  if not settled['loss']:
    settled['loss'] = DEFAULT.get(settled['kind'], '')
  return settled, note


def kind_of(everything: Dataset) -> str:
  """Return the kind of task that labels are of."""
  if np.ndim(everything.table['y']) == 2:
    return 'multilabel'
  return 'binary' if len(everything.classes) == 2 else 'multiclass'


def shown(kind: str, predictions: Predictions) -> list[int]:
  """Return the predictions whose pictures the page shows: the most confident mistakes."""
  return [mistake['index'] for mistake in summary.worst_errors(predictions, kind)]


def with_thresholds(
  kind: str, test: Predictions, val: Predictions, val_table: Table, threshold: str
) -> Predictions:
  """Return the test predictions of a fold with the thresholds that its own validation chose."""
  return summary.with_thresholds(test, val, val_table, threshold, kind)
