import hashlib
import itertools
from collections import Counter

import chex
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from medtl.core.types import MedtlError
from medtl.data import synthetic_retina
from medtl.data.sources import phantom

LABEL = synthetic_retina.LABEL


@pytest.fixture(scope='module')
def masks():
  return phantom.load(patients=40, scans=2, target='mask')


def labels_of(mask):
  return {synthetic_retina.TISSUES[value] for value in np.unique(mask)}


@pytest.mark.parametrize(
  'side, published', [(1, synthetic_retina.NASAL), (-1, synthetic_retina.TEMPORAL)]
)
def test_averages_over_the_sectors_are_the_published_ones(side, published):
  for sector, (low, high) in enumerate(itertools.pairwise(synthetic_retina.SECTORS)):
    r = np.linspace(low, high, 81)
    found = (synthetic_retina.thickness(side * r, 0.0) * r).sum(1) / r.sum()
    error = np.abs(found - published[:, sector])
    assert (
      error[1] < 5 and np.delete(error, 1).max() < 0.2
    )  # µm; the ganglion cells are cut off at 0 in the pit
  assert (synthetic_retina.thickness(np.linspace(-4, 4, 99), 0.2) >= 0).all()


def test_the_same_seed_gives_the_same_bytes():
  digest = hashlib.sha256()
  for scanner in phantom.SCANNERS:
    data = phantom.load(patients=4, scans=1, scanner=scanner, target='mask', size=(48, 64))
    for index in range(4):
      digest.update(data.fetch(index).x.tobytes() + data.fetch(index).y.tobytes())
  assert phantom.VERSION == 1  # new bytes need a new version, since the data's hash depends on it
  assert digest.hexdigest() == '31bdbf7388ffb4379449e7ea3503c8693a43831ed46cf8f3fe01aca0e82ab81f'


def test_a_scan_depends_on_nothing_but_its_seed_patient_and_number():
  few, many = phantom.load(patients=4, scans=2), phantom.load(patients=12, scans=2)
  backwards = {index: few.fetch(index).x for index in reversed(range(8))}
  for index in range(8):
    np.testing.assert_array_equal(backwards[index], many.fetch(index).x)
  for other in (
    many.fetch(1),
    phantom.load(patients=4, scans=2, seed=1).fetch(0),
    phantom.load(patients=4, scans=2, scanner='target').fetch(0),
  ):
    assert not np.array_equal(few.fetch(0).x, other.x)


def test_a_patients_scans_share_their_anatomy_and_the_scanners_see_other_people():
  person = synthetic_retina.draw('CNV', (0, 0, 7))
  assert all(
    np.array_equal(a, b)
    for a, b in zip(person, synthetic_retina.draw('CNV', (0, 0, 7)), strict=True)
  )
  source, target = (phantom.load(patients=8, scanner=name) for name in ('source', 'target'))
  assert not set(source.table['patient']) & set(target.table['patient'])
  assert not np.array_equal(source.table['age'], target.table['age'])
  assert set(Counter(source.table['patient']).values()) == {3}
  for patient in np.unique(source.table['patient']):
    rows = source.table['patient'] == patient
    assert all(len(set(source.table[name][rows])) == 1 for name in ('y', 'age', 'sex', 'eye'))


@pytest.mark.parametrize('size', [(64, 64), (48, 80)])
def test_examples_keep_the_contract(size):
  data = phantom.load(patients=5, scans=2, size=size, classes=('NORMAL', 'CNV'))
  assert data.size == 10 and data.classes == ('NORMAL', 'CNV') and data.facts['phantom'] is True
  np.testing.assert_array_equal(data.table['row'], np.arange(10))
  for index in range(10):
    example = data.fetch(index)
    chex.assert_shape(example.x, (*size, 1))
    assert (
      example.x.dtype == np.float32
      and example.x.min() >= 0
      and example.x.max() <= 1
      and example.x.std() > 0.02
    )
    assert example.row == index and example.y == data.table['y'][index]
    np.testing.assert_allclose(np.array(example.spacing) * size, (1.92, 8.8))
    np.testing.assert_array_equal(np.rint(example.x * 255), example.x * np.float32(255))
  assert phantom.load(patients=5).fingerprint != phantom.load(patients=5, seed=1).fingerprint


def test_signs_are_where_the_class_says(masks):
  found = [labels_of(masks.fetch(index).y) for index in range(masks.size)]
  fluid = {'subretinal fluid', 'subretinal material', 'intraretinal fluid'}
  share = {
    name: np.mean(
      [
        bool(labels & signs)
        for labels, y in zip(found, masks.table['y'], strict=True)
        if phantom.CLASSES[y] == name
      ]
    )
    for name, signs in (
      ('NORMAL', fluid),
      ('DRUSEN', {'sub-RPE deposit'}),
      ('DME', {'intraretinal fluid'}),
      ('CNV', {'subretinal fluid', 'subretinal material'}),
    )
  }
  assert share['NORMAL'] == 0 and min(share[name] for name in ('DRUSEN', 'DME', 'CNV')) > 0.75
  assert not any(
    labels & fluid for labels, y in zip(found, masks.table['y'], strict=True) if y == 1
  )


