"""What a process settles around the import of jax: whether it computes on the CPU, and that it keeps the memory that it has had."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4             # of glibc's mallopt, as in malloc.h


def prepare() -> None:
  """Choose the CPU where no NVIDIA driver and no TPU is (the CUDA build prints a traceback otherwise); before jax is imported."""
  if 'JAX_PLATFORMS' not in os.environ and not any(Path('/dev').glob('accel*')):
    smi = shutil.which('nvidia-smi')
    if not smi or subprocess.run([smi, '-L'], capture_output=True).returncode:
      os.environ['JAX_PLATFORMS'] = 'cpu'
  if os.environ.get('JAX_PLATFORMS') == 'cpu':
    keep_memory()


def keep_memory() -> None:
  """Let glibc keep what it was given by the system: a step's buffers of some GB are wanted again by the next.

  Given back and asked for anew, every page is cleared by the kernel, which took a third of a step's time. Only the main thread's arena can
  keep pieces so large: hence `settle`. Elsewhere than with glibc nothing changes.
  """
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)


def settle() -> None:
  """Run programs of the CPU in the main thread; to be called before the first."""
  import jax
  jax.config.update('jax_cpu_enable_async_dispatch', False)
