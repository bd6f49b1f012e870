"""Which phases work from activations of their frozen children, computed once, and where those come from."""

import functools
import time
from collections.abc import Callable
from typing import Any

from medtl import build, features, partition
from medtl.build import Parts
from medtl.fetch import cache_folder
from medtl.types import Dataset, State


def first(parts: Parts, index: int) -> int:
  """Return how many children a phase finds computed; 0 where it starts from pictures.

  Cached where children are frozen whole and, by `config.cache`: 'auto' nothing is augmented and each example is used more than once ·
  'on' always, without augmentation · 'head' where the head alone learns, without augmentation · 'off' never.
  """
  config, phase = parts.config, parts.phases[index]
  wanted = {'auto': not parts.augment and phase.steps > build.epoch(parts), 'on': True, 'off': False,
            'head': phase.depth == len(partition.children(parts.params))}
  return phase.depth if wanted[config.cache] else 0


def boundary(parts: Parts, index: int, state: State, write: Callable[[str], Any]) -> tuple[Dataset, Dataset]:
  """Return (train, val) of a phase: pictures, or activations of the children below `first`, computed once and kept."""
  sides, depth = [parts.data['train'], parts.data['val']], first(parts, index)
  if not depth:
    return sides[0], sides[1]
  depths = sorted({below for later in range(index, len(parts.phases)) if 0 < (below := first(parts, later)) <= depth})
  begin, computed = time.time(), 0
  for start, last in zip([0, *depths], depths, strict=False):      # shallow ones first: later phases need them, deeper ones start there
    for place, dataset in enumerate(sides):
      sides[place], found = _cached(parts, state, dataset, start, last)
      computed += not found
  how = f'computed once in {time.time() - begin:.0f} s' if computed else 'in the cache: nothing was computed'
  write(f'phase {index + 1}: activations of the {depth} frozen children are {how}'
        + ('; this phase sees the pictures without augmentation' if parts.augment else ''))
  return sides[0], sides[1]


def _cached(parts: Parts, state: State, dataset: Dataset, start: int, last: int) -> tuple[Dataset, bool]:
  """Return the data set of the activations [0, last), made from that of [0, start), and whether it was there already."""
  variables = {'batch_stats': {}, 'params': state.params, **state.extra}
  names = partition.children(state.params)
  names = [*names, 'norm'] if last == len(names) else names[:last]
  params, statistics = (features.prefix(variables[name], names) for name in ('params', 'batch_stats'))
  name = features.fingerprint(params, statistics, dataset, depth=last, dtype=parts.config.dtype, net=repr(parts.net))
  path = cache_folder() / 'features' / f'{name}.npy'
  return features.cached(functools.partial(parts.features(start, last), variables), dataset, build.once(dataset, parts.config), path)
