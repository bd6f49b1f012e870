"""The first convolution of a checkpoint, for pictures of other than its three channels."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from medtl.core.types import MedtlError

Normal = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of the input


def adapt_input_channels(
  arrays: Mapping[str, np.ndarray],
  path: str,
  count: int,
  mean: Sequence[float],
  std: Sequence[float],
) -> tuple[dict[str, np.ndarray], Normal, str]:
  """Return (the arrays that change, (mean, std), a note) for `count` input channels.

  `path` is that of the first kernel [*k, 3, d]; `mean` and `std` are one number or three.

  One channel computes what three copies of it would. With x = (grey − m) / s the copies are
  (s · x + m − mean_c) / std_c. So the kernel becomes Σ_c W_c · s / std_c, and the constant
  Σ_c W_c · (m − mean_c) / std_c, summed over the taps, goes into the bias, into the position
  embeddings of a ViT, or out of the running mean of the BatchNorm that follows. m and s are such
  that the constant is 0 for kernels that are grey themselves. Where zero padding covers taps the
  result differs from that of three copies, unless the checkpoint's means are equal.

  Other numbers of channels: kernels, mean and std are repeated cyclically, and kernels scaled by
  3 / count (timm's `adapt_input_conv`).

  Raises MedtlError where nothing can take the constant.
  """
  kernel = np.asarray(arrays[path], np.float64)
  if count == 1:
    return _summed(arrays, path, kernel, mean, std)
  source = [channel % 3 for channel in range(count)]
  means = tuple(mean[channel % len(mean)] for channel in source)
  stds = tuple(std[channel % len(std)] for channel in source)
  repeated = kernel[..., source, :] * (3 / count)
  note = f'stem: 3 input channels repeated to {count}, scaled by 3/{count}'
  return {path: repeated}, (means, stds), note


def _summed(
  arrays: Mapping[str, np.ndarray],
  path: str,
  kernel: np.ndarray,
  mean: Sequence[float],
  std: Sequence[float],
) -> tuple[dict[str, np.ndarray], Normal, str]:
  """Return what `adapt_input_channels` does for one channel."""
  means = np.resize(mean, 3)  # one number means all three
  inverse = 1 / np.resize(std, 3)
  s = len(inverse) / inverse.sum()
  m = (means * inverse).sum() / inverse.sum()
  taps = kernel.reshape(-1, *kernel.shape[-2:])
  constant = np.einsum('kco,c->o', taps, (m - means) * inverse)
  grey = np.einsum('...co,c->...o', kernel, s * inverse)
  changed = {path: grey[..., None, :]}
  taker, sign = _taker_of_constant(arrays, path)
  if taker:
    changed[taker] = arrays[taker] + sign * constant
  elif np.abs(constant).max() > 1e-9 * np.abs(kernel).max():
    raise MedtlError(
      f'{path}: for one input channel the constant needs a bias, a BatchNorm or position '
      'embeddings; use 3 channels'
    )
  note = 'stem: 3 input channels summed to one, normalisation folded in'
  return changed, ((float(m),), (float(s),)), note


def _taker_of_constant(paths: Iterable[str], kernel: str) -> tuple[str, int]:
  """Return the path of what a constant behind the convolution can go into, and with which sign.

  The path is '' where there is nothing.
  """
  layer = kernel.removesuffix('/kernel')
  stem = layer.rpartition('/')[0]
  bias = re.escape(f'{layer}/bias')
  positions = re.escape(f'{stem}/positions')
  statistics = re.escape(stem.replace('params', 'batch_stats', 1))
  running_mean = f'{statistics}/[^/]*norm[^/]*/mean'
  for pattern, sign in ((bias, 1), (positions, 1), (running_mean, -1)):
    for path in paths:
      if re.fullmatch(pattern, path):
        return path, sign
  return '', 0
