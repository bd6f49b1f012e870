"""Schedules by hand: the factor on the learning rate at chosen steps of a run of 100."""

import numpy as np
import pytest

from medtl.training import schedules


def steps(duration):
  """Durations of a run of 100 steps: '20%', or a number of steps."""
  count = int(str(duration).rstrip('%'))
  assert count >= 0, 'no duration is negative'
  return count


def factors(schedule, at):
  return [float(schedule(np.int32(step))) for step in at]


@pytest.mark.parametrize('name', ['constant', 'cosine', 'step'])
def test_a_warm_up_rises_evenly_and_its_last_step_is_the_first_at_the_full_rate(name):
  warmed = getattr(schedules, name)(100, steps, warmup='20%')
  assert factors(warmed, [0, 9, 19, 20]) == pytest.approx([1 / 20, 10 / 20, 1, 1], rel=1e-6)
  plain = getattr(schedules, name)(100, steps)
  assert factors(plain, [0]) == pytest.approx([1])


def test_constant_stays():
  assert factors(schedules.constant(100, steps, warmup=2), [2, 50, 99, 500]) == [1, 1, 1, 1]


def test_cosine_falls_by_half_a_cosine_over_what_the_warm_up_leaves():
  schedule = schedules.cosine(100, steps, warmup=20, end=0.2)
  quarter = 0.2 + 0.8 * (1 + np.sqrt(0.5)) / 2
  expected = [1, quarter, 0.6, 0.2, 0.2]
  assert factors(schedule, [20, 40, 60, 100, 500]) == pytest.approx(expected, rel=1e-5)
  assert factors(schedules.cosine(100, steps), [50, 100]) == pytest.approx([0.5, 0], abs=1e-6)


def test_a_run_that_is_all_warm_up_is_no_division_by_0():
  assert factors(schedules.cosine(20, steps, warmup=20), [19, 20, 21]) == pytest.approx([1, 1, 0])
  assert factors(schedules.rising(1, steps), [0, 1]) == pytest.approx([1e-6, 1])


def test_rising_multiplies_by_the_same_number_at_each_step_and_ends_at_1():
  schedule = schedules.rising(5, steps, start=1e-4)
  assert factors(schedule, range(5)) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1], rel=1e-4)
  assert factors(schedule, [50]) == [1]
  assert factors(schedules.rising(5, steps), [0]) == pytest.approx([1e-6])


def test_step_multiplies_by_a_tenth_at_each_boundary():
  by_default = schedules.step(100, steps)
  assert factors(by_default, [0, 49, 50, 74, 75, 99]) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
  thrice = schedules.step(100, steps, at=(10, 20, 30), factor=0.5)
  assert factors(thrice, [9, 10, 20, 30]) == pytest.approx([1, 0.5, 0.25, 0.125])
