"""config → the context of a run: data sets, net with ported weights, phases."""

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from medtl import models, tasks
from medtl.core import expressions, pytrees
from medtl.core.types import Dataset, MedtlError, Task, Tree
from medtl.data import augmentation, splits
from medtl.models.pretrained import checkpoint_files, port
from medtl.run import components, config_keys, initial_weights, run_data, validate
from medtl.run.context import Phase, RunContext, measured
from medtl.runtime import multihost, sharding
from medtl.training import batch_statistics, optimizers, parameter_groups, schedules
from medtl.training.forward import forward

PAIR = ('0', '1')  # any classes, where none are known


def run_context(
  config: ConfigDict,
  run: Path | None = None,
  like: RunContext | None = None,
  sides: dict[str, Dataset] | None = None,
) -> RunContext:
  """Return the context of a run that trains.

  `run` is the run folder that the weights come from, where they do. What the run has in common with
  `like`, the context of another run, is taken from there: data, weights, compiled programs. `sides`
  stand in for the config's data.
  """
  validate.check_config(config)
  sharding.check_rules(config.shards)
  if sides is None:
    sides = run_data.load_data(config, like)
  if like is not None and like.run == run and shares_weights(like.config, config):
    context = _shared(like, config, sides)
  else:
    context = _new(config, sides, run)
  _stop_random_frozen(context)
  _stop_random_statistics(context)
  return context


def _shared(like: RunContext, config: ConfigDict, sides: dict[str, Dataset]) -> RunContext:
  """Return the context of a run that has its weights and programs in common with another."""
  train = sides['train']
  context = dataclasses.replace(
    like,
    config=config,
    data=sides,
    phases=phases(config, like.params, train.size),
    class_weights=run_data.class_weights(config, train),
    choices={},
  )
  drawn_alike = all(like.config[name] == config[name] for name in config_keys.changing('draws'))
  return context if drawn_alike else _reseeded(context)


def _new(config: ConfigDict, sides: dict[str, Dataset], run: Path | None) -> RunContext:
  """Return the context of a run that has nothing in common with another one."""
  train = sides['train']
  shape = train.sample().x.shape
  net, module = build_net(config, shape, train.classes)
  net, params, extra, source = initial_weights.initial_variables(config, net, module, train, run)
  drawn = source.pop('drawn')
  augment = None
  if config.augment:
    axes = len(shape) - 1
    augment = augmentation.augment(config.augment, ndim=axes, classes=len(train.classes))
  task = tasks.make(config.task.to_dict())
  return RunContext(
    config,
    sides,
    net,
    params,
    _statistics(config, net, params, extra, train),
    source,
    task,
    phases(config, params, train.size),
    augment,
    run_data.class_weights(config, train),
    run,
    drawn=drawn,
    streams=run_data.load_streams(config, task, shape),
  )


def _stop_random_frozen(context: RunContext) -> None:
  """Raise where a phase freezes parameters that chance drew: nothing was transferred to them."""
  if context.config.random_frozen:
    return
  for number, phase in enumerate(context.phases, 1):
    live = pytrees.flatten(phase.partition.live)
    frozen = [path for path in live if not live[path]]
    random = pytrees.children(context.drawn.intersection(frozen))
    if random:
      raise _random_frozen(context.config, number, phase, random)


def _random_frozen(
  config: ConfigDict, number: int, phase: Phase, children: Sequence[str]
) -> MedtlError:
  """Return the error of a phase that freezes children as chance drew them."""
  weights = sorted(components.backbone_module(config).WEIGHTS)
  shown = ', '.join(children[:3])
  if len(children) > 3:
    shown += f' … {children[-1]}'
  return MedtlError(
    f'phase {number} freezes {phase.freeze}, but nothing was transferred to parameters of {shown}: '
    'frozen, they would stay as chance drew them. Give a checkpoint (config.model.weights=FILE, or '
    f"one of: {', '.join(weights) or 'none'}), freeze nothing (config.phases=(('none', '10 "
    "epochs'),)), or set config.random_frozen=True for the control of a transfer"
  )


def _stop_random_statistics(context: RunContext) -> None:
  """Raise where config.norms keep statistics of a backbone that no checkpoint gave: 0 and 1."""
  config = context.config
  if config.random_frozen:
    return
  statistics = pytrees.flatten(context.extra.get('batch_stats', {}))
  kept = []
  for path in sorted({leaf.rpartition('/')[0] for leaf in statistics}):
    of_backbone = path.startswith('backbone/')
    is_drawn = f'{path}/scale' in context.drawn
    if of_backbone and is_drawn and batch_statistics.policy(path, config.norms) == 'source':
      kept.append(path)
  if kept:
    raise MedtlError(
      f'config.norms keeps the statistics of {len(kept)} norms (first {kept[0]}), but no '
      'checkpoint gave them: they would stay 0 and 1, and the net would hardly learn. Let the '
      'norms train (--config.norms="()"), give a checkpoint (config.model.weights), or set '
      'config.random_frozen=True for the control of a transfer'
    )


