"""Several processes as one run, on one machine or many, by jax.distributed.

All processes follow the same program. Each computes on its own devices and reads its own share of
every batch. The main process, number 0, writes the run folder, which must lie on a file system that
all of them see. Whatever decides what comes next is the same in all processes, or is agreed here.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from medtl.core.types import MedtlError, Tree

HEARTBEAT = 30  # seconds without a sign of life after which JAX ends the processes that are left
AGAIN = 'the same command, started in all of them again, goes on from the last checkpoint'
STOPPED = 143  # exit status where SIGTERM to one stopped all at one step
LOST = ('Gloo', 'NCCL', 'UNAVAILABLE', 'Connection', 'DEADLINE_EXCEEDED')  # words of their errors
_place = [0, 1]  # this process's index, and how many processes there are


def join_cluster(words: str) -> None:
  """Become one of several processes; must be called before jax computes anything.

  `words` are 'auto' (Slurm, Open MPI, TPU pod, Kubernetes) or 'ADDRESS:PORT,COUNT,INDEX', where
  process 0 listens at ADDRESS:PORT and can be reached from all. Other words, and processes that do
  not find each other, are a MedtlError.
  """
  import jax

  address, count, index = _parse_place(words)
  if os.environ.get('JAX_PLATFORMS') == 'cpu':
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  try:
    jax.distributed.initialize(
      address,
      count,
      index,
      heartbeat_timeout_seconds=HEARTBEAT,
      shutdown_timeout_seconds=2 * HEARTBEAT,
    )
  except (ValueError, RuntimeError) as error:
    advice = f'Is process 0 running, and can {address} be reached from here?'
    if address is None:
      advice = (
        'Where neither Slurm, Open MPI, a TPU pod nor Kubernetes says who is who, give '
        '--hosts=ADDRESS:PORT,COUNT,INDEX'
      )
    raise MedtlError(
      f'--hosts={words}: the processes did not find each other ({error}). {advice}'
    ) from None
  _place[:] = jax.process_index(), jax.process_count()


def _parse_place(words: str) -> tuple[str | None, int | None, int | None]:
  """Return (address, count, index) of 'ADDRESS:PORT,COUNT,INDEX'; of 'auto' JAX finds them."""
  if words == 'auto':
    return None, None, None
  address, _, rest = words.partition(',')
  try:
    count, index = map(int, rest.split(','))
  except ValueError:
    count = index = 0
  if ':' not in address or not 0 <= index < count:
    raise MedtlError(
      f"--hosts={words}; expected 'auto', or ADDRESS:PORT,COUNT,INDEX with 0 <= INDEX < COUNT, "
      'for instance --hosts=10.0.0.1:8476,2,0 for the first of two processes'
    )
  return address, count, index


def host_share() -> tuple[int, int]:
  """Return (the index of this process, how many there are)."""
  return _place[0], _place[1]


def is_main_process() -> bool:
  """Return whether this is the process that writes what all have computed."""
  return _place[0] == 0


def barrier(name: str) -> None:
  """Wait until all processes have called this; they must give the same name."""
  if _place[1] > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def main_process_first(name: str) -> Iterator[None]:
  """Let the main process run the block before the others do, which then find what it has cached.

  Within the block no process may wait for another one.
  """
  if not is_main_process():
    barrier(name)
  yield
  if is_main_process():
    barrier(name)


def all_processes(answers: Sequence[bool]) -> list[bool]:
  """Return for each of several questions whether every process answers yes."""
  return [bool(value) for value in np.min(_gather(answers), 0)]


def broadcast_from_main(numbers: Sequence[int]) -> list[int]:
  """Return the main process's numbers in every process."""
  return [int(value) for value in _gather(numbers)[0]]


def _gather(numbers: Sequence[int]) -> np.ndarray:
  """Return the numbers of every process [processes, n]."""
  if _place[1] == 1:
    return np.array([numbers])
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.process_allgather(np.array(numbers, np.int32)))


def to_numpy(tree: Tree) -> Tree:
  """Return the arrays of a tree whole, as numpy, also what other processes' devices hold."""
  import jax

  if _place[1] == 1:
    return jax.device_get(tree)
  from jax.experimental import multihost_utils

  def whole(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
      return np.asarray(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)

  return jax.tree.map(whole, tree)


def stop_requested(step: int) -> bool:
  """Return whether all processes stop at this step, because one of them received SIGTERM.

  Every process must ask at every step.
  """
  from jax.experimental import multihost_utils

  return multihost_utils.reached_preemption_sync_point(step)


def shutdown(status: int) -> int:
  """Shut down distributed JAX and return the exit status; a failed process exits at once.

  So does one that was interrupted alone: the others cannot come to the common end.
  """
  if _place[1] == 1:
    return status
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
  """End this process at once, if it is one of several, after saying what went wrong.

  Nothing may run any more that waits for the others. A single process returns.
  """
  if _place[1] == 1:
    return
  if any(word in str(error) for word in LOST):
    print(
      f'error: process {_place[0] + 1} of {_place[1]} has lost another ({str(error)[:200]}); '
      f'{AGAIN}',
      file=sys.stderr,
    )
  else:
    traceback.print_exc()
  _exit_at_once(1)


def _exit_at_once(status: int) -> None:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
