"""Every config, shrunk, runs two phases of one step to its page."""

import json
import math
import re
from pathlib import Path

import pytest

from medtl.core.types import MedtlError, Missing
from medtl.run import open_keys, run_folder, train

ROOT = Path(__file__).parents[1]
CONFIGS = [
  f'configs/{path.stem}.py'
  for path in sorted((ROOT / 'configs').glob('[!_]*.py'))
  if path.stem != 'base'
]
VARIANTS = [
  f'{config}{variant}'
  for config in CONFIGS
  for variant in ['', *sorted(set(re.findall(r'\.py(:\w+)', (ROOT / config).read_text())))]
]
NARROW = {
  'vit': dict(width=16, heads=2, patch=16),
  'resnet': dict(width=4),
  'efficientnet': dict(width=0.1),
  'mlp': dict(width=4),
  'unet_encoder': dict(widths=(4, 8)),
}


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
  monkeypatch.chdir(ROOT)


def shrunk(name):
  """The config with its own phases, optimizer, task and augmentation.

  Small pictures, a narrow net, no download, one step a phase.
  """
  config = run_folder.load_config(name)
  with config.unlocked():
    config.data = dict(
      name='phantom.load',
      patients=24,
      scans=1,
      size=(32, 32),
      split=dict(by='patient', folds=3, fold=0, seed=0),
      ops='',
    )
    if config.task.name == 'segmentation':
      config.data.target = 'mask'
    elif 'kind' in config.task and config.task.kind == 'binary':
      config.data.classes = ('NORMAL', 'CNV')
    config.streams = {name: dict(config.data) for name in config.streams}
    config.tests = {name: dict(config.data, seed=1) for name in config.tests}
    family = config.model.name.partition('.')[0]
    keys = {key: value for key, value in config.model.items() if key not in ('weights', 'size')}
    config.model = dict(keys, **NARROW[family], weights='')
    config.phases = tuple((freeze, '1 steps') for freeze, _ in config.phases)
    config.compare = ()
    config.random_frozen = True
    config.batch, config.resamples, config.workers = 4, 20, 0
  return config.lock()


# A family each, in `make test`; the slow suite runs them all. Deep nets take a minute to compile.
QUICK = {
  'configs/heart_sites.py',
  'configs/hippocampus_unet3d.py:short',
  'configs/oct_vit.py:offline',
}


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in VARIANTS]
)
def test_every_config_runs_two_steps(name, tmp_path):
  numbers = train.train(open_keys.settle(shrunk(name), tmp_path / 'run'), tmp_path / 'run')
  first = numbers['headline'][0]
  assert math.isfinite(numbers['metrics'][first]['value'])
  assert (tmp_path / 'run' / 'report.html').exists()
  plan = json.loads((tmp_path / 'run' / 'plan.json').read_text())
  assert all(phase['live'] > 0 for phase in plan['phases'])


def test_the_quick_configs_are_there():
  assert set(VARIANTS) >= QUICK


@pytest.mark.parametrize('config', CONFIGS)
def test_every_config_opens_with_its_command(config):
  assert f'python -m medtl.main --config={config}' in (ROOT / config).read_text().split('"""')[1]


@pytest.mark.parametrize('config', ['configs/oct_vit.py', 'configs/oct_resnet.py'])
def test_without_a_network_it_says_what_is_missing_and_what_to_do_instead(
  config, tmp_path, monkeypatch
):
  monkeypatch.setenv('MEDTL_OFFLINE', '1')
  with pytest.raises(
    Missing,
    match=rf'(?s)octmnist_224.npz.*URL +https://zenodo.*checksum +md5 .*put it at .*instead '
    rf'+{config}:offline',
  ):
    train.train(run_folder.load_config(config), tmp_path)


def test_a_component_key_that_its_function_does_not_know_is_an_error(tmp_path):
  config = run_folder.load_config('configs/quickstart.py')
  with config.unlocked():
    config.head = dict(name='linear', pol='mean')
  with pytest.raises(
    MedtlError, match=r"config.head \(linear\) has no key 'pol'; did you mean 'pool'"
  ):
    train.train(config.lock(), tmp_path)


def test_run_folders_are_named_by_every_key():
  config = run_folder.load_config('configs/quickstart.py')
  name = run_folder.default_name('configs/oct_vit.py:offline', config)
  assert re.fullmatch(r'oct_vit-offline-[0-9a-f]{8}', name)
  with config.unlocked():
    config.lr = 0.5
  assert run_folder.default_name('configs/oct_vit.py:offline', config) != name
