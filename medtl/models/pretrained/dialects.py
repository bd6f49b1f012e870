"""How publishers name and lay out arrays: their names become our paths, their axes ours."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]
Arrays = Mapping[str, np.ndarray]
Rule = Callable[[np.ndarray, Shape], np.ndarray]
Adapt = Mapping[str, Rule]
TORCH_LEAVES = (  # PyTorch's words for leaves; they come last in a family's renames
  (r'(norm\d?)\.weight$', r'\1/scale'),
  (r'\.weight$', '/kernel'),
  (r'\.bias$', '/bias'),
)
_STEM = r'params/backbone/stem/(.*/)?kernel'
_CUT = r'([^{]*)(?:\{(.*)\})?(.*)'  # of a/{query,key,value}/b: 'a/', 'query,key,value', '/b'
_ROWS = r'(\w+)\[(\d*):(\d*)\]'  # of positions[1:]: 'positions', '1', ''
EACH = '/stage_each/'
LAST = '/stage_last/'


class Dialect(NamedTuple):
  """How a publisher names and lays out arrays, and what pictures its networks expect.

  `renames` apply in order by `re.sub` and must end at `params/…` or `batch_stats/…`; the path ''
  drops the array. `a/{query,key,value}/b` cuts the array along its output axis into equal parts,
  of which one without a name is dropped; `a/{first[:1],rest[1:]}` cuts it into rows, along the
  axis before that. `stage_last` is the last stage of ours, whatever its number; `stage_each` deals
  the array's first axis out to the stages.

  `layout` is 'torch' (O, I, *k), 'keras' (*k, I, O; depthwise *k, C, 1) or 'flax' (ours, but
  attention heads may have an axis of their own). `mean` and `std` are RGB in units of 0 … 1;
  `order` is that of the stem's channels. `standardised` kernels cannot take another number of
  channels. `keys` are those of a factory that no shape shows (epsilon, padding), as all networks of
  these names have them. `unscaled_norms`: theirs have a bias but no scale, which is 1 in ours.
  `optional` is a regex of paths of ours that not every network has: where ours has them not, theirs
  are dropped.
  """

  layout: str
  renames: Sequence[tuple[str, str]]
  mean: tuple[float, ...] = (0.485, 0.456, 0.406)
  std: tuple[float, ...] = (0.229, 0.224, 0.225)
  order: str = 'rgb'
  standardised: bool = False
  keys: Mapping[str, Any] = MappingProxyType({})
  unscaled_norms: bool = False
  optional: str = ''


class Piece(NamedTuple):
  """One of their arrays, or one part of it, on its way to one of our paths."""

  name: str
  path: str
  array: np.ndarray


def rename(name: str, dialect: Dialect) -> str:
  """Return our path of a publisher's name, '' where the dialect drops it."""
  path = name
  for pattern, replacement in dialect.renames:
    path = re.sub(pattern, replacement, path)
  return path


def bare(path: str) -> str:
  """Return a path without its collection: what rules and regexes see.

  >>> bare('batch_stats/backbone/stem/norm/mean')
  'backbone/stem/norm/mean'
  """
  return path.partition('/')[2]


def renamed(
  arrays: Arrays, dialect: Dialect, unwanted: Sequence[str], last: str = ''
) -> tuple[list[Piece], list[str]]:
  """Return the pieces under our paths, and the names of what is dropped or unwanted.

  `last` is the name of our last stage.
  """
  pieces: list[Piece] = []
  ignored: list[str] = []
  for name, array in arrays.items():
    path = rename(name, dialect)
    array = _transpose(np.asarray(array), path, dialect.layout)
    wanted = []
    for part in _parts(Piece(name, path, array)):
      if part.path and not any(re.fullmatch(pattern, bare(part.path)) for pattern in unwanted):
        wanted.append(part._replace(path=part.path.replace(LAST, f'/{last}/')))
    pieces += wanted
    if not wanted:
      ignored.append(name)
  return pieces, ignored


def _parts(piece: Piece) -> list[Piece]:
  """Return the parts of an array whose path says that it is cut, or the piece as it is."""
  if EACH not in piece.path:
    return _cut(piece)
  parts = []
  for number, array in enumerate(piece.array, 1):
    path = piece.path.replace(EACH, f'/stage{number}/')
    parts += _cut(piece._replace(path=path, array=array))
  return parts


