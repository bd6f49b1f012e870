"""Which arrays of a file are the network's, whatever lies around it or is put before their names.

Every array has a dotted name (`nested_contents`), so that a dictionary around the network
({'model': …}), a module that holds it (Lightning's `model.`) and a wrapper (`module.`) are one
thing: a prefix. The prefix below which most names are those of the architecture is taken.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from medtl.core.types import MedtlError
from medtl.models.pretrained.dialects import Dialect, bare, rename
from medtl.models.pretrained.nested_contents import Contents, Leaf, listed

# what training leaves beside a network: losses with weights, the count of an average, thop's counts
_BESIDE = re.compile(
  r'(criterion|loss|\w+_loss|loss_\w+|pos_weight|class_weights?|n_averaged)(\..*)?'
  r'|(.*\.)?(total_ops|total_params)'
)
COUNTS = 'num_batches_tracked'  # ends the names of what PyTorch's norms count and nothing reads
_SHARE = 0.25  # of the names below a prefix must be the architecture's
_RIVAL = 0.5  # of the best prefix's names: then another is worth a word


class Choice(NamedTuple):
  """The prefix below which the network is, and those below which another of its kind is."""

  prefix: str
  rivals: tuple[str, ...] = ()


def choose(names: Collection[str], dialects: Mapping[str, Dialect]) -> Choice:
  """Return the prefix ('', 'net.' or 'net/') below which most names are the architecture's.

  Among equals a teacher's comes first (students are not what publishers evaluate), then the one
  that comes first in the file. A prefix counts only where a fair share of the names below it fits.
  """
  below = _below(names)
  scores: dict[str, int] = {}
  best = 0
  for prefix in sorted(below, key=lambda prefix: -len(below[prefix])):
    if len(below[prefix]) < max(1, _RIVAL * best):
      break
    score = fitting(below[prefix], dialects)
    if prefix == '' or score > _SHARE * len(below[prefix]):
      scores[prefix] = score
      best = max(best, score)
  in_order = [prefix for prefix in below if prefix in scores]
  ranked = sorted(in_order, key=lambda prefix: (-scores[prefix], 'teacher' not in prefix))
  taken = ranked[0] if best else ''
  enough = max(1, _RIVAL * best)
  rivals = [prefix for prefix in ranked if scores[prefix] >= enough]
  return Choice(taken, tuple(_apart(rivals, taken)))


def _below(names: Iterable[str]) -> dict[str, list[str]]:
  """Return {prefix: the names below it, without it}, shorter prefixes before longer ones."""
  below: dict[str, list[str]] = {'': []}
  for name in names:
    for prefix in ('', *_prefixes(name)):
      below.setdefault(prefix, []).append(name.removeprefix(prefix))
  return below


def _prefixes(name: str) -> list[str]:
  """Return what a name can begin with: 'a.', 'a.b.' of 'a.b.c'."""
  ends = [match.end() for match in re.finditer('[./]', name)]
  return [name[:end] for end in ends if end < len(name)]


def fitting(names: Sequence[str], dialects: Mapping[str, Dialect]) -> int:
  """Return how many of the names a dialect maps into a backbone, the most of all dialects.

  A dialect counts only where a stem and a stage are among them: a block's own conv1 looks like that
  of a stem.
  """
  best = 0
  for dialect in dialects.values():
    paths = [bare(rename(name, dialect)) for name in names]
    inside = [path for path in paths if path.startswith('backbone/')]
    children = {path.split('/')[1] for path in inside}
    if 'stem' in children and any(child.startswith('stage') for child in children):
      best = max(best, len(inside))
  return best


def _apart(prefixes: Sequence[str], taken: str) -> Iterator[str]:
  """Yield the prefixes that lie neither above nor below the one taken or one that was yielded."""
  known = [taken]
  for prefix in prefixes:
    if not any(prefix.startswith(other) or other.startswith(prefix) for other in known):
      known.append(prefix)
      yield prefix


def inside(contents: Contents, part: str) -> Contents:
  """Return what lies below a name that the user gave; a MedtlError says what there is instead."""
  starts = (part + '.', part + '/')
  arrays = {name: leaf for name, leaf in contents.arrays.items() if name.startswith(starts)}
  others = {name: kind for name, kind in contents.others.items() if name.startswith(starts)}
  if not arrays:
    there = listed(grouped(contents.arrays, ()))
    raise MedtlError(f'holds nothing below {part!r}; its names begin with: {there}')
  return Contents(arrays, others)


def network(contents: Contents, prefix: str) -> dict[str, Leaf]:
  """Return the arrays below the prefix, under the names that remain.

  What training leaves beside a network is left out.
  """
  arrays: dict[str, Leaf] = {}
  for name, leaf in contents.arrays.items():
    short = name.removeprefix(prefix)
    if name.startswith(prefix) and not _BESIDE.fullmatch(short):
      arrays[short] = leaf
  return arrays


def left_out(contents: Contents, prefix: str) -> dict[str, str]:
  """Return {name: what it is} of all that is not the network's."""
  taken = {prefix + name for name in network(contents, prefix)}
  known = _beginnings(taken)
  others = {_group(name, known): kind for name, kind in contents.others.items()}
  return others | grouped(contents.arrays, taken)


def grouped(names: Iterable[str], taken: Collection[str]) -> dict[str, str]:
  """Return {beginning: how many names} of the names that are not taken.

  A beginning is the shortest that no taken name has.

  >>> grouped(['body.c', 'body.d', 'head.a', 'head.b'], ['body.d'])
  {'body.c': 'an array', 'head': '2 arrays'}
  """
  known = _beginnings(taken)
  counts: dict[str, int] = {}
  for name in names:
    if name not in taken:
      group = _group(name, known)
      counts[group] = counts.get(group, 0) + 1
  words: dict[str, str] = {}
  for group, count in counts.items():
    words[group] = f'{count} arrays' if count > 1 else 'an array'
  return words


def _beginnings(names: Iterable[str]) -> set[str]:
  return {prefix for name in names for prefix in _prefixes(name)}


def _group(name: str, known: Collection[str]) -> str:
  """Return the shortest beginning of a name that is not known, the name itself where all are."""
  outside = [prefix for prefix in _prefixes(name) if prefix not in known]
  return outside[0][:-1] if outside else name
