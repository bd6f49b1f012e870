"""The console prints names as they are, and the log of a run survives damage."""

import io
import json

import pytest
from rich.table import Table

from medtl.run import cost
from medtl.runtime import run_log

ODD = 'grade [1] [bold]x[/bold] [/nonsense] :fire: {0} %s \\['


def printed(monkeypatch, terminal=False, width=200):
  """Lead the console into a text, which is returned."""
  text = io.StringIO()
  monkeypatch.setattr(run_log.console, '_file', text)
  monkeypatch.setattr(run_log.console, '_force_terminal', terminal)
  monkeypatch.setattr(run_log.console, '_width', width)
  return text


def test_brackets_in_names_are_no_markup(monkeypatch):
  text = printed(monkeypatch)
  run_log.console.print(ODD)
  run_log.heading(ODD, ': what [it] is')
  table = Table(title=ODD)
  table.add_column(ODD)
  table.add_row(ODD)
  run_log.console.print(table)
  assert text.getvalue().count(ODD) == 5 and f'{ODD}: what [it] is\n' in text.getvalue()


def test_a_heading_is_bold_and_a_bar_shows_names_as_they_are_on_a_terminal(monkeypatch):
  text = printed(monkeypatch, terminal=True)
  monkeypatch.setattr(run_log.console, '_color_system', run_log.console._detect_color_system() or 1)
  run_log.heading('[red]one', ' two')
  with run_log.Bar(ODD, 10) as bar:
    bar.note('val [2]')
    bar.at(3)
  said = text.getvalue()
  assert '\x1b[1m[red]one\x1b[0m two' in said
  assert ODD in said and 'val [2]' in said and '3/10' in said


@pytest.mark.parametrize('width', [1, 7])
def test_a_terminal_may_be_narrow(monkeypatch, width):
  text = printed(monkeypatch, terminal=True, width=width)
  rules = [dict(pattern='head/.*', lr=1.0, decay=None, parameters=5)]
  row = dict(freeze='none', steps=3, live=5, frozen=0, flops=1.0, flops_full=1.0, optimizer_bytes=1)
  cost.print_phases([{**row, 'rules': rules}], run_log.console.print)
  with run_log.Bar('phase', 10) as bar:
    bar.note('x')
  assert 'live 5 of 5 parameters' in text.getvalue()


def test_a_pipe_that_nobody_reads_is_main_s_affair(monkeypatch):
  class Closed(io.StringIO):
    def flush(self):
      raise BrokenPipeError

  monkeypatch.setattr(run_log.console, '_file', Closed())
  with pytest.raises(BrokenPipeError):
    run_log.console.print('x')
  del run_log.console._buffer[:]


def test_damaged_lines_are_left_out_and_counted(tmp_path, capsys):
  path = tmp_path / 'metrics.jsonl'
  good = [{'step': 1, 'train/loss': 0.5}, {'step': 2, 'train/loss': float('inf')}]
  lines = [
    json.dumps(good[0]),
    '\0\0\0',
    '[1]',
    '{"a": 1}',
    '',
    json.dumps(good[1]),
    '{"step": 3, "tr',
  ]
  path.write_bytes('\n'.join(lines).encode() + b'\xff')
  assert run_log.records(path) == good
  assert 'metrics.jsonl: 4 of 6 lines are damaged, and left out' in capsys.readouterr().out
  run_log.rewind(path, 1)
  assert path.read_text() == json.dumps(good[0]) + '\n'
  assert run_log.records(path) == good[:1] and run_log.records(tmp_path / 'none') == []
  capsys.readouterr()
  run_log.rewind(path, 1)
  assert not capsys.readouterr().out
