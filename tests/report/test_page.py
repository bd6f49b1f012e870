"""Numbers by patient, and a page that is one file.

It opens without a network, and lets nothing through unescaped.
"""

import base64
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import chex
import numpy as np
import pytest

from medtl.core.types import MedtlError, Predictions
from medtl.evaluation import metrics, operating_points, summary
from medtl.report import classification, console, figures, page
from tests.evaluation.test_metrics import case

KINDS = tuple(metrics.KINDS)
QUICK = dict(resamples=30)


def side(kind, n=60, seed=0, each=3):
  """Predictions of n images, `each` a patient, all of one patient alike in label."""
  k = 2 if kind == 'binary' else 3
  score, y = case(n, k, seed, many=kind == 'multilabel', ties=False)
  order = np.arange(n) if y.ndim == 2 else np.argsort(y, kind='stable')
  patient = np.array([f'P{i // each}' for i in range(n)])
  first = np.arange(n) // each * each
  table = {
    'row': 100 + np.arange(n),
    'patient': patient,
    'file': np.array([f'{i}.png' for i in range(n)]),
  }
  return Predictions(table['row'], y[order][first], {'score': score[order]}), table


def both(kind, **kwargs):
  pairs = {'test': side(kind, **kwargs), 'val': side(kind, seed=1, **kwargs)}
  return {name: pair[0] for name, pair in pairs.items()}, {
    name: pair[1] for name, pair in pairs.items()
  }


def summarised(kind, predictions=None, tables=None, **kwargs):
  given = both(kind)
  classes = ('A', 'B') if kind == 'binary' else ('A', 'B', 'C')
  return summary.summarise(
    predictions or given[0], tables or given[1], classes, kind=kind, **(QUICK | kwargs)
  )


@pytest.mark.parametrize('kind', KINDS)
def test_the_numbers_are_whole_and_strict_json(kind):
  found = summarised(kind)
  assert json.loads(json.dumps(found, allow_nan=False)) == found
  assert (
    set(found['metrics'])
    == {*metrics.names(kind), 'sensitivity', 'specificity'}
    == set(found['by_patient'])
  )
  assert set(found['headline']) <= set(found['metrics']) <= set(summary.LABELS)
  assert [row['class'] for row in found['per_class']] == (
    ['B'] if kind == 'binary' else ['A', 'B', 'C']
  )
  test, _ = side(kind)
  assert (found['images'], found['patients'], found['unit']) == (60, 20, 'patient')
  for name, value in metrics.monitor(test.score, test.y, kind).items():
    assert np.isclose(found['metrics'][name]['value'], value)
    assert found['metrics'][name]['low'] <= found['metrics'][name]['high']
  if kind != 'multilabel':
    assert np.sum(found['confusion']) == 60


@pytest.mark.parametrize('kind', ['binary', 'multiclass'])
def test_thresholds_come_from_validation_alone(kind):
  predictions, tables = both(kind)
  before = summarised(kind, predictions, tables)
  cut = operating_points.class_thresholds(predictions['val'], 'youden', kind)
  assert [row['threshold'] for row in before['per_class']] == cut.tolist()
  test = predictions['test']
  changed = {**predictions, 'test': Predictions(test.row, test.y, {'score': test.score[::-1]})}
  assert [
    row['threshold'] for row in summarised(kind, changed, tables)['per_class']
  ] == cut.tolist()
  column, y = operating_points.columns(test, kind)
  assert before['metrics']['sensitivity']['value'] == metrics.sensitivity(column - cut, y)
  stricter = summarised(kind, threshold='at_sensitivity(1.0)')
  pairs = zip(stricter['per_class'], before['per_class'], strict=True)
  assert all(new['threshold'] <= old['threshold'] for new, old in pairs)


