"""medtl's side: the very programs that a run uses."""

import functools
import time

import jax

from configs import base
from experiments.bench import cases
from medtl.run import assemble, frozen_features, run_data
from medtl.runtime import cpu


def made(case):
  """Return the context of a run that does a case's work on the case's pictures, from random weights."""
  frozen, cached = cases.WORKS[case.work]
  ops = f'resize({case.size}, {case.size})'
  return assemble.run_context(
    assemble.with_changes(
      base.get_config(),
      (
        (
          'data',
          dict(
            name='folder.load',
            root=case.folder,
            channels=3,
            ops=ops,
            split=dict(by='image', folds=5, fold=0, seed=0),
          ),
        ),
        ('model', dict(name=cases.MODELS[case.model][0], weights='')),
        ('mean', (0.5,)),
        ('std', (0.5,)),
        ('batch', case.batch),
        ('phases', ((f'depth({float(frozen)})' if frozen else 'none', '100 epochs'),)),
        ('dtype', case.dtype),
        ('cache', 'auto' if cached else 'off'),
      ),
    )
  )


def full(case):
  """Return (config, compiled update, first state) of a case."""
  context = made(case)
  return context.config, context.program(0), context.start()


def prepare(case):
  """Return (a function that does the work once and waits for it, facts) of a case."""
  cpu.settle()
  context = made(case)
  start_child = frozen_features.start_child(context, 0)
  sides = frozen_features.boundary(context, 0, context.params, context.extra)
  batch = next(run_data.train_batches(sides['train'], context.config))
  begin = time.perf_counter()
  facts = {
    'frozen': context.phases[0].depth,
    'from': start_child,
    'why': frozen_features.choose(context, 0).why,
    'flops': context.flops(0),
  }
  if case.work == 'forward':
    params, extra = jax.tree.map(jax.numpy.asarray, (context.params, context.extra))
    program = (
      jax.jit(functools.partial(context.task.measure, context.forward(0)))
      .lower(params, extra, batch)
      .compile()
    )
    work = lambda: jax.block_until_ready(program(params, extra, batch))
  else:
    program, state = context.program(0, start_child), context.start()

    def work():
      nonlocal state
      state, _ = jax.block_until_ready(program(state, batch))

  return work, {
    **facts,
    'compile': time.perf_counter() - begin,
    'device': jax.devices()[0].device_kind,
    'version': f'jax {jax.__version__}',
  }


def peak():
  """Return the accelerator's peak memory in bytes, None on a CPU."""
  return (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
