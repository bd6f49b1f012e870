"""What the tests share: a toy backbone that obeys the contract, and the place of real data."""

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Compiling is what tests spend their time on: no optimisation, and each program once a session.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
# No test reads or leaves anything in the user's own cache; each worker has one to itself.
os.environ['MEDTL_CACHE'] = tempfile.mkdtemp(prefix='medtl-cache-')
# Compiled programs are shared by all: pytest's workers inherit the variable, runs as a process too.
COMPILED = None
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  COMPILED = tempfile.mkdtemp(prefix='medtl-compiled-')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = COMPILED
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core.types import Batch
from medtl.models import Backbone, Head, Net
from medtl.tasks import classification
from medtl.training import step
from medtl.training.forward import forward

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get('MEDTL_REAL', ROOT.parent / 'shared'))


def pytest_sessionfinish():
  shutil.rmtree(os.environ['MEDTL_CACHE'], ignore_errors=True)
  if COMPILED:  # only the process that made it
    shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture(scope='session')
def real():
  """The folder of real data and checkpoints, which the project does not ship."""
  if not (REAL / 'data').is_dir():
    pytest.skip(f'real medical data is not at {REAL} (set MEDTL_REAL)')
  return REAL


@pytest.fixture(scope='session')
def done(tmp_path_factory):
  """A finished run on phantoms, in a folder whose name is a pattern and markup."""
  from medtl import main

  folder = tmp_path_factory.mktemp('runs') / 'tiny [bold] *'
  assert main.main([f'--config={ROOT}/tests/tiny.py', f'--workdir={folder}']) == 0
  return folder


class Toy(Backbone):
  """Vectors [b, 12]; each stage Dense, BatchNorm, Dropout."""

  width: int = 12
  count: int = 3

  @property
  def stages(self):
    return self.count

  def child(self, index, value, train):
    return ToyStage(self.width, name=f'stage{index}' if index else 'stem')(value, train)


class ToyStage(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x, train):
    x = nn.Dense(self.width, name='dense')(x)
    x = nn.BatchNorm(momentum=0.9, name='norm1')(x, use_running_average=not train)
    return nn.Dropout(0.1)(nn.relu(x), deterministic=not train)


class ToyHead(Head):
  classes: int = 3

  @nn.compact
  def __call__(self, value, *, train):
    return nn.Dense(self.classes, name='dense')(value)


@pytest.fixture(scope='session')
def net():
  return Net(Toy(), ToyHead())


@pytest.fixture(scope='session')
def batch():
  random = np.random.RandomState(0)
  return Batch(
    jnp.asarray(random.randn(8, 12), jnp.float32),
    jnp.arange(8) % 3,
    jnp.ones(8, bool),
    jnp.arange(8),
  )


@pytest.fixture(scope='session')
def variables(net, batch):
  found = net.init(jax.random.key(0), batch.x, train=False)
  return found['params'], {'batch_stats': found['batch_stats']}


class Supervised(NamedTuple):
  """Classification of a net as a step takes it; `mean` is its loss as one number."""

  loss: Callable
  counts: Callable
  measure: Callable

  @property
  def bound(self):
    return {'loss': self.loss, 'counts': self.counts}

  def mean(self, params, extra, batch, key):
    terms, extra = self.loss(params, extra, batch, key, jnp.zeros((), jnp.int32))
    value, logs = step.weighted(terms, self.counts(batch))
    return value, (extra, logs)


def supervised(net, loss, *, kind, live=None, start_child=0, class_weights=None, rules=()):
  applied = forward(net, live, rules, start_child)
  made = classification.objective(loss, kind)
  return Supervised(
    functools.partial(made.loss, applied, class_weights=class_weights),
    made.counts,
    functools.partial(made.measure, applied),
  )
