"""Laws of segmentation: Dice as published, padding, parts of a batch, and a run to its page."""

import csv
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image
from scipy.spatial import distance

from medtl import main
from medtl.core.types import Batch, Dataset, Example, Forward, MedtlError, Predictions, State
from medtl.evaluation import predictions as saved
from medtl.evaluation import segmentation as numbers
from medtl.report import segmentation as section
from medtl.tasks import segmentation
from medtl.training import losses, step
from tests.conftest import ROOT

RANDOM = np.random.RandomState(0)
TRUTH = RANDOM.randint(0, 3, (4, 5, 6))
LOGITS = RANDOM.randn(4, 5, 6, 3).astype(np.float32)
STILL = Forward(lambda params, extra, x, key: (x * params['scale'], extra), lambda p, e, x: x)


def batch(mask=(True,) * 4, y=TRUTH):
  return Batch(jnp.asarray(LOGITS), jnp.asarray(y), jnp.asarray(mask), jnp.arange(4))


def test_dice_and_iou_are_those_of_scipy_and_nan_where_no_one_sees_the_class():
  task = segmentation.task()
  truth = TRUTH.copy()
  truth[0] = 0
  logits = LOGITS.copy()
  logits[0] = [9.0, 0.0, 0.0]  # the first example is all background, and said to be
  found = task.measure(STILL, {}, {}, batch(y=truth)._replace(x=jnp.asarray(logits)))
  assert np.isnan(found['dice'][0]).all() and not found['shows'][0].any()
  said = logits.argmax(-1)
  for row in (1, 2, 3):
    for label in (1, 2):
      pair = ((said[row] == label).ravel(), (truth[row] == label).ravel())
      dice, iou = (found[name][row, label - 1] for name in ('dice', 'iou'))
      np.testing.assert_allclose(dice, 1 - distance.dice(*pair), rtol=1e-6)
      np.testing.assert_allclose(iou, 1 - distance.jaccard(*pair), rtol=1e-6)
  assert (found['pixels'].sum(1) == 30).all()


def test_the_soft_dice_is_milletari_s_and_one_example_does_not_see_the_others():
  p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
  expected = []
  for row in range(4):
    terms = []
    for label in (1, 2):
      g = TRUTH[row] == label
      q = p[row, ..., label]
      terms.append(1 - 2 * (q * g).sum() / ((q**2).sum() + (g**2).sum()))
    expected.append(np.mean(terms))
  found = losses.dice(LOGITS, TRUTH, smooth=0.0)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  np.testing.assert_array_equal(losses.dice(LOGITS[:1], TRUTH[:1], smooth=0.0), found[:1])


def test_padding_counts_for_nothing_and_parts_of_a_batch_sum_to_the_whole():
  task = segmentation.task('dice + 0.5 * softmax')
  params = {'scale': jnp.ones(())}
  found, _ = task.loss(STILL, params, {}, batch(), jax.random.key(0), 0)
  values = losses.dice(LOGITS, TRUTH) + 0.5 * losses.softmax(LOGITS, TRUTH).mean((1, 2))
  total, logs = step.weighted(found, task.counts(batch()))
  np.testing.assert_allclose(total, values.mean(), rtol=1e-6)
  assert set(logs) == {'loss', 'dice_loss', 'softmax_loss'}
  half = batch(mask=(True, True, False, False))
  found, _ = task.loss(STILL, params, {}, half, jax.random.key(0), 0)
  np.testing.assert_allclose(
    step.weighted(found, task.counts(half))[0], values[:2].mean(), rtol=1e-6
  )
  tx = optax.with_extra_args_support(optax.sgd(0.1))
  start = State(jnp.zeros((), jnp.int32), params, {}, tx.init(params), jax.random.key(0))
  loss = functools.partial(task.loss, STILL)
  after = []
  for parts in (1, 2):
    moved, logs = step.update(
      start,
      half,
      loss=loss,
      counts=task.counts,
      tx=tx,
      live={'scale': True},
      accumulate=parts,
    )
    after.append((logs['loss'], logs['grad_norm'], moved.params['scale']))
  np.testing.assert_allclose(after[0], after[1], rtol=1e-5)


def test_the_loss_of_an_evaluation_weighs_its_terms_as_training_does():
  task = segmentation.task('dice + 0.5 * softmax')
  found = task.measure(STILL, {}, {}, batch())
  expected = losses.dice(LOGITS, TRUTH) + 0.5 * losses.softmax(LOGITS, TRUTH).mean((1, 2))
  np.testing.assert_allclose(found['loss'], expected, rtol=1e-5)


def predicted(dice):
  dice = np.asarray(dice, float)
  values = {'dice': dice, 'iou': dice / (2 - dice), 'shows': dice >= 0, 'loss': np.ones(len(dice))}
  return Predictions(np.arange(len(dice)), np.zeros(len(dice), int), values)


