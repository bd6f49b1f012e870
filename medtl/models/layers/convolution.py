"""Convolutions in the lowering that is fast where they run; kernels are [*k, c / groups, d] as `nn.Conv`'s, whatever the lowering.

Accelerators take what XLA has. Where XLA's CPU backend is slow the same sums are written otherwise: 1×1 as a matrix product, the gradient
of a strided convolution's input by phases, of a stem's kernel as products of windows, all of bfloat16 as products of windows: XLA
has bfloat16 units for products alone. docs/benchmarks.md says what each gave.
"""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from medtl.models.layers.matmul import LARGE, at_once, moved, product, shared

Padding = tuple[tuple[int, int], ...]
FEW = 256  # numbers in a window below which a kernel's gradient is taken from windows: stems


def convolve(
  x: Any, kernel: Any, stride: int, padding: Sequence[tuple[int, int]] | str, groups: int = 1
) -> Any:
  """Return x [b, *s, c] convolved with kernel [*k, c / groups, d]; padding is 'SAME', 'VALID' or (before, after) of each axis."""
  strides, taps = (stride,) * (x.ndim - 2), kernel.shape[:-2]
  pads = (
    jax.lax.padtype_to_pads(x.shape[1:-1], taps, strides, padding)
    if isinstance(padding, str)
    else padding
  )
  pads = tuple((int(before), int(after)) for before, after in pads)
  if groups == 1 and math.prod(taps) == 1 and not any(map(any, pads)):
    return product('pieces', every(x, stride), kernel.reshape(kernel.shape[-2:]))
  if groups == 1 and (stride > 1 or math.prod(kernel.shape[:-1]) < FEW or _narrow(x)):
    return own(stride, pads, x, kernel)
  return plain(stride, pads, x, kernel, groups)


def _narrow(x: Any) -> bool:
  """Return whether a CPU should take x [b, *s, c] apart for its bfloat16 units."""
  return x.dtype == jnp.bfloat16 and not shared()


def plain(stride: int, padding: Padding, x: Any, kernel: Any, groups: int = 1) -> Any:
  """Return the convolution as XLA has it."""
  axes = 'DHW'[-(x.ndim - 2) :]
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride,) * len(axes),
    padding,
    feature_group_count=groups,
    dimension_numbers=(f'N{axes}C', f'{axes}IO', f'N{axes}C'),
  )


def every(x: Any, stride: int) -> Any:
  """Return every stride-th point along each spatial axis."""
  return x if stride == 1 else x[(slice(None), *[slice(None, None, stride)] * (x.ndim - 2))]


