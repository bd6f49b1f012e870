"""Two processes on loopback are one run.

The numbers of one process, one writer, and an end for both where one is lost.
"""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from medtl.core.types import MedtlError
from medtl.data import batches
from medtl.runtime import multihost
from tests.data.test_batches import numbered
from tests.runtime.test_sharding import PHASES, ROOT, WORDS, leaves

SLOW = [
  '--config.lr=1e-5',
  '--config.augment=noise(0.01)',
  '--config.every=10 steps',
]  # augmented: nothing is cached


def pair(folder, *words, steps=4, slurm=False):
  """Start main twice, as two processes of one run.

  They are told who they are, or find it in what Slurm tells its tasks.
  """
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'

  def start(index):
    told = (
      {
        'SLURM_JOB_ID': str(os.getpid()),
        'SLURM_STEP_NODELIST': 'localhost',
        'SLURM_NTASKS': '2',
        'SLURM_STEP_NUM_NODES': '1',
        'SLURM_PROCID': str(index),
        'SLURM_LOCALID': str(index),
      }
      if slurm
      else {}
    )
    place = 'auto' if slurm else f'{address},2,{index}'
    return subprocess.Popen(
      [
        sys.executable,
        '-m',
        'medtl.main',
        f'--hosts={place}',
        *WORDS,
        PHASES.format(steps),
        f'--workdir={folder}',
        *words,
      ],
      cwd=ROOT,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu', **told},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  return [start(index) for index in range(2)]


def ended(processes, within=240):
  """Return (exit status, what it said) of each."""
  said = [process.communicate(timeout=within)[0] for process in processes]
  return [(process.returncode, words) for process, words in zip(processes, said, strict=True)]


def begun(folder, processes, lines=12):
  """Wait until a run has written so many records."""
  log = folder / 'metrics.jsonl'
  while not (log.exists() and len(log.read_text().splitlines()) > lines):
    assert all(process.poll() is None for process in processes), ended(processes)
    time.sleep(0.05)


def test_alone_a_process_is_the_first_of_one_and_agrees_with_itself():
  assert multihost.host_share() == (0, 1) and multihost.is_main_process()
  assert multihost.all_processes([True, False]) == [True, False] and multihost.broadcast_from_main(
    [3, 0]
  ) == [3, 0]
  assert (
    multihost.to_numpy({'x': np.ones(2)})['x'].tolist() == [1, 1] and multihost.shutdown(143) == 143
  )


@pytest.mark.parametrize(
  'words',
  [
    'here',
    '10.0.0.1:8476',
    '10.0.0.1:8476,2',
    '10.0.0.1:8476,2,2',
    '10.0.0.1,2,0',
    '10.0.0.1:8476,two,0',
  ],
)
def test_words_that_say_no_place_are_refused(words):
  with pytest.raises(
    MedtlError, match=r'expected .auto., or ADDRESS:PORT,COUNT,INDEX with 0 <= INDEX < COUNT'
  ):
    multihost.join_cluster(words)


@pytest.mark.parametrize(
  'read',
  [
    lambda data, share: batches.eval_batches(data, 8, workers=0, share=share),
    lambda data, share: (
      next(one) for one in [batches.train_batches(data, 8, seed=3, workers=0, share=share)] * 5
    ),
  ],
)
def test_the_shares_of_a_batch_are_the_batch(read):
  fetched, plain = [], numbered(21)
  data = dataclasses.replace(plain, fetch=lambda index: fetched.append(index) or plain.fetch(index))
  whole = list(read(data, (0, 1)))
  for index in range(4):
    fetched.clear()
    for batch, part in zip(whole, read(data, (index, 4)), strict=True):
      np.testing.assert_array_equal(part.x, batch.x[2 * index : 2 * index + 2])
      np.testing.assert_array_equal(part.row, batch.row[2 * index : 2 * index + 2])
      np.testing.assert_array_equal(part.mask, batch.mask[2 * index : 2 * index + 2])
    assert len(fetched) == 2 * len(whole), 'no other row is read'


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(tmp_path):
  """Cached and not, copied and cut: parameters, metrics and predictions are those of one process.

  Padded rows count for nothing.
  """
  alone = subprocess.run(
    [sys.executable, '-m', 'medtl.main', *WORDS, PHASES.format(4), f'--workdir={tmp_path / "one"}'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert alone.returncode == 0, alone.stderr
  expected = leaves(tmp_path / 'one')
  numbers = json.loads((tmp_path / 'one' / 'numbers.json').read_text())
  rows = np.load(tmp_path / 'one' / 'predictions' / 'test.npz')['row']
  assert len(rows) % 16, 'the last batch is padded'
  for name, words in {'copied': [], 'cut': ['--config.mesh.fsdp=2', '--config.cache=off']}.items():
    (first, said), (second, quiet) = ended(pair(tmp_path / name, *words))
    assert first == second == 0, said + quiet
    assert 'AUROC' in said and 'AUROC' not in quiet
    found = leaves(tmp_path / name)
    for path, leaf in expected.items():
      np.testing.assert_allclose(found[path], leaf, rtol=1e-4, atol=1e-5, err_msg=f'{name}: {path}')
    np.testing.assert_array_equal(
      np.load(tmp_path / name / 'predictions' / 'test.npz')['row'], rows
    )
    again = json.loads((tmp_path / name / 'numbers.json').read_text())
    assert again['images'] == numbers['images']
    assert again['metrics']['auroc']['value'] == pytest.approx(
      numbers['metrics']['auroc']['value'], abs=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_where_one_is_killed_the_other_ends_and_both_started_again_go_on(tmp_path, victim):
  processes = pair(tmp_path, *SLOW, steps=96)
  begun(tmp_path, processes)
  processes[victim].send_signal(signal.SIGKILL)
  begin = time.time()
  status, said = ended([processes[1 - victim]], within=60)[0]
  assert time.time() - begin < 60 and status not in (0, None)
  assert 'has lost another' in said or 'another task died' in said, said
  (first, said), (second, quiet) = ended(pair(tmp_path, *SLOW, steps=96))
  assert first == second == 0, said + quiet
  assert 'continuing at step' in said
  steps = [
    json.loads(line)['step']
    for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()
    if 'train/loss' in line
  ]
  assert steps == list(range(1, 101))


@pytest.mark.slow
def test_a_signal_to_one_stops_both_at_one_step_and_one_process_goes_on(tmp_path):
  processes = pair(tmp_path, *SLOW, '--config.mesh.fsdp=2', steps=96, slurm=True)
  begun(tmp_path, processes)
  processes[1].send_signal(signal.SIGTERM)
  said = ended(processes)
  assert [status for status, _ in said] == [143, 143], said
  alone = subprocess.run(
    [sys.executable, '-m', 'medtl.main', *WORDS, *SLOW, PHASES.format(96), f'--workdir={tmp_path}'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert alone.returncode == 0 and 'continuing at step' in alone.stdout, alone.stdout + alone.stderr
