"""config → the context of a run: data sets, net with ported weights, phases. With run.py the only place that reads a config."""

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from medtl import data, models, tasks
from medtl.core import expressions, pytrees
from medtl.core.types import Batch, Dataset, Example, MedtlError, Task, Tree
from medtl.data import augmentation, batches, splits
from medtl.models.pretrained import checkpoint_files, port
from medtl.run import components, initial_weights, validate
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
    sides = load_data(config, like)
  train = sides['train']
  balance = class_weights(config, train)
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
    return same if like.config.seed == config.seed else _reseeded(same)
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
    streams=load_streams(config, task),
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


def load_data(config: ConfigDict, like: RunContext | None = None) -> dict[str, Dataset]:
  """Return the sides of a run's data, checked; those of `like` where they are the same."""
  if like is not None and like.config.data == config.data:
    sides = like.data
  else:
    with multihost.main_process_first('data'):
      sides = data.load(**config.data.to_dict())
  validate.check_training(config, sides, sharding.make_mesh(**config.mesh).size)
  return sides


def load_streams(config: ConfigDict, task: Task) -> dict[str, Dataset]:
  """Return the training sides of the streams that a task reads beside its own, without labels."""
  wanted = task.streams[1:]
  given = config.streams.to_dict()
  if set(given) != set(wanted):
    raise MedtlError(
      f'config.streams holds {sorted(given) or "nothing"}, and the task {config.task.name} reads '
      f'{sorted(wanted) or "no other data than config.data"}; give each of them the keys of a data '
      "set, such as streams=dict(target=dict(name='folder.load', root=FOLDER, split=…))"
    )
  with multihost.main_process_first('streams'):
    return {name: _unlabelled(data.load(**given[name])['train']) for name in wanted}


def _unlabelled(dataset: Dataset) -> Dataset:
  """Return the data set with every label hidden: what a task learns from it cannot be its labels."""
  table = {**dataset.table, 'y': np.full(dataset.size, -1, np.int32)}

  def fetch(index: int) -> Example:
    return dataset.fetch(index)._replace(y=np.array(-1, np.int32))

  return dataclasses.replace(dataset, fetch=fetch, table=table)


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
    batch.x for batch in eval_batches(train, config) if multihost.to_numpy(batch.mask).all()
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


def class_weights(config: ConfigDict, dataset: Dataset) -> tuple[float, ...] | None:
  """Return a weight for each class, inverse to its frequency among the training examples, mean one over the examples."""
  if not config.class_weights:
    return None
  y = np.asarray(dataset.table['y'])
  counts = np.bincount(y, minlength=len(dataset.classes)) if y.ndim == 1 else y.sum(0)
  return tuple(float(value) for value in counts.sum() / len(counts) / np.maximum(1, counts))


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


# keys that change neither the net and its first weights nor a program but by its key: see RunContext.program_cache_key
FREE = (
  'phases',
  'rules',
  'lr',
  'head_lr',
  'lr_decay',
  'decay',
  'schedule',
  'clip',
  'ema',
  'l2_sp',
  'every',
  'patience',
  'class_weights',
  'sampling',
  'views',
  'cache',
  'monitor',
  'resamples',
  'threshold',
  'workers',
  'batch',
  'accumulate',
  'hint',
  'compare',
  'norm_images',
  'random_frozen',
  'seed',
)


def shares_weights(first: ConfigDict, second: ConfigDict) -> bool:
  """Return whether two configs have pictures, net and weights in common; they may differ in split, schedule and choice.

  From scratch the pictures are scaled by the training side's own mean, and norms may be estimated on it: another split is another net.
  """
  estimated = any(
    policy == 'target' for made in (first, second) for _, policy in made.norms
  )  # in batches
  scaled = [
    bool(made.model.weights or (made.mean and made.std)) and not estimated
    for made in (first, second)
  ]
  kept = [
    {
      key: value
      for key, value in made.to_dict().items()
      if key not in FREE or (estimated and key == 'batch')
    }
    for made in (first, second)
  ]
  for one in kept:
    one['data'] = {
      key: value for key, value in one['data'].items() if key != 'split' or not all(scaled)
    }
  return kept[0] == kept[1]


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
      'classes': class_counts(dataset),
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


def class_counts(dataset: Dataset) -> dict[str, int]:
  """Return how many examples each class has; of masks, each class of the pictures."""
  y = np.asarray(dataset.table['y'])
  names = dataset.strata
  many = np.bincount(y[y >= 0], minlength=len(names)) if y.ndim == 1 else y.sum(0)
  return {name: int(number) for name, number in zip(names, many, strict=True)}


def eval_batches(dataset: Dataset, config: ConfigDict) -> Iterator[Batch]:
  """Return batches on the device that hold every example once."""
  whole = 1 if dataset.draw is not None else min(config.batch, dataset.size)  # shapes may differ
  count = sharding.round_up_to_devices(whole, sharding.make_mesh(**config.mesh))
  return _on_device(
    batches.eval_batches(dataset, count, workers=config.workers, share=multihost.host_share()),
    config,
  )


def train_batches(
  dataset: Dataset, config: ConfigDict, start: int = 0, sampling: str = '', views: int = 1
) -> Iterator[Batch]:
  """Return the batches of steps start, start + 1, … on the device, see stream.batches."""
  return _on_device(
    batches.train_batches(
      dataset,
      config.batch,
      seed=config.seed,
      start=start,
      workers=config.workers,
      sampling=sampling,
      views=views,
      share=multihost.host_share(),
    ),
    config,
  )


def step_batches(
  context: RunContext, train: Dataset, start: int = 0, views: int = 1
) -> Iterator[Any]:
  """Return what the steps start, start + 1, … see: batches of the training side, or {stream: batch}."""
  config = context.config
  own = train_batches(train, config, start, config.sampling, views)
  if not context.streams:
    return own
  read = {name: train_batches(dataset, config, start) for name, dataset in context.streams.items()}
  names = ['train', *read]
  return (
    dict(zip(names, batches, strict=True)) for batches in zip(own, *read.values(), strict=False)
  )


def norm_pictures(context: RunContext, train: Dataset) -> Iterator[Any]:
  """Return pictures x as a step normalises them: of the training side, and of each stream."""
  own = train_batches(train, context.config)
  if not context.streams:
    return (batch.x for batch in own)
  read = [train_batches(dataset, context.config) for dataset in context.streams.values()]
  together = zip(own, *read, strict=False)
  return (jnp.concatenate([batch.x for batch in batches]) for batches in together)


def _on_device(read: Iterable[Batch], config: ConfigDict) -> Iterator[Batch]:
  over = sharding.make_mesh(**config.mesh)
  return (sharding.device_put_batch(batch, over) for batch in read)
