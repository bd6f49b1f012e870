"""Augmentation on the device: 'flip | rotate(10) | gamma(0.8, 1.2) | mixup(0.2)' → f(key, Batch).

The first parameter of an operation says what it works on. The three kinds are applied in this
order, whatever their order in the text:

1. `field`: flip, rotate, zoom, shift, elastic. They are composed into one field of coordinates, so
   that a picture is interpolated once (linearly), and an integer mask y [b, *s] once with the same
   field (nearest neighbour). Outside the picture both are 0. The output at p is the input at
   c + A (p + u(p) − c) + t. c is the centre. A and t compose the affine operations in the order
   written. u is the sum of the elastic displacements, which therefore act last. All are in pixels,
   whatever the spacing.
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
Steps = list[tuple[int, Callable]]  # (place in the text, operation with its arguments)


class Field(NamedTuple):
  """Where the input is read for each pixel of the output, for n spatial axes."""

  matrix: jax.Array  # [n, n], A
  translation: jax.Array  # [n], t, pixels
  displacement: jax.Array  # [n, *s], u, pixels


def augment(text: str, ndim: int = 2, classes: int = 0) -> Callable[[jax.Array, Batch], Batch]:
  """Return f(key, batch) → batch, jittable, for x [b, *s, c] with `ndim` spatial axes.

  An empty text changes nothing. mixup needs `classes` to turn integer labels y [b] into
  [b, classes]. A mistake in the text raises MedtlError here, not in f.
  """
  steps = _steps(text, classes)

  def apply(key: jax.Array, batch: Batch) -> Batch:
    if batch.x.ndim != ndim + 2:
      raise MedtlError(
        f'augment: x has the shape {batch.x.shape}; expected {ndim} spatial axes '
        'between batch and channels'
      )
    count = len(batch.x)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(count))
    if steps['field']:
      batch = _resample(steps['field'], keys, batch)
    for place, operation in steps['x']:
      x = _change_values(operation, place, keys, batch.x)
      batch = batch._replace(x=x)
    for place, operation in steps['batch']:
      batch_key = jax.random.fold_in(key, count)
      batch = operation(batch, key=jax.random.fold_in(batch_key, place))
    return batch

  pictures = jnp.zeros((2, *(8,) * ndim, 1))
  numbers = jnp.zeros(2, jnp.int32)
  blank = Batch(x=pictures, y=numbers, mask=jnp.ones(2, bool), row=numbers)
  jax.eval_shape(apply, jax.random.key(0), blank)  # a wrong argument is named before a run begins
  return apply


def mixes(text: str) -> bool:
  """Return whether an operation combines several examples into one."""
  steps = _steps(text, classes=2)
  return bool(steps['batch'])


def _steps(text: str, classes: int) -> dict[str, Steps]:
  """Return the operations of a text by kind."""
  public = expressions.public(sys.modules[__name__])
  known = {name: value for name, value in public.items() if _kind(value) in KINDS}
  steps: dict[str, Steps] = {kind: [] for kind in KINDS}
  for place, call in enumerate(expressions.parse_chain(text)):
    if call.name not in known:
      raise MedtlError(
        f'unknown operation {call.name!r} in {text!r}; {expressions.did_you_mean(call.name, known)}'
      )
    function = known[call.name]
    kind = _kind(function)
    bound = expressions.bind(function, call, given=(*KINDS, 'key', 'classes'))
    annotation.agree(function, bound)
    arguments = bound.arguments
    if kind == 'batch':
      arguments['classes'] = classes
    operation = functools.partial(function, **arguments)
    steps[kind].append((place, operation))
  return steps


def _kind(function: Callable) -> str:
  """Return the name of a function's first parameter, '' where it has none."""
  return next(iter(inspect.signature(function).parameters), '')


def _resample(steps: Steps, keys: jax.Array, batch: Batch) -> Batch:
  """Return the batch with its pictures and integer masks read along a field for each example."""
  size = batch.x.shape[1:-1]
  is_integer = jnp.issubdtype(batch.y.dtype, jnp.integer)
  is_mask = is_integer and batch.y.shape == batch.x.shape[:-1]
  fields = jax.vmap(lambda key: _compose(steps, key, size))(keys)
  x = jax.vmap(_read)(batch.x, fields)
  y = jax.vmap(_nearest)(batch.y, fields) if is_mask else batch.y
  return batch._replace(x=x, y=y)