def test_each_fold_may_bring_its_own_thresholds():
  """The same thresholds on every row are the same numbers.

  Without any, sensitivity is missing, with the reason.
  """
  predictions, tables = both('multiclass')
  expected = summarised('multiclass', predictions, tables)
  cut = operating_points.class_thresholds(predictions['val'], 'youden', 'multiclass')
  test = predictions['test']
  own = Predictions(test.row, test.y, {'score': test.score} | {'threshold': np.tile(cut, (60, 1))})
  assert summarised('multiclass', {'test': own}, tables)['metrics'] == expected['metrics']
  none = summarised('multiclass', {'test': test}, tables)
  assert (
    none['metrics']['sensitivity']['value'] is None
    and none['metrics']['auroc'] == expected['metrics']['auroc']
  )
  assert not any('threshold' in warning for warning in none['warnings']) and none['val'] == {}


def test_each_fold_s_thresholds_by_patient_are_not_those_of_the_pooled_validation_side():
  predictions, tables = both('multiclass')
  test = predictions['test']
  cut = np.tile([0.2, 0.3, 0.4], (60, 1))
  own = Predictions(
    test.row,
    test.y,
    {'score': test.score}
    | {'threshold': np.tile([0.9, 0.9, 0.9], (60, 1)), 'patient_threshold': cut},
  )
  pooled = summary.pool_by_patient(own, tables['test'])
  assert np.allclose(
    summary.thresholds_of(pooled, None, 'youden', 'multiclass'), cut[: len(pooled.row)]
  )
  with_val, without = (
    summarised('multiclass', {**sides, 'test': own}, tables)['by_patient']
    for sides in (predictions, {})
  )
  assert (
    with_val['sensitivity'] == without['sensitivity']
    and without['sensitivity']['value'] is not None
  )
  assert set(summary.sides_by_patient(predictions['val'], tables['val'])) == {
    'threshold',
    'patient_threshold',
  }


def test_scores_are_pooled_by_patient():
  test = Predictions(
    np.array([5, 6, 7]),
    np.array([1, 0, 1]),
    {'score': np.array([[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]])},
  )
  found = summary.pool_by_patient(test, {'patient': np.array(['b', 'a', 'b'])})
  chex.assert_trees_all_close((found.row, found.y), (np.array([6, 5]), np.array([0, 1])))
  chex.assert_trees_all_close(found.score, np.array([[0.9, 0.1], [0.4, 0.6]]))
  with pytest.raises(MedtlError, match='1 of 1 patients have images of several labels'):
    summary.pool_by_patient(test, {'patient': np.array(['a', 'a', 'a'])})


def test_what_is_doubtful_is_said():
  predictions, tables = both('multiclass')
  anonymous = {name: {'row': table['row']} for name, table in tables.items()}
  found = summarised('multiclass', predictions, anonymous)
  assert found['unit'] == 'image' and found['patients'] is None and found['by_patient'] is None
  assert any('Patients are not known' in warning for warning in found['warnings'])
  gaps = {
    **tables,
    'test': {
      **tables['test'],
      'patient': np.where(np.arange(60) == 3, '', tables['test']['patient']),
    },
  }
  assert any(
    '1 of 60 images name no patient' in warning
    for warning in summarised('multiclass', predictions, gaps)['warnings']
  )
  few = summarised('multiclass')['warnings']
  assert any(re.match(r'Few patients in the test set \(A \d, B \d, C \d\)', text) for text in few)
  mixed = {
    **tables,
    'test': {**tables['test'], 'patient': np.array([f'P{i % 5}' for i in range(60)])},
  }
  assert 'several labels' in summarised('multiclass', predictions, mixed)['by_patient_note']


def test_a_class_that_the_test_set_lacks():
  predictions, tables = both('multiclass')
  test = predictions['test']
  keep = np.asarray(test.y) != 1
  external = {
    **predictions,
    'test': Predictions(test.row[keep], test.y[keep], {'score': test.score[keep]}),
  }
  table = {**tables, 'test': {name: column[keep] for name, column in tables['test'].items()}}
  found = summarised('multiclass', external, table)
  assert (
    found['metrics']['auroc']['value'] is None
    and 'no example' in found['metrics']['auroc']['reason']
  )
  assert (
    found['per_class'][1]['auroc']['value'] is None
    and found['per_class'][0]['auroc']['low'] is not None
  )
  assert 'no example' in render('multiclass', external, table)


