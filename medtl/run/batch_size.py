"""Which batch fits, by what XLA says that a compiled step needs rather than by a crash; and what would fit where one did not."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

from medtl.core.types import MedtlError
from medtl.run import assemble, frozen_features
from medtl.run.context import RunContext
from medtl.runtime import cpu, multihost
from medtl.training import parameter_groups

SPARE = 0.1  # of the memory that a batch found here leaves free: allocators lose some in fragments
STEPS = (
  8  # that an epoch keeps: of a few hundred pictures more would fit than a gradient step gains from
)


def room() -> float:
  """Return the bytes that a device can give to a step; on a CPU its devices share what the host has."""
  device = jax.local_devices()[0]
  return (device.memory_stats() or {}).get('bytes_limit') or cpu.memory() / jax.local_device_count()


def largest_batch(context: RunContext, write: Callable[[str], Any] = lambda _: None) -> int:
  """Return the largest batch, of powers of two, whose steps fit in every phase and leave an epoch STEPS steps; say why.

  Two small ones are compiled, the line through what they need is followed, and what it promises is compiled again.
  """
  unit = math.lcm(context.mesh.size, context.config.accumulate)
  most = unit * 2 ** int(math.log2(max(1, context.data['train'].size / STEPS / unit)))
  small, there = min(most, 4 * unit), (1 - SPARE) * room()
  need = {batch: bytes_needed(_with(context, batch=batch)) for batch in (unit, small)}
  slope = max(1.0, (need[small] - need[unit]) / max(1, small - unit))
  reach = (there - need[unit]) / slope + unit
  batch = multihost.broadcast_from_main(
    [max(unit, min(most, unit * 2 ** int(math.log2(max(1.0, reach / unit)))))]
  )[0]
  while not multihost.all_processes(
    [(bytes_ := bytes_needed(_with(context, batch=batch))) <= there]
  )[0]:
    if batch == unit:
      raise MedtlError(
        f'not even a batch of {unit} fits: {_gb(bytes_)} needed, {_gb(there)} there; '
        + '; '.join(_others(context, 0))
      )
    batch //= 2
  why = (
    f'an epoch of {context.data["train"].size} examples keeps {STEPS} steps'
    if batch == most
    else f'{2 * batch} would not fit'
  )
  write(f'batch {batch}: {_gb(bytes_)} of {_gb(room())}; {why}')
  return batch


def bytes_needed(context: RunContext) -> int:
  """Return the bytes on a device of the hungriest phase's step."""
  return max(
    context.memory(index, frozen_features.start_child(context, index))
    for index in range(len(context.phases))
  )


@contextlib.contextmanager
def explain_out_of_memory(context: RunContext, index: int, start_child: int) -> Iterator[None]:
  """Within, the steps of a phase are run; where they need more memory than there is, the error says what would fit."""
  if context.memory(index, start_child) > room():
    raise MedtlError(advice(context, index, start_child))
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise MedtlError(advice(context, index, start_child)) from error


def advice(context: RunContext, index: int, start_child: int) -> str:
  """Return in words what a step lacks, and the largest batch, the least accumulation and the least freezing that would fit."""
  found = _others(context, index)
  return (
    f'phase {index + 1} needs {_gb(context.memory(index, start_child))} for a step of {context.config.batch} examples, and the device has '
    f'{_gb(room())}. '
    + (
      'What fits: ' + '; '.join(found)
      if found
      else 'Neither less batch nor freezing makes it fit: take a '
      'smaller model, or spread it over devices (config.mesh.fsdp)'
    )
  )


def _others(context: RunContext, index: int) -> list[str]:
  """Return the changes to a phase that would make it fit, each in words."""
  config, unit = context.config, context.mesh.size
  one = _with(context, phases=(config.phases[index],))
  halves = [
    batch for batch in _halves(config.batch) if batch % math.lcm(unit, config.accumulate) == 0
  ]
  cuts = [config.batch // part for part in halves if part % unit == 0 and config.batch % part == 0]
  depths = range(one.phases[0].depth + 1, len(parameter_groups.children(context.params)) + 1)
  duration = config.phases[index][1]
  batch = next((batch for batch in halves if _fits(_with(one, batch=batch))), None)
  cut = next(
    (cut for cut in cuts if cut > config.accumulate and _fits(_with(one, accumulate=cut))), None
  )
  depth = next(
    (depth for depth in depths if _fits(_with(one, phases=((f'depth({depth})', duration),)))), None
  )
  return [
    words
    for words, value in (
      (f'--config.batch={batch}', batch),
      (f'--config.accumulate={cut} (the same step in {cut} context)', cut),
      (f"freezing 'depth({depth})' or more in config.phases", depth),
    )
    if value
  ]


def _halves(batch: int) -> Iterator[int]:
  while batch > 1:
    batch = batch // 2
    yield batch


def _with(context: RunContext, **changes: Any) -> RunContext:
  """Return the context with another config; they share compiled programs."""
  return assemble.run_context(
    assemble.with_changes(context.config, tuple(changes.items())), context.run, like=context
  )


def _fits(context: RunContext) -> bool:
  try:
    return multihost.all_processes([bytes_needed(context) <= (1 - SPARE) * room()])[0]
  except jax.errors.JaxRuntimeError:  # some accelerators find out while they compile
    return False


def _gb(size: float) -> str:
  return f'{size / 1e9:.2f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'
