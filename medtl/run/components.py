"""The parts of a config that name a function: their keys are those of its signature."""

import re
import sys
from collections.abc import Mapping
from inspect import Parameter
from types import ModuleType
from typing import Annotated, Any

from ml_collections import ConfigDict

from medtl import data, tasks
from medtl.core import annotation, expressions
from medtl.core.annotation import ABOVE_0, FROM_0, FROM_0_BELOW_1, Range
from medtl.core.types import MedtlError
from medtl.data import arguments, transforms
from medtl.runtime import sharding

FILLED = ('size', 'ndim', 'dtype')  # of a model or head: build_net adds those not given
# the range of a key of this name, in every model and head
RANGES = {
  **dict.fromkeys(('width', 'depth', 'heads', 'patch', 'early', 'ratio', 'size'), ABOVE_0),
  **dict.fromkeys(('head_width', 'window'), ABOVE_0),
  **dict.fromkeys(('registers', 'lora', 'lora_alpha'), FROM_0),
  **dict.fromkeys(('dropout', 'drop_path'), FROM_0_BELOW_1),
  'epsilon': ABOVE_0,
  'ndim': Range('from 1 to 3', lambda value: 1 <= value <= 3),
}
TEXT = Parameter('text', Parameter.KEYWORD_ONLY, annotation=str)


def parameters(config: ConfigDict, part: str) -> dict[str, Parameter]:
  """Return the parameters of 'data', 'data.split', 'model', 'head', 'task' or 'mesh' by key.

  Those of 'tests.b' or 'streams.b' are those of data. Of any other part none are known.
  """
  other = re.fullmatch(r'(?:tests|streams)\.(\w+)(\.split)?', part)
  if other:
    part = f'data{other[2] or ""}'
    name = config[other[0].partition('.')[0]][other[1]].get('name', config.data.name)
  else:
    name = config.data.name
  if part == 'data':
    return arguments.parameters(data.load, name)
  if part == 'data.split':
    return arguments.split_parameters()
  if part == 'model':
    return {'name': TEXT, 'weights': TEXT} | _model(config.model.name)
  if part == 'head':
    head = expressions.find(*head_of(config.head.name))
    known = expressions.parameters(head, given=('classes',))
    return {'name': TEXT} | _filled(_ranged(known))
  if part == 'mesh':
    return expressions.parameters(sharding.make_mesh)
  if part == 'task':
    return {'name': TEXT} | expressions.parameters(tasks.factory(config.task.name))
  return {}


def backbone_module(config: ConfigDict) -> ModuleType:
  """Return the module of the backbone's family, which holds RENAMES and WEIGHTS."""
  factory = expressions.find(config.model.name, 'medtl.models.backbones')
  return sys.modules[factory.__module__]


def _model(name: str) -> dict[str, Parameter]:
  """Return a factory's parameters; what build.network fills in may be left out."""
  factory = expressions.find(name, 'medtl.models.backbones')
  return _filled(_ranged(expressions.parameters(factory)))


def _filled(parameters: dict[str, Parameter]) -> dict[str, Parameter]:
  """Return the parameters, those that assemble.build_net fills in with a default."""
  for key in FILLED:
    if key in parameters and parameters[key].default is Parameter.empty:
      parameters[key] = parameters[key].replace(default=None)
  return parameters


def head_of(name: str) -> tuple[str, str]:
  """Return (name, package) of a head: 'linear' is of models.heads, 'decoders.unet' of models."""
  return name, 'medtl.models' if '.' in name else 'medtl.models.heads'


def _ranged(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
  """Return the parameters, those of RANGES with their range."""
  ranged = dict(parameters)
  for name in set(parameters) & set(RANGES):
    kind: Any = annotation.kind_of(parameters[name])
    if kind is not Any:
      ranged[name] = parameters[name].replace(annotation=Annotated[kind, RANGES[name]])
  return ranged


def check(config: ConfigDict) -> None:
  """Raise a MedtlError for the first key that its function does not take, or not of that size."""
  for part in ('data', 'model', 'head', 'task'):
    name = config[part].to_dict().get('name')
    if not isinstance(name, str):
      raise MedtlError(f'config.{part}: name is {name!r}; expected the name of a function, as text')
  keys = arguments.fitted(data.load, config.data.to_dict())
  _operations(keys.get('ops', ''))
  for part in ('model', 'head'):
    where = f'config.{part} ({config[part].name})'
    expressions.checked_keys(where, config[part].to_dict(), parameters(config, part))
  _heads(config)
  for part in ('task', 'mesh'):
    expressions.checked_keys(f'config.{part}', config[part].to_dict(), parameters(config, part))


def _operations(text: str) -> None:
  """Raise for the first operation whose arguments do not go together."""
  for call in expressions.parse_chain(text):
    operation = expressions.public(transforms)[call.name]
    annotation.agree(operation, expressions.bind(operation, call, given=('example',)))


def _heads(config: ConfigDict) -> None:
  """Raise where the heads of a model's attention cannot share its width."""
  defaults = {key: one.default for key, one in parameters(config, 'model').items()}
  keys = defaults | config.model.to_dict()
  if {'width', 'heads'} <= set(keys) and keys['width'] % keys['heads']:
    raise MedtlError(
      f'config.model ({config.model.name}): heads is {keys["heads"]}; expected a '
      f'divisor of the width, {keys["width"]}'
    )
