"""Scores that need no training: of the features at every depth, and of a checkpoint's classifier.

Beside them stands how they ranked what was measured. All are computed on training patients alone,
from the activations that the runs themselves train on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medtl.core.types import MedtlError
from medtl.features import transferability
from medtl.run import assemble, frozen_features, run_data
from medtl.run.context import RunContext
from medtl.runtime import multihost

SCORES = {
  'LogME': transferability.log_me,
  'H-score': transferability.h_score,
  'TransRate': transferability.trans_rate,
}


def depths(folds: Sequence[RunContext], wanted: Sequence[int]) -> dict[int, dict[str, float]]:
  """Return {depth: {score: its mean over the folds}} of the children below each depth.

  Scores are of their pooled activations on the training sides. `folds` differ in their split
  alone; several labels an example are a MedtlError.
  """
  of_folds: dict[int, list[dict[str, float]]] = {depth: [] for depth in wanted}
  for context in folds:
    y = np.asarray(context.data['train'].table['y'])
    if y.ndim != 1:
      raise MedtlError(
        'scores of transferability are defined for one class an example; these data have several '
        'labels'
      )
    for depth, x in frozen_features.vectors(context, wanted):
      scores = {name: score(x['train'], y) for name, score in SCORES.items()}
      of_folds[depth].append(scores)
  return {depth: _means(scores) for depth, scores in of_folds.items()}


def _means(of_folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Return the mean over the folds of each score."""
  return {name: float(np.mean([fold[name] for fold in of_folds])) for name in of_folds[0]}


def classifier(folds: Sequence[RunContext]) -> dict[str, float]:
  """Return LEEP and NCE of the checkpoint's own classifier on the folds' training sides.

  They are {} where it has no classifier that is known. The pictures are those of the runs, also
  where the classifier was trained on larger ones.
  """
  pretrained = assemble.pretrained_classifier(folds[0].config, folds[0].example().x.shape[1:])
  if pretrained is None:
    return {}
  net, variables = pretrained
  apply = jax.jit(lambda x: jax.nn.softmax(jnp.asarray(net.apply(variables, x, train=False))))
  of_folds = []
  for context in folds:
    train = context.data['train']
    parts = []
    for batch in run_data.eval_batches(train, context.config):
      value, mask = multihost.to_numpy((apply(batch.x), batch.mask))
      parts.append(value[mask])
    p = np.concatenate(parts)
    y = np.asarray(train.table['y'])
    of_folds.append({'LEEP': transferability.leep(p, y), 'NCE': transferability.nce(p, y)})
  return _means(of_folds)


def agreement(
  scores: Mapping[int, Mapping[str, float]], measured: Mapping[int, float]
) -> dict[str, dict[str, Any]]:
  """Return {score: its rank correlations with what was measured}, over the depths of both.

  They are Spearman's and Kendall's; None where a score, or what was measured, is the same at all
  depths. `chosen` is the depth with the highest score.
  """
  from scipy import stats

  common = sorted(scores.keys() & measured.keys())
  values = [measured[depth] for depth in common]
  agreement_of = {}
  for name in SCORES:
    own = [scores[depth][name] for depth in common]
    spearman = None
    kendall = None
    if len(set(own)) > 1 and len(set(values)) > 1:
      spearman = float(stats.spearmanr(own, values)[0])
      kendall = float(stats.kendalltau(own, values)[0])
    chosen = common[int(np.argmax(own))]
    agreement_of[name] = {'spearman': spearman, 'kendall': kendall}
    agreement_of[name] |= {'depths': len(common), 'chosen': chosen}
  return agreement_of
