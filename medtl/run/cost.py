"""What would move, and what it costs: the first thing that a run prints."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from rich.table import Table

from medtl.core import pytrees
from medtl.run import assemble, batch_size, frozen_features
from medtl.run.context import Parts
from medtl.training import batch_statistics, parameter_groups, step


def rows(parts: Parts) -> list[dict[str, Any]]:
  """Return a dict for each phase: freeze, steps, live and frozen parameters, optimizer bytes, FLOPs of a step and of the full fine-tune's.

  FLOPs are XLA's count of the program as lowered, before its optimisation: enough to compare phases, at the price of tracing only.
  """
  everything = [
    index for index, phase in enumerate(parts.phases) if all(jax.tree.leaves(phase.parts.live))
  ]
  flops_full = parts.flops(everything[0]) if everything else assemble.full(parts).flops(0)
  found = []
  for index, phase in enumerate(parts.phases):
    state = parts.shapes(index)
    live = pytrees.size(step.pick(state.params, phase.parts.live))
    found.append(
      {
        'freeze': phase.freeze,
        'steps': phase.steps,
        'depth': phase.depth,
        'live': live,
        'frozen': pytrees.size(state.params) - live,
        'optimizer_bytes': pytrees.nbytes(state.opt),
        'flops': parts.flops(index),
        'flops_full': flops_full,
        'rules': parameter_groups.summary(phase.parts, state.params),
      }
    )
  return found


def show(found: list[dict[str, Any]], write: Callable[[Any], Any]) -> None:
  """Print the phases and their rules."""
  for index, row in enumerate(found):
    title = f'phase {index + 1}: freeze {row["freeze"]}, {row["steps"]} steps'
    table = Table(title=title, title_justify='left', box=None, padding=(0, 2, 0, 0))
    for name in ('rule', 'learning rate', 'weight decay', 'parameters'):
      table.add_column(name, justify='left' if name == 'rule' else 'right', overflow='fold')
    for rule in row['rules']:
      rate = 'frozen' if rule['lr'] is None else f'× {rule["lr"]:.3g}'
      table.add_row(
        rule['pattern'],
        rate,
        '' if rule['decay'] is None else f'{rule["decay"]:g}',
        f'{rule["parameters"]:,}',
      )
    write(table)
    write(
      f'  live {row["live"]:,} of {row["live"] + row["frozen"]:,} parameters; {row["flops"] / 1e9:.2f} GFLOP a step, '
      f'{row["flops"] / row["flops_full"]:.0%} of the full fine-tune; optimizer {row["optimizer_bytes"] / 1e6:.1f} MB'
    )


class Cost(NamedTuple):
  """What a run is predicted to cost."""

  compiling: float  # seconds, once for all runs that are alike
  running: float  # seconds: steps, evaluations, activations; not reading, writing and the report
  memory: int  # bytes, of the hungriest phase


def tell(parts: Parts, write: Callable[[Any], Any], begin: int = 0) -> None:
  """Print what would move and what it costs, from phase `begin` on."""
  found = rows(parts)
  show(found, write)
  cost = predict(parts, found, write, begin)
  whole = cost.compiling + cost.running
  write(
    f'  predicted: {whole:.0f} s, {cost.compiling:.0f} s of it to compile, reading and writing apart'
  )


def predict(
  parts: Parts, found: list[dict[str, Any]], write: Callable[[Any], Any], begin: int = 0
) -> Cost:
  """Return the cost of the phases from `begin` on, and print it phase by phase.

  Each phase's own compiled step and the children to be cached are timed on a batch of zeros; evaluations are predicted from their FLOPs.
  """
  compiling, running, most = 0.0, 0.0, 0
  size = {side: dataset.size / parts.config.batch for side, dataset in parts.data.items()}
  for index in range(begin, len(parts.phases)):
    first, steps = frozen_features.first(parts, index), parts.phases[index].steps
    once, one, held = _step(parts, index, first)
    speed, children = parts.flops(index, first) / one, 0.0
    if first and not frozen_features.known(parts, index):
      speed, seconds = _children(parts, first)
      children = seconds * sum(size.values()) * (1 + frozen_features.choose(parts, index).views)
    moving = batch_statistics.training(
      parts.extra, parts.phases[index].parts.live, parts.config.norms
    )
    seen = size['val'] + (
      min(parts.config.norm_images / parts.config.batch, size['train']) if moving else 0
    )
    looks = math.ceil(steps / parts.period) * seen * _evaluation(parts, index, first) / speed
    seconds = children + one * steps + looks
    compiling, running, most = compiling + once, running + seconds, max(most, held)
    write(
      f'  phase {index + 1}: {one:.3f} s a step'
      + (f' from cached activations ({children:.0f} s once)' if first else '')
      + f', {held / 1e6:.0f} MB, {seconds:.0f} s'
    )
  return Cost(compiling, running, most)


def _step(parts: Parts, index: int, first: int) -> tuple[float, float, int]:
  """Return (seconds to compile, seconds a step, bytes) of a phase's update, which the run then uses."""
  batch, begin = parts.example(first), time.perf_counter()
  program = parts.program(index, first)
  once = time.perf_counter() - begin
  with batch_size.enough(parts, index, first):
    state, _ = jax.block_until_ready(
      program(parts.start(index), batch)
    )  # the first one also pays for its memory
    begin = time.perf_counter()
    jax.block_until_ready(program(state, batch))
    seconds = time.perf_counter() - begin
  return once, seconds, parts.memory(index, first)


def _children(parts: Parts, first: int) -> tuple[float, float]:
  """Return (FLOPs a second, seconds a batch) of the forward pass of the children below `first`."""
  run, arguments = (
    parts.features(0, first),
    ({'params': parts.params, **parts.extra}, parts.example().x),
  )
  jax.block_until_ready(run(*arguments))
  begin = time.perf_counter()
  jax.block_until_ready(run(*arguments))
  seconds = time.perf_counter() - begin
  return step.flops(run.lower(*arguments)) / seconds, seconds


def _evaluation(parts: Parts, index: int, first: int) -> float:
  """Return the FLOPs of an evaluation's batch in a phase that starts at child `first`."""
  state = parts.shapes(index)
  return step.flops(parts.measure(first).lower(state.params, state.extra, parts.example(first)))
