"""Where a run's first parameters come from: a publisher's checkpoint, another run, or chance."""

import math
import re
from collections.abc import Callable, Sequence
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
from medtl.run import run_folder
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
  begun = pytrees.unflatten(jax.eval_shape(init, jax.random.key(0)))
  paths = [port.bare(path) for path in pytrees.flatten(begun)]
  own = [
    pattern
    for pattern in getattr(module, 'FRESH', ())
    if any(re.fullmatch(pattern, path) for path in paths)
  ]
  for pattern in config.fresh:
    if not any(
      expressions.compiled_regex(pattern, 'config.fresh').fullmatch(path) for path in paths
    ):
      raise MedtlError(
        f'config.fresh {pattern!r} matches nothing; the paths begin {", ".join(paths[:6])}'
      )
  if run is not None:
    arrived, facts = _from_run(begun, run, (*config.fresh, *left_out(net)), own)
  elif config.model.weights:
    if not (config.mean or config.std):
      _in_range(dataset)
    arrived, facts = from_publisher(begun, config, module, left_out(net), own)
  else:
    mean, std = statistics(dataset)
    arrived, facts = (
      {},
      {'name': '', 'mean': tuple(config.mean) or mean, 'std': tuple(config.std) or std},
    )
  facts['drawn'] = _by_chance(begun, {} if config.transfer == 'mean_var' else arrived, own)
  if config.transfer == 'mean_var':
    arrived = resample_mean_var(arrived, config.seed)
    facts['adapted'] = '; '.join(
      filter(None, [facts.get('adapted', ''), 'only the mean and variance of each leaf were kept'])
    )
  there = pytrees.flatten(arrived)
  merged = pytrees.unflatten(
    {
      **_drawn(init, config.seed, [path for path in pytrees.flatten(begun) if path not in there]),
      **there,
    }
  )
  mean, std = tuple(facts.pop('mean')), tuple(facts.pop('std'))
  if {len(mean), len(std)} - {1, example.shape[-1]}:
    raise MedtlError(
      f'mean {mean} and std {std} for pictures of {example.shape[-1]} channels; expected one number, or one per channel'
    )
  net = net.clone(mean=mean, std=std)
  return net, merged.pop('params'), merged, facts


def _by_chance(begun: Tree, arrived: Tree, own: Sequence[str]) -> frozenset[str]:
  """Return the paths of parameters that did not arrive; `own` are additions that change nothing at first (low-rank updates)."""
  there = pytrees.flatten(arrived)
  paths = [
    port.bare(path)
    for path in pytrees.flatten(begun)
    if path.startswith('params/') and path not in there
  ]
  return frozenset(
    path for path in paths if not any(re.fullmatch(pattern, path) for pattern in own)
  )


def _drawn(
  init: Callable[[jax.Array], dict[str, Any]], seed: int, paths: Sequence[str]
) -> dict[str, np.ndarray]:
  """Return {path: leaf} of those leaves alone, as numpy; XLA makes none of the others, and spends little time on what runs once."""
  lowered = jax.jit(
    lambda key: {path: leaf for path, leaf in init(key).items() if path in paths}
  ).lower(jax.random.key(seed))
  options: dict[str, str | bool] = {'xla_backend_optimization_level': '1'}
  return jax.device_get(lowered.compile(options)(jax.random.key(seed)))


