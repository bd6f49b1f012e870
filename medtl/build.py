"""config → the parts of a run: data sets, net with ported weights, phases. With run.py the only place that reads a config."""

import dataclasses
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from medtl import check, data, losses, models, optimizer, origin, partition, schedule, spec, step, tasks, tree
from medtl.data import augment, split, stream
from medtl.types import Batch, Dataset, MedtlError, State, Task, Tree


class Phase(NamedTuple):
  """One entry of `phases`, worked out."""
  freeze: str
  steps: int
  parts: partition.Partition
  depth: int                        # children frozen whole, counted from the stem


@dataclass(frozen=True, eq=False)
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
  programs: dict[tuple, Any] = field(default_factory=dict)      # what has been compiled

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

  def program(self, phase: int, first: int = 0) -> Any:
    """Return the update of a phase compiled for its shapes, once: `describe` measures the program that the run then uses."""
    if (phase, first) not in self.programs:
      self.programs[phase, first] = self.lowered(phase, first).compile()
    return self.programs[phase, first]

  def lowered(self, phase: int, first: int = 0) -> Any:
    """Return the update of a phase as XLA is given it, traced once."""
    if (phase, first, 'lowered') not in self.programs:
      state = jax.eval_shape(lambda: self.start(phase))
      self.programs[phase, first, 'lowered'] = self.step(phase, first).lower(state, self.example(first))
    return self.programs[phase, first, 'lowered']

  def features(self, first: int, last: int) -> Any:
    """Return the jitted (variables, x) → what children [first, last) make of x; one function, so that it is compiled once."""
    if (first, last, 'features') not in self.programs:
      self.programs[first, last, 'features'] = jax.jit(
        lambda variables, x: self.net.apply(variables, x, first=first, last=last, method='features'))
    return self.programs[first, last, 'features']

  def example(self, first: int = 0) -> Batch:
    """Return a batch of zeros, of pictures or of what the children below `first` make of them."""
    case, count = self.data['train'].fetch(0), self.config.batch
    x, y = jnp.zeros((count, *case.x.shape)), np.asarray(case.y)
    if first:
      shape = jax.eval_shape(self.features(0, first), {'params': self.params, **self.extra}, x)
      x = jnp.zeros(shape.shape, shape.dtype)
    return Batch(x, jnp.zeros((count, *y.shape), jnp.float32 if y.dtype.kind == 'f' else jnp.int32), jnp.ones(count, bool),
                 jnp.arange(count, dtype=jnp.int32))


def parts(config: ConfigDict, run: Path | None = None) -> Parts:
  """Return the parts of a run that trains; `run` is the run folder that the weights come from, where they do."""
  check.config(config)
  sides = data.load(**config.data.to_dict())
  train = sides['train']
  check.labels(config, train)
  net, module = network(config, train.fetch(0).x.shape, len(train.classes))
  net, params, extra, source = origin.variables(config, net, module, train, run)
  loss = spec.one(config.task.loss, losses, given=('outputs', 'y'))
  moves = augment.augment(config.augment, ndim=train.fetch(0).x.ndim - 1, classes=len(train.classes)) if config.augment else None
  return Parts(config, sides, net, params, extra, source, loss, phases(config, params, train.size), moves,
               class_weights(config, train))


def network(config: ConfigDict, shape: Sequence[int], classes: int) -> tuple[models.Net, Any]:
  """Return the net for pictures of `shape` [*s, c], not yet normalising, and the module with its family's RENAMES and WEIGHTS."""
  kwargs = {name: value for name, value in config.model.to_dict().items() if name != 'weights'}
  filled = {'size': tuple(shape[:-1]), 'ndim': len(shape) - 1, 'dtype': dtype(config)}
  known = inspect.signature(spec.find(kwargs['name'], 'medtl.models')).parameters
  wanted = {name: value for name, value in filled.items() if name in known and name not in kwargs}
  factory, kwargs = spec.component(kwargs, 'medtl.models', 'model', given=tuple(wanted))
  head, options = spec.component(config.head.to_dict(), 'medtl.models.heads', 'head', given=('classes',))
  count = tasks.outputs(config.task.kind, classes)
  return models.Net(factory(**kwargs, **wanted), head(count, **options)), sys.modules[factory.__module__]


def children(config: ConfigDict) -> int:
  """Return how many children the config's backbone has: depth(children) is the linear probe."""
  return network(config, (224, 224, 1), 2)[0].backbone.stages + 1


def finished(config: ConfigDict, plan: dict[str, Any]) -> tuple[models.Net, Task]:
  """Return net and task of a finished run, from its config and plan.json alone."""
  net, _ = network(config, plan['shape'], len(plan['classes']))
  net = net.clone(mean=tuple(plan['mean']), std=tuple(plan['std']))
  loss = spec.one(config.task.loss, losses, given=('outputs', 'y'))
  return net, tasks.supervised(net, loss, kind=config.task.kind)


def dtype(config: ConfigDict) -> Any:
  """Return the dtype of the computation."""
  return jnp.dtype(config.dtype)


