"""What a process settles around the import of jax.

Whether it computes on the CPU, and that it keeps the memory that it has been given there.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
from pathlib import Path

# of glibc's mallopt, as in malloc.h
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4


def prepare() -> None:
  """Choose the CPU where there is neither an NVIDIA driver nor a TPU; before jax is imported.

  Without a driver the CUDA build of jax would print a traceback.
  """
  if 'JAX_PLATFORMS' not in os.environ and not any(Path('/dev').glob('accel*')):
    smi = shutil.which('nvidia-smi')
    if not smi or subprocess.run([smi, '-L'], capture_output=True).returncode:
      os.environ['JAX_PLATFORMS'] = 'cpu'
  if os.environ.get('JAX_PLATFORMS') == 'cpu':
    keep_memory()


def keep_memory() -> None:
  """Let glibc keep the memory that the system gave it: the next step wants the same buffers.

  They are some GB. Were they given back and asked for anew, the kernel would clear every page,
  which took a third of a step's time. Only the main thread's arena can keep pieces so large: hence
  `settle`. Where the C library is not glibc nothing changes.
  """
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)


def memory() -> int:
  """Return the bytes that this process can have, within the limit of its container.

  They are what the host has left and what this process holds already.
  """
  page = os.sysconf('SC_PAGE_SIZE')
  bounds = [page * os.sysconf('SC_PHYS_PAGES')]
  with contextlib.suppress(OSError, StopIteration):
    lines = Path('/proc/meminfo').read_text().splitlines()
    available = next(line for line in lines if line.startswith('MemAvailable'))
    free = int(available.split()[1]) * 1024
    resident = int(Path('/proc/self/statm').read_text().split()[1]) * page
    bounds.append(free + resident)
  for name in ('memory.max', 'memory/memory.limit_in_bytes'):  # of cgroups 2 and 1
    with contextlib.suppress(OSError, ValueError):
      bounds.append(int((Path('/sys/fs/cgroup') / name).read_text()))
  return min(bounds)


def settle() -> None:
  """Have the CPU's programs run in the main thread; to be called before the first of them."""
  import jax

  jax.config.update('jax_cpu_enable_async_dispatch', False)
