"""The language of `freeze`: 'none', 'depth(6)', 'depth(0.5)', 'match("…")', 'all_but_norms' …

Operations are joined with |. Each returns the regexes of the parameter paths that stand still.
`children` are the backbone's, in order: stem, stage1 … Only `match` can freeze the head.
"""

import re
from collections.abc import Sequence

from medtl.core.types import MedtlError

NORMS = r'.*/[^/]*norm[^/]*/(?:scale|bias)'


def none(children: Sequence[str]) -> list[str]:
  """Freeze nothing: the full fine-tune."""
  return []


def depth(children: Sequence[str], d: int | float) -> list[str]:
  """Freeze children 0 … d−1: 0 is the full fine-tune, the number of children the linear probe.

  A float is a share of the children, 1.0 all of them, rounded to the nearest count (halves up).

  >>> depth(['stem', 'stage1', 'stage2'], 2), depth(['stem', 'stage1', 'stage2'], 1.0)
  (['backbone/(stem|stage1)/.*'], ['backbone/.*'])
  """
  count = len(children)
  if isinstance(d, float):
    if not 0.0 <= d <= 1.0:
      raise MedtlError(
        f'depth({d}): a share lies between 0.0 and 1.0; write depth({int(d)}) for a count'
      )
    d = int(d * count + 0.5)
  if not 0 <= d <= count:
    raise MedtlError(f'depth({d}): {_limits(children, count)}')
  if d == 0:
    return []
  if d == count:  # the norm after the last stage is frozen with it
    return ['backbone/.*']
  return [f'backbone/({_any_of(children[:d])})/.*']


def _limits(children: Sequence[str], last: int) -> str:
  """Return in words which numbers of a child or of children there are: 0 … last."""
  count = len(children)
  return f'this backbone has {count} children (stem and {count - 1} stages), so 0 … {last}'


def _any_of(names: Sequence[str]) -> str:
  """Return the regex of any of these names."""
  return '|'.join(map(re.escape, names))


def match(children: Sequence[str], pattern: str) -> list[str]:
  """Freeze the leaves whose whole path matches the regex."""
  return [pattern]


def all_but(children: Sequence[str], pattern: str) -> list[str]:
  """Freeze the backbone but for the leaves whose whole path matches the regex."""
  return [f'(?!(?:{pattern})$)backbone/.*']


def only(children: Sequence[str], child: int) -> list[str]:
  """Freeze the backbone but for one child, 0 the stem (Lee et al. 2023, surgical fine-tuning)."""
  last = len(children) - 1
  if not 0 <= child <= last:
    raise MedtlError(f'only({child}): {_limits(children, last)}')
  live = [children[child]]
  if child == last:  # the norm after the last stage goes with it
    live.append('norm')
  return [f'backbone/(?!(?:{_any_of(live)})/).*']


def all_but_lora(children: Sequence[str]) -> list[str]:
  """Freeze the backbone but for its low-rank updates of rank config.model.lora (Hu et al. 2022)."""
  return all_but(children, '.*/lora_[ab]')


def all_but_norms(children: Sequence[str]) -> list[str]:
  """Freeze the backbone but for scale and bias of its norms (Frankle et al. 2021)."""
  return all_but(children, NORMS)


def all_but_biases(children: Sequence[str]) -> list[str]:
  """Freeze the backbone but for its biases (BitFit, Ben Zaken et al. 2022)."""
  return all_but(children, '.*/bias')
