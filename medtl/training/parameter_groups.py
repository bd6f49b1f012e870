"""What moves, and how fast: a table of (regex on the parameter path, Rule) becomes one optax chain.

The first full match wins, every leaf must be covered, and a rule that matches nothing is an error.
Frozen leaves get `set_to_zero` in the same jitted program as the gradient, so XLA drops their
backward pass. Clipping and averaging look at live leaves only.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing
import optax

from medtl.core import expressions, pytrees
from medtl.core.types import MedtlError, Tree
from medtl.training import freezing as language


class Rule(NamedTuple):
  """How a group of leaves moves: a factor on the learning rate, and weight decay."""

  lr: float = 1.0
  decay: float = 0.0


FROZEN = None
Table = list[tuple[str, Rule | None]]


class Partition(NamedTuple):
  """The rule table applied to one tree of parameters."""

  rules: Table
  labels: Tree  # a group's name for each leaf
  live: Tree  # bool for each leaf
  tx: optax.GradientTransformationExtraArgs  # update(gradients, opt, params, step=…)
  key: tuple  # partitions with one `direction` and equal keys compile to the same program


def children(params: Mapping[str, Any]) -> list[str]:
  """Return the numbered children of the backbone in order: stem, stage1, …"""
  stages = [name for name in params['backbone'] if name.startswith('stage')]
  stages.sort(key=lambda name: int(name.removeprefix('stage')))
  return ['stem', *stages]


def rule_table(
  params: Tree,
  freeze: str,
  *,
  decay: float = 0.0,
  head_lr: float = 1.0,
  lr_decay: float = 1.0,
  rules: Sequence[tuple[str, float, float]] = (),
) -> Table:
  """Return the rules: frozen leaves, the user's (regex, lr factor, decay), then each live child's.

  `lr_decay` multiplies the rate once more for each stage further from the head (Clark et al. 2020,
  ELECTRA, section 3.2): stage N has lr_decay, the stem lr_decay^(N+1), the head `head_lr`. Norms,
  biases and other vectors take no weight decay. Raises a MedtlError where an `all_but…` leaves no
  leaf of the backbone live.
  """
  names = children(params)
  paths = list(pytrees.flatten(params))
  frozen = _frozen_rules(freeze, names, paths)
  own: Table = [(pattern, Rule(*numbers)) for pattern, *numbers in rules]
  generated: Table = [
    ('head/.*/(kernel|embedding)', Rule(head_lr, decay)),
    ('head/.*', Rule(head_lr, 0.0)),
  ]
  for index, name in reversed(list(enumerate(names))):
    is_last = index == len(names) - 1
    where = f'backbone/({name}|norm)' if is_last else f'backbone/{name}'
    rate = lr_decay ** (len(names) - index)
    generated.append((f'{where}/(.*/)?kernel', Rule(rate, decay)))
    generated.append((f'{where}/.*', Rule(rate, 0.0)))
  before = frozen + own
  return before + _first_matches(before, generated, paths)


def _frozen_rules(freeze: str, names: Sequence[str], paths: Sequence[str]) -> Table:
  """Return a FROZEN rule for each regex that the text `freeze` stands for."""
  operations = expressions.functions(freeze, language, given=('children',))
  patterns = [operation(names) for operation in operations]
  backbone = [path for path in paths if path.startswith('backbone/')]
  for call, frozen in zip(expressions.parse_chain(freeze), patterns, strict=True):
    if call.name.startswith('all_but'):
      (pattern,) = frozen
      _require_live_leaf(freeze, call.name, pattern, backbone)
  return [(pattern, FROZEN) for frozen in patterns for pattern in frozen]


def _require_live_leaf(freeze: str, name: str, pattern: str, paths: Sequence[str]) -> None:
  """Raise a MedtlError where the `all_but…` of this name freezes all paths of the backbone."""
  frozen = expressions.compiled_regex(pattern, name)
  if not all(frozen.fullmatch(path) for path in paths):
    return
  advice = ''
  if name == 'all_but_lora':
    advice = ', or give the updates a rank: config.model.lora=8'
  raise MedtlError(
    f'freeze {freeze!r}: {name} matches nothing that could stay live, so the whole backbone '
    f"would be frozen; write 'depth(1.0)' if that is meant{advice}"
  )


def _first_matches(before: Table, generated: Table, paths: Sequence[str]) -> Table:
  """Return the generated rules that some path follows: earlier rules may leave none to them."""
  earlier = [expressions.compiled_regex(pattern, 'freeze') for pattern, _ in before]
  left = [path for path in paths if not any(regex.fullmatch(path) for regex in earlier)]
  kept: Table = []
  for pattern, rule in generated:
    rest = [path for path in left if not re.fullmatch(pattern, path)]
    if len(rest) < len(left):
      kept.append((pattern, rule))
    left = rest
  return kept


def label(params: Tree, rules: Table, phase: int = 0, before: Tree | None = None) -> Tree:
  """Return a group name for each leaf: its rule, and the phase in which it became live.

  A leaf that becomes live later gets a group of its own, because one group has one Adam count:
  inside an older group its first update would be scaled by the group's count and not by its own.
  `before` holds the previous phase's labels.
  """
  indices = _rule_indices(params, rules)
  if before is None:
    return jax.tree.map(lambda index: _group_name(rules[index][1], phase), indices)

  def name(index: int, old: str) -> str:
    rule = rules[index][1]
    entered = old.rpartition(' since phase ')[2]
    stays = old != 'frozen' and old == _group_name(rule, entered)
    return old if stays else _group_name(rule, phase)

  return jax.tree.map(name, indices, before)


def _rule_indices(params: Tree, rules: Table) -> Tree:
  """Return for each leaf the index of the rule that it follows."""
  numbered = [(pattern, index) for index, (pattern, _) in enumerate(rules)]
  return pytrees.label_by_rules(params, numbered)


def _group_name(rule: Rule | None, phase: int | str) -> str:
  return 'frozen' if rule is None else f'lr {rule.lr!r} decay {rule.decay!r} since phase {phase}'


def partition(
  params: Tree,
  rules: Table,
  *,
  direction: Callable[[float], optax.GradientTransformation],
  lr: float,
  factors: np.typing.ArrayLike = (1.0,),
  clip: float = 0.0,
  ema: float = 0.0,
  phase: int = 0,
  before: Tree | None = None,
  l2_sp: float = 0.0,
  transferred: Tree | None = None,
) -> Partition:
  """Return the partition of `params` (arrays or shapes) by the table.

  `direction` maps a weight decay to the optimizer's direction (adamw, sgd). The rate is
  lr · rule.lr · factors[step], with the run's own step and never a group's count. `clip` bounds
  the global norm of the live gradients (0: off); `ema` > 0 keeps an average of the live leaves.
  `l2_sp` > 0 pulls the live leaves that are `transferred` (bool for each; None: all of them) back
  to where they began. Raises a MedtlError where every leaf is frozen.
  """
  labels = label(params, rules, phase, before)
  live = jax.tree.map(lambda name: name != 'frozen', labels)
  if not any(jax.tree.leaves(live)):
    raise MedtlError(
      'every parameter is frozen; leave the head live, for instance freeze="depth(1.0)"'
    )
  groups: dict[str, optax.GradientTransformation] = {'frozen': optax.set_to_zero()}
  for name in sorted(set(jax.tree.leaves(labels)) - {'frozen'}):
    rate, decay = map(float, re.findall(r'(?:lr|decay) (\S+)', name))
    groups[name] = optax.chain(direction(decay), optax.scale(-lr * rate))
  chain: list[optax.GradientTransformation] = []
  if clip:
    chain.append(optax.masked(optax.clip_by_global_norm(clip), live))
  if l2_sp:
    pulled = live
    if transferred is not None:
      pulled = jax.tree.map(lambda alive, came: bool(alive and came), live, transferred)
    chain.append(optax.masked(anchor(l2_sp), pulled))
  chain.append(optax.multi_transform(groups, labels))
  chain.append(scale_by_table(factors))
  if ema:
    chain.append(optax.masked(average(ema), live))
  tx = optax.with_extra_args_support(optax.chain(*chain))
  key = (tuple(jax.tree.leaves(labels)), lr, clip, ema, l2_sp, len(padded(factors)))
  return Partition(rules, labels, live, tx, key)


class ScaleByTableState(NamedTuple):
  """State of `scale_by_table`."""

  factors: jax.Array


def scale_by_table(factors: np.typing.ArrayLike) -> optax.GradientTransformationExtraArgs:
  """Return a transformation that multiplies updates by factors[step]; the last factor holds on.

  The caller gives the step. The table is part of the state and not of the program, so that folds
  whose schedules differ by some steps run one compiled program.
  """
  values = padded(factors)

  def init(params: Tree) -> ScaleByTableState:
    return ScaleByTableState(jnp.asarray(values))

  def update(
    updates: Tree, state: ScaleByTableState, params: Tree = None, *, step: jax.Array, **_: Any
  ) -> tuple[Tree, ScaleByTableState]:
    factor = state.factors[jnp.minimum(step, len(values) - 1)]
    scaled = jax.tree.map(lambda u: (u * factor).astype(u.dtype), updates)
    return scaled, state

  return optax.GradientTransformationExtraArgs(init, update)


def padded(factors: np.typing.ArrayLike) -> np.ndarray:
  """Return the factors as float32 [2^n], n >= 6, the last one repeated.

  Schedules of many lengths thus need few compiled programs.
  """
  values = np.asarray(factors, np.float32)
  power = max(6, (len(values) - 1).bit_length())
  return np.pad(values, (0, 2**power - len(values)), mode='edge')


class Anchor(NamedTuple):
  """State of `anchor`."""

  origin: Tree


def anchor(strength: float) -> optax.GradientTransformation:
  """Return a transformation that adds strength · (params − params at init) to each gradient.

  This is L2-SP (Li et al. 2018, arXiv 1802.01483, equation 2). Where a later phase begins,
  `anchored` puts the run's first parameters in place of those at init.
  """

  def init(params: Tree) -> Anchor:
    return Anchor(jax.tree.map(jnp.copy, params))

  def update(updates: Tree, state: Anchor, params: Tree = None) -> tuple[Tree, Anchor]:
    pulled = jax.tree.map(lambda g, p, o: g + strength * (p - o), updates, params, state.origin)
    return pulled, state

  return optax.GradientTransformation(init, update)


def anchored(opt: Tree, params: Tree) -> Tree:
  """Return the optimizer state with the origins of `anchor` at `params`, the run's first ones."""
  first = pytrees.flatten(params)

  def value(keys: Sequence[Any], leaf: Any) -> Any:
    path = pytrees.path_of(keys)
    if '/origin/' not in path:
      return leaf
    return jnp.array(first[path.partition('/origin/')[2]])

  return jax.tree_util.tree_map_with_path(value, opt)


