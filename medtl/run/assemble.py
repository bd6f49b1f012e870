"""config → the context of a run: data sets, net with ported weights, phases. With run.py the only place that reads a config."""

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Sequence
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
  """Return the context of a run that trains; `run` is the run folder that the weights come from, where they do.

  What it has in common with `like`, the context of another run, is taken from there: data, weights, compiled programs. `sides` stand
  in for the config's data.
  """
  validate.check_config(config)
  sharding.check_rules(config.shards)
  if sides is None:
    sides = run_data.load_data(config, like)
  train = sides['train']
  balance = run_data.class_weights(config, train)
  if like is not None and like.run == run and shares_weights(like.config, config):
    same = dataclasses.replace(
      like,
      config=config,
      data=sides,
      phases=phases(config, like.params, train.size),
      class_weights=balance,
      choices={},
    )
    _stop_random_frozen(same)
    return same if _draws_alike(like.config, config) else _reseeded(same)
  net, module = build_net(config, train.sample().x.shape, train.classes)
  net, params, extra, source = initial_weights.initial_variables(config, net, module, train, run)
  extra = _statistics(config, net, params, extra, train)
  moves = (
    augmentation.augment(config.augment, ndim=train.sample().x.ndim - 1, classes=len(train.classes))
    if config.augment
    else None
  )
  drawn = source.pop('drawn')
  task = tasks.make(config.task.to_dict())
  made = RunContext(
    config,
    sides,
    net,
    params,
    extra,
    source,
    task,
    phases(config, params, train.size),
    moves,
    balance,
    run,
    drawn=drawn,
    streams=run_data.load_streams(config, task),
  )
  _stop_random_frozen(made)
  return made


def _stop_random_frozen(context: RunContext) -> None:
  """Raise where a phase freezes parameters that chance drew: nothing was transferred to them."""
  if context.config.random_frozen:
    return
  for index, phase in enumerate(context.phases):
    still = [path for path, live in pytrees.flatten(phase.partition.live).items() if not live]
    random = pytrees.children(context.drawn.intersection(still))
    if random:
      module = sys.modules[
        expressions.find(context.config.model.name, 'medtl.models.backbones').__module__
      ]
      known = ', '.join(sorted(module.WEIGHTS))
      shown = ', '.join(random[:3]) + (f' … {random[-1]}' if len(random) > 3 else '')
      raise MedtlError(
        f'phase {index + 1} freezes {phase.freeze}, but nothing was transferred to parameters of {shown}: frozen, they would '
        f'stay as chance drew them. Give a checkpoint (config.model.weights=FILE, or one of: {known or "none"}), freeze nothing '
        "(config.phases=(('none', '10 epochs'),)), or set config.random_frozen=True for the control of a transfer"
      )


def _draws_alike(first: ConfigDict, second: ConfigDict) -> bool:
  """Return whether chance draws the same weights for both configs."""
  return all(first[name] == second[name] for name in config_keys.changing('draws'))


def _reseeded(like: RunContext) -> RunContext:
  """Return context of another seed than the weights that they hold: leaves that do not come from the checkpoint are drawn anew."""
  config, train = like.config, like.data['train']
  net, module = build_net(config, train.sample().x.shape, train.classes)
  net, params, extra, _ = initial_weights.initial_variables(config, net, module, train, like.run)
  return dataclasses.replace(
    like, params=params, extra=_statistics(config, net, params, extra, train)
  )


def _statistics(
  config: ConfigDict, net: models.Net, params: Tree, extra: Tree, train: Dataset
) -> Tree:
  """Return the batch statistics with those of config.norms 'target' estimated on the training pictures, in whole batches."""
  batch_statistics.check(config.norms, extra.get('batch_stats', {}))
  paths = {path.rpartition('/')[0] for path in pytrees.flatten(extra.get('batch_stats', {}))}
  wanted = {path for path in paths if batch_statistics.policy(path, config.norms) == 'target'}
  if not wanted:
    return extra
  pictures = (
    batch.x
    for batch in run_data.eval_batches(train, config)
    if multihost.to_numpy(batch.mask).all()
  )
  return {
    **extra,
    'batch_stats': batch_statistics.estimated(
      batch_statistics.estimator(net, wanted), wanted, {'params': params, **extra}, pictures
    ),
  }


