"""Scores that need no training: of the features at every depth, and of a checkpoint's own classifier; how they ranked what was measured.

All are computed on training patients alone, from the activations that the runs themselves train on.
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
  """Return {depth: {score: its mean over the folds' training sides}} of the pooled activations of the children below each depth.

  `folds` differ in their split alone; a label must be one class an example.
  """
  found: dict[int, list[dict[str, float]]] = {depth: [] for depth in wanted}
  for context in folds:
    y = np.asarray(context.data['train'].table['y'])
    if y.ndim != 1:
      raise MedtlError(
        'scores of transferability are defined for one class an example; these data have several labels'
      )
    for depth, x in frozen_features.vectors(context, wanted):
      found[depth].append({name: score(x['train'], y) for name, score in SCORES.items()})
  return {
    depth: {name: float(np.mean([one[name] for one in several])) for name in SCORES}
    for depth, several in found.items()
  }


def classifier(folds: Sequence[RunContext]) -> dict[str, float]:
  """Return LEEP and NCE of the checkpoint's own classifier on the folds' training sides, {} where it has none that we know.

  The pictures are those of the runs, also where the classifier was trained on larger ones.
  """
  found = assemble.pretrained_classifier(folds[0].config, folds[0].example().x.shape[1:])
  if found is None:
    return {}
  net, variables = found
  apply = jax.jit(lambda x: jax.nn.softmax(jnp.asarray(net.apply(variables, x, train=False))))
  several = []
  for context in folds:
    train = context.data['train']
    made = (
      multihost.to_numpy((apply(batch.x), batch.mask))
      for batch in run_data.eval_batches(train, context.config)
    )
    p = np.concatenate([value[mask] for value, mask in made])
    y = np.asarray(train.table['y'])
    several.append({'LEEP': transferability.leep(p, y), 'NCE': transferability.nce(p, y)})
  return {name: float(np.mean([one[name] for one in several])) for name in several[0]}


def agreement(
  scores: Mapping[int, Mapping[str, float]], measured: Mapping[int, float]
) -> dict[str, dict[str, Any]]:
  """Return {score: Spearman's and Kendall's rank correlation with what was measured, over the depths that both have}.

  None where a score or what was measured is the same at all depths. `chosen` is the depth with the highest score.
  """
  from scipy import stats

  common = sorted(scores.keys() & measured.keys())
  found = {}
  for name in SCORES:
    ours, theirs = [scores[depth][name] for depth in common], [measured[depth] for depth in common]
    told = len(set(ours)) > 1 and len(set(theirs)) > 1
    found[name] = {
      'spearman': float(stats.spearmanr(ours, theirs)[0]) if told else None,
      'kendall': float(stats.kendalltau(ours, theirs)[0]) if told else None,
      'depths': len(common),
      'chosen': common[int(np.argmax(ours))],
    }
  return found
