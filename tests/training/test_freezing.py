"""The words of `freeze`: which parameter paths each leaves still, and what it refuses."""

import re

import pytest

from medtl.core.types import MedtlError
from medtl.training import freezing

CHILDREN = ('stem', 'stage1', 'stage2')
PATHS = (
  'backbone/stem/conv/kernel',
  'backbone/stem/norm/scale',
  'backbone/stage1/norm1/scale',
  'backbone/stage1/dense/bias',
  'backbone/stage2/dense/kernel',
  'backbone/stage2/dense/lora_a',
  'backbone/norm/scale',
  'head/dense/kernel',
)


def still(patterns):
  """Return the places in PATHS of what the patterns freeze."""
  found = [any(re.fullmatch(pattern, path) for pattern in patterns) for path in PATHS]
  return [place for place, frozen in enumerate(found) if frozen]


@pytest.mark.parametrize(
  ('patterns', 'expected'),
  [
    (freezing.none(CHILDREN), []),
    (freezing.depth(CHILDREN, 0), []),
    (freezing.depth(CHILDREN, 0.0), []),
    (freezing.depth(CHILDREN, 1), [0, 1]),
    (freezing.depth(CHILDREN, 2), [0, 1, 2, 3]),
    (freezing.depth(CHILDREN, 3), [0, 1, 2, 3, 4, 5, 6]),
    (freezing.depth(CHILDREN, 1.0), [0, 1, 2, 3, 4, 5, 6]),
    (freezing.match(CHILDREN, '.*/kernel'), [0, 4, 7]),
    (freezing.all_but(CHILDREN, '.*/kernel'), [1, 2, 3, 5, 6]),
    (freezing.only(CHILDREN, 0), [2, 3, 4, 5, 6]),
    (freezing.only(CHILDREN, 1), [0, 1, 4, 5, 6]),
    (freezing.only(CHILDREN, 2), [0, 1, 2, 3]),
    (freezing.all_but_lora(CHILDREN), [0, 1, 2, 3, 4, 6]),
    (freezing.all_but_norms(CHILDREN), [0, 3, 4, 5]),
    (freezing.all_but_biases(CHILDREN), [0, 1, 2, 4, 5, 6]),
  ],
)
def test_what_stands_still(patterns, expected):
  assert still(patterns) == expected


@pytest.mark.parametrize(
  ('share', 'count'), [(0.16, 0), (0.17, 1), (0.49, 1), (0.5, 2), (0.83, 2), (0.84, 3)]
)
def test_a_share_of_three_children_is_rounded_halves_up(share, count):
  assert freezing.depth(CHILDREN, share) == freezing.depth(CHILDREN, count)


@pytest.mark.parametrize(
  ('call', 'words'),
  [
    (lambda: freezing.depth(CHILDREN, 1.5), 'depth(1.5): a share lies between 0.0 and 1.0; '),
    (lambda: freezing.depth(CHILDREN, 2.5), 'write depth(2) for a count'),
    (lambda: freezing.depth(CHILDREN, -0.1), 'a share lies between'),
    (lambda: freezing.depth(CHILDREN, 4), 'has 3 children (stem and 2 stages), so 0 … 3'),
    (lambda: freezing.depth(CHILDREN, -1), 'depth(-1): this backbone has 3 children'),
    (lambda: freezing.only(CHILDREN, 3), 'has 3 children (stem and 2 stages), so 0 … 2'),
    (lambda: freezing.only(CHILDREN, -1), 'only(-1): this backbone has 3 children'),
  ],
)
def test_what_no_backbone_has_is_refused_with_what_there_is(call, words):
  with pytest.raises(MedtlError, match=re.escape(words)):
    call()
