"""report.html: one file that opens without a network, from the numbers and facts of a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from medtl.evaluation.summary import LABELS
from medtl.report import console, figures
from medtl.runtime import files

NAMES = dict(url='Address', sha256='SHA-256', hash='SHA-256 of what was read')
HIDDEN = {'name', 'phantom', 'notes', 'order', 'features', 'flags', 'command'}


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
  splits: Mapping[str, Mapping[str, Any]]  # side -> size, patients or None, hash, classes
  weights: Mapping[str, Any]  # name ('' for random initialisation), url, sha256, licence, note …
  phases: Sequence[Mapping[str, Any]]  # freeze, steps, live, frozen, flops, flops_full, rules
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
  data = facts['data']
  weights = facts['weights']
  variables: dict[str, Any] = {'facts': facts, 'numbers': numbers, 'labels': LABELS}
  variables['over'] = console.over(numbers)
  variables['noun'] = console.noun(numbers)
  variables['unit'] = console.unit(numbers)
  variables['warnings'] = warnings(facts, numbers)
  variables['curves'] = curves(facts)
  variables['sources'] = [
    ('Data', data['name'], listed(data)),
    ('Weights', weights['name'] or 'random initialisation', listed(weights)),
  ]
  variables['config'] = json.dumps(facts['config'], indent=1, default=str)
  variables['template'] = template  # of the task's part of the page …
  variables['content'] = content  # … and its variables
  return environment().get_template('page.html.j2').render(variables)


def environment() -> Any:
  """Return the templates of this folder: what is missing is an error, everything is escaped."""
  import jinja2

  templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  templates.filters['words'] = console.words
  templates.filters['count'] = '{:,}'.format
  templates.filters['short'] = short
  templates.filters['duration'] = duration
  return templates


def warnings(facts: Facts, numbers: Mapping[str, Any]) -> list[str]:
  """Return what a reader must know before the numbers."""
  first = []
  if facts['data'].get('phantom'):
    first.append(
      'These numbers come from generated phantoms: they show that the program works and say '
      'nothing about patients.'
    )
  return [*first, *facts['warnings'], *numbers['warnings']]


def curves(facts: Facts) -> dict[str, str]:
  """Return {name: data URI} of the loss and the monitored metric against the step."""
  records = facts['curves']
  if not records:
    return {}
  ends = np.cumsum([phase['steps'] for phase in facts['phases']]).tolist()
  # After early stopping it is not known where phases met.
  complete = bool(ends) and ends[-1] == records[-1]['step']
  phase_ends = ends[:-1] if complete else []
  pictures = {}
  for name in ('loss', facts['monitor']):
    if name not in pictures:
      pictures[name] = figures.curve(records, name, phase_ends, facts['best_step'])
  return pictures


def listed(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Return (name, text) of what is known of a source, empty values left out."""
  lines = []
  for key, value in facts.items():
    if key in HIDDEN or value is None:
      continue
    several = isinstance(value, list | tuple)
    text = '; '.join(map(str, value)) if several else str(value)
    if text:
      name = NAMES.get(key, key.replace('_', ' ').capitalize())
      lines.append((name, text))
  return lines


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
  if whole < 3600:
    return f'{whole // 60} min {whole % 60} s'
  return f'{whole // 3600} h {whole % 3600 // 60} min'
