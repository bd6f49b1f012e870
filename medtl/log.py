"""metrics.jsonl, TensorBoard and the console: the method names of clu.metric_writers, without TensorFlow."""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from medtl import disk, hosts

console = Console(stderr=False, highlight=False, soft_wrap=True)


class Writer:
  """Writes scalars to `folder/metrics.jsonl` and TensorBoard; starts again at the restored step. Of several processes the first writes."""

  def __init__(self, folder: Path, step: int = 0):
    from tensorboardX import SummaryWriter
    self.path = folder / 'metrics.jsonl'
    if hosts.first():
      rewind(self.path, step)
    self.lines = (self.path if hosts.first() else Path(os.devnull)).open('a')
    self.board = SummaryWriter(str(folder / 'tensorboard'), purge_step=step + 1, write_to_disk=hosts.first())

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Write one record; values become floats."""
    values = {name: float(value) for name, value in scalars.items()}
    self.lines.write(json.dumps({'step': step, 'time': round(time.time(), 3), **values}) + '\n')
    self.lines.flush()
    for name, value in values.items():
      self.board.add_scalar(name, value, step)

  def flush(self) -> None:
    """Write out what TensorBoard's writer still holds."""
    self.board.flush()

  def close(self) -> None:
    """Close both files."""
    self.lines.close()
    self.board.close()


def rewind(path: Path, step: int) -> None:
  """Cut the records after `step` (and a half-written last line) off, so that a resumed run repeats none."""
  if not path.exists():
    return
  kept = [line for line in path.read_text().splitlines(keepends=True) if line.endswith('\n') and json.loads(line)['step'] <= step]
  disk.write(path, ''.join(kept), own=True)


def records(path: Path) -> list[dict[str, float]]:
  """Return what `write_scalars` wrote."""
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Watch:
  """Seconds by name, in `spans`: `with watch('train'):`. What happens in a span within another counts for the inner one alone."""

  def __init__(self) -> None:
    self.spans: dict[str, float] = {}
    self.open: list[str] = []
    self.last = time.perf_counter()

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    self._mark()
    self.open.append(name)
    try:
      yield
    finally:
      self._mark()
      self.open.pop()

  def now(self) -> dict[str, float]:
    """Return the seconds until now."""
    self._mark()
    return dict(self.spans)

  def resume(self, spans: Mapping[str, float]) -> None:
    """Add what an earlier process spent on the same run."""
    for name, seconds in spans.items():
      self.spans[name] = self.spans.get(name, 0.0) + seconds

  def _mark(self) -> None:
    now = time.perf_counter()
    if self.open:
      self.spans[self.open[-1]] = self.spans.get(self.open[-1], 0.0) + now - self.last
    self.last = now


class Bar:
  """A phase on the console: on a terminal a bar with elapsed and remaining time, elsewhere a line for each note."""

  def __init__(self, name: str, total: int, done: int = 0):
    self.name, self.total, self.done, self.begin = name, total, done, time.time()
    self.bar = Progress(TextColumn('[bold]{task.description}'), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn(),
                        TextColumn('eta'), TimeRemainingColumn(), TextColumn('{task.fields[note]}'), console=console,
                        disable=not console.is_terminal)
    self.line = self.bar.add_task(name, total=total, completed=done, note='')

  def __enter__(self) -> 'Bar':
    self.bar.start()
    return self

  def __exit__(self, *_: Any) -> None:
    self.bar.stop()

  def at(self, step: int) -> None:
    """Show that so many steps are done."""
    self.done = step
    self.bar.update(self.line, completed=step)

  def note(self, words: str) -> None:
    """Show what an evaluation found."""
    self.bar.update(self.line, note=words)
    if not console.is_terminal:
      console.print(f'{self.name}: step {self.done} of {self.total}, {time.time() - self.begin:.0f} s, {words}')
