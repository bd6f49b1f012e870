"""What would move, and what it costs: the first thing that a run prints."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from rich.table import Table

from medtl.core import pytrees
from medtl.run import assemble, batch_size, frozen_features
from medtl.run.context import RunContext
from medtl.training import batch_statistics, parameter_groups, step, windows


def phase_rows(context: RunContext) -> list[dict[str, Any]]:
  """Return a dict for each phase: freeze, steps, live and frozen parameters, optimizer bytes, FLOPs of a step and of the full fine-tune's.

  FLOPs are XLA's count of the program as lowered, before its optimisation: enough to compare phases, at the price of tracing only.
  """
  everything = [
    index
    for index, phase in enumerate(context.phases)
    if all(jax.tree.leaves(phase.partition.live))
  ]
  flops_full = (
    context.flops(everything[0]) if everything else assemble.as_full_fine_tune(context).flops(0)
  )
  found = []
  for index, phase in enumerate(context.phases):
    state = context.shapes(index)
    live = pytrees.count_parameters(step.select_live(state.params, phase.partition.live))
    found.append(
      {
        'freeze': phase.freeze,
        'steps': phase.steps,
        'depth': phase.depth,
        'live': live,
        'frozen': pytrees.count_parameters(state.params) - live,
        'optimizer_bytes': pytrees.nbytes(state.opt),
        'flops': context.flops(index),
        'flops_full': flops_full,
        'rules': parameter_groups.summary(phase.partition, state.params),
      }
    )
  return found


def print_phases(found: list[dict[str, Any]], write: Callable[[Any], Any]) -> None:
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


def print_plan(context: RunContext, write: Callable[[Any], Any], begin: int = 0) -> None:
  """Print what would move and what it costs, from phase `begin` on."""
  found = phase_rows(context)
  print_phases(found, write)
  cost = estimate_cost(context, found, write, begin)
  whole = cost.compiling + cost.running
  write(
    f'  predicted: {whole:.0f} s, {cost.compiling:.0f} s of it to compile, reading and writing apart'
  )


def estimate_cost(
  context: RunContext, found: list[dict[str, Any]], write: Callable[[Any], Any], begin: int = 0
) -> Cost:
  """Return the cost of the phases from `begin` on, and print it phase by phase.

  Each phase's own compiled step and the children to be cached are timed on a batch of zeros; evaluations are predicted from their FLOPs.
  """
  compiling, running, most = 0.0, 0.0, 0
  size = {side: dataset.size / context.config.batch for side, dataset in context.data.items()}
  for index in range(begin, len(context.phases)):
    start_child, steps = frozen_features.start_child(context, index), context.phases[index].steps
    once, one, held = _step(context, index, start_child)
    speed, children = context.flops(index, start_child) / one, 0.0
    if start_child and not frozen_features.known_choice(context, index):
      speed, seconds = _children(context, start_child)
      children = seconds * sum(size.values()) * (1 + frozen_features.choose(context, index).views)
    moving = batch_statistics.training(
      context.extra, context.phases[index].partition.live, context.config.norms
    )
    seen = size['val'] + (
      min(context.config.norm_images / context.config.batch, size['train']) if moving else 0
    )
    looks = (
      math.ceil(steps / context.period) * seen * _evaluation(context, index, start_child) / speed
    )
    seconds = children + one * steps + looks
    compiling, running, most = compiling + once, running + seconds, max(most, held)
    write(
      f'  phase {index + 1}: {one:.3f} s a step'
      + (f' from cached activations ({children:.0f} s once)' if start_child else '')
      + f', {held / 1e6:.0f} MB, {seconds:.0f} s'
    )
  return Cost(compiling, running, most)


def _step(context: RunContext, index: int, start_child: int) -> tuple[float, float, int]:
  """Return (seconds to compile, seconds a step, bytes) of a phase's update, which the run then uses."""
  batch, begin = context.example(start_child), time.perf_counter()
  program = context.program(index, start_child)
  once = time.perf_counter() - begin
  with batch_size.explain_out_of_memory(context, index, start_child):
    state, _ = jax.block_until_ready(
      program(context.start(index), batch)
    )  # the first one also pays for its memory
    begin = time.perf_counter()
    jax.block_until_ready(program(state, batch))
    seconds = time.perf_counter() - begin
  return once, seconds, context.memory(index, start_child)


def _children(context: RunContext, start_child: int) -> tuple[float, float]:
  """Return (FLOPs a second, seconds a batch) of the forward pass of the children below `first`."""
  run, arguments = (
    context.features(0, start_child),
    ({'params': context.params, **context.extra}, context.train_example().x),
  )
  jax.block_until_ready(run(*arguments))
  begin = time.perf_counter()
  jax.block_until_ready(run(*arguments))
  seconds = time.perf_counter() - begin
  return step.flops(run.lower(*arguments)) / seconds, seconds


def _evaluation(context: RunContext, index: int, start_child: int) -> float:
  """Return the FLOPs of evaluating as many cases as a batch holds, in a phase from `start_child` on."""
  state = context.shapes(index)
  batch = context.train_example(start_child)
  train = context.data['train']
  if train.draw is None:
    measure = context.measure(start_child)
    return step.flops(measure.lower(state.params, state.extra, batch))
  forward = jax.jit(context.forward(index, start_child).eval)
  of_windows = step.flops(forward.lower(state.params, state.extra, batch.x))
  case = train.fetch(0).x.shape[:-1]
  return of_windows * windows.count(case, batch.x.shape[1:-1])
