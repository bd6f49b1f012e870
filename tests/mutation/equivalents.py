"""Mutants that compute what the source computes: each with the reason why no test can notice it."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.mutation.mutants import changed_line, mutants
from tests.mutation.trials import Result

FILE = Path(__file__).with_name('equivalents.toml')


class Equivalent(NamedTuple):
  """The line that a mutant changes, and why that changes nothing."""

  path: str
  function: str
  before: str
  after: str
  reason: str


def load(file: Path = FILE) -> list[Equivalent]:
  """Return what the file argues."""
  entries = tomllib.loads(file.read_text()).get('mutant', [])
  return [Equivalent(**entry) for entry in entries]


def argued(result: Result, equivalents: Sequence[Equivalent]) -> bool:
  """Return whether a mutant is argued to be equivalent."""
  wanted = (result['path'], result['function'], result['before'], result['after'])
  return any(entry[:4] == wanted for entry in equivalents)


def stale(root: Path, equivalents: Sequence[Equivalent]) -> list[Equivalent]:
  """Return the entries that are no mutant of today's source: the argument must be made anew."""
  return [entry for entry in equivalents if not _is_mutant(root, entry)]


def _is_mutant(root: Path, entry: Equivalent) -> bool:
  if not (root / entry.path).exists():
    return False
  source = (root / entry.path).read_text()
  inside = [mutant for mutant in mutants(entry.path, source) if mutant.function == entry.function]
  return (entry.before, entry.after) in [changed_line(source, mutant) for mutant in inside]
