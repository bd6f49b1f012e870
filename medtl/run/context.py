"""The context of a run before its first step, and its compiled programs, each made once."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from medtl import models
from medtl.core import expressions
from medtl.core.types import Batch, Dataset, Forward, State, Task, Tree
from medtl.features import packing
from medtl.run import config_keys
from medtl.runtime import sharding
from medtl.training import batch_statistics, parameter_groups, step, windows
from medtl.training.forward import before, forward


class Phase(NamedTuple):
  """One entry of `phases`, worked out."""

  freeze: str
  steps: int
  partition: parameter_groups.Partition
  depth: int  # children frozen whole, counted from the stem


@dataclass(frozen=True, eq=False)
class RunContext:
  """All that a run is made of, before its first step."""

  config: ConfigDict
  data: dict[str, Dataset]
  net: models.Net
  params: Tree  # numpy, ported or fresh
  extra: Tree
  source: dict[str, Any]  # where the weights came from
  task: Task
  phases: list[Phase]
  augment: step.Augment | None
  class_weights: tuple[float, ...] | None
  run: Path | None = None  # the run folder that the weights came from, where they did
  streams: Mapping[str, Dataset] = field(default_factory=dict)  # beside the training side
  drawn: frozenset[str] = frozenset()  # paths of the parameters that chance drew
  # Shared with contexts that are alike:
  remarks: dict[str, list[str]] = field(default_factory=dict)  # on the data
  programs: dict[tuple, Any] = field(default_factory=dict)  # what has been compiled
  origins: list[Path] = field(default_factory=list)  # checkpoints of what such runs began with
  # Where each phase starts, see frozen_features.choose.
  choices: dict[int, Any] = field(default_factory=dict)

  @property
  def classes(self) -> tuple[str, ...]:
    return self.data['train'].classes

  def forward(self, phase: int, start_child: int = 0) -> Forward:
    """Return how the task applies the net in a phase.

    With start_child > 0 it starts from activations of the children below, as `features` packs them.
    """
    live = self.phases[phase].partition.live
    applied = forward(self.net, live, self.config.norms, start_child)
    if start_child == 0:
      return applied
    unpack = functools.partial(packing.unpack, like=self.crossing(start_child))
    return before(applied, unpack)

  def loss(self, phase: int, start_child: int = 0) -> step.Loss:
    """Return the loss of a phase, a function of (params, extra, batch, key, step)."""
    return functools.partial(
      self.task.loss, self.forward(phase, start_child), class_weights=self.class_weights
    )

  @property
  def mesh(self) -> Mesh:
    """Return the devices."""
    return sharding.make_mesh(**self.config.mesh)

  def device_put(self, state: Any) -> Any:
    """Return parameters, or a whole state, where they lie on the devices."""
    return sharding.device_put(
      state, sharding.state_shardings(state, self.mesh, self.config.shards)
    )

  def start(self, phase: int = 0) -> State:
    """Return the state at step 0 with the optimizer state of a phase.

    Every leaf is a buffer of its own.
    """
    return self.device_put(self._begin(phase))

  def _begin(self, phase: int) -> State:
    params = jax.tree.map(jnp.array, self.params)
    extra = jax.tree.map(jnp.array, self.extra)
    opt = jax.jit(self.phases[phase].partition.tx.init)(params)
    key = jax.random.key(self.config.seed)
    return State(jnp.zeros((), jnp.int32), params, extra, opt, key)

  def step(self, phase: int, start_child: int = 0) -> Any:
    """Return the jitted update of a phase."""
    partition = self.phases[phase].partition
    places = jax.tree.map(lambda leaf: leaf.sharding, self.shapes(phase))
    return step.jit_update(
      places,
      loss=self.loss(phase, start_child),
      counts=self.task.counts,
      tx=partition.tx,
      live=partition.live,
      copies=self.task.copies,
      accumulate=self.config.accumulate,
      augment=None if start_child else self.augment,
    )

  def program(self, phase: int, start_child: int = 0) -> Any:
    """Return the update of a phase compiled for its shapes.

    `describe` measures the program that the run then uses.
    """
    key = ('program', start_child, *self.program_cache_key(phase))
    return self.memoised(key, lambda: self.lowered(phase, start_child).compile())

  def lowered(self, phase: int, start_child: int = 0) -> Any:
    """Return the update of a phase as XLA is given it."""

    def lower() -> Any:
      step = self.step(phase, start_child)
      return step.lower(self.shapes(phase), self.example(start_child))

    key = ('lowered', start_child, *self.program_cache_key(phase))
    return self.memoised(key, lower)

  def flops(self, phase: int, start_child: int = 0) -> float:
    """Return the floating-point operations of a phase's update."""
    key = ('flops', start_child, *self.program_cache_key(phase))
    return self.memoised(key, lambda: step.flops(self.lowered(phase, start_child)))

  def memory(self, phase: int, start_child: int = 0) -> int:
    """Return the bytes of a device that a phase's update needs, state and batch included."""
    analysis = self.program(phase, start_child).memory_analysis()
    return int(analysis.argument_size_in_bytes + analysis.temp_size_in_bytes)

  def shapes(self, phase: int) -> State:
    """Return shapes, dtypes and places of the state of a phase."""
    state = jax.eval_shape(lambda: self._begin(phase))
    return sharding.abstract_state(
      state, sharding.state_shardings(state, self.mesh, self.config.shards)
    )

  def measure(self, start_child: int = 0) -> Any:
    """Return the compiled measure of the task, from pictures or from what the children below make.

    Where training draws patches, whole cases go through the net window by window.
    """
    return self._measured('measure', self.task.measure, start_child)

  def dense(self, start_child: int = 0) -> Any:
    """Return the compiled maps of the task, as `measure` is; None where it has none."""
    return self.task.dense and self._measured('dense', self.task.dense, start_child)

  def _measured(self, name: str, function: Callable, start_child: int) -> Any:
    train = self.data['train']
    size = None if train.draw is None else train.sample().x.shape[:-1]
    places = sharding.replicated(self.mesh)
    return self.memoised(
      (name, start_child),
      lambda: measured(function, self.forward(0, start_child), size, places),
    )

  def with_precise_batch_stats(
    self, phase: int, start_child: int, params: Tree, extra: Tree, inputs: Iterable[Any]
  ) -> Tree:
    """Return `extra` with the running averages of the norms that a phase trains estimated anew.

    They are estimated on `inputs`, for an evaluation.
    """
    variables = {'params': params, **extra}
    live = self.phases[phase].partition.live
    wanted = batch_statistics.training(variables, live, self.config.norms)
    if not wanted:
      return extra
    if start_child:
      below = self.crossing(start_child)
      inputs = (packing.unpack(x, below) for x in inputs)
    key = ('norms', start_child, *sorted(wanted))
    make = lambda: batch_statistics.estimator(self.net, wanted, start_child)
    estimator = self.memoised(key, make)
    return {
      **extra,
      'batch_stats': batch_statistics.estimated(estimator, wanted, variables, inputs),
    }

  def features(self, start_child: int, end_child: int) -> Any:
    """Return the jitted (variables, x) → what children [start, end) make of x, packed."""
    below = self.crossing(start_child) if start_child else None

    def made(variables: Tree, x: Any) -> Any:
      value = packing.unpack(x, below) if below else x
      return packing.pack(self.applied(variables, value, start_child, end_child))

    return self.memoised(('features', start_child, end_child), lambda: jax.jit(made))

  def applied(self, variables: Tree, x: Any, start_child: int, end_child: int) -> Any:
    """Return what crosses the cut at `end_child`: an array, or a tree of them."""
    return self.net.apply(
      variables, x, start_child=start_child, end_child=end_child, method='features'
    )

  def crossing(self, cut: int) -> Any:
    """Return shapes and dtypes of what crosses a cut, of one example."""

    def shapes() -> Any:
      variables = {'params': self.params, **self.extra}
      shape = self.data['train'].sample().x.shape
      picture = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
      return jax.eval_shape(lambda x: self.applied(variables, x, 0, cut), picture)

    return self.memoised(('crossing', cut), shapes)

  @property
  def view(self) -> Any:
    """Return the jitted (batch, view) → the batch as augmentation shows it for the view-th time.

    Each picture is augmented by (seed, view, row).
    """

    def show_one(key: jax.Array, example: Batch) -> Batch:
      assert self.augment is not None
      alone = jax.tree.map(lambda leaf: leaf[None], example)
      shown = self.augment(key, alone)
      return jax.tree.map(lambda leaf: leaf[0], shown)

    def show(batch: Batch, view: int) -> Batch:
      key = jax.random.fold_in(jax.random.key(self.config.seed), view)
      keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(batch.row)
      return jax.vmap(show_one)(keys, batch)

    return self.memoised(('view', self.config.seed), lambda: jax.jit(show))

  def cost(self, cut: int) -> tuple[float, int]:
    """Return (FLOPs below a cut, bytes of what crosses it) of one example."""

    def count() -> tuple[float, int]:
      variables = {'params': self.params, **self.extra}
      pictures = self._zeros(self.data['train']).x
      program = self.features(0, cut)
      packed = jax.eval_shape(program, variables, pictures)
      examples = len(packed)
      flops = step.flops(program.lower(variables, pictures))
      return flops / examples, packed.size * packed.dtype.itemsize // examples

    return self.memoised(('cost', cut), count)

  def program_cache_key(self, phase: int) -> tuple:
    """Return all that tells apart the updates of contexts that are alike.

    The weights of the classes are among it, since other folds have others.
    """
    values = [self.config[name] for name in config_keys.changing('update')]
    return (*self.phases[phase].partition.key, self.class_weights, *values)

  def memoised(self, key: tuple, make: Callable[[], Any]) -> Any:
    if key not in self.programs:
      self.programs[key] = make()
    return self.programs[key]

  def example(self, start_child: int = 0) -> Any:
    """Return what a step sees, of zeros: a batch of pictures, or of what the children below make.

    Of several streams it is {name: batch}.
    """
    train = self.train_example(start_child)
    if not self.streams:
      return train
    streams = {name: self._zeros(dataset) for name, dataset in self.streams.items()}
    return {'train': train, **self._placed(streams)}

  def train_example(self, start_child: int = 0) -> Batch:
    """Return a batch of the training side, of zeros."""
    train = self._zeros(self.data['train'])
    if start_child:
      variables = {'params': self.params, **self.extra}
      packed = jax.eval_shape(self.features(0, start_child), variables, train.x)
      train = train._replace(x=jnp.zeros(packed.shape, packed.dtype))
    return self._placed(train)

  def _placed(self, batches: Tree) -> Any:
    places = jax.tree.map(lambda _: sharding.batch_sharding(self.mesh), batches)
    return sharding.device_put(batches, places)

  def _zeros(self, dataset: Dataset) -> Batch:
    """Return a batch of zeros as the data set gives them."""
    case = dataset.sample()
    labels = np.asarray(case.y)
    count = self.config.batch
    x = jnp.zeros((count, *case.x.shape))
    y = jnp.zeros((count, *labels.shape), jnp.float32 if labels.dtype.kind == 'f' else jnp.int32)
    mask = jnp.ones(count, bool)
    row = jnp.arange(count, dtype=jnp.int32)
    group = jnp.zeros(count, jnp.int32) if 'group' in dataset.table else None
    return Batch(x, y, mask, row, group)

  @property
  def epoch(self) -> int:
    """Return the steps of an epoch."""
    return math.ceil(self.data['train'].size / self.config.batch)

  @property
  def period(self) -> int:
    """Return the steps between evaluations."""
    config = self.config
    total = sum(phase.steps for phase in self.phases)
    size = self.data['train'].size
    return expressions.duration_in_steps(config.every, size, config.batch, total)


def measured(
  function: Callable, forward: Forward, window: Sequence[int] | None, places: Any = None
) -> Callable[[Tree, Tree, Batch], dict[str, Any]]:
  """Return (params, extra, batch) → what a task's measure or dense gives, compiled.

  `places` is where results lie. With a `window` [*s] batches hold one whole case each, of any
  shape: the net is compiled once for its windows, and what follows it once for each shape.
  """
  if window is None:
    return jax.jit(functools.partial(function, forward), out_shardings=places)
  whole = windows.windowed(jax.jit(forward.eval), window)

  @functools.partial(jax.jit, out_shardings=places)
  def of_outputs(outputs: Any, batch: Batch) -> dict[str, Any]:
    known = forward._replace(eval=lambda params, extra, x: outputs)
    return function(known, {}, {}, batch)

  return lambda params, extra, batch: of_outputs(whole(params, extra, batch.x), batch)