def windows(stride: int, padding: Padding, x: Any, taps: tuple[int, ...]) -> list[Any]:
  """Return what of the padded x [b, *s, c] each tap of a kernel is multiplied with, all of the result's shape."""
  x = jax.lax.pad(
    x, jnp.zeros((), x.dtype), [(before, after, 0) for before, after in ((0, 0), *padding, (0, 0))]
  )  # negative: cut
  cuts = [
    [slice(tap, tap + (side - k) // stride * stride + 1, stride) for tap in range(k)]
    for side, k in zip(x.shape[1:-1], taps, strict=True)
  ]
  return [x[(slice(None), *cut)] for cut in itertools.product(*cuts)]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def own(stride: int, padding: Padding, x: Any, kernel: Any) -> Any:
  """Return a convolution that strides, whose kernel sees few channels, or in bfloat16: on a CPU they have gradients of their own."""
  if not _narrow(x):
    return plain(stride, padding, x, kernel)
  return jax.lax.platform_dependent(
    x, kernel, cpu=partial(_by_products, stride, padding), default=partial(plain, stride, padding)
  )


def _own_backward(
  stride: int, padding: Padding, saved: tuple[Any, Any], gradient: Any
) -> tuple[Any, Any]:
  x, kernel = saved

  def back(kernel: Any, gradient: Any) -> Any:
    return jax.linear_transpose(lambda x: plain(stride, padding, x, kernel), x)(gradient)[0]

  def summed(x: Any, gradient: Any) -> Any:
    return jax.linear_transpose(lambda kernel: plain(stride, padding, x, kernel), kernel)(gradient)[
      0
    ]

  narrow, few = _narrow(x), math.prod(kernel.shape[:-1]) < FEW and not shared()
  by_phases = partial(_by_phases, stride, padding, x.shape) if stride > 1 or narrow else back
  by_windows = (
    partial(_by_turned if narrow else _by_windows, stride, padding, kernel)
    if few or narrow
    else summed
  )
  return (
    jax.lax.platform_dependent(kernel, gradient, cpu=by_phases, default=back),
    jax.lax.platform_dependent(x, gradient, cpu=by_windows, default=summed),
  )


own.defvjp(
  lambda stride, padding, x, kernel: (own(stride, padding, x, kernel), (x, kernel)), _own_backward
)


def _by_phases(
  stride: int, padding: Padding, shape: tuple[int, ...], kernel: Any, gradient: Any
) -> Any:
  """Return the gradient of x [b, *s, c]: points whose index leaves the same rest by the stride see the same taps of the kernel.

  stride ** axes small convolutions, put together, without the zeros that XLA spreads the gradient with.
  """
  axes, sides = len(padding), shape[1:-1]
  counts = [-(-side // stride) for side in sides]  # points of a phase along each axis
  made = []
  for phase in itertools.product(range(stride), repeat=axes):
    seen, pads = kernel, []
    for axis, (rest, (before, _)) in enumerate(zip(phase, padding, strict=True)):
      begin = (rest + before) // stride  # the output that the first of these taps belongs to
      seen = jax.lax.slice_in_dim(
        seen, min((rest + before) % stride, seen.shape[axis]), None, stride, axis
      )
      pads.append((seen.shape[axis] - 1 - begin, counts[axis] + begin - gradient.shape[axis + 1]))
    if seen.size:
      made.append(convolve(gradient, jnp.flip(seen, range(axes)).swapaxes(-1, -2), 1, pads))
    else:
      made.append(jnp.zeros((shape[0], *counts, shape[-1]), gradient.dtype))
  one = jnp.stack(made).reshape(*(stride,) * axes, shape[0], *counts, shape[-1])
  order = [axes, *(axis for pair in range(axes) for axis in (axes + 1 + pair, pair)), 2 * axes + 1]
  whole = one.transpose(order).reshape(shape[0], *(count * stride for count in counts), shape[-1])
  return whole[(slice(None), *map(slice, sides))]


def _by_windows(stride: int, padding: Padding, kernel: Any, x: Any, gradient: Any) -> Any:
  """Return the gradient of a kernel [*k, c, d]: what the taps see, side by side, as one product for each example."""
  *taps, channels, outputs = kernel.shape

  def add(total: Any, example: tuple[Any, Any]) -> tuple[Any, None]:
    x, gradient = example
    seen = jnp.concatenate(windows(stride, padding, x[None], tuple(taps)), -1)
    return total + at_once(
      seen.reshape(-1, seen.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    ), None

  begin = jnp.zeros((math.prod(taps) * channels, outputs), jnp.promote_types(x.dtype, jnp.float32))
  return jax.lax.scan(add, begin, (x, gradient))[0].reshape(kernel.shape).astype(kernel.dtype)


def _some(x: Any, rows: int) -> Any:
  """Return x [b, …] as [pieces, some, …]: as many examples in a piece, of so many rows each, as stay in the second cache."""
  some = max(
    count
    for count in range(1, len(x) + 1)
    if len(x) % count == 0 and (count * rows <= LARGE or count == 1)
  )
  return x.reshape(-1, some, *x.shape[1:])


def _by_products(stride: int, padding: Padding, x: Any, kernel: Any) -> Any:
  """Return the convolution of bfloat16 x [b, *s, c]: what the taps see, side by side, as one product for each few examples."""
  *taps, _, outputs = kernel.shape
  shape = jax.eval_shape(partial(plain, stride, padding), x, kernel).shape

  def multiply(x: Any) -> Any:
    seen = moved(lambda x: jnp.concatenate(windows(stride, padding, x, tuple(taps)), -1), x)
    y = jnp.matmul(seen, kernel.reshape(-1, outputs), preferred_element_type=jnp.float32)
    return jax.lax.bitcast_convert_type(
      y.astype(x.dtype), jnp.uint16
    )  # as `product.moved`: a loop collects integers

  return jax.lax.bitcast_convert_type(
    jax.lax.map(multiply, _some(x, math.prod(shape[1:-1]))), x.dtype
  ).reshape(shape)


def _by_turned(stride: int, padding: Padding, kernel: Any, x: Any, gradient: Any) -> Any:
  """Return the gradient of a bfloat16 kernel [*k, c, d]: as `_by_windows`, with channels first, which is what bfloat16 units ask for."""
  *taps, _, outputs = kernel.shape

  def see(x: Any) -> Any:
    turned = jnp.moveaxis(x, -1, 0)
    seen = windows(stride, padding, turned.reshape(-1, *x.shape[1:-1], 1), tuple(taps))
    return jnp.concatenate([window.reshape(x.shape[-1], -1) for window in seen])

  def add(total: Any, examples: tuple[Any, Any]) -> tuple[Any, None]:
    x, gradient = examples
    return total + jnp.matmul(
      moved(see, x), gradient.reshape(-1, outputs), preferred_element_type=jnp.float32
    ), None

  rows = math.prod(gradient.shape[1:-1])
  begin = jnp.zeros((math.prod(kernel.shape[:-1]), outputs), jnp.float32)
  return (
    jax.lax.scan(add, begin, (_some(x, rows), _some(gradient, rows)))[0]
    .reshape(kernel.shape)
    .astype(kernel.dtype)
  )
