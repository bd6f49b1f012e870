"""The first convolution of a checkpoint for pictures with another number of channels than its three."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from medtl.core.types import MedtlError


def adapt_input_channels(
  arrays: Mapping[str, np.ndarray],
  path: str,
  count: int,
  mean: Sequence[float],
  std: Sequence[float],
) -> tuple[dict[str, np.ndarray], tuple[tuple[float, ...], tuple[float, ...]], str]:
  """Return the stem's changed arrays for another number of input channels, (mean, std) for them, and what was done.

  One channel: with x = (grey − m) / s the three copies are (s·x + m − mean_c) / std_c, so that W' = Σ_c W_c · s / std_c, and the constant
  Σ_c W_c · (m − mean_c) / std_c, summed over the taps, goes into the bias, into a ViT's position embeddings, or out of the running mean
  of the BatchNorm that follows. m and s are such that it is 0 for kernels that are grey themselves. The same as three copies, but where
  zero padding covers taps (nowhere if the checkpoint's means are equal). Other numbers: kernels repeated cyclically and scaled by 3 / n
  (timm's `adapt_input_conv`), mean and std repeated.
  """
  kernel, mean_c, inverse = (
    np.asarray(arrays[path], np.float64),
    np.resize(mean, 3),
    1 / np.resize(std, 3),
  )  # one number means all three
  if count != 1:
    index = [i % 3 for i in range(count)]
    values = tuple(mean[i % len(mean)] for i in index), tuple(std[i % len(std)] for i in index)
    return (
      {path: kernel[..., index, :] * (3 / count)},
      values,
      f'stem: 3 input channels repeated to {count}, scaled by 3/{count}',
    )
  s, m = len(inverse) / inverse.sum(), (mean_c * inverse).sum() / inverse.sum()
  offset = np.einsum('kco,c->o', kernel.reshape(-1, *kernel.shape[-2:]), (m - mean_c) * inverse)
  changed = {path: np.einsum('...co,c->...o', kernel, s * inverse)[..., None, :]}
  beside = re.escape(path.rpartition('/')[0].rpartition('/')[0])
  takers = (
    (re.escape(path.removesuffix('kernel') + 'bias'), 1),
    (f'{beside}/positions', 1),
    (beside.replace('params', 'batch_stats', 1) + '/[^/]*norm[^/]*/mean', -1),
  )
  taker = next(
    ((name, sign) for pattern, sign in takers for name in arrays if re.fullmatch(pattern, name)),
    None,
  )
  if taker:
    changed[taker[0]] = arrays[taker[0]] + taker[1] * offset
  elif np.abs(offset).max() > 1e-9 * np.abs(kernel).max():
    raise MedtlError(
      f'{path}: for one input channel the constant needs a bias, a BatchNorm or position embeddings; use 3 channels'
    )
  return (
    changed,
    ((float(m),), (float(s),)),
    'stem: 3 input channels summed to one, normalisation folded in',
  )
