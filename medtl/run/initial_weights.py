"""Where a run's first parameters come from: a publisher's checkpoint, another run, or chance."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from medtl import models
from medtl.core import expressions, pytrees
from medtl.core.types import Dataset, MedtlError, Tree
from medtl.models.pretrained import (
  checkpoint_files,
  find_network,
  nested_contents,
  port,
  sharded_files,
)
from medtl.run import components, run_folder
from medtl.runtime import multihost
from medtl.runtime.downloads import digests
from medtl.training.checkpoints import Checkpoints


def initial_variables(
  config: ConfigDict, net: models.Net, module: Any, dataset: Dataset, run: Path | None
) -> tuple[models.Net, Tree, Tree, dict[str, Any]]:
  """Return (the net, now normalising its input, params, extra, facts of where they came from).

  facts['drawn'] are the paths of the parameters that chance drew.
  """
  example = jnp.zeros((1, *dataset.sample().x.shape))
  init = lambda key: pytrees.flatten(net.init(key, example, train=False))
  shapes = jax.eval_shape(init, jax.random.key(0))
  begun = pytrees.unflatten(shapes)
  paths = [port.bare(path) for path in shapes]
  _check_fresh(config.fresh, paths)
  own = [pattern for pattern in getattr(module, 'FRESH', ()) if _matches_any(pattern, paths)]
  if run is not None:
    arrived, facts = _from_run(begun, run, (*config.fresh, *left_out(net)), own)
  elif config.model.weights:
    if not (config.mean or config.std):
      _in_range(dataset)
    arrived, facts = from_publisher(begun, config, module, left_out(net), own)
  else:
    arrived, facts = _from_nowhere(config, dataset)
  scale_only = config.transfer == 'mean_var'
  facts['drawn'] = _by_chance(begun, {} if scale_only else arrived, own)
  if scale_only:
    arrived = resample_mean_var(arrived, config.seed)
    notes = [facts.get('adapted', ''), 'only the mean and variance of each leaf were kept']
    facts['adapted'] = '; '.join(filter(None, notes))
  leaves = pytrees.flatten(arrived)
  lacking = [path for path in shapes if path not in leaves]
  merged = pytrees.unflatten({**_drawn(init, config.seed, lacking), **leaves})
  net = _normalising(net, tuple(facts.pop('mean')), tuple(facts.pop('std')), example.shape[-1])
  return net, merged.pop('params'), merged, facts


def _check_fresh(patterns: Sequence[str], paths: Sequence[str]) -> None:
  """Raise for the first pattern of config.fresh that matches no leaf."""
  for pattern in patterns:
    regex = expressions.compiled_regex(pattern, 'config.fresh')
    if not any(regex.fullmatch(path) for path in paths):
      raise MedtlError(
        f'config.fresh {pattern!r} matches nothing; the paths begin {", ".join(paths[:6])}'
      )


def _matches_any(pattern: str, paths: Iterable[str]) -> bool:
  return any(re.fullmatch(pattern, path) for path in paths)


def _from_nowhere(config: ConfigDict, dataset: Dataset) -> tuple[Tree, dict[str, Any]]:
  """Return (no leaf, the facts of a start from chance): the pictures are scaled by their own."""
  mean, std = statistics(dataset)
  facts = {'name': '', 'mean': tuple(config.mean) or mean, 'std': tuple(config.std) or std}
  return {}, facts


def _normalising(
  net: models.Net, mean: tuple[float, ...], std: tuple[float, ...], channels: int
) -> models.Net:
  """Return the net that normalises its input; `mean` and `std` are of each channel, or of all.

  Where the net sees neighbouring slices as channels, those of a slice serve each of them.
  """
  if net.slices and len(mean) == channels:
    mean *= net.slices
  if net.slices and len(std) == channels:
    std *= net.slices
  channels *= max(1, net.slices)
  if {len(mean), len(std)} - {1, channels}:
    raise MedtlError(
      f'mean {mean} and std {std} for pictures of {channels} channels; expected one number, or one '
      'per channel'
    )
  return net.clone(mean=mean, std=std)


def _by_chance(begun: Tree, arrived: Tree, own: Sequence[str]) -> frozenset[str]:
  """Return the paths of parameters that did not arrive.

  `own` are additions that change nothing at first (low-rank updates): they are none of them.
  """
  there = pytrees.flatten(arrived)
  drawn = set()
  for path in pytrees.flatten(begun):
    bare = port.bare(path)
    is_lacking = path.startswith('params/') and path not in there
    if is_lacking and not any(re.fullmatch(pattern, bare) for pattern in own):
      drawn.add(bare)
  return frozenset(drawn)


def _drawn(
  init: Callable[[jax.Array], dict[str, Any]], seed: int, paths: Sequence[str]
) -> dict[str, np.ndarray]:
  """Return {path: leaf} of those leaves alone, as numpy.

  XLA makes none of the others, and spends little time on what runs once.
  """

  def wanted(key: jax.Array) -> dict[str, Any]:
    return {path: leaf for path, leaf in init(key).items() if path in paths}

  key = jax.random.key(seed)
  options: dict[str, str | bool] = {'xla_backend_optimization_level': '1'}
  program = jax.jit(wanted).lower(key).compile(options)
  return jax.device_get(program(key))


def _in_range(dataset: Dataset) -> None:
  """Raise where pictures are no numbers of 0 … 1, as a publisher's mean and deviation are for."""
  low, high = dataset.facts.get('range', (0, 1))
  if low < -0.01 or high > 1.01:
    raise MedtlError(
      f"the pictures hold numbers of {low:g} … {high:g}, and the checkpoint's mean and deviation "
      "are for 0 … 1; add 'window(low, high)' or 'rescale' to config.data.ops, or set config.mean "
      'and config.std'
    )