def _reseeded(context: RunContext) -> RunContext:
  """Return the context with what chance draws of its weights drawn anew, by its config's seed."""
  config = context.config
  train = context.data['train']
  net, module = build_net(config, train.sample().x.shape, train.classes)
  net, params, extra, _ = initial_weights.initial_variables(config, net, module, train, context.run)
  extra = _statistics(config, net, params, extra, train)
  return dataclasses.replace(context, params=params, extra=extra)


def _statistics(
  config: ConfigDict, net: models.Net, params: Tree, extra: Tree, train: Dataset
) -> Tree:
  """Return `extra` with the statistics of config.norms 'target' estimated on training pictures.

  Only whole batches are used.
  """
  statistics = extra.get('batch_stats', {})
  batch_statistics.check(config.norms, statistics)
  norms = {path.rpartition('/')[0] for path in pytrees.flatten(statistics)}
  wanted = {path for path in norms if batch_statistics.policy(path, config.norms) == 'target'}
  if not wanted:
    return extra
  batches = run_data.eval_batches(train, config)
  pictures = (batch.x for batch in batches if multihost.to_numpy(batch.mask).all())
  estimator = batch_statistics.estimator(net, wanted)
  variables = {'params': params, **extra}
  estimated = batch_statistics.estimated(estimator, wanted, variables, pictures)
  return {**extra, 'batch_stats': estimated}


def build_net(
  config: ConfigDict, shape: Sequence[int], classes: Sequence[str]
) -> tuple[models.Net, Any]:
  """Return (the net for pictures of `shape` [*s, c], not yet normalising; its family's module).

  The module holds RENAMES and WEIGHTS.
  """
  sides = tuple(shape[:-1])
  if config.slices and len(sides) != 3:
    raise MedtlError(
      f'config.slices={config.slices} is for volumes, found pictures of {len(sides)} axes; leave '
      'it at 0'
    )
  seen = sides[1:] if config.slices else sides  # by the backbone
  model = config.model.to_dict()
  model.pop('weights')
  backbone, module = _component(
    model, 'medtl.models.backbones', 'model', _filled(seen, dtype(config))
  )
  filled = _filled(sides, dtype(config))
  outputs = tasks.make(config.task.to_dict()).outputs(classes)
  keys = config.head.to_dict()
  _, package = components.head_of(keys['name'])
  head, _ = _component(keys, package, 'head', filled, outputs)
  net = models.Net(backbone, head, num_children=config.truncate, slices=config.slices)
  return net.clone(remat=_rematerialised(config.remat, net.children)), module


def _filled(sides: tuple[int, ...], number: Any) -> dict[str, Any]:
  """Return the keys of a model or head that the data and the dtype decide."""
  return dict(zip(components.FILLED, (sides, len(sides), number), strict=True))


def _rematerialised(patterns: Sequence[str], children: Sequence[str]) -> tuple[str, ...]:
  """Return the children that are computed anew in the backward pass."""
  matched = set()
  for pattern in patterns:
    regex = expressions.compiled_regex(pattern, 'config.remat')
    names = [name for name in children if regex.fullmatch(name)]
    if not names:
      raise MedtlError(
        f'config.remat: {pattern!r} matches no child; there are: {", ".join(children)}'
      )
    matched.update(names)
  return tuple(name for name in children if name in matched)


def _component(
  keys: dict[str, Any], package: str, what: str, filled: dict[str, Any], *given: Any
) -> tuple[Any, Any]:
  """Return (what a component's function makes of `given` and its keys, the module it is of).

  What it takes of `filled` and the keys leave out is filled in.
  """
  known = inspect.signature(expressions.find(keys['name'], package)).parameters
  wanted = {name: value for name, value in filled.items() if name in known and name not in keys}
  first = tuple(known)[: len(given)]
  factory, options = expressions.component(keys, package, what, given=(*first, *wanted))
  component = factory(*given, **options, **wanted)
  return component, sys.modules[factory.__module__]