def build_net(
  config: ConfigDict, shape: Sequence[int], classes: Sequence[str]
) -> tuple[models.Net, Any]:
  """Return the net for pictures of `shape` [*s, c], not yet normalising, and the module with its family's RENAMES and WEIGHTS."""
  values = (tuple(shape[:-1]), len(shape) - 1, dtype(config))
  filled = dict(zip(components.FILLED, values, strict=True))
  model = {name: value for name, value in config.model.to_dict().items() if name != 'weights'}
  backbone, module = _made(model, 'medtl.models.backbones', 'model', filled)
  outputs = tasks.make(config.task.to_dict()).outputs(classes)
  keys = config.head.to_dict()
  _, package = components.head_of(keys['name'])
  head, _ = _made(keys, package, 'head', filled, outputs)
  made = models.Net(backbone, head, num_children=config.truncate)
  for pattern in config.remat:
    if not any(
      expressions.compiled_regex(pattern, 'config.remat').fullmatch(name) for name in made.children
    ):
      raise MedtlError(
        f'config.remat: {pattern!r} matches no child; there are: {", ".join(made.children)}'
      )
  again = tuple(
    name for name in made.children if any(re.fullmatch(pattern, name) for pattern in config.remat)
  )
  return made.clone(remat=again), module


def _made(
  keys: dict[str, Any], package: str, what: str, filled: dict[str, Any], *given: Any
) -> tuple[Any, Any]:
  """Return (what a component's function makes of `given` and its keys, the module it is of).

  What it takes of `filled` and the keys leave out is filled in.
  """
  known = inspect.signature(expressions.find(keys['name'], package)).parameters
  wanted = {name: value for name, value in filled.items() if name in known and name not in keys}
  first = tuple(known)[: len(given)]
  factory, options = expressions.component(keys, package, what, given=(*first, *wanted))
  return factory(*given, **options, **wanted), sys.modules[factory.__module__]


def pretrained_classifier(
  config: ConfigDict, shape: Sequence[int]
) -> tuple[models.Net, Tree] | None:
  """Return (net, variables) of the config's checkpoint with its own classifier, for pictures of `shape` [*s, c]; None where it has none."""
  if not config.model.weights or config.model.weights.startswith('run:'):
    return None
  model = {
    key: value for key, value in config.model.to_dict().items() if not key.startswith('lora')
  }
  whole = with_changes(
    config,
    (
      ('head', {'name': 'linear'}),
      ('fresh', ()),
      ('truncate', 0),
      ('transfer', 'weights'),
      ('model', model),
      ('task', {'name': 'classification', 'kind': 'multiclass', 'loss': 'softmax'}),
    ),
  )
  module = build_net(whole, shape, PAIR)[1]
  source = checkpoint_files.locate(config.model.weights, module.WEIGHTS)
  unheard: list[str] = []  # from_publisher says it below
  arrays = checkpoint_files.read(source.path, module.RENAMES, part=source.part, say=unheard.append)
  classes = port.outputs(arrays, module.RENAMES)
  if not classes:
    return None
  net, _ = build_net(whole, shape, [str(index) for index in range(classes)])
  begun = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))
  arrived, facts = initial_weights.from_publisher(begun, whole, module)
  return net.clone(mean=tuple(facts['mean']), std=tuple(facts['std'])), arrived


def count_children(config: ConfigDict) -> int:
  """Return how many children of the config's backbone are applied: depth(children) is the linear probe."""
  return len(build_net(config, (224, 224, 1), PAIR)[0].children)


def trained_net(config: ConfigDict, plan: dict[str, Any]) -> tuple[Task, Callable, Callable | None]:
  """Return (task, measure, dense) of a finished run, from its config and plan.json alone."""
  net, _ = build_net(config, plan['shape'], plan['classes'])
  net = net.clone(mean=tuple(plan['mean']), std=tuple(plan['std']))
  task = tasks.make(config.task.to_dict())
  size = plan['shape'][:-1] if config.data.to_dict().get('draw') else None
  dense = task.dense and measured(task.dense, forward(net), size)
  return task, measured(task.measure, forward(net), size), dense


