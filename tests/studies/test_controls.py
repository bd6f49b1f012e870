"""The control of a transfer: the same network, frozen as chance drew it."""

import numpy as np

from medtl.core import pytrees
from medtl.report import comparison
from medtl.run import assemble, run_folder
from medtl.studies import controls

CONFIG = run_folder.load_config('tests/tiny.py')


def test_only_the_head_of_the_control_moves_and_its_norms_know_the_data():
  changes = controls.random_frozen(CONFIG)
  context = assemble.run_context(assemble.with_changes(CONFIG, changes))
  (phase,) = context.phases
  live = {path for path, moves in pytrees.flatten(phase.partition.live).items() if moves}
  assert live and all(path.startswith('head/') for path in live)
  statistics = pytrees.flatten(context.extra['batch_stats'])
  means = [leaf for path, leaf in statistics.items() if path.endswith('stem/norm/mean')]
  assert np.abs(means[0]).max() > 0
  assert phase.steps == assemble.run_context(CONFIG).phases[-1].steps


def test_a_backbone_without_running_statistics_has_no_rule_for_them():
  model = dict(name='vit.vit_ti16', weights='', size=(32, 32), width=16, heads=2, depth=2)
  config = assemble.with_changes(CONFIG, (('model', model),))
  assert dict(controls.random_frozen(config))['norms'] == ()
  assert dict(controls.random_frozen(CONFIG))['norms'] == (('backbone/.*', 'target'),)


def row(name, value, low, high):
  gap = dict(value=value, low=low, high=high, p=None, p_holm=None, reason='')
  differences = {comparison.CONTROL: None if name == 'random' else {'auroc': gap}}
  return dict(name=name, differences=differences)


def test_the_transfer_helped_only_where_the_interval_excludes_nothing():
  rows = [
    row('full', 0.2, 0.1, 0.3),
    row('probe', 0.1, -0.01, 0.2),
    row('worse', -0.2, -0.3, -0.1),
    row('random', 0, 0, 0),
  ]
  (said,) = comparison.transfer(rows, 'auroc')
  helped, unclear = said.split('; ')
  assert 'full' in helped and 'probe' not in helped and 'worse' not in helped
  assert 'probe' in unclear and 'worse' in unclear and 'full' not in unclear


def test_where_nothing_helped_it_is_not_said_to():
  rows = [row('probe', 0.1, -0.01, 0.2), row('random', 0, 0, 0)]
  (said,) = comparison.transfer(rows, 'auroc')
  assert said.startswith('It is not shown to have helped probe (+0.100 [-0.010, 0.200])')
  assert comparison.transfer([row('random', 0, 0, 0)], 'auroc') == []
