"""What a checkpoint file is: which network it fits, and what that network wants to see."""

import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medtl.core import expressions, pytrees
from medtl.core.types import MedtlError
from medtl.models import Net, catalogue, heads
from medtl.models.catalogue import Entry
from medtl.models.pretrained import checkpoint_files, find_network, port, sharded_files
from medtl.models.pretrained.dialects import LAST, Arrays, Dialect, bare, renamed
from medtl.runtime.downloads import Digests, digests

_MOST = 8  # networks that are tried, those of the most similar size first
_RIVAL = 0.5  # of the names that the best family knows: then another is tried too


@dataclasses.dataclass(frozen=True)
class Finding:
  """A file read as the network that it fits best; `faults` say where it does not fit."""

  network: str
  keys: Mapping[str, Any]
  dialect: str
  faults: tuple[str, ...]
  left_out: tuple[str, ...]  # names in the file that this network does not have
  arrays: int  # of the network that the file fills
  classes: int  # of its own head, 0 for none
  channels: int
  # children of the backbone that the file has, where the last ones are not in it; else 0
  truncate: int
  head_norm: str  # of its own head, see heads.linear
  mean: tuple[float, ...]
  std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Known:
  """What the checksums of a file say: the entry that it is, or was before it was replaced."""

  entry: Entry
  is_older: bool = False


def read(path: Path, say: Any) -> dict[str, np.ndarray]:
  """Return the arrays of a file, whatever the family; nothing in it is executed."""
  every = {}
  for family, module in catalogue.families().items():
    for name, dialect in module.RENAMES.items():
      every[f'{family}.{name}'] = dialect
  return checkpoint_files.read(path, every, say=say)


def known_by_checksum(path: Path) -> Known | None:
  """Return the entry whose published checksum a file has; None where there is none such.

  A checksum is one file's: of a checkpoint in several files nothing is known by it.
  """
  if len(sharded_files.files(path)) > 1:
    return None
  found = digests(path)
  for entry in catalogue.entries():
    if _is_published(entry, found):
      return Known(entry)
    if any(found.sha256.startswith(digits) for digits in entry.weights.older):
      return Known(entry, is_older=True)
  return None


def _is_published(entry: Entry, found: Digests) -> bool:
  sha256 = entry.weights.sha256
  md5 = entry.weights.md5
  return bool(sha256 or md5) and found.sha256.startswith(sha256) and found.md5.startswith(md5)


def identify(arrays: Arrays) -> Finding:
  """Return the network that fits the arrays of a file best.

  Raises MedtlError where no family knows their names.
  """
  candidates: list[_Candidate] = []
  for family, module in _candidates(arrays):
    candidates += _networks(family, module, arrays)
  if not candidates:
    begin = ', '.join(list(arrays)[:4])
    families = ', '.join(catalogue.families())
    raise MedtlError(
      f'its names are those of no network here ({families}); they begin with: {begin}'
    )
  alike = [one for one in candidates if one.same_stages] or candidates
  of_known_size = sorted(alike, key=lambda one: one.distance)[:_MOST]
  others = [one for one in alike if math.isinf(one.distance) and one not in of_known_size]
  findings = []
  for candidate in (*of_known_size, *others):
    finding = _tried(candidate, arrays)
    if not finding.faults:
      return finding
    findings.append(finding)
  return min(findings, key=lambda finding: len(finding.faults))


def _candidates(arrays: Arrays) -> list[tuple[str, ModuleType]]:
  """Return the families that know most of the names, the best first."""
  names = [name for name in arrays if not name.endswith(find_network.COUNTS)]
  scores = {}
  modules = catalogue.families()
  for family, module in modules.items():
    scores[family] = find_network.fitting(names, module.RENAMES)
  best = max(scores.values())
  ranked = sorted(scores, key=lambda family: -scores[family])
  enough = max(1, _RIVAL * best)
  return [(family, modules[family]) for family in ranked if scores[family] >= enough]


class _Candidate(NamedTuple):
  """A network that a file may be, and how far its number of parameters is from the file's."""

  network: str
  keys: Mapping[str, Any]
  module: ModuleType
  same_stages: bool
  distance: float


def _networks(family: str, module: ModuleType, arrays: Arrays) -> Iterator[_Candidate]:
  """Yield the networks of a family, with each set of keys that its checkpoints ask for."""
  stages = _stages(arrays, module.RENAMES)
  numbers = max(1, sum(array.size for array in arrays.values()))
  for name, factory in expressions.public(module).items():
    parameters = inspect.signature(factory).parameters.values()
    if any(one.default is one.empty for one in parameters):
      continue
    for keys in _keys_of(module, name):
      there = factory(**keys).stages in stages
      distance = _distance(f'{family}.{name}', keys, numbers)
      yield _Candidate(f'{family}.{name}', keys, module, there, distance)


