"""Text in configs: parsed, checked, never evaluated."""

import functools

import pytest

from medtl.core import expressions
from medtl.core.types import MedtlError
from medtl.training import losses, schedules


def test_chain_keeps_order_and_literals():
  calls = expressions.parse_chain("a(1, -2.5, 'x') | b | c(d=(1, 2))")
  assert [call.name for call in calls] == ['a', 'b', 'c']
  assert calls[0].args == (1, -2.5, 'x') and calls[2].kwargs == {'d': (1, 2)}
  assert expressions.parse_chain('  ') == []


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('a(', 'cannot read'),
    ('a(open("x"))', 'literals'),
    ('a.b(1)', 'expected name'),
    ('a(1) + b(2)', 'expected name'),
    ('[1, 2]', 'expected name'),
  ],
)
def test_what_is_no_chain_of_literals_is_refused(text, says):
  with pytest.raises(MedtlError, match=says):
    expressions.parse_chain(text)


def test_unknown_operation_names_the_nearest():
  with pytest.raises(MedtlError, match=r"unknown operation 'softmx'.*did you mean 'softmax'"):
    expressions.functions('softmx', losses, given=('outputs', 'y'))


def test_unknown_key_names_the_nearest():
  with pytest.raises(MedtlError, match=r"no key 'smooth'.*did you mean 'smoothing'"):
    expressions.functions('softmax(smooth=0.1)', losses, given=('outputs', 'y'))


def test_too_many_arguments_are_said():
  with pytest.raises(MedtlError, match=r'focal: too many positional arguments'):
    expressions.functions('focal(1.0, 2.0)', losses, given=('outputs', 'y'))


def test_component_checks_module_function_and_keys():
  with pytest.raises(MedtlError, match=r"no module 'losess'.*did you mean 'losses'"):
    expressions.component({'name': 'losess.focal'}, 'medtl.training', 'x')
  with pytest.raises(MedtlError, match=r"no function 'fcal'.*did you mean 'focal'"):
    expressions.component({'name': 'losses.fcal'}, 'medtl.training', 'x')
  with pytest.raises(
    MedtlError, match=r"config.x \(losses.focal\) has no key 'gama'.*did you mean 'gamma'"
  ):
    expressions.component(
      {'name': 'losses.focal', 'gama': 1}, 'medtl.training', 'x', given=('outputs', 'y')
    )
  function, kwargs = expressions.component(
    {'name': 'losses.focal', 'gamma': 1.0}, 'medtl.training', 'x', given=('outputs', 'y')
  )
  assert function is losses.focal and kwargs == {'gamma': 1.0}


@pytest.mark.parametrize('name', ['os.system', 'losses.jax', 'a b.c', '__import__'])
def test_only_a_modules_own_functions_can_be_named(name):
  with pytest.raises(MedtlError):
    expressions.find(name, 'medtl.training')


@pytest.mark.parametrize(
  ('text', 'count'),
  [
    ('3 epochs', 12),
    ('1 epoch', 4),
    ('0.5 epochs', 2),
    ('64 examples', 2),
    ('65 examples', 3),
    ('10%', 20),
    ('7 steps', 7),
    (9, 9),
    ('9', 9),
  ],
)
def test_durations_are_seen_as_steps(text, count):
  assert expressions.duration_in_steps(text, examples=100, batch=32, total=200) == count


@pytest.mark.parametrize('text', ['3 apples', 'epochs', '', '-1 epochs'])
def test_durations_that_cannot_be_read(text):
  with pytest.raises(MedtlError, match=r'cannot read the duration'):
    expressions.duration_in_steps(text, 100, 32)


def test_schedules():
  steps = functools.partial(
    expressions.duration_in_steps, examples=100, batch=10, total=100, least=0
  )
  cosine = expressions.single_function("cosine(warmup='10%')", schedules, given=('total', 'steps'))(
    100, steps
  )
  assert [round(float(cosine(step)), 4) for step in (0, 4, 9, 10, 55, 100)] == [
    0.1,
    0.5,
    1.0,
    1.0,
    0.5,
    0.0,
  ]
  falling = expressions.single_function(
    "step(at=('50%', '75%'))", schedules, given=('total', 'steps')
  )(100, steps)
  assert [round(float(falling(step)), 4) for step in (0, 49, 50, 75)] == [1.0, 1.0, 0.1, 0.01]


def test_a_path_inside_one_file_is_an_error_that_says_what_to_write():
  with pytest.raises(MedtlError, match=r"medtl.models.heads is one file; write 'linear' alone"):
    expressions.find('heads.linear', 'medtl.models.heads')
