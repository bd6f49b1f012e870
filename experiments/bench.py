"""How fast, in one run on one machine; tables in markdown. Absolute times say something about this machine alone, ratios a little more.

python -m experiments.bench probe --config=configs/oct_vit.py:kermany --config.data.root=FOLDER --config.model.weights=FILE
    A linear probe of 100 epochs from features computed once, against the usual loop (PyTorch and transformers, the same checkpoint, a
    forward pass of every picture in every epoch, extrapolated from timed epochs). Needs requirements/bench.txt and a CLIP ViT-B/16.
python -m experiments.bench ablation --workdir=STUDY
    What a finished study spent on training against its steps times the median step, timed alone on what each variant trains on.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from medtl import build, commandline, evaluate, metrics, prefix, run, runfolder
from medtl.data import stream
from medtl.main import quiet_cpu
from medtl.types import MedtlError

EPOCHS, TIMED, BATCH = 100, 2, 32


def probe(argv):
  """Print the seconds and the AUROC of both ways of probing."""
  config = build.changed(commandline.parse('train', argv)[1], (
    ('phases', (('depth(1.0)', f'{EPOCHS} epochs'),)), ('batch', BATCH), ('lr', 1e-3), ('head_lr', 1.0)))
  parts = build.parts(config)
  epoch, theirs = usual_loop(parts)
  with tempfile.TemporaryDirectory() as folder:
    os.environ['MEDTL_CACHE'] = folder                   # nothing is known beforehand
    begin = time.perf_counter()
    numbers = run.train(config, Path(folder) / 'run')
    ours, spans = time.perf_counter() - begin, runfolder.read(Path(folder) / 'run', 'provenance.json')['spans']
    score = evaluate.load(Path(folder) / 'run' / 'predictions' / 'test.npz').predictions
  assert numbers['images'] == len(score.y)
  test = parts.data['test']
  print(f'\n| a probe of {EPOCHS} epochs, batches of {BATCH}, evaluated each epoch | seconds | test AUROC |\n|---|---|---|')
  print(f'| features computed once: the whole run, from weights to page | {ours:.0f} | {metrics.auroc(score.score, score.y):.3f} |')
  print(f'| a forward pass each epoch (torch): {EPOCHS} × {epoch:.1f} s, from {TIMED} timed epochs | {EPOCHS * epoch:.0f} | '
        f'{metrics.auroc(theirs, np.asarray(test.table["y"])):.3f} |')
  print(f'\nratio {EPOCHS * epoch / ours:.1f}; ours spent ' + ', '.join(f'{name} {seconds:.1f} s' for name, seconds in spans.items())
        + f'; {build.sentence(parts)}; {runfolder.hardware()}')


def torch_features(weights_file):
  """Return the function of a Batch that transformers' CLIP ViT-B/16 makes class tokens of, one for each example that counts."""
  import torch
  from transformers import CLIPVisionConfig, CLIPVisionModel

  from medtl.models import weights
  arrays = weights.read(weights_file)
  net = CLIPVisionModel(CLIPVisionConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                                         patch_size=16))
  bare = 'embeddings.class_embedding' in net.state_dict()             # transformers 5 names no vision_model any more
  state = {name.removeprefix('vision_model.') if bare else name: torch.from_numpy(np.ascontiguousarray(array))
           for name, array in arrays.items()}
  missing, _ = net.load_state_dict(state, strict=False)
  if [name for name in missing if 'position_ids' not in name]:
    raise MedtlError(f'the file is no CLIP ViT-B/16 under the names of transformers: {missing[:3]} are missing')
  net.eval()
  mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in
               ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))

  @torch.no_grad()
  def features(batch):
    x = torch.from_numpy(np.ascontiguousarray(batch.x)).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
    return net((x - mean) / std).pooler_output[torch.from_numpy(batch.mask)]

  return features


def usual_loop(parts):
  """Return (median seconds of an epoch with a forward pass of every picture, test probabilities after EPOCHS of them).

  The head's later epochs use the features of the last timed one: a frozen net gives the same ones again.
  """
  import torch
  features = torch_features(parts.config.model.weights)
  torch.manual_seed(0)
  classes = len(parts.classes)
  head = torch.nn.Sequential(torch.nn.BatchNorm1d(768, affine=False), torch.nn.Linear(768, classes))
  adam = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-4)

  def step(x, y):
    head.train()
    adam.zero_grad()
    torch.nn.functional.cross_entropy(head(x), y).backward()
    adam.step()

  seconds, kept = [], []
  for number in range(TIMED):
    begin, kept = time.perf_counter(), []
    batches = stream.batches(parts.data['train'], BATCH, seed=0, start=number * parts.epoch)
    for _ in range(parts.epoch):
      batch = next(batches)
      x, y = features(batch), torch.from_numpy(batch.y[batch.mask]).long()
      step(x, y)
      kept.append((x, y))
    head.eval()
    for batch in stream.once(parts.data['val'], BATCH):
      head(features(batch))
    seconds.append(time.perf_counter() - begin)
  for _ in range(EPOCHS - TIMED):
    for x, y in kept:
      step(x, y)
  head.eval()
  with torch.no_grad():
    test = torch.cat([torch.softmax(head(features(batch)), 1) for batch in stream.once(parts.data['test'], BATCH)]).numpy()
  return statistics.median(seconds), test


def ablation(argv):
  """Print for each variant of a study the seconds that training took and those that its steps need."""
  workdir = Path(next(word.partition('=')[2] for word in argv if word.startswith('--workdir=')))
  rows, like = json.loads((workdir / 'study.json').read_text())['rows'], None
  print('| variant | steps | median step alone | steps × median | training | ratio | compiling, evaluating, saving, the rest |')
  print('|' + '---|' * 7)
  total = [0.0, 0.0]
  for row in rows:
    folder = workdir / row['name']
    runs = sorted(folder.glob('fold*/')) or [folder]
    steps = sum(phase['steps'] for one in runs for phase in runfolder.read(one, 'plan.json')['phases'])
    like = parts = build.parts(runfolder.config(runs[0]), like=like)
    median, spans = alone(parts), row['spans']
    rest = sum(spans.values()) - spans['train']
    print(f'| {row["name"]} | {steps} | {median * 1e3:.1f} ms | {steps * median:.1f} s | {spans["train"]:.1f} s | '
          f'{spans["train"] / (steps * median):.2f} | {rest:.1f} s |')
    total = [total[0] + steps * median, total[1] + spans['train']]
  print(f'\ntraining {total[1]:.0f} s, steps × median {total[0]:.0f} s: ratio {total[1] / total[0]:.2f}; {runfolder.hardware()}')


def alone(parts, repeats=9):
  """Return the median seconds of a step of the last phase on batches of what it trains on."""
  index = len(parts.phases) - 1
  sides, first = prefix.boundary(parts, index, parts.params, parts.extra), prefix.first(parts, index)
  batch = build.on_device(next(stream.batches(sides['train'], parts.config.batch, seed=0)))
  program, state, seconds = parts.program(index, first), parts.start(index), []
  for _ in range(repeats + 1):
    begin = time.perf_counter()
    state, _ = jax.block_until_ready(program(state, batch))
    seconds.append(time.perf_counter() - begin)
  return statistics.median(seconds[1:])


def main(argv):
  """Run one of the benchmarks."""
  known = {'probe': probe, 'ablation': ablation}
  if not argv or argv[0] not in known:
    raise SystemExit(__doc__)
  quiet_cpu()
  known[argv[0]](argv[1:])


if __name__ == '__main__':
  main(sys.argv[1:])
