"""A value is what its annotation says, or is refused with an example that is."""

import ast
import collections.abc as abc
import math
import re
from inspect import Parameter
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from medtl.core import annotation, expressions
from medtl.core.types import MedtlError
from medtl.data import augmentation, splits, transforms
from medtl.data.sources import dicom, folder, medmnist, phantom, tfds
from medtl.evaluation import thresholds
from medtl.models import heads
from medtl.models.backbones import efficientnet, resnet, vit
from medtl.tasks import classification
from medtl.training import freezing, losses, optimizers, schedules

Texts = abc.Sequence[str]


def parameter(kind, default=Parameter.empty):
  return Parameter('key', Parameter.KEYWORD_ONLY, annotation=kind, default=default)


@pytest.mark.parametrize(
  ('kind', 'value', 'becomes'),
  [
    (bool, np.bool_(True), True),
    (int, np.int64(3), 3),
    (float, 3, 3.0),
    (float, np.float32(0.5), 0.5),
    (str, np.str_('a'), 'a'),
    (Any, None, None),
    (int | None, None, None),
    (int | None, 3, 3),
    (int | float, 3, 3),
    (float | int, 3, 3),
    (str | Texts, 'a', 'a'),
    (str | Texts, ['a', 'b'], ('a', 'b')),
    (str | Texts, (1, 2), ('1', '2')),
    (Texts, (0, 1, 2), ('0', '1', '2')),
    (Texts, [1.0, 'x'], ('1.0', 'x')),
    (Texts, np.array([0, 1]), ('0', '1')),
    (Texts, (), ()),
    (tuple[int, ...], [32, 32], (32, 32)),
    (tuple[int, int], (0, 1), (0, 1)),
    (list[int], (1, 2), [1, 2]),
    (abc.Sequence[str | int], ('50%', 3), ('50%', 3)),
    (abc.Sequence, [1, 'a'], (1, 'a')),
    (Literal['mean', 'max'], 'max', 'max'),
    (Literal[1, 2], 2, 2),
    (abc.Mapping[str, Any], {'by': 'image'}, {'by': 'image'}),
    (dict[str, float], {'a': 1}, {'a': 1.0}),
  ],
)
def test_what_a_value_becomes(kind, value, becomes):
  found = annotation.checked('x', 'key', value, parameter(kind))
  assert found == becomes and type(found) is type(becomes)
  if isinstance(becomes, tuple | list):
    assert list(map(type, found)) == list(map(type, becomes))


@pytest.mark.parametrize(
  ('kind', 'value', 'default', 'says'),
  [
    (bool, 'false', False, "key is 'false'; expected True or False"),
    (bool, 0, False, 'expected True or False'),
    (int, True, 1, 'expected a whole number, for instance 1'),
    (int, 1.0, 0, 'for instance 1'),
    (int, '5', 0, 'for instance 5'),
    (int, 'all', 0, 'expected a whole number, for instance 1'),
    (int, None, 7, 'for instance 7'),
    (int, (224, 224), 28, 'for instance 224'),
    (int, 2.5, 7, 'for instance 7'),
    (float, 'lots', 4.0, 'expected a number, for instance 4.0'),
    (float, 'lots', 0.0, 'for instance 0.0'),
    (float, False, 0.1, 'for instance 0.1'),
    (str, 1, '', "expected text, for instance '1'"),
    (str, ('a',), 'b', "for instance 'a'"),
    (str, None, '', "for instance 'text'"),
    (Texts, 'benign,malignant', (), r"a sequence of text, for instance \('benign', 'malignant'\)"),
    (Texts, 'benign', (), r"for instance \('benign',\)"),
    (Texts, 0, (), r"for instance \('a', 'b'\)"),
    (Texts, (False, True), (), 'a sequence of text'),
    (Texts, ('a', None), ('b',), r"for instance \('b',\)"),
    (str | Texts, 1, 'label', "expected text or a sequence of text, for instance '1'"),
    (str | Texts, True, 'label', "for instance 'label'"),
    (str | Texts, {'a': 1}, 'label', "'label'"),
    (tuple[int, ...], 224, (8, 8), r'a sequence of whole numbers, for instance \(224, 224\)'),
    (tuple[int, ...], '(24, 32)', (8, 8), r'for instance \(24, 32\)'),
    (tuple[int, ...], (8.5, 8), (8, 8), r'for instance \(8, 8\)'),
    (
      tuple[int, int],
      (1, 2, 3),
      (-2, -1),
      r'a sequence of 2 whole numbers, for instance \(-2, -1\)',
    ),
    (
      int | tuple[int, ...],
      'a',
      16,
      'a whole number or a sequence of whole numbers, for instance 16',
    ),
    (int | float, 'a', 2, 'expected a number, for instance 2'),
    (int | None, 'a', None, 'expected a whole number or None, for instance 1'),
    (abc.Sequence[str | int], '50%', ('50%', '75%'), 'a sequence of text or whole numbers'),
    (Literal['mean', 'max'], 'men', 'mean', "expected 'mean' or 'max'"),
    (Literal[1, 2], True, 1, 'expected 1 or 2'),
    (abc.Mapping, 'publisher', Parameter.empty, 'expected keys with values'),
    (abc.Mapping[str, int], {'a': 'b'}, Parameter.empty, 'expected keys with values'),
  ],
)
def test_what_is_refused_and_what_is_said(kind, value, default, says):
  with pytest.raises(MedtlError, match=says) as error:
    annotation.checked('x', 'key', value, parameter(kind, default))
  assert '\n' not in str(error.value)


