"""A linear probe of many epochs from features computed once, against the usual loop.

That is PyTorch and transformers, the same checkpoint, a forward pass of every picture in every epoch, extrapolated from timed epochs.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from medtl import cli
from medtl.core.types import MedtlError
from medtl.data import batches
from medtl.evaluation import metrics, predictions
from medtl.run import assemble, run_folder, train

EPOCHS, TIMED, BATCH = 100, 2, 32


def main(argv):
  """Print the seconds and the AUROC of both ways of probing."""
  config = assemble.with_changes(
    cli.parse('train', argv)[1],
    (
      ('phases', (('depth(1.0)', f'{EPOCHS} epochs'),)),
      ('batch', BATCH),
      ('lr', 1e-3),
      ('head_lr', 1.0),
    ),
  )
  context = assemble.run_context(config)
  epoch, theirs = usual_loop(context)
  with tempfile.TemporaryDirectory() as folder:
    os.environ['MEDTL_CACHE'] = folder  # nothing is known beforehand
    begin = time.perf_counter()
    numbers = train.train(config, Path(folder) / 'run')
    ours, spans = (
      time.perf_counter() - begin,
      run_folder.read(Path(folder) / 'run', 'provenance.json')['spans'],
    )
    score = predictions.load(Path(folder) / 'run' / 'predictions' / 'test.npz').predictions
  assert numbers['images'] == len(score.y)
  test = context.data['test']
  print(
    f'\n| a probe of {EPOCHS} epochs, batches of {BATCH}, evaluated each epoch | seconds | test AUROC |\n|---|---|---|'
  )
  print(
    f'| features computed once: the whole run, from weights to page | {ours:.0f} | {metrics.auroc(score.score, score.y):.3f} |'
  )
  print(
    f'| a forward pass each epoch (torch): {EPOCHS} × {epoch:.1f} s, from {TIMED} timed epochs | {EPOCHS * epoch:.0f} | '
    f'{metrics.auroc(theirs, np.asarray(test.table["y"])):.3f} |'
  )
  print(
    f'\nratio {EPOCHS * epoch / ours:.1f}; ours spent '
    + ', '.join(f'{name} {seconds:.1f} s' for name, seconds in spans.items())
    + f'; {assemble.one_line(context)}; {run_folder.hardware()}'
  )


def torch_features(weights_file):
  """Return the function of a Batch that transformers' CLIP ViT-B/16 makes class tokens of, one for each example that counts."""
  import torch
  from transformers import CLIPVisionConfig, CLIPVisionModel

  from medtl.models.pretrained import checkpoint_files

  arrays = checkpoint_files.read(weights_file)
  net = CLIPVisionModel(
    CLIPVisionConfig(
      hidden_size=768,
      intermediate_size=3072,
      num_hidden_layers=12,
      num_attention_heads=12,
      patch_size=16,
    )
  )
  bare = (
    'embeddings.class_embedding' in net.state_dict()
  )  # transformers 5 names no vision_model any more
  state = {
    name.removeprefix('vision_model.') if bare else name: torch.from_numpy(
      np.ascontiguousarray(array)
    )
    for name, array in arrays.items()
  }
  missing, _ = net.load_state_dict(state, strict=False)
  if [name for name in missing if 'position_ids' not in name]:
    raise MedtlError(
      f'the file is no CLIP ViT-B/16 under the names of transformers: {missing[:3]} are missing'
    )
  net.eval()
  mean, std = (
    torch.tensor(values).reshape(1, -1, 1, 1)
    for values in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
  )

  @torch.no_grad()
  def features(batch):
    x = torch.from_numpy(np.ascontiguousarray(batch.x)).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
    return net((x - mean) / std).pooler_output[torch.from_numpy(batch.mask)]

  return features


def usual_loop(context):
  """Return (median seconds of an epoch with a forward pass of every picture, test probabilities after EPOCHS of them).

  The head's later epochs use the features of the last timed one: a frozen net gives the same ones again.
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

  seconds, kept = [], []
  for number in range(TIMED):
    begin, kept = time.perf_counter(), []
    fed = batches.train_batches(context.data['train'], BATCH, seed=0, start=number * context.epoch)
    for _ in range(context.epoch):
      batch = next(fed)
      x, y = features(batch), torch.from_numpy(batch.y[batch.mask]).long()
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
  with torch.no_grad():
    test = torch.cat(
      [
        torch.softmax(head(features(batch)), 1)
        for batch in batches.eval_batches(context.data['test'], BATCH)
      ]
    ).numpy()
  return statistics.median(seconds), test
