"""What moves, and how fast: one table of (regex on the parameter path, Rule) becomes one optax.multi_transform.

First full match wins, every leaf is covered, a rule that matches nothing is an error. Frozen leaves get `set_to_zero` in the same jit
as the gradient, so XLA drops their backward pass; clipping and EMA look at live leaves only.
"""

import re
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
  key: tuple  # two partitions by one `direction` with equal keys are one program


def children(params: Mapping[str, Any]) -> list[str]:
  """Return the numbered children of the backbone in order: stem, stage1, …"""
  names = params['backbone']
  return [
    'stem',
    *sorted((name for name in names if name.startswith('stage')), key=lambda name: int(name[5:])),
  ]


def rule_table(
  params: Tree,
  freeze: str,
  *,
  decay: float = 0.0,
  head_lr: float = 1.0,
  lr_decay: float = 1.0,
  rules: Sequence[tuple[str, float, float]] = (),
) -> Table:
  """Return the rules: frozen first, then the user's (regex, lr factor, decay), then one or two for each live child.

  `lr_decay` multiplies the rate once more for each stage further from the head (Clark et al. 2020, ELECTRA, section 3.2): stage N
  has lr_decay, the stem lr_decay^(N+1), the head `head_lr`. Norms, biases and other vectors take no weight decay.
  """
  names = children(params)
  frozen = [
    (pattern, FROZEN)
    for call in expressions.functions(freeze, language, given=('children',))
    for pattern in call(names)
  ]
  for call in expressions.parse_chain(freeze):
    if call.name.startswith('all_but'):
      (kept,) = expressions.single_function(
        f'{call.name}({", ".join(map(repr, call.args))})', language, given=('children',)
      )(names)
      if all(
        expressions.compiled_regex(kept, call.name).fullmatch(path)
        for path in pytrees.flatten(params)
        if path.startswith('backbone/')
      ):
        raise MedtlError(
          f'freeze {freeze!r}: {call.name} matches nothing that could stay live, so the whole backbone would be frozen; '
          "write 'depth(1.0)' if that is meant"
          + (
            ', or give the updates a rank: config.model.lora=8'
            if call.name == 'all_but_lora'
            else ''
          )
        )
  given: Table = [(pattern, Rule(*rest)) for pattern, *rest in rules]
  generated: Table = [
    ('head/.*/(kernel|embedding)', Rule(head_lr, decay)),
    ('head/.*', Rule(head_lr, 0.0)),
  ]
  for index, name in reversed(list(enumerate(names))):
    where = f'backbone/({name}|norm)' if index == len(names) - 1 else f'backbone/{name}'
    rate = lr_decay ** (len(names) - index)
    generated += [(f'{where}/(.*/)?kernel', Rule(rate, decay)), (f'{where}/.*', Rule(rate, 0.0))]
  return frozen + given + _needed(frozen + given, generated, list(pytrees.flatten(params)))


def _needed(before: Table, generated: Table, paths: Sequence[str]) -> Table:
  """Return the generated rules that are the first match of some path: the user's own may leave none for them."""
  taken = [expressions.compiled_regex(pattern, 'freeze') for pattern, _ in before]
  left = [path for path in paths if not any(pattern.fullmatch(path) for pattern in taken)]
  kept: Table = []
  for pattern, rule in generated:
    rest = [path for path in left if not re.fullmatch(pattern, path)]
    if len(rest) < len(left):
      kept.append((pattern, rule))
    left = rest
  return kept


def label(params: Tree, rules: Table, phase: int = 0, before: Tree | None = None) -> Tree:
  """Return a group name for each leaf: its rule and the phase in which it became live.

  A leaf that becomes live later gets a group of its own, because one group has one Adam count: inside an older group its first update
  would be scaled by the group's count and not by its own. `before` holds the previous phase's labels.
  """
  found = pytrees.label_by_rules(
    params, [(pattern, index) for index, (pattern, _) in enumerate(rules)]
  )
  if before is None:
    return jax.tree.map(lambda index: _name(rules[index][1], phase), found)

  def name(index: int, old: str) -> str:
    entered = old.rpartition(' since phase ')[2]
    same = old != 'frozen' and old == _name(rules[index][1], entered)
    return _name(rules[index][1], entered if same else phase)

  return jax.tree.map(name, found, before)


