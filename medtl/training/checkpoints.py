"""Orbax checkpoints: one atomic write holds state, phase, best value and early-stopping counters. `latest` and `best` have rules apart.

`origin` holds what the run began with, once. A leaf that is still bit for bit what it was then is not written again: a checkpoint names
it instead, so that frozen children cost nothing at each evaluation. Small leaves lie together in one array of their dtype: what a leaf of
its own costs to write is paid on the cores that train. Nothing is compressed, since noise like weights hardly shrinks.
"""

import contextlib
import itertools
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medtl.core import pytrees
from medtl.core.types import MedtlError, State, Tree
from medtl.runtime import multihost
from medtl.runtime.files import require_space

SMALL = 2**22  # bytes below which leaves are written together
# In a path: orbax finds its files by patterns, and tensorstore takes \ for / and wants UTF-8
# (Python has \udcXX for other bytes).
MISREAD = re.compile(r'[*?\[\]\\\udc80-\udcff]')
AGAIN = (
  'make room and start the same command again: the run continues from the last whole checkpoint'
)


@dataclass
class Progress:
  """Where a run stands beside its state."""

  phase: int = 0
  phase_start: int = 0  # the step at which this phase began
  phase_done: bool = False  # by its duration, or by patience
  best: float | None = None  # the monitored metric's best value so far
  best_step: int = -1
  best_phase: int = 0
  waiting: int = 0  # evaluations of this phase since the best
  spans: dict[str, float] = field(
    default_factory=dict
  )  # seconds until now, by what they were spent on


