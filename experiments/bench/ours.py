"""medtl's side: the very programs that a run uses."""

import time

import jax

from configs import base
from experiments.bench import cases
from medtl.run import assemble, frozen_features
from medtl.runtime import cpu


def made(case):
  """Return the parts of a run that does a case's work on the case's pictures, from random weights."""
  frozen, cached = cases.WORKS[case.work]
  ops = f'resize({case.size}, {case.size})'
  return assemble.parts(
    assemble.changed(
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
  parts = made(case)
  return parts.config, parts.program(0), parts.start()


def prepare(case):
  """Return (a function that does the work once and waits for it, facts) of a case."""
  cpu.settle()
  parts = made(case)
  first = frozen_features.first(parts, 0)
  sides = frozen_features.boundary(parts, 0, parts.params, parts.extra)
  batch = next(assemble.endless(sides['train'], parts.config))
  begin = time.perf_counter()
  facts = {
    'frozen': parts.phases[0].depth,
    'from': first,
    'why': frozen_features.choose(parts, 0).why,
    'flops': parts.flops(0),
  }
  if case.work == 'forward':
    params, extra = jax.tree.map(jax.numpy.asarray, (parts.params, parts.extra))
    program = jax.jit(parts.task(0).measure).lower(params, extra, batch).compile()
    work = lambda: jax.block_until_ready(program(params, extra, batch))
  else:
    program, state = parts.program(0, first), parts.start()

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
