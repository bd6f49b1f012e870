"""pytest in a process of its own, in a copy of the tree, with limits."""

import compileall
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

KEPT = Path(__file__).parents[2] / 'runs' / 'mutation'
MEMORY = 12 * 2**30  # bytes of data: a mutant may ask for all that there is
OVER_TIME = -signal.SIGXCPU
BUSY = 20  # seconds of a crowded machine for one CPU second, before a process counts as hanging


def copy_tree(root: Path, tree: Path) -> Path:
  """Return `tree`, made a copy of the sources: mutants never touch the working tree."""
  left_out = shutil.ignore_patterns('.*', 'runs', '__pycache__')
  shutil.copytree(root, tree, ignore=left_out)
  compileall.compile_dir(tree / 'medtl', quiet=2)
  return tree


def pytest(tree: Path, arguments: list[str], limit: float, **variables: str) -> tuple[int, str]:
  """Return (exit code, output) of pytest; OVER_TIME where it exceeds `limit` CPU seconds."""
  scratch = tree.with_name(f'{tree.name}-scratch')
  scratch.mkdir(exist_ok=True)
  command = [sys.executable, '-m', 'pytest', '-n', '0', '-x', '--tb=line']
  command += [f'--basetemp={scratch}/pytest', *arguments]
  process = subprocess.Popen(
    command,
    cwd=tree,
    env={**os.environ, **_environment(tree, scratch), **variables},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    start_new_session=True,
    preexec_fn=functools.partial(_limit, int(limit) + 1),
    errors='replace',
  )
  try:
    output, _ = process.communicate(timeout=limit * BUSY)
    code = process.returncode
  except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)
    output, _ = process.communicate()
    code = OVER_TIME
  shutil.rmtree(scratch, ignore_errors=True)
  return code, output


def _environment(tree: Path, scratch: Path) -> dict[str, str]:
  """Return the variables of a run: what XLA compiled once it need not compile for each mutant."""
  return {
    'TMPDIR': str(scratch),
    'PYTHONPATH': str(tree),
    'PYTHONDONTWRITEBYTECODE': '1',  # a mutant has the size of its file, and may have its time
    'JAX_COMPILATION_CACHE_DIR': str(KEPT / 'compiled'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  }


def _limit(seconds: int) -> None:
  resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
  resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
