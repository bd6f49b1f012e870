"""Are the first layers of a ResNet shared by all kinds of images: the first k frozen, for every k.

python -m medtl.main ablate --config=configs/oct_resnet.py:keras --config.data.root=FOLDER \
  --config.model.weights=FILE --sweep=experiments/shared_layers.py
python -m experiments.shared_layers STUDY
    how much the full fine-tune changed what each child makes of the test pictures (linear CKA)

The claim, often made of ResNet-50: "the first 10 to 15 layers faithfully represent features across
MRI, CT and ultrasound". If so, freezing them costs nothing against the full fine-tune, and costs
less than freezing layers that chance drew. A layer is a convolution on the main path, in the order
of the network; k goes from the stem through the end of every block. 'frozen 10' has the first ten
as the checkpoint gave them, 'random 10' as chance drew them, both frozen; all others begin with
the checkpoint and train.
"""

import sys
from pathlib import Path

from medtl.core.types import MedtlError
from medtl.features.similarity import cka
from medtl.run import assemble, frozen_features, run_folder

AXIS = 'layers frozen, counted from the stem'
AGAINST = ('full',)


def sweep(config):
  """Yield (name, overrides)."""
  *_, (_, duration) = config.phases
  yield 'full', (('phases', (('none', duration),)),)
  for layers, pattern in boundaries(config):
    phases = (('phases', ((f'match({pattern!r})', duration),)),)
    yield f'frozen {layers}', phases
    fresh = (('fresh', (*config.fresh, pattern)), ('random_frozen', True))
    # what chance drew is at least scaled by the data, as the checkpoint's layers were by theirs
    norms = (('norms', ((pattern, 'target'), *config.norms)),)
    yield f'random {layers}', (*phases, *fresh, *norms)


def control(name):
  """Return the variant that says what the checkpoint's frozen layers were worth."""
  return name.replace('frozen', 'random').replace('full', 'random 1')


def boundaries(config):
  """Yield (number of layers, regex of their parameters) up to the stem and each block."""
  net, _ = assemble.blank_net(config)
  backbone = net.backbone
  if not hasattr(backbone, 'depths'):
    raise MedtlError('shared_layers counts the layers of a ResNet; set config.model to one')
  of_block = 2 if backbone.block.expansion == 1 else 3
  layers = 1
  parts = ['stem']
  yield layers, pattern(parts)
  for stage, depth in enumerate(backbone.depths, 1):
    for block in range(depth):
      layers += of_block
      parts.append(f'stage{stage}/block{block}')
      yield layers, pattern(parts)


def pattern(parts):
  """Return the regex of all parameters of these parts of a backbone."""
  return f'backbone/({"|".join(parts)})/.*'


def main(argv):
  """Print the CKA of each child before and after the full fine-tune of a study."""
  study = Path(argv[0])
  config = run_folder.read_config(study / 'full')
  before = assemble.run_context(config)
  after = assemble.run_context(
    assemble.with_changes(config, (('model.weights', f'run:{study / "full"}'), ('fresh', ()))),
    study / 'full',
  )
  print('| child | linear CKA of pooled features before and after, test pictures |')
  print('|---|---|')
  depths = range(1, len(before.net.children) + 1)
  pairs = zip(
    frozen_features.vectors(before, depths, 'mean'),
    frozen_features.vectors(after, depths, 'mean'),
    strict=True,
  )
  for (depth, one), (_, other) in pairs:
    print(f'| {before.net.children[depth - 1]} | {cka(one["test"], other["test"]):.3f} |')


if __name__ == '__main__':
  main(sys.argv[1:])