def test_layers_lie_in_order_and_measure_what_the_anatomy_says(masks):
  for index in range(masks.size):
    mask = masks.fetch(index).y.astype(int)
    layers = np.where(mask == LABEL['intraretinal fluid'], -1, mask)
    for column in layers.T:
      assert (np.diff(column[column >= 0]) >= 0).all()
  person = synthetic_retina.draw('NORMAL', (0, 0, 4))
  mask = phantom.render(person, 0, size=(1024, 128))[1]
  total = (mask[:, 64] > 0) & (mask[:, 64] < LABEL['choroid'])
  expected = [
    sum(
      um[0]
      for name, um in synthetic_retina.tissues(person, np.array([x, x + 0.01]), 0.0).items()
      if name != 'choroid'
    )
    for x in (-0.8, 0.0, 0.8)
  ]
  assert min(expected) - 20 < 1920 / 1024 * total.sum() < max(expected) + 20


def test_oedema_thickens_the_retina_as_published():
  thick = {
    label: [
      sum(
        synthetic_retina.tissues(
          synthetic_retina.draw(label, (0, 0, number)), np.linspace(-0.5, 0.5, 9), 0.0
        )[name].mean()
        for name in synthetic_retina.TISSUES[1:13]
      )
      for number in range(80)
    ]
    for label in ('NORMAL', 'DME')
  }
  assert np.mean(thick['NORMAL']) == pytest.approx(
    synthetic_retina.NASAL[:7, 0].sum(), rel=0.05
  )  # µm, the central subfield
  assert 300 < np.mean(thick['DME']) < 452 and np.min(thick['DME']) < np.max(
    thick['NORMAL']
  )  # 452 in cystoid oedema; some subtle


def test_the_mask_fits_the_picture(masks):
  light = {name: [] for name in synthetic_retina.TISSUES}
  for index in range(masks.size):
    example = masks.fetch(index)
    for value in np.unique(example.y):
      light[synthetic_retina.TISSUES[value]].append(example.x[..., 0][example.y == value].mean())
  mean = {name: np.mean(values) for name, values in light.items()}
  assert (
    mean['RPE']
    > mean['ellipsoid zone']
    > mean['RNFL']
    > mean['IPL']
    > mean['INL']
    > mean['ONL']
    > mean['vitreous']
  )
  assert mean['ONL'] > mean['intraretinal fluid'] and mean['choroid'] > mean['sclera']
  assert mean['subretinal material'] > 1.5 * mean['subretinal fluid']


def test_scanners_differ_in_resolution_contrast_and_noise():
  person = synthetic_retina.draw('NORMAL', (0, 0, 0))
  (source, mask), (target, other) = (
    phantom.render(person, 0, name) for name in ('source', 'target')
  )
  tissue = [
    picture[..., 0][where == LABEL['ONL']] for picture, where in ((source, mask), (target, other))
  ]
  vitreous = [picture[..., 0][where == 0] for picture, where in ((source, mask), (target, other))]
  assert vitreous[1].mean() > 1.5 * vitreous[0].mean()
  contrast = [
    inside.mean() / outside.mean() for inside, outside in zip(tissue, vitreous, strict=True)
  ]
  assert contrast[0] > contrast[1]
  assert (
    phantom.load(patients=4).fetch(0).spacing
    != phantom.load(patients=4, scanner='target').fetch(0).spacing
  )


def test_pixels_alone_do_not_tell_the_classes():
  data = phantom.load(patients=160, scans=1, size=(64, 64))
  x = (
    np.stack([data.fetch(index).x for index in range(data.size)])
    .reshape(data.size, 32, 2, 32, 2)
    .mean((2, 4))
    .reshape(160, -1)
  )
  model = make_pipeline(PCA(60, random_state=0), LogisticRegression(max_iter=300)).fit(
    x[:96], data.table['y'][:96]
  )
  assert roc_auc_score(data.table['y'][96:], model.predict_proba(x[96:]), multi_class='ovr') < 0.75


@pytest.mark.parametrize(
  'asked, message',
  [
    (dict(scanner='sorce'), "unknown scanner 'sorce'; did you mean 'source'"),
    (dict(classes=('NORMAL', 'AMD')), "unknown class 'AMD'"),
    (dict(target='masks'), "unknown target 'masks'; did you mean 'mask'"),
    (dict(size=(8, 64)), 'at least 16 pixels'),
    (dict(patients=3), 'a patient for each class'),
    (dict(classes=()), 'a patient for each class'),
  ],
)
def test_a_mistake_is_named(asked, message):
  with pytest.raises(MedtlError, match=message):
    phantom.load(**asked)
