"""A publisher's arrays become our variables: renamed by regex, transposed by layout, and nothing missing, extra or misshapen.

A family declares `RENAMES = {'torchvision': Dialect('torch', ((regex, replacement), …)), …}`; what must be recomputed for another
shape (position embeddings) stands in its `ADAPT = {path regex: f(array, shape) -> array}`. Paths are ours, `backbone/…` or `head/…`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medtl.core import pytrees
from medtl.core.types import MedtlError, Tree
from medtl.models.pretrained.input_channels import adapt_input_channels

Arrays = Mapping[str, np.ndarray]
Adapt = Mapping[str, Callable[[np.ndarray, tuple[int, ...]], np.ndarray]]
_STEM = r'params/backbone/stem/(.*/)?kernel'


class Dialect(NamedTuple):
  """How a publisher names and lays out arrays, and what pictures its networks expect.

  `renames` apply in order by `re.sub` and must end at `params/…` or `batch_stats/…`; `a/{query,key,value}/b` cuts the array along its
  output axis into equal parts (where ADAPT has a rule for each of them, each gets the whole); '' drops it. `layout`: 'torch'
  (O, I, *k), 'keras' (*k, I, O; depthwise *k, C, 1) or 'flax' (ours, but attention heads may have an axis of their own). `mean` and
  `std` are RGB in units of 0 … 1; `order` is that of the stem's channels. `standardised` kernels cannot take another number of them.
  """

  layout: str
  renames: Sequence[tuple[str, str]]
  mean: tuple[float, ...] = (0.485, 0.456, 0.406)
  std: tuple[float, ...] = (0.229, 0.224, 0.225)
  order: str = 'rgb'
  standardised: bool = False


class Report(NamedTuple):
  """What a port did; `mean` and `std` are what the net must normalise its input with from now on."""

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

  `target` holds arrays or shapes, {'params': …, 'batch_stats': …}; `fresh` are regexes of paths that stay as initialised, `without` of
  paths that theirs may have and ours has not. `mean` and `std` are the checkpoint's own where they differ from the dialect's. Raises
  MedtlError when no dialect fits without a difference.
  """
  shapes = {path: tuple(leaf.shape) for path, leaf in pytrees.flatten(target).items()}
  kept = _fresh(shapes, fresh)
  wanted = {path: shape for path, shape in shapes.items() if path not in kept}
  best: list[str] | None = None
  advice: list[str] = []
  fewest = 0
  for name, dialect in dialects.items():
    pieces, ignored = _rename(arrays, dialect, (*fresh, *without), adapt or {})
    dialect = dialect._replace(mean=tuple(mean) or dialect.mean, std=tuple(std) or dialect.std)
    ported = {
      piece.path: piece._replace(array=_fit(piece, wanted.get(piece.path, ()), dialect))
      for piece in pieces
    }
    faults = _names(pieces, ported, wanted)
    if not faults:
      ported, normal, notes = _adapt(ported, wanted, dialect, adapt or {})
    faults += _shapes(ported, wanted)
    if not faults:
      _finite(ported)
      return (
        pytrees.unflatten(
          {path: np.ascontiguousarray(piece.array, np.float32) for path, piece in ported.items()}
        ),
        Report(name, len(ported), tuple(sorted(kept)), tuple(ignored), *normal, notes),
      )
    if best is None or len(faults) < fewest:
      fewest = len(faults)
      which = f'read as {name!r} (which fits best of: {", ".join(dialects)})'
      best = [f'the checkpoint does not fit this model, {which}:', *faults]
      advice = _advice(arrays, ported, wanted)
  if best is None:
    raise MedtlError('this architecture reads no checkpoints: its RENAMES is empty')
  raise MedtlError('\n  '.join([_said(best), *advice]))


def outputs(arrays: Arrays, dialects: Mapping[str, Dialect]) -> int:
  """Return how many classes the checkpoint's own head tells apart, 0 where it has no head that a dialect names."""
  for dialect in dialects.values():
    pieces, _ = _rename(arrays, dialect, (), {})
    for piece in pieces:
      if piece.path == 'params/head/dense/kernel' and any(
        other.path.startswith('params/backbone/') for other in pieces
      ):
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


def _fresh(shapes: Mapping[str, Any], patterns: Sequence[str]) -> set[str]:
  kept: set[str] = set()
  for pattern in patterns:
    hits = {path for path in shapes if re.fullmatch(pattern, bare(path))}
    if not hits:
      raise MedtlError(
        f'fresh rule {pattern!r} matches nothing; the paths begin {", ".join(map(bare, list(shapes)[:6]))} …'
      )
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
      continue
    array = _transpose(np.asarray(array), path, dialect.layout)
    before, parts, after = re.fullmatch(r'([^{]*)(?:\{(.*)\})?(.*)', path).groups()  # type: ignore[union-attr]
    paths = [before + part + after for part in parts.split(',')] if parts else [path]
    if all(_rule(part, adapt) for part in paths):  # each takes what it needs of the whole
      values = [array] * len(paths)
    elif array.ndim and array.shape[-1] % len(paths) == 0:
      values = np.split(array, len(paths), axis=-1)
    else:
      paths, values = [path], [array]
    pieces += [_Piece(name, part, value) for part, value in zip(paths, values, strict=True)]
  return pieces, ignored


def _rule(path: str, adapt: Adapt) -> Callable[[np.ndarray, tuple[int, ...]], np.ndarray] | None:
  return next(
    (function for pattern, function in adapt.items() if re.fullmatch(pattern, bare(path))), None
  )


