"""Predictions + table → every number of a report, with intervals by patient, ready for JSON."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medtl.core.types import MedtlError, Predictions, Table
from medtl.evaluation import metrics, operating_points
from medtl.evaluation.intervals import Interval, Resampling, difference, intervals


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
# Values of out-of-fold predictions: each fold's own thresholds, for images and for patients.
PER_IMAGE = 'threshold'
BY_PATIENT = 'patient_threshold'
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
  """Return the numbers of predictions['test'], ready for JSON.

  Thresholds are chosen on predictions['val'] by the rule `threshold`; without 'val' none are
  chosen. Where the test predictions bring their own (`thresholds_of`), these count.

  Keys: kind, classes, images, patients, unit, level, resamples, headline, threshold, metrics and
  by_patient {name: interval}, by_patient_note, per_class, confusion, val {name: value}, warnings.
  An interval is a dict of Interval's fields; nan is None.
  """
  test = predictions['test']
  val = predictions.get('val')
  patient, warnings = patients(tables['test'])
  resampling = Resampling(patient, resamples, seed, level)
  cut = thresholds_of(test, val, threshold, kind)
  interval_of = _all(test, cut, kind, resampling)
  doubted = interval_of
  if val is None and PER_IMAGE not in test.values:  # nan at a threshold needs no explanation
    doubted = {name: item for name, item in interval_of.items() if name not in AT_THRESHOLD}
  by_patient = resampling._replace(patient=None)
  pooled, note = _by_patient(predictions, tables, kind, threshold, by_patient)
  confusion = None
  if kind != 'multilabel':
    confusion = metrics.confusion(test.score, test.y).tolist()
  val_values = {}
  if val is not None:
    for name, value in metrics.monitor(val.score, val.y, kind).items():
      val_values[name] = _number(value)
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
    'metrics': plain(interval_of),
    'by_patient': pooled,
    'by_patient_note': note,
    'per_class': _per_class(test, cut, kind, classes, resampling),
    'confusion': confusion,
    'val': val_values,
    'warnings': warnings + _doubts(test, patient, classes, doubted),
  }


# A run's test predictions, and those of validation that choose its thresholds.
Pair = tuple[Predictions, Predictions | None]


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
  """Return {name: interval} of the mean over runs of one model from several seeds.

  Runs that are not tested on the same rows are a MedtlError.
  """
  check_same_rows([test for test, _ in runs])
  resampling = Resampling(patients(table)[0], resamples, seed, level)
  stacked = _stacked(runs, threshold, kind)
  interval_of = intervals(stacked.score, stacked.y, metrics.of(kind), *resampling)
  at_threshold = intervals(stacked.margin, stacked.y_of_margin, AT_THRESHOLD, *resampling)
  return plain(interval_of | at_threshold)


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
  """Return {name: interval} of first − second, paired; an interval without 0 tells them apart.

  Each is one run, or as many of one model from several seeds, all tested on the same rows (else a
  MedtlError). Without validation predictions sensitivity and specificity are nan.
  """
  check_same_rows([test for test, _ in (*first, *second)])
  resampling = Resampling(patients(table)[0], resamples, seed, level)
  own = _stacked(first, threshold, kind)
  other = _stacked(second, threshold, kind)
  interval_of = difference(own.score, other.score, own.y, metrics.of(kind), *resampling)
  at_threshold = difference(own.margin, other.margin, own.y_of_margin, AT_THRESHOLD, *resampling)
  return plain(interval_of | at_threshold)


def check_same_rows(tests: Sequence[Predictions]) -> None:
  """Raise a MedtlError unless the predictions are of the same rows, in one order."""
  first = tests[0].row
  if not all(np.array_equal(test.row, first) for test in tests):
    raise MedtlError(
      'the two runs predicted different rows; a paired comparison needs the same test data and '
      'split'
    )


class Stacked(NamedTuple):
  """Runs of one model from several seeds, tested on the same rows."""

  score: np.ndarray  # [s, n, k]
  y: np.ndarray  # [n] or [n, k]
  margin: np.ndarray  # [s, n, c]: how far scores are above their thresholds
  y_of_margin: np.ndarray  # the labels as `operating_points.columns` gives them


def _stacked(runs: Sequence[Pair], threshold: str, kind: str) -> Stacked:
  scores = []
  margins = []
  for test, val in runs:
    score, _ = operating_points.columns(test, kind)
    margins.append(score - thresholds_of(test, val, threshold, kind))
    scores.append(test.score)
  first, _ = runs[0]
  _, y_of_margin = operating_points.columns(first, kind)
  return Stacked(np.stack(scores), first.y, np.stack(margins), y_of_margin)


def patients(table: Table) -> tuple[np.ndarray | None, list[str]]:
  """Return the patient of each example [n], or None and a warning where some are not known."""
  if 'patient' not in table:
    return None, [
      'Patients are not known: intervals are over examples, and too narrow if several are of one '
      'patient.'
    ]
  names = np.asarray(table['patient']).astype(str)
  missing = int(np.isin(names, ['', 'nan', 'None']).sum())
  if missing:
    return None, [
      f'{missing} of {len(names)} images name no patient: intervals are over images, and too '
      'narrow if several images show one patient.'
    ]
  return names, []


def pool_by_patient(predictions: Predictions, table: Table) -> Predictions:
  """Return one prediction for each patient, its score the mean over the patient's images.

  Unknown patients, or a patient with images of several labels, are a MedtlError.
  """
  patient, warnings = patients(table)
  if patient is None:
    raise MedtlError(warnings[0])
  _, first, codes, count = np.unique(
    patient, return_index=True, return_inverse=True, return_counts=True
  )
  y = np.asarray(predictions.y)
  differs = (y != y[first][codes]).reshape(len(y), -1).any(1)  # from the patient's first image
  mixed = np.zeros(len(first), bool)
  np.logical_or.at(mixed, codes, differs)
  if mixed.any():
    raise MedtlError(
      f'{mixed.sum()} of {len(first)} patients have images of several labels: no one answer a '
      'patient'
    )
  total = np.zeros((len(first), predictions.score.shape[1]))
  np.add.at(total, codes, predictions.score)
  values = {'score': total / count[:, None]}
  if BY_PATIENT in predictions.values:
    values[PER_IMAGE] = np.asarray(predictions.values[BY_PATIENT])[first]
  return Predictions(predictions.row[first], y[first], values)


def sides_by_patient(predictions: Predictions, table: Table) -> dict[str, Predictions]:
  """Return the validation predictions that choose each kind of threshold, by the kind's name.

  There are none by patient where patients are not known, or have images of several labels.
  """
  try:
    return {PER_IMAGE: predictions, BY_PATIENT: pool_by_patient(predictions, table)}
  except MedtlError:
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
  """Return the most confident mistakes, at most `count`, the worst first.

  Each has index (in the predictions), row, true and predicted (classes), p and p_true (their
  probabilities). With many labels a mistake is one label of one example: `predicted` is that
  label, and `true` says whether it is there.
  """
  score = predictions.score
  y = np.asarray(predictions.y)
  mistakes = []
  if kind == 'multilabel':
    doubt = np.abs(score - y)
    flat = np.argsort(-doubt, axis=None, kind='stable')[:count]
    for place in flat.tolist():
      i, j = divmod(place, doubt.shape[1])
      if doubt[i, j] > 0.5:
        mistakes.append(_mistake(predictions, i, y[i, j], j, 1 - doubt[i, j]))
    return mistakes
  predicted = score.argmax(1)
  wrong = np.flatnonzero(predicted != y)
  confidence = score[wrong, predicted[wrong]]
  worst_first = np.argsort(-confidence, kind='stable')[:count]
  for i in wrong[worst_first].tolist():
    mistakes.append(_mistake(predictions, i, y[i], predicted[i], score[i, y[i]]))
  return mistakes


def _mistake(
  predictions: Predictions, index: int, true: int, predicted: int, p_true: float
) -> dict[str, Any]:
  row = int(predictions.row[index])
  p = float(predictions.score[index, predicted])
  mistake = {'index': index, 'row': row, 'true': int(true), 'predicted': int(predicted)}
  return {**mistake, 'p': p, 'p_true': float(p_true)}


def plain(interval_of: Mapping[str, Interval]) -> dict[str, dict[str, Any]]:
  """Return the intervals as JSON knows them: nan is None."""
  plain_of = {}
  for name, interval in interval_of.items():
    fields = interval._asdict()
    plain_of[name] = {field: _number(value) for field, value in fields.items()}
  return plain_of


def _number(value: Any) -> Any:
  return None if isinstance(value, float) and math.isnan(value) else value


def thresholds_of(test: Predictions, val: Predictions | None, rule: str, kind: str) -> np.ndarray:
  """Return the thresholds of test predictions, [k], chosen on `val`; nan where there are none.

  Out-of-fold predictions bring theirs along: then they are [n, k], one row for each example.
  """
  if PER_IMAGE in test.values:
    return np.asarray(test.values[PER_IMAGE])
  if val is None:
    score, _ = operating_points.columns(test, kind)
    return np.full(score.shape[1], np.nan)
  return operating_points.class_thresholds(val, rule, kind)


def _all(
  test: Predictions, cut: np.ndarray, kind: str, resampling: Resampling
) -> dict[str, Interval]:
  """Return the intervals of all metrics, those at the thresholds `cut` last."""
  score, y = operating_points.columns(test, kind)
  interval_of = intervals(test.score, test.y, metrics.of(kind), *resampling)
  return interval_of | intervals(score - cut, y, AT_THRESHOLD, *resampling)


def _by_patient(
  predictions: Mapping[str, Predictions],
  tables: Mapping[str, Table],
  kind: str,
  rule: str,
  resampling: Resampling,
) -> tuple[dict[str, Any] | None, str]:
  """Return ({name: interval} of one prediction for each patient, '') or (None, why not)."""
  pooled = {}
  try:
    for side in ('test', 'val'):
      if side in predictions:
        pooled[side] = pool_by_patient(predictions[side], tables[side])
  except MedtlError as error:
    return None, f'{str(error).removesuffix(".")}.'
  test = pooled['test']
  if len(test.y) == len(predictions['test'].y):
    return None, 'Each patient is tested once: the numbers per patient are the same.'
  cut = thresholds_of(test, pooled.get('val'), rule, kind)
  interval_of = _all(test, cut, kind, resampling)
  of_patients = {name: item._replace(unit='patient') for name, item in interval_of.items()}
  return plain(of_patients), ''


def _per_class(
  test: Predictions, cut: np.ndarray, kind: str, classes: Sequence[str], resampling: Resampling
) -> list[dict[str, Any]]:
  """Return each class's counts, threshold and metrics; of a binary task those of class 1 alone."""
  score, y = operating_points.columns(test, kind)
  interval_of = intervals(score, y, EACH, *resampling)
  interval_of |= intervals(score - cut, y, EACH_AT_THRESHOLD, *resampling)
  patient = resampling.patient
  truth = metrics.truth(score, y)
  reached = score >= cut
  rows = []
  for i, name in enumerate(classes[-score.shape[1] :]):
    has = truth[:, i]
    positive = reached[:, i]
    row: dict[str, Any] = {'class': name, 'images': int(has.sum())}
    row['patients'] = None if patient is None else len(np.unique(patient[has]))
    row['threshold'] = _number(float(cut[i])) if cut.ndim == 1 else None
    row['found'] = int((has & positive).sum())
    row['false'] = int((~has & positive).sum())
    of_class = {metric: interval_of[f'{metric}/{i}'] for metric in (*EACH, *EACH_AT_THRESHOLD)}
    rows.append(row | plain(of_class))
  return rows


def _doubts(
  test: Predictions,
  patient: np.ndarray | None,
  classes: Sequence[str],
  interval_of: Mapping[str, Interval],
) -> list[str]:
  """Return what a reader of the intervals must know."""
  resampled = np.arange(len(test.y)) if patient is None else patient
  unit = 'images' if patient is None else 'patients'
  few = []
  for name, has in zip(classes, metrics.truth(test.score, test.y).T, strict=True):
    count = len(np.unique(resampled[has]))
    if count < FEW:
      few.append(f'{name} {count}')
  doubts = []
  if few:
    doubts.append(
      f'Few {unit} in the test set ({", ".join(few)}): the intervals are rough and carry no '
      'verdict.'
    )
  first = next(iter(interval_of.values()))
  if first.redrawn > 0.01:
    doubts.append(
      f'{first.redrawn:.0%} of the bootstrap resamples lacked a class and were drawn again.'
    )
  reasons = {interval.reason for interval in interval_of.values() if interval.reason}
  return doubts + sorted(f'{reason[0].upper()}{reason[1:]}.' for reason in reasons)
