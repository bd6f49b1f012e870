"""A run folder that an older version wrote is read, and gives the same numbers."""

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl.core.types import MedtlError
from medtl.data.sources import phantom
from medtl.run import predict, run_folder, run_report

OLD = Path(__file__).parents[1] / 'fixtures' / 'run_folder_v1.zip'  # written on 2026-11-28


@pytest.fixture
def old(tmp_path):
  """A run folder of the time when config.task had no name."""
  with zipfile.ZipFile(OLD) as archive:
    archive.extractall(tmp_path)
  return tmp_path / 'run'


def test_its_page_is_written_anew_with_the_same_numbers(old):
  before = json.loads((old / 'numbers.json').read_text())
  numbers = json.loads(json.dumps(run_report.write_report(old)))
  assert numbers['metrics'] == before['metrics'] and numbers['per_class'] == before['per_class']
  assert (old / 'report.html').read_text().rstrip().endswith('</html>')


def test_its_test_side_is_predicted_again_as_it_was(old):
  before = np.load(old / 'predictions' / 'test.npz')['score']
  predict.evaluate_again(run_folder.require(old), old, 'test')
  after = np.load(old / 'predictions' / 'test.npz')['score']
  np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_it_says_what_new_pictures_show(old, tmp_path):
  case = phantom.load(patients=8, size=(32, 32), seed=5).fetch(0)
  (tmp_path / 'new').mkdir()
  picture = Image.fromarray((case.x[..., 0] * 255).astype(np.uint8))
  picture.save(tmp_path / 'new' / 'a.png')
  output = predict.predict(run_folder.require(old), old, tmp_path / 'new', tmp_path / 'out.csv')
  header, row = csv.reader(output.read_text().splitlines())
  probabilities = [float(cell) for cell in row[2:]]
  assert header == ['file', 'predicted', 'NORMAL', 'DRUSEN', 'DME', 'CNV']
  assert sum(probabilities) == pytest.approx(1)


def test_another_config_is_told_from_it_by_the_keys_that_differ(old):
  config = run_folder.read_config(old)
  run_folder.open_or_verify(old, config)
  with config.unlocked():
    config.lr = 0.5
  with pytest.raises(MedtlError, match=r'lr: 0.001 there, 0.5 asked for'):
    run_folder.open_or_verify(old, config)


@pytest.mark.parametrize(('before', 'today'), [(True, 'batch'), (False, '')])
def test_a_norm_of_the_head_that_was_on_or_off_has_a_name(old, before, today):
  config = json.loads((old / 'config.json').read_text())
  config['head'] = {'name': 'linear', 'norm': before}
  (old / 'config.json').write_text(json.dumps(config))
  assert run_folder.read_config(old).head.norm == today
