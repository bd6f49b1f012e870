"""A linear probe of many epochs from features computed once, against the usual loop.

The loop is PyTorch's and transformers', with the same checkpoint and a forward pass of every
picture in every epoch. Its time is extrapolated from timed epochs.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.bench import cases
from medtl import cli
from medtl.core.types import MedtlError
from medtl.data import batches
from medtl.evaluation import metrics, predictions
from medtl.run import assemble, run_folder, train

EPOCHS = 100
TIMED = 2  # epochs
BATCH = 32
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's pictures
STD = (0.26862954, 0.26130258, 0.27577711)


def main(argv):
  """Print the seconds and the AUROC of both ways of probing."""
  _, config, _ = cli.parse('train', argv)
  phases = (('depth(1.0)', f'{EPOCHS} epochs'),)
  changes = (('phases', phases), ('batch', BATCH), ('lr', 1e-3), ('head_lr', 1.0))
  config = assemble.with_changes(config, changes)
  context = assemble.run_context(config)
  epoch, their_score = usual_loop(context)
  with tempfile.TemporaryDirectory() as folder:
    os.environ['MEDTL_CACHE'] = folder  # nothing is known beforehand
    run = Path(folder) / 'run'
    begin = time.perf_counter()
    numbers = train.train(config, run)
    ours = time.perf_counter() - begin
    spans = run_folder.read(run, 'provenance.json')['spans']
    test = predictions.load(run / 'predictions' / 'test.npz').predictions
  assert numbers['images'] == len(test.y)
  theirs = EPOCHS * epoch
  auroc = metrics.auroc(test.score, test.y)
  their_auroc = metrics.auroc(their_score, np.asarray(context.data['test'].table['y']))
  title = f'a probe of {EPOCHS} epochs, batches of {BATCH}, evaluated each epoch'
  once = 'features computed once: the whole run, from weights to page'
  each = f'a forward pass each epoch (torch): {EPOCHS} × {epoch:.1f} s, from {TIMED} timed epochs'
  print('\n' + cases.table_head((title, 'seconds', 'test AUROC')))
  print(cases.table_line((once, f'{ours:.0f}', f'{auroc:.3f}')))
  print(cases.table_line((each, f'{theirs:.0f}', f'{their_auroc:.3f}')))
  spent = ', '.join(f'{name} {seconds:.1f} s' for name, seconds in spans.items())
  run_words = f'{assemble.one_line(context)}; {run_folder.hardware()}'
  print(f'\nratio {theirs / ours:.1f}; ours spent {spent}; {run_words}')


def torch_features(weights_file):
  """Return the function of a Batch that gives its class tokens by transformers' CLIP ViT-B/16.

  There is one for each example that counts.
  """
  import torch
  from transformers import CLIPVisionConfig, CLIPVisionModel

  from medtl.models.pretrained import checkpoint_files

  config = CLIPVisionConfig(
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    patch_size=16,
  )
  net = CLIPVisionModel(config)
  # transformers 5 names no vision_model any more
  bare = 'embeddings.class_embedding' in net.state_dict()
  state = {}
  for name, array in checkpoint_files.read(weights_file).items():
    own_name = name.removeprefix('vision_model.') if bare else name
    state[own_name] = torch.from_numpy(np.ascontiguousarray(array))
  missing, _ = net.load_state_dict(state, strict=False)
  if [name for name in missing if 'position_ids' not in name]:
    raise MedtlError(
      f'the file is no CLIP ViT-B/16 under the names of transformers: {missing[:3]} are missing'
    )
  net.eval()
  mean = torch.tensor(MEAN).reshape(1, -1, 1, 1)
  std = torch.tensor(STD).reshape(1, -1, 1, 1)

  @torch.no_grad()
  def features(batch):
    x = torch.from_numpy(np.ascontiguousarray(batch.x)).permute(0, 3, 1, 2)
    x = (x.expand(-1, 3, -1, -1) - mean) / std
    return net(x).pooler_output[torch.from_numpy(batch.mask)]

  return features


def usual_loop(context):
  """Return (median seconds of an epoch with a forward pass of every picture, test probabilities).

  The probabilities are those after EPOCHS epochs. The head's later epochs use the features of the
  last timed one: a frozen net gives the same ones again.
  """
  import torch

  features = torch_features(context.config.model.weights)
  torch.manual_seed(0)
  classes = len(context.classes)
  head = torch.nn.Sequential(torch.nn.BatchNorm1d(768, affine=False), torch.nn.Linear(768, classes))
  adam = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-4)

  def step(x, y):
    head.train()
    adam.zero_grad()
    torch.nn.functional.cross_entropy(head(x), y).backward()
    adam.step()

  seconds = []
  for number in range(TIMED):
    begin = time.perf_counter()
    kept = []
    start = number * context.epoch
    of_training = batches.train_batches(context.data['train'], BATCH, seed=0, start=start)
    for _ in range(context.epoch):
      batch = next(of_training)
      x = features(batch)
      y = torch.from_numpy(batch.y[batch.mask]).long()
      step(x, y)
      kept.append((x, y))
    head.eval()
    for batch in batches.eval_batches(context.data['val'], BATCH):
      head(features(batch))
    seconds.append(time.perf_counter() - begin)
  for _ in range(EPOCHS - TIMED):
    for x, y in kept:
      step(x, y)
  head.eval()
  scores = []
  with torch.no_grad():
    for batch in batches.eval_batches(context.data['test'], BATCH):
      scores.append(torch.softmax(head(features(batch)), 1))
  return statistics.median(seconds), torch.cat(scores).numpy()
