"""Predictions + table → every number of a report, with intervals by patient, ready for JSON."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medtl.core.types import MedtlError, Predictions, Table
from medtl.evaluation import metrics, operating_points
from medtl.evaluation.intervals import Interval, difference, intervals


class Labels(dict):
  """What a page calls each metric.

  >>> LABELS['auroc'], LABELS['dice']
  ('AUROC', 'Dice')
  """

  def __missing__(self, name: str) -> str:
    return name[:1].upper() + name[1:].replace('_', ' ')


LABELS = Labels(
  auroc='AUROC',
  auprc='AUPRC',
  accuracy='Accuracy',
  balanced_accuracy='Balanced accuracy',
  f1='F1',
  quadratic_kappa='Quadratic kappa',
  sensitivity='Sensitivity',
  specificity='Specificity',
  brier='Brier score',
  log_loss='Log-loss',
  ece='Calibration error',
  iou='IoU',
  loss='Loss',
)
HEADLINE = {
  'multiclass': ('auroc', 'balanced_accuracy', 'accuracy'),
  'binary': ('auroc', 'sensitivity', 'specificity'),
  'multilabel': ('auroc', 'auprc', 'f1'),
  'ordinal': ('quadratic_kappa', 'auroc', 'balanced_accuracy'),
}
AT_THRESHOLD: dict[str, metrics.Metric] = dict(
  sensitivity=metrics.sensitivity, specificity=metrics.specificity
)
EACH: dict[str, metrics.Metric] = dict(auroc=metrics.class_auroc, auprc=metrics.class_auprc)
EACH_AT_THRESHOLD: dict[str, metrics.Metric] = dict(
  sensitivity=metrics.class_sensitivity, specificity=metrics.class_specificity
)
PER_IMAGE, BY_PATIENT = (
  'threshold',
  'patient_threshold',
)  # measures of out-of-fold predictions: each fold's own thresholds
FEW = 10  # patients of a class below which a report warns that its interval is rough


def summarise(
  predictions: Mapping[str, Predictions],
  tables: Mapping[str, Table],
  classes: Sequence[str],
  *,
  kind: str,
  threshold: str = 'youden',
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Any]:
  """Return the numbers of predictions['test'], thresholds chosen on predictions['val'] (absent: none are chosen).

  A `threshold` [n, k] among the measures of the test predictions comes first: out-of-fold predictions bring one a fold.
  Keys: kind, classes, images, patients, unit, level, resamples, headline, threshold, metrics and by_patient {name:
  interval}, by_patient_note, per_class, confusion, val {name: value}, warnings. An interval is a dict of Interval's
  fields; nan is None.
  """
  test, val = predictions['test'], predictions.get('val')
  patient, warnings = patients(tables['test'])
  draw: dict[str, Any] = dict(patient=patient, resamples=resamples, seed=seed, level=level)
  cut = thresholds_of(test, val, threshold, kind)
  found = _all(test, cut, kind, draw)
  warnings += _doubts(
    test,
    patient,
    classes,
    found
    if val or PER_IMAGE in test.values
    else {name: item for name, item in found.items() if name not in AT_THRESHOLD},
  )
  pooled, note = _by_patient(predictions, tables, kind, threshold, dict(draw, patient=None))
  return {
    'kind': kind,
    'classes': list(classes),
    'images': len(test.y),
    'level': level,
    'resamples': resamples,
    'patients': None if patient is None else len(np.unique(patient)),
    'unit': 'image' if patient is None else 'patient',
    'headline': list(HEADLINE[kind]),
    'threshold': threshold,
    'metrics': plain(found),
    'by_patient': pooled,
    'by_patient_note': note,
    'per_class': _per_class(test, cut, kind, classes, draw),
    'confusion': None if kind == 'multilabel' else metrics.confusion(test.score, test.y).tolist(),
    'val': {}
    if val is None
    else {name: _number(v) for name, v in metrics.monitor(val.score, val.y, kind).items()},
    'warnings': warnings,
  }


Pair = tuple[
  Predictions, Predictions | None
]  # a run's test predictions, and those of validation that choose its thresholds


def summarise_seeds(
  runs: Sequence[Pair],
  table: Table,
  *,
  kind: str,
  threshold: str = 'youden',
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Any]:
  """Return {name: interval} of the mean over runs of one model from several seeds, tested on the same rows."""
  check_same_rows([test for test, _ in runs])
  draw: dict[str, Any] = dict(
    patient=patients(table)[0], resamples=resamples, seed=seed, level=level
  )
  score, margin, y, columns = _stacked(runs, threshold, kind)
  return plain(
    intervals(score, y, metrics.of(kind), **draw) | intervals(margin, columns, AT_THRESHOLD, **draw)
  )


def compare(
  first: Sequence[Pair],
  second: Sequence[Pair],
  table: Table,
  *,
  kind: str,
  threshold: str = 'youden',
  resamples: int = 1000,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Any]:
  """Return {name: interval} of first − second on the same test rows, paired; an interval without 0 tells the two apart.

  Each is one run, or as many of one model from several seeds. Without validation predictions there is no sensitivity and specificity.
  """
  check_same_rows([test for test, _ in (*first, *second)])
  draw: dict[str, Any] = dict(
    patient=patients(table)[0], resamples=resamples, seed=seed, level=level
  )
  (one, above, y, columns), (other, below, _, _) = (
    _stacked(runs, threshold, kind) for runs in (first, second)
  )
  return plain(
    difference(one, other, y, metrics.of(kind), **draw)
    | difference(above, below, columns, AT_THRESHOLD, **draw)
  )


def check_same_rows(tests: Sequence[Predictions]) -> None:
  """Raise unless the predictions are of the same rows, in one order."""
  if not all(np.array_equal(test.row, tests[0].row) for test in tests):
    raise MedtlError(
      'the two runs predicted different rows; a paired comparison needs the same test data and split'
    )


def _stacked(runs: Sequence[Pair], threshold: str, kind: str) -> tuple[np.ndarray, ...]:
  """Return (scores [s, n, k], what they are above their thresholds [s, n, c], labels for each of the two)."""
  margin = np.stack(
    [
      operating_points.columns(test, kind)[0] - thresholds_of(test, val, threshold, kind)
      for test, val in runs
    ]
  )
  test = runs[0][0]
  return (
    np.stack([one.score for one, _ in runs]),
    margin,
    test.y,
    operating_points.columns(test, kind)[1],
  )


def patients(table: Table) -> tuple[np.ndarray | None, list[str]]:
  """Return the patient of each example, or None and a warning where they are not known for all."""
  if 'patient' not in table:
    return None, [
      'Patients are not known: intervals are over examples, and too narrow if several are of one patient.'
    ]
  names = np.asarray(table['patient']).astype(str)
  missing = int(np.isin(names, ['', 'nan', 'None']).sum())
  if missing:
    return None, [
      f'{missing} of {len(names)} images name no patient: intervals are over images, and too narrow if several '
      'images show one patient.'
    ]
  return names, []


def pool_by_patient(predictions: Predictions, table: Table) -> Predictions:
  """Return one prediction a patient: the mean score; a patient with images of several labels is an error."""
  patient, warnings = patients(table)
  if patient is None:
    raise MedtlError(warnings[0])
  _, first, codes, count = np.unique(
    patient, return_index=True, return_inverse=True, return_counts=True
  )
  y = np.asarray(predictions.y)
  mixed = np.zeros(len(first), bool)
  np.logical_or.at(mixed, codes, (y != y[first][codes]).reshape(len(y), -1).any(1))
  if mixed.any():
    raise MedtlError(
      f'{mixed.sum()} of {len(first)} patients have images of several labels: no one answer a patient'
    )
  score = np.zeros((len(first), predictions.score.shape[1]))
  np.add.at(score, codes, predictions.score)
  cut = predictions.values.get(BY_PATIENT)
  return Predictions(
    predictions.row[first],
    y[first],
    {'score': score / count[:, None]}
    | ({} if cut is None else {PER_IMAGE: np.asarray(cut)[first]}),
  )


def sides_by_patient(predictions: Predictions, table: Table) -> dict[str, Predictions]:
  """Return the validation predictions on which each kind of threshold is chosen: {measure of the test predictions: predictions}."""
  try:
    return {PER_IMAGE: predictions, BY_PATIENT: pool_by_patient(predictions, table)}
  except MedtlError:  # patients are not known, or have several labels: no numbers by patient
    return {PER_IMAGE: predictions}


def with_thresholds(
  test: Predictions, val: Predictions, val_table: Table, threshold: str, kind: str
) -> Predictions:
  """Return a fold's test predictions with the thresholds that its own validation chose.

  Pooled validation predictions would have seen the labels that the thresholds are tested on.
  """
  values = dict(test.values)
  for name, chosen_on in sides_by_patient(val, val_table).items():
    thresholds = operating_points.class_thresholds(chosen_on, threshold, kind)
    values[name] = np.tile(thresholds, (len(test.row), 1))
  return dataclasses.replace(test, values=values)


def worst_errors(predictions: Predictions, kind: str, count: int = 12) -> list[dict[str, Any]]:
  """Return the most confident mistakes, worst first: index (in the predictions), row, true, predicted (class), p, p_true.

  With many labels a mistake is one label of one example: `predicted` is that label, `true` says whether it is there.
  """
  score, y = predictions.score, np.asarray(predictions.y)
  if kind == 'multilabel':
    doubt = np.abs(score - y)
    order = np.argsort(-doubt, axis=None, kind='stable')[:count]
    pairs = [
      (int(i), int(j))
      for i, j in zip(*np.unravel_index(order, doubt.shape), strict=True)
      if doubt[i, j] > 0.5
    ]
    return [
      dict(
        index=i,
        row=int(predictions.row[i]),
        true=int(y[i, j]),
        predicted=j,
        p=float(score[i, j]),
        p_true=float(1 - doubt[i, j]),
      )
      for i, j in pairs
    ]
  said = score.argmax(1)
  wrong = np.flatnonzero(said != y)
  order = wrong[np.argsort(-score[wrong, said[wrong]], kind='stable')][:count]
  return [
    dict(
      index=int(i),
      row=int(predictions.row[i]),
      true=int(y[i]),
      predicted=int(said[i]),
      p=float(score[i, said[i]]),
      p_true=float(score[i, y[i]]),
    )
    for i in order
  ]


def plain(found: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
  """Return the intervals as JSON knows them: nan is None."""
  return {
    name: {field: _number(value) for field, value in item._asdict().items()}
    for name, item in found.items()
  }


def _number(value: Any) -> Any:
  return None if isinstance(value, float) and math.isnan(value) else value


def thresholds_of(test: Predictions, val: Predictions | None, rule: str, kind: str) -> np.ndarray:
  """Return the thresholds [k] of a test set, or [n, k] where each of its rows brings its own; nan where there is none."""
  if PER_IMAGE in test.values:
    return np.asarray(test.values[PER_IMAGE])
  if val is None:
    return np.full(operating_points.columns(test, kind)[0].shape[1], np.nan)
  return operating_points.class_thresholds(val, rule, kind)


def _all(
  test: Predictions, cut: np.ndarray, kind: str, draw: dict[str, Any]
) -> dict[str, Interval]:
  score, y = operating_points.columns(test, kind)
  return intervals(test.score, test.y, metrics.of(kind), **draw) | intervals(
    score - cut, y, AT_THRESHOLD, **draw
  )


def _by_patient(
  predictions: Mapping[str, Predictions],
  tables: Mapping[str, Table],
  kind: str,
  rule: str,
  draw: dict[str, Any],
) -> tuple[dict[str, Any] | None, str]:
  try:
    pooled = {
      name: pool_by_patient(predictions[name], tables[name])
      for name in ('test', 'val')
      if name in predictions
    }
  except MedtlError as error:
    return None, f'{error}.'
  if len(pooled['test'].y) == len(predictions['test'].y):
    return None, 'Each patient is tested once: the numbers per patient are the same.'
  found = _all(
    pooled['test'], thresholds_of(pooled['test'], pooled.get('val'), rule, kind), kind, draw
  )
  return plain({name: item._replace(unit='patient') for name, item in found.items()}), ''


def _per_class(
  test: Predictions, cut: np.ndarray, kind: str, classes: Sequence[str], draw: dict[str, Any]
) -> list[dict[str, Any]]:
  score, y = operating_points.columns(test, kind)
  each = intervals(score, y, EACH, **draw) | intervals(score - cut, y, EACH_AT_THRESHOLD, **draw)
  has, found, patient = metrics.truth(score, y), score >= cut, draw['patient']
  return [
    {
      'class': name,
      'images': int(has[:, i].sum()),
      'patients': None if patient is None else len(np.unique(patient[has[:, i]])),
      'threshold': _number(float(cut[i])) if cut.ndim == 1 else None,
      'found': int((has & found)[:, i].sum()),
      'false': int((~has & found)[:, i].sum()),
      **plain({metric: each[f'{metric}/{i}'] for metric in (*EACH, *EACH_AT_THRESHOLD)}),
    }
    for i, name in enumerate(classes[-score.shape[1] :])
  ]


def _doubts(
  test: Predictions,
  patient: np.ndarray | None,
  classes: Sequence[str],
  found: Mapping[str, Interval],
) -> list[str]:
  """Return what a reader of the intervals must know."""
  units, unit = (np.arange(len(test.y)), 'images') if patient is None else (patient, 'patients')
  many = [len(np.unique(units[has])) for has in metrics.truth(test.score, test.y).T]
  few = [f'{name} {count}' for name, count in zip(classes, many, strict=True) if count < FEW]
  said = (
    [
      f'Few {unit} in the test set ({", ".join(few)}): the intervals are rough and carry no verdict.'
    ]
    if few
    else []
  )
  first = next(iter(found.values()))
  if first.redrawn > 0.01:
    said.append(
      f'{first.redrawn:.0%} of the bootstrap resamples lacked a class and were drawn again.'
    )
  return said + sorted(
    {f'{item.reason[0].upper()}{item.reason[1:]}.' for item in found.values() if item.reason}
  )
