"""configs/blueprint.py is the printed recipe: its numbers, in the config and in a run's plan."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtl.core import pytrees
from medtl.models.backbones import resnet
from medtl.run import assemble, run_folder, validate
from medtl.tasks import classification

ROOT = Path(__file__).parents[1]
VARIANTS = ('', ':kermany', ':offline')
EXAMPLES = 100
PHASE_OF_ALL = (('none', '20 epochs'),)


@pytest.fixture(params=VARIANTS)
def config(request, monkeypatch):
  monkeypatch.chdir(ROOT)
  return run_folder.load_config(f'configs/blueprint.py{request.param}')


@pytest.fixture(scope='module')
def phases():
  """The phases of the recipe on the parameters of a whole ResNet-50, and the parameters' shapes."""
  config = run_folder.load_config(f'{ROOT}/configs/blueprint.py')
  settled = assemble.with_changes(config, (('task.kind', 'multiclass'),))
  net, _ = assemble.build_net(settled, (224, 224, 1), 'abcd')
  init = lambda key: net.init(key, jnp.zeros((1, 224, 224, 1)), train=False)
  shapes = jax.eval_shape(init, jax.random.key(0))['params']
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  return assemble.phases(config, zeros, EXAMPLES), shapes


def test_the_backbone_is_a_resnet_50_with_public_weights(config):
  assert config.model.name == 'resnet.resnet50'
  assert config.truncate == 0


def test_without_a_variant_the_weights_come_from_their_publisher():
  config = run_folder.load_config(f'{ROOT}/configs/blueprint.py')
  entry = resnet.WEIGHTS[config.model.weights]
  assert entry.url.startswith('https://download.pytorch.org/models/resnet50-')


def test_each_number_of_the_recipe(config):
  assert config.phases == (('depth(1.0)', '10 epochs'), ('depth(4)', '10 epochs'))
  assert config.lr == 1e-4
  assert config.head_lr == 1.0
  assert config.lr_decay == 1.0
  assert config.schedule == 'constant()'
  assert config.task.loss == 'focal(gamma=2.0)'
  assert config.head.name == 'linear'
  assert config.patience == 0  # a phase is not ended before its ten epochs
  assert config.data.split.folds == 5
  assert config.data.split.by in ('patient', 'auto')


def test_cross_validation_is_what_the_commands_ask_for(config):
  docstring = (ROOT / 'configs/blueprint.py').read_text().split('"""')[1]
  joined = re.sub(r'\\\n *', '', docstring)
  commands = [line for line in joined.splitlines() if line.startswith('python -m')]
  assert len(commands) == len(VARIANTS)
  assert all(command.endswith(' --folds') for command in commands)
  if config.data.split.by == 'patient':
    assert validate.count_folds(config) == 5


def test_ten_epochs_of_the_head_alone_then_more_layers(phases):
  (first, second), shapes = phases
  epoch = -(-EXAMPLES // 8)
  assert first.steps == 10 * epoch
  live = live_paths(first)
  assert live == {path for path in pytrees.flatten(shapes) if path.startswith('head/')}
  assert live < live_paths(second)
  more = live_paths(second) - live
  assert {path.split('/')[1] for path in more} == {'stage4'}


def test_the_rate_is_the_same_for_every_layer_that_moves(phases):
  for phase in phases[0]:
    factors = {rule.lr for _, rule in phase.partition.rules if rule is not None}
    assert factors == {1.0}


@pytest.mark.parametrize('step', [0, 60, 259])
def test_the_rate_is_one_ten_thousandth_from_the_first_step_to_the_last(step):
  """Adam's first update is the rate, whatever the gradient; `step` is the run's."""
  config = run_folder.load_config(f'{ROOT}/configs/blueprint.py')
  params = {'backbone': {}, 'head': {'dense': {'kernel': np.ones((2, 3), np.float32)}}}
  without_decay = assemble.with_changes(config, (('decay', 0.0), ('phases', PHASE_OF_ALL)))
  tx = assemble.phases(without_decay, params, EXAMPLES)[0].partition.tx
  updates, _ = tx.update(params, tx.init(params), params, step=jnp.asarray(step))
  np.testing.assert_allclose(updates['head']['dense']['kernel'], -1e-4, rtol=1e-4)


def live_paths(phase):
  """The paths of the parameters that move in a phase."""
  return {path for path, live in pytrees.flatten(phase.partition.live).items() if live}


@pytest.mark.parametrize('kind, classes', [('binary', 2), ('multiclass', 4)])
def test_the_loss_is_focal_with_gamma_two(config, kind, classes):
  loss = classification.loss_of(kind=kind, loss=config.task.loss)
  outputs = np.linspace(-1, 2, classes, dtype=np.float32)[None]
  p = np.exp(outputs) / np.exp(outputs).sum()
  expected = -((1 - p[0, 1]) ** 2) * np.log(p[0, 1])
  np.testing.assert_allclose(loss(outputs, jnp.array([1])), expected, rtol=1e-5)
