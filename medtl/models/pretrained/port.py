"""A publisher's arrays become our variables: renamed by regex and transposed by layout.

Nothing may be missing, extra or of another shape. A family declares
`RENAMES = {'torchvision': Dialect('torch', ((regex, replacement), …)), …}`. What must be recomputed
for another shape (position embeddings) stands in its
`ADAPT = {regex of paths: f(array, shape) -> array}`. Paths are ours, `backbone/…` or `head/…`.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medtl.core import pytrees
from medtl.core.types import MedtlError, Tree
from medtl.models.pretrained import inflation
from medtl.models.pretrained.dialects import (
  Adapt,
  Arrays,
  Dialect,
  Piece,
  Shape,
  bare,
  fitted,
  is_first_kernel,
  is_stem_of_three,
  renamed,
  rule_of,
)
from medtl.models.pretrained.input_channels import Normal, adapt_input_channels

Shapes = Mapping[str, Shape]


class Report(NamedTuple):
  """What a port did; the net must normalise its input by `mean` and `std` from now on."""

  dialect: str
  ported: int  # arrays of ours that were filled
  fresh: tuple[str, ...]  # paths of ours that stay as initialised
  ignored: tuple[str, ...]  # names of theirs that map onto fresh ones, or that the dialect drops
  mean: tuple[float, ...]
  std: tuple[float, ...]
  notes: tuple[str, ...]  # sentences on what was adapted


class Reading(NamedTuple):
  """A checkpoint read as one dialect; `faults` say in words why it does not fit, if it does not."""

  dialect: str
  ported: Mapping[str, Piece]
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
  inflate: str = '',
) -> tuple[Tree, Report]:
  """Return {'params': …, 'batch_stats': …} in float32 without the fresh leaves, and the report.

  `target` holds arrays or shapes, {'params': …, 'batch_stats': …}. `fresh` are regexes of paths
  that stay as initialised, `without` of paths that theirs may have and ours has not. `mean` and
  `std` are the checkpoint's own where they differ from the dialect's. `inflate` says how kernels of
  pictures become kernels of volumes (`inflation`); '' = they do not. Raises MedtlError when no
  dialect fits without a difference.
  """
  wanted, kept = _wanted(target, fresh)
  if not dialects:
    raise MedtlError('this architecture reads no checkpoints: its RENAMES is empty')
  normalised = {}
  for name, dialect in dialects.items():
    own_mean = tuple(mean) or dialect.mean
    own_std = tuple(std) or dialect.std
    normalised[name] = dialect._replace(mean=own_mean, std=own_std)
  reading = nearest(arrays, wanted, normalised, (*fresh, *without), adapt or {}, inflate)
  if not reading.faults:
    _check_numbers(reading.ported)
    return _tree(reading.ported), _report(reading, kept)
  which = f'read as {reading.dialect!r} (which fits best of: {", ".join(dialects)})'
  lines = [f'the checkpoint does not fit this model, {which}:', *reading.faults]
  advice = _advice(arrays, reading.ported, wanted)
  raise MedtlError('\n  '.join([*shortened(lines), *advice]))


def _wanted(target: Tree, fresh: Sequence[str]) -> tuple[dict[str, Shape], set[str]]:
  """Return the shapes of what a checkpoint must hold, and the paths that stay as initialised."""
  leaves = pytrees.flatten(target)
  shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
  kept = _fresh(shapes, fresh)
  return {path: shape for path, shape in shapes.items() if path not in kept}, kept


def nearest(
  arrays: Arrays,
  wanted: Shapes,
  dialects: Mapping[str, Dialect],
  unwanted: Sequence[str],
  adapt: Adapt,
  inflate: str = '',
) -> Reading:
  """Return the arrays read as the first dialect that fits, else as the one that fits best.

  `unwanted` are regexes of paths that are no fault where theirs are too many.
  """
  readings = []
  for name, dialect in dialects.items():
    reading = _read_as(name, dialect, arrays, wanted, unwanted, adapt, inflate)
    if not reading.faults:
      return reading
    readings.append(reading)
  return min(readings, key=lambda reading: len(reading.faults))


def _read_as(
  name: str,
  dialect: Dialect,
  arrays: Arrays,
  wanted: Shapes,
  unwanted: Sequence[str],
  adapt: Adapt,
  inflate: str,
) -> Reading:
  """Return the arrays under our paths and in our shapes, as far as the dialect fits."""
  has_optional = any(re.fullmatch(dialect.optional, bare(path)) for path in wanted)
  if dialect.optional and not has_optional:
    unwanted = (*unwanted, dialect.optional)
  pieces, ignored = renamed(arrays, dialect, unwanted, _last_stage(wanted))
  ported: dict[str, Piece] = {}
  for piece in pieces:
    array = fitted(piece, wanted.get(piece.path, ()), dialect)
    ported[piece.path] = piece._replace(array=array)
  normal: Normal = (dialect.mean, dialect.std)
  notes = _fill_scales(ported, wanted) if dialect.unscaled_norms else []
  faults = _name_faults(pieces, ported, wanted)
  if not faults:
    try:
      notes += _apply_rules(ported, wanted, adapt, _is_of_pictures(ported, wanted, inflate))
    except MedtlError as error:  # another dialect may fit
      faults.append(f'grid: {error}')
    notes += _inflate(ported, wanted, inflate)
    faults += _channel_faults(ported, dialect)
    normal, stem_notes = _adapt_stems(ported, wanted, dialect)
    notes += stem_notes
  faults += _shape_faults(ported, wanted)
  return Reading(name, ported, ignored, normal, notes, faults)


def _report(reading: Reading, kept: Collection[str]) -> Report:
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
    pieces, _ = renamed(arrays, dialect, ())
    if not any(piece.path.startswith('params/backbone/') for piece in pieces):
      continue
    for piece in pieces:
      if piece.path == 'params/head/dense/kernel':
        return int(np.squeeze(piece.array).shape[-1])
  return 0


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


def _last_stage(paths: Collection[str]) -> str:
  """Return the name of the stage with the highest number, '' where there is none."""
  numbers = [int(match[1]) for path in paths if (match := re.search(r'/stage(\d+)/', path))]
  return f'stage{max(numbers)}' if numbers else ''


def _is_of_pictures(ported: Mapping[str, Piece], wanted: Shapes, way: str) -> bool:
  """Return whether a checkpoint of pictures is to become one of volumes."""
  pairs = [(piece.array.shape, wanted[path]) for path, piece in ported.items()]
  return bool(way) and any(inflation.is_flat(source, shape) for source, shape in pairs)


def _fill_scales(ported: dict[str, Piece], wanted: Shapes) -> list[str]:
  """Give norms whose bias has arrived a scale of 1; return what was done."""
  count = 0
  for path, shape in wanted.items():
    norm, _, leaf = path.rpartition('/')
    if leaf == 'scale' and path not in ported and f'{norm}/bias' in ported:
      ported[path] = Piece('', path, np.ones(shape))
      count += 1
  return [f'{count} norms of the checkpoint have no scale: ours is 1'] if count else []


def _apply_rules(
  ported: dict[str, Piece], wanted: Shapes, adapt: Adapt, of_pictures: bool
) -> list[str]:
  """Recompute pieces of another shape for which there is a rule; return what was done.

  What a checkpoint of pictures knows of a grid [h, w, d] is the same at all depths of a volume's.
  """
  notes: list[str] = []
  for path, piece in ported.items():
    rule = rule_of(path, adapt)
    shape = wanted[path]
    before = piece.array.shape
    if not rule or before == shape:
      continue
    if of_pictures and len(shape) == 4:
      depth, *plane = shape
      array = inflation.repeated(rule(piece.array, tuple(plane)), depth)
    else:
      array = rule(piece.array, shape)
    ported[path] = piece._replace(array=array)
    notes.append(f'{bare(path)} from {before} to {shape}')
  return notes


def _inflate(ported: dict[str, Piece], wanted: Shapes, way: str) -> list[str]:
  """Give kernels of pictures the axis that ours of volumes have more; return what was done."""
  count = 0
  for path, piece in ported.items():
    if way and inflation.is_flat(piece.array.shape, wanted[path]):
      ported[path] = piece._replace(array=inflation.inflated(piece.array, wanted[path][0], way))
      count += 1
  return [f'{count} kernels of pictures became kernels of volumes: {way}'] if count else []


def _adapt_stems(
  ported: dict[str, Piece], wanted: Shapes, dialect: Dialect
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
    if not only_channels_differ or not is_stem_of_three(piece):
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


def _tree(ported: Mapping[str, Piece]) -> Tree:
  """Return the arrays as a tree, in float32."""
  leaves: dict[str, np.ndarray] = {}
  for path, piece in ported.items():
    leaves[path] = np.ascontiguousarray(piece.array, np.float32)
  return pytrees.unflatten(leaves)


def _name_faults(pieces: Sequence[Piece], ported: Mapping[str, Piece], wanted: Shapes) -> list[str]:
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


def _channel_faults(ported: Mapping[str, Piece], dialect: Dialect) -> list[str]:
  """Return in words where the checkpoint's pictures have other channels than the mean is of."""
  count = len(dialect.mean)
  stems = [piece for path, piece in ported.items() if is_first_kernel(path)]
  seen = {piece.array.shape[-2] for piece in stems if piece.array.ndim > 1}
  if count == 1 or not seen or count in seen:
    return []
  return [
    f'channels: the checkpoint takes pictures of {min(seen)}, but mean and deviation are of '
    f'{count}: set config.mean and config.std to those that it was trained with'
  ]