def pretrained_classifier(
  config: ConfigDict, shape: Sequence[int]
) -> tuple[models.Net, Tree] | None:
  """Return (net, variables) of the config's checkpoint with its own classifier.

  The net takes pictures of `shape` [*s, c]. None where the checkpoint has no classifier.
  """
  weights = config.model.weights
  if not weights or weights.startswith('run:'):
    return None
  keys = config.model.to_dict()
  model = {name: value for name, value in keys.items() if not name.startswith('lora')}
  changes = {
    'head': {'name': 'linear'},
    'fresh': (),
    'truncate': 0,
    'transfer': 'weights',
    'model': model,
    'task': {'name': 'classification', 'kind': 'multiclass', 'loss': 'softmax'},
  }
  whole = with_changes(config, list(changes.items()))
  _, module = build_net(whole, shape, PAIR)
  source = checkpoint_files.locate(weights, module.WEIGHTS)
  unheard: list[str] = []  # from_publisher says it below
  arrays = checkpoint_files.read(source.path, module.RENAMES, part=source.part, say=unheard.append)
  classes = port.outputs(arrays, module.RENAMES)
  if not classes:
    return None
  net, _ = build_net(whole, shape, [str(index) for index in range(classes)])
  pictures = jnp.zeros((1, *shape))
  begun = jax.eval_shape(lambda: net.init(jax.random.key(0), pictures, train=False))
  arrived, facts = initial_weights.from_publisher(begun, whole, module)
  return _normalising(net, facts), arrived


def _normalising(net: models.Net, facts: Mapping[str, Any]) -> models.Net:
  """Return the net that normalises its input by the mean and std that facts or a plan hold."""
  return net.clone(mean=tuple(facts['mean']), std=tuple(facts['std']))


def count_children(config: ConfigDict) -> int:
  """Return how many children of the backbone are applied: depth(children) is the linear probe."""
  net, _ = blank_net(config)
  return len(net.children)


def blank_net(config: ConfigDict) -> tuple[models.Net, tuple[int, ...]]:
  """Return (the config's net, a shape [*s, c] that it takes) before any data are read."""
  axes = config.model.to_dict().get('ndim', 3 if config.slices else 2)
  shape = (*config.model.to_dict().get('size', (224,) * axes), 1)
  net, _ = build_net(config, shape, PAIR)
  return net, shape


def trained_net(config: ConfigDict, plan: dict[str, Any]) -> tuple[Task, Callable, Callable | None]:
  """Return (task, measure, dense) of a finished run, from its config and plan.json alone."""
  net, _ = build_net(config, plan['shape'], plan['classes'])
  apply = forward(_normalising(net, plan))
  task = tasks.make(config.task.to_dict())
  draws_patches = bool(config.data.to_dict().get('draw'))
  window = plan['shape'][:-1] if draws_patches else None
  dense = task.dense and measured(task.dense, apply, window)
  return task, measured(task.measure, apply, window), dense


def dtype(config: ConfigDict) -> Any:
  """Return the dtype of the computation."""
  return jnp.dtype(config.dtype)


def phases(config: ConfigDict, params: Tree, examples: int) -> list[Phase]:
  """Return the phases with their partitions.

  Optimizer groups that stay the same keep their name, and so their state.
  """
  durations = [duration for _, duration in config.phases]
  steps = [
    expressions.duration_in_steps(duration, examples, config.batch) for duration in durations
  ]
  factors = _schedule_factors(config, examples, sum(steps))
  direction = expressions.single_function(config.optimizer, optimizers, given=('decay',))
  shapes = jax.eval_shape(lambda: params)
  transferred = _transferred(config, shapes)
  phases: list[Phase] = []
  labels = None
  for index, (freeze, _) in enumerate(config.phases):
    rules = parameter_groups.rule_table(
      shapes,
      freeze,
      decay=config.decay,
      head_lr=config.head_lr,
      lr_decay=config.lr_decay,
      rules=config.rules,
    )
    partition = parameter_groups.partition(
      shapes,
      rules,
      direction=direction,
      lr=config.lr,
      factors=factors,
      clip=config.clip,
      ema=config.ema,
      phase=index,
      before=labels,
      l2_sp=config.l2_sp,
      transferred=transferred,
    )
    labels = partition.labels
    depth = parameter_groups.frozen_depth(partition.live)
    phases.append(Phase(freeze, steps[index], partition, depth))
  return phases


def _schedule_factors(config: ConfigDict, examples: int, total: int) -> np.ndarray:
  """Return [total], the factor of the schedule at each step."""

  def count(duration: str | int) -> int:
    return expressions.duration_in_steps(duration, examples, config.batch, total, least=0)

  schedule = expressions.single_function(config.schedule, schedules, given=('total', 'steps'))
  factor = jax.vmap(schedule(total, count))
  return np.asarray(jax.jit(factor)(np.arange(total)))


