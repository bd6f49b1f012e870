"""What a process settles around the import of jax: whether it computes on the CPU, and that it keeps the memory that it has had."""

import contextlib
import ctypes
import os
import shutil
import subprocess
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt, as in malloc.h


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


def memory() -> int:
  """Return the bytes that this process can have: what the host has left beside what it holds already, within its container's limit."""
  page, most = (
    os.sysconf('SC_PAGE_SIZE'),
    [os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')],
  )
  with contextlib.suppress(OSError, StopIteration):
    lines = Path('/proc/meminfo').read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable'))
    most.append(free + int(Path('/proc/self/statm').read_text().split()[1]) * page)
  for name in ('memory.max', 'memory/memory.limit_in_bytes'):  # of cgroups 2 and 1
    with contextlib.suppress(OSError, ValueError):
      most.append(int((Path('/sys/fs/cgroup') / name).read_text()))
  return min(most)


def settle() -> None:
  """Run programs of the CPU in the main thread; to be called before the first."""
  import jax

  jax.config.update('jax_cpu_enable_async_dispatch', False)