def _cut(piece: Piece) -> list[Piece]:
  """Return the parts of an array whose path is a/{query,key,value}/b, or the piece as it is."""
  before, words, after = re.fullmatch(_CUT, piece.path).groups()  # type: ignore[union-attr]
  if not words:
    return [piece]
  names = words.split(',')
  rows = [re.fullmatch(_ROWS, name) for name in names]
  parts = []
  if all(rows):
    for match in rows:
      name, start, stop = match.groups()  # type: ignore[union-attr]
      array = piece.array[..., int(start or 0) : int(stop) if stop else None, :]
      parts.append(Piece(piece.name, before + name + after, array))
    return parts
  if not piece.array.ndim or piece.array.shape[-1] % len(names):
    return [piece]
  for name, array in zip(names, np.split(piece.array, len(names), axis=-1), strict=True):
    path = before + name + after if name else ''
    parts.append(Piece(piece.name, path, array))
  return parts


def rule_of(path: str, adapt: Adapt) -> Rule | None:
  """Return the first rule of a family's ADAPT for a path of ours."""
  for pattern, function in adapt.items():
    if re.fullmatch(pattern, bare(path)):
      return function
  return None


def _transpose(array: np.ndarray, path: str, layout: str) -> np.ndarray:
  """Return a torch kernel (O, I, *k) as (*k, I, O); everything else as it is."""
  if layout == 'torch' and path.endswith('/kernel') and array.ndim > 1:
    return np.moveaxis(array, (0, 1), (-1, -2))
  return array


def fitted(piece: Piece, shape: Shape, dialect: Dialect) -> np.ndarray:
  """Return the array in our shape where only one reading is possible, else as it is."""
  array = piece.array
  if dialect.order == 'bgr' and is_stem_of_three(piece):
    array = array[..., ::-1, :]
  if piece.path.endswith('/kernel') and _is_flattened(array.shape, shape):
    return _unflattened(array, shape, dialect.layout)
  if dialect.layout == 'keras' and _is_depthwise_of_keras(array.shape, shape):
    return np.swapaxes(array, -1, -2)
  if _differs_in_ones(array.shape, shape):
    return array.reshape(shape)
  if dialect.layout == 'flax' and 0 < len(shape) < array.ndim and _merges(array.shape, shape):
    return array.reshape(shape)
  return array


def is_stem_of_three(piece: Piece) -> bool:
  """Return whether a piece is the first kernel, of three input channels."""
  if piece.array.shape[-2:-1] != (3,):
    return False
  return is_first_kernel(piece.path)


def is_first_kernel(path: str) -> bool:
  """Return whether a path is that of a kernel of the stem."""
  return re.fullmatch(_STEM, path) is not None


def _is_depthwise_of_keras(source: Shape, shape: Shape) -> bool:
  """Return whether `source` is (*k, C, 1) where our kernel is (*k, 1, C)."""
  if len(shape) < 3 or shape[-2] != 1:
    return False
  return source == (*shape[:-2], shape[-1], 1)


def _is_flattened(source: Shape, shape: Shape) -> bool:
  """Return whether `source` is a dense kernel on flattened maps where our kernel sees the maps."""
  if len(source) != 2 or len(shape) < 3 or math.prod(shape[:-2]) == 1:
    return False
  return source == (math.prod(shape[:-1]), shape[-1])


def _unflattened(array: np.ndarray, shape: Shape, layout: str) -> np.ndarray:
  """Return a dense kernel as [*k, c, d]: PyTorch flattens channels first, all others last."""
  if layout != 'torch':
    return array.reshape(shape)
  *taps, channels, outputs = shape
  return np.moveaxis(array.reshape(channels, *taps, outputs), 0, -2)


def _differs_in_ones(source: Shape, shape: Shape) -> bool:
  """Return whether nothing but axes of one point tells the shapes apart.

  The three channels of a kernel of pictures are no taps of one of grey volumes: (3, 3, 3, d) is not
  (3, 3, 3, 1, d).
  """
  both_have_taps = min(len(source), len(shape)) > 2
  if both_have_taps and len(source) != len(shape) and source[-2:] != shape[-2:]:
    return False
  return _without_ones(source) == _without_ones(shape)


def _without_ones(shape: Shape) -> list[int]:
  return [size for size in shape if size != 1]


def _merges(source: Shape, shape: Shape) -> bool:
  """Return whether joining neighbouring axes turns `source` into `shape`.

  So it does for [d, h, c] and [d, h · c].
  """
  left = list(source)
  for size in shape:
    product = 1
    while left and product < size:
      product *= left.pop(0)
    if product != size:
      return False
  return not left
