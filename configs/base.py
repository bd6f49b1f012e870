"""The defaults of every key of a run; medtl/run/config_keys.py declares each with its meaning.

A config starts from here, replaces whole components, and returns the result locked.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from medtl.core.expressions import did_you_mean
from medtl.core.types import MedtlError
from medtl.run import config_keys


def get_config() -> ConfigDict:
  """Return the defaults, locked: an unknown key is an error."""
  return config_keys.defaults().lock()


def variant(word: str, **variants: Callable[[ConfigDict], None]) -> ConfigDict:
  """Return the defaults as the function of that name changes them.

  'published' is the one without a name.
  """
  if (word or 'published') not in variants:
    raise MedtlError(f'the config has no variant {word!r}; {did_you_mean(word, variants)}')
  config = get_config()
  with config.unlocked():
    variants[word or 'published'](config)
  return config
