"""Files are whole or not there, and one process at a time works in a run folder."""

import errno
import fcntl
import os
import subprocess
import sys
import time

import pytest

from medtl.core.types import MedtlError
from medtl.runtime import files, multihost

HOLDER = """
import pathlib, sys
from medtl.runtime import files
with files.exclusive_lock(pathlib.Path(sys.argv[1])):
  print('in', flush=True)
  sys.stdin.read()
"""


@pytest.mark.parametrize('kill', [subprocess.Popen.terminate, subprocess.Popen.kill])
def test_a_second_process_is_told_who_works_there_and_how_that_ends(tmp_path, kill):
  lock = tmp_path / 'run' / 'lock'
  words = [sys.executable, '-c', HOLDER, str(lock)]
  holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  assert holder.stdout.readline() == b'in\n'
  said = (
    rf'another process works in {lock.parent} \(process {holder.pid} on {os.uname().nodename}, '
    rf'since .*\); wait until it has ended \(kill {holder.pid} there ends it\), or choose a'
  )
  with pytest.raises(MedtlError, match=said), files.exclusive_lock(lock):
    pass
  kill(holder)
  holder.communicate()
  with files.exclusive_lock(lock):  # the kernel has freed it; what it says is another's now
    assert f'"pid": {os.getpid()}' in lock.read_text()
  assert lock.read_text() == ''


def test_a_lock_whose_holder_has_not_yet_written_its_name_holds(tmp_path):
  with (tmp_path / 'lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    said = r'since just now.* or give another --name'
    with (
      pytest.raises(MedtlError, match=said),
      files.exclusive_lock(tmp_path / 'lock', 'give another --name'),
    ):
      pass
  with files.exclusive_lock(tmp_path / 'lock'):
    pass


def test_the_first_of_several_processes_takes_it_for_all(tmp_path, monkeypatch):
  with files.exclusive_lock(tmp_path / 'lock'):
    monkeypatch.setattr(multihost, '_place', [1, 2])
    with files.exclusive_lock(tmp_path / 'lock'):
      pass
    monkeypatch.setattr(multihost, '_place', [0, 2])
    with (
      pytest.raises(MedtlError, match='another process'),
      files.exclusive_lock(tmp_path / 'lock'),
    ):
      pass


def test_a_file_system_without_locks_is_said_and_another_failure_is_raised(
  tmp_path, monkeypatch, capsys
):
  def refuse(number):
    def flock(*_):
      raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, 'flock', flock)

  refuse(errno.ENOLCK)
  with files.exclusive_lock(tmp_path / 'lock'):
    assert 'file system without locks (No locks available)' in capsys.readouterr().err
  refuse(errno.EIO)
  with pytest.raises(OSError, match='Input/output'), files.exclusive_lock(tmp_path / 'lock'):
    pass


def test_a_folder_that_cannot_be_made_is_said_with_what_to_do(tmp_path):
  (tmp_path / 'file').write_text('')
  said = r'cannot write to .*file/run: Not a directory; give another --workdir'
  with (
    pytest.raises(MedtlError, match=said),
    files.exclusive_lock(tmp_path / 'file' / 'run' / 'lock'),
  ):
    pass
  with files.exclusive_lock(tmp_path / 'another' / 'run' / 'lock'):
    pass


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
  (tmp_path / 'made.json').mkdir()
  with pytest.raises(IsADirectoryError) as caught:
    files.write(tmp_path / 'made.json', 'x')
  assert caught.value.filename == str(tmp_path / 'made.json') and caught.value.filename2 is None
  assert [path.name for path in tmp_path.iterdir()] == ['made.json']


def test_names_that_are_no_utf8_are_written(tmp_path):
  files.write(tmp_path / 'a.html', os.fsdecode(b'M\xfcller ') + 'Müller')
  assert (tmp_path / 'a.html').read_text(encoding='utf-8') == r'M\udcfcller Müller'


def test_what_a_killed_process_left_half_written_goes_after_a_day(tmp_path):
  for name, age in (('dead', 2 * files.DAY), ('alive', 60)):
    path = tmp_path / f'{name}.npy.part'
    path.write_text('x')
    os.utime(path, (time.time() - age,) * 2)
  assert files.prune(tmp_path, 100) == []
  assert [path.name for path in tmp_path.iterdir()] == ['alive.npy.part']


def fill(folder, **sizes):
  folder.mkdir(parents=True)
  for name, size in sizes.items():
    (folder / name).write_bytes(b'x' * size)


def test_a_folder_is_whole_or_not_there(tmp_path):
  goal = tmp_path / 'cache' / 'made'
  with files.atomic_write(goal, own=True) as aside:
    fill(aside, x=3)
    assert not goal.exists() and aside.parent == goal.parent
  assert [path.name for path in goal.iterdir()] == ['x']
  with (
    pytest.raises(ValueError),
    files.atomic_write(tmp_path / 'cache' / 'torn', own=True) as aside,
  ):
    fill(aside, x=3)
    raise ValueError
  assert [path.name for path in goal.parent.iterdir()] == ['made']


def test_the_folder_of_a_process_that_was_faster_stays(tmp_path):
  with files.atomic_write(tmp_path / 'made', own=True) as aside:
    fill(tmp_path / 'made', first=1)
    fill(aside, second=1)
  assert [path.name for path in tmp_path.rglob('*')] == ['made', 'first']
  (tmp_path / 'file').write_text('x')
  with pytest.raises(OSError) as caught, files.atomic_write(tmp_path / 'file', own=True) as aside:
    fill(aside, second=1)
  assert caught.value.filename == str(tmp_path / 'file')
  assert (tmp_path / 'file').read_text() == 'x'


def test_a_folder_makes_room_with_all_that_it_holds(tmp_path):
  fill(tmp_path / 'old', x=40, y=40)
  fill(tmp_path / 'used', x=40)
  (tmp_path / 'file').write_bytes(b'x' * 30)
  for age, name in enumerate(('used', 'file', 'old')):
    os.utime(tmp_path / name, (time.time() - 100 * (age + 1),) * 2)
  assert files.prune(tmp_path, 150) == []
  assert files.prune(tmp_path, 100) == [tmp_path / 'old']
  assert files.prune(tmp_path, 40, keep=[tmp_path / 'file']) == [tmp_path / 'used']
  assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_half_written_folder_stays_while_one_of_its_files_is_written_to(tmp_path):
  old = (time.time() - 2 * files.DAY,) * 2
  for name in ('dead.part', 'alive.part'):
    fill(tmp_path / name, x=9)
  os.utime(tmp_path / 'dead.part' / 'x', old)
  for name in ('dead.part', 'alive.part'):
    os.utime(tmp_path / name, old)
  assert files.prune(tmp_path, 0) == []
  assert [path.name for path in tmp_path.iterdir()] == ['alive.part']
