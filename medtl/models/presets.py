"""Published architectures that differ in the values of a backbone's fields alone."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from medtl.models import Backbone

Kind = TypeVar('Kind', bound=Backbone)


def preset(kind: type[Kind], docstring: str, **defaults: Any) -> Callable[..., Kind]:
  """Return a factory of backbones of a kind with a field `size`.

  It takes any field of theirs by name, with these defaults.
  """
  of_flax = ('parent', 'name')
  fields = [field for field in dataclasses.fields(kind) if field.name not in of_flax]
  for field in fields:
    defaults.setdefault(field.name, field.default)

  def factory(**keys: Any) -> Kind:
    values = defaults | keys
    values['size'] = tuple(values['size'])
    return kind(**values)

  parameters = []
  for field in fields:
    parameter = inspect.Parameter(
      field.name,
      inspect.Parameter.KEYWORD_ONLY,
      default=defaults[field.name],
      annotation=field.type,
    )
    parameters.append(parameter)
  # a config's keys are checked against the signature, so that a misspelt one is found
  factory.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
  factory.__doc__ = docstring
  factory.__module__ = kind.__module__  # where a config looks for it
  return factory
