"""Convolutions, each in the lowering that is fast where it runs.

Kernels are [*k, c / groups, d] as those of `nn.Conv`, whatever the lowering. Accelerators take what
XLA has. Where XLA's CPU backend is slow the same sums are written otherwise: volumes as pictures,
plane by plane; 1×1 as a matrix product; the gradient of a strided convolution's input by phases;
that of a stem's kernel as products of windows; all of bfloat16 as products of windows, since XLA
uses bfloat16 units for products alone. docs/benchmarks.md says what each gave.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from medtl.models.layers.matmul import (
  LARGE,
  bfloat16_of_bits,
  bits_of_bfloat16,
  copy_bits,
  kernel_gradient_at_once,
  product,
  several_devices,
)
from medtl.models.layers.precision import sum_dtype

Shape = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]
FEW = 256  # numbers in a window below which a kernel's gradient is taken from windows: stems


def convolve(
  x: Any,
  kernel: Any,
  stride: int | Shape,
  padding: Sequence[tuple[int, int]] | str,
  groups: int = 1,
  dilation: int = 1,
) -> Any:
  """Return x [b, *s, c] convolved with kernel [*k, c / groups, d].

  `stride` is that of all axes or of each. `padding` is 'SAME', 'VALID' or (before, after) of each
  axis; negative numbers cut. `dilation` is how many points lie from one tap to the next.
  """
  taps = kernel.shape[:-2]
  pads = explicit_padding(x.shape[1:-1], taps, stride, padding, dilation)
  padded = any(before or after for before, after in pads)
  if x.shape[1:-1] == taps and not padded and groups == dilation == 1:
    return _product_of_all(x, kernel)
  if len(taps) == 3 and math.prod(taps) > 1 and groups == 1:
    by_planes = partial(_convolve_by_planes, stride, pads, dilation)
    by_xla = partial(convolve_by_xla, stride, pads, dilation=dilation)
    return jax.lax.platform_dependent(x, kernel, cpu=by_planes, default=by_xla)
  if groups > 1 or dilation > 1 or isinstance(stride, tuple):
    return convolve_by_xla(stride, pads, x, kernel, groups, dilation)
  if math.prod(taps) == 1 and not padded:
    matrix = kernel.reshape(kernel.shape[-2:])
    return product('pieces', _subsampled(x, stride), matrix)
  if stride > 1 or _sees_few(kernel) or _wants_products(x):
    return _convolve(stride, pads, x, kernel)
  return convolve_by_xla(stride, pads, x, kernel)


def _convolve_by_planes(
  stride: int | Shape, padding: Padding, dilation: int, x: Any, kernel: Any
) -> Any:
  """Return volumes x [b, d, h, w, c] convolved by kernel [k, *k, c, o], as 2-D convolutions.

  Each tap along d is a kernel of pictures, and every plane that it sees is one. XLA's CPU backend
  takes two to five times as long for a convolution of volumes, and for its gradients.
  """
  taps = kernel.shape[0]
  along, *across = padding
  deep, *flat = _strides(stride, 3)
  plane_stride = flat[0] if len(set(flat)) == 1 else tuple(flat)
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (*along, 0), *[(0, 0, 0)] * 3])
  span = dilation * (taps - 1) + 1
  length = (x.shape[1] - span) // deep * deep + 1
  of_taps = []
  for tap in range(taps):
    first = tap * dilation
    planes = x[:, first : first + length : deep]
    batch, depth, *shape = planes.shape
    pictures = planes.reshape(batch * depth, *shape)
    of_taps.append(convolve(pictures, kernel[tap], plane_stride, across, dilation=dilation))
  y = functools.reduce(operator.add, of_taps)
  return y.reshape(batch, depth, *y.shape[1:])


def explicit_padding(
  sides: Sequence[int],
  taps: Sequence[int],
  stride: int | Shape,
  padding: Sequence[tuple[int, int]] | str,
  dilation: int = 1,
) -> Padding:
  """Return (before, after) of each axis for a window of `taps` points on maps of these sides.

  'SAME' is TensorFlow's: the odd point comes after.
  """
  if isinstance(padding, str):
    spans = [dilation * (count - 1) + 1 for count in taps]
    strides = _strides(stride, len(spans))
    padding = jax.lax.padtype_to_pads(tuple(sides), spans, strides, padding)
  return tuple((int(before), int(after)) for before, after in padding)


def _strides(stride: int | Shape, axes: int) -> Shape:
  """Return the stride of each axis."""
  return stride if isinstance(stride, tuple) else (stride,) * axes


def _product_of_all(x: Any, kernel: Any) -> Any:
  """Return x [b, *k, c] convolved with a kernel [*k, c, d] that covers it, as maps of one point.

  It is a dense layer. The gradient of x by XLA's convolution would multiply each tap with each
  point, most of them zeros.
  """
  axes = x.ndim - 2
  rows = x.reshape(len(x), *[1] * axes, -1)
  return product('whole', rows, kernel.reshape(-1, kernel.shape[-1]))


def _sees_few(kernel: Any) -> bool:
  """Return whether the windows of a kernel [*k, c, d] hold few numbers, as those of a stem."""
  return math.prod(kernel.shape[:-1]) < FEW


def _wants_products(x: Any) -> bool:
  """Return whether a CPU should write convolutions of x as products, for its bfloat16 units."""
  return x.dtype == jnp.bfloat16 and not several_devices()


def convolve_by_xla(
  stride: int | Shape, padding: Padding, x: Any, kernel: Any, groups: int = 1, dilation: int = 1
) -> Any:
  """Return the convolution as XLA has it."""
  axes = 'DHW'[-(x.ndim - 2) :]
  maps = f'N{axes}C'
  strides = _strides(stride, len(axes))
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    rhs_dilation=(dilation,) * len(axes),
    feature_group_count=groups,
    dimension_numbers=(maps, f'{axes}IO', maps),
  )


def _subsampled(x: Any, stride: int) -> Any:
  """Return every stride-th point of x [b, *s, c] along each spatial axis."""
  if stride == 1:
    return x
  steps = [slice(None, None, stride)] * (x.ndim - 2)
  return x[:, *steps]


def windows(stride: int, padding: Padding, taps: Shape, x: Any) -> list[Any]:
  """Return what each tap of a kernel is multiplied with: maps [b, *t, c] of x [b, *s, c].

  *t are the sides of the convolution's result. x is padded first; negative padding cuts.
  """
  zero = jnp.zeros((), x.dtype)
  edges = [(before, after, 0) for before, after in padding]
  x = jax.lax.pad(x, zero, [(0, 0, 0), *edges, (0, 0, 0)])
  slices_by_axis = []
  for side, count in zip(x.shape[1:-1], taps, strict=True):
    length = (side - count) // stride * stride + 1
    slices_by_axis.append([slice(tap, tap + length, stride) for tap in range(count)])
  return [x[:, *slices] for slices in itertools.product(*slices_by_axis)]


def _windows_side_by_side(stride: int, padding: Padding, taps: Shape, x: Any) -> Any:
  """Return what all taps are multiplied with as one array [b, *t, k · c], see `windows`."""
  return jnp.concatenate(windows(stride, padding, taps, x), -1)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolve(stride: int, padding: Padding, x: Any, kernel: Any) -> Any:
  """Return a convolution for which a CPU has lowerings of its own.

  It strides, or its kernel sees few channels, or its numbers are bfloat16.
  """
  by_xla = partial(convolve_by_xla, stride, padding)
  if not _wants_products(x):
    return by_xla(x, kernel)
  by_products = partial(_convolve_by_products, stride, padding)
  return jax.lax.platform_dependent(x, kernel, cpu=by_products, default=by_xla)


def _convolve_forward(
  stride: int, padding: Padding, x: Any, kernel: Any
) -> tuple[Any, tuple[Any, Any]]:
  return _convolve(stride, padding, x, kernel), (x, kernel)


def _convolve_backward(
  stride: int, padding: Padding, saved: tuple[Any, Any], gradient: Any
) -> tuple[Any, Any]:
  x, kernel = saved

  def x_gradient_by_xla(kernel: Any, gradient: Any) -> Any:
    transpose = jax.linear_transpose(lambda x: convolve_by_xla(stride, padding, x, kernel), x)
    return transpose(gradient)[0]

  def kernel_gradient_by_xla(x: Any, gradient: Any) -> Any:
    convolve_x = lambda kernel: convolve_by_xla(stride, padding, x, kernel)
    transpose = jax.linear_transpose(convolve_x, kernel)
    return transpose(gradient)[0]

  x_gradient_on_cpu: Callable[[Any, Any], Any] = x_gradient_by_xla
  if stride > 1 or _wants_products(x):
    x_gradient_on_cpu = partial(_x_gradient_by_phases, stride, padding, x.shape)
  kernel_gradient_on_cpu: Callable[[Any, Any], Any] = kernel_gradient_by_xla
  if _wants_products(x):
    kernel_gradient_on_cpu = partial(_kernel_gradient_of_bfloat16, stride, padding, kernel)
  elif _sees_few(kernel) and not several_devices():
    kernel_gradient_on_cpu = partial(_kernel_gradient_by_windows, stride, padding, kernel)
  x_gradient = jax.lax.platform_dependent(
    kernel, gradient, cpu=x_gradient_on_cpu, default=x_gradient_by_xla
  )
  kernel_gradient = jax.lax.platform_dependent(
    x, gradient, cpu=kernel_gradient_on_cpu, default=kernel_gradient_by_xla
  )
  return x_gradient, kernel_gradient


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _x_gradient_by_phases(
  stride: int, padding: Padding, shape: Shape, kernel: Any, gradient: Any
) -> Any:
  """Return the gradient of x [b, *s, c] of this shape, made of stride ** axes small convolutions.

  Points whose indices leave the same remainders by the stride are a phase: they see the same taps
  of the kernel. XLA spreads the gradient with zeros instead, and multiplies them too.
  """
  batch, *sides, channels = shape
  axes = len(padding)
  counts = [math.ceil(side / stride) for side in sides]  # points of a phase along each axis
  phases = []
  for remainders in itertools.product(range(stride), repeat=axes):
    taps = kernel
    pads = []
    for axis, remainder in enumerate(remainders):
      before, _ = padding[axis]
      # the first tap that the phase's first point sees, and the output that this tap belongs to
      output, first = divmod(remainder + before, stride)
      first = min(first, taps.shape[axis])
      taps = jax.lax.slice_in_dim(taps, first, None, stride, axis)
      pad_before = taps.shape[axis] - 1 - output
      pad_after = counts[axis] + output - gradient.shape[axis + 1]
      pads.append((pad_before, pad_after))
    if taps.size:
      transposed = jnp.flip(taps, range(axes)).swapaxes(-1, -2)
      phases.append(convolve(gradient, transposed, 1, pads))
    else:  # these points are seen by no tap
      phases.append(jnp.zeros((batch, *counts, channels), gradient.dtype))
  points = _interleaved(phases, stride)
  return points[:, *map(slice, sides)]  # those beyond x are cut


def _interleaved(phases: Sequence[Any], stride: int) -> Any:
  """Return the points [b, *(n · stride), c] of all phases, [b, *n, c] each."""
  batch, *counts, channels = phases[0].shape
  axes = len(counts)
  strides = (stride,) * axes
  stacked = jnp.stack(phases).reshape(*strides, batch, *counts, channels)
  order = [axes]  # the batch, then each axis's points before its phases, then the channels
  for axis in range(axes):
    order += [axes + 1 + axis, axis]
  order.append(2 * axes + 1)
  sides = [count * stride for count in counts]
  return stacked.transpose(order).reshape(batch, *sides, channels)


def _kernel_gradient_by_windows(
  stride: int, padding: Padding, kernel: Any, x: Any, gradient: Any
) -> Any:
  """Return the gradient of a kernel [*k, c, d], summed over the examples.

  That of an example is one product: all that the taps see, side by side, with the gradient.
  """
  *taps, channels, outputs = kernel.shape

  def add_example(total: Any, example: tuple[Any, Any]) -> tuple[Any, None]:
    x, gradient = example
    seen = _windows_side_by_side(stride, padding, tuple(taps), x[None])
    seen_rows = seen.reshape(-1, seen.shape[-1])
    gradient_rows = gradient.reshape(-1, outputs)
    return total + kernel_gradient_at_once(seen_rows, gradient_rows), None

  zeros = jnp.zeros((math.prod(taps) * channels, outputs), sum_dtype(x))
  total, _ = jax.lax.scan(add_example, zeros, (x, gradient))
  return total.reshape(kernel.shape).astype(kernel.dtype)


def _cut_into_pieces(x: Any, rows: int) -> Any:
  """Return x [b, …] as [pieces, examples, …]; a piece stays in the second-level cache.

  `rows` is how many rows of a product an example becomes. A piece holds one example at least.
  """
  examples = 1
  for count in range(2, len(x) + 1):
    if len(x) % count == 0 and count * rows <= LARGE:
      examples = count
  return x.reshape(-1, examples, *x.shape[1:])


def _convolve_by_products(stride: int, padding: Padding, x: Any, kernel: Any) -> Any:
  """Return the convolution of bfloat16 x [b, *s, c] as one product for each few examples.

  A product is of all that the taps see, side by side, with the kernel.
  """
  *taps, _, outputs = kernel.shape
  shape = jax.eval_shape(partial(convolve_by_xla, stride, padding), x, kernel).shape
  see = partial(_windows_side_by_side, stride, padding, tuple(taps))

  def multiply(x: Any) -> Any:
    seen = copy_bits(see, x)
    matrix = kernel.reshape(-1, outputs)
    y = jnp.matmul(seen, matrix, preferred_element_type=jnp.float32)
    return bits_of_bfloat16(y.astype(x.dtype))  # a loop collects integers faster, see `copy_bits`

  rows = math.prod(shape[1:-1])
  bits = jax.lax.map(multiply, _cut_into_pieces(x, rows))
  return bfloat16_of_bits(bits).reshape(shape)


def _kernel_gradient_of_bfloat16(
  stride: int, padding: Padding, kernel: Any, x: Any, gradient: Any
) -> Any:
  """Return the gradient of a bfloat16 kernel [*k, c, d] as one product for each few examples.

  As `_kernel_gradient_by_windows`, with channels first, which is what bfloat16 units ask for.
  """
  *taps, channels, outputs = kernel.shape

  def see(x: Any) -> Any:
    channels_first = jnp.moveaxis(x, -1, 0)
    maps = channels_first.reshape(-1, *x.shape[1:-1], 1)
    seen = windows(stride, padding, tuple(taps), maps)
    return jnp.concatenate([window.reshape(channels, -1) for window in seen])

  def add_piece(total: Any, piece: tuple[Any, Any]) -> tuple[Any, None]:
    x, gradient = piece
    seen = copy_bits(see, x)
    gradient_rows = gradient.reshape(-1, outputs)
    piece_gradient = jnp.matmul(seen, gradient_rows, preferred_element_type=jnp.float32)
    return total + piece_gradient, None

  rows = math.prod(gradient.shape[1:-1])
  pieces = (_cut_into_pieces(x, rows), _cut_into_pieces(gradient, rows))
  zeros = jnp.zeros((math.prod(taps) * channels, outputs), jnp.float32)
  total, _ = jax.lax.scan(add_piece, zeros, pieces)
  return total.reshape(kernel.shape).astype(kernel.dtype)