class Checkpoints:
  """The folder `checkpoints/` of a run: `origin/0`, `latest/<step>`, `best/<step>`, written in the background, renamed into place."""

  def __init__(self, folder: Path):
    import orbax.checkpoint as ocp

    self.ocp = ocp
    self.folder = folder.absolute()
    self.link = _link(self.folder) if MISREAD.search(str(self.folder)) else None
    place = Path(self.link.name) / self.folder.name if self.link else self.folder
    self.managers = {
      kind: ocp.CheckpointManager(
        place / kind,
        options=ocp.CheckpointManagerOptions(
          max_to_keep=1,
          create=True,
          enable_async_checkpointing=True,
          multiprocessing_options=ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=kind),
        ),
        item_handlers={
          'state': ocp.PyTreeCheckpointHandler(use_compression=False),
          'progress': ocp.JsonCheckpointHandler(),
        },
      )
      for kind in ('origin', 'latest', 'best')
    }
    self.begun: dict[str, np.ndarray] | None = (
      None  # {path: leaf} of origin, once it has been read or written
    )

  def begin(self, params: Tree, extra: Tree, twins: Sequence[Path] = ()) -> bool:
    """Write what the run begins with, where that is not there yet; return whether others may link it: it is not a link itself.

    `twins` are folders of runs that may have begun with the same: one that has is linked, and takes no room again.
    """
    leaves = {
      path: np.asarray(leaf)
      for path, leaf in pytrees.flatten({'params': params, 'extra': extra}).items()
    }
    if self.step('origin') is None:
      if multihost.host_share()[1] == 1 and any(
        self._linked(twin, leaves) for twin in twins
      ):  # several write it together
        return False
      self._write('origin', 0, leaves, {})
      self.wait()
    self._origin()
    return True

  def _linked(self, twin: Path, leaves: Mapping[str, np.ndarray]) -> bool:
    """Link the origin of `twin` to here, and return whether it holds these leaves bit for bit; where it does not, leave nothing."""
    own, aside, manager = (
      self.folder / 'origin' / '0',
      self.folder / 'origin.linking',
      self.managers['origin'],
    )
    shutil.rmtree(aside, ignore_errors=True)
    try:
      shutil.copytree(twin / 'origin' / '0', aside, copy_function=os.link)
      aside.rename(own)  # whole or not at all
      manager.reload()
      found = self._stored('origin')
      same = found.keys() == leaves.keys() and all(
        equal_to_the_bit(found[path], leaves[path]) for path in leaves
      )
    except (OSError, MedtlError):  # another file system, or one without links
      same = False
    if not same:
      shutil.rmtree(own, ignore_errors=True)
      manager.reload()
    return same

  def save(self, kind: str, state: State, progress: Progress) -> None:
    """Begin to write; a step that is there already is left alone (a resumed run repeats it bit for bit)."""
    step, manager = int(state.step), self.managers[kind]
    if step in manager.all_steps():
      return
    leaves, begun = pytrees.flatten(with_raw_key(state)), self._origin()
    known = [path for path in leaves if path in begun]
    same = multihost.all_processes([equal_to_the_bit(leaves[path], begun[path]) for path in known])
    kept = [path for path, still in zip(known, same, strict=True) if still]
    self._write(
      kind,
      step,
      {path: leaf for path, leaf in leaves.items() if path not in kept},
      {**asdict(progress), 'as_begun': kept},
    )

  def _write(
    self, kind: str, step: int, leaves: Mapping[str, Any], facts: Mapping[str, Any]
  ) -> None:
    require_space(
      self.folder, pytrees.nbytes(leaves), f'the checkpoint {kind} of step {step}', AGAIN
    )  # orbax takes hundreds of lines
    apart, packed = pack_small_leaves(leaves)
    if multihost.host_share()[1] > 1:  # orbax counts the meetings of all its writers as one series
      self.wait()
    with self._room(kind, step):
      self.managers[kind].save(
        step,
        args=self.ocp.args.Composite(
          state=self.ocp.args.PyTreeSave(apart),
          progress=self.ocp.args.JsonSave({**facts, 'packed': packed}),
        ),
      )

  @contextlib.contextmanager
  def _room(self, kind: str, step: int | None) -> Iterator[None]:
    """Say in words that the disk is full; what tensorstore raises in the background arrives here as a ValueError."""
    try:
      yield
    except (OSError, ValueError) as error:
      why = 'no space left on the disk' if 'No space left' in str(error) else str(error)[:400]
      which = f'checkpoint {kind} of step {step}' if step is not None else f'checkpoint {kind}'
      raise MedtlError(f'cannot write the {which} to {self.folder}: {why}; {AGAIN}') from error

  def _origin(self) -> dict[str, np.ndarray]:
    if self.begun is None and self.step('origin') is not None:
      self.begun = {path: np.asarray(leaf) for path, leaf in self._stored('origin').items()}
    return self.begun or {}

  def step(self, kind: str) -> int | None:
    """Return the newest step, None where there is none."""
    return self.managers[kind].latest_step()

  def progress(self, kind: str) -> Progress:
    """Return what was saved beside the state."""
    facts = self._facts(kind)
    return Progress(
      **{name: facts[name] for name in (one.name for one in fields(Progress)) if name in facts}
    )

  def _facts(self, kind: str) -> dict[str, Any]:
    wanted = self.ocp.args.Composite(progress=self.ocp.args.JsonRestore())
    with self._legible(kind):
      return dict(self.managers[kind].restore(self.step(kind), args=wanted)['progress'])

  def restore(self, kind: str, expected: State) -> State:
    """Return the newest state; `expected` is a state of arrays or shapes, and any difference in structure is an error."""
    want = pytrees.flatten(with_raw_key(expected))
    self._compare(
      kind, self._leaves(kind, metadata=True), want
    )  # before: orbax drops what the target lacks
    leaves = self._leaves(kind)
    self._compare(kind, leaves, want)
    structure = jax.tree.structure(with_raw_key(expected))
    state = jax.tree.unflatten(
      structure, [jnp.array(leaves[path]) for path in want]
    )  # a buffer of its own for each leaf
    return state._replace(key=jax.random.wrap_key_data(state.key))

  def params(self, kind: str) -> tuple[Tree, Tree]:
    """Return the newest checkpoint's (params, extra) as numpy trees, whatever its optimizer was."""
    leaves = {path: np.asarray(leaf) for path, leaf in self._leaves(kind).items()}
    parts = [
      {
        path.removeprefix(f'{name}/'): leaf
        for path, leaf in leaves.items()
        if path.startswith(f'{name}/')
      }
      for name in ('params', 'extra')
    ]
    return pytrees.unflatten(parts[0]), pytrees.unflatten(parts[1])

  def _compare(self, kind: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    words = pytrees.difference(found, expected)
    if words:
      raise MedtlError(
        f'the checkpoint {self.folder / kind / str(self.step(kind))} is not of this run:\n{words}'
      )

  def _leaves(self, kind: str, metadata: bool = False) -> dict[str, Any]:
    """Return {path: array}, or what orbax recorded of each array's shape and dtype, with the leaves that are still as the run began."""
    stored = self._stored(kind, metadata)
    kept, begun = self._facts(kind).get('as_begun', []), self._origin()
    lost = [path for path in kept if path not in begun]
    if lost:
      raise MedtlError(
        f'{self.folder}/origin lacks {len(lost)} arrays that {kind}/{self.step(kind)} refers to, first {lost[0]}: was '
        'the run folder copied in part?'
      )
    return {**stored, **{path: begun[path] for path in kept}}

  def _stored(self, kind: str, metadata: bool = False) -> dict[str, Any]:
    step, manager = self.step(kind), self.managers[kind]
    if step is None:
      lost = self.step('latest') is not None
      why = f'; {self._anew()}' if lost else ': the run has not reached its first evaluation'
      raise MedtlError(f'no checkpoint in {self.folder / kind}{why}')
    with self._legible(kind):
      leaves = dict(manager.item_metadata(step)['state'])
      if not metadata:  # as numpy: where it was computed is no affair of the file's
        wanted = {name: self.ocp.RestoreArgs(restore_type=np.ndarray) for name in leaves}
        args = self.ocp.args.Composite(state=self.ocp.args.PyTreeRestore(restore_args=wanted))
        leaves = manager.restore(step, args=args)['state']
    packed = self._facts(kind).get('packed', {})
    with self._legible(kind):
      return unpack_small_leaves(leaves, packed)

  @contextlib.contextmanager
  def _legible(self, kind: str) -> Iterator[None]:
    """Say in words that a checkpoint is damaged or gone, and what to do."""
    try:
      yield
    except (ValueError, KeyError, TypeError, OSError) as error:
      place = self.folder / kind / str(self.step(kind))
      why = str(error)[:600]
      raise MedtlError(f'the checkpoint {place} cannot be read: {why}; {self._anew()}') from error

  def _anew(self) -> str:
    """Return what to do where a checkpoint is lost."""
    return (
      f'to train anew, delete {self.folder} (and numbers.json beside it, if it is there) and '
      'start the training command again'
    )

  def wait(self) -> None:
    """Return when everything is on disk."""
    for kind, manager in self.managers.items():
      with self._room(kind, None):
        manager.wait_until_finished()

  def close(self) -> None:
    """Wait, then end the writers."""
    self.wait()
    for manager in self.managers.values():
      manager.close()
    if self.link:
      self.link.cleanup()


def _link(folder: Path) -> tempfile.TemporaryDirectory:
  """Return a temporary folder in which a link of the same name leads to `folder`, which is made."""
  folder.mkdir(parents=True, exist_ok=True)
  why = (
    f'the path {folder} holds one of * ? [ ] \\ or bytes that are no UTF-8, and so needs a '
    'link in a temporary folder'
  )
  if multihost.host_share()[1] > 1:  # orbax wants one path in all of them
    raise MedtlError(
      f'{why}, which several processes (--hosts) cannot share; choose another --workdir'
    )
  try:
    made = tempfile.TemporaryDirectory(prefix='medtl-')
    Path(made.name, folder.name).symlink_to(folder, target_is_directory=True)
  except OSError as error:
    raise MedtlError(f'{why}: {error}; choose another --workdir, or set TMPDIR') from None
  if MISREAD.search(made.name):
    raise MedtlError(
      f'{why}, and so does that one, {made.name}; choose another --workdir, or set TMPDIR'
    )
  return made


def equal_to_the_bit(one: Any, other: Any) -> bool:
  """Return whether two arrays are the same bit for bit; 0.0 and −0.0 are not. Of one over several processes: the parts that are here."""
  if isinstance(one, jax.Array) and not (one.is_fully_addressable or one.is_fully_replicated):
    return all(equal_to_the_bit(part.data, other[part.index]) for part in one.addressable_shards)
  one, other = np.asarray(one), np.asarray(other)
  return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def pack_small_leaves(
  leaves: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, list[tuple[str, list[int]]]]]:
  """Return (leaves under names that orbax does not split, what small ones were packed: {dtype: [(path, shape), …]})."""
  small: dict[str, dict[str, np.ndarray]] = {}
  for path, leaf in leaves.items():
    if leaf.nbytes < SMALL and getattr(leaf, 'is_fully_replicated', True):
      small.setdefault(leaf.dtype.name, {})[path] = np.asarray(leaf)
  packed = {
    name: np.concatenate([leaf.ravel() for leaf in group.values()]) for name, group in small.items()
  }
  apart = {
    path.replace('/', '|'): leaf
    for path, leaf in leaves.items()
    if path not in small.get(leaf.dtype.name, {})
  }
  return {**apart, **packed}, {
    name: [(path, list(leaf.shape)) for path, leaf in group.items()]
    for name, group in small.items()
  }


def unpack_small_leaves(stored: Mapping[str, Any], packed: Mapping[str, Any]) -> dict[str, Any]:
  """Return {path: array} of what `together` made; of orbax's metadata of it {path: shape and dtype}."""
  found = {path.replace('|', '/'): leaf for path, leaf in stored.items() if path not in packed}
  for name, group in packed.items():
    sizes = [math.prod(shape) for _, shape in group]
    if stored[name].shape != (sum(sizes),):
      raise ValueError(f'{name}: {stored[name].shape} numbers, expected {sum(sizes)}')
    for (path, shape), size, end in zip(group, sizes, itertools.accumulate(sizes), strict=True):
      if isinstance(stored[name], np.ndarray | jax.Array):
        found[path] = np.asarray(stored[name])[end - size : end].reshape(shape)
      else:
        found[path] = jax.ShapeDtypeStruct(shape, stored[name].dtype)
  return found


def with_raw_key(state: State) -> State:
  """Return the state with its typed key as plain numbers."""
  key = state.key
  if isinstance(key, jax.ShapeDtypeStruct):
    return state._replace(key=jax.eval_shape(jax.random.key_data, key))
  return state._replace(key=jax.random.key_data(key))
