"""Paths, labels, differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtl.core import pytrees
from medtl.core.types import MedtlError

names = st.text('abc', min_size=1, max_size=3)
trees = st.recursive(
  st.integers(), lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3), max_leaves=8
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(names, trees, min_size=1, max_size=3))
def test_unflatten_is_the_inverse_of_flatten(value):
  assert pytrees.unflatten(pytrees.flatten(value)) == value


def test_the_first_full_match_wins():
  found = pytrees.label_by_rules({'a': {'b': 0, 'bb': 0}}, [('a/b', 1), ('a/.*', 2)])
  assert found == {'a': {'b': 1, 'bb': 2}}


def test_a_leaf_that_no_rule_covers_is_an_error():
  with pytest.raises(MedtlError, match='no rule matches a/c; add'):
    pytrees.label_by_rules({'a': {'b': 0, 'c': 0}}, [('a/b', 1)])


def test_a_rule_that_matches_nothing_is_an_error():
  with pytest.raises(MedtlError, match="rule 'x' matches nothing; the paths begin a/b"):
    pytrees.label_by_rules({'a': {'b': 0}}, [('x', 1), ('.*', 2)])


def test_difference_names_every_kind():
  found = {'a': np.zeros(2, 'f4'), 'b': np.zeros(3, 'f4'), 'd': np.zeros(1)}
  expected = {'a': np.zeros(2, 'f4'), 'b': np.zeros(4, 'f4'), 'c': np.zeros(1)}
  words = pytrees.difference(found, expected)
  assert (
    words == 'missing: c (1,) float64\nunexpected: d (1,) float64\nb: found (3,) float32, expected '
    '(4,) float32'
  )
  assert pytrees.difference(found, found) == ''


def test_sizes():
  value = {'a': np.zeros((2, 3), 'f4'), 'b': np.zeros(4, 'f8')}
  assert pytrees.count_parameters(value) == 10 and pytrees.nbytes(value) == 24 + 32