def _in_range(dataset: Dataset) -> None:
  """Raise where pictures are no numbers of 0 … 1, which a publisher's mean and standard deviation are for."""
  low, high = dataset.facts.get('range', (0, 1))
  if low < -0.01 or high > 1.01:
    raise MedtlError(
      f"the pictures hold numbers of {low:g} … {high:g}, and the checkpoint's mean and deviation are for 0 … 1; add "
      "'window(low, high)' or 'rescale' to config.data.ops, or set config.mean and config.std"
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
  """Return a publisher's arrays under our paths, but for the fresh ones (of the config, and `fresh`), and where they came from.

  `without` are regexes of paths that theirs may have and ours has not.
  """
  with multihost.main_process_first('weights'):
    path, known, part = checkpoint_files.locate(config.model.weights, module.WEIGHTS)
  mean, std = (
    tuple(config[name]) or (getattr(known, name) if known else ()) for name in ('mean', 'std')
  )
  remarks: list[str] = []
  arrays = checkpoint_files.read(path, module.RENAMES, part=part, say=remarks.append)
  ported, said = port.port(
    arrays,
    begun,
    module.RENAMES,
    fresh=(*config.fresh, *fresh),
    adapt=getattr(module, 'ADAPT', None),
    mean=mean,
    std=std,
    without=without,
  )
  counted = [name for name in arrays if not name.endswith('num_batches_tracked')]
  unused = find_network.grouped(counted, arrays.keys() - set(said.ignored))
  if unused:
    remarks.append(f'{path.name}: not used by this network: {nested_contents.listed(unused)}')
  for remark in remarks:
    print(remark)
  files = sharded_files.files(path)
  facts = {
    'name': config.model.weights if known else path.name,
    'file': ', '.join(file.name for file in files),
    'sha256': ', '.join(digests(file).sha256 for file in files),
    'read': '; '.join(remarks),
    **({name: getattr(known, name) for name in ('url', 'licence', 'note')} if known else {}),
  }
  return ported, {
    **facts,
    'format': said.dialect,
    'ported': said.ported,
    'fresh': ', '.join(said.fresh),
    'adapted': '; '.join(said.notes),
    'mean': said.mean,
    'std': said.std,
  }


def _from_run(
  begun: Tree, run: Path, fresh: Sequence[str], own: Sequence[str]
) -> tuple[Tree, dict[str, Any]]:
  """Return the best checkpoint's leaves but the fresh ones; another architecture is an error that names the difference.

  `own` are regexes of leaves that are fresh where the run has none of them.
  """
  checkpoints = Checkpoints(run / 'checkpoints')
  params, extra = checkpoints.params('best')
  checkpoints.close()
  plan = run_folder.read(run, 'plan.json')
  there = [port.bare(path) for path in pytrees.flatten({'params': params, **extra})]
  fresh = (
    *fresh,
    *(pattern for pattern in own if not any(re.fullmatch(pattern, path) for path in there)),
  )
  kept = lambda leaves: {
    path: leaf
    for path, leaf in pytrees.flatten(leaves).items()
    if not any(re.fullmatch(pattern, port.bare(path)) for pattern in fresh)
  }
  found, expected = kept({'params': params, **extra}), kept(begun)
  words = pytrees.difference(found, expected)
  if words:
    raise MedtlError(
      f'the run {run} holds another architecture:\n{words}\n'
      'set config.model and config.truncate to those of its config.json'
    )
  return pytrees.unflatten(found), {
    'name': str(run),
    'note': 'the best checkpoint of this run',
    'data': plan['data']['name'],
    'mean': plan['mean'],
    'std': plan['std'],
  }


def resample_mean_var(arrived: Tree, seed: int) -> Tree:
  """Return parameters drawn anew, each leaf from a normal law with its own mean and variance; statistics of norms do not come along.

  Raghu et al. 2019 (Transfusion, arXiv 1902.07208), section 5.1: what remains of a transfer when only the scale of weights is kept.
  """
  leaves = {
    path: np.asarray(leaf)
    for path, leaf in pytrees.flatten(arrived).items()
    if path.startswith('params/')
  }
  random = np.random.RandomState(seed)
  return pytrees.unflatten(
    {
      path: random.normal(leaf.mean(), leaf.std(), leaf.shape).astype(leaf.dtype)
      for path, leaf in sorted(leaves.items())
    }
  )


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
  axes = tuple(range(pictures[0].ndim - 1))
  mean = _known_mean([x.mean(axes) for x in pictures])
  square = _known_mean([(x.astype(np.float64) ** 2).mean(axes) for x in pictures])
  variance = square - mean**2
  std = np.where(variance > 1e-12, np.sqrt(np.maximum(1e-12, variance)), 1.0)
  flags = list(dataset.facts.get('flags', ()))
  mean[flags] = 0.0
  std[flags] = 1.0
  return tuple(round(float(v), 6) for v in mean), tuple(round(float(v), 6) for v in std)


def _known_mean(rows: Sequence[np.ndarray]) -> np.ndarray:
  """Return the mean [c] of the numbers that are known; 0 where none is."""
  values = np.asarray(rows, np.float64)
  known = ~np.isnan(values)
  return np.where(known, values, 0).sum(0) / np.maximum(1, known.sum(0))
