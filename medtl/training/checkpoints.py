"""Orbax checkpoints: one atomic write holds the state, and beside it what `Progress` counts.

`latest` and `best` are written by rules of their own. `origin` holds once what the run began with.
A leaf that is still bit for bit what it was then is not written again: a checkpoint names it
instead, so that frozen children cost nothing at each evaluation. Small leaves are packed into one
array for each dtype, because writing a leaf of its own takes time from the cores that train.
Nothing is compressed: weights are close to noise, which hardly shrinks.
"""

import contextlib
import itertools
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
from medtl.training.leaf_packing import pack_small_leaves, unpack_small_leaves

KINDS = ('origin', 'latest', 'best')
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
  spans: dict[str, float] = field(default_factory=dict)  # seconds until now, by activity


class Checkpoints:
  """The folder `checkpoints/` of a run: `origin/0`, `latest/<step>` and `best/<step>`.

  They are written in the background, and renamed into place once they are whole.
  """

  def __init__(self, folder: Path):
    import orbax.checkpoint as ocp

    self.ocp = ocp
    self.folder = folder.absolute()
    self.link: tempfile.TemporaryDirectory | None = None
    place = self.folder
    if MISREAD.search(str(self.folder)):
      self.link = _link(self.folder)
      place = Path(self.link.name) / self.folder.name
    self.managers = {kind: self._manager(place / kind) for kind in KINDS}
    self.initial: dict[str, np.ndarray] | None = None  # {path: leaf} of origin, once it is known

  def _manager(self, place: Path) -> Any:
    """Return orbax's manager of a folder, which keeps the newest checkpoint alone."""
    together = self.ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=place.name)
    options = self.ocp.CheckpointManagerOptions(
      max_to_keep=1,
      create=True,
      enable_async_checkpointing=True,
      multiprocessing_options=together,
    )
    handlers = {
      'state': self.ocp.PyTreeCheckpointHandler(use_compression=False),
      'progress': self.ocp.JsonCheckpointHandler(),
    }
    return self.ocp.CheckpointManager(place, options=options, item_handlers=handlers)

  def begin(self, params: Tree, extra: Tree, twins: Sequence[Path] = ()) -> bool:
    """Write what the run begins with, unless it is there; return whether other runs may link it.

    `twins` are folders of runs that may have begun with the same. If one has, its files are
    linked and take no more room; what is itself a link is not linked again.
    """
    tree = {'params': params, 'extra': extra}
    leaves = {path: np.asarray(leaf) for path, leaf in pytrees.flatten(tree).items()}
    if self.step('origin') is None:
      alone = multihost.host_share()[1] == 1  # several processes write it together
      if alone and any(self._linked(twin, leaves) for twin in twins):
        return False
      self._write('origin', 0, leaves, {})
      self.wait()
    self._initial_leaves()
    return True

  def _linked(self, twin: Path, leaves: Mapping[str, np.ndarray]) -> bool:
    """Link the origin of `twin`, and return whether it holds these leaves bit for bit.

    Where it does not, nothing is left of the link.
    """
    own = self.folder / 'origin' / '0'
    aside = self.folder / 'origin.linking'
    manager = self.managers['origin']
    shutil.rmtree(aside, ignore_errors=True)
    try:
      shutil.copytree(twin / 'origin' / '0', aside, copy_function=os.link)
      aside.rename(own)  # whole or not at all
      manager.reload()
      same = _equal_leaves(self._stored('origin'), leaves)
    except (OSError, MedtlError):  # another file system, or one without links
      same = False
    if not same:
      shutil.rmtree(own, ignore_errors=True)
      manager.reload()
    return same

  def save(self, kind: str, state: State, progress: Progress) -> None:
    """Begin to write the state; a step that is there already is left alone.

    A resumed run repeats such a step bit for bit.
    """
    step = int(state.step)
    if step in self.managers[kind].all_steps():
      return
    leaves = pytrees.flatten(with_raw_key(state))
    initial = self._initial_leaves()
    known = [path for path in leaves if path in initial]
    same = multihost.all_processes(
      [equal_to_the_bit(leaves[path], initial[path]) for path in known]
    )
    as_begun = list(itertools.compress(known, same))
    changed = {path: leaf for path, leaf in leaves.items() if path not in as_begun}
    self._write(kind, step, changed, {**asdict(progress), 'as_begun': as_begun})

  def _write(
    self, kind: str, step: int, leaves: Mapping[str, Any], facts: Mapping[str, Any]
  ) -> None:
    # orbax says that the disk is full in hundreds of lines
    require_space(
      self.folder, pytrees.nbytes(leaves), f'the checkpoint {kind} of step {step}', AGAIN
    )
    arrays, packed = pack_small_leaves(leaves)
    if multihost.host_share()[1] > 1:  # orbax numbers the barriers of all its writers in one series
      self.wait()
    args = self.ocp.args.Composite(
      state=self.ocp.args.PyTreeSave(arrays),
      progress=self.ocp.args.JsonSave({**facts, 'packed': packed}),
    )
    with self._explained_write(kind, step):
      self.managers[kind].save(step, args=args)

  @contextlib.contextmanager
  def _explained_write(self, kind: str, step: int | None) -> Iterator[None]:
    """While open, a write that fails is a MedtlError that says why, such as a full disk.

    What tensorstore raises in the background arrives here as a ValueError.
    """
    try:
      yield
    except (OSError, ValueError) as error:
      why = 'no space left on the disk' if 'No space left' in str(error) else str(error)[:400]
      which = f'checkpoint {kind} of step {step}' if step is not None else f'checkpoint {kind}'
      raise MedtlError(f'cannot write the {which} to {self.folder}: {why}; {AGAIN}') from error

  def _initial_leaves(self) -> dict[str, np.ndarray]:
    """Return {path: leaf} of what the run began with, {} where that is not written yet."""
    if self.initial is None and self.step('origin') is not None:
      stored = self._stored('origin')
      self.initial = {path: np.asarray(leaf) for path, leaf in stored.items()}
    return self.initial or {}

  def step(self, kind: str) -> int | None:
    """Return the newest step, None where there is none."""
    return self.managers[kind].latest_step()

  def progress(self, kind: str) -> Progress:
    """Return the progress that was saved beside the newest state."""
    facts = self._facts(kind)
    names = [entry.name for entry in fields(Progress)]
    return Progress(**{name: facts[name] for name in names if name in facts})

  def _facts(self, kind: str) -> dict[str, Any]:
    """Return what was saved beside the newest arrays: the progress, `as_begun` and `packed`."""
    args = self.ocp.args.Composite(progress=self.ocp.args.JsonRestore())
    with self._explained_read(kind):
      return dict(self.managers[kind].restore(self.step(kind), args=args)['progress'])

  def restore(self, kind: str, expected: State) -> State:
    """Return the newest state.

    `expected` is a state of arrays or shapes; any difference in structure, shape or dtype is a
    MedtlError that lists it.
    """
    state = with_raw_key(expected)
    wanted = pytrees.flatten(state)
    # compared before the arrays are read too, since orbax drops what the target lacks
    self._require_alike(kind, self._leaves(kind, metadata=True), wanted)
    leaves = self._leaves(kind)
    self._require_alike(kind, leaves, wanted)
    own_buffers = [jnp.array(leaves[path]) for path in wanted]
    restored = jax.tree.unflatten(jax.tree.structure(state), own_buffers)
    return restored._replace(key=jax.random.wrap_key_data(restored.key))

  def params(self, kind: str) -> tuple[Tree, Tree]:
    """Return the newest checkpoint's (params, extra) as numpy trees, whatever its optimizer was."""
    leaves = self._leaves(kind)

    def part(name: str) -> Tree:
      inner = {}
      for path, leaf in leaves.items():
        first, _, rest = path.partition('/')
        if first == name:
          inner[rest] = np.asarray(leaf)
      return pytrees.unflatten(inner)

    return part('params'), part('extra')

  def _require_alike(
    self, kind: str, found: Mapping[str, Any], expected: Mapping[str, Any]
  ) -> None:
    words = pytrees.difference(found, expected)
    if words:
      raise MedtlError(
        f'the checkpoint {self.folder / kind / str(self.step(kind))} is not of this run:\n{words}'
      )

  def _leaves(self, kind: str, metadata: bool = False) -> dict[str, Any]:
    """Return {path: array}, those that are as the run began included.

    With `metadata`, what was written is given as orbax's record of its shape and dtype.
    """
    stored = self._stored(kind, metadata)
    as_begun = self._facts(kind).get('as_begun', [])
    initial = self._initial_leaves()
    lost = [path for path in as_begun if path not in initial]
    if lost:
      raise MedtlError(
        f'{self.folder}/origin lacks {len(lost)} arrays that {kind}/{self.step(kind)} refers to, '
        f'first {lost[0]}: was the run folder copied in part?'
      )
    return {**stored, **{path: initial[path] for path in as_begun}}

  def _stored(self, kind: str, metadata: bool = False) -> dict[str, Any]:
    """Return {path: array} of what was written, or orbax's record of their shapes and dtypes."""
    step = self.step(kind)
    manager = self.managers[kind]
    if step is None:
      lost = self.step('latest') is not None
      why = f'; {self._advice()}' if lost else ': the run has not reached its first evaluation'
      raise MedtlError(f'no checkpoint in {self.folder / kind}{why}')
    with self._explained_read(kind):
      leaves = dict(manager.item_metadata(step)['state'])
      if not metadata:  # as numpy, whatever devices it was computed on
        as_numpy = {name: self.ocp.RestoreArgs(restore_type=np.ndarray) for name in leaves}
        args = self.ocp.args.Composite(state=self.ocp.args.PyTreeRestore(restore_args=as_numpy))
        leaves = manager.restore(step, args=args)['state']
    packed = self._facts(kind).get('packed', {})
    with self._explained_read(kind):
      return unpack_small_leaves(leaves, packed)

  @contextlib.contextmanager
  def _explained_read(self, kind: str) -> Iterator[None]:
    """While open, a checkpoint that is damaged or gone is a MedtlError that says what to do."""
    try:
      yield
    except (ValueError, KeyError, TypeError, OSError) as error:
      place = self.folder / kind / str(self.step(kind))
      why = str(error)[:600]
      raise MedtlError(f'the checkpoint {place} cannot be read: {why}; {self._advice()}') from error

  def _advice(self) -> str:
    """Return what to do where a checkpoint is lost."""
    return (
      f'to train anew, delete {self.folder} (and numbers.json beside it, if it is there) and '
      'start the training command again'
    )

  def wait(self) -> None:
    """Return when everything is on disk."""
    for kind, manager in self.managers.items():
      with self._explained_write(kind, None):
        manager.wait_until_finished()

  def close(self) -> None:
    """Wait until everything is on disk, then end the writers."""
    self.wait()
    for manager in self.managers.values():
      manager.close()
    if self.link:
      self.link.cleanup()


