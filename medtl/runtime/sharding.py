"""Many devices as one, by jax.sharding: a mesh of data × fsdp, and what lies where on it.

A batch is cut over all devices. With fsdp > 1 parameters, statistics and optimizer state are cut as
well (Rajbhandari et al. 2020, ZeRO; Zhao et al. 2023, FSDP), by one table of (regex on the
parameter's path, how); the compiler gathers a leaf where it is used.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medtl.core import expressions, pytrees
from medtl.core.types import MedtlError, Tree

AXES = ('data', 'fsdp')
WAYS = ('largest', 'copy')
LEAST = 2**12  # numbers below which a leaf is copied: cutting it would save nothing
Rules = Sequence[tuple[str, str]]


@functools.cache
def make_mesh(data: int = -1, fsdp: int = 1) -> Mesh:
  """Return the mesh of all devices, those of one process beside each other.

  -1 stands for what the other axis leaves over. Raises MedtlError unless the product of both is
  the number of devices.
  """
  count = jax.device_count()
  rows = count // max(1, fsdp) if data == -1 else data
  columns = count // max(1, data) if fsdp == -1 else fsdp
  if rows < 1 or columns < 1 or rows * columns != count:
    raise MedtlError(
      f'config.mesh is data={data}, fsdp={fsdp}, and there are {count} devices; expected a '
      f'product of {count}, for instance data=-1, fsdp=1'
    )
  devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
  return Mesh(np.array(devices).reshape(rows, columns), AXES)


def check_rules(rules: Rules) -> None:
  """Raise a MedtlError for a pattern that is no regex, and for a way that is none of WAYS."""
  for pattern, way in rules:
    _regex(pattern)
    if way not in WAYS:
      raise MedtlError(f'config.shards: unknown way {way!r}; {expressions.did_you_mean(way, WAYS)}')


def _regex(pattern: str) -> re.Pattern:
  return expressions.compiled_regex(pattern, 'config.shards')


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Return where a batch lies: its examples are cut over all devices."""
  return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """Return where a value lies that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def state_shardings(state: Tree, mesh: Mesh, rules: Rules) -> Tree:
  """Return where each leaf of parameters, or of a whole state, lies; leaves are arrays or shapes.

  A leaf of the optimizer's state lies as the parameter does whose path ends its own. 'largest'
  cuts the largest axis that fsdp divides; without a rule a leaf is copied.
  """
  size = mesh.shape['fsdp']

  def where(keys: Sequence[Any], leaf: Any) -> NamedSharding:
    axes = [axis for axis, length in enumerate(leaf.shape) if length % size == 0]
    is_copied = _way(pytrees.path_of(keys), rules) == 'copy' or size == 1
    if is_copied or not axes or np.prod(leaf.shape) < LEAST:
      return replicated(mesh)
    largest = max(axes, key=lambda axis: leaf.shape[axis])
    spec: list[str | None] = [None] * len(leaf.shape)
    spec[largest] = 'fsdp'
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree_util.tree_map_with_path(where, state)


def _way(path: str, rules: Rules) -> str:
  """Return how the leaf on a path lies: by the first rule that matches its parameter's path."""
  parameter = path
  for begin in ('backbone/', 'head/'):
    if begin in path:
      parameter = path[path.index(begin) :]
      break
  for pattern, way in rules:
    if _regex(pattern).fullmatch(parameter):
      return way
  return 'copy'


def device_put(tree: Tree, places: Tree) -> Tree:
  """Return values, the same in every process, as arrays that lie at `places`."""
  if jax.process_count() == 1:
    return jax.device_put(tree, places)
  return jax.tree.map(_device_put_leaf, tree, places)


def _device_put_leaf(leaf: Any, place: NamedSharding) -> jax.Array:
  """Return one leaf as an array over several processes.

  Each process gives its own devices their part, so that nothing is sent.
  """
  if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
    return jax.device_put(leaf, place)
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    numbers = _device_put_leaf(jax.random.key_data(leaf), place)
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))
  value = np.asarray(leaf)
  return jax.make_array_from_callback(value.shape, place, lambda index: np.asarray(value[index]))


def device_put_batch(share: Tree, mesh: Mesh) -> Tree:
  """Return a batch cut over the devices, of which `share` holds the rows of this process."""
  place = batch_sharding(mesh)
  if jax.process_count() == 1:
    return jax.device_put(share, place)
  return jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(place, np.asarray(leaf)), share
  )


def abstract_state(state: Tree, places: Tree) -> Tree:
  """Return shapes and dtypes with their places, as a program is lowered for them."""
  return jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state, places
  )


def round_up_to_devices(batch: int, mesh: Mesh) -> int:
  """Return the smallest multiple of the number of devices that holds `batch` examples.

  A batch is padded to it, and the padding masked.
  """
  return -(-batch // mesh.size) * mesh.size