def left_out(net: models.Net) -> tuple[str, ...]:
  """Return regexes of the paths that a checkpoint has and a truncated net has not.

  A net that keeps every child also keeps the `norm` after the last one: it is not truncated.
  """
  kept = '|'.join(net.children)
  return (f'backbone/(?!(?:{kept})/).*',) if net.truncated else ()


def from_publisher(
  begun: Tree,
  config: ConfigDict,
  module: Any,
  without: Sequence[str] = (),
  fresh: Sequence[str] = (),
) -> tuple[Tree, dict[str, Any]]:
  """Return (a publisher's arrays under our paths, the facts of where they came from).

  Fresh leaves (of the config, and `fresh`) are not among them. `without` are regexes of paths that
  theirs may have and ours has not.
  """
  with multihost.main_process_first('weights'):
    path, known, part = checkpoint_files.locate(config.model.weights, module.WEIGHTS)
  remarks: list[str] = []
  arrays = checkpoint_files.read(path, module.RENAMES, part=part, say=remarks.append)
  ported, report = port.port(
    arrays,
    begun,
    module.RENAMES,
    fresh=(*config.fresh, *fresh),
    adapt=getattr(module, 'ADAPT', None),
    mean=tuple(config.mean) or (known.mean if known else ()),
    std=tuple(config.std) or (known.std if known else ()),
    without=without,
    inflate=config.inflate,
  )
  of_names = module.RENAMES[report.dialect].keys
  _check_unseen(config, of_names, f'the checkpoint is in the names of {report.dialect!r}')
  if known:
    _check_unseen(config, known.keys, f'the checkpoint is {config.model.weights}')
  counted = [name for name in arrays if not name.endswith(find_network.COUNTS)]
  unused = find_network.grouped(counted, arrays.keys() - set(report.ignored))
  if unused:
    remarks.append(f'{path.name}: not used by this network: {nested_contents.listed(unused)}')
  for remark in remarks:
    print(remark)
  files = sharded_files.files(path)
  facts: dict[str, Any] = {'name': config.model.weights if known else path.name}
  facts['file'] = ', '.join(file.name for file in files)
  facts['sha256'] = ', '.join(digests(file).sha256 for file in files)
  facts['read'] = '; '.join(remarks)
  if known:
    facts.update(url=known.url, licence=known.licence, note=known.note)
  facts['format'] = report.dialect
  facts['ported'] = report.ported
  facts['fresh'] = ', '.join(report.fresh)
  facts['adapted'] = '; '.join(report.notes)
  facts['mean'] = report.mean
  facts['std'] = report.std
  return ported, facts


def _check_unseen(config: ConfigDict, theirs: Mapping[str, Any], what: str) -> None:
  """Raise where the network differs from a publisher's in what no shape of an array shows.

  Its arrays fit: so what differs in a key is not seen in them. The size of pictures and the number
  of axes are the data's.
  """
  factory = expressions.find(config.model.name, 'medtl.models.backbones')
  given = expressions.parameters(factory)
  keys = {key: parameter.default for key, parameter in given.items()}
  keys |= config.model.to_dict()
  for key, value in theirs.items():
    if key in keys and key not in components.FILLED and keys[key] != value:
      raise MedtlError(
        f'{what}, whose network has {key}={value!r}, and config.model has {key}={keys[key]!r}: the '
        f'arrays fit, the features would be others; set --config.model.{key}={value}'
      )