class Average(NamedTuple):
  """State of `average`."""

  ema: Tree


def average(decay: float) -> optax.GradientTransformation:
  """Return a transformation that changes no update, and averages the parameters in its state.

  ema ← decay · ema + (1 − decay) · (params + updates), from the parameters at init.
  """

  def init(params: Tree) -> Average:
    return Average(jax.tree.map(jnp.copy, params))

  def update(updates: Tree, state: Average, params: Tree = None) -> tuple[Tree, Average]:
    mean = jax.tree.map(
      lambda e, p, u: decay * e + (1 - decay) * (p + u), state.ema, params, updates
    )
    return updates, Average(mean)

  return optax.GradientTransformation(init, update)


def averaged_params(opt: Tree, params: Tree) -> Tree:
  """Return params with each leaf that has an average in the optimizer state replaced by it."""
  means = {}
  for path, leaf in pytrees.flatten(opt).items():
    if '/ema/' in path:
      means[path.partition('/ema/')[2]] = leaf
  leaves = pytrees.flatten(params)
  return pytrees.unflatten({path: means.get(path, leaf) for path, leaf in leaves.items()})


def carry_opt_state(old: Tree, new: Tree) -> Tree:
  """Return a phase's optimizer state `new`, with the previous phase's leaf where a path is in both.

  A path holds the group's name, so a leaf carries its state over only while its group stays.
  """
  known = pytrees.flatten(old)
  return jax.tree_util.tree_map_with_path(
    lambda keys, leaf: known.get(pytrees.path_of(keys), leaf), new
  )


