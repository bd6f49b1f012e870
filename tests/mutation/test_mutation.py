"""The mutation tester: what it mutates, what it samples, which tests it runs, what it counts."""

from tests.mutation import equivalents, mutants, reach, table, trials
from tests.mutation.equivalents import Equivalent
from tests.mutation.reach import Reach

SOURCE = """\
LIMIT: int | None = 3


@property
def double(*words, most: 'int | str' = 2, **rest):
  if len(words) > most and rest:
    return [*words, *words]
  return -most
"""


def changes():
  """Return {(function, line before, line after)} of every mutant of SOURCE."""
  found = mutants.mutants('x.py', SOURCE)
  return {(mutant.function, *mutants.changed_line(SOURCE, mutant)) for mutant in found}


def test_operators_conditions_numbers_and_decorators_change_but_no_annotation_and_no_unpacking():
  condition = 'if len(words) > most and rest:'
  header = "def double(*words, most: 'int | str' = 2, **rest):"
  assert changes() == {
    ('', 'LIMIT: int | None = 3', 'LIMIT: int | None = 4'),
    ('', 'LIMIT: int | None = 3', 'LIMIT: int | None = 2'),
    ('', '@property', ''),
    ('double', header, header.replace('2', '3')),
    ('double', header, header.replace('2', '1')),
    ('double', condition, condition.replace('>', '>=')),
    ('double', condition, condition.replace('>', '<=')),
    ('double', condition, condition.replace('and', 'or')),
    ('double', condition, condition.replace('if', 'if not')),
    ('double', 'return -most', 'return most'),
  }


def test_a_sample_is_a_function_of_its_seed_and_the_begin_of_a_larger_one(tmp_path):
  for path in ('tasks/x.py', 'data/splits.py', 'data/dealing.py'):
    path = f'medtl/{path}'
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(SOURCE)
  few = mutants.sample(tmp_path, 0, 4)
  more = mutants.sample(tmp_path, 0, 9)
  assert few == more[:4] != mutants.sample(tmp_path, 1, 4)
  assert len({(mutant.path, mutant.place) for mutant in few}) == 4
  packages = {mutants.package_of(mutant.path) for mutant in more}
  assert packages == {'tasks', 'data/splits', 'data/dealing'}


def test_a_mutant_gets_the_tests_of_its_statement_else_of_what_stands_around_it():
  seconds = {'slow': 25.0, 'quick': 1.0, 'slower': 26.0, 'other': 2.0}
  lines = {1: {''}, 5: {''}, 6: {'slow', 'quick', 'slower'}, 7: {'other'}}
  known = Reach(seconds, {('x.py', line): tests for line, tests in lines.items()})
  found = {
    mutant.place[0]: reach.tests_of(mutant, known) for mutant in mutants.mutants('x.py', SOURCE)
  }
  assert found[6] == ['quick', 'slow'], 'the quickest first, as many as the budget allows'
  assert found[5] == found[1] == ['quick', 'other', 'slow'], (
    'run at import: tests of what is around'
  )
  assert found[8] == [], 'nobody runs it'


def test_an_outcome_is_read_off_pytests_exit_code():
  assert trials.judge(0, '') == (trials.SURVIVED, '')
  assert trials.judge(1, 'x\nFAILED a.py::b - why') == (trials.KILLED, 'a.py::b')
  assert trials.judge(4, 'ERROR: not found')[0] == trials.NO_IMPORT
  assert trials.judge(-11, '')[0] == trials.KILLED
  assert trials.judge(-24, '')[0] == trials.OVER_TIME


RESULT = dict(
  path='medtl/tasks/x.py', line=3, function='f', before='a', after='b', tests=2, killer='t'
)


def test_the_share_is_of_all_mutants_and_survivors_are_shown():
  argued = [Equivalent('medtl/tasks/x.py', 'f', 'a', 'b', 'why')]
  results = [
    RESULT | {'outcome': trials.KILLED, 'before': 'c'},
    RESULT | {'outcome': trials.SURVIVED},
    RESULT | {'outcome': trials.SURVIVED, 'before': 'd'},
    RESULT | {'outcome': trials.OVER_TIME, 'before': 'e'},
  ]
  lines = table.markdown(results, argued).splitlines()
  assert lines[2] == '| `tasks` | 4 | 2 | 1 | 1 | 50.0% (15.0% to 85.0%) |'
  assert lines[3] == '| all' + lines[2].removeprefix('| `tasks`')
  summed, survivor, change = '\n'.join(table.remarks(results, argued)).splitlines()
  assert summed == 'of the killed 1 ran over time and 0 could not be imported'
  assert survivor == 'survived 2 tests: medtl/tasks/x.py:3 f' and change.strip() == 'd  →  b'


def test_an_argument_is_stale_when_its_line_is_gone(tmp_path):
  (tmp_path / 'x.py').write_text(SOURCE)
  held = Equivalent('x.py', 'double', 'return -most', 'return most', 'why')
  others = [
    held._replace(path='y.py'),
    held._replace(function=''),
    held._replace(before='return +most'),
    held._replace(after='return most + 1'),
  ]
  assert equivalents.stale(tmp_path, [held, *others]) == others


def test_every_argument_has_a_reason():
  assert all(entry.reason for entry in equivalents.load())


def test_a_default_is_left_to_the_tests_of_its_function():
  source = 'def f(\n  a=1,\n  b=2,\n):\n  return a\n'
  spans = {mutant.place[0]: mutant.spans[0] for mutant in mutants.mutants('x.py', source)}
  assert spans == {2: (1, 5), 3: (1, 5)}


def test_a_constant_and_a_field_are_left_to_the_tests_of_their_file():
  source = 'LIMIT = 3\n\n\nclass A:\n  n: int = 1\n\n  def f(self):\n    return 2\n'
  spans = {mutant.place[0]: mutant.spans[0] for mutant in mutants.mutants('x.py', source)}
  assert spans == {1: (1, 9), 5: (1, 9), 8: (8, 8)}