def _from_run(
  begun: Tree, run: Path, fresh: Sequence[str], own: Sequence[str]
) -> tuple[Tree, dict[str, Any]]:
  """Return (the best checkpoint's leaves but the fresh ones, the facts of where they came from).

  `own` are regexes of leaves that are fresh where the run has none of them. Another architecture is
  an error that names the difference.
  """
  checkpoints = Checkpoints(run / 'checkpoints')
  params, extra = checkpoints.params('best')
  checkpoints.close()
  plan = run_folder.read(run, 'plan.json')
  stored = pytrees.flatten({'params': params, **extra})
  paths = [port.bare(path) for path in stored]
  new = [pattern for pattern in own if not _matches_any(pattern, paths)]
  kept = _without(stored, (*fresh, *new))
  words = pytrees.difference(kept, _without(pytrees.flatten(begun), (*fresh, *new)))
  if words:
    raise MedtlError(
      f'the run {run} holds another architecture:\n{words}\n'
      'set config.model and config.truncate to those of its config.json'
    )
  facts = {'name': str(run), 'note': 'the best checkpoint of this run'}
  facts['data'] = plan['data']['name']
  facts['mean'] = plan['mean']
  facts['std'] = plan['std']
  return pytrees.unflatten(kept), facts


def _without(leaves: Mapping[str, Any], fresh: Sequence[str]) -> dict[str, Any]:
  """Return the leaves by path but those that a regex of `fresh` matches."""
  kept = {}
  for path, leaf in leaves.items():
    bare = port.bare(path)
    if not any(re.fullmatch(pattern, bare) for pattern in fresh):
      kept[path] = leaf
  return kept


def resample_mean_var(arrived: Tree, seed: int) -> Tree:
  """Return parameters drawn anew, each leaf from a normal law with its own mean and variance.

  Statistics of norms do not come along. Raghu et al. 2019 (Transfusion, arXiv 1902.07208), section
  5.1: what remains of a transfer when only the scale of weights is kept.
  """
  random = np.random.RandomState(seed)
  drawn = {}
  for path, leaf in sorted(pytrees.flatten(arrived).items()):
    if path.startswith('params/'):
      values = np.asarray(leaf)
      numbers = random.normal(values.mean(), values.std(), values.shape)
      drawn[path] = numbers.astype(values.dtype)
  return pytrees.unflatten(drawn)


def statistics(
  dataset: Dataset, most: int = 256, least_places: int = 16384
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Return mean and standard deviation of each channel over evenly spread examples.

  These are `most`, or more where they are so small that `least_places` are not seen in them.
  Missing numbers (NaN) count for nothing. Channels of facts['flags'] hold 0 and 1 for no and yes:
  they stay as they are (Gelman 2008, Statistics in Medicine 27:2865). A channel that is
  the same everywhere has the deviation 1, as scikit-learn's StandardScaler gives it: another value
  on another side is no outlier by that.
  """
  places = max(1, math.prod(dataset.fetch(0).x.shape[:-1]))
  count = min(max(most, least_places // places), dataset.size)
  index = np.unique(np.linspace(0, dataset.size - 1, count).astype(int))
  pictures = [dataset.fetch(int(i)).x for i in index]
  if pictures[0].ndim == 1:
    _stop_unknown_columns(np.stack(pictures), dataset.facts)
  axes = tuple(range(pictures[0].ndim - 1))
  mean = _known_mean([x.mean(axes) for x in pictures])
  square = _known_mean([(x.astype(np.float64) ** 2).mean(axes) for x in pictures])
  variance = square - mean**2
  std = np.where(variance > 1e-12, np.sqrt(np.maximum(1e-12, variance)), 1.0)
  flags = list(dataset.facts.get('flags', ()))
  mean[flags] = 0.0
  std[flags] = 1.0
  return tuple(round(float(v), 6) for v in mean), tuple(round(float(v), 6) for v in std)


def _stop_unknown_columns(x: np.ndarray, facts: Mapping[str, Any]) -> None:
  """Raise for a column of x [n, c] without any value: it has no mean, and nothing is learned."""
  unknown = np.flatnonzero(np.isnan(x).all(axis=0)).tolist()
  if unknown:
    columns = facts.get('columns', list(map(str, range(x.shape[1]))))
    names = [str(columns[number]) for number in unknown]
    raise MedtlError(
      f'no row of the training side has a value of {", ".join(names)}, so that nothing can be '
      'learned of it; leave it out of data.features, or split the data otherwise'
    )


def _known_mean(rows: Sequence[np.ndarray]) -> np.ndarray:
  """Return the mean [c] of the numbers that are known; 0 where none is."""
  values = np.asarray(rows, np.float64)
  known = ~np.isnan(values)
  return np.where(known, values, 0).sum(0) / np.maximum(1, known.sum(0))