def _change_values(operation: Callable, place: int, keys: jax.Array, x: jax.Array) -> jax.Array:
  """Return x [b, *s, c] with an operation applied to each picture by a key of its own."""

  def change(picture: jax.Array, key: jax.Array) -> jax.Array:
    return operation(picture, key=jax.random.fold_in(key, place))

  return jax.vmap(change)(x, keys)


def _compose(steps: Steps, key: jax.Array, size: tuple[int, ...]) -> Field:
  """Return the field of several operations for pictures of `size`, one key for each operation."""
  axes = len(size)
  field = Field(jnp.eye(axes), jnp.zeros(axes), jnp.zeros((axes, *size)))
  for place, operation in steps:
    field = operation(field, key=jax.random.fold_in(key, place))
  return field


def _coordinates(field: Field) -> jax.Array:
  """Return [n, *s]: the place in the input, in pixels, of each pixel of the output."""
  size = field.displacement.shape[1:]
  column = (len(size), *(1,) * len(size))  # the shape in which [n] broadcasts over [n, *s]
  centre = (np.array(size, np.float32) - 1).reshape(column) / 2
  grid = jnp.meshgrid(*map(jnp.arange, size), indexing='ij')
  offset = jnp.stack(grid) - centre + field.displacement
  # in full precision on every device: TF32's three digits would be a tenth of a pixel at the border
  turned = jnp.einsum('ij,j...->i...', field.matrix, offset, precision='highest')
  return turned + field.translation.reshape(column) + centre


def _read(x: jax.Array, field: Field) -> jax.Array:
  """Return x [*s, c] read along the field, linear between pixels, 0 outside."""
  coordinates = list(_coordinates(field))

  def read_channel(channel: jax.Array) -> jax.Array:
    return map_coordinates(channel, coordinates, order=1)

  return jax.vmap(read_channel, in_axes=-1, out_axes=-1)(x)


def _nearest(y: jax.Array, field: Field) -> jax.Array:
  """Return the mask y [*s] read along the field: the label of the nearest pixel, 0 outside."""
  return map_coordinates(y, list(_coordinates(field)), order=0)


def flip(field: Field, key: jax.Array, axis: int = -1) -> Field:
  """Reverse one spatial axis with probability ½.

  The default is the last axis, left and right: OCT has an up and a down.
  """
  n = len(field.translation)
  if not -n <= axis < n:
    raise MedtlError(f'flip({axis}): expected a spatial axis from {-n} to {n - 1}')
  sign = jnp.where(jax.random.bernoulli(key), -1.0, 1.0)
  matrix = field.matrix.at[:, axis].multiply(sign)
  return field._replace(matrix=matrix)


@together('two different spatial axes', lambda axes: axes[0] != axes[1])
def rotate(
  field: Field,
  key: jax.Array,
  degrees: Annotated[float, FROM_0],
  axes: tuple[int, int] = (-2, -1),
) -> Field:
  """Rotate about the centre in the plane of `axes` by an angle from −degrees to degrees.

  A positive angle turns as np.rot90 does: anticlockwise on a screen.
  """
  n = len(field.translation)
  if len({axis % n for axis in axes if -n <= axis < n}) != 2:
    raise MedtlError(
      f'rotate({degrees}, axes={axes}): expected two different spatial axes from {-n} to {n - 1}'
    )
  angle = jax.random.uniform(key, minval=-degrees, maxval=degrees)
  return _rotated(field, jnp.deg2rad(angle), axes)


def _rotated(field: Field, angle: jax.Array, axes: tuple[int, int]) -> Field:
  """Return the field rotated in the plane of two axes by an angle in radians."""
  first, second = axes
  cosine = jnp.cos(angle)
  sine = jnp.sin(angle)
  rotation = jnp.eye(len(field.translation))
  rotation = rotation.at[first, first].set(cosine)
  rotation = rotation.at[first, second].set(sine)
  rotation = rotation.at[second, first].set(-sine)
  rotation = rotation.at[second, second].set(cosine)
  matrix = jnp.matmul(field.matrix, rotation, precision='highest')
  return field._replace(matrix=matrix)


@ordered
def zoom(field: Field, key: jax.Array, low: float, high: float) -> Field:
  """Enlarge about the centre by a factor from low to high, the same along all axes.

  A factor below 1 shrinks.
  """
  factor = jax.random.uniform(key, minval=low, maxval=high)
  return field._replace(matrix=field.matrix / factor)


def shift(field: Field, key: jax.Array, share: Annotated[float, FROM_0_TO_1]) -> Field:
  """Move along each axis by at most a share of its length, in either direction."""
  size = jnp.array(field.displacement.shape[1:], jnp.float32)
  way = size * jax.random.uniform(key, size.shape, minval=-share, maxval=share)
  turned = jnp.matmul(field.matrix, way, precision='highest')
  return field._replace(translation=field.translation - turned)


