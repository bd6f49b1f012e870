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
  """Return a dict for each phase.

  It tells freeze, steps, live and frozen parameters, optimizer bytes, FLOPs of a step and of the
  full fine-tune's. FLOPs are XLA's count of the program as lowered, before its optimisation: enough
  to compare phases, at the price of tracing only.
  """
  flops_full = _flops_of_full_fine_tune(context)
  rows = []
  for index, phase in enumerate(context.phases):
    state = context.shapes(index)
    live = pytrees.count_parameters(step.select_live(state.params, phase.partition.live))
    row: dict[str, Any] = {'freeze': phase.freeze, 'steps': phase.steps, 'depth': phase.depth}
    row['live'] = live
    row['frozen'] = pytrees.count_parameters(state.params) - live
    row['optimizer_bytes'] = pytrees.nbytes(state.opt)
    row['flops'] = context.flops(index)
    row['flops_full'] = flops_full
    row['rules'] = parameter_groups.summary(phase.partition, state.params)
    rows.append(row)
  return rows


def _flops_of_full_fine_tune(context: RunContext) -> float:
  """Return the FLOPs of a step in which everything is live, one of the run's own if it has any."""
  for index, phase in enumerate(context.phases):
    if all(jax.tree.leaves(phase.partition.live)):
      return context.flops(index)
  return assemble.as_full_fine_tune(context).flops(0)


def print_phases(rows: list[dict[str, Any]], write: Callable[[Any], Any]) -> None:
  """Print the phases and their rules."""
  for index, row in enumerate(rows):
    title = f'phase {index + 1}: freeze {row["freeze"]}, {row["steps"]} steps'
    table = Table(title=title, title_justify='left', box=None, padding=(0, 2, 0, 0))
    table.add_column('rule', justify='left', overflow='fold')
    for name in ('learning rate', 'weight decay', 'parameters'):
      table.add_column(name, justify='right', overflow='fold')
    for rule in row['rules']:
      rate = 'frozen' if rule['lr'] is None else f'× {rule["lr"]:.3g}'
      decay = '' if rule['decay'] is None else f'{rule["decay"]:g}'
      table.add_row(rule['pattern'], rate, decay, f'{rule["parameters"]:,}')
    write(table)
    live = row['live']
    share = row['flops'] / row['flops_full']
    write(
      f'  live {live:,} of {live + row["frozen"]:,} parameters; {row["flops"] / 1e9:.2f} GFLOP a '
      f'step, {share:.0%} of the full fine-tune; optimizer {row["optimizer_bytes"] / 1e6:.1f} MB'
    )


class Cost(NamedTuple):
  """What a run is predicted to cost."""

  compiling: float  # seconds, once for all runs that are alike
  running: float  # seconds: steps, evaluations, activations; not reading, writing and the report
  memory: int  # bytes, of the hungriest phase


def print_plan(context: RunContext, write: Callable[[Any], Any], begin: int = 0) -> None:
  """Print what would move and what it costs, from phase `begin` on."""
  rows = phase_rows(context)
  print_phases(rows, write)
  cost = estimate_cost(context, write, begin)
  whole = cost.compiling + cost.running
  write(
    f'  predicted: {whole:.0f} s, {cost.compiling:.0f} s of it to compile, reading and writing '
    'apart'
  )


def estimate_cost(context: RunContext, write: Callable[[Any], Any], begin: int = 0) -> Cost:
  """Return the cost of the phases from `begin` on, and print it phase by phase.

  Each phase's own compiled step and the children to be cached are timed on a batch of zeros;
  evaluations are predicted from their FLOPs.
  """
  total = Cost(0.0, 0.0, 0)
  sides = context.data.values()
  batches = sum(side.size for side in sides) / context.config.batch
  for index in range(begin, len(context.phases)):
    start_child = frozen_features.start_child(context, index)
    steps = context.phases[index].steps
    compiling, seconds, memory = _step(context, index, start_child)
    speed = context.flops(index, start_child) / seconds
    children = 0.0
    if start_child and not frozen_features.known_choice(context, index):
      speed, each = _children(context, start_child)
      views = frozen_features.choose(context, index).views
      children = each * batches * (1 + views)
    evaluations = math.ceil(steps / context.period) * _evaluated_batches(context, index)
    evaluating = evaluations * _evaluation(context, index, start_child) / speed
    running = children + seconds * steps + evaluating
    total = Cost(total.compiling + compiling, total.running + running, max(total.memory, memory))
    cached = f' from cached activations ({children:.0f} s once)' if start_child else ''
    write(
      f'  phase {index + 1}: {seconds:.3f} s a step{cached}, {memory / 1e6:.0f} MB, {running:.0f} s'
    )
  return total


def _evaluated_batches(context: RunContext, index: int) -> float:
  """Return how many batches an evaluation sees in a phase.

  They are those of validation, and those by which norms that train are estimated.
  """
  config = context.config
  live = context.phases[index].partition.live
  batches = context.data['val'].size / config.batch
  if batch_statistics.training(context.extra, live, config.norms):
    images = min(config.norm_images, context.data['train'].size)
    batches += images / config.batch
  return batches


def _step(context: RunContext, index: int, start_child: int) -> tuple[float, float, int]:
  """Return (seconds to compile, seconds a step, bytes) of a phase's update, which the run uses."""
  batch = context.example(start_child)
  begin = time.perf_counter()
  program = context.program(index, start_child)
  compiling = time.perf_counter() - begin
  with batch_size.explain_out_of_memory(context, index, start_child):
    first = program(context.start(index), batch)  # it also pays for its memory
    state, _ = jax.block_until_ready(first)
    begin = time.perf_counter()
    jax.block_until_ready(program(state, batch))
    seconds = time.perf_counter() - begin
  return compiling, seconds, context.memory(index, start_child)


def _children(context: RunContext, start_child: int) -> tuple[float, float]:
  """Return (FLOPs a second, seconds a batch) of the forward pass of the children below a cut."""
  program = context.features(0, start_child)
  variables = {'params': context.params, **context.extra}
  pictures = context.train_example().x
  jax.block_until_ready(program(variables, pictures))
  begin = time.perf_counter()
  jax.block_until_ready(program(variables, pictures))
  seconds = time.perf_counter() - begin
  return step.flops(program.lower(variables, pictures)) / seconds, seconds


def _evaluation(context: RunContext, index: int, start_child: int) -> float:
  """Return the FLOPs of evaluating as many cases as a batch holds, in a phase from a child on."""
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
