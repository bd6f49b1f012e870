"""The public checkpoints of every family of backbones, as one table."""

import functools
import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from medtl.core import expressions
from medtl.core.types import MedtlError, Weights
from medtl.models import Net, heads
from medtl.models.pretrained import checkpoint_files

PACKAGE = 'medtl.models.backbones'
COUNTS = Path(__file__).with_name('parameters.json')  # python -m docs.checkpoints writes it


class Entry(NamedTuple):
  """A public checkpoint: a row of the WEIGHTS of a family."""

  family: str
  name: str
  weights: Weights

  @property
  def network(self) -> str:
    """Return what `config.model.name` must be for it."""
    return f'{self.family}.{self.weights.network}'


def families() -> dict[str, ModuleType]:
  """Return the module of every family of backbones by its name."""
  modules = {}
  for name in expressions.siblings(PACKAGE):
    modules[name] = importlib.import_module(f'{PACKAGE}.{name}')
  return modules


def entries(pattern: str = '') -> list[Entry]:
  """Return the checkpoints whose name, network or data a pattern is found in, in any case.

  Raises MedtlError for a pattern that is no regular expression or is found nowhere.
  """
  found = []
  regex = expressions.compiled_regex(f'(?i){pattern}', 'PATTERN')
  for family, module in families().items():
    for name, weights in module.WEIGHTS.items():
      entry = Entry(family, name, weights)
      words = (name, entry.network, weights.trained_on, weights.licence, weights.terms)
      if any(regex.search(word) for word in words):
        found.append(entry)
  if not found:
    known = [name for module in families().values() for name in module.WEIGHTS]
    raise MedtlError(
      f'no public checkpoint fits {pattern!r}; {expressions.did_you_mean(pattern, known)}'
    )
  return found


def file_of(entry: Entry) -> Path | None:
  """Return where the file of a checkpoint lies; None where it is not here yet."""
  path = checkpoint_files.kept_at(entry.name, entry.weights)
  return path if path is not None and path.is_file() else None


def example_shape(network: str, keys: Mapping[str, Any], channels: int) -> tuple[int, ...]:
  """Return the shape [*s, c] of a picture that a network with these keys can take."""
  parameters = inspect.signature(expressions.find(network, PACKAGE)).parameters
  given = {name: parameter.default for name, parameter in parameters.items()} | dict(keys)
  size = given.get('size', (224,) * given.get('ndim', 2))
  return (*size, channels)


def count_parameters(entry: Entry) -> int:
  """Return how many parameters a checkpoint's network has, its own head included.

  Those of the table were counted once, since to build every network takes a minute.
  """
  name = f'{entry.family}.{entry.name}'
  counted = _kept_counts()
  return counted[name] if name in counted else parameters_of(entry)


@functools.cache
def _kept_counts() -> dict[str, int]:
  return json.loads(COUNTS.read_text())


def parameters_of(entry: Entry) -> int:
  """Return how many parameters a checkpoint's network has, counted on the network itself."""
  weights = entry.weights
  keys = tuple(weights.keys.items())
  backbone, head = _counted(entry.network, keys, weights.channels, weights.head_norm)
  return backbone + head * weights.classes


@functools.cache
def _counted(
  network: str, keys: tuple[tuple[str, Any], ...], channels: int, head_norm: Any
) -> tuple[int, int]:
  """Return (parameters of a network but for its last layer, those of that layer for a class)."""
  backbone = expressions.find(network, PACKAGE)(**dict(keys))
  net = Net(backbone, heads.linear(1, norm=head_norm))
  example = jax.ShapeDtypeStruct((1, *example_shape(network, dict(keys), channels)), jnp.float32)
  init = functools.partial(net.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), example)['params']
  dense = shapes['head'].pop('dense')
  count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  return count(shapes), count(dense)
