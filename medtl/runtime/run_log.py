"""metrics.jsonl, TensorBoard and the console.

`Writer` has the method names of clu.metric_writers, and needs no TensorFlow.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeElapsedColumn,
  TimeRemainingColumn,
)
from rich.text import Text

from medtl.runtime import files, multihost


class _Console(Console):
  """Prints text as it is: brackets and colons in a name are no markup."""

  def __init__(self) -> None:
    super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True)

  def on_broken_pipe(self) -> None:
    """Raise, so that main says what happened; rich would end the process without a word."""
    raise BrokenPipeError


console = _Console()


def heading(title: str, words: str = '') -> None:
  """Print a line that begins with a bold title."""
  console.print(Text.assemble((title, 'bold'), words))


class Writer:
  """Writes scalars to `folder/metrics.jsonl` and TensorBoard, after the restored step.

  Of several processes only the main one writes.
  """

  def __init__(self, folder: Path, step: int = 0):
    from tensorboardX import SummaryWriter

    writes = multihost.is_main_process()
    self.path = folder / 'metrics.jsonl'
    if writes:
      rewind(self.path, step)
    self.lines = (self.path if writes else Path(os.devnull)).open('a')
    self.board = SummaryWriter(
      str(folder / 'tensorboard'), purge_step=step + 1, write_to_disk=writes
    )

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
  """Cut off the records after `step`, which a resumed run repeats, and a half-written last line."""
  if path.exists():
    kept = [json.dumps(record) + '\n' for record in records(path) if record['step'] <= step]
    files.write(path, ''.join(kept), own=True)


def records(path: Path) -> list[dict[str, float]]:
  """Return the records that `write_scalars` wrote, without a last line that was never ended.

  Other lines that are no records, from a full disk for instance, are left out; the console says so.
  """
  if not path.exists():
    return []
  *lines, _ = path.read_text(encoding='utf-8', errors='replace').split('\n')
  whole = [record for record in map(_record, lines) if record is not None]
  damaged = len(lines) - len(whole)
  if damaged:
    console.print(f'{path}: {damaged} of {len(lines)} lines are damaged, and left out')
  return whole


def _record(line: str) -> dict[str, float] | None:
  """Return a line's record, None where it is none."""
  try:
    record = json.loads(line)
  except ValueError:
    return None
  whole = isinstance(record, dict) and isinstance(record.get('step'), int)
  return record if whole else None


class Watch:
  """Counts seconds by name, in `spans`: `with watch('train'):`.

  The seconds of a span within another one count for the inner one alone.
  """

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
  """A phase on the console.

  On a terminal it is a bar with elapsed and remaining time, elsewhere a line for each note.
  """

  def __init__(self, name: str, total: int, done: int = 0):
    self.name = name
    self.total = total
    self.done = done
    self.begin = time.time()
    columns = (
      TextColumn('{task.description}', style='bold', markup=False),
      BarColumn(bar_width=28),
      MofNCompleteColumn(),
      TimeElapsedColumn(),
      TextColumn('eta'),
      TimeRemainingColumn(),
      TextColumn('{task.fields[note]}', markup=False),
    )
    self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
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
      console.print(
        f'{self.name}: step {self.done} of {self.total}, {time.time() - self.begin:.0f} s, {words}'
      )
