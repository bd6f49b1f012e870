"""The training loop: a step applied to batches.

Evaluation, checkpoints and logs come in as hooks; the loop knows none of them.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from medtl.core.types import Batch, Logs, MedtlError, State, Terminated
from medtl.runtime import multihost

Step = Callable[[State, Batch], tuple[State, Logs]]
Hook = Callable[[int, State], bool]  # (steps done, state) -> stop this phase?
Log = Callable[[int, dict[str, float]], Any]


def fit(
  step: Step,
  state: State,
  batches: Iterator[Batch],
  *,
  until: int,
  log: Log,
  hooks: Sequence[Hook],
  on_signal: Callable[[int, State], None],
) -> State:
  """Return the state at step `until`, or earlier where a hook says stop.

  A step's logs are read while the next one runs. A hook sees a state only once all losses up to it
  were found finite; another loss raises a MedtlError. After SIGTERM or SIGINT the current step is
  finished, `on_signal` is called with a finite state, and Terminated is raised. SIGTERM to one of
  several processes stops all of them at the same step.
  """
  now = int(state.step)
  pending: tuple[int, Logs] | None = None
  with _signals() as stopping:
    while now < until:
      batch = next(batches)
      state, logs = step(state, batch)
      _read(pending, log)
      now += 1
      pending = (now, logs)
      due = [hook for hook in hooks if _is_due(hook, now)]
      stop_signal = stopping(now)
      if due or stop_signal or now == until:
        _read(pending, log)
        pending = None
      answers = [hook(now, state) for hook in due]
      if stop_signal:
        on_signal(now, state)
        name = signal.Signals(stop_signal).name
        raise Terminated(f'stopped by {name} at step {now}', stop_signal)
      if any(answers):
        break
  return state


def _is_due(hook: Hook, step: int) -> bool:
  """Return whether a hook wants this step: one without a method `due` wants all of them."""
  due = getattr(hook, 'due', None)
  return due is None or due(step)


def _read(pending: tuple[int, Logs] | None, log: Log) -> None:
  """Log the numbers of a step, if one is pending; a loss that is not finite is a MedtlError."""
  if pending is None:
    return
  step, logs = pending
  values = {name: float(value) for name, value in jax.device_get(logs).items()}
  if not np.isfinite(values['loss']):
    raise MedtlError(
      f'the loss is {values["loss"]} at step {step}; the last good step is {step - 1}. Lower lr, '
      'set clip=1.0, or look for extreme values in the images; started again, the run continues '
      'from its last checkpoint'
    )
  log(step, values)


class every:
  """A hook called when `period` divides the step, and at `last`."""

  def __init__(self, period: int, hook: Hook, last: int):
    self.period = period
    self.hook = hook
    self.last = last

  def due(self, step: int) -> bool:
    """Return whether the hook wants this step."""
    return step % self.period == 0 or step == self.last

  def __call__(self, step: int, state: State) -> bool:
    return self.hook(step, state)


class _signals:
  """While open, notes SIGTERM and SIGINT; a second signal goes to the handler that was there.

  Gives step -> the number of the signal for which the loop stops at this step, 0 where it goes on.
  """

  def __enter__(self) -> Callable[[int], int]:
    self.arrived = 0
    self.old: dict[int, Any] = {}
    if multihost.host_share()[1] > 1:  # JAX notes SIGTERM, and the processes agree on a step
      return lambda step: signal.SIGTERM if multihost.stop_requested(step) else 0
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self.old[number] = signal.signal(number, self.receive)
    return lambda step: self.arrived

  def receive(self, number: int, frame: Any) -> None:
    if self.arrived:
      signal.signal(number, self.old[number])
      signal.raise_signal(number)
    self.arrived = number

  def __exit__(self, *_: Any) -> None:
    for number, handler in self.old.items():
      signal.signal(number, handler)
