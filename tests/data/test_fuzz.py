"""A small part of `make fuzz`, which reads mutated files, and laws of what it calls wrong."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.models.pretrained import checkpoint_files
from tests.fuzz import __main__ as program
from tests.fuzz import outcomes
from tests.fuzz.files import EVERYTHING, NOTHING, Case, Edit, Original, Region, free
from tests.fuzz.mutations import KINDS, cases

ROOT = Path(__file__).parents[2]
COUNT = 270  # of the program's 1500 files


@pytest.fixture(scope='module')
def printed():
  """What the program prints; a process of its own, as a decoder may end the one that it is in."""
  command = [sys.executable, '-m', 'tests.fuzz', '--seed', '0', '--count', str(COUNT)]
  ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
  assert ended.returncode in (0, 1), ended.stderr
  return ended.stdout


@pytest.mark.parametrize('kind', KINDS)
def test_mutated_files_are_read_as_before_or_refused_in_words(kind, printed):
  assert f'{kind:14}{COUNT // len(KINDS):6}' in printed
  wrong = [line for line in printed.splitlines() if f': {kind} / ' in line]
  assert not wrong, '\n'.join(wrong)


def test_a_seed_gives_the_same_files_each_time():
  assert program.COUNT >= 500 and program.COUNT // len(KINDS) >= 60
  first, again, other = (cases('csv', 60, seed) for seed in (0, 0, 1))
  assert [case.data for case in first] == [case.data for case in again]
  assert [case.data for case in first] != [case.data for case in other]
  assert len({case.label for case in first}) > 50


def judged(tmp_path, monkeypatch, read):
  """The verdict on a file of which one reader gives an array, and then `read` something else."""
  original = Original('npz', 'one', b'abc', 'checkpoint', '.npz', truth={'w': np.ones(3)})
  monkeypatch.setattr(outcomes, '_known', {})
  monkeypatch.setattr(outcomes, '_read', lambda path, original: {'w': np.ones(3)})
  outcomes._expected(original, tmp_path)
  monkeypatch.setattr(outcomes, '_read', lambda path, original: read(path))
  return outcomes.judge(Case(original, 'a mutation', b'abd', frozenset({'note'})), tmp_path)


def refuse(words):
  def read(path):
    raise MedtlError(words.format(path=path))

  return read


def wait(path):
  end = time.process_time() + 5
  while time.process_time() < end:
    pass


@pytest.mark.parametrize(
  'read, outcome',
  [
    (lambda path: {'w': np.ones(3)}, 'same'),
    (lambda path: {'w': np.ones(3), 'note': np.zeros(1)}, 'undetectable'),
    (lambda path: {'w': np.array([1, 1, 2.0])}, 'silent'),
    (lambda path: {'w': np.ones((3, 1))}, 'silent'),
    (lambda path: {'w': np.ones(3, int)}, 'silent'),
    (lambda path: {}, 'silent'),
    (refuse('{path} is damaged; get it again'), 'error'),
    (refuse('the file is damaged'), 'message'),
    (refuse("{path}: 'NoneType' object is not iterable"), 'message'),
    (refuse("cannot decode {path}: 'Rows'"), 'message'),
    (refuse('cannot decode {path}:'), 'message'),
    (lambda path: checkpoint_files.read(3), 'traceback'),
    (lambda path: {'w': np.ones(1 << 40)}, 'memory'),
    (lambda path: {'w': np.ones(1 << 23)}, 'memory'),
    (wait, 'slow'),
  ],
)
def test_an_outcome_is_called_what_it_is(read, outcome, tmp_path, monkeypatch):
  monkeypatch.setattr(outcomes, 'SECONDS', 0.2)
  monkeypatch.setattr(outcomes, 'TOUCHED', 32 << 20)
  assert judged(tmp_path, monkeypatch, read).outcome == outcome
  assert not any(tmp_path.iterdir())


def test_a_file_that_is_misread_before_any_mutation_is_said(tmp_path, monkeypatch):
  original = Original('npz', 'one', b'abc', 'checkpoint', '.npz', truth={'w': np.ones(3)})
  monkeypatch.setattr(outcomes, '_known', {})
  monkeypatch.setattr(outcomes, '_read', lambda path, original: {'w': np.array([1, 1, 3.0])})
  verdict = outcomes.judge(Case(original, 'a mutation', b'abd', EVERYTHING), tmp_path)
  assert verdict == ('original', 'w is off by up to 2')


def test_what_may_differ_follows_from_the_bytes_that_were_touched():
  regions = [Region(2, 4, frozenset({'x'})), Region(4, 6, frozenset({'y'}), grows=True)]
  original = Original('png', 'one', b'12345678', 'picture', '.png', regions=regions)
  assert free(original, [Edit(0, 1, b'a')]) == NOTHING
  assert free(original, [Edit(3, 4, b'a')]) == {'x'}
  assert free(original, [Edit(3, 4, b'a'), Edit(5, 6, b'a')]) == {'x', 'y'}
  assert free(original, [Edit(5, 5, b'a')]) == {'y'}  # one more
  assert free(original, [Edit(3, 3, b'a')]) == NOTHING  # more than its length says
  assert free(original, [Edit(5, 6, b'')]) == NOTHING  # one less


@pytest.mark.filterwarnings('ignore:os.fork')
def test_a_process_that_dies_or_hangs_is_an_outcome(monkeypatch):
  original = Original('png', 'one', b'abc', 'picture', '.png')
  chosen = [Case(original, name, b'', NOTHING) for name in ('fine', 'dies', 'hangs', 'last')]

  def judge(case, scratch):
    if case.mutation == 'dies':
      sys.exit(3)
    if case.mutation == 'hangs':
      time.sleep(99)
    return outcomes.Verdict('same')

  monkeypatch.setattr(program, 'judge', judge)
  monkeypatch.setattr(program, 'PATIENCE', 3.0)
  found = [verdict.outcome for verdict in program._verdicts(chosen)]
  assert found == ['same', 'death', 'hang', 'same']