def live_children(live: Tree) -> tuple[str, ...]:
  """Return the children with a live leaf: 'stem', 'stage3', 'head' …; only they see train=True.

  The backbone's last norm is not among them: it follows the last stage and has no mode of its own.
  """
  names: dict[str, None] = {}  # an ordered set
  for path, alive in pytrees.flatten(live).items():
    name = path.removeprefix('backbone/').partition('/')[0]
    if alive and name != 'norm':
      names[name] = None
  return tuple(names)


def frozen_depth(live: Tree) -> int:
  """Return how many children, counted from the stem, are frozen whole.

  N + 1 when the whole backbone is, the norm after its last stage included.
  """
  names = children(live)
  alive = set(live_children(live))
  norm = pytrees.flatten(live['backbone'].get('norm', {}))
  if any(norm.values()):
    alive.add(names[-1])
  for depth, name in enumerate(names):
    if name in alive:
      return depth
  return len(names)


def summary(parts: Partition, params: Tree) -> list[dict[str, Any]]:
  """Return a row for each rule: pattern, lr, decay (None: frozen), and its leaves and parameters.

  `lr` is the factor on the learning rate; `leaves` and `parameters` are how many follow the rule.
  """
  leaves: Counter[int] = Counter()
  parameters: Counter[int] = Counter()
  indices = jax.tree.leaves(_rule_indices(params, parts.rules))
  for index, leaf in zip(indices, jax.tree.leaves(params), strict=True):
    leaves[index] += 1
    parameters[index] += leaf.size
  rows = []
  for index, (pattern, rule) in enumerate(parts.rules):
    lr, decay = (None, None) if rule is None else rule
    row = {'pattern': pattern, 'lr': lr, 'decay': decay}
    rows.append(row | {'leaves': leaves[index], 'parameters': parameters[index]})
  return rows