@together(
  '0 <= amount <= scale and 0 < scale, in pixels',
  lambda amount, scale: 0 <= amount <= scale and scale > 0,
)
def elastic(field: Field, key: jax.Array, amount: float, scale: float) -> Field:
  """Displace smoothly along each axis, 95 % of the pixels by less than `amount` pixels.

  The displacement is a Gaussian field of standard deviation amount / 2: noise smoothed with a
  Gaussian of `scale` pixels (Simard 2003), drawn on knots `scale` pixels apart. Where the amount is
  not well below the scale, neighbours change places and tissue folds. An amount above the scale is
  refused.
  """
  size = field.displacement.shape[1:]
  bells = [_bells(length, scale) for length in size]
  knots = [bell.shape[1] for bell in bells]
  way = jax.random.normal(key, (len(size), *knots))
  for bell in bells:  # each takes the first spatial axis and gives it back as the last
    way = jnp.tensordot(way, bell, (1, 1))
  return field._replace(displacement=field.displacement + amount / 2 * way)


def _bells(length: int, scale: float) -> np.ndarray:
  """Return [length, knots], which turns white noise on the knots into smooth noise.

  Its rows have unit length, so that unit variance stays unit variance.
  """
  knots = np.arange(-3, np.ceil(length / scale) + 4)
  pixels = np.arange(length)[:, None]
  bells = np.exp(-0.5 * (pixels / scale - knots) ** 2)
  bells = bells / np.linalg.norm(bells, axis=1, keepdims=True)
  return bells.astype(np.float32)


@ordered
def gamma(x: jax.Array, key: jax.Array, low: float, high: float) -> jax.Array:
  """Raise to a power from low to high; what lies outside 0 … 1 is clipped first."""
  power = jax.random.uniform(key, minval=low, maxval=high)
  return jnp.clip(x, 0, 1) ** power


def brightness(x: jax.Array, key: jax.Array, amount: Annotated[float, FROM_0]) -> jax.Array:
  """Add a number from −amount to amount."""
  return x + jax.random.uniform(key, minval=-amount, maxval=amount)


@ordered
def contrast(x: jax.Array, key: jax.Array, low: float, high: float) -> jax.Array:
  """Multiply the distance to the picture's mean by a factor from low to high."""
  mean = x.mean()
  factor = jax.random.uniform(key, minval=low, maxval=high)
  return mean + (x - mean) * factor


def noise(x: jax.Array, key: jax.Array, sigma: Annotated[float, FROM_0]) -> jax.Array:
  """Add Gaussian noise of standard deviation sigma."""
  return x + sigma * jax.random.normal(key, x.shape, x.dtype)


def mixup(batch: Batch, key: jax.Array, alpha: Annotated[float, ABOVE_0], classes: int) -> Batch:
  """Return x and y as convex combinations of two examples (Zhang 2018).

  The first example's share is drawn from Beta(alpha, alpha). Integer y [b] becomes float
  [b, classes]; float y [b, k] is mixed as it is. Padding is mixed with nothing.
  """
  is_soft = batch.y.ndim == 2 and jnp.issubdtype(batch.y.dtype, jnp.floating)
  if not is_soft and (batch.y.ndim != 1 or classes < 2):
    raise MedtlError(
      f'mixup: y has the shape {batch.y.shape} and there are {classes} classes; expected labels '
      '[b] of at least 2 classes, or targets [b, k]; masks cannot be mixed'
    )
  order_key, share_key = jax.random.split(key)
  draws = jax.random.uniform(order_key, batch.mask.shape)
  order = jnp.argsort(jnp.where(batch.mask, draws, 2.0))  # padding comes last
  rank = jnp.argsort(order)
  valid = jnp.maximum(batch.mask.sum(), 1)
  following = order[(rank + 1) % valid]
  partner = jnp.where(batch.mask, following, jnp.arange(len(order)))
  share = jax.random.beta(share_key, alpha, alpha, batch.mask.shape)
  y = batch.y if is_soft else jax.nn.one_hot(batch.y, classes)

  def mix(values: jax.Array) -> jax.Array:
    column = (-1, *(1,) * (values.ndim - 1))  # broadcasts over all but the batch
    weight = share.reshape(column).astype(values.dtype)
    return weight * values + (1 - weight) * values[partner]

  return batch._replace(x=mix(batch.x), y=mix(y))