def test_numbers_are_means_over_images_and_leave_out_what_has_no_dice():
  first = predicted([[0.5, 1.0], [0.2, np.nan], [np.nan, np.nan], [0.9, 0.7]])
  second = predicted([[0.4, 0.9], [0.1, np.nan], [np.nan, np.nan], [0.8, 0.6]])
  table = {'row': np.arange(4), 'patient': np.array(list('aabc'))}
  found = numbers.summarise(
    {'test': first, 'val': first}, {'test': table}, ('background', 'a', 'b'), resamples=50
  )
  np.testing.assert_allclose(found['metrics']['dice']['value'], np.mean([0.75, 0.2, 0.8]))
  assert found['empty'] == 1 and '1 of 4 images' in found['warnings'][0]
  assert [row['images'] for row in found['per_class']] == [3, 2]
  np.testing.assert_allclose(found['per_class'][1]['dice']['value'], 0.85)
  json.dumps(found, allow_nan=False)
  again = lambda **draw: numbers.summarise(
    {'test': first, 'val': first}, {'test': table}, ('background', 'a', 'b'), resamples=50, **draw
  )
  assert found == again(seed=0, level=0.95) != again(seed=1)
  nobody = predicted([[0.0], [0.0]])
  nobody.values['shows'][:] = False
  tables = {'test': {'row': np.arange(2)}}
  alone = numbers.summarise({'test': nobody}, tables, ('background', 'a'), resamples=50)
  assert any(words.startswith('No image shows a: Dice is 0') for words in alone['warnings'])
  assert not any('No image shows' in words for words in found['warnings'])
  difference = numbers.compare([(first, None)], [(second, None)], table, resamples=50)
  for bound in ('value', 'low', 'high'):
    np.testing.assert_allclose(difference['dice'][bound], 0.1)
  seeds = numbers.summarise_seeds([(first, None), (second, None)], table, resamples=50)
  np.testing.assert_allclose(seeds['dice']['value'], np.mean([0.7, 0.15, 0.75]))
  assert section.shown(first) == [1, 0, 3]
  broken = numbers.monitor(predicted([[np.nan]]))
  assert np.isnan(broken['dice'])


@pytest.mark.parametrize(
  'loss, words',
  [
    (
      'dice + sigmoid',
      "'sigmoid' in 'dice \\+ sigmoid' cannot learn masks; .*dice, focal, softmax",
    ),
    ('dice - softmax', 'expected a sum of calls'),
    ('0 * dice', 'expected a sum of calls'),
    ('True * dice', 'expected a sum of calls'),
    ("'2' * dice", 'expected a sum of calls'),
    ('dice + dice(smooth=2)', 'has a term twice'),
  ],
)
def test_a_loss_that_cannot_learn_masks_is_an_error(loss, words):
  with pytest.raises(MedtlError, match=words):
    segmentation.task(loss)


def test_labels_that_are_no_masks_of_the_classes_are_an_error():
  x = np.zeros((4, 4, 1), np.float32)
  for y, words in (
    (np.int32(1), r"shape \(\), .*data.masks='target'"),
    (np.full((4, 4), 2, np.uint8), r'holds 2 … 2; expected numbers of classes, 0 … 1'),
  ):
    data = Dataset(lambda i, y=y: Example(x, y, i), 1, ('background', 'lesion'), {})
    with pytest.raises(MedtlError, match=words):
      segmentation.accepts({'train': data}, {})


def side_of_masks(*masks):
  """One side of a split, whose pictures have these masks."""
  x = np.zeros((4, 4, 1), np.float32)
  examples = [Example(x, mask, row) for row, mask in enumerate(masks)]
  return Dataset(examples.__getitem__, len(masks), ('background', 'lesion'), {})


def test_a_class_that_no_training_mask_shows_cannot_be_learned():
  empty = np.zeros((4, 4), np.uint8)
  shows = np.eye(4, dtype=np.uint8)
  many = [empty] * 100
  for masks in ([empty], many):
    with pytest.raises(
      MedtlError, match=rf'none of {len(masks)} training masks shows lesion, so that nothing'
    ):
      segmentation.accepts({'train': side_of_masks(*masks), 'val': side_of_masks(shows)}, {})
  wrong = np.full((4, 4), 2, np.uint8)
  for masks in ([wrong, *many], [*many, wrong]):  # the first and the last are always looked at
    with pytest.raises(MedtlError, match='holds 2 … 2; expected numbers of classes'):
      segmentation.accepts({'val': side_of_masks(*masks)}, {})
  one_of_many = side_of_masks(*many[:57], shows, *many)
  segmentation.accepts({'train': one_of_many, 'test': side_of_masks(*many)}, {})
  segmentation.accepts({'test': side_of_masks(*many)}, {})  # other data, for a trained net
  full = np.ones((4, 4), np.uint8)
  with pytest.raises(MedtlError, match='none of 2 training masks shows background'):
    segmentation.accepts({'train': side_of_masks(full, full)}, {})
  three = dataclasses.replace(side_of_masks(shows, shows), classes=('background', 'a', 'b'))
  with pytest.raises(MedtlError, match='none of 2 training masks shows b, so'):
    segmentation.accepts({'train': three}, {})