def _transpose(array: np.ndarray, path: str, layout: str) -> np.ndarray:
  """Return a torch kernel (O, I, *k) as (*k, I, O); everything else as it is."""
  if layout == 'torch' and path.endswith('/kernel') and array.ndim > 1:
    return np.moveaxis(array, (0, 1), (-1, -2))
  return array


def _fit(piece: _Piece, shape: tuple[int, ...], dialect: Dialect) -> np.ndarray:
  """Return the array in our shape where only one reading is possible, else as it is."""
  array = piece.array
  if dialect.order == 'bgr' and re.fullmatch(_STEM, piece.path) and array.shape[-2:-1] == (3,):
    array = array[..., ::-1, :]
  if (
    dialect.layout == 'keras'
    and len(shape) > 2
    and shape[-2] == 1
    and array.shape == (*shape[:-2], shape[-1], 1)
  ):
    return np.swapaxes(array, -1, -2)  # depthwise (*k, C, 1)
  ones_apart = [n for n in array.shape if n != 1] == [n for n in shape if n != 1]
  heads = dialect.layout == 'flax' and 0 < len(shape) < array.ndim and _merges(array.shape, shape)
  return array.reshape(shape) if ones_apart or heads else array


def _merges(source: Sequence[int], shape: Sequence[int]) -> bool:
  """Return whether joining neighbouring axes turns `source` into `shape`: [d, h, c] into [d, h·c]."""
  left = list(source)
  for size in shape:
    product = 1
    while left and product < size:
      product *= left.pop(0)
    if product != size:
      return False
  return not left


def _adapt(
  ported: dict[str, _Piece], wanted: Mapping[str, tuple[int, ...]], dialect: Dialect, adapt: Adapt
) -> tuple[dict[str, _Piece], tuple[tuple[float, ...], tuple[float, ...]], tuple[str, ...]]:
  """Return the pieces in the target's shapes where a rule exists, (mean, std) and what was done."""
  ported, notes, normal = dict(ported), [], (dialect.mean, dialect.std)
  for path, piece in list(ported.items()):
    rule = _rule(path, adapt)
    if rule and piece.array.shape != wanted[path]:
      ported[path] = piece._replace(array=rule(piece.array, wanted[path]))
      notes.append(f'{bare(path)} from {piece.array.shape} to {wanted[path]}')
  for path, piece in list(ported.items()):
    found, shape = piece.array.shape, wanted[path]
    if (
      re.fullmatch(_STEM, path)
      and found[-2:-1] == (3,)
      and found != shape == (*found[:-2], shape[-2], found[-1])
    ):
      if dialect.standardised:
        raise MedtlError(
          f'{bare(path)}: a kernel standardised over 3 input channels cannot have {shape[-2]}; use 3-channel pictures'
        )
      stem = {key: value.array for key, value in ported.items()}
      changed, normal, note = adapt_input_channels(stem, path, shape[-2], *normal)
      ported |= {key: ported[key]._replace(array=value) for key, value in changed.items()}
      notes.append(note)
  return ported, normal, tuple(notes)


def _names(
  pieces: Sequence[_Piece], ported: Mapping[str, _Piece], wanted: Mapping[str, tuple[int, ...]]
) -> list[str]:
  """Return in words what is missing, unexpected or there twice."""
  names: dict[str, list[str]] = {}
  for piece in pieces:
    names.setdefault(piece.path, []).append(piece.name)
  faults = [f'missing: {path} {shape}' for path, shape in wanted.items() if path not in ported]
  faults += [
    f'unexpected: {_arrow(piece)} {piece.array.shape}'
    for path, piece in ported.items()
    if path not in wanted
  ]
  return faults + [
    f'twice: {" and ".join(several)} both become {path}'
    for path, several in names.items()
    if len(several) > 1
  ]


def _shapes(ported: Mapping[str, _Piece], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
  """Return in words whose shape is another."""
  return [
    f'shape: {_arrow(piece)}: found {piece.array.shape}, expected {wanted[path]}'
    for path, piece in ported.items()
    if path in wanted and piece.array.shape != wanted[path]
  ]


def _advice(
  arrays: Arrays, ported: Mapping[str, _Piece], wanted: Mapping[str, tuple[int, ...]]
) -> list[str]:
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
  children = dict.fromkeys('/'.join(bare(path).split('/')[:2]) for path in missing)
  rules = ', '.join(repr(f'{child}/.*') for child in children)
  return [
    f'it lacks {len(missing)} of {len(wanted)} arrays and fits otherwise. Is it one part of '
    'several? Give the index.json beside the parts, or call these X-00001-of-00002.bin and '
    f'so on. What it never had begins anew by config.fresh=({rules},)'
  ]


def _arrow(piece: _Piece) -> str:
  return piece.name if piece.name == piece.path else f'{piece.name} → {piece.path}'


def _said(lines: Sequence[str], each: int = 8) -> str:
  """Return the lines, at most `each` of a kind."""
  counts: dict[str, int] = {}
  shown = [
    line
    for line in lines
    if counts.setdefault(line.split(':')[0], 0) < each
    and not counts.update({line.split(':')[0]: counts[line.split(':')[0]] + 1})
  ]
  more = len(lines) - len(shown)
  return '\n  '.join(shown + ([f'… and {more} more'] if more else []))


def _finite(ported: Mapping[str, _Piece]) -> None:
  for piece in ported.values():
    bad = int(np.size(piece.array) - np.isfinite(piece.array).sum())
    if bad:
      raise MedtlError(
        f'the checkpoint is damaged: {_arrow(piece)} holds {bad} NaN or infinite numbers; get it again'
      )
