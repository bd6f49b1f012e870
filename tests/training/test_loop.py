"""The loop stops where it should, and reads every log once and in order.

After a bad loss it gives its state to no hook.
"""

import itertools
import os
import signal
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import MedtlError, State, Terminated
from medtl.training import loop


def state(step=0):
  return State(jnp.asarray(step), {}, {}, {}, None)


def count(bad=-1):
  def move(now, batch):
    value = jnp.where(now.step == bad, jnp.nan, now.step.astype(float))
    return now._replace(step=now.step + 1), {'loss': value}

  return move


def fit(until, *, begin=0, hooks=(), step=None, on_signal=lambda step, state: None):
  seen = []
  final = loop.fit(
    step or count(),
    state(begin),
    itertools.count(),
    until=until,
    log=lambda n, values: seen.append((n, values['loss'])),
    hooks=list(hooks),
    on_signal=on_signal,
  )
  return int(final.step), seen


def test_every_log_is_read_once_and_in_order():
  assert fit(5) == (5, [(n + 1, float(n)) for n in range(5)])
  assert fit(5, begin=3) == (5, [(4, 3.0), (5, 4.0)])
  assert fit(3, begin=3) == (3, [])


def test_hooks_are_called_at_their_period_and_at_the_end():
  calls = []
  fit(7, hooks=[loop.every(3, lambda n, state: calls.append((n, int(state.step))), 7)])
  assert calls == [(3, 3), (6, 6), (7, 7)]


def test_a_hook_can_stop_and_the_others_still_run():
  calls = []
  hooks = [
    loop.every(2, lambda n, state: n == 4, 9),
    loop.every(4, lambda n, state: calls.append(n), 9),
  ]
  assert fit(9, hooks=hooks)[0] == 4 and calls == [4]


def test_a_loss_that_is_not_finite_stops_before_any_hook_sees_the_state():
  calls = []
  with pytest.raises(MedtlError, match='loss is nan at step 4; the last good step is 3'):
    fit(9, step=count(bad=3), hooks=[loop.every(4, lambda n, state: calls.append(n), 9)])
  assert calls == []


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_after_its_hooks_and_keeps_the_state(number):
  kept, calls, before = (
    [],
    [],
    signal.getsignal(number),
  )  # a shell may have started us with SIGINT ignored

  def send(now, batch):
    if int(now.step) == 3:
      os.kill(os.getpid(), number)
    return count()(now, batch)

  with pytest.raises(Terminated, match=f'stopped by {number.name} at step 4') as caught:
    fit(
      9,
      step=send,
      hooks=[loop.every(4, lambda n, state: calls.append(n), 9)],
      on_signal=lambda n, state: kept.append((n, int(state.step))),
    )
  assert kept == [(4, 4)] and calls == [4] and caught.value.number == number
  assert signal.getsignal(number) == before


def test_a_second_signal_does_what_it_did_before():
  def harsh(number, frame):
    raise OverflowError

  before = {number: signal.signal(number, harsh) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    for first, second in ((signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGINT)):

      def send(now, batch, numbers=(first, second)):
        for number in numbers:
          os.kill(os.getpid(), number)
        return count()(now, batch)

      with pytest.raises(OverflowError):
        fit(9, step=send)
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def test_numpy_is_enough_for_the_loss():
  step = lambda now, batch: (now._replace(step=now.step + 1), {'loss': np.float32(1)})
  assert fit(2, step=step)[0] == 2


def test_a_period_is_due_at_its_multiples_and_at_the_last_step():
  hook = loop.every(4, lambda n, state: False, 10)
  assert [n for n in range(1, 12) if hook.due(n)] == [4, 8, 10]


def test_a_hook_without_a_period_is_called_at_every_step_and_may_stop_at_once():
  calls = []
  assert fit(5, hooks=[lambda n, state: bool(calls.append(n))])[0] == 5 and calls == [1, 2, 3, 4, 5]
  assert fit(5, hooks=[lambda n, state: True]) == (1, [(1, 0.0)])
  assert fit(5, hooks=[lambda n, state: n == 2, lambda n, state: False])[0] == 2


def test_a_hook_sees_the_logs_of_its_step_already_read():
  seen, at_hook = [], []
  loop.fit(
    count(),
    state(),
    itertools.count(),
    until=4,
    log=lambda n, values: seen.append(n),
    hooks=[loop.every(2, lambda n, state: bool(at_hook.append(list(seen))), 4)],
    on_signal=lambda step, state: None,
  )
  assert at_hook == [[1, 2], [1, 2, 3, 4]]


def test_logs_are_read_one_step_late_so_that_the_next_step_runs_meanwhile():
  order = []

  def move(now, batch):
    order.append('step')
    return count()(now, batch)

  loop.fit(
    move,
    state(),
    itertools.count(),
    until=3,
    log=lambda n, values: order.append(n),
    hooks=[],
    on_signal=lambda step, state: None,
  )
  assert order == ['step', 'step', 1, 'step', 2, 3]


@pytest.mark.parametrize('bad', [0, 2])
def test_the_step_of_a_loss_that_is_not_finite_is_named(bad):
  words = f'loss is nan at step {bad + 1}; the last good step is {bad}. Lower lr, set clip=1.0'
  with pytest.raises(MedtlError, match=words):
    fit(3, step=count(bad=bad))


def test_as_many_batches_are_drawn_as_steps_are_taken():
  batches = itertools.count()
  loop.fit(
    count(),
    state(2),
    batches,
    until=5,
    log=lambda n, values: None,
    hooks=[],
    on_signal=lambda step, state: None,
  )
  assert next(batches) == 3


def test_a_thread_of_its_own_leaves_signals_alone():
  """Only the main thread may listen to signals; elsewhere the loop runs without."""
  found = []
  before = signal.getsignal(signal.SIGTERM)
  thread = threading.Thread(target=lambda: found.append(fit(3)[0]))
  thread.start()
  thread.join()
  assert found == [3] and signal.getsignal(signal.SIGTERM) == before


def test_processes_stop_together_at_the_step_that_they_agree_on(monkeypatch):
  monkeypatch.setattr(loop.multihost, 'host_share', lambda: (0, 2))
  monkeypatch.setattr(loop.multihost, 'stop_requested', lambda step: step == 3)
  kept = []
  with pytest.raises(loop.Terminated):
    fit(9, on_signal=lambda step, state: kept.append(step))
  assert kept == [3]