def dtype(config: ConfigDict) -> Any:
  """Return the dtype of the computation."""
  return jnp.dtype(config.dtype)


def phases(config: ConfigDict, params: Tree, examples: int) -> list[Phase]:
  """Return the phases with their partitions; optimizer groups that stay the same keep their name, and so their state."""
  steps = [
    expressions.duration_in_steps(duration, examples, config.batch) for _, duration in config.phases
  ]
  total = sum(steps)
  count = lambda duration: expressions.duration_in_steps(
    duration, examples, config.batch, total, least=0
  )
  factor = expressions.single_function(config.schedule, schedules, given=('total', 'steps'))(
    total, count
  )
  factors = np.asarray(jax.jit(jax.vmap(factor))(np.arange(total)))
  direction = expressions.single_function(config.optimizer, optimizers, given=('decay',))
  shapes = jax.eval_shape(lambda: params)
  own = getattr(
    sys.modules[expressions.find(config.model.name, 'medtl.models.backbones').__module__],
    'FRESH',
    (),
  )
  came = jax.tree_util.tree_map_with_path(
    lambda keys, _: (
      not any(re.fullmatch(pattern, pytrees.path_of(keys)) for pattern in (*config.fresh, *own))
    ),
    shapes,
  )
  found: list[Phase] = []
  before = None
  for index, (freeze, _) in enumerate(config.phases):
    rules = parameter_groups.rule_table(
      shapes,
      freeze,
      decay=config.decay,
      head_lr=config.head_lr,
      lr_decay=config.lr_decay,
      rules=config.rules,
    )
    made = parameter_groups.partition(
      shapes,
      rules,
      direction=direction,
      lr=config.lr,
      factors=factors,
      clip=config.clip,
      ema=config.ema,
      phase=index,
      before=before,
      l2_sp=config.l2_sp,
      transferred=came,
    )
    before = made.labels
    found.append(Phase(freeze, steps[index], made, parameter_groups.frozen_depth(made.live)))
  return found


def with_changes(config: ConfigDict, changes: Sequence[tuple[str, Any]]) -> ConfigDict:
  """Return the config with ('model.weights', '') … set and nothing to compare with; an unknown key is an error."""
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
  policies = [policy for config in (first, second) for _, policy in config.norms]
  estimated = 'target' in policies
  same_split = estimated or not all(_has_own_scale(config) for config in (first, second))
  kept = [_kept_apart(config, same_split, same_batch=estimated) for config in (first, second)]
  return kept[0] == kept[1]


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
  config = with_changes(context.config, (('phases', (('none', '1 steps'),)), ('rules', ())))
  return dataclasses.replace(
    context,
    config=config,
    phases=phases(config, context.params, context.data['train'].size),
    choices={},
  )


def one_line(context: RunContext) -> str:
  """Return in one line what goes into the run."""
  sizes = ', '.join(f'{dataset.size} {name}' for name, dataset in context.data.items())
  name = context.data['train'].facts.get('name', context.config.data.name)
  return f'{context.config.model.name} ({context.source["name"]}) on {name}: {sizes}; {len(context.classes)} classes'


def plan_json(context: RunContext, rows: list[dict[str, Any]]) -> dict[str, Any]:
  """Return the facts that are measured once: shape, classes, input statistics, hashes of the split, parameters, phases."""
  sides = {
    name: {
      'size': dataset.size,
      'hash': splits.split_hash(dataset.table, {name: np.arange(dataset.size)}),
      'patients': len(np.unique(dataset.table['patient'])) if 'patient' in dataset.table else None,
      'classes': run_data.class_counts(dataset),
    }
    for name, dataset in context.data.items()
  }
  train = context.data['train']
  return {
    'shape': list(train.sample().x.shape),
    'classes': list(train.classes),
    'task': dict(context.task.keys),
    'label_columns': np.ndim(train.table['y']) == 2,
    'mean': list(context.net.mean),
    'std': list(context.net.std),
    'parameters': pytrees.count_parameters(context.params),
    'splits': sides,
    'data': dict(train.facts),
    'weights': context.source,
    'phases': rows,
  }