def _transferred(config: ConfigDict, shapes: Tree) -> Tree:
  """Return for each leaf whether it comes from the checkpoint."""
  own = getattr(components.backbone_module(config), 'FRESH', ())
  fresh = [re.compile(pattern) for pattern in (*config.fresh, *own)]

  def comes(keys: Any, _: Any) -> bool:
    path = pytrees.path_of(keys)
    return not any(pattern.fullmatch(path) for pattern in fresh)

  return jax.tree_util.tree_map_with_path(comes, shapes)


def with_changes(config: ConfigDict, changes: Sequence[tuple[str, Any]]) -> ConfigDict:
  """Return the config with ('model.weights', '') … set and nothing to compare with.

  An unknown key is an error.
  """
  new = ConfigDict(config.to_dict())
  new.compare = ()
  for key, value in changes:
    *parents, last = key.split('.')
    node = new
    for name in parents:
      node = node[name]
    if last not in node:
      raise MedtlError(f'no config key {key!r} to change; {expressions.did_you_mean(last, node)}')
    with node.ignore_type():
      node[last] = value
  return new.lock()


def shares_weights(first: ConfigDict, second: ConfigDict) -> bool:
  """Return whether two configs have pictures, net and weights in common.

  They may differ in split, schedule and choice. From scratch the pictures are scaled by the
  training side's own mean, and norms may be estimated on it: another split is another net.
  """
  policies = [policy for _, policy in (*first.norms, *second.norms)]
  estimated = 'target' in policies
  scaled = _has_own_scale(first) and _has_own_scale(second)
  same_split = estimated or not scaled
  kept = _kept_apart(first, same_split, same_batch=estimated)
  return kept == _kept_apart(second, same_split, same_batch=estimated)


def _has_own_scale(config: ConfigDict) -> bool:
  """Return whether the pictures are scaled by numbers that do not come from the training side."""
  return bool(config.model.weights or (config.mean and config.std))


def _kept_apart(config: ConfigDict, same_split: bool, same_batch: bool) -> dict[str, Any]:
  """Return the keys of a config that runs must have in common to share their weights."""
  keys = config.to_dict()
  data = keys['data']
  free = set(config_keys.shareable())
  if same_batch:  # norms are estimated in batches
    free.discard('batch')
  kept = {name: value for name, value in keys.items() if name not in free}
  if not same_split:
    kept['data'] = {name: value for name, value in data.items() if name != 'split'}
  return kept


def as_full_fine_tune(context: RunContext) -> RunContext:
  """Return the same run as a full fine-tune: what a phase's cost is measured against."""
  changes = {'phases': (('none', '1 steps'),), 'rules': ()}
  config = with_changes(context.config, list(changes.items()))
  whole = phases(config, context.params, context.data['train'].size)
  return dataclasses.replace(context, config=config, phases=whole, choices={})


def one_line(context: RunContext) -> str:
  """Return in one line what goes into the run."""
  model = context.config.model.name
  weights = context.source['name']
  facts = context.data['train'].facts
  name = facts.get('name', context.config.data.name)
  sizes = ', '.join(f'{dataset.size} {side}' for side, dataset in context.data.items())
  return f'{model} ({weights}) on {name}: {sizes}; {len(context.classes)} classes'


def plan_json(context: RunContext, rows: list[dict[str, Any]]) -> dict[str, Any]:
  """Return the facts that are measured once.

  They are shape, classes, input statistics, hashes of the split, parameters, phases (`rows`).
  """
  train = context.data['train']
  plan: dict[str, Any] = {}
  plan['shape'] = list(train.sample().x.shape)
  plan['classes'] = list(train.classes)
  plan['task'] = dict(context.task.keys)
  plan['label_columns'] = np.ndim(train.table['y']) == 2
  plan['mean'] = list(context.net.mean)
  plan['std'] = list(context.net.std)
  plan['parameters'] = pytrees.count_parameters(context.params)
  plan['splits'] = {name: _side_facts(name, side) for name, side in context.data.items()}
  plan['data'] = dict(train.facts)
  plan['weights'] = context.source
  plan['phases'] = rows
  return plan


def _side_facts(name: str, side: Dataset) -> dict[str, Any]:
  """Return what the plan says of a side of the split."""
  rows = np.arange(side.size)
  patients = None
  if 'patient' in side.table:
    patients = len(np.unique(side.table['patient']))
  return {
    'size': side.size,
    'hash': splits.split_hash(side.table, {name: rows}),
    'patients': patients,
    'classes': run_data.class_counts(side),
  }
