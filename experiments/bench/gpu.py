"""What is open on an accelerator, in one run: batches, FLOP utilisation, reading, attention.

Batches are swept against torch.compile with autocast. Without an accelerator the same code runs on
the CPU with small pictures, so that it is known to run, and says what it did not measure.
"""

import importlib.util
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.bench import cases, ours
from experiments.bench import input as reading
from experiments.bench.against import Worker, pictures
from experiments.bench.cases import Case
from medtl.models.layers.transformer import attend
from medtl.run import run_folder
from medtl.runtime import cpu

# dense bfloat16 FLOP/s of a device, from NVIDIA's data sheets (halved where these count sparsity)
PEAKS = {
  'B200': 2.25e15,
  'H200': 989e12,
  'H100': 989e12,
  'A100': 312e12,
  'L40S': 362e12,
  'L4': 121e12,
}
MODELS = ('vit_b16', 'resnet50')
REPEATS = 7
HEADER = (
  'net',
  'batch',
  'ours, images/s',
  'torch, images/s',
  'ratio',
  'model FLOP utilisation',
  'peak memory, GB',
)


def swept(folder, accelerated):
  """Print images a second of a full step in bfloat16, by batch.

  Beside them stand the ratio to PyTorch's and the share of the device's FLOP/s that is used.
  """
  with_torch = importlib.util.find_spec('torch') is not None
  size = 224 if accelerated else 32
  batches = (32, 64, 128, 256, 512) if accelerated else (4, 8)
  print(cases.table_head(HEADER))
  for model in MODELS:
    for batch in batches:
      case = Case(model, 'bfloat16', 'full', batch, size, f'{folder}/pictures')
      print(cases.table_line(row_of(case, with_torch)), flush=True)


def row_of(case, with_torch):
  """Return the cells of a case in the table of `swept`; nan where there is no PyTorch."""
  workers = [Worker('ours', case)]
  if with_torch:
    workers.append(Worker('theirs', case))
  seconds = [[] for _ in workers]
  for _ in range(REPEATS):
    for own, worker in zip(seconds, workers, strict=True):
      own.append(worker.time())
  ours = statistics.median(seconds[0])
  theirs = statistics.median(seconds[1]) if with_torch else float('nan')
  facts = workers[0].facts
  used = 'device unknown'
  for name, peak in PEAKS.items():
    if name in facts['device']:
      used = f'{facts["flops"] / ours / peak:.0%}'
      break
  memory = ' / '.join(f'{worker.end() / 1e9:.1f}' for worker in workers)
  speeds = [f'{case.batch / ours:.1f}', f'{case.batch / theirs:.1f}', f'{theirs / ours:.2f}']
  return [case.model, case.batch, *speeds, used, memory]


def fed(folder, accelerated):
  """Print what reading real pictures costs beside a batch that is there."""
  batch = 128 if accelerated else 4
  size = 224 if accelerated else 32
  case = Case('vit_b16', 'bfloat16', 'full', batch, size, f'{folder}/pictures')
  worker = Worker('ours', case)
  resident = batch / statistics.median(worker.time() for _ in range(REPEATS))
  worker.end()
  dataset = ours.context_of(case).data['train']
  read, early = reading.ahead(dataset, case)
  print(
    f'\nViT-B/16, batches of {batch}: {resident:.1f} images a second with a batch that is there, '
    f'{read:.1f} read ({resident / read - 1:+.0%} time a step); {early:.0%} of batches were on the '
    'device before the step before them had ended'
  )


def attention(accelerated):
  """Print the gradient of our attention against cuDNN's flash attention, at two lengths."""
  if not accelerated:
    return
  for tokens in (197, 1025):
    shape = (64, 12, tokens, 64)
    heads = [jax.random.normal(jax.random.key(i), shape, jnp.bfloat16) for i in range(3)]
    own = gradient_seconds(attend, heads)
    flash = gradient_seconds(flash_attention, heads)
    print(
      f'attention of {tokens} tokens, 64 × 12 heads of 64, with gradient: {own * 1e3:.2f} ms, '
      f'cuDNN flash {flash * 1e3:.2f} ms'
    )


def flash_attention(*heads):
  """Return cuDNN's attention of query, key and value [b, heads, n, d]."""
  turned = [jnp.moveaxis(head, 1, 2) for head in heads]
  attended = jax.nn.dot_product_attention(*turned, implementation='cudnn')
  return jnp.moveaxis(attended, 1, 2)


def gradient_seconds(attention, heads):
  """Return the seconds of one gradient, the mean over 20."""
  total = lambda *heads: attention(*heads).astype(jnp.float32).sum()
  gradient = jax.jit(jax.grad(total, (0, 1, 2)))
  jax.block_until_ready(gradient(*heads))
  begin = time.perf_counter()
  jax.block_until_ready([gradient(*heads) for _ in range(20)])
  return (time.perf_counter() - begin) / 20


def main(argv):
  """Print all of it."""
  if argv:
    raise SystemExit(f'--gpu takes nothing more, found {" ".join(argv)}')
  accelerated = os.environ.get('JAX_PLATFORMS') != 'cpu'
  cpu.settle()
  with tempfile.TemporaryDirectory() as folder:
    os.environ['MEDTL_CACHE'] = f'{folder}/cache'
    pictures(Path(folder) / 'pictures', 224, 640 if accelerated else 40)
    swept(folder, accelerated)
    fed(folder, accelerated)
    attention(accelerated)
  print(
    f'\n{time.strftime("%Y-%m-%d")}; {run_folder.hardware()}; jax {jax.__version__}; medians of '
    f'{REPEATS}, in turn; torch: torch.compile with autocast on a GPU, eager on a CPU'
  )
  if not accelerated:
    print(
      'NOT MEASURED, for want of a GPU: speed against torch.compile at 224 px, model FLOP '
      "utilisation, reading against a GPU's step, flash attention. The figures above come from "
      'pictures of 32 px on a CPU: they show that this program runs, and nothing else.'
    )
