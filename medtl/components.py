"""The parts of a config that name a function: their keys are those of its signature."""

from inspect import Parameter

from ml_collections import ConfigDict

from medtl import data, mesh, spec, tasks
from medtl.data import arguments
from medtl.types import MedtlError

FILLED = ('size', 'ndim', 'dtype')     # of a model: build.network adds those that are not given
TEXT = Parameter('text', Parameter.KEYWORD_ONLY, annotation=str)


def parameters(config: ConfigDict, part: str) -> dict[str, Parameter]:
  """Return the parameters of 'data', 'data.split', 'model', 'head' or 'task' by key.

  Of any other part none are known.
  """
  if part == 'data':
    return arguments.parameters(data.load, config.data.name)
  if part == 'data.split':
    return arguments.split_parameters()
  if part == 'model':
    return {'name': TEXT, 'weights': TEXT} | _model(config.model.name)
  if part == 'head':
    head = spec.find(config.head.name, 'medtl.models.heads')
    return {'name': TEXT} | spec.parameters(head, given=('classes',))
  return spec.parameters(tasks.loss_of) if part == 'task' else {}


def _model(name: str) -> dict[str, Parameter]:
  """Return a factory's parameters; what build.network fills in may be left out."""
  factory = spec.find(name, 'medtl.models')
  found = spec.parameters(factory)
  for key in FILLED:
    if key in found and found[key].default is Parameter.empty:
      found[key] = found[key].replace(default=None)
  return found


def check(config: ConfigDict) -> None:
  """Raise a MedtlError for the first key that its function does not take, or not of that kind."""
  for part in ('data', 'model', 'head'):
    name = config[part].to_dict().get('name')
    if not isinstance(name, str):
      raise MedtlError(f'config.{part}: name is {name!r}; expected the name of a function, as text')
  arguments.fitted(data.load, config.data.to_dict())
  for part in ('model', 'head'):
    where = f'config.{part} ({config[part].name})'
    spec.keys(where, config[part].to_dict(), parameters(config, part))
  spec.keys('config.task', config.task.to_dict(), parameters(config, 'task'))
  spec.keys('config.mesh', config.mesh.to_dict(), spec.parameters(mesh.make))
