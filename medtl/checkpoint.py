"""Orbax checkpoints: one atomic write holds state, phase, best value and early-stopping counters. `latest` and `best` have rules apart."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medtl import tree
from medtl.types import MedtlError, State, Tree


@dataclass
class Progress:
  """Where a run stands beside its state."""
  phase: int = 0
  phase_start: int = 0              # the step at which this phase began
  phase_done: bool = False          # by its duration, or by patience
  best: float | None = None         # the monitored metric's best value so far
  best_step: int = -1
  best_phase: int = 0
  waiting: int = 0                  # evaluations of this phase since the best


class Checkpoints:
  """The folder `checkpoints/` of a run: `latest/<step>` and `best/<step>`, written in the background, renamed into place."""

  def __init__(self, folder: Path):
    import orbax.checkpoint as ocp
    self.ocp = ocp
    self.folder = folder.absolute()
    options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=True)
    handlers = {'state': ocp.StandardCheckpointHandler, 'progress': ocp.JsonCheckpointHandler}
    self.managers = {kind: ocp.CheckpointManager(self.folder / kind, options=options,
                                                 item_handlers={name: handler() for name, handler in handlers.items()})
                     for kind in ('latest', 'best')}

  def save(self, kind: str, state: State, progress: Progress) -> None:
    """Begin to write; a step that is there already is left alone (a resumed run repeats it bit for bit)."""
    step, manager = int(state.step), self.managers[kind]
    if step in manager.all_steps():
      return
    leaves = {path.replace('/', '|'): leaf for path, leaf in tree.flatten(raw(state)).items()}   # orbax splits at slashes
    try:
      manager.save(step, args=self.ocp.args.Composite(state=self.ocp.args.StandardSave(leaves),
                                                      progress=self.ocp.args.JsonSave(asdict(progress))))
    except OSError as error:
      raise MedtlError(f'cannot write the checkpoint of step {step} to {self.folder}: {error}; make room and start the same command '
                       'again: the run continues from the last whole checkpoint') from error

  def step(self, kind: str) -> int | None:
    """Return the newest step, None where there is none."""
    return self.managers[kind].latest_step()

  def progress(self, kind: str) -> Progress:
    """Return what was saved beside the state."""
    item = self.managers[kind].restore(self.step(kind), args=self.ocp.args.Composite(progress=self.ocp.args.JsonRestore()))
    known = {field.name for field in fields(Progress)}
    return Progress(**{name: value for name, value in item['progress'].items() if name in known})

  def restore(self, kind: str, expected: State) -> State:
    """Return the newest state; `expected` is a state of arrays or shapes, and any difference in structure is an error."""
    want = tree.flatten(raw(expected))
    self._compare(kind, self._leaves(kind, metadata=True), want)       # before: orbax drops what the target lacks
    leaves = self._leaves(kind)
    self._compare(kind, leaves, want)
    structure = jax.tree.structure(raw(expected))
    state = jax.tree.unflatten(structure, [jnp.array(leaves[path]) for path in want])     # a buffer of its own for each leaf
    return state._replace(key=jax.random.wrap_key_data(state.key))

  def params(self, kind: str) -> tuple[Tree, Tree]:
    """Return the newest checkpoint's (params, extra) as numpy trees, whatever its optimizer was."""
    leaves = {path: np.asarray(leaf) for path, leaf in self._leaves(kind).items()}
    parts = [{path.removeprefix(f'{name}/'): leaf for path, leaf in leaves.items() if path.startswith(f'{name}/')}
             for name in ('params', 'extra')]
    return tree.unflatten(parts[0]), tree.unflatten(parts[1])

  def _compare(self, kind: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    words = tree.difference(found, expected)
    if words:
      raise MedtlError(f'the checkpoint {self.folder / kind / str(self.step(kind))} is not of this run:\n{words}')

  def _leaves(self, kind: str, metadata: bool = False) -> dict[str, Any]:
    """Return {path: array}, or what orbax recorded of each array's shape and dtype."""
    step, manager = self.step(kind), self.managers[kind]
    if step is None:
      raise MedtlError(f'no checkpoint in {self.folder / kind}: the run has not reached its first evaluation')
    try:
      if metadata:
        leaves = manager.item_metadata(step)['state']
      else:
        leaves = manager.restore(step, args=self.ocp.args.Composite(state=self.ocp.args.StandardRestore()))['state']
      return {path.replace('|', '/'): leaf for path, leaf in dict(leaves).items()}
    except (ValueError, KeyError, TypeError, OSError) as error:
      raise MedtlError(f'checkpoint {self.folder / kind / str(step)} cannot be read: {str(error)[:600]}') from error

  def wait(self) -> None:
    """Return when everything is on disk."""
    for manager in self.managers.values():
      manager.wait_until_finished()

  def close(self) -> None:
    """Wait, then end the writers."""
    self.wait()
    for manager in self.managers.values():
      manager.close()


def raw(state: State) -> State:
  """Return the state with its typed key as plain numbers."""
  key = state.key
  if isinstance(key, jax.ShapeDtypeStruct):
    return state._replace(key=jax.eval_shape(jax.random.key_data, key))
  return state._replace(key=jax.random.key_data(key))
