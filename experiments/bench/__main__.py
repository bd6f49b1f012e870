"""How fast, in one run on one machine; tables in markdown.

Absolute times say something about this machine alone, ratios a little more.

python -m experiments.bench --against=torch [--models=resnet50,…] [--works=forward,…]
    [--dtypes=float32,bfloat16] [--repeats=7]
    Steps of ours and of PyTorch's, in processes of their own, in turn. Needs
    requirements/bench.txt.
python -m experiments.bench --gpu
    All that is open on a GPU in one run: batches swept, FLOP utilisation, reading, attention.
    Needs requirements/bench.txt.
python -m experiments.bench --startup
    Process start to the first step, with and without compiled programs kept; what imports cost.
python -m experiments.bench --input [--models=vit_s16,resnet50] [--npz=BREASTMNIST]
    Pictures a second that the host reads, against what a step eats.
python -m experiments.bench --scale
    What a step sends and holds on many devices: computed for ViT-B … ViT-g, and read off the
    programs of eight simulated devices.
python -m experiments.bench probe --config=configs/oct_vit.py:kermany --config.data.root=FOLDER
    --config.model.weights=FILE
    A linear probe of 100 epochs from features computed once, against the usual loop. Needs
    requirements/bench.txt and a CLIP ViT-B/16.
python -m experiments.bench ablation --workdir=STUDY
    What a finished study spent on training against its steps times the median step.
"""

import importlib
import sys

from medtl.runtime import cpu

KNOWN = {
  '--against': 'against',
  '--gpu': 'gpu',
  '--startup': 'startup',
  '--input': 'input',
  '--scale': 'scale',
  'probe': 'probe',
  'ablation': 'ablation',
}


def main(argv):
  """Run one of the benchmarks."""
  word = argv[0].partition('=')[0] if argv else ''
  if word not in KNOWN:
    raise SystemExit(__doc__)
  cpu.prepare()
  benchmark = importlib.import_module(f'experiments.bench.{KNOWN[word]}')
  benchmark.main(argv if '=' in argv[0] else argv[1:])


if __name__ == '__main__':
  main(sys.argv[1:])
