"""The batch that fits is found without a crash.

Where one does not fit, what the error offers does.
"""

import re

import jax
import jax.numpy as jnp
import pytest

from medtl import cli
from medtl.core.types import MedtlError
from medtl.run import assemble, batch_size, frozen_features, open_keys, train
from medtl.runtime import cpu
from tests import tiny

PLAIN = (
  ('phases', (('none', '2 epochs'),)),
  ('batch', 16),
  ('optimizer', 'sgd'),
  ('model', dict(name='vit.vit_ti16', patch=8, width=16, depth=2, heads=1, weights='')),
)


@pytest.fixture(scope='module')
def context():
  return assemble.run_context(assemble.with_changes(tiny.get_config(), PLAIN))


def with_(context, **changes):
  return assemble.run_context(
    assemble.with_changes(context.config, tuple(changes.items())), like=context
  )


def test_a_host_has_memory():
  assert 1e8 < cpu.memory() < 1e14
  assert batch_size.room() > 1e8


@pytest.mark.slow
def test_the_largest_batch_fits_and_the_next_does_not(context, monkeypatch):
  need = {batch: batch_size.bytes_needed(with_(context, batch=batch)) for batch in (1, 2, 4)}
  assert need[1] < need[2] < need[4]
  said = []
  for batch in (1, 2):
    monkeypatch.setattr(
      batch_size,
      'room',
      lambda batch=batch: (need[batch] + need[2 * batch]) / 2 / (1 - batch_size.SPARE),
    )
    assert batch_size.largest_batch(context, said.append) == batch
    assert f'{2 * batch} would not fit' in said[-1]
  monkeypatch.setattr(batch_size, 'room', lambda: 1e12)
  assert batch_size.largest_batch(context, said.append) == 4, '40 examples keep 8 steps'
  assert 'keeps 8 steps' in said[-1]
  monkeypatch.setattr(batch_size, 'room', lambda: 1e3)
  with pytest.raises(MedtlError, match='not even a batch of 1 fits'):
    batch_size.largest_batch(context)


def test_what_an_error_offers_fits(context, monkeypatch):
  """A step that needs more than there is is not begun.

  Each way out that is named leads out, and the one before it does not.
  """
  there = batch_size.bytes_needed(with_(context, batch=8)) / (1 - batch_size.SPARE) + 1
  assert there < context.memory(0)
  monkeypatch.setattr(batch_size, 'room', lambda: there)
  with (
    pytest.raises(
      MedtlError, match=r'phase 1 needs .* for a step of 16 examples, and the'
    ) as error,
    batch_size.explain_out_of_memory(context, 0, 0),
  ):
    raise AssertionError('this is not reached')
  said = str(error.value)
  batch, cut, depth = (
    int(number)
    for number in (
      re.search(words, said)[1]
      for words in (r'--config.batch=(\d+)', r'--config.accumulate=(\d+)', r'depth\((\d+)\)')
    )
  )
  assert batch == 8
  for changes in (
    {'batch': batch},
    {'accumulate': cut},
    {'phases': ((f'depth({depth})', '2 epochs'),)},
  ):
    assert (
      batch_size.bytes_needed(
        assemble.run_context(assemble.with_changes(context.config, tuple(changes.items())))
      )
      <= there
    ), changes
  assert (
    batch_size.bytes_needed(with_(context, phases=((f'depth({depth - 1})', '2 epochs'),)))
    > (1 - batch_size.SPARE) * there
  )


def test_what_xla_says_of_lacking_memory_is_answered(context):
  with (
    pytest.raises(MedtlError, match=r'What fits: --config\.batch=8'),
    batch_size.explain_out_of_memory(context, 0, frozen_features.start_child(context, 0)),
  ):
    jax.jit(lambda: jnp.zeros((2**21, 2**22)))().block_until_ready()
  with pytest.raises(ZeroDivisionError), batch_size.explain_out_of_memory(context, 0, 0):
    1 / 0


def test_auto_is_a_word_for_a_number_and_a_run_keeps_what_it_found(tmp_path, monkeypatch):
  path = str(tiny.__file__)
  _, config, _ = cli.parse('train', [f'--config={path}', '--config.batch=auto', '--config.lr=0.1'])
  assert config.batch == 'auto' and config.lr == 0.1
  found = open_keys.settle(config, tmp_path)
  assert found.batch == 4 and found.lr == 0.1
  train.run_folder.open_or_verify(tmp_path, found)
  (tmp_path / 'plan.json').write_text('{}')  # the run has begun
  monkeypatch.setattr(batch_size, 'largest_batch', lambda *_: pytest.fail('looked for again'))
  assert open_keys.settle(config, tmp_path).batch == 4
