"""A publisher's arrays become our variables: renamed by regex and transposed by layout.

Nothing may be missing, extra or of another shape. A family declares
`RENAMES = {'torchvision': Dialect('torch', ((regex, replacement), …)), …}`. What must be recomputed
for another shape (position embeddings) stands in its
`ADAPT = {regex of paths: f(array, shape) -> array}`. Paths are ours, `backbone/…` or `head/…`.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medtl.core import pytrees
from medtl.core.types import MedtlError, Tree
from medtl.models.pretrained.input_channels import Normal, adapt_input_channels

Shape = tuple[int, ...]
Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, Shape]
Rule = Callable[[np.ndarray, Shape], np.ndarray]
Adapt = Mapping[str, Rule]
TORCH_LEAVES = (  # PyTorch's words for leaves; they come last in a family's renames
  (r'(norm\d?)\.weight$', r'\1/scale'),
  (r'\.weight$', '/kernel'),
  (r'\.bias$', '/bias'),
)
_STEM = r'params/backbone/stem/(.*/)?kernel'
_CUT = r'([^{]*)(?:\{(.*)\})?(.*)'  # of a/{query,key,value}/b: 'a/', 'query,key,value', '/b'


class Dialect(NamedTuple):
  """How a publisher names and lays out arrays, and what pictures its networks expect.

  `renames` apply in order by `re.sub` and must end at `params/…` or `batch_stats/…`. The path
  `a/{query,key,value}/b` cuts the array along its output axis into equal parts; where ADAPT has a
  rule for each of them, each gets the whole. The path '' drops the array.

  `layout` is 'torch' (O, I, *k), 'keras' (*k, I, O; depthwise *k, C, 1) or 'flax' (ours, but
  attention heads may have an axis of their own). `mean` and `std` are RGB in units of 0 … 1;
  `order` is that of the stem's channels. `standardised` kernels cannot take another number of
  channels.
  """

  layout: str
  renames: Sequence[tuple[str, str]]
  mean: tuple[float, ...] = (0.485, 0.456, 0.406)
  std: tuple[float, ...] = (0.229, 0.224, 0.225)
  order: str = 'rgb'
  standardised: bool = False


class Report(NamedTuple):
  """What a port did; the net must normalise its input by `mean` and `std` from now on."""

  dialect: str
  ported: int  # arrays of ours that were filled
  fresh: tuple[str, ...]  # paths of ours that stay as initialised
  ignored: tuple[str, ...]  # names of theirs that map onto fresh ones, or that the dialect drops
  mean: tuple[float, ...]
  std: tuple[float, ...]
  notes: tuple[str, ...]  # sentences on what was adapted


class _Piece(NamedTuple):
  """One of their arrays, or one part of it, on its way to one of our paths."""

  name: str
  path: str
  array: np.ndarray


class _Reading(NamedTuple):
  """A checkpoint read as one dialect; `faults` say in words why it does not fit, if it does not."""

  dialect: str
  ported: Mapping[str, _Piece]
  ignored: list[str]
  normal: Normal
  notes: list[str]
  faults: list[str]


def port(
  arrays: Arrays,
  target: Tree,
  dialects: Mapping[str, Dialect],
  *,
  fresh: Sequence[str] = (),
  adapt: Adapt | None = None,
  mean: Sequence[float] = (),
  std: Sequence[float] = (),
  without: Sequence[str] = (),
) -> tuple[Tree, Report]:
  """Return {'params': …, 'batch_stats': …} in float32 without the fresh leaves, and the report.

  `target` holds arrays or shapes, {'params': …, 'batch_stats': …}. `fresh` are regexes of paths
  that stay as initialised, `without` of paths that theirs may have and ours has not. `mean` and
  `std` are the checkpoint's own where they differ from the dialect's. Raises MedtlError when no
  dialect fits without a difference.
  """
  leaves = pytrees.flatten(target)
  shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
  kept = _fresh(shapes, fresh)
  wanted = {path: shape for path, shape in shapes.items() if path not in kept}
  nearest: _Reading | None = None
  for name, dialect in dialects.items():
    dialect = dialect._replace(mean=tuple(mean) or dialect.mean, std=tuple(std) or dialect.std)
    reading = _read_as(name, dialect, arrays, wanted, (*fresh, *without), adapt or {})
    if not reading.faults:
      _check_numbers(reading.ported)
      return _tree(reading.ported), _report(reading, kept)
    if nearest is None or len(reading.faults) < len(nearest.faults):
      nearest = reading
  if nearest is None:
    raise MedtlError('this architecture reads no checkpoints: its RENAMES is empty')
  which = f'read as {nearest.dialect!r} (which fits best of: {", ".join(dialects)})'
  lines = [f'the checkpoint does not fit this model, {which}:', *nearest.faults]
  advice = _advice(arrays, nearest.ported, wanted)
  raise MedtlError('\n  '.join([*_shortened(lines), *advice]))


def _read_as(
  name: str,
  dialect: Dialect,
  arrays: Arrays,
  wanted: Shapes,
  unwanted: Sequence[str],
  adapt: Adapt,
) -> _Reading:
  """Return the arrays under our paths and in our shapes, as far as the dialect fits."""
  pieces, ignored = _rename(arrays, dialect, unwanted, adapt)
  ported: dict[str, _Piece] = {}
  for piece in pieces:
    array = _fit(piece, wanted.get(piece.path, ()), dialect)
    ported[piece.path] = piece._replace(array=array)
  normal: Normal = (dialect.mean, dialect.std)
  notes: list[str] = []
  faults = _name_faults(pieces, ported, wanted)
  if not faults:
    notes = _apply_rules(ported, wanted, adapt)
    normal, stem_notes = _adapt_stems(ported, wanted, dialect)
    notes += stem_notes
  faults += _shape_faults(ported, wanted)
  return _Reading(name, ported, ignored, normal, notes, faults)


def _report(reading: _Reading, kept: Collection[str]) -> Report:
  mean, std = reading.normal
  return Report(
    dialect=reading.dialect,
    ported=len(reading.ported),
    fresh=tuple(sorted(kept)),
    ignored=tuple(reading.ignored),
    mean=mean,
    std=std,
    notes=tuple(reading.notes),
  )


def outputs(arrays: Arrays, dialects: Mapping[str, Dialect]) -> int:
  """Return how many classes the checkpoint's own head tells apart.

  0 where it has no head that a dialect names.
  """
  for dialect in dialects.values():
    pieces, _ = _rename(arrays, dialect, (), {})
    if not any(piece.path.startswith('params/backbone/') for piece in pieces):
      continue
    for piece in pieces:
      if piece.path == 'params/head/dense/kernel':
        return int(np.squeeze(piece.array).shape[-1])
  return 0


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


def _fresh(shapes: Shapes, patterns: Sequence[str]) -> set[str]:
  """Return the paths that a pattern matches; a pattern that matches none is a MedtlError."""
  kept: set[str] = set()
  for pattern in patterns:
    hits = {path for path in shapes if re.fullmatch(pattern, bare(path))}
    if not hits:
      first = ', '.join(bare(path) for path in list(shapes)[:6])
      raise MedtlError(f'fresh rule {pattern!r} matches nothing; the paths begin {first} …')
    kept |= hits
  return kept


def _rename(
  arrays: Arrays, dialect: Dialect, unwanted: Sequence[str], adapt: Adapt
) -> tuple[list[_Piece], list[str]]:
  """Return the pieces under our paths, and the names of what is dropped or unwanted."""
  pieces: list[_Piece] = []
  ignored: list[str] = []
  for name, array in arrays.items():
    path = rename(name, dialect)
    if not path or any(re.fullmatch(pattern, bare(path)) for pattern in unwanted):
      ignored.append(name)
    else:
      array = _transpose(np.asarray(array), path, dialect.layout)
      pieces += _cut(_Piece(name, path, array), adapt)
  return pieces, ignored


def _cut(piece: _Piece, adapt: Adapt) -> list[_Piece]:
  """Return the parts of an array whose path is a/{query,key,value}/b, or the piece as it is."""
  before, words, after = re.fullmatch(_CUT, piece.path).groups()  # type: ignore[union-attr]
  if not words:
    return [piece]
  paths = [before + word + after for word in words.split(',')]
  array = piece.array
  if all(_rule(path, adapt) for path in paths):  # each takes what it needs of the whole
    return [piece._replace(path=path) for path in paths]
  if not array.ndim or array.shape[-1] % len(paths):
    return [piece]
  parts = np.split(array, len(paths), axis=-1)
  return [_Piece(piece.name, path, part) for path, part in zip(paths, parts, strict=True)]


def _rule(path: str, adapt: Adapt) -> Rule | None:
  for pattern, function in adapt.items():
    if re.fullmatch(pattern, bare(path)):
      return function
  return None


def _transpose(array: np.ndarray, path: str, layout: str) -> np.ndarray:
  """Return a torch kernel (O, I, *k) as (*k, I, O); everything else as it is."""
  if layout == 'torch' and path.endswith('/kernel') and array.ndim > 1:
    return np.moveaxis(array, (0, 1), (-1, -2))
  return array


def _fit(piece: _Piece, shape: Shape, dialect: Dialect) -> np.ndarray:
  """Return the array in our shape where only one reading is possible, else as it is."""
  array = piece.array
  if dialect.order == 'bgr' and _is_stem_of_three(piece):
    array = array[..., ::-1, :]
  if dialect.layout == 'keras' and _is_depthwise_of_keras(array.shape, shape):
    return np.swapaxes(array, -1, -2)
  if _without_ones(array.shape) == _without_ones(shape):
    return array.reshape(shape)
  if dialect.layout == 'flax' and 0 < len(shape) < array.ndim and _merges(array.shape, shape):
    return array.reshape(shape)
  return array


def _is_stem_of_three(piece: _Piece) -> bool:
  """Return whether a piece is the first kernel, of three input channels."""
  if piece.array.shape[-2:-1] != (3,):
    return False
  return re.fullmatch(_STEM, piece.path) is not None


def _is_depthwise_of_keras(source: Shape, shape: Shape) -> bool:
  """Return whether `source` is (*k, C, 1) where our kernel is (*k, 1, C)."""
  if len(shape) < 3 or shape[-2] != 1:
    return False
  return source == (*shape[:-2], shape[-1], 1)


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


def _apply_rules(ported: dict[str, _Piece], wanted: Shapes, adapt: Adapt) -> list[str]:
  """Recompute pieces of another shape for which there is a rule; return what was done."""
  notes: list[str] = []
  for path, piece in ported.items():
    rule = _rule(path, adapt)
    shape = wanted[path]
    before = piece.array.shape
    if rule and before != shape:
      ported[path] = piece._replace(array=rule(piece.array, shape))
      notes.append(f'{bare(path)} from {before} to {shape}')
  return notes


def _adapt_stems(
  ported: dict[str, _Piece], wanted: Shapes, dialect: Dialect
) -> tuple[Normal, list[str]]:
  """Give a stem of three input channels the target's number of them.

  Return the (mean, std) that the input has then, and what was done.
  """
  normal = (dialect.mean, dialect.std)
  notes: list[str] = []
  for path, piece in list(ported.items()):
    before = piece.array.shape
    shape = wanted[path]
    channels = shape[-2:-1]
    only_channels_differ = shape != before and shape == (*before[:-2], *channels, *before[-1:])
    if not only_channels_differ or not _is_stem_of_three(piece):
      continue
    (count,) = channels
    if dialect.standardised:
      raise MedtlError(
        f'{bare(path)}: a kernel standardised over 3 input channels cannot have {count}; '
        'use 3-channel pictures'
      )
    arrays = {key: value.array for key, value in ported.items()}
    changed, normal, note = adapt_input_channels(arrays, path, count, *normal)
    for key, array in changed.items():
      ported[key] = ported[key]._replace(array=array)
    notes.append(note)
  return normal, notes


def _tree(ported: Mapping[str, _Piece]) -> Tree:
  """Return the arrays as a tree, in float32."""
  leaves: dict[str, np.ndarray] = {}
  for path, piece in ported.items():
    leaves[path] = np.ascontiguousarray(piece.array, np.float32)
  return pytrees.unflatten(leaves)


def _name_faults(
  pieces: Sequence[_Piece], ported: Mapping[str, _Piece], wanted: Shapes
) -> list[str]:
  """Return in words what is missing, unexpected or there twice."""
  faults: list[str] = []
  for path, shape in wanted.items():
    if path not in ported:
      faults.append(f'missing: {path} {shape}')
  for path, piece in ported.items():
    if path not in wanted:
      faults.append(f'unexpected: {_arrow(piece)} {piece.array.shape}')
  sources: dict[str, list[str]] = {}
  for piece in pieces:
    sources.setdefault(piece.path, []).append(piece.name)
  for path, names in sources.items():
    if len(names) > 1:
      faults.append(f'twice: {" and ".join(names)} both become {path}')
  return faults


def _shape_faults(ported: Mapping[str, _Piece], wanted: Shapes) -> list[str]:
  """Return in words whose shape is another."""
  faults: list[str] = []
  for path, piece in ported.items():
    shape = piece.array.shape
    if path in wanted and shape != wanted[path]:
      faults.append(f'shape: {_arrow(piece)}: found {shape}, expected {wanted[path]}')
  return faults


def _advice(arrays: Arrays, ported: Mapping[str, _Piece], wanted: Shapes) -> list[str]:
  """Return what to do about a checkpoint that does not fit."""
  missing = [path for path in wanted if path not in ported]
  unexpected = [path for path in ported if path not in wanted]
  there = [path for path in wanted if path in ported]
  misshapen = [path for path in there if ported[path].array.shape != wanted[path]]
  wrong = [*missing, *unexpected, *misshapen]
  if not there:
    begin = ', '.join(list(arrays)[:4])
    return [
      'no name in it is one of this architecture: is it of another than config.model.name? '
      f'Its names begin with: {begin}'
    ]
  if all(path.startswith('params/head/') for path in wrong):
    return ["all but the head fits: config.fresh=('head/.*',) gives the network a new one"]
  if unexpected or misshapen:
    return []
  children: list[str] = []
  for path in missing:
    child = '/'.join(bare(path).split('/')[:2])
    if child not in children:
      children.append(child)
  rules = ', '.join(repr(f'{child}/.*') for child in children)
  return [
    f'it lacks {len(missing)} of {len(wanted)} arrays and fits otherwise. Is it one part of '
    'several? Give the index.json beside the parts, or call these X-00001-of-00002.bin and '
    f'so on. What it never had begins anew by config.fresh=({rules},)'
  ]


def _arrow(piece: _Piece) -> str:
  """Return 'their name → our path', or the one name that both have."""
  if piece.name == piece.path:
    return piece.name
  return f'{piece.name} → {piece.path}'


def _shortened(lines: Sequence[str], most: int = 8) -> list[str]:
  """Return the lines, at most so many that begin with the same word and a colon."""
  counts: dict[str, int] = {}
  kept: list[str] = []
  for line in lines:
    kind = line.split(':')[0]
    counts[kind] = counts.get(kind, 0) + 1
    if counts[kind] <= most:
      kept.append(line)
  left = len(lines) - len(kept)
  return [*kept, f'… and {left} more'] if left else kept


def _check_numbers(ported: Mapping[str, _Piece]) -> None:
  """Raise MedtlError where an array holds numbers that are not finite."""
  for piece in ported.values():
    finite = np.isfinite(piece.array).sum()
    bad = int(np.size(piece.array) - finite)
    if bad:
      raise MedtlError(
        f'the checkpoint is damaged: {_arrow(piece)} holds {bad} NaN or infinite numbers; '
        'get it again'
      )
