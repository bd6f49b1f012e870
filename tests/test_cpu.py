"""A process keeps the memory that it has had, and computes in the thread that can."""

import subprocess
import sys

import pytest

COUNT = """
import resource, sys
from medtl import cpu
cpu.keep_memory()
import jax, jax.numpy as jnp
if sys.argv[1] == 'settled':
  cpu.settle()
work = jax.jit(lambda x: jnp.sort(jnp.arange(10_000_000) * x)[3])
for _ in range(3):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  work(2).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc alone')
def test_memory_that_a_step_had_is_not_cleared_again():
  """Pages that the system hands out, in the third run of a program that needs 80 MB: none, if it runs where they could be kept."""
  faults = {word: int(subprocess.run([sys.executable, '-c', COUNT, word], capture_output=True, text=True, check=True).stdout)
            for word in ('settled', 'elsewhere')}
  assert faults['settled'] < 1000 < faults['elsewhere'], faults
