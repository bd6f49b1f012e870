"""Pages that are written from the code are what the code would write."""

import re
from pathlib import Path

import pytest

from docs import checkpoints

ROOT = Path(__file__).parents[1]
ENTRIES = [(family, name) for family, table in checkpoints.families().items() for name in table]


def test_the_page_of_checkpoints_is_what_the_code_says():
  if checkpoints.PAGE.read_text() != checkpoints.page():
    pytest.fail(f'{checkpoints.PAGE} is stale; write it again: {checkpoints.COMMAND}')


def test_a_page_that_is_stale_is_noticed(tmp_path, monkeypatch):
  stale = tmp_path / 'checkpoints.md'
  stale.write_text(checkpoints.PAGE.read_text().replace('Apache-2.0', 'MIT', 1))
  monkeypatch.setattr(checkpoints, 'PAGE', stale)
  with pytest.raises(pytest.fail.Exception, match='write it again'):
    test_the_page_of_checkpoints_is_what_the_code_says()


def test_every_checkpoint_fits_one_net():
  for family, name in ENTRIES:
    fits = [row for row in checkpoints.FITS if re.fullmatch(row.pattern, f'{family}.{name}')]
    assert len(fits) == 1, name


@pytest.mark.parametrize(
  ('factory', 'keys', 'classes', 'published'),
  [
    ('resnet.resnet50', (), 1000, 25_557_032 + 53_120),  # torchvision; and statistics of norms
    ('resnet.resnet50', checkpoints.KERAS, 1000, 25_636_712),  # Keras counts the statistics
    ('vit.vit_ti16', (), 1000, 5_717_416),  # DeiT-tiny
  ],
)
def test_nets_have_as_many_numbers_as_their_publishers_say(factory, keys, classes, published):
  assert checkpoints.count_numbers(factory, keys, classes) == published


def test_what_is_called_real_was_read_by_a_test():
  real = [name for name in ENTRIES if checkpoints.fit(*name)[-1] == checkpoints.REAL]
  assert real == [('efficientnet', 'imagenet')]
  reader = (ROOT / 'tests/models/test_efficientnet.py').read_text()
  body = reader.split('def test_real_weights_know_a_cat_and_an_espresso')[1]
  assert "efficientnet.WEIGHTS['imagenet']" in body
  assert 'test_real_clip' in (ROOT / 'tests/models/test_vit.py').read_text()
  assert 'test_real_weights_know' in (ROOT / 'tests/models/test_resnet.py').read_text()