def test_a_parameter_without_annotation_is_of_the_kind_of_its_default():
  with pytest.raises(MedtlError, match='expected a whole number'):
    annotation.checked('x', 'key', 'a', parameter(Parameter.empty, 3))
  assert annotation.checked('x', 'key', 'a', parameter(Parameter.empty, None)) == 'a'


def every_parameter():
  """Return (where, name, parameter) of all that a config can set by a function's signature."""
  modules = (
    dicom,
    folder,
    medmnist,
    phantom,
    tfds,
    splits,
    transforms,
    augmentation,
    losses,
    schedules,
    optimizers,
    freezing,
    thresholds,
    heads,
    resnet,
    vit,
    efficientnet,
  )
  return [
    (f'{module.__name__}.{function}', name, one)
    for module in modules
    for function, found in expressions.public(module).items()
    for name, one in expressions.signature(found).parameters.items()
    if name != 'dtype'
  ]


ODD = (None, True, 0, -1, 5.0, 0.5, 'all', 'false', '5', 'a,b', (), (1, 2), ('a',), [1.5], {'a': 1})


def test_every_example_in_an_error_works():
  """Whatever stands at any key that a config can set: it fits, or the error's example does."""
  shown = 0
  for where, name, one in every_parameter():
    for value in ODD:
      try:
        annotation.checked(where, name, value, one)
      except MedtlError as error:
        example = re.search('for instance (.*)$', str(error))
        if example:
          annotation.checked(where, name, ast.literal_eval(example[1]), one)
          shown += 1
  assert shown > 1000


@pytest.mark.parametrize('word', ['false', 'False', 'FALSE', 'no', 'No', '0'])
def test_no_word_for_false_is_ever_true(word):
  assert annotation.read(word, parameter(bool)) is False


@pytest.mark.parametrize(
  ('word', 'kind', 'found'),
  [
    ('true', bool, True),
    ('yes', bool, True),
    ('1', bool, True),
    ('maybe', bool, 'maybe'),
    ('2', bool, 2),
    ('no', str, 'no'),
    ('true', str, 'true'),
    ('2017', str, '2017'),
    ("'1'", str, '1'),
    ('(0-9)', str, '(0-9)'),
    ('1', int, 1),
    ('1', float, 1.0),
    ('1e-3', float, 0.001),
    ('all', int, 'all'),
    ('1.0', int, 1.0),
    ('(0,1,2)', Texts, ('0', '1', '2')),
    ('0,1', Texts, ('0', '1')),
    ('a,b', Texts, 'a,b'),
    ("('a','b')", str | Texts, ('a', 'b')),
    ('1', str | Texts, '1'),
    ('[8, 8]', tuple[int, ...], (8, 8)),
  ],
)
def test_a_word_is_read_as_the_key_takes_it(word, kind, found):
  read = annotation.read(word, parameter(kind))
  assert read == found and type(read) is type(found)


def test_annotations_kept_as_text_are_types_too():
  made = {}
  exec(
    'from __future__ import annotations\ndef load(root: str, size: int = 3): ...\n'
    'def broken(x: Nowhere): ...',
    made,
  )
  with pytest.raises(MedtlError, match=r'size is .*expected a whole number'):
    expressions.bind(made['load'], expressions.Call('load', ('a',), {'size': 'b'}))
  with pytest.raises(MedtlError, match=r"annotations of .*broken cannot be read: name 'Nowhere'"):
    expressions.signature(made['broken'])


def test_a_default_stands_for_itself():
  assert annotation.checked('x', 'key', None, parameter(int, None)) is None
  assert set(expressions.parameters(classification.loss_of)) == {'kind', 'loss'}


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, 10**400, np.float32('nan')])
def test_what_is_not_finite_is_no_number_wherever_it_stands(value):
  for kind, given in (
    (float, value),
    (float | None, value),
    (abc.Sequence[float], (1.0, value)),
    (dict[str, float], {'a': value}),
    (Annotated[float, annotation.FROM_0], value),
  ):
    with pytest.raises(annotation.Misfit):
      annotation.fitted(given, kind)


def test_a_range_is_checked_and_told_with_the_kind():
  rate = Parameter('rate', Parameter.KEYWORD_ONLY, annotation=Annotated[float, annotation.FROM_0])
  assert annotation.checked('x', 'rate', 0, rate) == 0.0
  with pytest.raises(
    MedtlError, match=r'x: rate is -1; expected a number 0 or more, for instance 1$'
  ):
    annotation.checked('x', 'rate', -1, rate)
  sizes = Annotated[int | tuple[int, ...], annotation.ABOVE_0]
  assert annotation.fitted([1, 2], sizes) == (1, 2) and annotation.fitted(3, sizes) == 3
  for wrong in (0, (1, 0), '1', True):
    with pytest.raises(annotation.Misfit):
      annotation.fitted(wrong, sizes)


def test_arguments_that_do_not_go_together_are_refused_with_their_defaults_too():
  @annotation.together('low < high', lambda low, high: low < high)
  def span(x, low, high=1.0):
    return x, low, high

  assert span(0, 0.5) == (0, 0.5, 1.0) and list(expressions.parameters(span)) == [
    'x',
    'low',
    'high',
  ]
  with pytest.raises(MedtlError, match=r'span: low=2, high=1.0; expected low < high'):
    span(0, low=2)
