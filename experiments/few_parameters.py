"""How few parameters are enough: biases, norms and low-rank updates of a vision transformer.

They are compared with the probe and the last block.

python -m medtl.main ablate --config=configs/oct_vit.py:kermany --config.data.root=FOLDER \
  --config.model.weights=FILE --sweep=experiments/few_parameters.py --folds \
  --config.data.split.folds=3

BitFit: Ben Zaken et al. 2022 (arXiv 2106.10199); norms only: Frankle et al. 2021 (2003.00152);
LoRA: Hu et al. 2022 (2106.09685).
"""

from medtl.run import assemble

AXIS = 'what is live beside the head'
AGAINST = ('probe',)
LORA = (
  (2, ('query', 'value')),
  (8, ('query', 'value')),
  (8, ('query', 'key', 'value', 'out', 'up', 'down')),
)


def sweep(config):
  """Yield (name, overrides) of vision transformers."""
  *_, (_, duration) = config.phases
  live = lambda freeze: ('phases', ((freeze, duration),))
  yield 'probe', (live('depth(1.0)'),)
  yield 'last block', (live(f'depth({assemble.count_children(config) - 1})'),)
  yield 'biases', (live('all_but_biases'),)
  yield 'norms', (live('all_but_norms'),)
  for rank, targets in LORA:
    model = {**config.model.to_dict(), 'lora': rank, 'lora_targets': targets}
    where = 'all' if len(targets) > 2 else 'qv'
    yield f'lora{rank}-{where}', (('model', model), live('all_but_lora'))
