"""Augmentation on the device: 'flip | rotate(10) | elastic(4, 8) | gamma(0.8, 1.2) | mixup(0.2)' → f(key, Batch) → Batch.

An operation's first parameter says what it works on. The three kinds are done in this order, whatever stands between them:

1. `field`: flip, rotate, zoom, shift, elastic. They are composed into one field of coordinates, so that a picture is
   interpolated once (linearly), and an integer mask y [b, *s] once with the same field (nearest); outside the picture both
   are 0. The output at p is the input at c + A (p + u(p) − c) + t: c is the centre, A and t are those of the operations done
   in the order written, u is the sum of the elastic displacements, which so come last. All in pixels, whatever the spacing.
2. `x`: gamma, brightness, contrast, noise, in the order written.
3. `batch`: mixup.

Every example has its own key: fold_in(key, its place in the batch). `mask` and `row` never change.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from medtl.core import annotation, expressions
from medtl.core.annotation import ABOVE_0, FROM_0, FROM_0_TO_1, together
from medtl.core.types import Batch, MedtlError

KINDS = ('field', 'x', 'batch')
ordered = together('0 < low <= high', lambda low, high: 0 < low <= high)


class Field(NamedTuple):
  """Where the input is read for each pixel of the output, for n spatial axes."""

  turn: jax.Array  # [n, n], A
  move: jax.Array  # [n], t, pixels
  bend: jax.Array  # [n, *s], u, pixels


def augment(text: str, ndim: int = 2, classes: int = 0) -> Callable[[jax.Array, Batch], Batch]:
  """Return f(key, batch) → batch, jittable, for x [b, *s, c] with `ndim` spatial axes; '' changes nothing.

  `classes` is what mixup needs to make integer labels y [b] soft, [b, classes]. A mistake in the text is an error here.
  """
  steps = _steps(text, classes)

  def apply(key: jax.Array, batch: Batch) -> Batch:
    if batch.x.ndim != ndim + 2:
      raise MedtlError(
        f'augment: x has the shape {batch.x.shape}; expected {ndim} spatial axes between batch and channels'
      )
    masked = batch.y.shape == batch.x.shape[:-1] and jnp.issubdtype(batch.y.dtype, jnp.integer)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(len(batch.x)))
    if steps['field']:
      field = jax.vmap(lambda key: _compose(steps['field'], key, batch.x.shape[1:-1]))(keys)
      batch = batch._replace(x=jax.vmap(_read)(batch.x, field))
      if masked:
        batch = batch._replace(y=jax.vmap(_nearest)(batch.y, field))
    for step, operation in steps['x']:
      one = functools.partial(jax.random.fold_in, data=step)
      batch = batch._replace(
        x=jax.vmap(lambda x, key, f=operation, one=one: f(x, key=one(key)))(batch.x, keys)
      )
    for step, operation in steps['batch']:
      batch = operation(batch, key=jax.random.fold_in(jax.random.fold_in(key, len(batch.x)), step))
    return batch

  blank = Batch(
    jnp.zeros((2, *(8,) * ndim, 1)),
    jnp.zeros(2, jnp.int32),
    jnp.ones(2, bool),
    jnp.zeros(2, jnp.int32),
  )
  jax.eval_shape(
    apply, jax.random.key(0), blank
  )  # so that wrong arguments are named before a run begins
  return apply


def mixes(text: str) -> bool:
  """Return whether an operation makes one example of several."""
  return bool(_steps(text, classes=2)['batch'])


def _steps(text: str, classes: int) -> dict[str, list[tuple[int, Callable]]]:
  """Return (place in the text, operation with its arguments) by kind."""
  known = {
    name: value
    for name, value in expressions.public(sys.modules[__name__]).items()
    if _kind(value) in KINDS
  }
  steps: dict[str, list[tuple[int, Callable]]] = {kind: [] for kind in KINDS}
  for place, call in enumerate(expressions.parse_chain(text)):
    if call.name not in known:
      raise MedtlError(
        f'unknown operation {call.name!r} in {text!r}; {expressions.did_you_mean(call.name, known)}'
      )
    function = known[call.name]
    bound = expressions.bind(function, call, given=(*KINDS, 'key', 'classes'))
    annotation.agree(function, bound)
    arguments = bound.arguments
    if _kind(function) == 'batch':
      arguments['classes'] = classes
    steps[_kind(function)].append((place, functools.partial(function, **arguments)))
  return steps


def _kind(function: Callable) -> str:
  return next(iter(inspect.signature(function).parameters), '')


def _compose(
  operations: list[tuple[int, Callable]], key: jax.Array, size: tuple[int, ...]
) -> Field:
  field = Field(jnp.eye(len(size)), jnp.zeros(len(size)), jnp.zeros((len(size), *size)))
  for place, operation in operations:
    field = operation(field, key=jax.random.fold_in(key, place))
  return field


def _coordinates(field: Field) -> jax.Array:
  size = field.bend.shape[1:]
  column = (len(size), *(1,) * len(size))
  centre = (np.array(size, np.float32) - 1).reshape(column) / 2
  place = jnp.stack(jnp.meshgrid(*map(jnp.arange, size), indexing='ij')) - centre + field.bend
  # in full precision on every device: TF32's three digits would be a tenth of a pixel at the border
  return (
    jnp.einsum('ij,j...->i...', field.turn, place, precision='highest')
    + field.move.reshape(column)
    + centre
  )


def _read(x: jax.Array, field: Field) -> jax.Array:
  """Return x [*s, c] read along the field, linear between pixels, 0 outside."""
  where = list(_coordinates(field))
  return jax.vmap(
    lambda channel: map_coordinates(channel, where, order=1), in_axes=-1, out_axes=-1
  )(x)


def _nearest(y: jax.Array, field: Field) -> jax.Array:
  """Return the mask y [*s] read along the field: the label of the nearest pixel, 0 outside."""
  return map_coordinates(y, list(_coordinates(field)), order=0)


def flip(field: Field, key: jax.Array, axis: int = -1) -> Field:
  """Reverse one spatial axis of every second picture; by default the last: left and right, for OCT has an up and a down."""
  n = len(field.move)
  if not -n <= axis < n:
    raise MedtlError(f'flip({axis}): expected a spatial axis from {-n} to {n - 1}')
  return field._replace(
    turn=field.turn.at[:, axis].multiply(jnp.where(jax.random.bernoulli(key), -1.0, 1.0))
  )


@together('two different spatial axes', lambda axes: axes[0] != axes[1])
def rotate(
  field: Field,
  key: jax.Array,
  degrees: Annotated[float, FROM_0],
  axes: tuple[int, int] = (-2, -1),
) -> Field:
  """Rotate about the centre in the plane of `axes` by up to ± degrees, positive as np.rot90: anticlockwise on a screen."""
  n = len(field.move)
  if len({axis % n for axis in axes if -n <= axis < n}) != 2:
    raise MedtlError(
      f'rotate({degrees}, axes={axes}): expected two different spatial axes from {-n} to {n - 1}'
    )
  return _rotated(
    field, jnp.deg2rad(jax.random.uniform(key, minval=-degrees, maxval=degrees)), axes
  )


def _rotated(field: Field, angle: jax.Array, axes: tuple[int, int]) -> Field:
  i, j = axes
  c, s = jnp.cos(angle), jnp.sin(angle)
  new = jnp.eye(len(field.move)).at[i, i].set(c).at[i, j].set(s).at[j, i].set(-s).at[j, j].set(c)
  return field._replace(turn=jnp.matmul(field.turn, new, precision='highest'))


@ordered
def zoom(field: Field, key: jax.Array, low: float, high: float) -> Field:
  """Enlarge about the centre by a factor from low to high, the same along all axes; below 1 it shrinks."""
  return field._replace(turn=field.turn / jax.random.uniform(key, minval=low, maxval=high))


def shift(field: Field, key: jax.Array, share: Annotated[float, FROM_0_TO_1]) -> Field:
  """Move along each axis by up to ± share of its length."""
  size = jnp.array(field.bend.shape[1:], jnp.float32)
  way = size * jax.random.uniform(key, size.shape, minval=-share, maxval=share)
  return field._replace(move=field.move - jnp.matmul(field.turn, way, precision='highest'))


@together(
  '0 <= amount <= scale and 0 < scale, in pixels',
  lambda amount, scale: 0 <= amount <= scale and scale > 0,
)
def elastic(field: Field, key: jax.Array, amount: float, scale: float) -> Field:
  """Displace smoothly, along each axis by a Gaussian field of standard deviation amount / 2: 95 % move by less than amount.

  The field is noise smoothed with a Gaussian of `scale` pixels (Simard 2003), drawn on knots `scale` pixels apart. Where the
  amount is not well below the scale, neighbours change places and tissue folds: more than the scale is refused.
  """
  size = field.bend.shape[1:]
  bells = [_bells(length, scale) for length in size]
  bend = jax.random.normal(key, (len(size), *(bell.shape[1] for bell in bells)))
  for bell in bells:  # each takes the first spatial axis and gives it back as the last
    bend = jnp.tensordot(bend, bell, (1, 1))
  return field._replace(bend=field.bend + amount / 2 * bend)


def _bells(length: int, scale: float) -> np.ndarray:
  """Return [length, knots]; rows of length one turn unit white noise on the knots into smooth unit noise."""
  knots = np.arange(-3, np.ceil(length / scale) + 4)
  bells = np.exp(-0.5 * (np.arange(length)[:, None] / scale - knots) ** 2)
  return (bells / np.linalg.norm(bells, axis=1, keepdims=True)).astype(np.float32)


@ordered
def gamma(x: jax.Array, key: jax.Array, low: float, high: float) -> jax.Array:
  """Raise to a power from low to high; what lies outside 0 … 1 is clipped first."""
  return jnp.clip(x, 0, 1) ** jax.random.uniform(key, minval=low, maxval=high)


def brightness(x: jax.Array, key: jax.Array, amount: Annotated[float, FROM_0]) -> jax.Array:
  """Add a number from −amount to amount."""
  return x + jax.random.uniform(key, minval=-amount, maxval=amount)


@ordered
def contrast(x: jax.Array, key: jax.Array, low: float, high: float) -> jax.Array:
  """Multiply the distance to the picture's mean by a factor from low to high."""
  mean = x.mean()
  return mean + (x - mean) * jax.random.uniform(key, minval=low, maxval=high)


