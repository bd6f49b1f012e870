"""What main says, and how it ends, where no one expected anything.

Signals, closed pipes, no home, odd streams.
"""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medtl import main

ROOT = Path(__file__).parents[1]
MAIN = [sys.executable, '-m', 'medtl.main']


def python(code, *words):
  return subprocess.run(
    [sys.executable, '-c', code, *words], cwd=ROOT, capture_output=True, text=True
  )


def test_the_system_s_errors_are_words():
  full = OSError(errno.ENOSPC, 'No space left on device', '/disk/x')
  assert main._explained(OSError('Checkpoint at /x/latest/140 not found.')).startswith(
    'Checkpoint at /x'
  )
  assert main._explained(FileNotFoundError(2, 'No such file', '/x')) == 'No such file: /x'
  assert (
    main._explained(OSError()) == 'OSError' and main._explained(OSError(5, 'Broken')) == 'Broken'
  )
  assert 'no space left on the disk of /disk/x; make room' in main._explained(full)
  assert 'None' not in ''.join(
    main._explained(OSError(*words)) for words in ((), ('a',), (2, 'a'), (28, 'a'))
  )


# as a shell has it in the foreground; its background jobs, perhaps these tests, ignore Ctrl-C
FOREGROUND = 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler)'
KILLED = f"""
import gc, os, sys
from medtl import main
{FOREGROUND}
main.heed_signals()
gc.callbacks.append(lambda *_: os.kill(os.getpid(), int(sys.argv.pop())))
try:
  gc.collect()
finally:
  print('unwound')
"""


@pytest.mark.parametrize(
  'number, status, said',
  [
    (signal.SIGINT, 130, 'stopped by Ctrl-C; the same command continues from what was saved\n'),
    (signal.SIGTERM, 143, 'stopped by SIGTERM; start the same command again\n'),
  ],
)
def test_a_signal_ends_the_process_with_a_sentence_also_where_an_exception_would_be_lost(
  number, status, said
):
  words = ['--config=x.py'] if number == signal.SIGINT else ['predict']
  done = python(KILLED, *words, str(int(number)))
  assert (done.returncode, done.stderr, done.stdout) == (status, said, '')


def test_a_command_heeds_signals_while_it_works():
  code = (
    f'{FOREGROUND}\n'
    'import os, runpy, sys; from medtl.runtime import downloads; sys.argv = ["x", "cache"]\n'
    'downloads.cache_folder = lambda: os.kill(os.getpid(), 2)\n'
    'runpy.run_module("medtl.main", run_name="__main__")'
  )
  done = python(code)
  assert (done.returncode, done.stderr) == (
    130,
    'stopped by Ctrl-C; start the same command again\n',
  )


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch):
  before = {number: signal.getsignal(number) for number in main.INTERRUPTS}
  try:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main.heed_signals()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is main._stop
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


@pytest.mark.parametrize('word, aside, status', [('--help', False, 141), ('nonsense', True, 1)])
def test_a_pipe_that_nobody_reads_is_no_traceback(word, aside, status):
  """As in `… | head` and, with the errors `aside` in it, `… 2>&1 | head`."""
  reader, writer = os.pipe()
  os.close(reader)
  errors = writer if aside else subprocess.PIPE
  buffered = {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'}
  done = subprocess.run([*MAIN, word], cwd=ROOT, stdout=writer, stderr=errors, env=buffered)
  os.close(writer)
  assert done.returncode == status and not done.stderr


def test_a_run_whose_output_nobody_reads_says_that_it_can_be_continued(monkeypatch, capsys):
  def broken(*_):
    raise BrokenPipeError

  monkeypatch.setattr(main, '_call', broken)
  monkeypatch.setattr(main, '_discard', lambda stream: None)
  assert main.main(['--config=x.py']) == 141
  said = (
    'stopped: nobody reads the output any more; the same command continues from what was saved\n'
  )
  assert capsys.readouterr().err == said
  assert main.main(['describe']) == 141 and capsys.readouterr().err == ''


def test_streams_that_are_closed_or_know_few_signs_do_not_matter():
  plain = {**os.environ, 'PYTHONIOENCODING': 'ascii'}
  done = subprocess.run([*MAIN, '--help'], cwd=ROOT, capture_output=True, env=plain)
  assert done.returncode == 0 and b'[--config.key=value \\u2026]' in done.stdout
  for closed in ('>&-', '<&- >&- 2>&-'):
    words = f'"{sys.executable}" -m medtl.main nonsense {closed}'
    done = subprocess.run(words, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert ("unknown verb 'nonsense'" in done.stderr) == (closed == '>&-')


def test_a_home_that_is_not_there_is_said_where_a_path_needs_it(monkeypatch, capsys, tmp_path):
  def nobody(uid):
    raise KeyError(uid)

  monkeypatch.delenv('HOME')
  monkeypatch.setattr('pwd.getpwuid', nobody)
  monkeypatch.setenv('MEDTL_CACHE', '~/cache')
  assert main.main(['cache']) == 1
  assert capsys.readouterr().err == (
    'error: a path begins with ~, and this user has no home folder; write it from / on, or '
    'set HOME\n'
  )
  monkeypatch.setenv('HOME', str(tmp_path))
  assert main.main(['cache']) == 0 and capsys.readouterr().out == f'{tmp_path}/cache\n'
  monkeypatch.delenv('HOME')
  monkeypatch.setenv('MEDTL_CACHE', str(tmp_path / 'other'))
  assert main.main(['cache']) == 0


def test_a_bug_keeps_its_traceback(monkeypatch):
  def wrong(*_):
    raise RuntimeError('a bug')

  monkeypatch.setattr(main, '_call', wrong)
  with pytest.raises(RuntimeError, match='a bug'):
    main.main(['cache'])
