"""Eight devices give the numbers of one and hold less each; what they save goes on with others."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.core.types import MedtlError
from medtl.run import assemble
from medtl.runtime import sharding
from medtl.training.checkpoints import Checkpoints
from tests import tiny

ROOT = Path(__file__).parents[2]
WORDS = [
  f'--config={ROOT}/tests/tiny.py',
  '--config.every=4 steps',
  '--config.optimizer=sgd',
  '--config.model.width=16',
]
PHASES = "--config.phases=(('depth(2)', '4 steps'), ('none', '{} steps'))"


def start(folder, devices, *words, steps=4, verb=()):
  """Start main on so many simulated devices."""
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
  return subprocess.Popen(
    [
      sys.executable,
      '-m',
      'medtl.main',
      *verb,
      *WORDS,
      PHASES.format(steps),
      f'--workdir={folder}',
      *words,
    ],
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': flags},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def done(process):
  """Return what a process said, when it has ended well."""
  said, _ = process.communicate()
  assert process.returncode == 0, said
  return said


def leaves(folder, kind='best'):
  saved = Checkpoints(folder / 'checkpoints')
  params, extra = saved.params(kind)
  saved.close()
  return pytrees.flatten({'params': params, **extra})


def test_a_mesh_is_a_product_of_the_devices():
  assert (
    sharding.make_mesh(-1, 1).shape == {'data': jax.device_count(), 'fsdp': 1}
    and sharding.make_mesh(1, -1).shape['fsdp'] == jax.device_count()
  )
  with pytest.raises(
    MedtlError, match=r'data=3, fsdp=5, and there are 1 devices; expected a product of 1'
  ):
    sharding.make_mesh(3, 5)
  with pytest.raises(MedtlError, match="unknown way 'larges'; did you mean 'largest'"):
    sharding.check_rules((('.*', 'larges'),))


def test_a_run_checks_where_its_parameters_are_to_lie():
  with pytest.raises(MedtlError, match='unknown way'):
    assemble.run_context(
      assemble.with_changes(tiny.get_config(), (('shards', (('.*', 'axis0'),)),))
    )


SENDS = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from medtl.runtime import sharding
from medtl.models.backbones import efficientnet, resnet

mesh = sharding.make_mesh(-1, 1)
cut, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (('data',), ()))
narrow = dict(width=0.25, depth=0.3, stem=8, top=16, dtype={dtype})
for net in (resnet.resnet50(width=8, dtype={dtype}), efficientnet.EfficientNet(**narrow)):
  x = jax.ShapeDtypeStruct((16, 32, 32, 3), jnp.float32, sharding=cut)
  variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), x)
  shape_of = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole)
  variables = jax.tree.map(shape_of, variables)
  loss = lambda variables, x: net.apply(variables, x, train=False).astype('float32').sum()
  print(jax.jit(jax.grad(loss)).lower(variables, x).compile().as_text())
"""


@pytest.mark.parametrize(
  'dtype', ['jnp.float32', pytest.param('jnp.bfloat16', marks=pytest.mark.slow)]
)
def test_devices_send_sums_and_no_pictures(dtype):
  """A loop over the rows of a batch would send every activation to every device."""
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=8'
  text = subprocess.run(
    [sys.executable, '-c', SENDS.format(dtype=dtype)],
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': flags},
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  sent = re.findall(r' (all-\w+|collective-\w+|reduce-scatter)\(', text)
  assert set(sent) == {'all-reduce'}


@pytest.mark.slow
def test_eight_devices_give_the_numbers_of_one_and_hold_less_each(tmp_path):
  done(start(tmp_path / 'one', 1))
  expected, numbers = (
    leaves(tmp_path / 'one'),
    json.loads((tmp_path / 'one' / 'numbers.json').read_text())['metrics']['auroc']['value'],
  )
  for name, words in {'data': ['--config.mesh.data=8'], 'fsdp': ['--config.mesh.fsdp=4']}.items():
    done(start(tmp_path / name, 8, *words))
    found = leaves(tmp_path / name)
    for path, leaf in expected.items():
      np.testing.assert_allclose(found[path], leaf, rtol=1e-5, atol=1e-5, err_msg=f'{name}: {path}')
    assert json.loads((tmp_path / name / 'numbers.json').read_text())['metrics']['auroc'][
      'value'
    ] == pytest.approx(numbers, abs=1e-3)
  held = [
    float(
      re.findall(
        r'([\d.]+) MB, \d+ s',
        done(start(tmp_path / 'x', 8, f'--config.mesh.fsdp={fsdp}', verb=['describe'])),
      )[-1]
    )
    for fsdp in (1, 8)
  ]
  assert held[1] < held[0]


@pytest.mark.slow
def test_what_eight_devices_saved_goes_on_with_one_and_with_four(tmp_path):
  slow = [
    '--config.lr=1e-5'
  ]  # at a usual rate sums in another order part the ways within some hundred steps
  process = start(tmp_path / 'eight', 8, '--config.mesh.fsdp=2', *slow, steps=80)
  log = tmp_path / 'eight' / 'metrics.jsonl'
  while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 12):
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  assert process.wait() == 143, process.communicate()[0]
  ends = []
  for devices in (1, 4):
    folder = tmp_path / str(devices)
    shutil.copytree(tmp_path / 'eight', folder)
    assert 'continuing at step' in done(
      start(folder, devices, f'--config.mesh.fsdp={min(devices, 2)}', *slow, steps=80)
    )
    ends.append(leaves(folder, 'latest'))
  for path, leaf in ends[0].items():
    np.testing.assert_allclose(ends[1][path], leaf, rtol=1e-4, atol=1e-5, err_msg=path)
