"""The range test finds the edge of a bowl, stops where the loss runs away, and writes its plot."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from medtl import main
from medtl.core.types import MedtlError
from medtl.studies import lr_range_test

ROOT = Path(__file__).parents[2]


def descent(sharpness):
  """Gradient descent on sharpness · w² / 2, whose rate must stay below 2 / sharpness."""
  w, rates = 1.0, iter(np.geomspace(lr_range_test.LOW, lr_range_test.HIGH, lr_range_test.STEPS))

  def loss():
    nonlocal w
    value = sharpness * w**2 / 2
    w -= next(rates) * sharpness * w
    return value

  return loss


@pytest.mark.parametrize('sharpness', [30.0, 300.0])
def test_both_suggestions_lie_below_the_edge_of_a_bowl(sharpness):
  found = lr_range_test.rise(descent(sharpness))
  assert (
    0.001 / sharpness < found.tenth < 2 / sharpness
    and 0.001 / sharpness < found.steepest < 2 / sharpness
  )


def test_it_stops_where_the_loss_runs_away_or_is_not_a_number():
  assert len(lr_range_test.rise(descent(3e4)).rates) < lr_range_test.STEPS
  values = iter([*np.linspace(1, 0.5, 40), float('nan'), 1.0])
  assert len(lr_range_test.rise(lambda: next(values)).rates) == 40
  with pytest.raises(MedtlError, match='the loss is not finite after 3 steps at lr 1e-06'):
    lr_range_test.rise(iter([1.0, 1.0, 1.0, float('inf')]).__next__)


@pytest.mark.slow
def test_the_verb_ends_in_a_page(tmp_path, capsys):
  assert main.main(['lr_find', f'--config={ROOT}/tests/tiny.py', f'--workdir={tmp_path}']) == 0
  found = json.loads((tmp_path / 'lr_find.json').read_text())
  assert (
    found['rates'] == sorted(found['rates']) and len(found['losses']) == len(found['rates']) > 10
  )
  page = (tmp_path / 'lr_find.html').read_text()
  picture = base64.b64decode(page.split('svg+xml;base64,')[1].split('"')[0]).decode()
  assert '1e-04' in picture and 'mathdefault' not in picture
  assert f'{found["steepest"]:.1e}' in page and 'src="http' not in page
  assert 'falls fastest at lr' in capsys.readouterr().out
