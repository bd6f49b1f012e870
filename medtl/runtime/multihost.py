"""Several processes as one run, on one machine or on many: who writes, and what all agree upon. JAX's own engine does the rest.

All follow the same program. Each computes on its own devices and reads its own share of every batch; the first writes the run folder,
which must lie on a file system that all of them see. Whatever decides what comes next is the same in all, or agreed upon here.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

import numpy as np

from medtl.core.types import MedtlError, Tree

HEARTBEAT = 30  # seconds without a sign of life after which JAX ends the processes that are left
AGAIN = 'the same command, started in all of them again, goes on from the last checkpoint'
STOPPED = 143  # exit status where SIGTERM to one stopped all at one step
_place = [0, 1]  # of this process, and how many there are


def join_cluster(words: str) -> None:
  """Become one of several processes: 'auto' (Slurm, Open MPI, TPU pod, Kubernetes) or 'ADDRESS:PORT,COUNT,INDEX'; before jax computes.

  ADDRESS:PORT is where process 0 listens, and can be reached from all.
  """
  import jax

  address, _, rest = words.partition(',')
  try:
    count, index = (None, None) if words == 'auto' else map(int, rest.split(','))
    if count is not None and index is not None and not (':' in address and 0 <= index < count):
      raise ValueError
  except ValueError:
    raise MedtlError(
      f"--hosts={words}; expected 'auto', or ADDRESS:PORT,COUNT,INDEX with 0 <= INDEX < COUNT, for instance "
      '--hosts=10.0.0.1:8476,2,0 for the first of two processes'
    ) from None
  if os.environ.get('JAX_PLATFORMS') == 'cpu':
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  try:
    jax.distributed.initialize(
      None if words == 'auto' else address,
      count,
      index,
      heartbeat_timeout_seconds=HEARTBEAT,
      shutdown_timeout_seconds=2 * HEARTBEAT,
    )
  except (ValueError, RuntimeError) as error:
    raise MedtlError(
      f'--hosts={words}: the processes did not find each other ({error}). '
      + (
        'Where neither Slurm, Open MPI, a TPU pod nor Kubernetes says who is who, give --hosts=ADDRESS:PORT,COUNT,INDEX'
        if words == 'auto'
        else f'Is process 0 running, and can {address} be reached from here?'
      )
    ) from None
  _place[:] = jax.process_index(), jax.process_count()


def host_share() -> tuple[int, int]:
  """Return (the place of this process, how many there are)."""
  return _place[0], _place[1]


def is_main_process() -> bool:
  """Return whether this process writes what all have computed."""
  return _place[0] == 0


def barrier(name: str) -> None:
  """Return when all processes are here; another name there is an error."""
  if _place[1] > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def main_process_first(name: str) -> Iterator[None]:
  """Let the first process go ahead: where it leaves something in a cache that all see, the others find it. Nothing joint happens within."""
  if not is_main_process():
    barrier(name)
  yield
  if is_main_process():
    barrier(name)


def all_processes(said: Sequence[bool]) -> list[bool]:
  """Return of each of several things whether every process says so."""
  return [bool(value) for value in np.min(_gather(said), 0)]


def broadcast_from_main(numbers: Sequence[int]) -> list[int]:
  """Return what the first process says."""
  return [int(value) for value in _gather(numbers)[0]]


def _gather(numbers: Sequence[int]) -> np.ndarray:
  """Return what each process says [processes, n]."""
  if _place[1] == 1:
    return np.array([numbers])
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.process_allgather(np.array(numbers, np.int32)))


def to_numpy(tree: Tree) -> Tree:
  """Return as numpy what devices hold, of other processes too."""
  import jax

  if _place[1] == 1:
    return jax.device_get(tree)
  from jax.experimental import multihost_utils

  return jax.tree.map(
    lambda leaf: (
      multihost_utils.process_allgather(leaf, tiled=True)
      if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
      else np.asarray(leaf)
    ),
    tree,
  )


def stop_requested(step: int) -> bool:
  """Return whether a process was told to stop (SIGTERM) and all have come to the step at which they do; to be asked at every step."""
  from jax.experimental import multihost_utils

  return multihost_utils.reached_preemption_sync_point(step)


def shutdown(status: int) -> int:
  """Part from the others and return the exit status.

  A process that failed, or was interrupted alone, does not wait for them.
  """
  if _place[1] > 1:
    if status not in (0, STOPPED):
      print(
        f'process {_place[0] + 1} of {_place[1]} stops, and the others within {HEARTBEAT} s',
        file=sys.stderr,
      )
      _exit_at_once(status)
    import jax

    jax.distributed.shutdown()
    _place[:] = 0, 1
  return status


def abort_on_lost_peer(error: Exception) -> None:
  """End this process, where there are others, with words for what they left undone; nothing that waits for them is run any more."""
  if _place[1] == 1:
    return
  if any(
    word in str(error)
    for word in ('Gloo', 'NCCL', 'UNAVAILABLE', 'Connection', 'DEADLINE_EXCEEDED')
  ):
    print(
      f'error: process {_place[0] + 1} of {_place[1]} has lost another ({str(error)[:200]}); {AGAIN}',
      file=sys.stderr,
    )
  else:
    traceback.print_exc()
  _exit_at_once(1)


def _exit_at_once(status: int) -> None:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
