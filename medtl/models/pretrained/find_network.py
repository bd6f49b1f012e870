"""Which arrays of a file are the network's, whatever lies around it or is put before their names.

Every array has a dotted name (contents.py), so that a dictionary around the network ({'model': …}),
a module that holds it (Lightning's `model.`) and a wrapper (`module.`) are one thing: a prefix. The
prefix below which most names are those of the architecture is taken.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from medtl.core.types import MedtlError
from medtl.models.pretrained import port
from medtl.models.pretrained.nested_contents import Contents, Leaf, listed
from medtl.models.pretrained.port import Dialect

# what training leaves beside a network: losses with weights, the count of an average, thop's counts
_BESIDE = re.compile(
  r'(criterion|loss|\w+_loss|loss_\w+|pos_weight|class_weights?|n_averaged)(\..*)?'
  r'|(.*\.)?(total_ops|total_params)'
)
_SHARE = 0.25  # of the names below a prefix must be the architecture's
_RIVAL = 0.5  # of the best prefix's names: then another is worth a word


class Choice(NamedTuple):
  """The prefix below which the network is, and those below which another of its kind is."""

  prefix: str
  rivals: tuple[str, ...] = ()


def choose(names: Collection[str], dialects: Mapping[str, Dialect]) -> Choice:
  """Return the prefix ('', 'net.' or 'net/') below which most names are the architecture's.

  Among equals a teacher's come first (students are not what publishers evaluate), then those that
  come first in the file. A prefix is none unless a fair share of the names below it fits.
  """
  below = _below(names)
  scores: dict[str, int] = {}
  best = 0
  for prefix in sorted(below, key=lambda prefix: -len(below[prefix])):
    if len(below[prefix]) < max(1, _RIVAL * best):
      break
    score = _fitting(below[prefix], dialects)
    if prefix == '' or score > _SHARE * len(below[prefix]):
      scores[prefix] = score
      best = max(best, score)
  in_order = [prefix for prefix in below if prefix in scores]
  ranked = sorted(in_order, key=lambda prefix: (-scores[prefix], 'teacher' not in prefix))
  taken = ranked[0] if best else ''
  rivals = [prefix for prefix in ranked if scores[prefix] >= max(1, _RIVAL * best)]
  return Choice(taken, tuple(_apart(rivals, taken)))


def _below(names: Iterable[str]) -> dict[str, list[str]]:
  """Return {prefix: the names below it, without it}, shorter prefixes before longer ones."""
  found: dict[str, list[str]] = {'': []}
  for name in names:
    for prefix in ('', *_prefixes(name)):
      found.setdefault(prefix, []).append(name.removeprefix(prefix))
  return found


def _prefixes(name: str) -> list[str]:
  """Return what a name can begin with: 'a.', 'a.b.' of 'a.b.c'."""
  return [name[: match.end()] for match in re.finditer('[./]', name) if match.end() < len(name)]


def _fitting(names: Sequence[str], dialects: Mapping[str, Dialect]) -> int:
  """Return how many of the names a dialect calls parts of a backbone, the most of all dialects.

  None, unless a stem and a stage are among them: a block's own conv1 looks like that of a stem.
  """
  best = 0
  for dialect in dialects.values():
    paths = [port.bare(port.rename(name, dialect)) for name in names]
    inside = [path for path in paths if path.startswith('backbone/')]
    children = {path.split('/')[1] for path in inside}
    if 'stem' in children and any(child.startswith('stage') for child in children):
      best = max(best, len(inside))
  return best


def _apart(prefixes: Sequence[str], taken: str) -> Iterator[str]:
  """Yield the prefixes that lie neither above nor below one that is taken or was yielded."""
  known = [taken]
  for prefix in prefixes:
    if not any(prefix.startswith(other) or other.startswith(prefix) for other in known):
      known.append(prefix)
      yield prefix


def inside(found: Contents, part: str) -> Contents:
  """Return what lies below a name that the user gave; a MedtlError says what there is instead."""
  starts = (part + '.', part + '/')
  arrays = {name: array for name, array in found.arrays.items() if name.startswith(starts)}
  others = {name: kind for name, kind in found.others.items() if name.startswith(starts)}
  if not arrays:
    there = listed(grouped(found.arrays, ()))
    raise MedtlError(f'holds nothing below {part!r}; its names begin with: {there}')
  return Contents(arrays, others)


def network(found: Contents, prefix: str) -> dict[str, Leaf]:
  """Return the arrays below the prefix under the names that remain.

  Without what training leaves beside a network.
  """
  arrays: dict[str, Leaf] = {}
  for name, array in found.arrays.items():
    short = name.removeprefix(prefix)
    if name.startswith(prefix) and not _BESIDE.fullmatch(short):
      arrays[short] = array
  return arrays


def left_out(found: Contents, prefix: str) -> dict[str, str]:
  """Return {name: what it is} of all that is not the network's."""
  taken = {prefix + name for name in network(found, prefix)}
  known = _beginnings(taken)
  others = {_group(name, known): kind for name, kind in found.others.items()}
  return others | grouped(found.arrays, taken)


def grouped(names: Iterable[str], taken: Collection[str]) -> dict[str, str]:
  """Return {the beginning of names that no taken one has: how many they are} of those not taken.

  >>> grouped(['body.c', 'body.d', 'head.a', 'head.b'], ['body.d'])
  {'body.c': 'an array', 'head': '2 arrays'}
  """
  known = _beginnings(taken)
  counts: dict[str, int] = {}
  for name in names:
    if name not in taken:
      group = _group(name, known)
      counts[group] = counts.get(group, 0) + 1
  return {group: f'{count} arrays' if count > 1 else 'an array' for group, count in counts.items()}


def _beginnings(names: Iterable[str]) -> set[str]:
  return {prefix for name in names for prefix in _prefixes(name)}


def _group(name: str, known: Collection[str]) -> str:
  """Return the shortest beginning of a name that is not known, the name itself where all are."""
  outside = [prefix for prefix in _prefixes(name) if prefix not in known]
  return outside[0][:-1] if outside else name
