"""config → the parts of a run: data sets, net with ported weights, phases. With run.py the only place that reads a config."""

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from medtl import data, losses, metrics, models, optimizer, partition, schedule, spec, step, tasks, tree
from medtl.data import augment, stream
from medtl.models import heads, port, weights
from medtl.types import Batch, Dataset, MedtlError, State, Task, Tree, Weights


class Phase(NamedTuple):
  """One entry of `phases`, worked out."""
  freeze: str
  steps: int
  parts: partition.Partition
  depth: int                        # children frozen whole, counted from the stem


@dataclass(frozen=True)
class Parts:
  """All that a run is made of, before its first step."""
  config: ConfigDict
  data: dict[str, Dataset]
  net: models.Net
  params: Tree                      # numpy, ported or fresh
  extra: Tree
  source: dict[str, Any]            # where the weights came from
  loss: Callable
  phases: list[Phase]
  augment: step.Augment | None
  class_weights: tuple[float, ...] | None

  @property
  def classes(self) -> tuple[str, ...]:
    return self.data['train'].classes

  def task(self, phase: int, first: int = 0) -> Task:
    """Return what is learned in a phase; with first > 0 from activations of the children below."""
    return tasks.supervised(self.net, self.loss, kind=self.config.task.kind, live=self.phases[phase].parts.live, first=first,
                            class_weights=self.class_weights)

  def start(self, phase: int = 0) -> State:
    """Return the state at step 0 with the optimizer state of a phase; every leaf a buffer of its own."""
    params, extra = jax.tree.map(jnp.array, (self.params, self.extra))
    opt = jax.jit(self.phases[phase].parts.tx.init)(params)
    return State(jnp.zeros((), jnp.int32), params, extra, opt, jax.random.key(self.config.seed))

  def step(self, phase: int, first: int = 0) -> Any:
    """Return the jitted update of a phase."""
    parts = self.phases[phase].parts
    return step.compiled(task=self.task(phase, first), tx=parts.tx, live=parts.live, accumulate=self.config.accumulate,
                         augment=None if first else self.augment)

  def example(self, count: int) -> Batch:
    """Return a batch of the data's shape that holds zeros."""
    first = self.data['train'].fetch(0)
    y = np.asarray(first.y)
    return Batch(jnp.zeros((count, *first.x.shape)), jnp.zeros((count, *y.shape), y.dtype), jnp.ones(count, bool),
                 jnp.arange(count, dtype=jnp.int32))


def parts(config: ConfigDict, sides: dict[str, Dataset] | None = None) -> Parts:
  """Return the parts of a run; `sides` are the data sets where they have been loaded already."""
  sides = sides or datasets(config)
  classes = sides['train'].classes
  net, module = network(config, sides['train'])
  net, params, extra, source = variables(config, net, module, sides['train'])
  loss = spec.one(config.task.loss, losses, given=('outputs', 'y'))
  metrics.names(config.task.kind)
  moves = augment.augment(config.augment, ndim=sides['train'].fetch(0).x.ndim - 1, classes=len(classes)) if config.augment else None
  return Parts(config, sides, net, params, extra, source, loss, phases(config, params, sides['train'].size), moves,
               class_weights(config, sides['train']))


def datasets(config: ConfigDict) -> dict[str, Dataset]:
  """Return the data sets {'train', 'val', 'test'}."""
  return data.load(**config.data.to_dict())


def network(config: ConfigDict, dataset: Dataset) -> tuple[models.Net, Any]:
  """Return the net, not yet normalising its input, and the module that holds its family's RENAMES and WEIGHTS."""
  kwargs = {name: value for name, value in config.model.to_dict().items() if name != 'weights'}
  picture = dataset.fetch(0).x
  filled = {'size': picture.shape[:-1], 'ndim': picture.ndim - 1, 'dtype': dtype(config)}
  factory = spec.find(kwargs['name'], 'medtl.models')
  known = inspect.signature(factory).parameters
  wanted = {name: value for name, value in filled.items() if name in known and name not in kwargs}
  factory, kwargs = spec.component(kwargs, 'medtl.models', 'model', given=tuple(wanted))
  backbone = factory(**kwargs, **wanted)
  head, kwargs = spec.component(config.head.to_dict(), 'medtl.models.heads', 'head', given=('classes',))
  count = tasks.outputs(config.task.kind, len(dataset.classes))
  return models.Net(backbone, head(count, **kwargs)), sys.modules[factory.__module__]


def dtype(config: ConfigDict) -> Any:
  """Return the dtype of the computation."""
  if config.dtype not in ('float32', 'bfloat16'):
    raise MedtlError(f"config.dtype is {config.dtype!r}; {spec.nearest(config.dtype, ['float32', 'bfloat16'])}")
  return jnp.dtype(config.dtype)


def phases(config: ConfigDict, params: Tree, examples: int) -> list[Phase]:
  """Return the phases with their partitions; optimizer groups that stay the same keep their name, and so their state."""
  steps = [spec.steps(duration, examples, config.batch) for _, duration in config.phases]
  total = sum(steps)
  count = lambda duration: spec.steps(duration, examples, config.batch, total)   # noqa: E731
  factor = spec.one(config.schedule, schedule, given=('total', 'steps'))(total, count)
  direction = spec.one(config.optimizer, optimizer, given=('decay',))
  shapes = jax.eval_shape(lambda: params)
  found: list[Phase] = []
  before = None
  for index, (freeze, _) in enumerate(config.phases):
    rules = partition.table(shapes, freeze, decay=config.decay, head_lr=config.head_lr, lr_decay=config.lr_decay, rules=config.rules)
    made = partition.partition(shapes, rules, direction=direction, lr=config.lr, schedule=factor, clip=config.clip,
                               ema=config.ema, phase=index, before=before)
    before = made.labels
    found.append(Phase(freeze, steps[index], made, partition.frozen_depth(made.live)))
  return found


def class_weights(config: ConfigDict, dataset: Dataset) -> tuple[float, ...] | None:
  """Return a weight for each class, inverse to its frequency among the training examples, mean one over the examples."""
  if config.class_weights not in ('', 'balanced'):
    raise MedtlError(f"config.class_weights is {config.class_weights!r}; expected '' or 'balanced'")
  if not config.class_weights:
    return None
  y = np.asarray(dataset.table['y'])
  counts = np.bincount(y, minlength=len(dataset.classes)) if y.ndim == 1 else y.sum(0)
  return tuple(float(value) for value in counts.sum() / len(counts) / np.maximum(1, counts))


def statistics(dataset: Dataset, most: int = 256) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Return mean and standard deviation of each channel over (at most `most` evenly spread) examples."""
  index = np.unique(np.linspace(0, dataset.size - 1, min(most, dataset.size)).astype(int))
  pictures = [dataset.fetch(int(i)).x for i in index]
  axes = tuple(range(pictures[0].ndim - 1))
  mean = np.mean([x.mean(axes) for x in pictures], axis=0)
  square = np.mean([(x.astype(np.float64) ** 2).mean(axes) for x in pictures], axis=0)
  std = np.sqrt(np.maximum(1e-12, square - mean ** 2))
  return tuple(round(float(v), 6) for v in mean), tuple(round(float(v), 6) for v in std)
