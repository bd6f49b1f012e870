"""PyTorch's side, as its users would write it.

That is transformers, channels_last, autocast, AdamW and clipping; on a GPU torch.compile.
"""

import os
import time

import torch

from experiments.bench import cases

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
LITE0 = (1, 2, 2, 3, 3, 4, 1)  # blocks of EfficientNet-Lite0's stages


def net(case):
  """Return (model, its children from the stem on, as lists of modules) of random weights."""
  import transformers

  if case.model == 'resnet50':
    config = transformers.ResNetConfig(num_labels=cases.CLASSES)
    model = transformers.ResNetForImageClassification(config)
    stages = [[stage] for stage in model.resnet.encoder.stages]
    return model, [[model.resnet.embedder], *stages]
  if case.model.startswith('vit'):
    width = {'vit_s16': 384, 'vit_b16': 768}[case.model]
    config = transformers.ViTConfig(
      hidden_size=width,
      num_attention_heads=width // 64,
      intermediate_size=4 * width,
      num_labels=cases.CLASSES,
      image_size=case.size,
      attn_implementation='sdpa',
    )
    model = transformers.ViTForImageClassification(config)
    blocks = model.vit.encoder.layer if hasattr(model.vit, 'encoder') else model.vit.layers
    return model, [[model.vit.embeddings], *([block] for block in blocks)]
  from efficientnet_lite_pytorch import EfficientNet

  model = EfficientNet.from_name('efficientnet-lite0', num_classes=cases.CLASSES)
  blocks = iter(model._blocks)
  stages = [[next(blocks) for _ in range(count)] for count in LITE0]
  stem = [model._conv_stem, model._bn0]
  last = [model._conv_head, model._bn1]
  return model, [stem, *stages, last]


def prepare(case, frozen):
  """Return (a function that does the work once and waits for it, facts).

  The first `frozen` children do not move.
  """
  torch.set_num_threads(os.cpu_count())
  torch.manual_seed(0)
  model, children = net(case)
  model = model.to(DEVICE, memory_format=torch.channels_last).train(case.work != 'forward')
  for child in children[:frozen]:
    for module in child:
      module.eval().requires_grad_(False)
  begin = time.perf_counter()
  run = torch.compile(model) if DEVICE == 'cuda' else model
  x = torch.rand(case.batch, 3, case.size, case.size, device=DEVICE)
  x = x.to(memory_format=torch.channels_last)
  y = torch.arange(case.batch, device=DEVICE) % cases.CLASSES
  live = [leaf for leaf in model.parameters() if leaf.requires_grad]
  adam = torch.optim.AdamW(live, lr=1e-3, weight_decay=1e-4)
  cast = torch.autocast(DEVICE, torch.bfloat16, enabled=case.dtype == 'bfloat16')

  def logits():
    with cast:
      outputs = run(x)
    return getattr(outputs, 'logits', outputs).float()

  def forward():
    with torch.no_grad():
      wait(torch.softmax(logits(), 1))

  def step():
    adam.zero_grad()
    loss = torch.nn.functional.cross_entropy(logits(), y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(live, 1.0)
    adam.step()
    wait(loss.detach())

  work = forward if case.work == 'forward' else step
  work()
  facts = {'compile': time.perf_counter() - begin}
  facts['device'] = torch.cuda.get_device_name() if DEVICE == 'cuda' else 'cpu'
  facts['version'] = f'torch {torch.__version__}'
  return work, facts


def wait(value):
  """Return when the value is there."""
  value.cpu()


def peak():
  """Return the accelerator's peak memory in bytes, None on a CPU."""
  return torch.cuda.max_memory_allocated() if DEVICE == 'cuda' else None