def test_masks_are_looked_at_no_further_than_the_first_that_shows_a_class():
  """The check before a run stays short: of a side of usual masks, LOOK are read."""
  shows = np.eye(4, dtype=np.uint8)
  usual = side_of_masks(*[shows] * 200)
  read = []

  def fetch(index):
    read.append(index)
    return usual.fetch(index)

  segmentation.accepts({'train': dataclasses.replace(usual, fetch=fetch)}, {})
  assert len(read) == segmentation.LOOK


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('segmentation')
  config = folder / 'tiny.py'
  config.write_text(
    (ROOT / 'tests' / 'tiny.py')
    .read_text()
    .replace(
      '  return config\n',
      """    config.data.update(patients=24, scans=1, target='mask')
    config.head = dict(name='decoders.unet', widths=(8,))
    config.task = dict(name='segmentation', loss='dice + softmax')
    config.phases = (('depth(1.0)', '1 epochs'),)
    config.batch = 4
    config.monitor = 'dice'
    config.cache = 'on'
  return config
""",
    )
  )
  assert main.main([f'--config={config}', f'--workdir={folder / "run"}']) == 0
  return folder / 'run'


def test_a_run_ends_with_numbers_and_a_page_that_shows_contours(run):
  found = json.loads((run / 'numbers.json').read_text())
  assert 0 <= found['metrics']['dice']['low'] <= found['metrics']['dice']['high'] <= 1
  page = (run / 'report.html').read_text()
  for words in ('Best, median and worst', 'alt="median: Dice', 'NORMAL', 'IoU'):
    assert words in page
  kept = saved.load(run / 'predictions' / 'test.npz')
  assert set(kept.maps) == {'truth', 'prediction'} and set(kept.maps['truth']) == set(kept.pictures)
  for row, mask in kept.maps['prediction'].items():
    place = kept.predictions.row.tolist().index(row)
    counted = np.bincount(mask.ravel(), minlength=17)
    np.testing.assert_array_equal(counted, kept.predictions.values['pixels'][place])


def test_pooled_folds_show_the_worst_and_best_of_all_and_a_median_that_was_kept(run, tmp_path):
  """Validation and test stand for two folds: no row is in both."""
  parts = [saved.load(run / 'predictions' / f'{side}.npz') for side in ('val', 'test')]
  saved.pooled(parts, tmp_path / 'pooled.npz')
  whole = saved.load(tmp_path / 'pooled.npz')
  assert whole.maps.keys() == {'truth', 'prediction'}
  assert whole.maps['truth'].keys() == set().union(*(part.pictures for part in parts))

  def images(index, name='picture'):
    kept = whole.pictures if name == 'picture' else whole.maps[name]
    return kept.get(int(whole.predictions.row[index]))

  dice = numbers.per_image(whole.predictions).values['dice']
  best, median, worst = section.cases(dice, whole.table, images)
  assert (best['dice'], worst['dice']) == (dice.max(), dice.min())
  assert worst['dice'] <= median['dice'] <= best['dice']


def test_predict_writes_pixels_and_masks_of_the_files_own_size(run, tmp_path):
  for name, size in (('a.png', (32, 32)), ('b.png', (48, 64))):
    Image.fromarray(RANDOM.randint(0, 255, size, np.uint8)).save(tmp_path / name)
  output = tmp_path / 'out' / 'found.csv'
  arguments = ['predict', f'--workdir={run}', f'--images={tmp_path}', f'--output={output}']
  assert main.main(arguments) == 0
  with open(output, newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['file'] for row in rows] == ['a.png', 'b.png']
  shares = [float(value) for key, value in rows[0].items() if key.endswith('share')]
  np.testing.assert_allclose(sum(shares), 1, atol=1e-4)
  mask = np.asarray(Image.open(output.with_name('found_masks') / 'b.png.png'))
  assert mask.shape == (48, 64)
  first = np.asarray(Image.open(output.with_name('found_masks') / 'a.png.png'))
  assert (first == 0).sum() == int(rows[0]['vitreous: pixels'])


def test_pooled_folds_show_the_next_case_where_the_extreme_one_was_not_kept():
  dice = np.array([0.9, 0.1, 0.5, 0.2, 0.8])
  kept = {2: 0.5, 3: 0.2, 4: 0.8}  # what the folds kept

  def images(index, name='picture'):
    if index not in kept:
      return None
    return np.zeros((6, 6, 1)) if name == 'picture' else np.ones((6, 6), int)

  shown = section.cases(dice, {'row': np.arange(5)}, images)
  assert [(case['name'], case['dice']) for case in shown] == [
    ('near the best', 0.8),
    ('median', 0.5),
    ('near the worst', 0.2),
  ]


def test_the_background_is_nothing_that_is_outlined():
  assert segmentation.aim(('background', 'lesion')) == 'to outline lesion'
  assert segmentation.aim(('background', 'anterior', 'posterior')) == 'to outline 2 classes'