def _shape_faults(ported: Mapping[str, Piece], wanted: Shapes) -> list[str]:
  """Return in words whose shape is another."""
  faults: list[str] = []
  for path, piece in ported.items():
    shape = piece.array.shape
    if path in wanted and shape != wanted[path]:
      faults.append(f'shape: {_arrow(piece)}: found {shape}, expected {wanted[path]}')
  return faults


def _advice(arrays: Arrays, ported: Mapping[str, Piece], wanted: Shapes) -> list[str]:
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
    return [_advice_on_head(missing, unexpected)]
  if any(inflation.is_flat(ported[path].array.shape, wanted[path]) for path in misshapen):
    ways = ' or '.join(repr(way) for way in inflation.WAYS)
    return [
      f'the checkpoint is of pictures, the network of volumes: config.inflate={ways} gives its '
      'kernels the third axis; config.model.acs=True, where the network has it, uses them as they '
      'are'
    ]
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


def _advice_on_head(missing: Sequence[str], unexpected: Sequence[str]) -> str:
  """Return what to do about a head that differs, of a backbone that fits."""
  norm = 'params/head/norm/scale'
  begin = 'all but the head fits: '
  if norm in unexpected:
    begin += (
      'that of the checkpoint has a norm after the pooling, which '
      "config.head.norm='layer' takes over; "
    )
  if norm in missing:
    begin += (
      "that of the checkpoint has no norm after the pooling; config.head.norm='' leaves it out, or "
    )
  return f"{begin}config.fresh=('head/.*',) gives the network a new one"


def _arrow(piece: Piece) -> str:
  """Return 'their name → our path', or the one name that both have."""
  if piece.name == piece.path:
    return piece.name
  return f'{piece.name} → {piece.path}'


def shortened(lines: Sequence[str], most: int = 8) -> list[str]:
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


def _check_numbers(ported: Mapping[str, Piece]) -> None:
  """Raise MedtlError where an array holds numbers that are not finite."""
  for piece in ported.values():
    finite = np.isfinite(piece.array).sum()
    bad = int(np.size(piece.array) - finite)
    if bad:
      raise MedtlError(
        f'the checkpoint is damaged: {_arrow(piece)} holds {bad} NaN or infinite numbers; '
        'get it again'
      )
