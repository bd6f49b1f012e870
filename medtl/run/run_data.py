"""What a run reads: its data sets, batches of them on the devices, how often each class occurs."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from medtl import data
from medtl.core.types import Batch, Dataset, Example, MedtlError, Task
from medtl.data import batches
from medtl.run import other_data, validate
from medtl.run.context import RunContext
from medtl.runtime import multihost, sharding


def load_data(config: ConfigDict, like: RunContext | None = None) -> dict[str, Dataset]:
  """Return the sides of a run's data, checked; those of `like` where they are the same."""
  if like is not None and like.config.data == config.data:
    sides = like.data
  else:
    with multihost.main_process_first('data'):
      sides = data.load(**config.data.to_dict())
  validate.check_training(config, sides, sharding.make_mesh(**config.mesh).size)
  return sides


def untrained_values(sides: Mapping[str, Dataset]) -> list[str]:
  """Return in words which values of a table's categories no training row has, but others do."""
  train = sides['train']
  flags = list(train.facts.get('flags', ()))
  if not flags:
    return []
  columns = train.facts['columns']
  in_training = _count_flags(train, flags)
  notes = []
  for name, side in sides.items():
    counts = np.where(in_training == 0, _count_flags(side, flags), 0)
    for place in np.flatnonzero(counts).tolist():
      notes.append(
        f'{columns[flags[place]]} stands in {int(counts[place])} rows of {name} and in none of '
        'train: what the net makes of it is chance'
      )
  return notes


def _count_flags(side: Dataset, flags: Sequence[int]) -> np.ndarray:
  """Return in how many rows each of these columns of 0 and 1 is 1."""
  return sum((side.fetch(index).x[flags] > 0 for index in range(side.size)), np.zeros(len(flags)))


def load_streams(config: ConfigDict, task: Task, shape: Sequence[int]) -> dict[str, Dataset]:
  """Return the training sides of the streams that a task reads beside its own, without labels.

  `shape` [*s, c] is that of the run's own examples, which every stream must have.
  """
  wanted = task.streams[1:]
  given = config.streams.to_dict()
  if set(given) != set(wanted):
    raise MedtlError(
      f'config.streams holds {sorted(given) or "nothing"}, and the task {config.task.name} reads '
      f'{sorted(wanted) or "no other data than config.data"}; give each of them the keys of a data '
      "set, such as streams=dict(target=dict(name='folder.load', root=FOLDER, split=…))"
    )
  streams = {}
  for name in wanted:
    place = f'config.streams.{name}'
    with multihost.main_process_first(f'streams {name}'), other_data.read_as(place):
      dataset = _stream(given[name], place)
    _same_shape(dataset, shape, place)
    streams[name] = _unlabelled(dataset)
  return streams


def _stream(keys: Mapping[str, Any], place: str) -> Dataset:
  """Return the training side of a stream; all of one that is not split."""
  split = keys.get('split', {'by': 'none'})
  sides = data.load(**{**keys, 'split': split})
  if split['by'] == 'none':
    return sides['test']
  if 'train' not in sides:
    raise MedtlError(
      f'{place} has no training side; leave its split out to learn from all of it, or split it '
      "otherwise, such as split=dict(by='patient')"
    )
  return sides['train']


def _same_shape(dataset: Dataset, shape: Sequence[int], place: str) -> None:
  """Raise where the examples of a stream have another shape [*s, c] than the run's own."""
  other = dataset.sample().x.shape
  if tuple(other) == tuple(shape):
    return
  size = ', '.join(map(str, shape[:-1]))
  advice = f"add 'resize({size})' to its ops"
  if other[-1] != shape[-1]:
    advice = f'read them with channels={shape[-1]}'
  if len(other) != len(shape):
    advice = 'choose data of as many axes'
  raise MedtlError(
    f"{place} holds examples of {' × '.join(map(str, other))}, and the run's own are of "
    f'{" × ".join(map(str, shape))}: a step sees them together, so expected the same; {advice}'
  )


def _unlabelled(dataset: Dataset) -> Dataset:
  """Return the data set with every label hidden: what a task learns from it is no label."""
  table = {**dataset.table, 'y': np.full(dataset.size, -1, np.int32)}

  def fetch(index: int) -> Example:
    return dataset.fetch(index)._replace(y=np.array(-1, np.int32))

  return dataclasses.replace(dataset, fetch=fetch, table=table)


def class_weights(config: ConfigDict, dataset: Dataset) -> tuple[float, ...] | None:
  """Return a weight for each class, inverse to its frequency among the training examples.

  Their mean over the examples is one. None where the config asks for none.
  """
  if not config.class_weights:
    return None
  y = np.asarray(dataset.table['y'])
  counts = np.bincount(y, minlength=len(dataset.classes)) if y.ndim == 1 else y.sum(0)
  even = counts.sum() / len(counts)
  return tuple(float(weight) for weight in even / np.maximum(1, counts))


def class_counts(dataset: Dataset) -> dict[str, int]:
  """Return how many examples each class has; of masks, each class of the pictures."""
  y = np.asarray(dataset.table['y'])
  names = dataset.strata
  counts = np.bincount(y[y >= 0], minlength=len(names)) if y.ndim == 1 else y.sum(0)
  return {name: int(count) for name, count in zip(names, counts, strict=True)}


def eval_batches(dataset: Dataset, config: ConfigDict) -> Iterator[Batch]:
  """Return batches on the device that hold every example once."""
  most = 1 if dataset.draw is not None else min(config.batch, dataset.size)  # shapes may differ
  size = sharding.round_up_to_devices(most, sharding.make_mesh(**config.mesh))
  share = multihost.host_share()
  read = batches.eval_batches(dataset, size, workers=config.workers, share=share)
  return _on_device(read, config)


def train_batches(
  dataset: Dataset, config: ConfigDict, start: int = 0, sampling: str = '', views: int = 1
) -> Iterator[Batch]:
  """Return the batches of steps start, start + 1, … on the device, see batches.train_batches."""
  read = batches.train_batches(
    dataset,
    config.batch,
    seed=config.seed,
    start=start,
    workers=config.workers,
    sampling=sampling,
    views=views,
    share=multihost.host_share(),
  )
  return _on_device(read, config)


def step_batches(
  context: RunContext, train: Dataset, start: int = 0, views: int = 1
) -> Iterator[Any]:
  """Return what the steps start, start + 1, … see.

  That are batches of the training side, or {stream: batch} where there are streams.
  """
  config = context.config
  own = train_batches(train, config, start, config.sampling, views)
  if not context.streams:
    return own
  streams = {'train': own}
  for name, dataset in context.streams.items():
    streams[name] = train_batches(dataset, config, start)
  steps = zip(*streams.values(), strict=False)
  return (dict(zip(streams, step, strict=True)) for step in steps)


def norm_pictures(context: RunContext, train: Dataset) -> Iterator[Any]:
  """Return the pictures x that a step's norms see together: the own and each stream's."""
  own = train_batches(train, context.config)
  if not context.streams:
    return (batch.x for batch in own)
  read = [train_batches(dataset, context.config) for dataset in context.streams.values()]
  together = zip(own, *read, strict=False)
  return (jnp.concatenate([batch.x for batch in batches]) for batches in together)


def _on_device(read: Iterable[Batch], config: ConfigDict) -> Iterator[Batch]:
  mesh = sharding.make_mesh(**config.mesh)
  return (sharding.device_put_batch(batch, mesh) for batch in read)