def _distance(network: str, keys: Mapping[str, Any], numbers: int) -> float:
  """Return how far so many numbers are from the parameters of a network's public checkpoints.

  It is the logarithm of their ratio, without a sign; infinite where the network has none.
  """
  least = math.inf
  for entry in catalogue.entries():
    is_meant = entry.network == network and (not keys or dict(entry.weights.keys) == keys)
    if is_meant:
      least = min(least, abs(math.log(numbers / catalogue.count_parameters(entry))))
  return least


def _keys_of(module: ModuleType, name: str) -> list[dict[str, Any]]:
  """Return the keys that a network's checkpoints ask for, its defaults first."""
  options: list[dict[str, Any]] = [{}]
  for weights in module.WEIGHTS.values():
    keys = dict(weights.keys)
    if weights.network == name and keys not in options:
      options.append(keys)
  return options


def _stages(arrays: Arrays, dialects: Mapping[str, Dialect]) -> set[int]:
  """Return the number of the last stage in the file, as each dialect understands it."""
  found = set()
  for dialect in dialects.values():
    pieces, _ = renamed(arrays, dialect, (), LAST.strip('/'))
    paths = ' '.join(piece.path for piece in pieces)
    numbers = re.findall(r'backbone/stage(\d+)/', paths)
    last = max(map(int, numbers), default=0)
    found.add(last + 1 if LAST in paths else last)
  return found


def _tried(candidate: _Candidate, arrays: Arrays) -> Finding:
  """Return what a file is as one network."""
  network, keys, module = candidate[:3]
  adapt = getattr(module, 'ADAPT', {})
  classes = port.outputs(arrays, module.RENAMES)
  channels = _input_channels(arrays, module.RENAMES)
  backbone = expressions.find(network, catalogue.PACKAGE)(**keys)
  head_norm: Any = 'layer' if _has_head_norm(arrays, module.RENAMES) else ''
  net = Net(backbone, heads.linear(max(1, classes), norm=head_norm))
  shape = catalogue.example_shape(network, keys, channels)
  example = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  init = functools.partial(net.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), example)
  wanted = {path: tuple(leaf.shape) for path, leaf in pytrees.flatten(shapes).items()}
  if not classes:
    wanted = {path: shape for path, shape in wanted.items() if '/head/dense/' not in path}
  reading = port.nearest(arrays, wanted, module.RENAMES, (), adapt)
  truncate = 0
  if reading.faults:
    kept = _last_child(reading) + 1
    begun = {path: shape for path, shape in wanted.items() if _child(path) < kept}
    shorter = port.nearest(arrays, begun, module.RENAMES, (), adapt)
    if 0 < kept <= backbone.stages and not shorter.faults:
      reading = shorter
      truncate = kept
  unseen = module.RENAMES[reading.dialect].keys
  known = inspect.signature(expressions.find(network, catalogue.PACKAGE)).parameters
  mean, std = reading.normal
  return Finding(
    network=network,
    keys={**keys, **{key: value for key, value in unseen.items() if key in known}},
    dialect=reading.dialect,
    faults=tuple(reading.faults),
    left_out=tuple(name for name in reading.ignored if not name.endswith(find_network.COUNTS)),
    arrays=len(reading.ported),
    classes=classes,
    channels=channels,
    truncate=truncate,
    head_norm=head_norm,
    mean=tuple(mean),
    std=tuple(std),
  )


def _has_head_norm(arrays: Arrays, dialects: Mapping[str, Dialect]) -> bool:
  """Return whether a file's own head has a norm, as ConvNeXt's has."""
  for dialect in dialects.values():
    pieces, _ = renamed(arrays, dialect, ())
    if any(piece.path == 'params/head/norm/scale' for piece in pieces):
      return True
  return False


def _last_child(reading: port.Reading) -> int:
  """Return the number of the last child of the backbone that a file has; -1 without any."""
  numbers = [_child(path) for path in reading.ported]
  return max((int(number) for number in numbers if number < math.inf), default=-1)


def _child(path: str) -> float:
  """Return the number of the child that a path of ours belongs to; infinite behind the last one.

  >>> _child('params/backbone/stem/conv/kernel'), _child('params/head/dense/bias')
  (0, inf)
  """
  match = re.match(r'(?:stage(\d+)|stem)/', bare(path).removeprefix('backbone/'))
  if not match:
    return math.inf
  return int(match[1] or 0)


def _input_channels(arrays: Arrays, dialects: Mapping[str, Dialect]) -> int:
  """Return how many channels the first kernel of the file sees; 3 where that is not known."""
  for dialect in dialects.values():
    pieces, _ = renamed(arrays, dialect, ())
    for piece in pieces:
      if re.fullmatch(r'params/backbone/stem/(.*/)?kernel', piece.path) and piece.array.ndim > 2:
        return int(piece.array.shape[-2])
  return 3


def same_network(finding: Finding) -> Sequence[Entry]:
  """Return the public checkpoints of the network that a file fits."""
  return [entry for entry in catalogue.entries() if entry.network == finding.network]
