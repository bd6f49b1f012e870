"""What is open on an accelerator, in one run: batches swept against torch.compile with autocast, FLOP utilisation, reading, attention.

Without one the same code runs on the CPU with small pictures, so that it is known to run, and says what it did not measure.
"""

import importlib.util
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

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


def swept(folder, accelerated):
  """Print images a second of a full step in bfloat16 by batch, the ratio to PyTorch's, and what share of the device's FLOP/s is used."""
  known = importlib.util.find_spec('torch') is not None
  heads = (
    'net',
    'batch',
    'ours, images/s',
    'torch, images/s',
    'ratio',
    'model FLOP utilisation',
    'peak memory, GB',
  )
  print(f'| {" | ".join(heads)} |\n' + '|---' * len(heads) + '|')
  for model in MODELS:
    for batch in (32, 64, 128, 256, 512) if accelerated else (4, 8):
      case = Case(
        model, 'bfloat16', 'full', batch, 224 if accelerated else 32, f'{folder}/pictures'
      )
      ours, theirs = Worker('ours', case), Worker('theirs', case) if known else None
      pairs = [(ours.time(), theirs.time() if theirs else float('nan')) for _ in range(REPEATS)]
      one, other = (statistics.median(side) for side in zip(*pairs, strict=True))
      peak = next((peak for name, peak in PEAKS.items() if name in ours.facts['device']), None)
      used = f'{ours.facts["flops"] / one / peak:.0%}' if peak else 'device unknown'
      memory = [side.end() for side in (ours, theirs) if side]
      print(
        f'| {model} | {batch} | {batch / one:.1f} | {batch / other:.1f} | {other / one:.2f} | {used} | '
        f'{" / ".join(f"{size / 1e9:.1f}" for size in memory)} |',
        flush=True,
      )


def fed(folder, accelerated):
  """Print what reading real pictures costs beside a batch that is there."""
  case = Case(
    'vit_b16',
    'bfloat16',
    'full',
    128 if accelerated else 4,
    224 if accelerated else 32,
    f'{folder}/pictures',
  )
  worker = Worker('ours', case)
  resident = case.batch / statistics.median(worker.time() for _ in range(REPEATS))
  worker.end()
  read, early = reading.ahead(reading.ours.made(case).data['train'], case)
  print(
    f'\nViT-B/16, batches of {case.batch}: {resident:.1f} images a second with a batch that is there, {read:.1f} read '
    f'({resident / read - 1:+.0%} time a step); {early:.0%} of batches were on the device before the step before them had ended'
  )


def attention(accelerated):
  """Print the gradient of our attention against cuDNN's flash attention, at two numbers of tokens."""
  if not accelerated:
    return
  for tokens in (197, 1025):
    heads = [
      jax.random.normal(jax.random.key(i), (64, 12, tokens, 64), jnp.bfloat16) for i in range(3)
    ]
    flash = lambda *heads: jnp.moveaxis(
      jax.nn.dot_product_attention(
        *(jnp.moveaxis(head, 1, 2) for head in heads), implementation='cudnn'
      ),
      1,
      2,
    )
    took = []
    for how in (attend, flash):
      run = jax.jit(
        jax.grad(lambda *heads, how=how: how(*heads).astype(jnp.float32).sum(), (0, 1, 2))
      )
      jax.block_until_ready(run(*heads))
      begin = time.perf_counter()
      jax.block_until_ready([run(*heads) for _ in range(20)])
      took.append((time.perf_counter() - begin) / 20)
    print(
      f'attention of {tokens} tokens, 64 × 12 heads of 64, with gradient: {took[0] * 1e3:.2f} ms, cuDNN flash {took[1] * 1e3:.2f} ms'
    )


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
    f'\n{time.strftime("%Y-%m-%d")}; {run_folder.hardware()}; jax {jax.__version__}; medians of {REPEATS}, in turn; torch: '
    'torch.compile with autocast on a GPU, eager on a CPU'
  )
  if not accelerated:
    print(
      "NOT MEASURED, for want of a GPU: speed against torch.compile at 224 px, model FLOP utilisation, reading against a GPU's step, "
      'flash attention. The figures above come from pictures of 32 px on a CPU: they show that this program runs, and nothing else.'
    )
