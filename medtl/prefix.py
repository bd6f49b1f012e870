"""Which phases work from activations of their frozen children, computed once, and where those come from."""

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from medtl import build, disk, features, norms, partition, tree
from medtl.fetch import cache_folder
from medtl.parts import Parts
from medtl.types import Dataset, MedtlError, Tree

# FLOPs that a byte of activations must save. CPU: 50e9 FLOP/s against 1.7e9 bytes/s read and stacked, both measured (docs/benchmarks.md);
# accelerators: 1e14 against 5e9, computed.
BALANCE = {'cpu': 30.0}
OTHERWISE = 20e3


class Choice(NamedTuple):
  """Where a phase starts: at the pictures (0), or at the activations of so many children; and why."""
  first: int
  why: str


def choose(parts: Parts, index: int) -> Choice:
  """Return where a phase starts. It finds children computed that are frozen whole and, by `config.cache`:

  'auto': nothing is augmented, each example is used more than once, a byte of activations saves enough FLOPs, and they fit below the
  bound and on the disk · 'on': always, without augmentation · 'head': where the head alone learns, without augmentation · 'off': never.
  """
  config, phase = parts.config, parts.phases[index]
  depth, probe = phase.depth, phase.depth == len(partition.children(parts.params))
  if not depth:
    return Choice(0, 'no child is frozen whole')
  moving = _moving(parts, depth)
  if moving:
    return Choice(0, f"{moving} uses the batch's statistics (config.norms): what frozen children make is no function of a picture alone")
  if config.cache in ('on', 'off'):
    return Choice(depth if config.cache == 'on' else 0, f"cache='{config.cache}'")
  if config.cache == 'head':
    return Choice(depth if probe else 0, 'the head alone learns' if probe else "cache='head' and more than the head learns")
  if parts.augment:
    return Choice(0, f'pictures are augmented ({config.augment})')
  if phase.steps <= parts.epoch:
    return Choice(0, 'each example is used once')
  flops, size = parts.cost(depth)
  balance = BALANCE.get(jax.default_backend(), OTHERWISE)
  saved = f'{flops / size:.0f} FLOP saved for each byte of activations'
  if flops < balance * size:
    return Choice(0, f'{saved}, and below {balance:.0f} reading costs more than computing')
  whole = size * sum(side.size for side in parts.data.values())
  room = min(bound(), disk.free(cache_folder()))
  if whole > room and not (whole <= bound() and known(parts, index)):
    return Choice(0, f'{whole / 1e6:.1f} MB of activations, room for {room / 1e6:.1f}: MEDTL_FEATURES_GB and MEDTL_CACHE give more')
  return Choice(depth, saved)


def _moving(parts: Parts, depth: int) -> str:
  """Return the path of a norm below `depth` that uses the statistics of the batch, '' where there is none."""
  below = partition.children(parts.params)[:depth]
  paths = (path.rpartition('/')[0] for path in tree.flatten(parts.extra.get('batch_stats', {})) if path.split('/')[1] in below)
  return next((path for path in paths if norms.policy(path, parts.config.norms) == 'train'), '')


def first(parts: Parts, index: int) -> int:
  """Return how many children a phase finds computed; 0 where it starts from pictures."""
  return choose(parts, index).first


def boundary(parts: Parts, index: int, params: Tree, extra: Tree, write: Callable[[str], Any] = lambda _: None) -> dict[str, Dataset]:
  """Return the sides of a phase: pictures, or activations of the children below `first`, computed once and kept."""
  depth, why = choose(parts, index)
  if not depth:
    if parts.phases[index].depth:
      write(f'phase {index + 1}: the {parts.phases[index].depth} frozen children are computed in each step: {why}')
    return parts.data
  depths = sorted({below for later in range(index, len(parts.phases)) if 0 < (below := first(parts, later)) <= depth})
  begin = time.time()
  found = list(at(parts, params, extra, depths))
  computed = sum(not known for _, _, known in found)
  how = f'computed once in {time.time() - begin:.0f} s' if computed else 'in the cache: nothing was computed'
  write(f'phase {index + 1}: activations of the {depth} frozen children are {how} ({why})'
        + ('; this phase sees the pictures without augmentation' if parts.augment else ''))
  return found[-1][1]


def known(parts: Parts, index: int) -> bool:
  """Return whether the activations of the children that a phase freezes, with the first weights, are kept already."""
  depth = parts.phases[index].depth
  return depth > 0 and _paths(parts, {'batch_stats': {}, 'params': parts.params, **parts.extra}, joined(parts.data))[depth - 1].exists()


def at(parts: Parts, params: Tree, extra: Tree, depths: Sequence[int]) -> Iterator[tuple[int, dict[str, Dataset], bool]]:
  """Yield (depth, the sides as activations of the children below it, whether these were kept already), shallow ones first.

  All sides are computed together, so that every fold of a split uses the same files; deeper activations start from shallower ones.
  """
  whole = joined(parts.data)
  paths = _paths(parts, {'batch_stats': {}, 'params': params, **extra}, whole)
  for depth in sorted(depths):
    found, known = _cached(parts, {'params': params, **extra}, whole, paths, depth)
    yield depth, {side: found.subset(np.searchsorted(whole.table['row'], data.table['row'])) for side, data in parts.data.items()}, known


def bound() -> float:
  """Return how many bytes of activations are kept (MEDTL_FEATURES_GB, 20 unless told); the oldest by use go first."""
  try:
    return 1e9 * float(os.environ.get('MEDTL_FEATURES_GB', '20'))
  except ValueError:
    raise MedtlError(f'MEDTL_FEATURES_GB is {os.environ["MEDTL_FEATURES_GB"]!r}; expected a number of 10⁹ bytes') from None


def joined(sides: Mapping[str, Dataset]) -> Dataset:
  """Return one data set of all sides, in the order of their rows."""
  parts = list(sides.values())
  rows = np.concatenate([part.table['row'] for part in parts])
  order = np.argsort(rows)
  which = np.repeat(np.arange(len(parts)), [part.size for part in parts])[order]
  local = np.concatenate([np.arange(part.size) for part in parts])[order]
  table = {name: np.concatenate([part.table[name] for part in parts])[order] for name in parts[0].table}
  return Dataset(lambda i: parts[which[i]].fetch(int(local[i])), len(rows), parts[0].classes, table, parts[0].facts)


def _paths(parts: Parts, variables: Tree, whole: Dataset) -> list[Path]:
  """Return the cache file of each depth: [i] holds what children 0 … i made."""
  names = partition.children(parts.params)
  digests = [features.digest(variables, [name] if name != names[-1] else [name, 'norm']) for name in names]
  net = repr((parts.net.backbone, parts.net.mean, parts.net.std))
  return [cache_folder() / 'features' / f'{features.fingerprint(digests[:last], whole, dtype=parts.config.dtype, net=net)}.npy'
          for last in range(1, len(names) + 1)]


def _cached(parts: Parts, variables: Tree, whole: Dataset, paths: Sequence[Path], last: int) -> tuple[Dataset, bool]:
  """Return the activations of children [0, last), begun at the deepest that are kept, and whether they were there already."""
  start = next((depth for depth in range(last, 0, -1) if paths[depth - 1].exists()), 0)
  below = features.kept(whole, paths[start - 1]) if start else whole
  if start == last:
    return below, True
  apply = functools.partial(parts.features(start, last), variables)
  disk.prune(paths[last - 1].parent, bound(), keep=paths)
  features.compute(apply, whole.size, build.once(below, parts.config), paths[last - 1])
  return features.kept(whole, paths[last - 1]), False
