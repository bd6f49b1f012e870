"""report.html: one file that opens without a network, from numbers, predictions and the facts of a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from medtl.evaluation.summary import LABELS
from medtl.report import console, figures
from medtl.runtime import files

NAMES = dict(url='Address', sha256='SHA-256', hash='SHA-256 of what was read')
HIDDEN = {'name', 'phantom', 'notes', 'order', 'features', 'flags'}


class Compared(TypedDict):
  """A run beside this one."""

  name: str
  metrics: Mapping[str, Mapping[str, Any]]  # of numbers.summarise
  difference: NotRequired[Mapping[str, Mapping[str, Any]]]  # numbers.compare(this run, that run)
  note: NotRequired[str]


class Tested(TypedDict):
  """Other data that the net was tested on."""

  name: str
  over: str  # how many of what: '48 images of 24 patients'
  page: str  # file name of its own page
  headline: Sequence[str]
  metrics: Mapping[str, Mapping[str, Any]]
  comparison: Sequence[Compared]


class Facts(TypedDict):
  """What a page tells beside the numbers; each value is escaped, and shown as text."""

  title: str
  sentence: str  # what was done, in one
  claim: str  # were they used before? follows 'Test set: 24 images'
  command: str  # that repeats the run
  config: Mapping[str, Any]
  monitor: str  # the metric that chose the best checkpoint …
  best_step: int | None  # … and where
  data: Mapping[str, Any]  # a Dataset's facts: name, licence, hash, phantom …; all are listed
  splits: Mapping[
    str, Mapping[str, Any]
  ]  # {'train': {size, patients (or None), hash, classes: {name: count}}, …}
  weights: Mapping[str, Any]  # name ('' for random initialisation), url, sha256, licence, note …
  phases: Sequence[
    Mapping[str, Any]
  ]  # freeze, steps, live, frozen, flops, flops_full, rules of partition.summary
  curves: Sequence[Mapping[str, float]]  # records of metrics.jsonl
  versions: Mapping[str, str]
  hardware: str
  seconds: float
  warnings: Sequence[str]  # a leak that was allowed, files that were skipped …
  notes: Sequence[str]  # what was guessed of the data, or left out of them
  comparison: Sequence[Compared]
  tests: Sequence[Tested]


def write(
  path: Path, facts: Facts, numbers: Mapping[str, Any], template: str, content: Mapping[str, Any]
) -> None:
  """Write the page of a run's numbers; `template` and `content` are its task's part of it."""
  files.write(path, render(facts, numbers, template, content))


def render(
  facts: Facts, numbers: Mapping[str, Any], template: str, content: Mapping[str, Any]
) -> str:
  """Return the page as text."""
  page = environment().get_template('page.html.j2')
  sources = [
    ('Data', facts['data']['name'], listed(facts['data'])),
    ('Weights', facts['weights']['name'] or 'random initialisation', listed(facts['weights'])),
  ]
  return page.render(
    facts=facts,
    numbers=numbers,
    labels=LABELS,
    over=console.over(numbers),
    noun=console.noun(numbers),
    unit=console.unit(numbers),
    warnings=warnings(facts, numbers),
    curves=curves(facts),
    sources=sources,
    config=json.dumps(facts['config'], indent=1, default=str),
    template=template,
    content=content,
  )


def environment() -> Any:
  """Return the templates of this folder: what is missing is an error, everything is escaped."""
  import jinja2

  found = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  found.filters |= {
    'words': console.words,
    'count': '{:,}'.format,
    'short': short,
    'duration': duration,
  }
  return found


def warnings(facts: Facts, numbers: Mapping[str, Any]) -> list[str]:
  """Return what a reader must know before the numbers."""
  phantom = [
    'These numbers come from generated phantoms: they show that the program works and say nothing about patients.'
  ]
  return (phantom if facts['data'].get('phantom') else []) + [
    *facts['warnings'],
    *numbers['warnings'],
  ]


def curves(facts: Facts) -> dict[str, str]:
  """Return {name: data URI} of the loss and the monitored metric against the step."""
  if not facts['curves']:
    return {}
  ends = np.cumsum([phase['steps'] for phase in facts['phases']])
  # After early stopping it is not known where phases met.
  whole = len(ends) and ends[-1] == facts['curves'][-1]['step']
  phase_ends = ends[:-1].tolist() if whole else []
  return {
    name: figures.curve(facts['curves'], name, phase_ends, facts['best_step'])
    for name in dict.fromkeys(('loss', facts['monitor']))
  }


def listed(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Return (name, text) of what is known of a source, empty values left out."""
  text = {
    key: '; '.join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    for key, value in facts.items()
    if key not in HIDDEN and value is not None
  }
  return [
    (NAMES.get(key, key.replace('_', ' ').capitalize()), value)
    for key, value in text.items()
    if value
  ]


def short(number: float) -> str:
  """Return a large number with a unit.

  >>> short(4_652_008), short(812e6), short(38)
  ('4.65 M', '812 M', '38')
  """
  for size, unit in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if number >= size:
      return f'{number / size:.3g} {unit}'
  return f'{number:.3g}'


def duration(seconds: float) -> str:
  """Return seconds in words.

  >>> duration(42.3), duration(605), duration(7500)
  ('42 s', '10 min 5 s', '2 h 5 min')
  """
  whole = round(seconds)
  if whole < 60:
    return f'{whole} s'
  return (
    f'{whole // 60} min {whole % 60} s'
    if whole < 3600
    else f'{whole // 3600} h {whole % 3600 // 60} min'
  )
