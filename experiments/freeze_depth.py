"""How deep to freeze: the head first, then everything above each depth.

python -m medtl.main ablate --config=configs/oct_vit.py:kermany --config.data.root=FOLDER --sweep=experiments/freeze_depth.py --folds
"""

from medtl import build


def sweep(config):
  """Yield (name, overrides) for the full fine-tune (depth 0), each depth, and the linear probe (depth N + 1)."""
  count = build.children(config)
  for depth in range(count + 1):
    yield f'depth{depth:02d}', (('phases', tuple((freeze if index < len(config.phases) - 1 else f'depth({depth})', duration)
                                                for index, (freeze, duration) in enumerate(config.phases))),)