def _name(rule: Rule | None, phase: int | str) -> str:
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

  `direction` maps a weight decay to the optimizer's direction (adamw, sgd). The rate is lr · rule.lr · factors[step] with the run's own
  step, never a group's count. `clip` bounds the global norm of the live gradients (0: off), `ema` > 0 keeps an average of the live leaves.
  `l2_sp` > 0 pulls the live leaves that are `transferred` (bool for each) back to where they began.
  """
  labels = label(params, rules, phase, before)
  live = jax.tree.map(lambda name: name != 'frozen', labels)
  if not any(jax.tree.leaves(live)):
    raise MedtlError(
      'every parameter is frozen; leave the head live, for instance freeze="depth(1.0)"'
    )
  groups: dict[str, optax.GradientTransformation] = {'frozen': optax.set_to_zero()}
  for name in sorted(set(jax.tree.leaves(labels)) - {'frozen'}):
    rate, decay = (float(word) for word in re.findall(r'(?:lr|decay) (\S+)', name))
    groups[name] = optax.chain(direction(decay), optax.scale(-lr * rate))
  parts = [optax.masked(optax.clip_by_global_norm(clip), live)] if clip else []
  if l2_sp:
    came = transferred if transferred is not None else jax.tree.map(lambda _: True, live)
    parts += [optax.masked(anchor(l2_sp), jax.tree.map(lambda a, b: bool(a and b), live, came))]
  parts += [optax.multi_transform(groups, labels), scale_by_table(factors)]
  parts += [optax.masked(average(ema), live)] if ema else []
  key = (tuple(jax.tree.leaves(labels)), lr, clip, ema, l2_sp, len(padded(factors)))
  return Partition(rules, labels, live, optax.with_extra_args_support(optax.chain(*parts)), key)


class ScaleByTableState(NamedTuple):
  """State of `follow`."""

  factors: jax.Array


def scale_by_table(factors: np.typing.ArrayLike) -> optax.GradientTransformationExtraArgs:
  """Return a transformation that multiplies by factors[step], the step given by the caller; the last factor holds on.

  The schedule is data, not program: folds that differ by some steps run one compiled program.
  """
  values = padded(factors)

  def update(
    updates: Tree, state: ScaleByTableState, params: Tree = None, *, step: jax.Array, **_: Any
  ) -> tuple[Tree, ScaleByTableState]:
    factor = state.factors[jnp.minimum(step, len(values) - 1)]
    return jax.tree.map(lambda u: (u * factor).astype(u.dtype), updates), state

  return optax.GradientTransformationExtraArgs(
    lambda params: ScaleByTableState(jnp.asarray(values)), update
  )


def padded(factors: np.typing.ArrayLike) -> np.ndarray:
  """Return the factors as a table whose length is a power of two, so that schedules of many lengths make programs of few."""
  values = np.asarray(factors, np.float32)
  return np.pad(
    values, (0, (1 << max(6, (len(values) - 1).bit_length())) - len(values)), mode='edge'
  )


class Anchor(NamedTuple):
  """State of `anchor`."""

  origin: Tree


def anchor(strength: float) -> optax.GradientTransformation:
  """Return a transformation that adds strength · (params − params at init): L2-SP (Li et al. 2018, arXiv 1802.01483, equation 2).

  Between phases `anchored` puts the run's first weights in.
  """

  def update(updates: Tree, state: Anchor, params: Tree = None) -> tuple[Tree, Anchor]:
    return jax.tree.map(
      lambda g, p, o: g + strength * (p - o), updates, params, state.origin
    ), state

  return optax.GradientTransformation(lambda params: Anchor(jax.tree.map(jnp.copy, params)), update)


def anchored(opt: Tree, params: Tree) -> Tree:
  """Return the optimizer state with the origins of `anchor` at these params, those of the run's begin."""
  begun = pytrees.flatten(params)
  return jax.tree_util.tree_map_with_path(
    lambda keys, leaf: (
      jnp.array(begun[path.partition('/origin/')[2]])
      if '/origin/' in (path := pytrees.path_of(keys))
      else leaf
    ),
    opt,
  )


class Average(NamedTuple):
  """State of `average`."""

  ema: Tree


def average(decay: float) -> optax.GradientTransformation:
  """Return a transformation that changes nothing and keeps ema ← decay · ema + (1 − decay) · (params + updates)."""

  def update(updates: Tree, state: Average, params: Tree = None) -> tuple[Tree, Average]:
    return updates, Average(
      jax.tree.map(lambda e, p, u: decay * e + (1 - decay) * (p + u), state.ema, params, updates)
    )

  return optax.GradientTransformation(
    lambda params: Average(jax.tree.map(jnp.copy, params)), update
  )


def averaged_params(opt: Tree, params: Tree) -> Tree:
  """Return params with the leaves that have an average replaced by it; without an average, params as they are."""
  means = {
    path.partition('/ema/')[2]: leaf
    for path, leaf in pytrees.flatten(opt).items()
    if '/ema/' in path
  }
  return pytrees.unflatten(
    {path: means.get(path, leaf) for path, leaf in pytrees.flatten(params).items()}
  )


def carry_opt_state(old: Tree, new: Tree) -> Tree:
  """Return the optimizer state `new` of a phase with what `old`, the previous phase's, has under the same group and path."""
  known = pytrees.flatten(old)
  return jax.tree_util.tree_map_with_path(
    lambda keys, leaf: known.get(pytrees.path_of(keys), leaf), new
  )


def live_children(live: Tree) -> tuple[str, ...]:
  """Return the children with a live leaf, the only ones applied in training mode: 'stem', 'stage3', 'head' …"""
  paths = [
    path.removeprefix('backbone/').partition('/')[0]
    for path, alive in pytrees.flatten(live).items()
    if alive
  ]
  names = dict.fromkeys(paths)
  if 'norm' in names:  # it follows the last stage and has no mode of its own
    names.pop('norm')
  return tuple(names)


def frozen_depth(live: Tree) -> int:
  """Return how many children, counted from the stem, are frozen whole; N + 1 when the backbone is (the norm with it)."""
  names, alive = children(live), set(live_children(live))
  if any(pytrees.flatten(live['backbone'].get('norm', {})).values()):
    alive.add(names[-1])
  return next((index for index, name in enumerate(names) if name in alive), len(names))


def summary(parts: Partition, params: Tree) -> list[dict[str, Any]]:
  """Return a row for each rule: pattern, learning-rate factor (None: frozen), decay, how many leaves and numbers it takes."""
  index = pytrees.label_by_rules(
    params, [(pattern, i) for i, (pattern, _) in enumerate(parts.rules)]
  )
  sizes = list(
    zip(jax.tree.leaves(index), (leaf.size for leaf in jax.tree.leaves(params)), strict=True)
  )
  return [
    {
      'pattern': pattern,
      'lr': rule and rule.lr,
      'decay': rule and rule.decay,
      'leaves': sum(i == number for i, _ in sizes),
      'parameters': sum(size for i, size in sizes if i == number),
    }
    for number, (pattern, rule) in enumerate(parts.rules)
  ]
