"""What a step sends and holds on many devices: on paper, and as compiled for simulated devices.

On paper it is computed for ViTs of four sizes. A ring all-reduce of s bytes over n devices sends
2 (n − 1)/n · s from each, a gather or a scatter half of that (Patarasuk & Yuan 2009).
Data parallel: one all-reduce of the gradients of live leaves.
fsdp: parameters are gathered for the forward pass, live ones again for the backward pass, and
gradients are scattered: 3 (n − 1)/n · s where all are live (Rajbhandari et al. 2020, section 7.2).
Hybrid: fsdp within a host of 8, and an all-reduce of what each device keeps between the hosts.
Gradients and parameters are float32.
"""

import math
import os
import re

import jax
import jax.numpy as jnp

from configs import base
from experiments.bench import cases
from medtl.core import pytrees
from medtl.models import child_name
from medtl.models.backbones import vit
from medtl.run import assemble
from medtl.training import step

NETS = {
  'ViT-B/16': dict(width=768, depth=12, heads=12),
  'ViT-L/16': dict(width=1024, depth=24, heads=16),
  'ViT-H/14': dict(width=1280, depth=32, heads=16, patch=14),
  'ViT-g/14': dict(width=1536, depth=40, heads=24, patch=14),
}
DEVICES = (8, 64, 256, 1024)
FREEZE = {'nothing': 0.0, 'half': 0.5, 'all but the head': 1.0}
HOST = 8  # devices of one host
BYTES = {'f32': 4, 's32': 4, 'u32': 4, 'bf16': 2, 'f16': 2, 'pred': 1, 's64': 8, 'f64': 8}
KINDS = 'all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'
COLLECTIVE = re.compile(rf'= (.*?) ({KINDS})(?:-start)?\(')
ARRAY = re.compile(r'(\w+)\[([\d,]*)\]')  # f32[8,128]


def parameters(**shape):
  """Return (parameters, those of the children below each depth) of a ViT."""
  net = vit.ViT(**shape)
  init = lambda: net.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False)
  leaves = pytrees.flatten(jax.eval_shape(init)['params'])
  below = [0]
  for index in range(net.stages + 1):
    child = f'{child_name(index)}/'
    size = sum(leaf.size for path, leaf in leaves.items() if path.startswith(child))
    below.append(below[-1] + size)
  return sum(leaf.size for leaf in leaves.values()), below


def sent(whole, live, devices):
  """Return the bytes that each device sends in a step: {way: (within a host, between hosts)}."""
  part = lambda n: (n - 1) / n
  hosts = max(1, devices // HOST)
  data = 2 * part(devices) * 4 * live
  cut = part(devices) * 4 * (whole + 2 * live)
  return {
    'data': data,
    'fsdp': cut,
    'hybrid, within a host': part(HOST) * 4 * (whole + 2 * live),
    'hybrid, between hosts': 2 * part(hosts) * 4 * live / HOST,
  }


def held(whole, live, cut):
  """Return the bytes of parameters, gradients and Adam's moments on one of `cut` devices."""
  return (4 * whole + 12 * live) / cut


def paper():
  """Print the table that is computed."""
  header = ['net', 'frozen', 'live', 'state, copied', 'state, fsdp=8']
  header += [f'{count} devices' for count in DEVICES]
  print(cases.table_line(header))
  print('|---|---|---:|---:|---:|' + '---:|' * len(DEVICES))
  for name, shape in NETS.items():
    whole, below = parameters(**shape)
    for words, share in FREEZE.items():
      live = whole - below[round(share * (len(below) - 1))] if share < 1 else 0
      live += 4 * (shape['width'] + 1)  # a head of four classes
      cells = [name, words, f'{live / 1e6:,.1f} M']
      cells += [f'{held(whole, live, cut) / 1e9:.2f} GB' for cut in (1, HOST)]
      for count in DEVICES:
        ways = sent(whole, live, count).values()
        cells.append(' / '.join(f'{value / 1e6:,.0f}' for value in ways))
      print(cases.table_line(cells))
  print(f'\nMB that a device sends in a step: {" / ".join(sent(1, 1, 8))}.\n')


def compiled(freeze, data, fsdp):
  """Return what a ViT-S/16's compiled step on eight simulated devices sends, and what paper says.

  Both are {collective: bytes of its results}.
  """
  config = base.get_config()
  with config.unlocked():
    config.data = dict(
      name='phantom.load',
      patients=40,
      scans=2,
      scanner='target',
      size=(224, 224),
      seed=0,
      ops='',
      split=dict(by='patient', folds=4, fold=0, seed=0),
    )
    config.model = dict(name='vit.vit_s16', weights='')
    config.phases = ((freeze, '2 epochs'),)
    config.batch = 8
    config.mesh.update(data=data, fsdp=fsdp)
  context = assemble.run_context(config)
  sent_by = {}
  for results, name in COLLECTIVE.findall(context.program(0).as_text()):
    for kind, shape in ARRAY.findall(results):
      numbers = math.prod(int(length) for length in shape.split(',') if length)
      sent_by[name] = sent_by.get(name, 0) + BYTES[kind] * numbers
  whole = pytrees.count_parameters(context.params)
  moving = step.select_live(context.params, context.phases[0].partition.live)
  live = pytrees.count_parameters(moving)
  return sent_by, {'all-reduce': 4 * live, 'all-gather': 4 * (whole + live)}


def main(argv):
  """Print what is computed, then what eight simulated devices' programs say."""
  del argv
  flags = os.environ.get('XLA_FLAGS', '')
  os.environ['XLA_FLAGS'] = f'{flags} --xla_force_host_platform_device_count={HOST}'
  paper()
  title = 'ViT-S/16 on 8 simulated devices'
  header = (title, 'frozen', 'collective', 'MB of results a device', 'on paper')
  print(cases.table_line(header))
  print('|---|---|---|---:|---:|')
  for data, fsdp in ((8, 1), (1, 8)):
    for freeze in ('none', 'depth(0.5)'):
      sent_by, expected = compiled(freeze, data, fsdp)
      for name, size in sorted(sent_by.items()):
        cells = [f'data={data}, fsdp={fsdp}', freeze, name, f'{size / 1e6:.1f}']
        cells.append(f'{expected.get(name, 0) / 1e6:.1f}')
        print(cases.table_line(cells), flush=True)