def noise(x: jax.Array, key: jax.Array, sigma: Annotated[float, FROM_0]) -> jax.Array:
  """Add Gaussian noise of standard deviation sigma."""
  return x + sigma * jax.random.normal(key, x.shape, x.dtype)


def mixup(batch: Batch, key: jax.Array, alpha: Annotated[float, ABOVE_0], classes: int) -> Batch:
  """Return x and y as convex combinations of two examples, the first one's share drawn from Beta(alpha, alpha) (Zhang 2018).

  Integer y [b] becomes float [b, classes]; float y [b, k] is mixed as it is. Padding is mixed with nothing.
  """
  soft = batch.y.ndim == 2 and jnp.issubdtype(batch.y.dtype, jnp.floating)
  if not soft and (batch.y.ndim != 1 or classes < 2):
    raise MedtlError(
      f'mixup: y has the shape {batch.y.shape} and there are {classes} classes; expected labels [b] of '
      'at least 2 classes, or targets [b, k]; masks cannot be mixed'
    )
  order_key, share_key = jax.random.split(key)
  order = jnp.argsort(
    jnp.where(batch.mask, jax.random.uniform(order_key, batch.mask.shape), 2.0)
  )  # padding comes last
  rank, count = jnp.argsort(order), jnp.maximum(batch.mask.sum(), 1)
  other = jnp.where(batch.mask, order[(rank + 1) % count], jnp.arange(len(order)))
  share = jax.random.beta(share_key, alpha, alpha, batch.mask.shape)
  y = batch.y if soft else jax.nn.one_hot(batch.y, classes)

  def mix(values: jax.Array) -> jax.Array:
    s = share.reshape(-1, *(1,) * (values.ndim - 1)).astype(values.dtype)
    return s * values + (1 - s) * values[other]

  return batch._replace(x=mix(batch.x), y=mix(y))
