"""What would move, and what it costs: the first thing that a run prints."""

import time
from collections.abc import Callable
from typing import Any

import jax
from rich.table import Table

from medtl import build, partition, step, tree
from medtl.build import Parts


def rows(parts: Parts) -> list[dict[str, Any]]:
  """Return a dict for each phase: freeze, steps, live and frozen parameters, optimizer bytes, FLOPs of a step and of the full fine-tune's.

  FLOPs are XLA's count of the program as lowered, before its optimisation: enough to compare phases, at the price of tracing only.
  """
  batch = parts.example(parts.config.batch)
  full = build.full(parts)
  flops_full = step.flops(full.step(0), jax.eval_shape(full.start), batch)
  found = []
  for index, phase in enumerate(parts.phases):
    state = jax.eval_shape(lambda index=index: parts.start(index))
    live = tree.size(step.pick(state.params, phase.parts.live))
    found.append({'freeze': phase.freeze, 'steps': phase.steps, 'depth': phase.depth, 'live': live,
                  'frozen': tree.size(state.params) - live, 'optimizer_bytes': tree.nbytes(state.opt),
                  'flops': step.flops(parts.step(index), state, batch), 'flops_full': flops_full,
                  'rules': partition.summary(phase.parts, state.params)})
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
      table.add_row(rule['pattern'], rate, '' if rule['decay'] is None else f'{rule["decay"]:g}', f'{rule["parameters"]:,}')
    write(table)
    write(f'  live {row["live"]:,} of {row["live"] + row["frozen"]:,} parameters; {row["flops"] / 1e9:.2f} GFLOP a step, '
          f'{row["flops"] / row["flops_full"]:.0%} of the full fine-tune; optimizer {row["optimizer_bytes"] / 1e6:.1f} MB')


def measured(parts: Parts, write: Callable[[Any], Any]) -> None:
  """Compile each phase's step, run it twice on zeros, and print compile seconds, memory and the predicted time of the phase."""
  batch = parts.example(parts.config.batch)
  total = 0.0
  for index, phase in enumerate(parts.phases):
    begin = time.perf_counter()
    program = parts.step(index).lower(parts.start(index), batch).compile()
    compiled = time.perf_counter() - begin
    memory = program.memory_analysis()
    state, _ = jax.block_until_ready(program(parts.start(index), batch))
    begin = time.perf_counter()
    jax.block_until_ready(program(state, batch))
    one = time.perf_counter() - begin
    total += one * phase.steps + compiled
    write(f'phase {index + 1}: compiled in {compiled:.1f} s; {one:.3f} s a step uncached, {one * phase.steps:.0f} s in all; '
          f'{(memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 1e6:.0f} MB')
  write(f'predicted: {total:.0f} s of training without evaluation; a cached prefix makes it less')