def _link(folder: Path) -> tempfile.TemporaryDirectory:
  """Make `folder`, and return a temporary folder with a link of the same name that leads to it."""
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
    temporary = tempfile.TemporaryDirectory(prefix='medtl-')
    Path(temporary.name, folder.name).symlink_to(folder, target_is_directory=True)
  except OSError as error:
    raise MedtlError(f'{why}: {error}; choose another --workdir, or set TMPDIR') from None
  if MISREAD.search(temporary.name):
    raise MedtlError(
      f'{why}, and so does that one, {temporary.name}; choose another --workdir, or set TMPDIR'
    )
  return temporary


def _equal_leaves(found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
  """Return whether two {path: array} hold the same paths and the same bits."""
  if found.keys() != expected.keys():
    return False
  return all(equal_to_the_bit(found[path], expected[path]) for path in expected)


def equal_to_the_bit(a: Any, b: Any) -> bool:
  """Return whether two arrays are the same in dtype, shape and every bit; 0.0 and −0.0 are not.

  Where `a` lies on the devices of several processes, the parts of this process are compared.
  """
  if isinstance(a, jax.Array) and not (a.is_fully_addressable or a.is_fully_replicated):
    return all(equal_to_the_bit(part.data, b[part.index]) for part in a.addressable_shards)
  a = np.asarray(a)
  b = np.asarray(b)
  return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def with_raw_key(state: State) -> State:
  """Return the state with its typed random key as plain numbers, which orbax can write."""
  key = state.key
  if isinstance(key, jax.ShapeDtypeStruct):
    return state._replace(key=jax.eval_shape(jax.random.key_data, key))
  return state._replace(key=jax.random.key_data(key))
