"""The run folder: the only interface between a run and the programs that come after it."""

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from medtl import evaluate, log, tree
from medtl.types import MedtlError

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'scikit-learn', 'grain')


def name(config_name: str, config: ConfigDict) -> str:
  """Return '<config>[-<variant>]-<8 hex of the config>'."""
  path, _, variant = config_name.partition(':')
  return '-'.join([Path(path).stem, *([variant] if variant else []), digest(config)])


def digest(config: ConfigDict) -> str:
  """Return 8 hex digits that stand for every key of the config."""
  return hashlib.sha256(text(config).encode()).hexdigest()[:8]


def text(config: ConfigDict) -> str:
  """Return the config as JSON."""
  return json.dumps(config.to_dict(), indent=1, sort_keys=True, default=str)


def config(workdir: Path) -> ConfigDict:
  """Return the config that a run folder was made with; tuples come back as tuples."""
  return ConfigDict(_tuples(read(workdir, 'config.json'))).lock()


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(inner) for key, inner in value.items()}
  return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def claim(workdir: Path, config: ConfigDict) -> None:
  """Make the folder this config's, or check that it is; another config's folder is an error that says what differs."""
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / 'config.json'
  if not path.exists():
    write(path, text(config))
    return
  old, new = (tree.flatten(json.loads(words)) for words in (path.read_text(), text(config)))
  differ = [f'  {key}: {old.get(key, "(absent)")} there, {new.get(key, "(absent)")} asked for'
            for key in sorted(old.keys() | new.keys()) if old.get(key, None) != new.get(key, None)]
  if differ:
    raise MedtlError(f'{workdir} is the run folder of another config:\n' + '\n'.join(differ[:12])
                     + '\nchoose another --workdir, or leave it out')


def claimed(workdir: Path) -> None:
  """Check that there is a run folder."""
  if not (workdir / 'config.json').exists():
    raise MedtlError(f'{workdir} is no run folder (it has no config.json); expected the folder that a training run printed')


def write(path: Path, words: str) -> None:
  """Write aside and rename: a reader sees the old file or the new one, never half of it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  aside = path.with_name(path.name + '.part')
  aside.write_text(words)
  aside.replace(path)


def write_json(path: Path, value: Any) -> None:
  """Write a value as JSON, numpy numbers and arrays included."""
  write(path, json.dumps(value, indent=1, default=lambda v: v.tolist() if hasattr(v, 'tolist') else str(v)))


def read(workdir: Path, name: str) -> Any:
  """Return the JSON file of that name."""
  path = workdir / name
  if not path.exists():
    raise MedtlError(f'{path} is missing: {workdir} is not a finished run; start its training command again')
  return json.loads(path.read_text())


def hardware() -> str:
  """Return what the run computed on, in words."""
  import jax
  devices = jax.devices()
  cores = f'{os.cpu_count()} cores, {platform.machine()}'
  return f'{len(devices)} × {devices[0].device_kind} ({cores})' if devices[0].platform != 'cpu' else f'CPU, {cores}'


def versions() -> dict[str, str]:
  """Return the versions that decide the numbers."""
  return {'python': platform.python_version(), **{package: importlib.metadata.version(package) for package in PACKAGES}}