def test_the_worst_mistakes_come_first():
  score = np.array([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.3, 0.7], [0.01, 0.99]])
  test = Predictions(np.arange(10, 15), np.array([1, 1, 1, 0, 1]), {'score': score})
  found = summary.worst_errors(test, 'binary')
  fields = [(item['row'], item['true'], item['predicted'], item['p']) for item in found]
  assert fields == [(10, 1, 0, 0.9), (13, 0, 1, 0.7), (12, 1, 0, 0.55)]
  assert len(summary.worst_errors(test, 'binary', 2)) == 2
  many = summary.worst_errors(
    Predictions(test.row, np.array([[0, 0], [0, 0], [1, 1], [0, 1], [0, 1]]), {'score': score}),
    'multilabel',
  )
  assert [(item['row'], item['predicted'], item['true']) for item in many] == [
    (10, 0, 0),
    (11, 1, 0),
    (12, 1, 1),
  ]


@pytest.mark.parametrize('kind', KINDS)
def test_two_runs_are_compared_in_pairs(kind):
  predictions, tables = both(kind)
  first, val = predictions['test'], predictions['val']
  worse = Predictions(first.row, first.y, {'score': np.roll(first.score, 1, 1)})
  found = summary.compare([(first, val)], [(worse, val)], tables['test'], kind=kind, **QUICK)
  assert set(found) == set(summarised(kind)['metrics']) and found['auroc']['low'] > 0
  assert (
    summary.compare([(first, None)], [(worse, None)], tables['test'], kind=kind, **QUICK)[
      'sensitivity'
    ]['value']
    is None
  )
  with pytest.raises(MedtlError, match='different rows'):
    summary.compare(
      [(first, None)],
      [(Predictions(first.row + 1, first.y, {'score': first.score}), None)],
      tables['test'],
      kind=kind,
    )


@pytest.mark.parametrize('kind', KINDS)
def test_one_seed_is_the_run_itself_and_several_are_their_mean_with_chance_in_the_interval(kind):
  predictions, tables = both(kind)
  test, val = predictions['test'], predictions['val']
  noise = [
    Predictions(test.row, test.y, {'score': probabilities(kind, test.score, seed)})
    for seed in range(4)
  ]
  assert (
    summary.summarise_seeds([(test, val)], tables['test'], kind=kind, **QUICK)
    == summarised(kind)['metrics']
  )
  found = summary.summarise_seeds([(run, val) for run in noise], tables['test'], kind=kind, **QUICK)
  for name, metric in metrics.of(kind).items():
    assert found[name]['value'] == pytest.approx(
      np.mean([metric(run.score, run.y) for run in noise])
    )
  gap = summary.compare(
    [(run, val) for run in noise], [(test, val)] * 4, tables['test'], kind=kind, **QUICK
  )
  for name in metrics.of(kind):
    assert gap[name]['value'] == pytest.approx(
      found[name]['value'] - summarised(kind)['metrics'][name]['value']
    )


def probabilities(kind, score, seed):
  """Return other probabilities of the same kind."""
  moved = score * np.random.RandomState(seed).uniform(0.2, 1, score.shape)
  return moved if kind == 'multilabel' else moved / moved.sum(1, keepdims=True)


HOSTILE = '<script>alert("x")</script>&$a_$'


def facts(**changes):
  rules = [
    {'pattern': 'backbone/.*', 'lr': None, 'decay': None, 'parameters': 900},
    {'pattern': 'head/.*', 'lr': 1.0, 'decay': 0.1, 'parameters': 9},
  ]
  phase = dict(
    freeze='depth(1.0)', steps=3, live=9, frozen=900, flops=1e6, flops_full=4e6, rules=rules
  )
  look = {'val/loss': 0.5, 'val/auroc': 0.7}
  return (
    dict(
      title='A title',
      sentence='What was done.',
      command='python -m medtl.main',
      config={'seed': 0},
      monitor='auroc',
      best_step=4,
      data={'name': 'Pictures', 'phantom': False, 'licence': 'CC BY 4.0'},
      weights={'name': ''},
      phases=[phase, phase],
      splits={
        'test': {
          'size': 60,
          'patients': 20,
          'hash': 'ab' * 20,
          'classes': {'A': 20, 'B': 20, 'C': 20},
        }
      },
      curves=[
        {'step': step, 'train/loss': 1 / step, **(look if step % 2 == 0 else {})}
        for step in range(1, 7)
      ],
      versions={'jax': '1'},
      hardware='CPU',
      seconds=61.0,
      warnings=[],
      notes=[],
      comparison=[],
      tests=[],
      claim='never used for training or for any choice',
    )
    | changes
  )


