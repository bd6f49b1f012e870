"""What n labels of one start are worth in labels of another.

Read off curves by hand, with the interval of a known case.
"""

import numpy as np
import pytest

from medtl.evaluation import label_efficiency, metrics


@pytest.mark.parametrize(
  ('level', 'amount'), [(0.6, 10), (0.65, 15), (0.7, 20), (0.75, 35), (0.9, 40), (0.1, 10)]
)
def test_amounts_are_read_off_the_running_maximum(level, amount):
  assert label_efficiency.reached(level, {10: 0.6, 20: 0.7, 30: 0.65, 40: 0.8}) == pytest.approx(
    amount
  )


def test_a_plateau_is_reached_where_it_begins():
  assert label_efficiency.reached(0.8, {10: 0.6, 20: 0.8, 30: 0.8}) == pytest.approx(20)


def test_several_seeds_are_read_off_their_mean_curve():
  y = np.arange(120) % 2
  curves = {'a': {10: 'a10'}, 'b': {10: 'b10', 40: 'b40'}}
  score = {
    name: np.stack([scores(quality, y, seed + number) for number in range(2)])
    for name, quality, seed in (('a10', 1.5, 0), ('b10', 0.0, 4), ('b40', 3.0, 8))
  }
  mean = {name: np.mean([metrics.auroc(one, y) for one in runs]) for name, runs in score.items()}
  (found,) = label_efficiency.equivalents(curves, score, y, metrics.auroc, None, 50)
  assert found['value'] == pytest.approx(
    label_efficiency.reached(mean['a10'], {10: mean['b10'], 40: mean['b40']})
  )
  assert 10 <= found['low'] <= found['high'] <= 40


def test_variants_are_grouped_into_curves():
  place = lambda name: (name[0], float(name[1:]))
  assert label_efficiency.grouped(['a10', 'a20', 'b10'], place) == {
    'a': {10.0: 'a10', 20.0: 'a20'},
    'b': {10.0: 'b10'},
  }


def scores(quality, y, seed):
  s = quality * y + np.random.RandomState(seed).randn(len(y))
  p = 1 / (1 + np.exp(-s))
  return np.stack([1 - p, p], 1)


def test_a_start_equals_itself_and_a_worse_one_needs_more():
  y = np.arange(120) % 2
  curves = {
    'good': {10: 'good10', 40: 'good40'},
    'same': {10: 'good10', 40: 'good40'},
    'bad': {10: 'bad10', 40: 'bad40'},
  }
  score = {
    'good10': scores(1.5, y, 0),
    'good40': scores(4.0, y, 1),
    'bad10': scores(0.0, y, 2),
    'bad40': scores(3.0, y, 3),
  }
  one = {name: value[None] for name, value in score.items()}
  found = {
    (row['other'], row['amount']): row
    for row in label_efficiency.equivalents(curves, one, y, metrics.auroc, None, 200)
  }
  twice = label_efficiency.equivalents(
    curves,
    {name: np.stack([value] * 2) for name, value in score.items()},
    y,
    metrics.auroc,
    None,
    200,
  )
  assert twice == list(found.values()), 'the same run twice says nothing new'
  for amount in (10, 40):
    assert (
      found['same', amount]['value'],
      found['same', amount]['low'],
      found['same', amount]['high'],
    ) == (amount,) * 3
  level, low, high = (metrics.auroc(score[name], y) for name in ('good10', 'bad10', 'bad40'))
  assert (
    found['bad', 10]['value'] == pytest.approx(10 + 30 * (level - low) / (high - low))
    and found['bad', 40]['value'] == 40
  )
  assert found['bad', 10]['low'] < found['bad', 10]['value'] < found['bad', 10]['high']
  unsure = dict(found['bad', 40], low=20, high=40)
  assert (
    label_efficiency.words(unsure, ' %')
    == 'good with 40 % is as good as bad with at least 40 % (20 % to at least 40 %)'
  )
  better = dict(found['bad', 40], low=40, high=40)
  assert (
    label_efficiency.words(better, ' %')
    == 'good with 40 % is better than bad with 40 %, the most that was tried'
  )


def row(**changes):
  known = dict(family='a', other='b', amount=10, value=25.0, low=20.0, high=30.0, reason='')
  return {**known, 'least': 10, 'most': 40, **changes}


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({}, 'a with 10 % is as good as b with 25 % (20 % to 30 %)'),
    (
      dict(value=10.0, low=10.0),
      'a with 10 % is as good as b with at most 10 % (at most 10 % to 30 %)',
    ),
    (
      dict(value=40.0, high=40.0),
      'a with 10 % is as good as b with at least 40 % (20 % to at least 40 %)',
    ),
    (dict(low=40.0, high=40.0), 'a with 10 % is better than b with 40 %, the most that was tried'),
    (
      dict(low=40.0, reason='no interval: why'),
      'a with 10 % is as good as b with 25 %; no interval: why',
    ),
  ],
)
def test_an_equivalent_in_words(changes, words):
  assert label_efficiency.words(row(**changes), ' %') == words


def test_each_amount_is_set_against_each_other_family_within_what_was_tried():
  y = np.arange(60) % 2
  curves = {'a': {10: 'a10', 20: 'a20'}, 'b': {10: 'b10'}, 'c': {5: 'c5', 80: 'c80'}}
  names = ('a10', 'a20', 'b10', 'c5', 'c80')
  score = {name: scores(number, y, number)[None] for number, name in enumerate(names)}
  found = label_efficiency.equivalents(curves, score, y, metrics.auroc, np.arange(60) // 2, 30)
  ends = [(item['family'], item['other'], item['amount']) for item in found]
  assert ends == [('a', 'b', 10), ('a', 'b', 20), ('a', 'c', 10), ('a', 'c', 20)]
  assert [(item['least'], item['most']) for item in found] == [(10, 10)] * 2 + [(5, 80)] * 2
  for item in found:
    assert item['least'] <= item['low'] <= item['value'] <= item['high'] <= item['most']
    assert item['reason'] == ''
