"""Segmentation: a class for every pixel or voxel, one of them the background.

The head's outputs are logits [b, *s, k]; the mask is the most probable class. Number 0 is the
background, which Dice leaves out.
"""

import ast
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medtl.core import expressions
from medtl.core.types import (
  Answers,
  Batch,
  Dataset,
  Example,
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
from medtl.evaluation import metrics
from medtl.evaluation import segmentation as numbers
from medtl.report import segmentation as section
from medtl.training import losses

LOOK = 32  # masks a side that are looked at before a run


class Part(NamedTuple):
  """One term of the loss: weight · function(outputs, y)."""

  name: str
  weight: float
  function: Any


def task(loss: str = 'dice + softmax') -> Task:
  """Return the task of outlining classes.

  `loss` is a sum of functions of medtl/training/losses.py that learn masks, each with its arguments
  and perhaps a weight before it: 'dice + 0.5 * softmax(smoothing=0.1)'. Each is a mean over the
  pixels of an example, then over examples.
  """
  parts = parts_of(loss)
  summary = Summary(numbers.summarise, numbers.summarise_seeds, numbers.compare, pooled)
  page = Page('segmentation.html.j2', section.content, section.shown, aim)
  return Task(
    outputs=len,
    check=check,
    accepts=accepts,
    loss=partial(terms, parts),
    counts=partial(counts, parts),
    measure=partial(measure, parts),
    monitor=numbers.monitor,
    summary=summary,
    page=page,
    answers=answers,
    dense=dense,
    keys={'name': 'segmentation', 'loss': loss},
  )


def parts_of(loss: str) -> list[Part]:
  """Return the terms of a text such as 'dice + 0.5 * softmax'.

  A function that cannot learn masks, or a term that is there twice, is a MedtlError.

  >>> [(part.name, part.weight) for part in parts_of('dice + 0.5 * softmax(smoothing=0.1)')]
  [('dice', 1.0), ('softmax', 0.5)]
  """
  known = {}
  for name, function in expressions.operations(losses, given=('outputs', 'y')).items():
    if losses.MASKS in getattr(function, 'learns', ()):
      known[name] = function
  parts = []
  for weight, text in summands(loss):
    calls = expressions.parse_chain(text)
    for call in calls:
      if call.name not in known:
        hint = expressions.did_you_mean(call.name, known)
        raise MedtlError(f'the loss {call.name!r} in {loss!r} cannot learn masks; {hint}')
    function = expressions.single_function(text, known, given=('outputs', 'y'))
    parts.append(Part(calls[0].name, weight, function))
  names = [part.name for part in parts]
  if len(set(names)) < len(names):
    raise MedtlError(f'the loss {loss!r} has a term twice; expected each once, with a weight')
  return parts


def summands(text: str) -> list[tuple[float, str]]:
  """Return (weight, call) of each term of a sum of calls.

  >>> summands('dice + 0.5 * softmax')
  [(1.0, 'dice'), (0.5, 'softmax')]
  """
  wrong = MedtlError(
    f"cannot read the loss {text!r}; expected a sum of calls, for instance 'dice + 0.5 * softmax'"
  )
  try:
    node: ast.expr = ast.parse(text.strip(), mode='eval').body
  except SyntaxError:
    raise wrong from None
  calls: list[tuple[float, str]] = []
  while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
    calls.insert(0, _weighted(node.right, wrong))
    node = node.left
  calls.insert(0, _weighted(node, wrong))
  return calls


def _weighted(node: ast.expr, wrong: MedtlError) -> tuple[float, str]:
  """Return (weight, call) of 'call' or 'weight * call'."""
  if isinstance(node, ast.Name | ast.Call):
    return 1.0, ast.unparse(node)
  if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
    raise wrong
  weight = node.left.value if isinstance(node.left, ast.Constant) else None
  if not isinstance(weight, int | float) or isinstance(weight, bool) or weight <= 0:
    raise wrong
  return float(weight), ast.unparse(node.right)


def terms(
  parts: Sequence[Part],
  forward: Forward,
  params: Tree,
  extra: Tree,
  batch: Batch,
  key: jax.Array,
  step: jax.Array,
  class_weights: Any = None,
) -> tuple[Terms, Tree]:
  """Return the terms of the loss, sums over the examples of a batch."""
  logits, extra = forward.train(params, extra, batch.x, key)
  term_of = {}
  for part in parts:
    values = jnp.where(batch.mask, per_example(part, logits, batch.y), 0.0)
    term_of[_term(part, parts)] = Term(jnp.sum(values), part.weight)
  return term_of, extra


def counts(parts: Sequence[Part], batch: Batch) -> dict[str, jax.Array]:
  """Return over how many examples each term is a mean."""
  examples = jnp.sum(batch.mask)
  return {_term(part, parts): examples for part in parts}


def _term(part: Part, parts: Sequence[Part]) -> str:
  """Return the name of a term in the logs; a loss of one term is the loss.

  The metric Dice is a share that rises, the term falls: the page draws them under different names.
  """
  return f'{part.name}_loss' if len(parts) > 1 else 'loss'


def per_example(part: Part, logits: jax.Array, y: jax.Array) -> jax.Array:
  """Return a part of the loss [b], without its weight: a mean over pixels."""
  values = part.function(logits.astype(jnp.float32), y)
  return values.reshape(len(values), -1).mean(axis=1)


def measure(
  parts: Sequence[Part], forward: Forward, params: Tree, extra: Tree, batch: Batch
) -> dict[str, jax.Array]:
  """Return what is measured of each example: pixels [b, k] of each class in the predicted mask.

  Where masks are known, also dice and iou [b, k − 1] of the classes but the background (nan where
  truth and prediction show none), shows [b, k − 1] (whether the truth has the class), and the loss.
  """
  logits = forward.eval(params, extra, batch.x)
  classes = logits.shape[-1]
  pixels = tuple(range(1, logits.ndim - 1))  # the axes *s
  predicted = jax.nn.one_hot(logits.argmax(-1), classes)
  values = {'pixels': predicted.sum(pixels)}
  if batch.y.ndim != logits.ndim - 1:  # pictures without masks can be predicted
    return values
  truth = jax.nn.one_hot(batch.y, classes)
  common = (predicted * truth).sum(pixels)[:, 1:]
  both = (predicted.sum(pixels) + truth.sum(pixels))[:, 1:]
  dice = jnp.where(both > 0, 2 * common / jnp.maximum(1, both), jnp.nan)
  loss = sum(part.weight * per_example(part, logits, batch.y) for part in parts)
  values['dice'] = dice
  values['iou'] = dice / (2 - dice)  # IoU = D / (2 − D)
  values['shows'] = truth.sum(pixels)[:, 1:] > 0
  values['loss'] = jnp.asarray(loss)
  return values


def dense(forward: Forward, params: Tree, extra: Tree, batch: Batch) -> dict[str, jax.Array]:
  """Return the predicted masks [b, *s]: numbers of classes."""
  logits = forward.eval(params, extra, batch.x)
  smallest = jnp.uint8 if logits.shape[-1] <= 256 else jnp.uint16
  return {'prediction': logits.argmax(-1).astype(smallest)}


def check(keys: Mapping[str, Any]) -> None:
  """Raise for a key of the run that does not go with masks."""
  metrics.chosen(dict.fromkeys([*numbers.METRICS, 'loss'], 0.0), keys['monitor'])
  if keys['class_weights']:
    raise MedtlError(
      f'config.class_weights is {keys["class_weights"]!r}, which weighs the classes of pictures, '
      "but what is learned are masks; set class_weights='' (the Dice loss weighs classes alike)"
    )
  if augmentation.mixes(keys['augment']):
    raise MedtlError(
      f'config.augment is {keys["augment"]!r}, which mixes examples, and masks cannot be mixed; '
      'leave mixup out'
    )


def accepts(sides: Mapping[str, Dataset], keys: Mapping[str, Any]) -> None:
  """Raise where y is no mask of the picture's size, or holds other numbers than classes'.

  At most LOOK masks of each side are looked at, spread over it evenly. Where those of the training
  side lack a class, the others are read too: it is an error if no mask shows it.
  """
  for side, dataset in sides.items():
    count = min(LOOK, dataset.size)
    places = np.unique(np.linspace(0, dataset.size - 1, count).astype(int))
    lacking = set(range(len(dataset.classes)))
    for place in places.tolist():
      example = dataset.fetch(place)
      _check_mask(example, side, dataset.classes)
      lacking.difference_update(np.unique(example.y).tolist())
    if side == 'train' and lacking:
      _check_all_shown(dataset, lacking)


def _check_all_shown(train: Dataset, lacking: Collection[int]) -> None:
  """Raise where no training mask shows one of the classes with these numbers."""
  left = set(lacking)
  for place in range(train.size):
    left.difference_update(np.unique(train.fetch(place).y).tolist())
    if not left:
      return
  names = ', '.join(train.classes[number] for number in sorted(left))
  raise MedtlError(
    f'none of {train.size} training masks shows {names}, so that nothing can be learned of it; '
    'expected pixels of each class. Look at the files: perhaps they are empty, or numbered '
    'otherwise, or the pictures that show it are all on the other sides of the split'
  )


def _check_mask(example: Example, side: str, classes: Sequence[str]) -> None:
  y = np.asarray(example.y)
  row = f'row {example.row} ({side})'
  if y.shape != example.x.shape[:-1] or y.dtype.kind not in 'iub':
    raise MedtlError(
      f"task.name is 'segmentation', but what is learned of {row} has the shape {y.shape}, "
      f'where a picture has {example.x.shape}; expected a mask of classes for each picture: of '
      "a folder data.masks='target'"
    )
  least = y.min()
  most = y.max()
  if least < 0 or most >= len(classes):
    raise MedtlError(
      f'the mask of {row} holds {least} … {most}; expected numbers of classes, '
      f'0 … {len(classes) - 1} ({", ".join(classes)})'
    )


def aim(classes: Sequence[str]) -> str:
  """Return what the net was trained to do, in words."""
  outlined = classes[1:]
  if len(outlined) == 1:
    return f'to outline {outlined[0]}'
  return f'to outline {len(outlined)} classes'


def pooled(test: Predictions, val: Predictions, table: Table, threshold: str) -> Predictions:
  """Return the test predictions of a fold: validation chooses nothing of them."""
  return test


def answers(
  predictions: Predictions,
  files: Sequence[str],
  classes: Sequence[str],
  *,
  val: Predictions,
  threshold: str,
) -> Answers:
  """Return how many pixels of each file have each class, and their share of the picture."""
  header = ['file']
  for name in classes:
    header += [f'{name}: pixels', f'{name}: share']
  rows: list[list[Any]] = []
  for file, pixels in zip(files, np.asarray(predictions.values['pixels']), strict=True):
    row: list[Any] = [file]
    for count in pixels.tolist():
      row += [int(count), round(count / pixels.sum(), 6)]
    rows.append(row)
  return Answers(header, rows, ['a pixel has the most probable class; pixels are those of the net'])