def render(kind='multiclass', predictions=None, tables=None, images=None, classes=None, **changes):
  given = both(kind)
  predictions, tables = predictions or given[0], tables or given[1]
  found = summarised(kind, predictions, tables)
  return rendered(
    facts(**changes), {**found, 'classes': classes or found['classes']}, predictions, tables, images
  )


def rendered(told, numbers, predictions, tables, images=None):
  content = classification.content(numbers, predictions, tables, images)
  return page.render(told, numbers, 'classification.html.j2', content)


class Reader(HTMLParser):
  """Collects tags and addresses, and checks that what is opened is closed."""

  VOID = {'meta', 'img', 'br'}

  def __init__(self, text):
    super().__init__()
    self.tags, self.addresses, self.open = [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.addresses += [value for name, value in attrs if name in ('src', 'href')]
    if tag not in self.VOID:
      self.open.append(tag)
    if tag == 'img':
      assert dict(attrs)['alt']

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def drawings(text):
  return [
    base64.b64decode(data) for data in re.findall(r'data:image/svg\+xml;base64,([^"]+)', text)
  ]


@pytest.mark.parametrize('kind', KINDS)
def test_a_page_is_one_file_for_every_kind_of_task(kind):
  text = render(kind, images=lambda i: np.full((8, 8, 1), i / 60))
  read = Reader(text)
  assert (
    all(address.startswith('data:image/') for address in read.addresses) and len(read.addresses) > 5
  )
  assert (
    not {'script', 'link', 'iframe', 'base'} & set(read.tags)
    and 'url(' not in text
    and '@import' not in text
  )
  for drawing in drawings(text):
    ElementTree.fromstring(drawing)
  assert f'{summarised(kind)["metrics"]["auroc"]["value"]:.3f}' in text
  assert text == render(
    kind, images=lambda i: np.full((8, 8, 1), i / 60)
  )  # the same run, the same bytes


def test_everything_is_escaped():
  predictions, tables = both('multiclass')
  tables['test']['file'] = np.full(60, HOSTILE)
  beside = {'name': HOSTILE, 'note': HOSTILE, 'metrics': summarised('multiclass')['metrics']}
  tested = {'name': HOSTILE, 'over': HOSTILE, 'page': HOSTILE, 'headline': ['auroc']}
  tested |= {'metrics': beside['metrics'], 'comparison': [beside]}
  rules = [{'pattern': HOSTILE, 'lr': 1.0, 'decay': None, 'parameters': 9}]
  classes = [f'{HOSTILE}{i}' for i in range(3)]
  text = render(
    'multiclass',
    predictions,
    tables,
    classes=classes,
    title=HOSTILE,
    sentence=HOSTILE,
    command=HOSTILE,
    hardware=HOSTILE,
    config={HOSTILE: HOSTILE},
    claim=HOSTILE,
    warnings=[HOSTILE],
    notes=[HOSTILE],
    versions={HOSTILE: HOSTILE},
    comparison=[beside],
    tests=[tested],
    data={'name': HOSTILE, 'licence': HOSTILE, HOSTILE: HOSTILE},
    weights={'name': HOSTILE, 'note': HOSTILE},
    splits={HOSTILE: {'size': 1, 'patients': None, 'hash': HOSTILE, 'classes': {}}},
    phases=[dict(facts()['phases'][0], freeze=HOSTILE, rules=rules)],
  )
  assert '<script' not in text and 'alert(' in text
  Reader(text)
  assert all(b'<script' not in drawing for drawing in drawings(text))


def test_a_fact_that_is_missing_is_an_error():
  given = facts()
  del given['hardware']
  predictions, tables = both('multiclass')
  with pytest.raises(Exception, match='hardware'):
    rendered(given, summarised('multiclass'), predictions, tables)


def test_phantoms_are_called_phantoms():
  assert 'generated phantoms' in render(data={'name': 'x', 'phantom': True})
  assert 'generated phantoms' not in render()


def test_pictures_of_mistakes():
  text = render(images=lambda i: np.zeros((6, 40, 30, 1)))
  assert (
    text.count('data:image/png')
    == len(summary.worst_errors(side('multiclass')[0], 'multiclass'))
    > 0
  )
  assert 'out of reach' not in text and 'out of reach' in render()
  perfect = {
    name: Predictions(p.row, p.y, {'score': np.eye(3)[p.y]})
    for name, p in both('multiclass')[0].items()
  }
  assert 'None: each test image' in render(predictions=perfect)


@pytest.mark.parametrize('shape', [(50, 40, 1), (500, 400, 3), (5, 50, 40, 2), (28, 28, 1)])
def test_a_picture_of_what_the_model_saw(shape):
  from io import BytesIO

  from PIL import Image

  x = np.zeros(shape, np.float32)
  x[..., : shape[-2] // 2, :] = 1
  image = Image.open(BytesIO(base64.b64decode(figures.picture(x).partition(',')[2])))
  assert image.mode == ('RGB' if shape[-1] == 3 else 'L') and max(image.size) <= 320
  grey = np.asarray(image.convert('L'), int)
  assert (grey[:, : image.width // 2 - 1] > 250).all() and (
    grey[:, image.width // 2 + 1 :] < 5
  ).all()
  dark = np.round(x * 100)  # stays dark: nothing is stretched
  assert figures.picture(dark.astype(np.uint8)) == figures.picture(dark / np.float32(255))
  assert figures.picture(np.zeros((100, 2))).startswith('data:image/svg')


def test_the_page_is_written_whole(tmp_path):
  predictions, tables = both('binary')
  path = tmp_path / 'report.html'
  numbers = summarised('binary')
  content = classification.content(numbers, predictions, tables)
  page.write(path, facts(), numbers, 'classification.html.j2', content)
  assert path.read_text().rstrip().endswith('</html>') and [
    item.name for item in tmp_path.iterdir()
  ] == ['report.html']


def test_the_console_shows_the_headline():
  found = summarised('binary')
  lines = console.console(found).splitlines()
  assert lines[0] == '60 images of 20 patients, 95% intervals by patient'
  assert [line.split()[0] for line in lines[1:4]] == ['AUROC', 'Sensitivity', 'Specificity']
  assert f'{found["metrics"]["auroc"]["value"]:.3f} (' in lines[1]


def test_notes_on_the_data_are_listed_one_by_one():
  text = render(
    notes=['classes in the order of the alphabet: A, B, C', '3 files passed over (.txt)']
  )
  assert '<li>3 files passed over (.txt)</li>' in text and 'What was assumed' in text
  assert 'What was assumed' not in render()


def test_a_page_of_pooled_folds_says_why_a_dot_lies_beside_its_curve():
  predictions, tables = both('multiclass')
  words = 'Each fold has thresholds of its own'
  assert words not in render('multiclass', predictions, tables)
  cut = operating_points.class_thresholds(predictions['val'], 'youden', 'multiclass')
  test = predictions['test']
  own = test.values | {'threshold': np.tile(cut, (len(test.row), 1))}
  predictions['test'] = Predictions(test.row, test.y, own)
  assert words in render('multiclass', predictions, tables)


@pytest.mark.parametrize('draw', [figures.roc, figures.precision_recall])
def test_many_curves_have_their_legend_below_and_few_have_it_beside_them(draw):
  height_of = {}
  for k in (5, 7, 14):
    score, y = case(90, k, 0, many=False, ties=False)
    test = Predictions(np.arange(90), y, {'score': score})
    names = [f'class {number}' for number in range(k)]
    head, _, data = draw(test, np.full(k, 0.5), 'multiclass', names).partition(',')
    assert head == 'data:image/svg+xml;base64'
    drawing = ElementTree.fromstring(base64.b64decode(data))
    height_of[k] = float(drawing.get('viewBox').split()[3])
  assert height_of[5] < height_of[7] < height_of[14]
