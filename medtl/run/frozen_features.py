"""Which phases work from activations of their frozen children, and where those come from."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medtl.core import pytrees
from medtl.core.types import Batch, Dataset, Example, MedtlError, Tree
from medtl.data import augmentation
from medtl.features import packing, storage
from medtl.models import heads
from medtl.run import run_data
from medtl.run.context import RunContext
from medtl.runtime import files, multihost
from medtl.runtime.downloads import cache_folder
from medtl.training import batch_statistics, parameter_groups

# FLOPs that a byte of activations must save. CPU: 50e9 FLOP/s against 1.7e9 bytes/s read and
# stacked, both measured (docs/benchmarks.md); accelerators: 1e14 against 5e9, computed.
BALANCE = {'cpu': 30.0}
OTHERWISE = 20e3
PLAIN = 'train as it is'  # the training side without augmentation, beside its views


class Choice(NamedTuple):
  """Where a phase starts, and why."""

  start_child: int  # at the pictures (0), or at the activations of so many children
  why: str
  views: int = 0  # of how many augmented views; 0: of the pictures as they are


def choose(context: RunContext, index: int) -> Choice:
  """Return where a phase starts.

  It is decided once, because room on the disk changes when activations are written.
  """
  if index not in context.choices:
    choice = _choice(context, index)
    depth, views = multihost.broadcast_from_main([choice.start_child, choice.views])
    why = choice.why
    if context.augment and context.config.views and not depth:
      why += '; views are not used, pictures are augmented anew each time'
    context.choices[index] = Choice(depth, why, views)
  return context.choices[index]


def _choice(context: RunContext, index: int) -> Choice:
  """Return where a phase starts. It finds children computed that are frozen whole and, by `cache`:

  'auto': each example is used more than once, a byte of activations saves enough FLOPs, they fit
  below the bound and on the disk, and nothing is augmented, or by `config.views` fixed views ·
  'on': always · 'head': where the head alone learns · 'off': never. In the last two ways of being
  cached pictures are not augmented unless there are views.
  """
  config = context.config
  phase = context.phases[index]
  views = _views(context)
  obstacle = _obstacle(context, phase.depth, views)
  if obstacle:
    return Choice(0, obstacle)
  cut = _cut(context, index)
  if config.cache == 'on':
    return Choice(cut, "cache='on'", views)
  if config.cache == 'off':
    return Choice(0, "cache='off'")
  if config.cache == 'head':
    if _is_probe(context, index):
      return Choice(cut, 'the head alone learns', views)
    return Choice(0, "cache='head' and more than the head learns")
  if context.augment and not views:
    return Choice(
      0,
      f'pictures are augmented ({config.augment}), anew each time; config.views=4 would keep four '
      'views of each',
    )
  if phase.steps <= context.epoch:
    return Choice(0, 'each example is used once')
  flops, size = context.cost(cut)
  balance = BALANCE.get(jax.default_backend(), OTHERWISE)
  saved = f'{flops / size:.0f} FLOP saved for each byte of activations'
  if flops < balance * size:
    return Choice(0, f'{saved}, and below {balance:.0f} reading costs more than computing')
  examples = sum(side.size for side in context.data.values())
  needed = size * examples * (1 + views)
  limit = cache_limit()
  room = min(limit, files.free_bytes(cache_folder()))
  if needed > room and not (needed <= limit and known_choice(context, index)):
    return Choice(
      0,
      f'{needed / 1e6:.1f} MB of activations, room for {room / 1e6:.1f}: MEDTL_FEATURES_GB and '
      'MEDTL_CACHE give more',
    )
  return Choice(cut, saved, views)


def _views(context: RunContext) -> int:
  """Return how many augmented views of a picture frozen children see."""
  return context.config.views if context.augment else 0


def _is_probe(context: RunContext, index: int) -> bool:
  """Return whether the head alone learns in a phase."""
  return context.phases[index].depth == len(context.net.children)


def _cut(context: RunContext, index: int) -> int:
  """Return after how many children a phase cuts; a head that learns alone says what it reads."""
  return context.net.reduced if _is_probe(context, index) else context.phases[index].depth


def _obstacle(context: RunContext, depth: int, views: int) -> str:
  """Return why what frozen children make is no function of a picture, '' where it is one."""
  if not depth:
    return 'no child is frozen whole'
  if context.streams:
    return 'a step sees several streams of pictures'
  if context.task.copies > 1:
    return 'each example is augmented anew in every copy'
  if context.data['train'].draw is not None:
    return 'patches are drawn anew in each step'
  moving = _moving(context, depth)
  if moving:
    return (
      f"{moving} uses the batch's statistics (config.norms): what frozen children make is no "
      'function of a picture alone'
    )
  augment = context.config.augment
  if views and augmentation.mixes(augment):
    return f'{augment} mixes examples and their labels: no view belongs to one of them'
  if views and context.data['train'].masks:
    return 'views move pictures, and the masks that are kept would not move with them'
  return ''


def _moving(context: RunContext, depth: int) -> str:
  """Return the path of a norm below `depth` that uses the statistics of the batch, '' for none."""
  names = parameter_groups.children(context.params)
  below = list(names[:depth])
  if depth == len(names):
    below.append('norm')
  for leaf in pytrees.flatten(context.extra.get('batch_stats', {})):
    path = leaf.rpartition('/')[0]
    is_below = leaf.startswith('backbone/') and leaf.split('/')[1] in below
    if is_below and batch_statistics.policy(path, context.config.norms) == 'train':
      return path
  return ''


def start_child(context: RunContext, index: int) -> int:
  """Return how many children a phase finds computed; 0 where it starts from pictures."""
  return choose(context, index).start_child


def boundary(
  context: RunContext,
  index: int,
  params: Tree,
  extra: Tree,
  write: Callable[[str], Any] = lambda _: None,
) -> dict[str, Dataset]:
  """Return the sides of a phase: pictures, or activations of the children below `start_child`.

  Activations are computed once and kept.
  """
  depth, why, views = choose(context, index)
  frozen = context.phases[index].depth
  title = f'phase {index + 1}'
  if not depth:
    if frozen:
      write(f'{title}: the {frozen} frozen children are computed in each step: {why}')
    return context.data
  begin = time.time()
  depths = _depths(context, index, depth)
  plain, *seen = [
    list(features_at(context, params, extra, depths, view)) for view in range(views + 1)
  ]
  is_known = [known for levels in (plain, *seen) for _, _, known in levels]
  _, sides, _ = plain[-1]
  if views:
    shown = [levels[-1][1]['train'] for levels in seen]
    sides = {**sides, PLAIN: sides['train'], 'train': storage.stack_views(shown)}
  how = f'computed once in {time.time() - begin:.0f} s'
  if all(is_known):
    how = 'in the cache: nothing was computed'
  training = ''
  if views:
    training = f'; in training {views} augmented views of each picture, in turn'
  elif context.augment:
    training = '; this phase sees the pictures without augmentation'
  write(f'{title}: activations of the {frozen} frozen children are {how} ({why}){training}')
  return sides


def _depths(context: RunContext, index: int, most: int) -> list[int]:
  """Return where a phase and those after it start from activations, up to a depth."""
  starts = {start_child(context, later) for later in range(index, len(context.phases))}
  return sorted(depth for depth in starts if 0 < depth <= most)


def known_choice(context: RunContext, index: int) -> bool:
  """Return whether the activations that a phase starts from, with the first weights, are kept."""
  depth = context.phases[index].depth
  cut = _cut(context, index)
  variables = {'batch_stats': {}, 'params': context.params, **context.extra}
  whole = joined(context.data)
  views = range(_views(context) + 1)
  kept = depth > 0 and all(
    _paths(context, variables, whole, view)[cut - 1].exists() for view in views
  )
  return multihost.all_processes([kept])[0]


def features_at(
  context: RunContext, params: Tree, extra: Tree, depths: Sequence[int], view: int = 0
) -> Iterator[tuple[int, dict[str, Dataset], bool]]:
  """Yield (depth, the sides as activations of the children below it, whether these were kept).

  Shallow ones come first, and deeper activations start from shallower ones. All sides are computed
  together, so that every fold of a split uses the same files. `view` > 0: of the pictures as the
  config's augmentation shows them for the view-th time, a function of (seed, view, row).
  """
  whole = joined(context.data)
  rows = whole.table['row']
  variables = {'params': params, **extra}
  paths = _paths(context, {'batch_stats': {}, **variables}, whole, view)
  for depth in sorted(depths):
    features, known = _cached(context, variables, whole, paths, depth, view)
    sides = {}
    for name, side in context.data.items():
      sides[name] = features.subset(np.searchsorted(rows, side.table['row']))
    yield depth, sides, known


def vectors(
  context: RunContext, depths: Sequence[int], pool: str = ''
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
  """Yield (depth, {side: [n, c]}): what the children below each depth make, pooled.

  It is pooled as the head does it; `pool` is another way, see heads.linear. The vectors of all
  depths are computed in one pass and kept; maps are not. Norms that use the statistics of a batch
  are an error: there is no one vector of a picture.
  """
  for depth in depths:
    moving = _moving(context, depth)
    if moving:
      raise MedtlError(
        f"{moving} uses the batch's statistics (config.norms): what the children below {depth} "
        "make is no function of a picture alone; set its policy to 'source' or 'target'"
      )
  way = pool or dict(context.config.head).get('pool', 'auto')
  variables = {'params': context.params, **context.extra}

  def pooled(variables: Tree, x: Any) -> list[jax.Array]:
    vectors = []
    below = 0
    value = x
    for depth in depths:
      value = context.applied(variables, value, below, depth)
      below = depth
      vectors.append(heads.pooled(value, context.net.reading, way))
    return vectors

  picture = jnp.zeros((1, *context.data['train'].sample().x.shape))
  widths = [leaf.shape[1] for leaf in jax.eval_shape(pooled, variables, picture)]
  whole = joined(context.data)
  apply = jax.jit(lambda variables, x: packing.pack(pooled(variables, x)))
  path = _path(context, variables, whole, depths[-1], {'pool': way, 'depths': tuple(depths)})
  kept, _ = _computed(context, lambda batch: apply(variables, batch.x), whole, whole, path)
  for depth, end, width in zip(depths, np.cumsum(widths), widths, strict=True):
    columns = slice(end - width, end)
    yield depth, {name: _rows(kept, side)[:, columns] for name, side in context.data.items()}


def _rows(kept: Dataset, side: Dataset) -> np.ndarray:
  """Return the kept vectors [n, c] of one side, in its order."""
  places = np.searchsorted(kept.table['row'], side.table['row'])
  return np.stack([kept.fetch(int(place)).x for place in places])


def cache_limit() -> float:
  """Return how many bytes of activations are kept (MEDTL_FEATURES_GB, 20 unless told).

  The oldest by use go first.
  """
  words = os.environ.get('MEDTL_FEATURES_GB', '20')
  try:
    return 1e9 * float(words)
  except ValueError:
    raise MedtlError(f'MEDTL_FEATURES_GB is {words!r}; expected a number of 10⁹ bytes') from None


def joined(sides: Mapping[str, Dataset]) -> Dataset:
  """Return one data set of all sides, in the order of their rows."""
  parts = list(sides.values())
  first = parts[0]
  rows = np.concatenate([part.table['row'] for part in parts])
  order = np.argsort(rows)
  sizes = [part.size for part in parts]
  part_of = np.repeat(np.arange(len(parts)), sizes)[order]
  place_in_part = np.concatenate([np.arange(size) for size in sizes])[order]
  table = {}
  for name in first.table:
    table[name] = np.concatenate([part.table[name] for part in parts])[order]

  def fetch(index: int) -> Example:
    return parts[part_of[index]].fetch(int(place_in_part[index]))

  return Dataset(fetch, len(rows), first.classes, table, first.facts)


def _paths(context: RunContext, variables: Tree, whole: Dataset, view: int = 0) -> list[Path]:
  """Return the cache file of each cut: [i − 1] holds what crosses the one at i."""
  count = len(context.net.children)
  seen: dict[str, Any] = {}
  if view:
    seen['view'] = (view, context.config.seed, context.config.augment)
  if context.net.levels:
    seen['levels'] = context.net.levels
  paths = [_path(context, variables, whole, depth, seen) for depth in range(1, count + 1)]
  reads = {**seen, 'reads': context.net.head.reads}
  return [*paths, _path(context, variables, whole, count, reads)]


def _path(
  context: RunContext, variables: Tree, whole: Dataset, depth: int, facts: Mapping[str, Any]
) -> Path:
  """Return the cache file of what the children below `depth` make, in the way that `facts` say."""
  names = parameter_groups.children(context.params)
  digests = [
    storage.digest(variables, [name] if name != names[-1] else [name, 'norm'])
    for name in names[:depth]
  ]
  net = repr((context.net.backbone, context.net.slices, context.net.mean, context.net.std))
  name = storage.fingerprint(digests, whole, dtype=context.config.dtype, net=net, **facts)
  return cache_folder() / 'features' / f'{name}.npy'


def _kept(whole: Dataset, path: Path) -> Dataset | None:
  """Return the activations in `path`, where every process has them."""
  found = storage.stored_features(whole, path)
  return found if multihost.all_processes([found is not None])[0] else None


def _cached(
  context: RunContext,
  variables: Tree,
  whole: Dataset,
  paths: Sequence[Path],
  cut: int,
  view: int,
) -> tuple[Dataset, bool]:
  """Return (what crosses a cut, begun at the deepest that is kept; whether it was there)."""
  start, below = 0, whole
  for depth in range(cut, 0, -1):
    kept = _kept(whole, paths[depth - 1])
    if kept is not None:
      start, below = depth, kept
      break
  if start == cut:
    return below, True
  run = context.features(start, cut)
  show = context.view if view and not start else lambda batch, _: batch
  apply = lambda batch: run(variables, show(batch, view).x)
  return _computed(context, apply, below, whole, paths[cut - 1], paths)


def _computed(
  context: RunContext,
  apply: Callable[[Batch], jax.Array],
  below: Dataset,
  whole: Dataset,
  path: Path,
  needed: Sequence[Path] = (),
) -> tuple[Dataset, bool]:
  """Return (what `apply` makes of batches of `below`, kept in `path`; whether it was there).

  Room is made by removing files that are not `needed`.
  """
  kept = _kept(whole, path)
  if kept is not None:
    return kept, True
  files.prune(path.parent, cache_limit(), keep=[path, *needed])
  storage.compute(apply, whole.size, run_data.eval_batches(below, context.config), path)
  kept = _kept(whole, path)
  assert kept is not None, f'{path} was written and is gone'
  return kept, False
