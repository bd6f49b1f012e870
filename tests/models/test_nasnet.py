"""NASNet against Keras on seeded weights."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.models import Net, heads
from medtl.models.backbones import nasnet
from medtl.models.pretrained import nasnet as names
from medtl.models.pretrained import port
from tests.fixtures import mobile_seeds, seeded
from tests.models.levels import distance, outputs, shapes_of

CLASSES = 7


@pytest.fixture(scope='module')
def reference():
  with np.load(Path(__file__).parents[1] / 'fixtures' / 'nasnet.npz') as file:
    return dict(file)


def test_cells_and_logits_are_the_reference_s(reference):
  """In float32, in which Keras computes some of it even where it is asked for float64."""
  shapes = json.loads(str(reference['shapes']))
  net = Net(nasnet.nasnet_mobile(filters=8, repeats=1), heads.linear(CLASSES))
  net = net.clone(backbone=net.backbone.clone(stem=8))
  target = shapes_of(net, 64, 96, 3)
  arrays = mobile_seeds.keras_weights(shapes)
  ported, report = port.port(arrays, target, {'keras': names.keras(1)})
  assert not report.ignored and report.mean == report.std == (0.5, 0.5, 0.5)
  *maps, logits = outputs(net, ported, jnp.asarray(seeded.picture(*mobile_seeds.SIZE)))
  assert len(maps) == 8 and '8' not in reference
  for child, y in enumerate(maps):
    assert distance(mobile_seeds.pick(y), reference[str(child)]) <= 2e-5, child
  assert distance(logits, reference['logits']) <= 2e-5


def test_keras_names_and_shapes_are_ours_and_as_many_numbers(reference):
  published = json.loads(str(reference['published']))
  arrays = {name: np.zeros(shape, 'f4') for name, shape in published.items()}
  target = shapes_of(Net(nasnet.nasnet_mobile(), heads.linear(1000)), 64, 64, 3)
  ported, report = port.port(arrays, target, nasnet.RENAMES)
  assert not report.ignored
  assert sum(leaf.size for leaf in jax.tree.leaves(ported)) == 5_326_716  # as Keras says


def test_a_cut_holds_a_cell_and_the_one_before_it():
  """Of these two the maps are the newer one's; after the last cell nobody needs the older."""
  net = Net(nasnet.nasnet_mobile(filters=8, repeats=1), heads.linear(2))
  target = shapes_of(net, 64, 96, 3)
  cut = lambda end: jax.eval_shape(
    lambda variables, x: net.apply(variables, x, method='features', end_child=end),
    target,
    jax.ShapeDtypeStruct((1, 64, 96, 3), 'f4'),
  )
  cell, before = cut(4)
  assert cell.shape == (1, 8, 12, 48) and before.shape == (1, 8, 12, 16)
  assert net.backbone.maps((cell, before)) is cell
  assert cut(8).shape == (1, 2, 3, 192)
