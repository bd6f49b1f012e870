"""A small valid file, what the format does not protect in it, and mutations of it."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Outputs = frozenset[str]  # names of what a door gives: 'x', 'y', 'patient', …
NOTHING: Outputs = frozenset()
EVERYTHING: Outputs = frozenset({'*'})  # also shapes: the mutated file is another legal file
PIXELS: Outputs = frozenset({'x'})


class Region(NamedTuple):
  """Bytes that may change to another legal value: no checksum or second entry contradicts them."""

  start: int
  stop: int
  outputs: Outputs  # what may differ in consequence, without an error
  grows: bool = False  # bytes may also be put in …
  shrinks: bool = False  # … or be taken out, and no length field tells


class Edit(NamedTuple):
  """Bytes start … stop replaced by others."""

  start: int
  stop: int
  new: bytes


class Lie(NamedTuple):
  """A file that a program with an error, or a careless person, could have written."""

  name: str
  data: bytes
  free: Outputs = NOTHING  # what may differ: nothing in the file contradicts it


@dataclass(frozen=True)
class Original:
  """One valid file and the way in which medtl reads it."""

  kind: str  # a row of the table: 'png', 'DICOM' …
  name: str  # of this file among its kind
  data: bytes
  door: str  # a function of outcomes.py
  suffix: str  # of the file's name
  options: Mapping[str, Any] = field(default_factory=dict)  # keys for the door
  truth: Mapping[str, np.ndarray] = field(default_factory=dict)  # what the file must give
  near: float = 0.0  # how far values may lie from the truth
  regions: Sequence[Region] = ()
  lies: Callable[[random.Random], Iterable[Lie]] = lambda dice: ()
  legal: Callable[[bytes], Outputs] = lambda data: NOTHING  # what another legal file may change


class Case(NamedTuple):
  """One mutated file, and what may differ from the original without an error."""

  original: Original
  mutation: str
  data: bytes
  free: Outputs

  @property
  def label(self) -> str:
    """Return the case in words."""
    return f'{self.original.kind} / {self.original.name} / {self.mutation}'


def apply(data: bytes, edits: Iterable[Edit]) -> bytes:
  """Return the bytes after edits that do not overlap."""
  for edit in sorted(edits, reverse=True):
    data = data[: edit.start] + edit.new + data[edit.stop :]
  return data


def free(original: Original, edits: Iterable[Edit]) -> Outputs:
  """Return what may differ after the edits without an error."""
  edits = list(edits)
  found = set(original.legal(apply(original.data, edits)))
  for edit in edits:
    for region in original.regions:
      if _unnoticed(edit, region):
        found |= region.outputs
  return frozenset(found)


def _unnoticed(edit: Edit, region: Region) -> bool:
  """Return whether what an edit does to a region can pass for another legal value."""
  growth = len(edit.new) - (edit.stop - edit.start)
  if growth == 0:
    return edit.start < region.stop and edit.stop > region.start
  inside = region.start <= edit.start and edit.stop <= region.stop
  return inside and (region.grows if growth > 0 else region.shrinks)


def picture(shape: tuple[int, ...], most: int, seed: int = 0) -> np.ndarray:
  """Return whole numbers 0 … most [h, w, …]: a slope with noise, no row equal to another."""
  height, width = shape[:2]
  slope = np.add.outer(np.arange(height) / height, np.arange(width) / width) / 2
  slope = slope.reshape(height, width, *(1,) * (len(shape) - 2))
  noise = np.random.RandomState(seed).uniform(0, 0.2, shape)
  return np.rint((0.8 * slope + noise) * most).astype(np.int64)
