"""Which batch fits, and what would fit where one did not.

What a step needs is what XLA says of the compiled step: nothing has to crash.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from medtl.core.types import MedtlError
from medtl.run import assemble, frozen_features
from medtl.run.context import RunContext
from medtl.runtime import cpu, multihost
from medtl.training import parameter_groups

SPARE = 0.1  # of the memory that a batch found here leaves free: allocators lose some in fragments
# Steps that an epoch keeps: of a few hundred pictures more would fit than a gradient step gains
# from.
STEPS = 8


def room() -> float:
  """Return the bytes that a device can give to a step; devices of a CPU share what the host has."""
  statistics = jax.local_devices()[0].memory_stats() or {}
  return statistics.get('bytes_limit') or cpu.memory() / jax.local_device_count()


def largest_batch(context: RunContext, write: Callable[[str], Any] = lambda _: None) -> int:
  """Return the largest batch, of powers of two, whose steps fit in every phase; say why.

  An epoch keeps STEPS steps. Two small batches are compiled, the line through what they need is
  followed, and what it promises is compiled again.
  """
  size = context.data['train'].size
  unit = math.lcm(context.mesh.size, context.config.accumulate)
  most = _power_of_two(unit, size / STEPS)
  available = (1 - SPARE) * room()
  reach = _promised(context, unit, min(most, 4 * unit), available)
  batch = max(unit, min(most, _power_of_two(unit, reach)))
  batch = multihost.broadcast_from_main([batch])[0]
  while True:
    needed = bytes_needed(_with(context, batch=batch))
    if multihost.all_processes([needed <= available])[0]:
      break
    if batch == unit:
      others = '; '.join(_others(context, 0))
      raise MedtlError(
        f'not even a batch of {unit} fits: {_gb(needed)} needed, {_gb(available)} there; {others}'
      )
    batch //= 2
  why = f'{2 * batch} would not fit'
  if batch == most:
    why = f'an epoch of {size} examples keeps {STEPS} steps'
  write(f'batch {batch}: {_gb(needed)} of {_gb(room())}; {why}')
  return batch


def _power_of_two(unit: int, most: float) -> int:
  """Return the largest unit · 2ⁿ that is no larger than `most`, and at least `unit`."""
  return unit * 2 ** int(math.log2(max(1.0, most / unit)))


def _promised(context: RunContext, unit: int, small: int, available: float) -> float:
  """Return the batch that fits if bytes grow as they do from a batch `unit` to a `small` one."""
  least = bytes_needed(_with(context, batch=unit))
  more = bytes_needed(_with(context, batch=small))
  slope = max(1.0, (more - least) / max(1, small - unit))
  return (available - least) / slope + unit


def bytes_needed(context: RunContext) -> int:
  """Return the bytes on a device of the hungriest phase's step."""
  most = 0
  for index in range(len(context.phases)):
    start_child = frozen_features.start_child(context, index)
    most = max(most, context.memory(index, start_child))
  return most


@contextlib.contextmanager
def explain_out_of_memory(context: RunContext, index: int, start_child: int) -> Iterator[None]:
  """Within, the steps of a phase are run; an error on memory says what would fit."""
  if context.memory(index, start_child) > room():
    raise MedtlError(advice(context, index, start_child))
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise MedtlError(advice(context, index, start_child)) from error


def advice(context: RunContext, index: int, start_child: int) -> str:
  """Return in words what a step lacks, and what would fit.

  That is the largest batch, the least accumulation and the least freezing.
  """
  others = _others(context, index)
  fits = (
    'Neither less batch nor freezing makes it fit: take a smaller model, or spread it over devices '
    '(config.mesh.fsdp)'
  )
  if others:
    fits = f'What fits: {"; ".join(others)}'
  needed = _gb(context.memory(index, start_child))
  batch = context.config.batch
  return (
    f'phase {index + 1} needs {needed} for a step of {batch} examples, and the device has '
    f'{_gb(room())}. {fits}'
  )


def _others(context: RunContext, index: int) -> list[str]:
  """Return the changes to a phase that would make it fit, each in words."""
  config = context.config
  devices = context.mesh.size
  unit = math.lcm(devices, config.accumulate)
  alone = _with(context, phases=(config.phases[index],))
  others = []
  batches = [batch for batch in _halves(config.batch) if batch % unit == 0]
  batch = _first_that_fits(batches, lambda batch: _with(alone, batch=batch))
  if batch:
    others.append(f'--config.batch={batch}')
  parts = [part for part in batches if part % devices == 0 and config.batch % part == 0]
  counts = [config.batch // part for part in parts if config.batch // part > config.accumulate]
  count = _first_that_fits(counts, lambda count: _with(alone, accumulate=count))
  if count:
    others.append(f'--config.accumulate={count} (the same step in {count} parts)')
  _, duration = config.phases[index]
  children = len(parameter_groups.children(context.params))
  depths = range(alone.phases[0].depth + 1, children + 1)
  frozen = lambda depth: _with(alone, phases=((f'depth({depth})', duration),))
  depth = _first_that_fits(depths, frozen)
  if depth:
    others.append(f"freezing 'depth({depth})' or more in config.phases")
  return others


def _first_that_fits(values: Iterable[int], changed: Callable[[int], RunContext]) -> int | None:
  """Return the first value whose context fits, None where none does."""
  return next((value for value in values if _fits(changed(value))), None)


def _halves(batch: int) -> Iterator[int]:
  while batch > 1:
    batch = batch // 2
    yield batch


def _with(context: RunContext, **changes: Any) -> RunContext:
  """Return the context with another config; they share compiled programs."""
  config = assemble.with_changes(context.config, tuple(changes.items()))
  return assemble.run_context(config, context.run, like=context)


def _fits(context: RunContext) -> bool:
  try:
    return multihost.all_processes([bytes_needed(context) <= (1 - SPARE) * room()])[0]
  except jax.errors.JaxRuntimeError:  # some accelerators find out while they compile
    return False


def _gb(size: float) -> str:
  return f'{size / 1e9:.2f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'
