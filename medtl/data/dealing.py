"""Groups of examples → folds: what must stay together is dealt, what must be even is spread."""

import numpy as np

from medtl.core.types import MedtlError, Table


def deal(table: Table, by: str, folds: int, seed: int) -> np.ndarray:
  """Return each example's fold [n].

  Groups (`by`: 'patient' or 'image') are dealt one by one, the largest first, each to the fold
  that holds least of its classes so far. All numbers are integers and the random stream is a
  frozen one, so that every machine deals alike, in whatever order the examples come.

  Raises MedtlError where there are fewer groups than folds.
  """
  group = groups(table, by)
  count = group.max() + 1
  if count < folds:
    raise MedtlError(
      f'{count} groups for {folds} folds; expected at least one each (by={by!r}; what shares a '
      'patient or pictures equal in every pixel is one group: look for duplicates, and for one '
      'name that stands for several patients)'
    )
  stratum = strata(table)
  images = np.zeros((count, stratum.shape[1]), np.int64)
  np.add.at(images, group, stratum)
  # patients are spread as well as pictures: confidence intervals are over patients
  counts = np.concatenate([images, images > 0], axis=1)
  totals = [max(1, int(total)) for total in counts.sum(axis=0)]
  # squared shares, so that a rare class counts as much as a frequent one
  weights = [10**18 // total**2 for total in totals]
  order = np.random.RandomState(seed).permutation(count)
  size = images[order].sum(axis=1)
  order = order[np.argsort(-size, kind='stable')]
  held = [[0] * len(totals) for _ in range(folds)]  # of each class, by fold
  home = np.zeros(count, np.int64)
  for member in order:
    own = {kind: int(counts[member, kind]) for kind in np.flatnonzero(counts[member]).tolist()}
    costs = []
    for row in held:
      crowding = sum(row[kind] * number * weights[kind] for kind, number in own.items())
      costs.append((crowding, sum(row)))
    best = costs.index(min(costs))
    home[member] = best
    for kind, number in own.items():
      held[best][kind] += number
  return home[group]


def groups(table: Table, by: str) -> np.ndarray:
  """Return the number [n] of each example's group, which must stay on one side.

  Examples are linked by a patient (`by='patient'`) or a file, and by equal pixels; a group is what
  hangs together, also through others.
  """
  from scipy.sparse import coo_array
  from scipy.sparse.csgraph import connected_components

  rows = np.array([f'row {row}' for row in table['row']])
  column = table['patient'] if by == 'patient' else table.get('file', rows)
  names = np.asarray(column).astype(str)
  names = np.where(names == '', rows, names)
  content = np.asarray(table.get('content', np.full(len(rows), '')))
  known = content != ''
  # a graph: names and contents are its nodes, an example is an edge between its name and content
  _, name_node = np.unique(names, return_inverse=True)
  _, content_number = np.unique(content[known], return_inverse=True)
  content_node = content_number + name_node.max() + 1
  nodes = int(max(name_node.max(), content_node.max(initial=0))) + 1
  present = np.ones(len(content_node), bool)
  edges = (name_node[known], content_node)
  graph = coo_array((present, edges), shape=(nodes, nodes))
  _, component = connected_components(graph, directed=False)
  _, group = np.unique(component[name_node], return_inverse=True)
  return group


def strata(table: Table) -> np.ndarray:
  """Return membership [n, k] in what is to be spread evenly.

  These are the classes, or the labels and 'no label'. Numbers to be predicted are not spread: k is
  1.
  """
  y = np.asarray(table['y'])
  if y.ndim == 1 and y.dtype.kind == 'f':
    return np.ones((len(y), 1), np.int64)
  if y.ndim == 1:
    return (y[:, None] == np.unique(y)).astype(np.int64)
  has_label = y > 0
  has_none = ~has_label.any(axis=1, keepdims=True)
  return np.concatenate([has_label, has_none], axis=1).astype(np.int64)