def phases(config: ConfigDict, params: Tree, examples: int) -> list[Phase]:
  """Return the phases with their partitions; optimizer groups that stay the same keep their name, and so their state."""
  steps = [spec.steps(duration, examples, config.batch) for _, duration in config.phases]
  total = sum(steps)
  count = lambda duration: spec.steps(duration, examples, config.batch, total)   # noqa: E731
  factor = spec.one(config.schedule, schedule, given=('total', 'steps'))(total, count)
  factors = np.asarray(jax.vmap(factor)(jnp.arange(total)))
  direction = spec.one(config.optimizer, optimizer, given=('decay',))
  shapes = jax.eval_shape(lambda: params)
  found: list[Phase] = []
  before = None
  for index, (freeze, _) in enumerate(config.phases):
    rules = partition.table(shapes, freeze, decay=config.decay, head_lr=config.head_lr, lr_decay=config.lr_decay, rules=config.rules)
    made = partition.partition(shapes, rules, direction=direction, lr=config.lr, factors=factors, clip=config.clip,
                               ema=config.ema, phase=index, before=before)
    before = made.labels
    found.append(Phase(freeze, steps[index], made, partition.frozen_depth(made.live)))
  return found


def class_weights(config: ConfigDict, dataset: Dataset) -> tuple[float, ...] | None:
  """Return a weight for each class, inverse to its frequency among the training examples, mean one over the examples."""
  if not config.class_weights:
    return None
  y = np.asarray(dataset.table['y'])
  counts = np.bincount(y, minlength=len(dataset.classes)) if y.ndim == 1 else y.sum(0)
  return tuple(float(value) for value in counts.sum() / len(counts) / np.maximum(1, counts))


def epoch(parts: Parts) -> int:
  """Return the steps of an epoch."""
  return math.ceil(parts.data['train'].size / parts.config.batch)


def period(parts: Parts) -> int:
  """Return the steps between evaluations."""
  return spec.steps(parts.config.every, parts.data['train'].size, parts.config.batch, sum(phase.steps for phase in parts.phases))


def changed(config: ConfigDict, changes: Sequence[tuple[str, Any]]) -> ConfigDict:
  """Return the config with ('model.weights', '') … set and nothing to compare with; an unknown key is an error."""
  new = ConfigDict(config.to_dict())
  new.compare = ()
  for key, value in changes:
    *parents, last = key.split('.')
    node = new
    for name in parents:
      node = node[name]
    if last not in node:
      raise MedtlError(f'no config key {key!r} to change; {spec.nearest(last, node)}')
    with node.ignore_type():
      node[last] = value
  return new.lock()


SCHEDULED = ('phases', 'rules', 'optimizer', 'lr', 'head_lr', 'lr_decay', 'decay', 'schedule', 'clip', 'ema', 'every', 'patience')


def alike(first: ConfigDict, second: ConfigDict) -> bool:
  """Return whether two configs have data, net and weights in common and differ in how they are trained alone."""
  kept = [{key: value for key, value in made.to_dict().items() if key not in (*SCHEDULED, 'compare')} for made in (first, second)]
  return kept[0] == kept[1]


def again(parts: Parts, config: ConfigDict) -> Parts:
  """Return the same data, net and weights under a config that is alike."""
  check.config(config)
  return dataclasses.replace(parts, config=config, phases=phases(config, parts.params, parts.data['train'].size), programs={})


def full(parts: Parts) -> Parts:
  """Return the same run as a full fine-tune: what a phase's cost is measured against."""
  return again(parts, changed(parts.config, (('phases', (('none', '1 steps'),)), ('rules', ()))))


def sentence(parts: Parts) -> str:
  """Return in one line what goes into the run."""
  sizes = ', '.join(f'{dataset.size} {name}' for name, dataset in parts.data.items())
  name = parts.data['train'].facts.get('name', parts.config.data.name)
  return f'{parts.config.model.name} ({parts.source["name"]}) on {name}: {sizes}; {len(parts.classes)} classes'


def plan(parts: Parts, rows: list[dict[str, Any]]) -> dict[str, Any]:
  """Return the facts that are measured once: shape, classes, input statistics, hashes of the split, parameters, phases."""
  sides = {name: {'size': dataset.size, 'hash': split.split_hash(dataset.table, {name: np.arange(dataset.size)}),
                  'patients': len(np.unique(dataset.table['patient'])) if 'patient' in dataset.table else None,
                  'classes': counts(dataset)} for name, dataset in parts.data.items()}
  train = parts.data['train']
  return {'shape': list(train.fetch(0).x.shape), 'classes': list(train.classes), 'kind': parts.config.task.kind,
          'mean': list(parts.net.mean), 'std': list(parts.net.std), 'parameters': tree.size(parts.params), 'splits': sides,
          'data': dict(train.facts), 'weights': parts.source, 'phases': rows}


def counts(dataset: Dataset) -> dict[str, int]:
  """Return how many examples each class has."""
  y = np.asarray(dataset.table['y'])
  many = np.bincount(y[y >= 0], minlength=len(dataset.classes)) if y.ndim == 1 else y.sum(0)
  return {name: int(number) for name, number in zip(dataset.classes, many, strict=True)}


def once(dataset: Dataset, config: ConfigDict) -> Iterator[Batch]:
  """Return batches on the device that hold every example once."""
  return map(on_device, stream.once(dataset, min(config.batch, dataset.size), workers=config.workers))


def on_device(batch: Batch) -> Batch:
  """Return the batch as arrays of the device."""
  return jax.tree.map(jnp.asarray, batch)
