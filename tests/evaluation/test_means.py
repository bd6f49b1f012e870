"""Means over images: who is counted, and what an interval is over."""

import numpy as np

from medtl.core.types import Predictions
from medtl.evaluation import means


def summarised(table):
  values = {'dice': np.array([0.2, 0.4, 0.9])}
  test = Predictions(np.arange(3), np.zeros(3, int), values)
  tables = {'test': {'row': np.arange(3), **table}}
  return means.summarise({'test': test}, tables, ('a',), names=('dice',), resamples=20)


def test_patients_are_counted_where_they_are_known():
  numbers = summarised({'patient': np.array(['p', 'q', 'q'])})
  assert (numbers['images'], numbers['patients'], numbers['unit']) == (3, 2, 'patient')
  assert numbers['metrics']['dice']['value'] == 0.5


def test_without_patients_every_image_is_one_of_its_own():
  numbers = summarised({})
  assert (numbers['images'], numbers['patients'], numbers['unit']) == (3, None, 'image')
