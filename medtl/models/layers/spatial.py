"""Convolution, pooling and norm for any number of spatial axes, channels last."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from medtl.core.types import MedtlError
from medtl.models.layers.batch_norm import BatchNorm
from medtl.models.layers.convolution import Padding, convolve, explicit_padding
from medtl.models.layers.depthwise import depthwise
from medtl.models.layers.precision import at_least_float32

# He et al. 2015, as ResNets are initialised
INIT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class Conv(nn.Module):
  """A convolution padded by k // 2 on each side as in PyTorch, or as `padding` says.

  A kernel of two axes on volumes is ACS (see `convolve_in_planes`). `standardised`: over each
  output's inputs the kernel has mean 0 and variance 1 (Qiao et al. 2019, arXiv 1903.10520).
  """

  features: int
  kernel: tuple[int, ...]
  stride: int | tuple[int, ...] = 1  # of all axes, or of each
  bias: bool = False
  standardised: bool = False
  dtype: Any = jnp.float32
  padding: str | int | None = None  # see `padding_of`
  dilation: int = 1

  @nn.compact
  def __call__(self, x: Any) -> Any:
    shape = (*self.kernel, x.shape[-1], self.features)
    kernel = self.param('kernel', INIT, shape)
    if self.standardised:
      kernel = standardise(kernel)
    x = x.astype(self.dtype)
    kernel = kernel.astype(self.dtype)
    padding = padding_of(self.kernel, self.padding, self.dilation)
    convolve_x = functools.partial(convolve, dilation=self.dilation)
    y = _applied(convolve_x, x, kernel, self.stride, padding, self.dilation)
    if not self.bias:
      return y
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    return y + bias.astype(self.dtype)


class Depthwise(nn.Module):
  """A convolution of each channel by itself, padded by k // 2 on each side, or as `padding` says.

  A kernel of two axes on volumes is ACS (see `convolve_in_planes`).
  """

  kernel: tuple[int, ...]
  stride: int = 1
  bias: bool = False
  dtype: Any = jnp.float32
  padding: str | int | None = None  # see `padding_of`

  @nn.compact
  def __call__(self, x: Any) -> Any:
    channels = x.shape[-1]
    kernel = self.param('kernel', INIT, (*self.kernel, 1, channels))
    padding = padding_of(self.kernel, self.padding)
    y = _applied(depthwise, x.astype(self.dtype), kernel.astype(self.dtype), self.stride, padding)
    if not self.bias:
      return y
    bias = self.param('bias', nn.initializers.zeros, (channels,))
    return y + bias.astype(self.dtype)


def padding_of(
  kernel: Sequence[int], padding: str | int | None, dilation: int = 1
) -> str | list[tuple[int, int]]:
  """Return what is added around maps: 'SAME', 'VALID' or (before, after) of each axis of a kernel.

  'SAME' is TensorFlow's, with the odd point after; a number is added on each side; None is as many
  points as keep the size at stride 1, k // 2 for each axis.
  """
  if isinstance(padding, str):
    return padding
  if padding is not None:
    return [(padding, padding)] * len(kernel)
  return [(dilation * (size // 2), dilation * (size // 2)) for size in kernel]


def _applied(
  convolve_x: Callable[..., Any],
  x: Any,
  kernel: Any,
  stride: int | tuple[int, ...],
  padding: Any,
  dilation: int = 1,
) -> Any:
  """Return x convolved; by a kernel that has an axis less than x, plane by plane."""
  if kernel.ndim == x.ndim:
    return convolve_x(x, kernel, stride, padding)
  return convolve_in_planes(convolve_x, x, kernel, stride, padding, dilation)


def convolve_in_planes(
  convolve_x: Callable[..., Any],
  x: Any,
  kernel: Any,
  stride: int | tuple[int, ...],
  padding: str | Sequence[tuple[int, int]],
  dilation: int = 1,
) -> Any:
  """Return volumes x [b, d, h, w, c] convolved by a kernel of pictures [k, k, c, o].

  A third of the outputs sees the planes across d, a third those across h, a third those across w
  (axial, coronal, sagittal). So the weights of a 2-D network serve as they are: ACS convolutions,
  Yang et al. 2021, IEEE JBHI 25:3009, arXiv 1911.10477, section III; what three does not divide
  goes to the first planes, as in the authors' code. `convolve_x` dilates by `dilation`.
  """
  outputs = kernel.shape[-1]
  results = []
  first = 0
  for axis in range(3):
    count = outputs // 3 + (axis < outputs % 3)
    part = jnp.expand_dims(kernel[..., first : first + count], axis)
    seen = x[..., first : first + count] if kernel.shape[-2] == 1 < x.shape[-1] else x
    first += count
    if count:
      pads = _pads_of_plane(x.shape[1:-1], kernel.shape[:-2], stride, padding, dilation, axis)
      results.append(convolve_x(seen, part, stride, pads))
  return jnp.concatenate(results, axis=-1)


def _pads_of_plane(
  sides: Sequence[int],
  taps: Sequence[int],
  stride: int | tuple[int, ...],
  padding: str | Sequence[tuple[int, int]],
  dilation: int,
  axis: int,
) -> list[tuple[int, int]]:
  """Return (before, after) of each axis of volumes for a kernel that has one tap along `axis`.

  They are those of a kernel with the first of `taps` along `axis` too, of which only the middle
  tap, taps // 2, is there: so all three planes give maps of one size.
  """
  cube = [*taps]
  cube.insert(axis, taps[0])
  if not isinstance(padding, str):
    padding = [*padding]
    padding.insert(axis, padding[0])
  pads = list(explicit_padding(sides, cube, stride, padding, dilation))
  before, after = pads[axis]
  pads[axis] = (before - dilation * (taps[0] // 2), after - dilation * ((taps[0] - 1) // 2))
  return pads


def standardise(kernel: Any, epsilon: float = 1e-10) -> Any:
  """Return the kernel with mean 0 and variance 1 over all axes but the last.

  The default of epsilon is that of BiT's own code.
  """
  axes = tuple(range(kernel.ndim - 1))
  centred = kernel - kernel.mean(axes, keepdims=True)
  variance = jnp.square(centred).mean(axes, keepdims=True)
  return centred * jax.lax.rsqrt(variance + epsilon)


def max_pool(
  x: Any,
  window: int = 3,
  stride: int = 2,
  fill: float = -jnp.inf,
  padding: str | int | None = None,
) -> Any:
  """Return the maximum over windows of x [b, *s, c]; `fill` stands around it, see `padding_of`.

  It takes one axis after the other, each as the maximum of `window` strided slices: XLA's CPU
  backend takes five times as long for the gradient of `reduce_window`. Where several numbers are
  the largest, they share the gradient. A CPU computes in float32.
  """
  pads = _pool_padding(x, window, stride, padding)
  pool = functools.partial(_max_pool, window, stride, pads, fill)

  def pool_in_float32(x: Any) -> Any:
    return pool(at_least_float32(x)).astype(x.dtype)

  return jax.lax.platform_dependent(x, cpu=pool_in_float32, default=pool)


def _pool_padding(x: Any, window: int, stride: int, padding: str | int | None) -> Padding:
  taps = (window,) * (x.ndim - 2)
  return explicit_padding(x.shape[1:-1], taps, stride, padding_of(taps, padding))


def _max_pool(window: int, stride: int, pads: Padding, fill: float, x: Any) -> Any:
  for axis, edges in enumerate(pads, 1):
    slices = _slices(x, axis, window, stride, edges, fill)
    x = functools.reduce(jnp.maximum, slices)
  return x


def _slices(
  x: Any, axis: int, window: int, stride: int, edges: tuple[int, int], fill: float
) -> list[Any]:
  """Return what each tap of a window along an axis sees, of x with `fill` around it."""
  points = x.shape[axis] + sum(edges)
  if points < window:
    raise MedtlError(
      f'a pooling over {window} points finds {points} of them along an axis: the pictures are too '
      "small for this network; enlarge them, e.g. by 'resize(224, 224)' in config.data.ops"
    )
  padding = [(0, 0)] * x.ndim
  padding[axis] = edges
  x = jnp.pad(x, padding, constant_values=fill)
  length = (x.shape[axis] - window) // stride * stride + 1
  slices = []
  for start in range(window):
    slices.append(jax.lax.slice_in_dim(x, start, start + length, stride, axis))
  return slices


def mean_pool(
  x: Any,
  window: int,
  stride: int,
  padding: str | int | None = None,
  count_padding: bool = True,
) -> Any:
  """Return the mean over windows of x [b, *s, c], in float32 at least, as x's dtype.

  Points around the maps (see `padding_of`) count as zeros (PyTorch's default), or not at all
  (Keras').
  """
  y = at_least_float32(x)
  for axis, edges in enumerate(_pool_padding(x, window, stride, padding), 1):
    total = sum(_slices(y, axis, window, stride, edges, 0.0))
    if count_padding:
      y = total / window
      continue
    there = jnp.ones((x.shape[axis], 1), y.dtype)
    counts: Any = sum(_slices(there, 0, window, stride, edges, 0.0))
    y = total / counts.reshape(-1, *[1] * (y.ndim - axis - 1))
  return y.astype(x.dtype)


def adaptive_mean_pool(x: Any, sides: Sequence[int]) -> Any:
  """Return x [b, *s, c] as maps [b, *sides, c] of means over windows that cover it evenly.

  Window i of n begins at ⌊i s / n⌋ and ends before ⌈(i + 1) s / n⌉, as in PyTorch's
  AdaptiveAvgPool.
  """
  y = at_least_float32(x)
  for axis, side in enumerate(sides, 1):
    size = x.shape[axis]
    if size == side:
      continue
    weights = np.zeros((side, size))
    for window in range(side):
      start = window * size // side
      end = -(-(window + 1) * size // side)
      weights[window, start:end] = 1 / (end - start)
    y = jnp.moveaxis(jnp.tensordot(jnp.asarray(weights, y.dtype), y, (1, axis)), 0, axis)
  return y.astype(x.dtype)


def norm(
  x: Any,
  train: bool,
  name: str,
  kind: str = 'batch',
  epsilon: float = 1e-5,
  dtype: Any = jnp.float32,
  momentum: float = 0.9,
) -> Any:
  """Return x normalised by a child `name` of the module that calls.

  `kind` is 'batch', or 'group' with 32 groups (Wu & He 2018, arXiv 1803.08494). `momentum` is what
  a step keeps of the running statistics.
  """
  if kind == 'batch':
    batch_norm = BatchNorm(momentum=momentum, epsilon=epsilon, dtype=dtype, name=name)
    return batch_norm(x, use_running_average=not train)
  groups = math.gcd(32, x.shape[-1])
  group_norm = nn.GroupNorm(
    groups, epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name
  )
  return group_norm(x)
